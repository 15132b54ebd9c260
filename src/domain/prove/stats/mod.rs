//! The arithmetic behind every verdict: is it better, is it harmful, how many
//! rows would tell.
//!
//! | file | question |
//! |---|---|
//! | [`alpha`] | how much error may the t-th attempt on one holdout spend? |
//! | [`mcnemar`] | did the candidate win more rows than luck would give it? (binary metrics) |
//! | [`permutation`] | the same, for graded metrics |
//! | [`power`] | how many holdout rows would prove a gain; which gain can these rows prove? |
//! | [`interval`] | between which bounds does the difference lie? (for reviewers, never for a gate) |
//! | [`eprocess`] | may the canary go on, must it stop, is it no worse? (looked at after every pair) |
//! | [`bucket`] | which arm serves this key? |
//! | [`race`] | which candidates deserve more examples during a search? |
//! | [`rng`] | the only source of randomness: seeded, written down, the same everywhere |
//!
//! # Architecture invariants
//!
//! - Pure: no clock, no files, no threads, no randomness without a seed.
//! - Reproducible to the bit. Figures from here are printed into digests and
//!   recomputed by verifiers on other machines, so a result is built from
//!   integers and from the operations that IEEE 754 rounds correctly:
//!   `+ - * /`, `sqrt`, comparison and rounding to an integer. `ln`, `exp` and
//!   `pow` are deliberately absent: their last bit differs between C libraries.
//! - A search ([`race`]) may use these tests as a heuristic; only the holdout
//!   gate and the canary prove anything.

pub mod alpha;
mod binomial;
pub mod bucket;
pub mod eprocess;
pub mod interval;
pub mod mcnemar;
pub mod permutation;
pub mod power;
mod quanta;
pub mod race;
pub mod rng;

use std::fmt;

/// A number outside the range in which a formula means anything. NaN is outside
/// every range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutOfRange {
    /// What the number is, in the words of the function that refused it.
    pub what: &'static str,
    /// The number as it was given.
    pub value: f64,
    /// The accepted range, in words or in interval notation.
    pub accepted: &'static str,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, accepted is {}",
            self.what, self.value, self.accepted
        )
    }
}

impl std::error::Error for OutOfRange {}

/// `value` when it is strictly between 0 and 1.
fn open_unit(what: &'static str, value: f64) -> Result<f64, OutOfRange> {
    if value > 0.0 && value < 1.0 {
        Ok(value)
    } else {
        Err(OutOfRange {
            what,
            value,
            accepted: "(0, 1)",
        })
    }
}

/// `value` when it is between 0 and 1, both included.
fn closed_unit(what: &'static str, value: f64) -> Result<f64, OutOfRange> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(OutOfRange {
            what,
            value,
            accepted: "[0, 1]",
        })
    }
}
