//! The holdout ledger: every look at the holdout is reserved before a row is
//! read, numbered, and paid for from one α.
//!
//! α_t = 6α/(π²t²) spends α over any number of attempts (Σ 1/t² = π²/6). t
//! counts every earlier attempt that shares any group with this one, whatever
//! the dataset or signature version.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canon::{self, CanonError};
use crate::id::{Digest, RunId, SignatureId};

use super::stats::alpha::Alpha;

/// A reservation: the right to compare one candidate with one control on one holdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Always [`Attempt::SCHEMA`].
    pub schema: String,
    /// The signature.
    pub signature: SignatureId,
    /// The run that made it.
    pub run: RunId,
    /// Its number among the attempts that share a group with it, from 1.
    pub t: u64,
    /// The program in force.
    pub control: Digest,
    /// The finalist.
    pub candidate: Digest,
    /// Digest over the holdout rows, in id order.
    pub holdout: Digest,
    /// Digest of the set of group digests, kept as `holdout/sets/<hex>.json`.
    pub groups: Digest,
    /// Rows, one per group.
    pub rows: u64,
    /// α over all attempts.
    pub alpha: f64,
    /// What this attempt may spend.
    pub alpha_t: f64,
    /// When it was reserved.
    pub at: Timestamp,
}

impl Attempt {
    /// The `schema` field of an attempt.
    pub const SCHEMA: &str = "proofline/holdout-attempt/v1";

    /// The digest that its result refers to.
    pub fn digest(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }
}

/// What an attempt came to. A refusal publishes this one bit and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// Always [`Closing::SCHEMA`].
    pub schema: String,
    /// Digest of the attempt.
    pub attempt: Digest,
    /// Whether the candidate was proven better.
    pub passed: bool,
    /// Digest of the outcomes on the artifacts branch; on a pass only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
}

impl Closing {
    /// The `schema` field of a closing.
    pub const SCHEMA: &str = "proofline/holdout-closing/v1";
}

/// One line of the ledger, without its seal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A reservation.
    Reserved(Attempt),
    /// Its result.
    Closed(Closing),
}

/// The set of groups of a holdout, each as a digest of its name or, for a row
/// without a group, of its content, so that a copy under another id is the same group.
pub type GroupSet = BTreeSet<Digest>;

/// What is known about earlier attempts: every entry of every ledger, and the group sets they name.
#[derive(Debug, Default)]
pub struct Ledger {
    /// All entries, oldest first within a signature.
    pub entries: Vec<Entry>,
    /// Group sets by digest.
    pub sets: BTreeMap<Digest, GroupSet>,
}

/// What may be done about one comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// It is decided already; asking again costs nothing and answers the same.
    Decided(Attempt, Closing),
    /// It is reserved and not decided: go on with this reservation.
    Reserved(Attempt),
    /// It would be the t-th attempt.
    New {
        /// Its number.
        t: u64,
        /// What it may spend.
        alpha_t: f64,
    },
}

impl Ledger {
    /// What may be done about comparing these two programs on this holdout.
    ///
    /// A set that an attempt names but that is missing counts as sharing a group: t may only be too large.
    pub fn claim(
        &self,
        control: &Digest,
        candidate: &Digest,
        holdout: &Digest,
        groups: &GroupSet,
        alpha: Alpha,
    ) -> Result<Claim, CanonError> {
        let mut t = 1;
        for entry in &self.entries {
            let Entry::Reserved(attempt) = entry else {
                continue;
            };
            if attempt.control == *control
                && attempt.candidate == *candidate
                && attempt.holdout == *holdout
            {
                let digest = attempt.digest()?;
                let closing = self.entries.iter().find_map(|entry| match entry {
                    Entry::Closed(closing) if closing.attempt == digest => Some(closing.clone()),
                    _ => None,
                });
                return Ok(match closing {
                    Some(closing) => Claim::Decided(attempt.clone(), closing),
                    None => Claim::Reserved(attempt.clone()),
                });
            }
            let shares = match self.sets.get(&attempt.groups) {
                Some(set) => !set.is_disjoint(groups),
                None => true,
            };
            t += u64::from(shares);
        }
        let attempt = NonZeroU64::new(t).expect("because counting began at one");
        Ok(Claim::New {
            t,
            alpha_t: alpha.at_attempt(attempt).get(),
        })
    }
}
