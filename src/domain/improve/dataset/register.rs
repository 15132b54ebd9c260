//! The register: every row, by digest, that was ever in holdout or ever in
//! another split. It only grows and lives beside the rows on the datasets
//! branch, so that deleting a row and importing it again changes nothing about
//! where it may go.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

use super::{Kept, Side};

/// One line of the register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Digest of the row's input and expected output.
    pub content: Digest,
    /// Digest of the name of its group; absent for a row without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Digest>,
    /// Where it was.
    pub side: Side,
}

/// Which of a row's two names the register knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The same input and expected output.
    Content,
    /// Another row of its group.
    Group,
}

/// The register, for asking.
#[derive(Debug, Clone, Default)]
pub struct Register {
    holdout: HashSet<Digest>,
    open: HashSet<Digest>,
}

impl Register {
    /// Take note of a line.
    pub fn note(&mut self, seen: &Seen) {
        let names = self.names_mut(seen.side);
        names.insert(seen.content);
        names.extend(seen.group);
    }

    /// How a row is known on a side, if it is.
    pub fn knows(&self, row: &Kept, side: Side) -> Option<Known> {
        let names = self.names(side);
        if names.contains(&row.content) {
            Some(Known::Content)
        } else if names.contains(&row.group_digest()) {
            Some(Known::Group)
        } else {
            None
        }
    }

    /// Whether a row, or a row of its group, was ever in a split.
    pub fn is_fresh(&self, row: &Kept) -> bool {
        self.knows(row, Side::Holdout).is_none() && self.knows(row, Side::Open).is_none()
    }

    /// The lines that these rows add. Rows without a split add nothing.
    pub fn additions<'a>(&self, rows: impl IntoIterator<Item = &'a Kept>) -> Vec<Seen> {
        let mut grown = self.clone();
        let mut lines = Vec::new();
        for row in rows {
            let Some(side) = row.side() else { continue };
            let names = grown.names_mut(side);
            let news = names.insert(row.content);
            let group = row.group.is_some().then(|| row.group_digest());
            let newer = group.is_some_and(|group| names.insert(group));
            if news || newer {
                lines.push(Seen {
                    content: row.content,
                    group,
                    side,
                });
            }
        }
        lines
    }

    fn names(&self, side: Side) -> &HashSet<Digest> {
        match side {
            Side::Holdout => &self.holdout,
            Side::Open => &self.open,
        }
    }

    fn names_mut(&mut self, side: Side) -> &mut HashSet<Digest> {
        match side {
            Side::Holdout => &mut self.holdout,
            Side::Open => &mut self.open,
        }
    }
}
