//! Assigning rows to splits: seeded, stratified, whole groups at a time.
//!
//! What is assigned is a *unit*: all rows that share a group or a content. Within
//! each stratum (units with the same label) every split gets its share rounded
//! down or up, never further off; which splits are rounded up is decided by who
//! is furthest behind over all strata so far. The order within a stratum comes
//! from digests of seed and row id, so it depends neither on the order of a file
//! nor on what else is in the dataset.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::canon;
use crate::id::{Digest, ExampleId};

use super::register::Register;
use super::{Kept, Side, Split};

/// How much of the units each split gets; the shares sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratios([f64; 4]);

impl Ratios {
    /// A split's share.
    pub fn of(&self, split: Split) -> f64 {
        self.0[split as usize]
    }

    /// The shares of the splits on one side, scaled to sum to 1; all zero when that side gets nothing.
    fn within(&self, side: Side) -> [f64; 4] {
        let mut shares = self.0;
        for split in Split::ALL.into_iter().filter(|split| split.side() != side) {
            shares[split as usize] = 0.0;
        }
        let sum: f64 = shares.iter().sum();
        if sum > 0.0 {
            shares.iter_mut().for_each(|share| *share /= sum);
        }
        shares
    }
}

impl FromStr for Ratios {
    type Err = String;

    /// `train=0.5,dev=0.2,holdout=0.3`: weights of any size.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [None; 4];
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or_else(|| {
                format!("`{part}` is not of the form SPLIT=SHARE, such as train=0.5")
            })?;
            let split: Split = name.trim().parse()?;
            let weight: f64 = weight
                .trim()
                .parse()
                .ok()
                .filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)
                .ok_or_else(|| {
                    format!("the share of {split} is `{weight}`; expected a number of at least 0")
                })?;
            if weights[split as usize].replace(weight).is_some() {
                return Err(format!("{split} is given twice"));
            }
        }
        let weights = weights.map(Option::unwrap_or_default);
        let sum: f64 = weights.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return Err("every share is 0".to_owned());
        }
        Ok(Self(weights.map(|weight| weight / sum)))
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = Split::ALL.into_iter().filter(|split| self.of(*split) > 0.0);
        let texts: Vec<String> = shares
            .map(|split| format!("{split} {:.1} %", 100.0 * self.of(split)))
            .collect();
        f.write_str(&texts.join(", "))
    }
}

/// How rows are to be assigned.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What each split gets.
    pub ratios: Ratios,
    /// Where the order starts.
    pub seed: u64,
    /// JSON pointer into the expected output; rows with the same value there are one stratum. The empty pointer is all of it.
    pub stratify_by: String,
    /// Draw rows of train, dev and exercise again, among those three.
    pub reassign: bool,
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assigned {
    /// Row by index, and its split.
    pub moves: Vec<(usize, Split)>,
    /// Rows that stay without a split, and why.
    pub kept_out: Vec<KeptOut>,
}

/// A row that stays without a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptOut {
    /// Its id.
    pub id: ExampleId,
    /// Why.
    pub reason: Reason,
}

/// Why a row stays without a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Another row of its group is in holdout, which has one row per group.
    GroupInHoldout,
    /// It, or a row of its group, was once in holdout, and holdout gets no share.
    OnceInHoldout,
    /// Rows of its group were once on both sides.
    OnceOnBothSides,
    /// It was once in train, dev or exercise, and none of them gets a share.
    OnceOpen,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GroupInHoldout => {
                "another row of its group is in holdout, which has one row per group"
            }
            Self::OnceInHoldout => {
                "it, or a row of its group, was once in holdout, and holdout gets no share"
            }
            Self::OnceOnBothSides => "rows of its group were once on both sides",
            Self::OnceOpen => "it was once outside holdout, and no open split gets a share",
        })
    }
}

/// Rows that must stay together.
struct Unit {
    /// Indices, in id order.
    rows: Vec<usize>,
    label: String,
    order: Digest,
    may_enter: Door,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Both,
    Open,
    Holdout,
}

/// Decide where rows go. `rows` are in id order. Rows of holdout never move.
pub fn assign(rows: &[Kept], register: &Register, request: &Request) -> Assigned {
    let mut assigned = Assigned::default();
    let mut units = Vec::new();
    for members in units_of(rows) {
        let standing: HashSet<Split> = members.iter().filter_map(|row| rows[*row].split).collect();
        let free: Vec<usize> = members
            .iter()
            .copied()
            .filter(|row| match rows[*row].split {
                None => true,
                Some(split) => request.reassign && split.side() == Side::Open,
            })
            .collect();
        if free.is_empty() {
            continue;
        }
        if standing.contains(&Split::Holdout) {
            keep_out(&mut assigned, rows, &free, Reason::GroupInHoldout);
            continue;
        }
        if let (false, Some(split)) = (request.reassign, standing.iter().min()) {
            // Part of the group is in a split already: the rest joins it.
            assigned
                .moves
                .extend(free.into_iter().map(|row| (row, *split)));
            continue;
        }
        match door(rows, &members, register, &request.ratios) {
            Ok(may_enter) => units.push(Unit {
                label: label(&rows[free[0]], &request.stratify_by),
                order: Digest::of(format!("{}\n{}", request.seed, rows[free[0]].id).as_bytes()),
                rows: free,
                may_enter,
            }),
            Err(reason) => keep_out(&mut assigned, rows, &free, reason),
        }
    }
    place(units, rows, request, &mut assigned);
    assigned
        .moves
        .retain(|(row, split)| rows[*row].split != Some(*split));
    assigned.moves.sort_unstable();
    assigned
        .kept_out
        .sort_by(|left, right| left.id.cmp(&right.id));
    assigned
}

/// Spread units over the splits, stratum by stratum.
fn place(units: Vec<Unit>, rows: &[Kept], request: &Request, assigned: &mut Assigned) {
    let mut strata: BTreeMap<(Door, String), Vec<Unit>> = BTreeMap::new();
    for unit in units {
        strata
            .entry((unit.may_enter, unit.label.clone()))
            .or_default()
            .push(unit);
    }
    let (mut wanted, mut given) = ([0.0; 4], [0_usize; 4]);
    for ((door, _), mut stratum) in strata {
        stratum.sort_by_key(|unit| unit.order);
        let shares = match door {
            Door::Both => request.ratios.0,
            Door::Open => request.ratios.within(Side::Open),
            Door::Holdout => request.ratios.within(Side::Holdout),
        };
        let counts = apportion(stratum.len(), &shares, &mut wanted, &mut given);
        let mut units = stratum.into_iter();
        for split in Split::ALL {
            for unit in units.by_ref().take(counts[split as usize]) {
                let taken = if split == Split::Holdout {
                    1
                } else {
                    unit.rows.len()
                };
                // Which row of a group proves is as arbitrary as the order of the groups.
                let first = unit.order.as_bytes()[0] as usize % unit.rows.len();
                let mut members = unit.rows;
                members.rotate_left(if taken == 1 { first } else { 0 });
                assigned
                    .moves
                    .extend(members[..taken].iter().map(|row| (*row, split)));
                keep_out(assigned, rows, &members[taken..], Reason::GroupInHoldout);
            }
        }
    }
}

/// How many of `units` each split gets: its share rounded down, and one more for
/// those furthest behind what they should have had so far.
fn apportion(
    units: usize,
    shares: &[f64; 4],
    wanted: &mut [f64; 4],
    given: &mut [usize; 4],
) -> [usize; 4] {
    let quotas = shares.map(|share| share * units as f64);
    // A share that should be whole may miss it by a rounding error.
    let mut counts = quotas.map(|quota| (quota + 1e-9).floor() as usize);
    let mut rest = units - counts.iter().sum::<usize>();
    for split in 0..4 {
        wanted[split] += quotas[split];
    }
    let behind = |split: &usize| wanted[*split] - (given[*split] + counts[*split]) as f64;
    let mut order: Vec<usize> = (0..4)
        .filter(|split| quotas[*split] > counts[*split] as f64 + 1e-9)
        .collect();
    order.sort_by(|left, right| behind(right).total_cmp(&behind(left)).then(left.cmp(right)));
    for split in order {
        if rest > 0 {
            counts[split] += 1;
            rest -= 1;
        }
    }
    for split in 0..4 {
        given[split] += counts[split];
    }
    counts
}

/// Which sides a unit may enter, by where its rows ever were.
fn door(
    rows: &[Kept],
    members: &[usize],
    register: &Register,
    ratios: &Ratios,
) -> Result<Door, Reason> {
    // A row that stands in a split counts, whether or not a register still knows it.
    let ever = |side| {
        members
            .iter()
            .map(|row| &rows[*row])
            .any(|row| row.side() == Some(side) || register.knows(row, side).is_some())
    };
    let gets = |side| ratios.within(side).iter().any(|share| *share > 0.0);
    match (ever(Side::Holdout), ever(Side::Open)) {
        (false, false) => Ok(Door::Both),
        (true, true) => Err(Reason::OnceOnBothSides),
        (true, false) if gets(Side::Holdout) => Ok(Door::Holdout),
        (false, true) if gets(Side::Open) => Ok(Door::Open),
        (true, false) => Err(Reason::OnceInHoldout),
        (false, true) => Err(Reason::OnceOpen),
    }
}

fn keep_out(assigned: &mut Assigned, rows: &[Kept], members: &[usize], reason: Reason) {
    let without = members.iter().filter(|row| rows[**row].split.is_none());
    assigned.kept_out.extend(without.map(|row| KeptOut {
        id: rows[*row].id.clone(),
        reason,
    }));
}

/// What a row is stratified by.
pub fn label(row: &Kept, pointer: &str) -> String {
    if pointer.is_empty() {
        return row.expected().to_owned();
    }
    let expected: Value = serde_json::from_str(row.expected()).unwrap_or(Value::Null);
    let value = expected.pointer(pointer).cloned().unwrap_or(Value::Null);
    canon::to_string(&value).unwrap_or_default()
}

/// Rows that share a group or a content, directly or through others; each unit and all units in row order.
fn units_of(rows: &[Kept]) -> Vec<Vec<usize>> {
    let mut parents: Vec<usize> = (0..rows.len()).collect();
    fn root(parents: &mut [usize], mut row: usize) -> usize {
        while parents[row] != row {
            parents[row] = parents[parents[row]];
            row = parents[row];
        }
        row
    }
    let mut first: HashMap<Digest, usize> = HashMap::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        for name in [row.content, row.group_digest()] {
            let other = *first.entry(name).or_insert(index);
            let (left, right) = (root(&mut parents, other), root(&mut parents, index));
            parents[left.max(right)] = left.min(right);
        }
    }
    let mut units: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in 0..rows.len() {
        let root = root(&mut parents, row);
        units.entry(root).or_default().push(row);
    }
    units.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::improve::dataset::{Row, rules};
    use proptest::prelude::*;
    use serde_json::{Map, json};

    fn row(id: usize, label: u8, group: Option<u8>, split: Option<Split>) -> Kept {
        Kept::new(&Row {
            id: format!("r{id:04}").parse().expect("an id"),
            input: json!({"text": id}),
            expected: json!({"label": label}),
            split,
            tags: Vec::new(),
            group: group.map(|group| format!("g{group}").parse().expect("a group")),
            source: None,
            meta: Map::new(),
        })
        .expect("canonical")
    }

    fn request(ratios: &str) -> Request {
        Request {
            ratios: ratios.parse().expect("ratios"),
            seed: 7,
            stratify_by: "/label".to_owned(),
            reassign: false,
        }
    }

    fn applied(rows: &[Kept], assigned: &Assigned) -> Vec<Kept> {
        let mut rows = rows.to_vec();
        for (row, split) in &assigned.moves {
            rows[*row] = rows[*row].moved_to(*split);
        }
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn deterministic_whole_groups_and_within_one(
            made in prop::collection::vec((0_u8..4, prop::option::weighted(0.4, 0_u8..30)), 1..120),
            seed in 0_u64..1000,
            weights in (1_u32..9, 0_u32..9, 0_u32..9, 0_u32..9),
        ) {
            let rows: Vec<Kept> = made.iter().enumerate().map(|(id, (label, group))| row(id, *label, *group, None)).collect();
            let ratios = format!("train={},dev={},holdout={},exercise={}", weights.0, weights.1, weights.2, weights.3);
            let request = Request { seed, ..request(&ratios) };
            let assigned = assign(&rows, &Register::default(), &request);
            prop_assert_eq!(&assigned, &assign(&rows, &Register::default(), &request));
            let after = applied(&rows, &assigned);
            prop_assert!(rules::breaches(&after, &Register::default()).is_empty());
            prop_assert_eq!(assigned.moves.len() + assigned.kept_out.len(), rows.len());
            // Every stratum of units is within one of its share, and so nearly is the whole.
            let mut strata: BTreeMap<String, Vec<Option<Split>>> = BTreeMap::new();
            for unit in units_of(&rows) {
                let split = unit.iter().find_map(|row| after[*row].split);
                strata.entry(label(&rows[unit[0]], "/label")).or_default().push(split);
            }
            for units in strata.values() {
                for split in Split::ALL {
                    let share = request.ratios.of(split) * units.len() as f64;
                    let got = units.iter().filter(|found| **found == Some(split)).count() as f64;
                    prop_assert!((got - share).abs() < 1.0 + 1e-6, "{} got {} of {}", split, got, share);
                }
            }
            // Asking again changes nothing.
            let again = assign(&after, &Register::default(), &request);
            prop_assert!(again.moves.is_empty());
        }
    }

    #[test]
    fn many_labels_of_one_row_each_still_follow_the_ratios() {
        let rows: Vec<Kept> = (0..200)
            .map(|id| row(id, (id % 256) as u8, None, None))
            .collect();
        let request = Request {
            stratify_by: "/missing".to_owned(),
            ..request("train=0.5,dev=0.2,holdout=0.3")
        };
        for request in [
            request.clone(),
            Request {
                stratify_by: String::new(),
                ..request
            },
        ] {
            let after = applied(&rows, &assign(&rows, &Register::default(), &request));
            let count = |split| after.iter().filter(|row| row.split == Some(split)).count();
            assert!(
                count(Split::Train).abs_diff(100) <= 1 && count(Split::Holdout).abs_diff(60) <= 1,
                "{}",
                request.stratify_by
            );
        }
    }

    #[test]
    fn what_was_ever_somewhere_stays_on_its_side() {
        use Split::{Dev, Holdout, Train};
        let mut register = Register::default();
        for line in Register::default().additions([
            &row(0, 0, None, Some(Holdout)),
            &row(1, 0, None, Some(Train)),
            &row(90, 0, Some(9), Some(Train)),
            &row(91, 0, Some(9), Some(Holdout)),
        ]) {
            register.note(&line);
        }
        let rows = vec![
            row(0, 0, None, None),
            row(1, 0, None, None),
            row(2, 0, Some(9), None),
            row(3, 0, Some(1), Some(Holdout)),
            row(4, 0, Some(1), None),
            row(5, 0, Some(2), Some(Dev)),
            row(6, 0, Some(2), None),
        ];
        let all = assign(&rows, &register, &request("train=1,holdout=1"));
        assert_eq!(all.moves, [(0, Holdout), (1, Train), (6, Dev)]);
        let why: Vec<Reason> = all.kept_out.iter().map(|row| row.reason).collect();
        assert_eq!(why, [Reason::OnceOnBothSides, Reason::GroupInHoldout]);
        let open = assign(&rows, &register, &request("train=1"));
        assert!(
            open.kept_out
                .iter()
                .any(|row| row.id.as_str() == "r0000" && row.reason == Reason::OnceInHoldout)
        );
        let again = Request {
            reassign: true,
            ..request("train=1,exercise=1,holdout=9")
        };
        let again = assign(&rows, &register, &again);
        assert!(
            again
                .moves
                .iter()
                .all(|(row, split)| *row != 3 && (*split == Holdout) == (*row == 0))
        );
        assert!(
            [5, 6]
                .iter()
                .all(|row| again.moves.iter().any(|(moved, _)| moved == row)),
            "whole groups are drawn again: {again:?}"
        );
    }

    #[test]
    fn ratios_are_read() {
        let ratios: Ratios = "train=50, dev=20,holdout=30".parse().expect("ratios");
        assert_eq!(
            (ratios.of(Split::Train), ratios.of(Split::Exercise)),
            (0.5, 0.0)
        );
        assert_eq!(
            ratios.to_string(),
            "train 50.0 %, dev 20.0 %, holdout 30.0 %"
        );
        for (bad, word) in [
            ("train", "SPLIT=SHARE"),
            ("tran=1", "not a split"),
            ("train=x", "a number"),
            ("train=-1", "a number"),
            ("train=1,train=2", "twice"),
            ("train=0", "is 0"),
            ("train=inf", "a number"),
            ("train=NaN", "a number"),
        ] {
            let error = bad.parse::<Ratios>().expect_err(bad);
            assert!(error.contains(word), "{error}");
        }
    }
}
