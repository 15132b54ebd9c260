//! Stats: what is in a dataset, counted, and what it could prove.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::improve::dataset::census::Census;
use crate::domain::improve::dataset::requirements::requirements;
use crate::domain::improve::dataset::{Split, assign, near, rules};
use crate::domain::improve::signature::Signature;
use crate::domain::prove::policy::Gates;
use crate::domain::prove::verdict::GateResult;
use crate::flows::{FlowError, Workspace, night};
use crate::id::SignatureId;
use crate::records::datasets::upkeep;

use super::provable::{Provable, provable};
use super::{pair_in_words, split_name};

/// What is in a dataset.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// The signature.
    pub signature: SignatureId,
    /// Per split, in the order people name them.
    pub splits: Vec<SplitStats>,
    /// Rows per label and split.
    pub labels: Vec<LabelStats>,
    /// Labels in all; `labels` holds the most frequent.
    pub labels_total: usize,
    /// Rows per tag, over all splits.
    pub tags: BTreeMap<String, u64>,
    /// Rows whose input and expected output stand there already, in the same split.
    pub duplicates: u64,
    /// Pairs of rows with the same input and different expected outputs.
    pub contradictions: u64,
    /// Pairs of rows in different splits that are almost the same.
    pub near_pairs: u64,
    /// The first of them.
    pub near: Vec<String>,
    /// Whether every pair was looked at.
    pub near_complete: bool,
    /// What the holdout can prove.
    pub provable: Provable,
    /// What the data gate says.
    pub gate: GateResult,
}

/// One split in figures.
#[derive(Debug, Clone, Serialize)]
pub struct SplitStats {
    /// Its name.
    pub split: String,
    /// Rows.
    pub rows: u64,
    /// Groups; a row without one is a group of its own.
    pub groups: u64,
}

/// One label in figures.
#[derive(Debug, Clone, Serialize)]
pub struct LabelStats {
    /// The expected output, or the part of it that was asked for, as canonical JSON.
    pub label: String,
    /// Rows in all.
    pub rows: u64,
    /// Rows per split.
    pub splits: BTreeMap<String, u64>,
}

/// Count what a signature has. `by` is a JSON pointer into the expected output: what counts as its label.
pub fn stats(workspace: &Workspace, signature: &Signature, by: &str) -> Result<Stats, FlowError> {
    const LABELS_SHOWN: usize = 40;
    const PAIRS_SHOWN: usize = 20;
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let rows = upkeep::load(&workspace.refs, snapshot.as_ref(), &signature.id)?.rows;
    let census = Census::of(&rows);
    let splits = Split::ALL.into_iter().map(Some).chain([None]);
    let mut labels: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut tags: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        let splits = labels.entry(assign::label(row, by)).or_default();
        *splits.entry(split_name(row.split).to_owned()).or_default() += 1;
        for tag in &row.tags {
            *tags.entry(tag.clone()).or_default() += 1;
        }
    }
    let labels_total = labels.len();
    let mut labels: Vec<LabelStats> = labels
        .into_iter()
        .map(|(label, splits)| LabelStats {
            label,
            rows: splits.values().sum(),
            splits,
        })
        .collect();
    labels.sort_by(|left, right| (right.rows, &left.label).cmp(&(left.rows, &right.label)));
    labels.truncate(LABELS_SHOWN);
    let near = near::near(&rows, |_| true);
    let gates = night::policy(workspace).map_or_else(|_| Gates::default(), |policy| policy.gates);
    let holdout = census.rows_in(Split::Holdout);
    Ok(Stats {
        signature: signature.id.clone(),
        splits: splits
            .filter_map(|split| Some((split, census.splits.get(&split)?)))
            .map(|(split, count)| SplitStats {
                split: split_name(split).to_owned(),
                rows: count.rows,
                groups: count.groups,
            })
            .collect(),
        labels,
        labels_total,
        tags,
        duplicates: rules::duplicates(&rows),
        contradictions: rules::contradictions(&rows).len() as u64,
        near_pairs: near.pairs.len() as u64,
        near: near
            .pairs
            .iter()
            .take(PAIRS_SHOWN)
            .map(|pair| pair_in_words(&rows, pair))
            .collect(),
        near_complete: near.complete,
        provable: provable(workspace, holdout)?,
        gate: requirements(&census, &gates, &signature.data),
    })
}
