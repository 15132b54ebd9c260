//! Writing loose objects, on disk before any ref says so.
//!
//! Git's library syncs nothing. Here every file that a transaction writes, and
//! every folder that got a new name in it, is synced before a ref moves to the
//! objects. The files of an ordinary step are synced all at once, from as many
//! threads: a journaling file system then commits them together, which costs as
//! much as one. So an object gets its name a moment before its bytes are
//! certain, and a power cut in that moment can leave a name with wrong bytes
//! that nothing refers to. (With git's defaults that moment is half a minute.)
//! That is why an object that is there already is only taken for written when
//! its bytes are what they should be; otherwise it is replaced. Steps that write
//! many objects sync each before it gets its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use gix::object::Kind;

use super::name::ObjectName;
use super::open::{Durability, Inner};
use crate::host::files::{self, FileError};

/// An object to be written.
pub(super) struct Draft<'a> {
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
}

/// Writes objects of one transaction and remembers what is not synced yet.
pub(super) struct Writer<'a> {
    inner: &'a Inner,
    unsynced: Mutex<Unsynced>,
}

#[derive(Default)]
struct Unsynced {
    files: Vec<(PathBuf, File)>,
    folders: BTreeSet<PathBuf>,
}

/// An object that was there before us may have been written without a sync.
/// After this long the system has written it by itself (Linux: 30 seconds).
const SETTLED_AFTER: Duration = Duration::from_secs(120);

/// Up to this many files are kept open to be synced at once.
const TOGETHER_MAX: usize = 32;

impl<'a> Writer<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            unsynced: Mutex::default(),
        }
    }

    /// Write objects that are not there yet. Gives their names, in order.
    pub(super) fn write(&self, drafts: &[Draft<'_>]) -> Result<Vec<ObjectName>, FileError> {
        let together = drafts.len() <= TOGETHER_MAX;
        let threads = if together { 1 } else { 8 };
        // In a large batch most of the time goes into waiting for the disk, so
        // there are more threads than cores.
        let share = drafts.len().div_ceil(threads).max(1);
        let parts: Vec<_> = drafts.chunks(share).collect();
        let written = in_parallel(&parts, |drafts| {
            let handle = self.inner.local();
            drafts
                .iter()
                .map(|draft| self.write_one(&handle, draft, together))
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(written.into_iter().flatten().collect())
    }

    /// Sync everything that is not on disk yet, and `also`, at once. After this
    /// the objects survive a power cut.
    pub(super) fn finish(self, also: Option<(&Path, &File)>) -> Result<(), FileError> {
        if self.inner.durability == Durability::Unsynced {
            return Ok(());
        }
        let unsynced = self.unsynced.into_inner();
        let Unsynced { files, folders } = unsynced.unwrap_or_else(PoisonError::into_inner);
        let mut opened = Vec::with_capacity(folders.len());
        for folder in folders {
            let file = File::open(&folder).map_err(FileError::at("open", &folder))?;
            opened.push((folder, file));
        }
        let all: Vec<(&Path, &File)> = files
            .iter()
            .chain(&opened)
            .map(|(path, file)| (path.as_path(), file))
            .chain(also)
            .collect();
        in_parallel(&all, |(path, file)| {
            file.sync_all().map_err(FileError::at("sync", path))
        })?;
        Ok(())
    }

    fn write_one(
        &self,
        handle: &gix::Repository,
        draft: &Draft<'_>,
        together: bool,
    ) -> Result<ObjectName, FileError> {
        let name = self.inner.name_of(draft.kind, draft.bytes);
        let hex = name.to_string();
        let folder = self.inner.objects_dir.join(&hex[..2]);
        let path = folder.join(&hex[2..]);
        match self.found(&path, &folder, draft, together)? {
            Found::Sound => return Ok(name),
            // Packed, or another repository's that we borrow from.
            Found::Nothing if handle.objects.exists_without_refresh(&name.id()) => {
                return Ok(name);
            }
            Found::Nothing | Found::Wrong => {}
        }
        let fail = || FileError::at("write", &path);
        let mut file = self.temporary(&folder)?;
        file.write_all(&compressed(draft).map_err(fail())?)
            .map_err(fail())?;
        let synced = self.inner.durability == Durability::Synced;
        if synced && !together {
            file.as_file().sync_all().map_err(fail())?;
        }
        let file = file.persist(&path).map_err(|error| fail()(error.error))?;
        self.remember(&folder, (synced && together).then_some((path, file)));
        Ok(name)
    }

    /// Whether the object is there already as a file. If so, and if it is sound,
    /// it is made to stay: against a power cut, and against `git prune`, which goes by age.
    fn found(
        &self,
        path: &Path,
        folder: &Path,
        draft: &Draft<'_>,
        together: bool,
    ) -> Result<Found, FileError> {
        let fail = || FileError::at("read", path);
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(fail()(error)),
        };
        let mut stored = Vec::new();
        file.read_to_end(&mut stored).map_err(fail())?;
        if !holds(&stored, draft) {
            return Ok(Found::Wrong);
        }
        let age = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_some_and(|age| age >= SETTLED_AFTER) {
            // Not ours to touch in a shared repository: then its owner's age counts.
            let _ = file.set_modified(SystemTime::now());
        } else if self.inner.durability == Durability::Synced {
            if !together {
                file.sync_all().map_err(FileError::at("sync", path))?;
            }
            self.remember(folder, together.then(|| (path.to_owned(), file)));
        }
        Ok(Found::Sound)
    }

    /// A file in the object's folder, named as git names its own, which `git prune` cleans up.
    fn temporary(&self, folder: &Path) -> Result<tempfile::NamedTempFile, FileError> {
        let make = || {
            tempfile::Builder::new()
                .prefix("tmp_obj_")
                .permissions(fs::Permissions::from_mode(0o444))
                .tempfile_in(folder)
        };
        match make() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                files::create_dir(folder)?;
                self.remember(&self.inner.objects_dir, None);
                make().map_err(FileError::at("write", folder))
            }
            other => other.map_err(FileError::at("write", folder)),
        }
    }

    fn remember(&self, folder: &Path, file: Option<(PathBuf, File)>) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if !unsynced.folders.contains(folder) {
            unsynced.folders.insert(folder.to_owned());
        }
        unsynced.files.extend(file);
    }
}

/// An object's file, before we write it.
enum Found {
    Nothing,
    Sound,
    Wrong,
}

/// Do the same with every item, at once, and give the results in order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, FileError> + Sync,
) -> Result<Vec<R>, FileError> {
    match items {
        [] => Ok(Vec::new()),
        [item] => Ok(vec![work(item)?]),
        _ => std::thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> = items
                .iter()
                .map(|item| scope.spawn(move || work(item)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("because writing files does not panic"))
                .collect()
        }),
    }
}

/// Whether an object's file holds what is to be written.
fn holds(stored: &[u8], draft: &Draft<'_>) -> bool {
    let header = gix::objs::encode::loose_header(draft.kind, draft.bytes.len() as u64);
    // One byte more than there should be, so that a longer object is noticed.
    let mut plain = vec![0; header.len() + draft.bytes.len() + 1];
    match gix::zlib::Inflate::default().once(stored, &mut plain) {
        Ok((gix::zlib::Status::StreamEnd, _, length)) => plain[..length]
            .strip_prefix(header.as_slice())
            .is_some_and(|bytes| bytes == draft.bytes),
        _ => false,
    }
}

/// The object as git stores it: header and bytes, deflated at git's default for loose objects.
fn compressed(draft: &Draft<'_>) -> std::io::Result<Vec<u8>> {
    let buffer = Vec::with_capacity(draft.bytes.len() / 4 + 64);
    let mut deflate =
        gix::zlib::stream::deflate::Write::new(buffer, gix::zlib::Compression::BEST_SPEED);
    let size = draft.bytes.len() as u64;
    deflate.write_all(&gix::objs::encode::loose_header(draft.kind, size))?;
    deflate.write_all(draft.bytes)?;
    deflate.flush()?;
    Ok(deflate.into_inner())
}
