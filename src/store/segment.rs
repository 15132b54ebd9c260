//! Append-only logs of lines, cut into segments of at most 64 KiB.
//!
//! A log at `journal/events` is the files `journal/events/0000/00.jsonl`,
//! `…/0000/01.jsonl`, … `…/0000/99.jsonl`, `…/0001/00.jsonl`, and so on: a
//! hundred segments a folder, the newest last in name order. A segment that has
//! a successor never changes again. An append reads two small folders and the
//! last segment and writes those, so it costs the same at a million lines as at
//! ten; `git diff` shows the new lines and nothing else; plain
//! `cat events/*/*.jsonl` is the log.
//!
//! A line has no newline in it. A line longer than a segment gets a segment of
//! its own. Folders are numbered to 9999: room for a million segments, 64 GB.

use super::name::{NameError, ObjectName, TreePath};
use super::snapshot::{EntryKind, ReadError, Snapshot};
use super::tree::Edit;

/// The most bytes of a segment that has more than one line.
pub const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// Why a log could not be read or appended to.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log's prefix leaves no room for a segment's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A line to append holds a newline or is empty.
    #[error("line {index} to append to `{log}` {reason}")]
    Line {
        /// The log.
        log: TreePath,
        /// Which line of the call, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something in the log's folder is not a segment, or a segment is cut short.
    #[error("`{path}` is not a sound segment: {reason}")]
    Damaged {
        /// The file.
        path: TreePath,
        /// What is wrong.
        reason: &'static str,
    },
    /// All numbers are used.
    #[error("`{log}` has all of its 1,000,000 segments")]
    Full {
        /// The log.
        log: TreePath,
    },
}

/// A segment's place: folder and file number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    folder: u32,
    file: u32,
}

impl Place {
    const FIRST: Self = Self { folder: 0, file: 0 };

    fn next(self, log: &TreePath) -> Result<Self, SegmentError> {
        let next = match self.file {
            0..99 => Self {
                file: self.file + 1,
                ..self
            },
            _ => Self {
                folder: self.folder + 1,
                file: 0,
            },
        };
        if next.folder > 9999 {
            return Err(SegmentError::Full { log: log.clone() });
        }
        Ok(next)
    }

    fn path(self, log: &TreePath) -> Result<TreePath, NameError> {
        log.join(&format!("{:04}/{:02}.jsonl", self.folder, self.file))
    }
}

/// The edits that append lines to the log at `prefix`. Only the last segment is
/// touched. Two appends to the same log in one transaction must be one call:
/// the second would not see the first.
pub fn append<L: AsRef<[u8]>>(
    snapshot: Option<&Snapshot>,
    prefix: &TreePath,
    lines: impl IntoIterator<Item = L>,
) -> Result<Vec<Edit>, SegmentError> {
    let log = Log { snapshot, prefix };
    let mut lines = lines.into_iter().enumerate().peekable();
    if lines.peek().is_none() {
        return Ok(Vec::new());
    }
    let (mut place, mut bytes) = match log.last()? {
        Some((place, object)) => (place, log.read(place, object)?),
        None => (Place::FIRST, Vec::new()),
    };
    let mut edits = Vec::new();
    let mut grown = false;
    for (index, line) in lines {
        let line = line.as_ref();
        let reason = if line.is_empty() {
            Some("is empty")
        } else if line.contains(&b'\n') {
            Some("holds a newline")
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(SegmentError::Line {
                log: prefix.clone(),
                index,
                reason,
            });
        }
        if !bytes.is_empty() && bytes.len() + line.len() + 1 > SEGMENT_BYTES_MAX {
            if grown {
                edits.push(Edit::put(place.path(prefix)?, std::mem::take(&mut bytes)));
            }
            bytes.clear();
            place = place.next(prefix)?;
        }
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        grown = true;
    }
    edits.push(Edit::put(place.path(prefix)?, bytes));
    Ok(edits)
}

/// The lines of a log, oldest first, without their newlines. Segments are read as they are reached.
pub fn lines(
    snapshot: Option<&Snapshot>,
    prefix: &TreePath,
) -> Result<impl Iterator<Item = Result<Vec<u8>, SegmentError>>, SegmentError> {
    let owned = (snapshot.cloned(), prefix.clone());
    let places = Log { snapshot, prefix }.places()?;
    Ok(places.into_iter().flat_map(move |(place, object)| {
        let log = Log {
            snapshot: owned.0.as_ref(),
            prefix: &owned.1,
        };
        match log.read(place, object) {
            Ok(bytes) => split(&bytes).map(|line| Ok(line.to_vec())).collect(),
            Err(error) => vec![Err(error)],
        }
    }))
}

/// The last line of a log; `None` when it has none.
pub fn last_line(
    snapshot: Option<&Snapshot>,
    prefix: &TreePath,
) -> Result<Option<Vec<u8>>, SegmentError> {
    Ok(tail(snapshot, prefix, 1)?.pop())
}

/// The last `count` lines of a log, oldest first. Reads no more segments than they are in.
pub fn tail(
    snapshot: Option<&Snapshot>,
    prefix: &TreePath,
    count: usize,
) -> Result<Vec<Vec<u8>>, SegmentError> {
    let log = Log { snapshot, prefix };
    let mut newest_first: Vec<Vec<u8>> = Vec::new();
    for folder in log.folders()?.into_iter().rev() {
        for (place, object) in log.files(folder)?.into_iter().rev() {
            if newest_first.len() >= count {
                break;
            }
            let bytes = log.read(place, object)?;
            let lines: Vec<&[u8]> = split(&bytes).collect();
            let missing = count - newest_first.len();
            newest_first.extend(lines.iter().rev().take(missing).map(|line| line.to_vec()));
        }
        if newest_first.len() >= count {
            break;
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

struct Log<'a> {
    snapshot: Option<&'a Snapshot>,
    prefix: &'a TreePath,
}

impl Log<'_> {
    fn folders(&self) -> Result<Vec<u32>, SegmentError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(Vec::new());
        };
        let entries = snapshot.list(Some(self.prefix))?;
        entries
            .into_iter()
            .map(|(name, entry)| match (entry.kind, number(&name, 4)) {
                (EntryKind::Folder, Some(number)) => Ok(number),
                _ => Err(self.foreign(TreePath::found(Some(self.prefix), &name))),
            })
            .collect()
    }

    fn files(&self, folder: u32) -> Result<Vec<(Place, ObjectName)>, SegmentError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(Vec::new());
        };
        let path = self.prefix.join(&format!("{folder:04}"))?;
        let entries = snapshot.list(Some(&path))?;
        entries
            .into_iter()
            .map(|(name, entry)| {
                let file = name.strip_suffix(".jsonl").and_then(|name| number(name, 2));
                match (entry.kind, file) {
                    (EntryKind::File, Some(file)) => Ok((Place { folder, file }, entry.object)),
                    _ => Err(self.foreign(TreePath::found(Some(&path), &name))),
                }
            })
            .collect()
    }

    fn places(&self) -> Result<Vec<(Place, ObjectName)>, SegmentError> {
        let mut places = Vec::new();
        for folder in self.folders()? {
            places.extend(self.files(folder)?);
        }
        Ok(places)
    }

    fn last(&self) -> Result<Option<(Place, ObjectName)>, SegmentError> {
        match self.folders()?.pop() {
            Some(folder) => Ok(self.files(folder)?.pop()),
            None => Ok(None),
        }
    }

    fn read(&self, place: Place, object: ObjectName) -> Result<Vec<u8>, SegmentError> {
        let snapshot = self
            .snapshot
            .expect("because a place was found in a snapshot");
        let bytes = snapshot.store().read_blob(object)?;
        if bytes.last() != Some(&b'\n') {
            return Err(SegmentError::Damaged {
                path: place.path(self.prefix)?,
                reason: "it is empty or its last line has no end",
            });
        }
        Ok(bytes)
    }

    fn foreign(&self, path: TreePath) -> SegmentError {
        SegmentError::Damaged {
            path,
            reason: "its name is not one that a segment has",
        }
    }
}

fn number(text: &str, digits: usize) -> Option<u32> {
    let right = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}
