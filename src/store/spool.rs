//! A local file of lines that are safe on disk but not committed yet.
//!
//! Each append is on disk before it returns. One process at a time owns a spool.
//!
//! # From spool to commit
//!
//! 1. [`Spool::pending`] gives the lines and their sequence numbers. They stay in the file.
//! 2. The caller commits them, together with the last sequence number (in the lines themselves or beside them).
//! 3. [`Spool::confirm`] drops the lines up to that number, atomically.
//!
//! A crash between 2 and 3 leaves lines in the spool that are committed
//! already. So whoever opens a spool first calls [`Spool::confirm`] with the last
//! number that is committed: such lines go without being committed again, and
//! numbers go on after it, whatever happened to the file.
//!
//! # When the file is damaged
//!
//! A last line without its newline is a torn write of a crash: its append never
//! returned, so it is dropped, and [`Recovery::torn_bytes`] says so. Any other
//! line that doesn't match its checksum, or a gap in the numbers, is damage: the
//! whole file is set aside beside the spool (`<name>.corrupt-N`), the good lines
//! go on, and [`Recovery`] says which lines were lost and where the file is.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::open::Durability;
use crate::host::files::{self, FileError};
use crate::host::lock::{Lock, LockError};
use crate::id::Digest;

/// A local, synced file of lines, owned by this process until dropped.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    _lock: Lock,
    /// `None` after a failed write that could not be undone.
    file: Option<File>,
    /// The file's length up to the last line that counts.
    length: u64,
    content: Content,
    durability: Durability,
}

/// A line in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its number: from 1, rising by one, never used again.
    pub sequence: u64,
    /// The line, as it was appended.
    pub line: Vec<u8>,
}

/// What was found wrong when a spool was opened, and what was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Bytes of an unfinished last line that were dropped; 0 when there was none.
    pub torn_bytes: u64,
    /// Lines of the file that don't match their checksum or number, from 1.
    pub damaged_lines: Vec<u64>,
    /// Where the damaged file is kept.
    pub set_aside: Option<PathBuf>,
}

/// Why a spool could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process owns it, or the lock file could not be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The file could not be read or written; the disk may be full.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line holds a newline.
    #[error("a line for {} holds a newline", path.display())]
    Line {
        /// The spool.
        path: PathBuf,
    },
    /// An earlier write failed and could not be undone; open the spool again.
    #[error("{} is in an unknown state after a failed write; open it again", path.display())]
    Poisoned {
        /// The spool.
        path: PathBuf,
    },
}

/// The first line of a spool; the number after it is the last one that was ever confirmed.
const HEADER: &str = "proofline-spool 1 confirmed=";

impl Spool {
    /// Open or create a spool and own it. Says at once when another process does.
    pub fn open(path: &Path, durability: Durability) -> Result<(Self, Recovery), SpoolError> {
        let lock = Lock::try_acquire(&beside(path, ".lock"), "writing the spool")?;
        let found = files::read_optional(path)?;
        let (content, mut recovery) = Content::parse(found.as_deref().unwrap_or_default());
        let mut spool = Self {
            path: path.to_owned(),
            _lock: lock,
            file: None,
            length: 0,
            content,
            durability,
        };
        if !recovery.damaged_lines.is_empty() {
            recovery.set_aside = Some(set_aside(path)?);
        }
        match found {
            Some(bytes) if !bytes.is_empty() && recovery == Recovery::default() => {
                spool.length = bytes.len() as u64;
                spool.reopen()?;
            }
            _ => spool.rewrite()?,
        }
        Ok((spool, recovery))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Append a line. It is on disk on return. Gives its sequence number.
    pub fn append(&mut self, line: &[u8]) -> Result<u64, SpoolError> {
        self.append_all([line])
    }

    /// Append lines with one sync for all; on an error none of them counts. Gives the last sequence number.
    pub fn append_all<L: AsRef<[u8]>>(
        &mut self,
        lines: impl IntoIterator<Item = L>,
    ) -> Result<u64, SpoolError> {
        let mut fresh = Vec::new();
        let mut bytes = Vec::new();
        let mut sequence = self.last_sequence();
        for line in lines {
            let line = line.as_ref().to_vec();
            if line.contains(&b'\n') {
                return Err(SpoolError::Line {
                    path: self.path.clone(),
                });
            }
            sequence += 1;
            encode(&mut bytes, sequence, &line);
            fresh.push(Pending { sequence, line });
        }
        let Some(file) = &mut self.file else {
            return Err(SpoolError::Poisoned {
                path: self.path.clone(),
            });
        };
        let synced = self.durability == Durability::Synced;
        let written = file
            .write_all(&bytes)
            .and_then(|()| if synced { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // What was written of it must not stand before the next line.
            if file.set_len(self.length).is_err() || file.seek(SeekFrom::End(0)).is_err() {
                self.file = None;
            }
            return Err(FileError::at("append to", &self.path)(error).into());
        }
        self.length += bytes.len() as u64;
        self.content.pending.append(&mut fresh);
        Ok(sequence)
    }

    /// The lines that are not confirmed yet, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.content.pending
    }

    /// The number of the newest line that was ever appended; 0 when there was none.
    pub fn last_sequence(&self) -> u64 {
        let last = self.content.pending.last();
        last.map_or(self.content.confirmed, |line| line.sequence)
    }

    /// Drop the lines up to and with this number: they are committed. Numbers go
    /// on after it, even if it is higher than any in the spool: a file that was
    /// lost must not hand out numbers again.
    pub fn confirm(&mut self, through: u64) -> Result<(), SpoolError> {
        let content = Content {
            confirmed: through.max(self.content.confirmed),
            pending: self
                .content
                .pending
                .iter()
                .filter(|line| line.sequence > through)
                .cloned()
                .collect(),
        };
        let before = std::mem::replace(&mut self.content, content);
        if let Err(error) = self.rewrite() {
            self.content = before;
            return Err(error);
        }
        Ok(())
    }

    /// Replace the file by what is known to be in it, in one step.
    fn rewrite(&mut self) -> Result<(), SpoolError> {
        let mut bytes = format!("{HEADER}{}\n", self.content.confirmed).into_bytes();
        let mut previous = self.content.confirmed;
        for line in &self.content.pending {
            if line.sequence != previous + 1 {
                // The gap was reported when it was found; it is no damage from now on.
                encode(&mut bytes, 0, line.sequence.to_string().as_bytes());
            }
            previous = line.sequence;
            encode(&mut bytes, line.sequence, &line.line);
        }
        match self.durability {
            Durability::Synced => files::write_atomic(&self.path, &bytes)?,
            Durability::Unsynced => {
                let next = beside(&self.path, ".next");
                std::fs::write(&next, &bytes)
                    .and_then(|()| std::fs::rename(&next, &self.path))
                    .map_err(FileError::at("write", &self.path))?;
            }
        }
        // From here on the old file has no name; without the new one nothing may be appended.
        self.file = None;
        self.length = bytes.len() as u64;
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), SpoolError> {
        let file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(FileError::at("open", &self.path))?;
        self.file = Some(file);
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Content {
    /// The last number that was confirmed.
    confirmed: u64,
    pending: Vec<Pending>,
}

impl Content {
    fn parse(bytes: &[u8]) -> (Self, Recovery) {
        let mut recovery = Recovery::default();
        let sound = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => &bytes[..=end],
            None => &[],
        };
        recovery.torn_bytes = (bytes.len() - sound.len()) as u64;
        let mut lines = sound
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| &line[..line.len() - 1]);
        let mut content = Self::default();
        match lines.next().map(confirmed) {
            Some(Some(confirmed)) => content.confirmed = confirmed,
            Some(None) => recovery.damaged_lines.push(1),
            None => return (content, recovery),
        }
        let header_is_sound = recovery.damaged_lines.is_empty();
        let mut previous = header_is_sound.then_some(content.confirmed);
        for (index, line) in lines.enumerate() {
            let number = index as u64 + 2;
            let Some(line) = decode(line) else {
                recovery.damaged_lines.push(number);
                // The number that stood here is lost, so the next may be any higher one.
                previous = None;
                continue;
            };
            if line.sequence == 0 {
                previous = next_after_gap(&line.line).map(|next| next - 1);
                continue;
            }
            let last = content
                .pending
                .last()
                .map_or(content.confirmed, |l| l.sequence);
            let follows = previous.is_none_or(|previous| line.sequence == previous + 1);
            if !follows {
                recovery.damaged_lines.push(number);
            }
            previous = Some(line.sequence);
            if line.sequence > last {
                content.pending.push(line);
            }
        }
        if !header_is_sound && let Some(first) = content.pending.first() {
            content.confirmed = first.sequence - 1;
        }
        (content, recovery)
    }
}

fn confirmed(line: &[u8]) -> Option<u64> {
    let number = line.strip_prefix(HEADER.as_bytes())?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The number that a line with the number 0 announces.
fn next_after_gap(line: &[u8]) -> Option<u64> {
    let next: u64 = std::str::from_utf8(line).ok()?.parse().ok()?;
    (next > 0).then_some(next)
}

/// `<sequence> <checksum> <line>`; the checksum covers sequence and line. The
/// number 0 announces a known gap: its line is the number of the next one.
fn encode(bytes: &mut Vec<u8>, sequence: u64, line: &[u8]) {
    bytes.extend_from_slice(format!("{sequence} {} ", checksum(sequence, line)).as_bytes());
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
}

fn decode(text: &[u8]) -> Option<Pending> {
    let mut fields = text.splitn(3, |byte| *byte == b' ');
    let sequence = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (sum, line) = (fields.next()?, fields.next()?);
    let sound = checksum(sequence, line).as_bytes() == sum;
    sound.then(|| Pending {
        sequence,
        line: line.to_vec(),
    })
}

fn checksum(sequence: u64, line: &[u8]) -> String {
    let mut covered = sequence.to_le_bytes().to_vec();
    covered.extend_from_slice(line);
    Digest::of(&covered).hex()[..16].to_owned()
}

/// Keep a copy of the damaged file under a name that no earlier one has.
fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let bytes = files::read(path)?;
    let mut number = 1;
    loop {
        let copy = beside(path, &format!(".corrupt-{number}"));
        match files::write_new(&copy, &bytes) {
            Ok(()) => {
                if let Some(folder) = copy.parent() {
                    files::sync_dir(folder)?;
                }
                return Ok(copy);
            }
            Err(error) if error.source.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
