//! Split: rows get their split, seeded and stratified, whole groups at a time.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::improve::dataset::assign::{self, KeptOut, Ratios, Request};
use crate::domain::improve::dataset::{Kept, Split};
use crate::domain::improve::signature::Signature;
use crate::flows::{FlowError, Workspace};
use crate::id::SignatureId;
use crate::records::datasets::upkeep;
use crate::store::{Decision, Transaction};

use super::provable::{Provable, provable};
use super::split_name;

/// What a split came to.
#[derive(Debug, Clone, Serialize)]
pub struct Divided {
    /// The signature.
    pub signature: SignatureId,
    /// Whether nothing was written, only said.
    pub dry_run: bool,
    /// What each split was to get of the groups.
    pub ratios: BTreeMap<Split, f64>,
    /// Where the order started.
    pub seed: u64,
    /// How many rows went from where to where.
    pub moves: Vec<Moves>,
    /// Rows per split afterwards.
    pub rows: BTreeMap<String, u64>,
    /// Rows per label and split afterwards, for up to forty labels.
    pub labels: BTreeMap<String, BTreeMap<String, u64>>,
    /// Rows that stay without a split, and why.
    pub kept_out: Vec<KeptOut>,
    /// What the holdout can prove afterwards.
    pub provable: Provable,
    /// The datasets commit; absent when nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Rows that went the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moves {
    /// From.
    pub from: String,
    /// To.
    pub to: Split,
    /// How many.
    pub rows: u64,
}

/// Divide the rows of a signature.
pub fn divide(
    workspace: &Workspace,
    signature: &Signature,
    request: &Request,
    dry_run: bool,
) -> Result<Divided, FlowError> {
    let transaction = Transaction::new(workspace.refs.datasets.clone(), workspace.author()?);
    let mut divided = None;
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                let before = upkeep::load(&workspace.refs, snapshot, &signature.id)?;
                if before.rows.is_empty() {
                    return Err(FlowError::input(format!(
                        "there are no rows of {} to divide",
                        signature.id
                    ))
                    .hint(format!(
                        "import some: `proofline dataset import FILE --signature {}`",
                        signature.id
                    )));
                }
                let assigned = assign::assign(&before.rows, &before.register, request);
                let mut rows = before.rows.clone();
                let mut moves: BTreeMap<(Option<Split>, Split), u64> = BTreeMap::new();
                for (row, to) in &assigned.moves {
                    *moves.entry((rows[*row].split, *to)).or_default() += 1;
                    rows[*row] = rows[*row].moved_to(*to);
                }
                let done = describe(
                    workspace,
                    signature,
                    request,
                    &rows,
                    moves,
                    assigned.kept_out,
                    dry_run,
                )?;
                let decision = if dry_run || done.moves.is_empty() {
                    Decision::Nothing
                } else {
                    Decision::Commit {
                        edits: upkeep::edits(snapshot, &signature.id, &before, &rows)?,
                        message: message(&done),
                    }
                };
                divided = Some(done);
                Ok(decision)
            })?;
    let mut divided = divided.ok_or_else(|| FlowError::bug("a split ended without a decision"))?;
    divided.commit = outcome
        .committed()
        .map(|committed| committed.commit.to_string());
    Ok(divided)
}

fn describe(
    workspace: &Workspace,
    signature: &Signature,
    request: &Request,
    rows: &[Kept],
    moves: BTreeMap<(Option<Split>, Split), u64>,
    kept_out: Vec<KeptOut>,
    dry_run: bool,
) -> Result<Divided, FlowError> {
    const LABELS_MAX: usize = 40;
    let mut per_split: BTreeMap<String, u64> = BTreeMap::new();
    let mut labels: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for row in rows {
        let split = split_name(row.split).to_owned();
        *per_split.entry(split.clone()).or_default() += 1;
        if labels.len() <= LABELS_MAX {
            let label = assign::label(row, &request.stratify_by);
            *labels.entry(label).or_default().entry(split).or_default() += 1;
        }
    }
    if labels.len() > LABELS_MAX {
        labels.clear();
    }
    Ok(Divided {
        signature: signature.id.clone(),
        dry_run,
        ratios: shares(&request.ratios),
        seed: request.seed,
        moves: moves
            .into_iter()
            .map(|((from, to), rows)| Moves {
                from: split_name(from).to_owned(),
                to,
                rows,
            })
            .collect(),
        provable: provable(workspace, per_split.get("holdout").copied().unwrap_or(0))?,
        rows: per_split,
        labels,
        kept_out,
        commit: None,
    })
}

fn shares(ratios: &Ratios) -> BTreeMap<Split, f64> {
    Split::ALL
        .into_iter()
        .map(|split| (split, ratios.of(split)))
        .collect()
}

fn message(done: &Divided) -> String {
    let total: u64 = done.moves.iter().map(|moves| moves.rows).sum();
    let mut text = format!(
        "dataset {}: {total} rows get their split\n\n",
        done.signature.name()
    );
    for moves in &done.moves {
        text.push_str(&format!("{} → {}: {}\n", moves.from, moves.to, moves.rows));
    }
    text.push_str(&format!(
        "\nSeed: {}\nSignature: {}\n",
        done.seed, done.signature
    ));
    text
}
