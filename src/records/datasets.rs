//! `datasets`: the rows of every signature, and who may see which.
//!
//! `datasets/<signature>/dataset.yaml` says how many rows each split has and
//! what their digest is; the rows are in the tables `train`, `dev`, `holdout`,
//! `exercise` and `unassigned` beside it, one canonical line each, in id order;
//! the log `seen` is the register of everything that was ever in a split.
//!
//! Architecture invariant: rows are handed out by purpose. [`train_and_dev`] is
//! all a search can reach; [`exercise`] is for rehearsals; [`holdout`] takes the
//! reservation that was made for exactly these rows. What counts, bundles or
//! changes whole datasets is in [`upkeep`], which only the dataset flows use.
//! Whatever is read is held against its digest in `dataset.yaml` first.

use crate::canon;
use crate::domain::improve::dataset::census::Census;
use crate::domain::improve::dataset::{Dataset, Example, Kept, Split};
use crate::domain::prove::holdout::{Attempt, GroupSet};
use crate::id::{Digest, SignatureId};
use crate::schema::SchemaName;
use crate::store::{ObjectName, Snapshot, shard};

use super::refs::path;
use super::{RecordError, Refs, document};

pub mod upkeep;

pub use crate::domain::improve::dataset::rows_digest;

/// The rows that a search may see.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainAndDev {
    /// What programs may be built from, in id order.
    pub train: Vec<Example>,
    /// What selects between them, in id order.
    pub dev: Vec<Example>,
    /// The commit they were read from; `None` before the first import.
    pub commit: Option<ObjectName>,
}

/// What may be known of a holdout without a reservation: nothing about any answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldoutSummary {
    /// Digest over its rows, in id order: what a reservation names.
    pub digest: Digest,
    /// How many rows.
    pub rows: u64,
    /// Its groups: for every row the digest of its content, and for a row in a
    /// group that of the group's name as well, so that neither a new group name
    /// nor a rewritten row makes a holdout look unseen.
    pub groups: GroupSet,
    /// The commit it was read from; `None` before the first import.
    pub commit: Option<ObjectName>,
}

/// `dataset.yaml` of a signature; `None` before its first import.
pub fn dataset(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Option<Dataset>, RecordError> {
    let path = path::dataset(signature, DATASET);
    let dataset: Option<Dataset> =
        document::load(snapshot, &refs.datasets, &path, Some(SchemaName::Dataset))?;
    match &dataset {
        Some(found) if found.signature != *signature => Err(RecordError::Other(format!(
            "{} says it is about {}",
            document::shown(&refs.datasets, &path),
            found.signature
        ))),
        _ => Ok(dataset),
    }
}

/// The rows that a search may see. No dataset yet is no rows.
pub fn train_and_dev(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<TrainAndDev, RecordError> {
    Ok(TrainAndDev {
        train: rows(refs, snapshot, signature, Split::Train)?,
        dev: rows(refs, snapshot, signature, Split::Dev)?,
        commit: snapshot.map(Snapshot::commit),
    })
}

/// The rows that rehearsals run on, in id order.
pub fn exercise(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Vec<Example>, RecordError> {
    rows(refs, snapshot, signature, Split::Exercise)
}

/// What a reservation has to name.
pub fn holdout_summary(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<HoldoutSummary, RecordError> {
    summary_of(
        &rows(refs, snapshot, signature, Split::Holdout)?,
        snapshot.map(Snapshot::commit),
    )
}

/// The holdout rows, in id order, for the attempt that reserved exactly them.
pub fn holdout(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    attempt: &Attempt,
) -> Result<Vec<Example>, RecordError> {
    let rows = rows(refs, snapshot, &attempt.signature, Split::Holdout)?;
    let found = summary_of(&rows, snapshot.map(Snapshot::commit))?;
    let reserved = attempt.holdout == found.digest
        && attempt.rows == found.rows
        && attempt.groups == canon::digest(&found.groups)?;
    if !reserved {
        return Err(RecordError::Other(format!(
            "attempt {} of {} reserved the holdout {}, not the {} rows {} that stand here now",
            attempt.t,
            attempt.signature,
            attempt.holdout.short(),
            found.rows,
            found.digest.short(),
        )));
    }
    Ok(rows)
}

/// What a dataset holds, in counts: what the data gate decides on. No row leaves.
pub fn census(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Census, RecordError> {
    Ok(Census::of(&upkeep::load(refs, snapshot, signature)?.rows))
}

/// The file that says what the rows are.
pub const DATASET: &str = "dataset.yaml";
/// The table of rows that have no split yet.
pub const UNASSIGNED: &str = "unassigned";
/// The log of everything that was ever in a split.
pub const SEEN: &str = "seen";

fn summary_of(rows: &[Example], commit: Option<ObjectName>) -> Result<HoldoutSummary, RecordError> {
    let mut groups = GroupSet::new();
    for row in rows {
        groups.insert(row.content_digest()?);
        groups.extend(
            row.group
                .as_ref()
                .map(|group| Digest::of(group.as_str().as_bytes())),
        );
    }
    Ok(HoldoutSummary {
        digest: rows_digest(rows)?,
        rows: rows.len() as u64,
        groups,
        commit,
    })
}

/// The rows of one split. Private: the public functions above decide who gets which.
fn rows(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    split: Split,
) -> Result<Vec<Example>, RecordError> {
    let rows: Vec<Example> = kept(refs, snapshot, signature, Some(split))?
        .iter()
        .map(|kept| {
            serde_json::from_str(kept.line()).map_err(|error| {
                RecordError::Other(format!("row `{}` of {split}: {error}", kept.id))
            })
        })
        .collect::<Result<_, _>>()?;
    let recorded =
        dataset(refs, snapshot, signature)?.and_then(|dataset| dataset.splits.get(&split).cloned());
    let (found, named) = (
        rows_digest(&rows)?,
        recorded.map_or(rows_digest(&[])?, |figures| figures.digest),
    );
    if found != named {
        let table = path::dataset(signature, split.as_str());
        return Err(disagrees(
            &document::shown(&refs.datasets, &table),
            &found,
            &named,
        ));
    }
    Ok(rows)
}

/// The lines of one table, each read as far as the rules need.
fn kept(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    split: Option<Split>,
) -> Result<Vec<Kept>, RecordError> {
    let table = path::dataset(signature, split.map_or(UNASSIGNED, Split::as_str));
    let fault = |index: usize, reason: String| {
        let name = document::shown(&refs.datasets, &table);
        RecordError::Other(format!("row {} of {name}: {reason}", index + 1))
    };
    let mut rows: Vec<Kept> = Vec::new();
    for (index, line) in shard::read(snapshot, &table)?
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let line = std::str::from_utf8(line).map_err(|error| fault(index, error.to_string()))?;
        let row = Kept::parse(line).map_err(|error| fault(index, error.to_string()))?;
        if row.split != split {
            return Err(fault(
                index,
                format!("`{}` says it is in another split", row.id),
            ));
        }
        if rows.last().is_some_and(|last| last.id >= row.id) {
            return Err(fault(
                index,
                format!("`{}` does not come after the row before it", row.id),
            ));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn disagrees(what: &str, found: &Digest, named: &Digest) -> RecordError {
    RecordError::Other(format!(
        "{what} has digest {}, but {DATASET} says {}: rows were changed by something other than `proofline dataset`; \
         revert that commit, then import the change from a file",
        found.short(),
        named.short(),
    ))
}
