//! What an import changes: rows are put in place of those with the same id, and
//! the rules hold for all that stands there afterwards.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::id::ExampleId;

use super::intake::Incoming;
use super::register::{Known, Register};
use super::rules::{self, Rule};
use super::{Kept, Side, Split};

/// How an import is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Intent {
    /// The split of rows that have none, neither in the file nor in the dataset.
    pub into_split: Option<Split>,
    /// Remove what is in the dataset and not in the files.
    pub prune: bool,
    /// Of several rows of a group for holdout, take the one with the smallest id and leave the others out.
    pub one_per_group: bool,
    /// Leave new rows out that the rules keep from their split, instead of refusing the import.
    pub leave_out_conflicts: bool,
}

/// What an import would do.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// All rows afterwards, in id order.
    pub rows: Vec<Kept>,
    /// Whether each of them is new or changed.
    pub touched: Vec<bool>,
    /// Per split afterwards; rows without one under `None`.
    pub tallies: BTreeMap<Option<Split>, Tally>,
    /// Rows that changed from one open split to another.
    pub moved: u64,
    /// New rows that are not taken, and why.
    pub left_out: Vec<LeftOut>,
    /// Rows without an id whose content the files hold more than once; each is taken once.
    pub repeated: u64,
    /// Rows that stay in a split they are in already although the import names another for rows without one.
    pub stayed: u64,
}

/// How rows of one split changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// New rows.
    pub added: u64,
    /// Rows that differ from before.
    pub changed: u64,
    /// Rows as they were.
    pub unchanged: u64,
    /// Rows that are gone.
    pub removed: u64,
}

/// A new row that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its id.
    pub id: ExampleId,
    /// Which of the files it is from.
    pub file: usize,
    /// Its line there.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// A row that an import must not bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// File and line; `None` for a row that is in the dataset already.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// A row on its way in.
struct Candidate {
    row: Kept,
    /// File and line; `None` for a row that no file speaks of.
    place: Option<(usize, usize)>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Unchanged,
    Changed,
    Added,
}

/// What importing these rows does to those that are there, or everything that speaks against it.
pub fn plan(
    before: &[Kept],
    register: &Register,
    incoming: Vec<Incoming>,
    intent: Intent,
) -> Result<Planned, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut planned = Planned::default();
    let incoming = once_each(incoming, &mut planned, &mut refusals);
    let mut candidates = arranged(before, incoming, intent, &mut planned);
    // Who was there first has the better claim, then whoever has the smaller id:
    // so the order of a file makes no difference.
    candidates.sort_by(|left, right| (left.state, &left.row.id).cmp(&(right.state, &right.row.id)));
    let found = rules::breaches(candidates.iter().map(|candidate| &candidate.row), register);
    let mut out = vec![false; candidates.len()];
    for breach in found {
        let candidate = &candidates[breach.row];
        let may_go = match breach.rule {
            Rule::OnePerGroup { .. } => intent.one_per_group || intent.leave_out_conflicts,
            _ => intent.leave_out_conflicts,
        };
        let (message, hint) = explain(&candidates, breach.row, breach.rule);
        match candidate.place {
            Some((file, line)) if may_go && candidate.state == State::Added => {
                out[breach.row] = true;
                planned.left_out.push(LeftOut {
                    id: candidate.row.id.clone(),
                    file,
                    line,
                    reason: message,
                });
            }
            place => refusals.push(Refusal {
                place,
                message,
                hint,
            }),
        }
    }
    if !refusals.is_empty() {
        refusals.sort_by_key(|refusal| refusal.place);
        return Err(refusals);
    }
    let mut staying: Vec<Candidate> = candidates
        .into_iter()
        .zip(out)
        .filter(|(_, out)| !out)
        .map(|(candidate, _)| candidate)
        .collect();
    staying.sort_by(|left, right| left.row.id.cmp(&right.row.id));
    for candidate in staying {
        let tally = planned.tallies.entry(candidate.row.split).or_default();
        match candidate.state {
            State::Unchanged => tally.unchanged += 1,
            State::Changed => tally.changed += 1,
            State::Added => tally.added += 1,
        }
        planned.touched.push(candidate.state != State::Unchanged);
        planned.rows.push(candidate.row);
    }
    Ok(planned)
}

/// The rows of the files, every id once.
fn once_each(
    incoming: Vec<Incoming>,
    planned: &mut Planned,
    refusals: &mut Vec<Refusal>,
) -> Vec<Incoming> {
    let mut first: HashMap<ExampleId, usize> = HashMap::with_capacity(incoming.len());
    let mut kept: Vec<Incoming> = Vec::with_capacity(incoming.len());
    for row in incoming {
        let Some(other) = first.get(&row.row.id).map(|index| &kept[*index]) else {
            first.insert(row.row.id.clone(), kept.len());
            kept.push(row);
            continue;
        };
        if row.derived && other.derived && row.row.line() == other.row.line() {
            planned.repeated += 1;
            continue;
        }
        let place = match other.file == row.file {
            true => format!("line {}", other.line),
            false => format!("line {} of another file", other.line),
        };
        let (message, hint) = if row.derived && other.derived {
            (
                format!(
                    "the same input and expected output stand on {place}, with other tags, split or group"
                ),
                "keep one of them, or give them ids".to_owned(),
            )
        } else {
            (
                format!("`{}` is also the id on {place}", row.row.id),
                "give each row its own id".to_owned(),
            )
        };
        refusals.push(Refusal {
            place: Some((row.file, row.line)),
            message,
            hint,
        });
    }
    kept
}

/// Rows of the files and of the dataset, side by side.
fn arranged(
    before: &[Kept],
    incoming: Vec<Incoming>,
    intent: Intent,
    planned: &mut Planned,
) -> Vec<Candidate> {
    let by_id: HashMap<&ExampleId, &Kept> = before.iter().map(|row| (&row.id, row)).collect();
    let mut spoken_of: std::collections::HashSet<ExampleId> = std::collections::HashSet::new();
    let mut candidates = Vec::with_capacity(before.len().max(incoming.len()));
    for Incoming {
        row, file, line, ..
    } in incoming
    {
        let existing = by_id.get(&row.id).copied();
        let split = row
            .split
            .or_else(|| existing.and_then(|row| row.split))
            .or(intent.into_split);
        if row.split.is_none() && intent.into_split.is_some() && split != intent.into_split {
            planned.stayed += 1;
        }
        let row = match split {
            Some(split) if row.split != Some(split) => row.moved_to(split),
            _ => row,
        };
        let state = match existing {
            None => State::Added,
            Some(existing) if existing.line() == row.line() => State::Unchanged,
            Some(existing) => {
                planned.moved += u64::from(existing.split.is_some() && existing.split != row.split);
                State::Changed
            }
        };
        spoken_of.insert(row.id.clone());
        candidates.push(Candidate {
            row,
            place: Some((file, line)),
            state,
        });
    }
    for row in before.iter().filter(|row| !spoken_of.contains(&row.id)) {
        if intent.prune {
            planned.tallies.entry(row.split).or_default().removed += 1;
        } else {
            candidates.push(Candidate {
                row: row.clone(),
                place: None,
                state: State::Unchanged,
            });
        }
    }
    candidates
}

/// A breach in words, and the remedy.
fn explain(candidates: &[Candidate], row: usize, rule: Rule) -> (String, String) {
    let id = &candidates[row].row.id;
    let split = candidates[row]
        .row
        .split
        .expect("because only rows with a split break a rule");
    let shown = |other: usize| {
        let other = &candidates[other];
        let split = other
            .row
            .split
            .expect("because only rows with a split are in the way");
        let place = other
            .place
            .map_or(String::new(), |(_, line)| format!(", line {line}"));
        format!("`{}` ({split}{place})", other.row.id)
    };
    let leave = "or leave such rows out with `--leave-out-conflicts`";
    match rule {
        Rule::Content { other } => (
            format!(
                "`{id}` ({split}) has the same input and expected output as {}",
                shown(other)
            ),
            format!("a row stands in one split only: remove one of the two, {leave}"),
        ),
        Rule::Group { other } => (
            format!("`{id}` ({split}) is of the same group as {}", shown(other)),
            format!("a group stays together: give both the same split, {leave}"),
        ),
        Rule::OnePerGroup { other } => (
            format!(
                "`{id}` is of the same group as {}, and holdout has one row per group",
                shown(other)
            ),
            "remove all but one, or take the one with the smallest id with `--one-per-group`"
                .to_owned(),
        ),
        Rule::Ever { side, known } => {
            let what = match known {
                Known::Content => "it",
                Known::Group => "a row of its group",
            };
            let (was, rule) = match side {
                Side::Holdout => (
                    "in holdout",
                    "what was ever in holdout never enters train, dev or exercise",
                ),
                Side::Open => (
                    "outside holdout",
                    "what was ever in train, dev or exercise proves nothing in holdout",
                ),
            };
            (
                format!("`{id}` may not enter {split}: {what} was once {was}"),
                format!("{rule}; use an unseen row, {leave}"),
            )
        }
    }
}
