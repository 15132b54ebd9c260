//! What is in a dataset, counted: no row, no answer, only how many of what.

use std::collections::{BTreeMap, HashSet};

use crate::id::Digest;

use super::{Kept, Split};

/// What is in a dataset, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Per split; rows without one under `None`. A split without rows is absent.
    pub splits: BTreeMap<Option<Split>, Count>,
}

/// What is in one split, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// How many rows.
    pub rows: u64,
    /// How many groups; a row without one is a group of its own.
    pub groups: u64,
    /// How many rows carry exactly these tags, sorted.
    pub tag_sets: BTreeMap<Vec<String>, u64>,
}

impl Census {
    /// Count rows.
    pub fn of(rows: &[Kept]) -> Self {
        let mut splits: BTreeMap<Option<Split>, Count> = BTreeMap::new();
        let mut groups: HashSet<(Option<Split>, Digest)> = HashSet::new();
        for row in rows {
            let count = splits.entry(row.split).or_default();
            count.rows += 1;
            count.groups += u64::from(groups.insert((row.split, row.group_digest())));
            let mut tags = row.tags.clone();
            tags.sort();
            tags.dedup();
            *count.tag_sets.entry(tags).or_default() += 1;
        }
        Self { splits }
    }

    /// How many rows a split has.
    pub fn rows_in(&self, split: Split) -> u64 {
        self.splits.get(&Some(split)).map_or(0, |count| count.rows)
    }

    /// How many rows have a split.
    pub fn assigned(&self) -> u64 {
        Split::ALL
            .into_iter()
            .map(|split| self.rows_in(split))
            .sum()
    }

    /// How many rows have no split yet.
    pub fn unassigned(&self) -> u64 {
        self.splits.get(&None).map_or(0, |count| count.rows)
    }

    /// How many rows with a split carry none of these tags.
    pub fn without_any(&self, tags: &[String]) -> u64 {
        self.splits
            .iter()
            .filter(|(split, _)| split.is_some())
            .flat_map(|(_, count)| &count.tag_sets)
            .filter(|(carried, _)| !carried.iter().any(|tag| tags.contains(tag)))
            .map(|(_, rows)| rows)
            .sum()
    }
}
