//! A row in the form it is stored in: one line of canonical JSON, and what the
//! rules need to know of it. A hundred thousand of these fit where a hundred
//! thousand trees of values would not.
//!
//! The digests over rows are here and nowhere else, so that import, compile and
//! gate cannot disagree.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::canon::{self, CanonError};
use crate::id::{Digest, ExampleId, GroupId};

use super::{Example, Row, Side, Split, SplitFigures};

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: ExampleId,
    /// What it is for; `None` when that is not decided yet.
    pub split: Option<Split>,
    /// Rows that must stay together.
    pub group: Option<GroupId>,
    /// Labels for people.
    pub tags: Vec<String>,
    /// The digest of input and expected output.
    pub content: Digest,
    line: Box<str>,
}

/// A line, looked at without building values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    id: ExampleId,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    expected: &'a RawValue,
    #[serde(default)]
    split: Option<Split>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    group: Option<GroupId>,
    #[serde(default, rename = "source")]
    _source: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "meta")]
    _meta: Option<serde::de::IgnoredAny>,
}

impl Kept {
    /// Keep a row.
    pub fn new(row: &Row) -> Result<Self, CanonError> {
        let line = canon::to_string(row)?;
        let wire: Wire<'_> =
            serde_json::from_str(&line).map_err(|error| CanonError::NotJson(error.to_string()))?;
        Ok(Self {
            id: row.id.clone(),
            split: row.split,
            group: row.group.clone(),
            tags: row.tags.clone(),
            content: content_of(&wire),
            line: line.into(),
        })
    }

    /// Read a stored line. The caller holds the digest of all lines against the one on record.
    pub fn parse(line: &str) -> Result<Self, serde_json::Error> {
        let wire: Wire<'_> = serde_json::from_str(line)?;
        Ok(Self {
            content: content_of(&wire),
            id: wire.id,
            split: wire.split,
            group: wire.group,
            tags: wire.tags,
            line: line.into(),
        })
    }

    /// The stored line, without a newline.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The digest of the whole row.
    pub fn digest(&self) -> Digest {
        Digest::of(self.line.as_bytes())
    }

    /// The digest that stands for its group: of the group's name, or for a row
    /// without one of its content, so that a copy under another id is the same group.
    pub fn group_digest(&self) -> Digest {
        match &self.group {
            Some(group) => Digest::of(group.as_str().as_bytes()),
            None => self.content,
        }
    }

    /// Which side of the wall it is on; `None` without a split.
    pub fn side(&self) -> Option<Side> {
        self.split.map(Split::side)
    }

    /// The expected output as canonical JSON: what rows are stratified by.
    pub fn expected(&self) -> &str {
        self.wire().expected.get()
    }

    /// The input as canonical JSON.
    pub fn input(&self) -> &str {
        self.wire().input.get()
    }

    /// All of it.
    pub fn row(&self) -> Row {
        serde_json::from_str(&self.line).expect("because the line was checked when it was kept")
    }

    /// The same row in another split.
    pub fn moved_to(&self, split: Split) -> Self {
        let row = Row {
            split: Some(split),
            ..self.row()
        };
        Self::new(&row)
            .expect("because only the split differs from a row that has a canonical form")
    }

    fn wire(&self) -> Wire<'_> {
        serde_json::from_str(&self.line).expect("because the line was checked when it was kept")
    }
}

/// The digest of `[input,expected]` as canonical JSON, taken from canonical pieces.
fn content_of(wire: &Wire<'_>) -> Digest {
    let (input, expected) = (wire.input.get(), wire.expected.get());
    let mut bytes = Vec::with_capacity(input.len() + expected.len() + 3);
    bytes.push(b'[');
    bytes.extend(input.as_bytes());
    bytes.push(b',');
    bytes.extend(expected.as_bytes());
    bytes.push(b']');
    Digest::of(&bytes)
}

/// The digest of a set of rows: over the canonical JSON of the list of their
/// digests, in the order of their ids whatever order they are given in.
pub fn rows_digest(rows: &[Example]) -> Result<Digest, CanonError> {
    let mut digests = rows
        .iter()
        .map(|row| Ok((&row.id, row.digest()?)))
        .collect::<Result<Vec<_>, CanonError>>()?;
    digests.sort();
    Ok(over(digests.into_iter().map(|(_, digest)| digest)))
}

/// The same digest for rows in their stored form.
pub fn kept_digest<'a>(rows: impl IntoIterator<Item = &'a Kept>) -> Digest {
    let mut digests: Vec<(&ExampleId, Digest)> = rows
        .into_iter()
        .map(|row| (&row.id, row.digest()))
        .collect();
    digests.sort();
    over(digests.into_iter().map(|(_, digest)| digest))
}

/// The canonical JSON of a list of digests, digested. Written out here because a
/// list of a hundred thousand need not become a tree first; a test holds it to [`canon::digest`].
fn over(digests: impl Iterator<Item = Digest>) -> Digest {
    let mut text = String::from("[");
    for digest in digests {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        text.push_str(&digest.to_string());
        text.push('"');
    }
    text.push(']');
    Digest::of(text.as_bytes())
}

/// Rows, groups and digest of some rows.
pub fn figures<'a>(rows: impl IntoIterator<Item = &'a Kept> + Clone) -> SplitFigures {
    let groups: HashSet<Digest> = rows.clone().into_iter().map(Kept::group_digest).collect();
    SplitFigures {
        rows: rows.clone().into_iter().count() as u64,
        groups: groups.len() as u64,
        digest: kept_digest(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn row(id: &str, n: f64) -> Row {
        Row {
            id: id.parse().expect("an id"),
            input: json!({"z": "é\n\u{2028}", "a": [n, 1e-7, 2.50, null]}),
            expected: json!({"tool": "none", "b": true}),
            split: Some(Split::Dev),
            tags: vec!["b".into(), "a".into()],
            group: Some("g 1".parse().expect("a group")),
            source: Some("written".into()),
            meta: Map::from_iter([("k".to_owned(), json!({"y": 1, "x": 2}))]),
        }
    }

    #[test]
    fn both_forms_have_the_same_digests() {
        let rows: Vec<Row> = (0..3)
            .map(|n| row(&format!("r{n}"), f64::from(n) + 0.5))
            .collect();
        let kept: Vec<Kept> = rows
            .iter()
            .map(|row| Kept::new(row).expect("canonical"))
            .collect();
        let examples: Vec<Example> = kept
            .iter()
            .map(|kept| serde_json::from_str(kept.line()).expect("an example"))
            .collect();
        for ((row, kept), example) in rows.iter().zip(&kept).zip(&examples) {
            assert_eq!(kept.row(), *row);
            assert_eq!(Kept::parse(kept.line()).expect("a line"), *kept);
            assert_eq!(kept.digest(), example.digest().expect("canonical"));
            assert_eq!(kept.content, example.content_digest().expect("canonical"));
            assert_eq!(kept.group_digest(), Digest::of(b"g 1"));
        }
        let digests: Vec<Digest> = kept.iter().map(Kept::digest).collect();
        let expected = canon::digest(&digests).expect("canonical");
        assert_eq!(rows_digest(&examples), Ok(expected));
        assert_eq!(
            kept_digest(kept.iter().rev()),
            expected,
            "the order of a file makes no difference"
        );
        assert_eq!(
            rows_digest(&[]),
            Ok(canon::digest::<[u8; 0]>(&[]).expect("canonical"))
        );
    }

    #[test]
    fn a_row_without_a_group_is_known_by_its_content() {
        let mut first = row("one", 1.0);
        first.group = None;
        let second = Row {
            id: "two".parse().expect("an id"),
            tags: Vec::new(),
            split: None,
            ..first.clone()
        };
        let (first, second) = (
            Kept::new(&first).expect("canonical"),
            Kept::new(&second).expect("canonical"),
        );
        assert_eq!(first.group_digest(), second.group_digest());
        assert_ne!(first.digest(), second.digest());
        assert_eq!((second.side(), first.side()), (None, Some(Side::Open)));
        assert_eq!(second.moved_to(Split::Holdout).side(), Some(Side::Holdout));
    }
}
