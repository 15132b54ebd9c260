//! Show: one row, or the first few of a split.

use serde::Serialize;

use crate::domain::improve::dataset::{Dataset, Row, Split};
use crate::flows::{FlowError, Workspace};
use crate::id::{Digest, ExampleId, SignatureId};
use crate::records::datasets::{self, upkeep};
use crate::schema::did_you_mean;

use super::withheld;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// One row.
    pub id: Option<ExampleId>,
    /// Rows of this split; of all but holdout when absent.
    pub split: Option<Split>,
    /// At most so many rows.
    pub limit: usize,
    /// Holdout rows too.
    pub include_holdout: bool,
}

/// What is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The signature.
    pub signature: SignatureId,
    /// `dataset.yaml`; absent before the first import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Dataset>,
    /// The rows.
    pub rows: Vec<ShownRow>,
    /// How many more there are.
    pub more: u64,
    /// How many of the rows are in holdout and not shown.
    pub withheld: u64,
}

/// One row with its digests.
#[derive(Debug, Clone, Serialize)]
pub struct ShownRow {
    /// The row.
    #[serde(flatten)]
    pub row: Row,
    /// Digest of input and expected output.
    pub content_digest: Digest,
    /// Digest of the whole row.
    pub digest: Digest,
}

/// Show rows of a signature.
pub fn show(
    workspace: &Workspace,
    signature: &SignatureId,
    options: &Options,
) -> Result<Shown, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let all = upkeep::load(&workspace.refs, snapshot.as_ref(), signature)?.rows;
    if let Some(id) = &options.id
        && !all.iter().any(|row| row.id == *id)
    {
        let known: Vec<&str> = all.iter().map(|row| row.id.as_str()).collect();
        let mut error = FlowError::input(format!("{signature} has no row `{id}`"));
        error.hints.extend(did_you_mean(id.as_str(), &known));
        return Err(error);
    }
    let asked = all.iter().filter(|row| match (&options.id, options.split) {
        (Some(id), _) => row.id == *id,
        (None, Some(split)) => row.split == Some(split),
        (None, None) => true,
    });
    let (hidden, open): (Vec<_>, Vec<_>) =
        asked.partition(|row| row.split == Some(Split::Holdout) && !options.include_holdout);
    if !hidden.is_empty() && (options.id.is_some() || options.split.is_some()) {
        return Err(withheld(if options.id.is_some() {
            "the row is"
        } else {
            "the rows are"
        }));
    }
    let rows: Vec<ShownRow> = open
        .iter()
        .take(options.limit)
        .map(|row| ShownRow {
            row: row.row(),
            content_digest: row.content,
            digest: row.digest(),
        })
        .collect();
    Ok(Shown {
        signature: signature.clone(),
        dataset: datasets::dataset(&workspace.refs, snapshot.as_ref(), signature)?,
        more: (open.len() - rows.len()) as u64,
        rows,
        withheld: hidden.len() as u64,
    })
}
