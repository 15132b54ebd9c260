//! What keeps the splits apart: no content and no group in two of them, one row
//! per group in holdout, and nothing that was ever on one side of the wall on the other.

use std::collections::HashMap;

use crate::id::Digest;

use super::register::{Known, Register};
use super::{Kept, Side, Split};

/// A row that may not stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breach {
    /// Index of the row at fault.
    pub row: usize,
    /// The rule it breaks.
    pub rule: Rule,
}

/// The rules, with the index of the row that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The same input and expected output stand in another split.
    Content {
        /// There.
        other: usize,
    },
    /// A row of its group stands in another split.
    Group {
        /// There.
        other: usize,
    },
    /// Its group has a row in holdout already.
    OnePerGroup {
        /// That one.
        other: usize,
    },
    /// It, or a row of its group, was once on the other side.
    Ever {
        /// The side it was on.
        side: Side,
        /// What is known of it.
        known: Known,
    },
}

/// Every breach among rows, the first of two rows being the one that may stay:
/// so rows come in the order of who has the better claim. A row that breaks a
/// rule is no ground for others to break one.
pub fn breaches<'a>(rows: impl IntoIterator<Item = &'a Kept>, register: &Register) -> Vec<Breach> {
    let mut contents: HashMap<Digest, (Split, usize)> = HashMap::new();
    let mut groups: HashMap<Digest, (Split, usize)> = HashMap::new();
    let mut breaches = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        let Some(split) = row.split else { continue };
        let (content, group) = (row.content, row.group_digest());
        let other_side = match split.side() {
            Side::Holdout => Side::Open,
            Side::Open => Side::Holdout,
        };
        let rule = match (contents.get(&content), groups.get(&group)) {
            (Some((found, other)), _) if *found != split => Some(Rule::Content { other: *other }),
            (_, Some((found, other))) if *found != split => Some(Rule::Group { other: *other }),
            (Some((_, other)), _) | (_, Some((_, other))) if split == Split::Holdout => {
                Some(Rule::OnePerGroup { other: *other })
            }
            _ => register.knows(row, other_side).map(|known| Rule::Ever {
                side: other_side,
                known,
            }),
        };
        match rule {
            Some(rule) => breaches.push(Breach { row: index, rule }),
            None => {
                contents.entry(content).or_insert((split, index));
                groups.entry(group).or_insert((split, index));
            }
        }
    }
    breaches
}

/// Rows of the same split with the same content: harmless for proof, but each counts twice.
pub fn duplicates(rows: &[Kept]) -> u64 {
    let mut seen: HashMap<Digest, ()> = HashMap::with_capacity(rows.len());
    rows.iter()
        .filter(|row| seen.insert(row.content, ()).is_some())
        .count() as u64
}

/// Inputs that stand there with two different expected outputs, as pairs of indices.
pub fn contradictions(rows: &[Kept]) -> Vec<(usize, usize)> {
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(rows.len());
    let mut pairs = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let other = *first.entry(row.input()).or_insert(index);
        if rows[other].content != row.content {
            pairs.push((other, index));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::improve::dataset::Row;
    use crate::domain::improve::dataset::register::Seen;
    use serde_json::{Map, json};

    /// `content@group:split`, such as `a@g:train`, `a:train`, `a:`.
    fn row(id: usize, text: &str) -> Kept {
        let (name, split) = text.split_once(':').expect("a colon");
        let (content, group) = match name.split_once('@') {
            Some((content, group)) => (content, Some(group.parse().expect("a group"))),
            None => (name, None),
        };
        Kept::new(&Row {
            id: format!("{id}").parse().expect("an id"),
            input: json!({"text": content}),
            expected: json!(1),
            split: (!split.is_empty()).then(|| split.parse().expect("a split")),
            tags: Vec::new(),
            group,
            source: None,
            meta: Map::new(),
        })
        .expect("canonical")
    }

    fn rows(texts: &[&str]) -> Vec<Kept> {
        texts
            .iter()
            .enumerate()
            .map(|(id, text)| row(id, text))
            .collect()
    }

    #[test]
    fn each_rule() {
        let register = |texts: &[&str]| {
            let mut register = Register::default();
            for line in Register::default().additions(&rows(texts)) {
                register.note(&line);
            }
            register
        };
        let ever = |side, known| Rule::Ever { side, known };
        // (once seen, rows, breaches)
        type Case<'a> = (&'a [&'a str], &'a [&'a str], Vec<(usize, Rule)>);
        let table: [Case<'_>; 14] = [
            (
                &[],
                &["a:train", "b:dev", "c:holdout", "d:exercise", "e:"],
                vec![],
            ),
            (&[], &["a:train", "a:train"], vec![]),
            (&[], &["a:train", "a:"], vec![]),
            (
                &[],
                &["a:train", "a:dev"],
                vec![(1, Rule::Content { other: 0 })],
            ),
            (
                &[],
                &["a@g:train", "b@g:dev"],
                vec![(1, Rule::Group { other: 0 })],
            ),
            (
                &[],
                &["a@g:exercise", "b@g:holdout"],
                vec![(1, Rule::Group { other: 0 })],
            ),
            (
                &[],
                &["a@g:holdout", "b@g:holdout"],
                vec![(1, Rule::OnePerGroup { other: 0 })],
            ),
            (
                &[],
                &["a:holdout", "a:holdout"],
                vec![(1, Rule::OnePerGroup { other: 0 })],
            ),
            (
                &[],
                &["a@g:holdout", "a@h:holdout"],
                vec![(1, Rule::OnePerGroup { other: 0 })],
            ),
            (
                &["a:holdout"],
                &["a:train"],
                vec![(0, ever(Side::Holdout, Known::Content))],
            ),
            (
                &["a@g:holdout"],
                &["b@g:dev"],
                vec![(0, ever(Side::Holdout, Known::Group))],
            ),
            (
                &["a:exercise"],
                &["a@new:holdout"],
                vec![(0, ever(Side::Open, Known::Content))],
            ),
            (&["a:train", "b:holdout"], &["a:dev", "b:holdout"], vec![]),
            // What breaks a rule itself is no ground for others to break one.
            (
                &["a@g:holdout"],
                &["b@g:dev", "c@g:holdout"],
                vec![(0, ever(Side::Holdout, Known::Group))],
            ),
        ];
        for (seen, given, expected) in table {
            let found: Vec<_> = breaches(&rows(given), &register(seen))
                .iter()
                .map(|breach| (breach.row, breach.rule))
                .collect();
            assert_eq!(found, expected, "{seen:?} {given:?}");
        }
    }

    #[test]
    fn the_register_only_grows_by_news() {
        let given = rows(&["a@g:train", "b@g:train", "c:holdout", "d:"]);
        let mut register = Register::default();
        let lines = register.additions(&given);
        assert_eq!(lines.len(), 3);
        for line in &lines {
            let text = serde_json::to_string(line).expect("JSON");
            assert_eq!(serde_json::from_str::<Seen>(&text).expect("a line"), *line);
            register.note(line);
        }
        assert!(register.additions(&given).is_empty());
        assert!(register.is_fresh(&given[3]) && !register.is_fresh(&row(9, "z@g:")));
    }
}
