//! The holdout gate's decision: one finalist against the control, on the same rows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::improve::report::Outcome;
use crate::id::Digest;

use super::stats::OutOfRange;
use super::stats::alpha::Alpha;
use super::stats::interval::{self, Confidence};
use super::stats::mcnemar::PairedTable;
use super::stats::permutation::{self, SignDraws};
use super::stats::power::{self, PowerAssumption};

/// What the comparison on the holdout came to. Published on a pass alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldoutReport {
    /// Always [`HoldoutReport::SCHEMA`].
    pub schema: String,
    /// Digest of the attempt.
    pub attempt: Digest,
    /// Which test decided.
    pub test: Test,
    /// Rows, one per group.
    pub rows: u64,
    /// Mean score of the control.
    pub control_mean: f64,
    /// Mean score of the candidate.
    pub candidate_mean: f64,
    /// Rows on which the candidate scored higher.
    pub wins: u64,
    /// Rows on which it scored lower.
    pub losses: u64,
    /// One-sided p of "the candidate is no better".
    pub p: f64,
    /// What the attempt may spend.
    pub alpha_t: f64,
    /// Lower and upper bound of the difference of means, 95 % (Newcombe 1998, method 10); for binary metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Models that answered for the control.
    pub control_answered_by: BTreeSet<String>,
    /// Models that answered for the candidate.
    pub candidate_answered_by: BTreeSet<String>,
    /// Digest of `examples.jsonl` beside the report.
    pub examples: Digest,
}

/// Which test decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Exact one-sided McNemar, for scores of 0 or 1.
    Mcnemar,
    /// One-sided sign-flip permutation, for graded scores.
    SignFlip,
}

impl HoldoutReport {
    /// The `schema` field of a holdout report.
    pub const SCHEMA: &str = "proofline/holdout-report/v1";

    /// Compare `(control, candidate)` row by row. `seed` draws the sign flips of a graded metric.
    pub fn compare(
        attempt: Digest,
        pairs: &[(Outcome, Outcome)],
        binary: bool,
        alpha_t: Alpha,
        seed: u64,
        examples: Digest,
    ) -> Result<Self, OutOfRange> {
        let rows = pairs.len() as u64;
        let mean = |sum: f64| if rows == 0 { 0.0 } else { sum / rows as f64 };
        let wins = pairs
            .iter()
            .filter(|(control, candidate)| candidate.score > control.score)
            .count() as u64;
        let losses = pairs
            .iter()
            .filter(|(control, candidate)| candidate.score < control.score)
            .count() as u64;
        let (test, p, bounds) = if binary {
            let table = PairedTable::count(
                pairs
                    .iter()
                    .map(|(control, candidate)| (control.score > 0.5, candidate.score > 0.5)),
            );
            let bounds = interval::paired_difference(table, Confidence::NinetyFive)
                .map(|bounds| [bounds.low, bounds.high]);
            (Test::Mcnemar, table.p_value(), bounds)
        } else {
            let differences: Vec<f64> = pairs
                .iter()
                .map(|(control, candidate)| candidate.score - control.score)
                .collect();
            let flipped =
                permutation::sign_flip(&differences, SignDraws::for_level(alpha_t, seed))?;
            (Test::SignFlip, flipped.p_value, None)
        };
        Ok(Self {
            schema: Self::SCHEMA.to_owned(),
            attempt,
            test,
            rows,
            control_mean: mean(pairs.iter().map(|(control, _)| control.score).sum()),
            candidate_mean: mean(pairs.iter().map(|(_, candidate)| candidate.score).sum()),
            wins,
            losses,
            p,
            alpha_t: alpha_t.get(),
            interval: bounds,
            control_answered_by: pairs
                .iter()
                .map(|(control, _)| control.answered_by.clone())
                .collect(),
            candidate_answered_by: pairs
                .iter()
                .map(|(_, candidate)| candidate.answered_by.clone())
                .collect(),
            examples,
        })
    }

    /// Whether the candidate is proven better.
    pub fn passed(&self) -> bool {
        self.p <= self.alpha_t && !self.is_mixed()
    }

    /// Whether an arm was answered by more than one model.
    pub fn is_mixed(&self) -> bool {
        self.control_answered_by.len() > 1 || self.candidate_answered_by.len() > 1
    }
}

/// What a holdout can show, printed with every attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// Rows, one per group.
    pub rows: u64,
    /// The number of the attempt.
    pub t: u64,
    /// What it may spend.
    pub alpha_t: f64,
    /// What all attempts up to and including it have spent, of α.
    pub alpha_spent: f64,
    /// α over all attempts.
    pub alpha: f64,
    /// The smallest true gain that is proven with probability 0.8; `None` when no gain is.
    pub smallest_provable_gain: Option<f64>,
    /// Rows that would prove +10 points at this attempt.
    pub rows_for_ten_points: Option<u64>,
    /// Whether it is time for a rotation to unseen groups: +15 points can no longer be proven.
    pub rotate: bool,
}

impl Power {
    /// The figures of attempt number `t`.
    pub fn at(rows: u64, t: std::num::NonZeroU64, alpha: Alpha) -> Result<Self, OutOfRange> {
        let alpha_t = alpha.at_attempt(t);
        let smallest = power::smallest_provable_gain(rows, PowerAssumption::default(), alpha_t)?;
        Ok(Self {
            rows,
            t: t.get(),
            alpha_t: alpha_t.get(),
            alpha_spent: alpha.spent_after(t.get()),
            alpha: alpha.get(),
            smallest_provable_gain: smallest,
            rows_for_ten_points: power::rows_needed(0.10, PowerAssumption::default(), alpha_t)?,
            rotate: smallest.is_none_or(|gain| gain > 0.15),
        })
    }

    /// The figures in a sentence.
    pub fn sentence(&self) -> String {
        let smallest = match self.smallest_provable_gain {
            Some(gain) => format!(
                "+{:.1} points is the smallest gain it can prove (power .8)",
                100.0 * gain
            ),
            None => "it can prove no gain".to_owned(),
        };
        let rotate = if self.rotate {
            "; rotate the holdout to unseen groups"
        } else {
            ""
        };
        format!(
            "attempt {} on {} rows at α_t = {:.4}; {smallest}; {:.4} of α = {} is spent after it{rotate}",
            self.t, self.rows, self.alpha_t, self.alpha_spent, self.alpha
        )
    }
}
