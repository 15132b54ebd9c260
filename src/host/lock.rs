//! Advisory file locks that end with the process that holds them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::FileError;

/// A held lock; dropping it, or dying, releases it. The file itself stays.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is held by {holder}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The lock file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Lock {
    /// Take the lock, or say within a tenth of a second who holds it. `about` is written into the file for the next asker.
    pub fn try_acquire(path: &Path, about: &str) -> Result<Self, LockError> {
        let mut file = open(path)?;
        match patiently(&file) {
            Ok(()) => {
                describe(&mut file, path, about)?;
                Ok(Self { file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that has not written yet is still a holder.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() {
                    "another process".to_owned()
                } else {
                    holder.trim().to_owned()
                };
                Err(LockError::Held {
                    path: path.to_owned(),
                    holder,
                })
            }
            Err(TryLockError::Error(error)) => Err(FileError::at("lock", path)(error).into()),
        }
    }

    /// Take the lock, waiting for whoever holds it.
    pub fn acquire(path: &Path) -> Result<Self, FileError> {
        let file = open(path)?;
        file.lock().map_err(FileError::at("lock", path))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child that another thread is just
        // starting has a copy of the file until it becomes its program, and
        // would hold the lock that long. When this fails, closing must do.
        let _ = self.file.unlock();
    }
}

/// A program that some thread starts has our open files for a moment, until it
/// becomes itself: a lock that was let go of just now may look held for so long.
fn patiently(file: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    file.try_lock()
}

fn open(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(FileError::at("open", path))
}

fn describe(file: &mut File, path: &Path, about: &str) -> Result<(), FileError> {
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "process {} ({about})", std::process::id()))
        .map_err(FileError::at("write", path))
}
