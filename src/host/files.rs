//! Files that are on disk before a call says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An operation on a file that failed, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was being done: "read", "write", ….
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Name the file in an I/O error.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the disk is full or a quota is reached.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Read a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::at("read", path))
}

/// A file to be read piece by piece.
pub fn open(path: &Path) -> Result<io::BufReader<File>, FileError> {
    let file = File::open(path).map_err(FileError::at("read", path))?;
    Ok(io::BufReader::with_capacity(1 << 18, file))
}

/// Read a file that need not exist.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("read", path)(error)),
    }
}

/// Make a directory and its parents.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::at("create", path))
}

/// Flush a directory's entries to disk, so that a new or renamed file in it survives a power cut.
pub fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(FileError::at("sync", path))
}

/// Replace a file's content in one step: readers see the old bytes or the new, never a part.
///
/// The parent directory must exist. On return the bytes and the name are on disk.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let fail = || FileError::at("write", path);
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(fail())?;
    file.write_all(bytes).map_err(fail())?;
    file.as_file().sync_all().map_err(fail())?;
    file.persist(path).map_err(|e| fail()(e.error))?;
    sync_dir(parent)
}

/// Replace a file of the user's in one step, as [`write_atomic`] does, or make it: a link is
/// followed and permissions stay as they are, or as the user's mask makes them.
pub fn write_users(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Ok(known) = fs::metadata(&path) else {
        write_new(&path, bytes)?;
        return match path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Some(parent) => sync_dir(parent),
            None => sync_dir(Path::new(".")),
        };
    };
    write_atomic(&path, bytes)?;
    fs::set_permissions(&path, known.permissions()).map_err(FileError::at("set the mode of", &path))
}

/// Create a file that must not exist yet, with the given bytes, synced.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(FileError::at("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(FileError::at("write", path))
}

/// Make a directory, and its parents, that nobody else may look into.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::at("create", path))
}

/// Make a symbolic link at a path where nothing is.
pub fn link(target: &Path, path: &Path) -> Result<(), FileError> {
    std::os::unix::fs::symlink(target, path).map_err(FileError::at("link", path))
}
