//! Moving a ref by compare-and-swap, with git's own protocol on files.
//!
//! The ref's value is read only while `<ref>.lock` is held, and `packed-refs` is
//! read from disk then, never from a cache: `git pack-refs` removes a loose ref
//! under the same lock after it has written the packed one, so under the lock
//! one of the two always has the truth. The new value is synced before it gets
//! the ref's name. (The library's own transaction syncs nothing, takes a ref
//! that already has the new value for a success, and compares packed refs by
//! time of change.)

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gix::bstr::ByteSlice;
use tempfile::NamedTempFile;

use super::commit::Author;
use super::name::{ObjectName, RefName};
use super::open::{Durability, Inner, reason};
use super::snapshot::ReadError;
use super::transact::WriteError;
use crate::host::clock::{Clock, SystemClock};
use crate::host::files::{self, FileError};

/// A ref's new value, and the only old one that it may replace.
pub(super) struct Swap<'a> {
    pub(super) reference: &'a RefName,
    /// `None`: the ref must not exist.
    pub(super) expected: Option<ObjectName>,
    pub(super) new: ObjectName,
    /// For the reflog.
    pub(super) author: &'a Author,
    /// For the reflog: one line.
    pub(super) message: &'a str,
}

/// How a compare-and-swap ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// The ref has the new value, on disk.
    Done,
    /// The ref had another value than expected; nothing was changed.
    Moved,
}

/// A lock that stands this long without changing hands is somebody's trouble, not a race.
const LOCK_PATIENCE_MS: u64 = 2_000;

/// Nothing but the ref's own file is to be brought to the disk.
pub(super) fn settle_alone(inner: &Inner) -> impl FnOnce(&Path, &File) -> Result<(), FileError> {
    let synced = inner.durability == Durability::Synced;
    move |path, file| match synced {
        true => file.sync_all().map_err(FileError::at("sync", path)),
        false => Ok(()),
    }
}

/// Where a ref is; `None` when it doesn't exist. Symbolic refs are followed.
pub(super) fn read(inner: &Inner, name: &str) -> Result<Option<ObjectName>, ReadError> {
    let mut name = name.to_owned();
    for _ in 0..5 {
        match value(inner, &name)? {
            Some(Value::Object(object)) => return Ok(Some(object)),
            Some(Value::Symbolic(target)) => name = target,
            None => return Ok(None),
        }
    }
    Err(ReadError::Reference {
        name,
        reason: "symbolic refs form a chain that is too long".to_owned(),
    })
}

enum Value {
    Object(ObjectName),
    Symbolic(String),
}

/// What a ref says: the loose file, else the packed refs as they are on disk now.
fn value(inner: &Inner, name: &str) -> Result<Option<Value>, ReadError> {
    let fail = |reason: String| ReadError::Reference {
        name: name.to_owned(),
        reason,
    };
    let path = inner.common_dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end();
            if let Some(target) = text.strip_prefix("ref:") {
                return Ok(Some(Value::Symbolic(target.trim().to_owned())));
            }
            let object = text
                .parse()
                .map_err(|_| fail(format!("{} holds no object name", path.display())))?;
            return Ok(Some(Value::Object(object)));
        }
        Err(error) if is_absent(&error) => {}
        Err(error) => return Err(fail(format!("{}: {error}", path.display()))),
    }
    let packed = inner
        .local()
        .refs
        .open_packed_buffer()
        .map_err(|error| fail(reason(&error)))?;
    let Some(packed) = packed else {
        return Ok(None);
    };
    let found = packed
        .try_find(name)
        .map_err(|error| fail(reason(&error)))?;
    Ok(found.map(|found| Value::Object(found.target().into())))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

/// Refuse a branch that some work tree has checked out.
pub(super) fn refuse_checked_out(inner: &Inner, reference: &RefName) -> Result<(), WriteError> {
    let points_here = |git_dir: &Path| {
        // An unreadable HEAD is no work tree's.
        let head = fs::read(git_dir.join("HEAD")).unwrap_or_default();
        head.strip_prefix(b"ref:")
            .is_some_and(|target| target.trim() == reference.as_str().as_bytes())
    };
    let refuse = |worktree: PathBuf| {
        Err(WriteError::CheckedOut {
            reference: reference.clone(),
            worktree,
        })
    };
    let main = &inner.common_dir;
    if !main_is_bare(inner) && points_here(main) {
        let worktree = main.parent().unwrap_or(main);
        return refuse(worktree.to_owned());
    }
    let linked = match fs::read_dir(main.join("worktrees")) {
        Ok(linked) => linked,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(FileError::at("read", &main.join("worktrees"))(error).into()),
    };
    for entry in linked.flatten() {
        if points_here(&entry.path()) {
            let gitfile = fs::read_to_string(entry.path().join("gitdir")).unwrap_or_default();
            let worktree = Path::new(gitfile.trim()).parent().map(Path::to_owned);
            return refuse(worktree.unwrap_or_else(|| entry.path()));
        }
    }
    Ok(())
}

/// Whether the main repository has no work tree; a linked worktree of a bare one is not bare itself.
fn main_is_bare(inner: &Inner) -> bool {
    inner.bare
        || inner
            .local()
            .config_snapshot()
            .boolean("core.bare")
            .unwrap_or(false)
}

/// Give a ref a new value if it has the expected one. `settle` is called with
/// the file that becomes the ref, while nobody else can move it and before it
/// moves: it brings that file, and whatever the new value needs, to the disk.
pub(super) fn swap(
    inner: &Inner,
    swap: &Swap<'_>,
    settle: impl FnOnce(&Path, &File) -> Result<(), FileError>,
) -> Result<Swapped, WriteError> {
    refuse_checked_out(inner, swap.reference)?;
    let path = inner.common_dir.join(swap.reference.as_str());
    let _lock = Lock::acquire(inner, swap.reference, &path)?;
    let current = match value(inner, swap.reference.as_str()) {
        Ok(Some(Value::Object(object))) => Some(object),
        Ok(None) => None,
        Ok(Some(Value::Symbolic(target))) => {
            return Err(WriteError::Symbolic {
                reference: swap.reference.clone(),
                target,
            });
        }
        Err(error) => {
            return Err(WriteError::DamagedRef {
                reference: swap.reference.clone(),
                reason: error.to_string(),
            });
        }
    };
    if current != swap.expected {
        return Ok(Swapped::Moved);
    }
    if current.is_none() {
        refuse_taken_name(inner, swap.reference, &path)?;
    }
    let value = NewValue::write(inner, format!("{}\n", swap.new).as_bytes())?;
    settle(value.path(), value.file())?;
    let log = append_reflog(inner, swap)?;
    if let Err(error) = value.become_ref(&path) {
        if let Some((log, length)) = log {
            // The line says what did not happen; the error below is what matters.
            let _ = log.set_len(length);
        }
        return Err(error.into());
    }
    if inner.durability == Durability::Synced {
        sync_up(&path, &inner.common_dir, swap.expected.is_none())?;
    }
    Ok(Swapped::Done)
}

/// Sync the ref's folder and, for a new ref, the folders above it, which may be new too.
fn sync_up(path: &Path, top: &Path, all: bool) -> Result<(), FileError> {
    let mut folder = path.parent();
    while let Some(here) = folder.filter(|here| here.starts_with(top) && *here != top) {
        files::sync_dir(here)?;
        if !all {
            break;
        }
        folder = here.parent();
    }
    Ok(())
}

/// A new ref can be neither a folder of an existing one nor below one.
fn refuse_taken_name(inner: &Inner, reference: &RefName, path: &Path) -> Result<(), WriteError> {
    let taken = |other: String| WriteError::NameTaken {
        reference: reference.clone(),
        other,
    };
    let mut above = reference.as_str();
    while let Some((folder, _)) = above.rsplit_once('/').filter(|(f, _)| *f != "refs") {
        if value(inner, folder).ok().flatten().is_some() {
            return Err(taken(folder.to_owned()));
        }
        above = folder;
    }
    let unreadable = |error: &gix::Error| {
        WriteError::Read(ReadError::Reference {
            name: reference.to_string(),
            reason: reason(error),
        })
    };
    let repo = inner.local();
    let below = format!("{reference}/");
    let platform = repo.references().map_err(|e| unreadable(&e))?;
    let mut found = platform
        .prefixed(below.as_str())
        .map_err(|e| unreadable(&e))?;
    if let Some(Ok(other)) = found.next() {
        return Err(taken(other.name().as_bstr().to_string()));
    }
    if path.is_dir() {
        // Git leaves empty folders behind and removes them the same way.
        remove_empty_folders(path);
    }
    Ok(())
}

fn remove_empty_folders(path: &Path) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove_empty_folders(&entry.path());
        }
    }
    // A folder that is not empty stays, and the rename onto it will say so.
    let _ = fs::remove_dir(path);
}

/// What a ref is to be, in a file of our own folder that is renamed onto the ref.
///
/// Git writes the value into `<ref>.lock` itself. Ours is apart from it, so that the
/// lock can say whose it is; a rename within one file system is as atomic.
struct NewValue(NamedTempFile);

impl NewValue {
    fn write(inner: &Inner, bytes: &[u8]) -> Result<Self, FileError> {
        let folder = own_folder(inner)?;
        let mut file = NamedTempFile::new_in(&folder).map_err(FileError::at("create", &folder))?;
        // As git makes them; a temporary file is private otherwise.
        let readable = fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(readable)
            .and_then(|()| file.write_all(bytes))
            .map_err(FileError::at("write", file.path()))?;
        Ok(Self(file))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> &File {
        self.0.as_file()
    }

    fn become_ref(self, target: &Path) -> Result<(), FileError> {
        self.0
            .persist(target)
            .map_err(|error| FileError::at("write", target)(error.error))?;
        Ok(())
    }
}

fn own_folder(inner: &Inner) -> Result<PathBuf, FileError> {
    let folder = inner.common_dir.join("proofline").join("tmp");
    files::create_dir(&folder)?;
    Ok(folder)
}

/// What our locks hold, so that nobody takes another's for ours.
const OURS: &[u8] = b"proofline\n";

/// `<ref>.lock`, which keeps git and everyone else from moving the ref; removed when dropped.
///
/// A killed process cannot remove its lock. Ours are told apart by what they
/// hold, and each is held with an advisory lock of the operating system too,
/// which ends with its process: a lock that is ours and that nobody holds was
/// left by a crash, and the next of us takes it away. Git's own are never touched.
struct Lock {
    path: PathBuf,
    /// Held until the name is gone.
    file: File,
}

impl Lock {
    /// Make the lock's file, complete and held, and give it its name if that is free.
    fn create(inner: &Inner, path: &Path) -> std::io::Result<Self> {
        let folder = own_folder(inner).map_err(|error| error.source)?;
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(OURS)?;
        file.as_file().lock()?;
        fs::hard_link(file.path(), path)?;
        Ok(Self {
            path: path.to_owned(),
            // The other name goes; the file and the hold on it stay.
            file: file.into_file(),
        })
    }

    /// Take away a lock of ours that its process did not live to remove.
    fn take_away_stale(path: &Path) {
        let Ok(mut file) = File::open(path) else {
            return;
        };
        let mut held = Vec::new();
        let is_ours = (&mut file).take(64).read_to_end(&mut held).is_ok() && held == OURS;
        if !is_ours || file.try_lock().is_err() {
            return;
        }
        // Only who holds the file may take its name away, and only while the name
        // is still this file's: another of us may have been here first.
        let same = match (file.metadata(), fs::metadata(path)) {
            (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
            _ => false,
        };
        if same {
            let _ = fs::remove_file(path);
        }
    }

    fn acquire(inner: &Inner, reference: &RefName, target: &Path) -> Result<Self, WriteError> {
        let mut name = target.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let clock = SystemClock::default();
        let mut seen: Option<(SystemTime, u64)> = None;
        let mut folders_made = 0;
        loop {
            match Self::create(inner, &path) {
                Ok(lock) => return Ok(lock),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    Self::take_away_stale(&path);
                    // A lock that was released meanwhile has no time, and we try again.
                    let Ok(made) = fs::metadata(&path).and_then(|m| m.modified()) else {
                        continue;
                    };
                    let now = clock.elapsed_ms();
                    match seen {
                        Some((same, since)) if same == made => {
                            if now - since >= LOCK_PATIENCE_MS {
                                return Err(WriteError::Locked {
                                    reference: reference.clone(),
                                    lock: path,
                                    age_ms: age_ms(made),
                                });
                            }
                        }
                        _ => seen = Some((made, now)),
                    }
                    std::thread::sleep(super::transact::jitter(Duration::from_millis(2)));
                }
                // Git removes empty folders of refs at any time, so this may take several turns.
                Err(error) if error.kind() == ErrorKind::NotFound && folders_made < 20 => {
                    folders_made += 1;
                    let folder = path.parent().unwrap_or(&inner.common_dir);
                    match fs::create_dir_all(folder) {
                        Ok(()) => {}
                        Err(error) if is_in_the_way(&error) => {
                            return Err(in_the_way(inner, reference, error, &path));
                        }
                        Err(error) => return Err(FileError::at("create", folder)(error).into()),
                    }
                }
                Err(error) if is_in_the_way(&error) => {
                    return Err(in_the_way(inner, reference, error, &path));
                }
                Err(error) => return Err(FileError::at("create", &path)(error).into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The name goes while the file is held, so that nobody takes it for stale.
        // When it cannot be removed, the next writer finds it stale, and ours.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn is_in_the_way(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists
    )
}

/// A ref's file stands where a folder is needed: name it.
fn in_the_way(
    inner: &Inner,
    reference: &RefName,
    error: std::io::Error,
    path: &Path,
) -> WriteError {
    let mut above = reference.as_str();
    while let Some((folder, _)) = above.rsplit_once('/') {
        if inner.common_dir.join(folder).is_file() {
            return WriteError::NameTaken {
                reference: reference.clone(),
                other: folder.to_owned(),
            };
        }
        above = folder;
    }
    FileError::at("create", path)(error).into()
}

fn age_ms(made: SystemTime) -> u64 {
    let age = SystemTime::now().duration_since(made).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// Append to the reflog as git would. Gives the file and its length before, to undo it.
fn append_reflog(inner: &Inner, swap: &Swap<'_>) -> Result<Option<(File, u64)>, FileError> {
    let path = inner.common_dir.join("logs").join(swap.reference.as_str());
    let mut options = OpenOptions::new();
    options.append(true);
    if creates_reflog(inner, swap.reference) {
        options.create(true);
        if let Some(folder) = path.parent() {
            files::create_dir(folder)?;
        }
    }
    let mut log = match options.open(&path) {
        Ok(log) => log,
        Err(error) if is_absent(&error) && path.is_dir() => {
            remove_empty_folders(&path);
            options.open(&path).map_err(FileError::at("open", &path))?
        }
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(FileError::at("open", &path)(error)),
    };
    let fail = || FileError::at("write", &path);
    let length = log.metadata().map_err(fail())?.len();
    let null: ObjectName = gix::ObjectId::null(inner.hash()).into();
    let message: String = swap
        .message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let line = format!(
        "{} {} {} <{}> {} +0000\t{message}\n",
        swap.expected.unwrap_or(null),
        swap.new,
        swap.author.name(),
        swap.author.email(),
        swap.author.time().as_second(),
    );
    if let Err(error) = log.write_all(line.as_bytes()) {
        // Half a line would spoil the log for git; the error is reported either way.
        let _ = log.set_len(length);
        return Err(fail()(error));
    }
    Ok(Some((log, length)))
}

/// Whether git would make a reflog for this ref (`core.logAllRefUpdates`); one that exists is always kept up.
fn creates_reflog(inner: &Inner, reference: &RefName) -> bool {
    let repo = inner.local();
    let config = repo.config_snapshot();
    let setting = config.string("core.logAllRefUpdates");
    if setting.is_some_and(|value| value.eq_ignore_ascii_case(b"always")) {
        return true;
    }
    let wanted = config
        .boolean("core.logAllRefUpdates")
        .unwrap_or(!inner.bare);
    let name = reference.as_str();
    wanted
        && ["refs/heads/", "refs/remotes/", "refs/notes/"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}
