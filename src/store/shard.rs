//! Sorted files of keyed lines, cut into shards of at most 64 KiB once they grow.
//!
//! A table named `datasets/x/train` is the file `datasets/x/train.jsonl` while it
//! has at most 64 KiB, and the files `datasets/x/train/NNNNNN.jsonl` once it is
//! larger, in key order both within and across shards. Where one shard ends
//! follows from the keys themselves, so that a new row changes the one or two
//! shards around it, and a shard keeps its number when others come and go: what
//! a reviewer sees in `git diff` is the rows that changed.

use std::collections::{HashMap, HashSet};

use super::name::{NameError, ObjectName, TreePath};
use super::snapshot::{EntryKind, ReadError, Snapshot};
use super::tree::Edit;

/// The most bytes of a shard that has more than one line, and of a table in a single file.
pub const SHARD_BYTES_MAX: usize = 64 * 1024;

/// A keyed line: the key orders the table, the line is what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Unique within the table; rows are sorted by its bytes.
    pub key: &'a str,
    /// The line, without a newline.
    pub line: &'a [u8],
}

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The table's name leaves no room for a shard's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Rows are not in strictly increasing order of their keys.
    #[error("row {index} of `{table}`, key `{key}`, does not come after the row before it")]
    Order {
        /// The table.
        table: TreePath,
        /// Which row, from 0.
        index: usize,
        /// Its key.
        key: String,
    },
    /// A row's line holds a newline or is empty.
    #[error("row {index} of `{table}` {reason}")]
    Line {
        /// The table.
        table: TreePath,
        /// Which row, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something among the table's files is not a sound shard.
    #[error("`{path}` is not a sound shard: {reason}")]
    Damaged {
        /// The file.
        path: TreePath,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The expected bytes of a shard. A cut falls before a row with a probability of
/// its length divided by this, so that shards are about this long whatever the
/// rows' length; the few that would be longer than [`SHARD_BYTES_MAX`] are cut again.
const SHARD_BYTES_EXPECTED: u64 = 24 * 1024;

/// Shards that are made at once are numbered this far apart, so that others find a number between them.
const NUMBER_STEP: u32 = 100;
const NUMBER_MAX: u32 = 999_999;

/// The edits that make the table at `name` hold exactly these rows, sorted by
/// key; the fewest blobs that can be against the snapshot. No rows: the table is removed.
pub fn write<'a>(
    snapshot: Option<&Snapshot>,
    name: &TreePath,
    rows: impl IntoIterator<Item = Row<'a>>,
) -> Result<Vec<Edit>, ShardError> {
    let pieces = cut(name, rows)?;
    let table = Table { snapshot, name };
    let (single, shards) = (table.single()?, table.shards()?);
    let total: usize = pieces.iter().map(Vec::len).sum();
    let mut edits = Vec::new();
    if total <= SHARD_BYTES_MAX {
        if !shards.is_empty() {
            let path = name.clone();
            edits.push(Edit::Remove { path });
        }
        let path = name.with_suffix(".jsonl")?;
        match (total, single) {
            (0, None) => {}
            (0, Some(_)) => edits.push(Edit::Remove { path }),
            _ => {
                let bytes = pieces.concat();
                let same = |snapshot: &Snapshot| single == Some(snapshot.store().blob_name(&bytes));
                if !snapshot.is_some_and(same) {
                    edits.push(Edit::put(path, bytes));
                }
            }
        }
        return Ok(edits);
    }
    if single.is_some() {
        let path = name.with_suffix(".jsonl")?;
        edits.push(Edit::Remove { path });
    }
    table.place(pieces, &shards, &mut edits)?;
    Ok(edits)
}

/// The lines of a table in key order, without their newlines; `None` when there is no such table.
pub fn read(
    snapshot: Option<&Snapshot>,
    name: &TreePath,
) -> Result<Option<Vec<Vec<u8>>>, ShardError> {
    let table = Table { snapshot, name };
    let files = table.files()?;
    if files.is_empty() {
        return Ok(None);
    }
    let mut lines = Vec::new();
    for (path, object) in files {
        let store = snapshot
            .expect("because files were found in a snapshot")
            .store();
        let bytes = store.read_blob(object)?;
        let Some(body) = bytes.strip_suffix(b"\n") else {
            let reason = "it is empty or its last line has no end";
            return Err(ShardError::Damaged { path, reason });
        };
        lines.extend(body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    Ok(Some(lines))
}

/// Cut rows into pieces by their keys' hashes and their lengths.
fn cut<'a>(
    table: &TreePath,
    rows: impl IntoIterator<Item = Row<'a>>,
) -> Result<Vec<Vec<u8>>, ShardError> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut run: Vec<(u64, &[u8])> = Vec::new();
    let mut previous: Option<&str> = None;
    for (index, row) in rows.into_iter().enumerate() {
        if previous.is_some_and(|previous| previous >= row.key) {
            return Err(ShardError::Order {
                table: table.clone(),
                index,
                key: row.key.to_owned(),
            });
        }
        previous = Some(row.key);
        let reason = match row.line {
            [] => Some("is empty"),
            line if line.contains(&b'\n') => Some("holds a newline"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(ShardError::Line {
                table: table.clone(),
                index,
                reason,
            });
        }
        let length = row.line.len() + 1;
        let hash = hash(row.key);
        if run.is_empty() || !begins_shard(hash, length) {
            run.push((hash, row.line));
            continue;
        }
        split(&run, &mut pieces);
        run.clear();
        run.push((hash, row.line));
    }
    if !run.is_empty() {
        split(&run, &mut pieces);
    }
    Ok(pieces)
}

/// Cut a run that is too long before its row of least hash, and the parts alike.
/// So these cuts, too, depend on the rows nearby and not on how many came before.
fn split(run: &[(u64, &[u8])], pieces: &mut Vec<Vec<u8>>) {
    let length: usize = run.iter().map(|(_, line)| line.len() + 1).sum();
    if length <= SHARD_BYTES_MAX || run.len() == 1 {
        let mut piece = Vec::with_capacity(length);
        for (_, line) in run {
            piece.extend_from_slice(line);
            piece.push(b'\n');
        }
        pieces.push(piece);
        return;
    }
    let least = (1..run.len())
        .min_by_key(|index| run[*index].0)
        .expect("because the run has at least two rows");
    split(&run[..least], pieces);
    split(&run[least..], pieces);
}

/// A stable hash whose high bits are well mixed: FNV-1a, finished as in SplitMix64.
fn hash(key: &str) -> u64 {
    let mut hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Whether a row of this hash and length begins a shard whatever stands before it.
fn begins_shard(hash: u64, length: usize) -> bool {
    (hash >> 32) * SHARD_BYTES_EXPECTED < (length as u64) << 32
}

struct Table<'a> {
    snapshot: Option<&'a Snapshot>,
    name: &'a TreePath,
}

impl Table<'_> {
    /// The blob of the table's single file.
    fn single(&self) -> Result<Option<ObjectName>, ShardError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(None);
        };
        let path = self.name.with_suffix(".jsonl")?;
        match snapshot.entry(&path)? {
            None => Ok(None),
            Some(entry) if entry.kind == EntryKind::File => Ok(Some(entry.object)),
            Some(_) => Err(ShardError::Damaged {
                path,
                reason: "it is not a file",
            }),
        }
    }

    /// The table's shards by number, in order.
    fn shards(&self) -> Result<Vec<(u32, ObjectName)>, ShardError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(Vec::new());
        };
        let entries = snapshot.list(Some(self.name))?;
        entries
            .into_iter()
            .map(|(file, entry)| {
                let number = file
                    .strip_suffix(".jsonl")
                    .filter(|n| n.len() == 6 && n.bytes().all(|byte| byte.is_ascii_digit()))
                    .and_then(|number| number.parse().ok());
                match (entry.kind, number) {
                    (EntryKind::File, Some(number)) => Ok((number, entry.object)),
                    _ => Err(ShardError::Damaged {
                        path: TreePath::found(Some(self.name), &file),
                        reason: "its name is not one that a shard has",
                    }),
                }
            })
            .collect()
    }

    fn shard_path(&self, number: u32) -> Result<TreePath, NameError> {
        self.name.join(&format!("{number:06}.jsonl"))
    }

    fn files(&self) -> Result<Vec<(TreePath, ObjectName)>, ShardError> {
        let shards = self.shards()?;
        match self.single()? {
            None => shards
                .into_iter()
                .map(|(number, object)| Ok((self.shard_path(number)?, object)))
                .collect(),
            Some(_) if !shards.is_empty() => Err(ShardError::Damaged {
                path: self.name.clone(),
                reason: "the table is there both as one file and in shards",
            }),
            Some(object) => Ok(vec![(self.name.with_suffix(".jsonl")?, object)]),
        }
    }

    /// Give every piece a number, leaving those that are there already where they are.
    fn place(
        &self,
        pieces: Vec<Vec<u8>>,
        shards: &[(u32, ObjectName)],
        edits: &mut Vec<Edit>,
    ) -> Result<(), ShardError> {
        let names: Vec<Option<ObjectName>> = pieces
            .iter()
            .map(|piece| Some(self.snapshot?.store().blob_name(piece)))
            .collect();
        let numbers = numbers(&names, shards);
        let old: HashMap<u32, ObjectName> = shards.iter().copied().collect();
        let known: HashSet<ObjectName> = shards.iter().map(|(_, object)| *object).collect();
        let used: HashSet<u32> = numbers.iter().copied().collect();
        for (number, _) in shards.iter().filter(|(number, _)| !used.contains(number)) {
            let path = self.shard_path(*number)?;
            edits.push(Edit::Remove { path });
        }
        for ((bytes, name), number) in pieces.into_iter().zip(names).zip(numbers) {
            let path = self.shard_path(number)?;
            match name {
                Some(name) if old.get(&number) == Some(&name) => {}
                Some(blob) if known.contains(&blob) => edits.push(Edit::PutBlob { path, blob }),
                _ => edits.push(Edit::put(path, bytes)),
            }
        }
        Ok(())
    }
}

/// Numbers for the new shards, rising. A shard that is there keeps its number;
/// between two that do, new ones take over the numbers of those that go, and
/// then numbers in the gaps. Where no gap is left, all are numbered afresh.
fn numbers(names: &[Option<ObjectName>], shards: &[(u32, ObjectName)]) -> Vec<u32> {
    let place: HashMap<ObjectName, usize> = shards
        .iter()
        .enumerate()
        .map(|(index, (_, object))| (*object, index))
        .collect();
    let mut numbers = Vec::with_capacity(names.len());
    let mut next_old = 0;
    let mut run = 0;
    for end in 0..=names.len() {
        let kept = names
            .get(end)
            .map(|name| name.as_ref().and_then(|name| place.get(name).copied()));
        let (until, high) = match kept {
            // A run of new shards ends at one that stays, or at the end.
            Some(Some(index)) if index >= next_old => (index, shards[index].0),
            None => (shards.len(), NUMBER_MAX + 1),
            Some(_) => continue,
        };
        let low = numbers.last().copied().unwrap_or(0);
        let free: Vec<u32> = shards[next_old..until].iter().map(|(n, _)| *n).collect();
        if !fill(&mut numbers, end - run, low, high, &free) {
            return afresh(names.len());
        }
        if kept.is_some() {
            numbers.push(high);
        }
        next_old = until + 1;
        run = end + 1;
    }
    numbers
}

/// Add `count` numbers between `low` and `high`, the freed ones first. False when there is no room.
fn fill(numbers: &mut Vec<u32>, count: usize, low: u32, high: u32, free: &[u32]) -> bool {
    let reused = &free[..count.min(free.len())];
    numbers.extend_from_slice(reused);
    let more = u32::try_from(count - reused.len()).unwrap_or(u32::MAX);
    let low = reused.last().copied().unwrap_or(low);
    if more == 0 {
        return true;
    }
    if high - low <= more {
        return false;
    }
    // At the end there is no neighbour to stay close to, so the usual step is kept.
    let step = ((high - low) / (more + 1)).clamp(1, NUMBER_STEP);
    numbers.extend((1..=more).map(|index| low + index * step));
    true
}

fn afresh(count: usize) -> Vec<u32> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let step = (NUMBER_MAX / count.max(1)).clamp(1, NUMBER_STEP);
    (1..=count).map(|index| index * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_keep_their_numbers() {
        let object = |n: u8| ObjectName::from(gix::ObjectId::from_bytes_or_panic(&[n; 20]));
        type Case = (&'static [u8], &'static [(u32, u8)], &'static [u32]);
        let table: &[Case] = &[
            (&[1, 2, 3], &[], &[100, 200, 300]),
            (
                &[1, 9, 3],
                &[(100, 1), (200, 2), (300, 3)],
                &[100, 200, 300],
            ),
            (
                &[1, 9, 8, 3],
                &[(100, 1), (200, 2), (300, 3)],
                &[100, 200, 250, 300],
            ),
            (&[9, 1, 2], &[(100, 1), (200, 2)], &[50, 100, 200]),
            (&[1, 3], &[(100, 1), (200, 2), (300, 3)], &[100, 300]),
            (&[1, 2, 9, 8], &[(100, 1), (200, 2)], &[100, 200, 300, 400]),
            (&[1, 9, 2], &[(100, 1), (101, 2)], &[100, 200, 300]),
        ];
        for (names, shards, expected) in table {
            let names: Vec<_> = names.iter().map(|n| Some(object(*n))).collect();
            let shards: Vec<_> = shards.iter().map(|(n, o)| (*n, object(*o))).collect();
            assert_eq!(numbers(&names, &shards), *expected);
        }
    }

    #[test]
    fn cuts_are_about_as_far_apart_as_expected() {
        for length in [60, 200, 5_000] {
            let cuts = (0..100_000)
                .filter(|n| begins_shard(hash(&format!("row-{n:06}")), length))
                .count();
            let mean = 100_000 * length / cuts;
            assert!((20_000..29_000).contains(&mean), "{length}: {mean}");
        }
    }
}
