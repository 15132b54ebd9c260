//! Datasets: labelled rows in four splits, and the rules that keep the splits apart.
//!
//! | file | subject |
//! |---|---|
//! | `kept.rs` | a row in the form it is stored in, and the digests over rows |
//! | `register.rs` | which rows were ever in holdout, and which ever outside it |
//! | `intake.rs`, `formats.rs`, `table.rs` | what users write (JSONL, JSON, CSV; either naming) becomes rows, with every fault in its place |
//! | `rules.rs` | splits are disjoint by content and by group; holdout has one row per group |
//! | `near.rs` | rows that are almost the same in two splits |
//! | `upsert.rs` | what an import changes |
//! | `assign.rs` | seeded, stratified assignment of groups to splits |
//! | `census.rs` | what is in a dataset, counted |
//! | `requirements.rs` | the data gate |
//! | `difference.rs` | what differs between two states of a dataset, field by field |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canon::{self, CanonError};
use crate::id::{Digest, ExampleId, GroupId, SignatureId};

pub mod assign;
pub mod census;
pub mod difference;
pub mod formats;
pub mod intake;
pub mod kept;
pub mod near;
pub mod register;
pub mod requirements;
pub mod rules;
pub mod table;
pub mod upsert;

pub use kept::{Kept, rows_digest};

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What a program may be built from: few-shots, weights.
    Train,
    /// What selects between candidates.
    Dev,
    /// What proves the finalist; read by the holdout gate alone.
    Holdout,
    /// What rehearsals are run on.
    Exercise,
}

impl Split {
    /// All four, in the order people name them.
    pub const ALL: [Self; 4] = [Self::Train, Self::Dev, Self::Holdout, Self::Exercise];

    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Holdout => "holdout",
            Self::Exercise => "exercise",
        }
    }

    /// Which side of the wall it is on.
    pub fn side(self) -> Side {
        match self {
            Self::Holdout => Side::Holdout,
            Self::Train | Self::Dev | Self::Exercise => Side::Open,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Split {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|split| split.as_str() == text)
            .ok_or_else(|| {
                let hint =
                    crate::schema::did_you_mean(text, &["train", "dev", "holdout", "exercise"])
                        .map_or(String::new(), |hint| format!("; {hint}"));
                format!("`{text}` is not a split; expected train, dev, holdout or exercise{hint}")
            })
    }
}

/// The two sides that no row ever changes between: what proves, and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The holdout split.
    Holdout,
    /// Train, dev and exercise.
    Open,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holdout => "holdout",
            Self::Open => "open",
        })
    }
}

/// One labelled row that has its split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Its id, unique within the signature.
    pub id: ExampleId,
    /// The input, which satisfies the signature's input schema.
    pub input: Value,
    /// The expected output, which satisfies the output schema.
    pub expected: Value,
    /// What it is for.
    pub split: Split,
    /// Labels for people and for `required_tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Rows that must stay together; a row without one is a group of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Anything else its owner keeps.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

impl Example {
    /// The digest of the whole row.
    pub fn digest(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }

    /// The digest of what the program sees and should answer: rows with the same one are duplicates.
    pub fn content_digest(&self) -> Result<Digest, CanonError> {
        canon::digest(&(&self.input, &self.expected))
    }

    /// The name of the group it belongs to: its own id when it has none.
    pub fn group_name(&self) -> &str {
        self.group
            .as_ref()
            .map_or(self.id.as_str(), GroupId::as_str)
    }
}

/// A row that may not have its split yet: an [`Example`] to be. With a split, both have the same canonical bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its id, unique within the signature.
    pub id: ExampleId,
    /// The input.
    pub input: Value,
    /// The expected output.
    pub expected: Value,
    /// What it is for; nothing uses a row before it has a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Labels for people and for `required_tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Rows that must stay together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Anything else its owner keeps.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

/// `dataset.yaml`: what the rows of one signature are, in figures and digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Always [`Dataset::SCHEMA`].
    pub schema: String,
    /// The signature.
    pub signature: SignatureId,
    /// Digest over the digests of all rows, with and without a split, in id order.
    pub content_digest: Digest,
    /// What each split holds; a split without rows is absent.
    pub splits: std::collections::BTreeMap<Split, SplitFigures>,
    /// Rows that have no split yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unassigned: Option<SplitFigures>,
}

impl Dataset {
    /// The `schema` field of `dataset.yaml`.
    pub const SCHEMA: &str = "proofline/dataset/v1";

    /// Rows in all, with and without a split.
    pub fn rows(&self) -> u64 {
        self.splits
            .values()
            .chain(&self.unassigned)
            .map(|figures| figures.rows)
            .sum()
    }

    /// How many rows a split has.
    pub fn rows_in(&self, split: Split) -> u64 {
        self.splits.get(&split).map_or(0, |figures| figures.rows)
    }
}

/// The rows of one split, in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitFigures {
    /// How many rows.
    pub rows: u64,
    /// How many groups; a row without one is a group of its own.
    pub groups: u64,
    /// Digest over the rows' digests, in id order.
    pub digest: Digest,
}
