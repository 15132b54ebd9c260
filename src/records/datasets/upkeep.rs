//! Whole datasets, all splits: what import, export and the other dataset flows
//! work on. A test holds that nothing else imports this module.

use std::collections::BTreeMap;

use crate::domain::improve::dataset::kept::{figures, kept_digest};
use crate::domain::improve::dataset::register::{Register, Seen};
use crate::domain::improve::dataset::{Dataset, Kept, Split};
use crate::id::SignatureId;
use crate::store::shard::{self, Row};
use crate::store::{Edit, Snapshot, segment};

use crate::records::refs::path;
use crate::records::{RecordError, Refs, document};

/// Everything there is about one signature's rows.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// All rows, in id order.
    pub rows: Vec<Kept>,
    /// What was ever in a split, deleted rows included.
    pub register: Register,
}

/// Load all rows and the register. No dataset yet is no rows.
pub fn load(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Holdings, RecordError> {
    let recorded = super::dataset(refs, snapshot, signature)?;
    let mut rows = Vec::new();
    for table in tables() {
        rows.extend(super::kept(refs, snapshot, signature, table)?);
    }
    rows.sort_by(|left, right| left.id.cmp(&right.id));
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(RecordError::Other(format!(
            "row `{}` of {signature} is in two splits: the branch was edited by hand; revert that commit",
            pair[0].id
        )));
    }
    let found = kept_digest(&rows);
    let named = recorded.map_or_else(|| kept_digest([]), |dataset| dataset.content_digest);
    if found != named {
        return Err(super::disagrees(
            &format!("the dataset of {signature}"),
            &found,
            &named,
        ));
    }
    let mut register = Register::default();
    let prefix = path::dataset(signature, super::SEEN);
    let name = document::shown(&refs.datasets, &prefix);
    for (index, line) in segment::lines(snapshot, &prefix)?.enumerate() {
        register.note(&document::from_line::<Seen>(&name, index + 1, &line?)?);
    }
    Ok(Holdings { rows, register })
}

/// What `dataset.yaml` says of these rows.
pub fn describe(signature: &SignatureId, rows: &[Kept]) -> Dataset {
    let of = |split: Option<Split>| {
        let mut some = rows.iter().filter(|row| row.split == split).peekable();
        some.peek()?;
        Some(figures(some))
    };
    Dataset {
        schema: Dataset::SCHEMA.to_owned(),
        signature: signature.clone(),
        content_digest: kept_digest(rows),
        splits: BTreeMap::from_iter(
            Split::ALL
                .into_iter()
                .filter_map(|split| Some((split, of(Some(split))?))),
        ),
        unassigned: of(None),
    }
}

/// The edits that make a dataset hold exactly these rows, which are in id order,
/// and that enter them into the register.
pub fn edits(
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    before: &Holdings,
    rows: &[Kept],
) -> Result<Vec<Edit>, RecordError> {
    let mut edits = vec![Edit::Put {
        path: path::dataset(signature, super::DATASET),
        bytes: document::to_yaml(&describe(signature, rows))?,
    }];
    for table in tables() {
        let name = path::dataset(signature, table.map_or(super::UNASSIGNED, Split::as_str));
        let lines = rows.iter().filter(|row| row.split == table).map(|row| Row {
            key: row.id.as_str(),
            line: row.line().as_bytes(),
        });
        edits.extend(shard::write(snapshot, &name, lines)?);
    }
    // Rows that were there before are entered too, should they not be: a branch
    // that lost its register gets one that knows at least what it holds now.
    let lines = before
        .register
        .additions(before.rows.iter().chain(rows))
        .iter()
        .map(document::to_line)
        .collect::<Result<Vec<_>, _>>()?;
    if !lines.is_empty() {
        edits.extend(segment::append(
            snapshot,
            &path::dataset(signature, super::SEEN),
            lines,
        )?);
    }
    Ok(edits)
}

fn tables() -> impl Iterator<Item = Option<Split>> {
    Split::ALL.into_iter().map(Some).chain([None])
}
