//! What a holdout of a certain size could prove.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::domain::prove::policy::Gates;
use crate::domain::prove::stats::alpha::Alpha;
use crate::domain::prove::stats::power::{self, PowerAssumption};
use crate::flows::{FlowError, Workspace, night};

/// What a holdout could prove at its first attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provable {
    /// Holdout rows there are.
    pub rows: u64,
    /// α over all attempts: the policy's, or its default before there is one.
    pub alpha: f64,
    /// What the first attempt may spend of it.
    pub alpha_first: f64,
    /// The probability with which a true gain should be proven.
    pub power: f64,
    /// The share of rows on which the two programs are taken to differ.
    pub discordance: f64,
    /// Rows that would prove some gains.
    pub needed: Vec<Needed>,
    /// The smallest gain that the rows there are can prove, 0 to 1; `None` when they can prove none.
    pub smallest_gain: Option<f64>,
}

/// Rows that would prove a gain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Needed {
    /// The gain in points.
    pub points: u32,
    /// The rows; `None` when it would take more than a hundred thousand.
    pub rows: Option<u64>,
}

/// What `rows` holdout rows could prove under the policy.
pub fn provable(workspace: &Workspace, rows: u64) -> Result<Provable, FlowError> {
    // Rows may be imported before `init`; then the default is what the policy will most likely say.
    let gates = night::policy(workspace).map_or_else(|_| Gates::default(), |policy| policy.gates);
    let first = Alpha::new(gates.alpha)
        .map_err(FlowError::input)?
        .at_attempt(NonZeroU64::MIN);
    let assumed = PowerAssumption::default();
    let mut needed = Vec::new();
    for points in [5, 10, 15] {
        let rows = power::rows_needed(f64::from(points) / 100.0, assumed, first)
            .map_err(FlowError::bug)?;
        needed.push(Needed { points, rows });
    }
    Ok(Provable {
        rows,
        alpha: gates.alpha,
        alpha_first: first.get(),
        power: assumed.power,
        discordance: assumed.discordance,
        needed,
        smallest_gain: power::smallest_provable_gain(rows, assumed, first)
            .map_err(FlowError::bug)?,
    })
}

impl Provable {
    /// The figures in two sentences.
    pub fn sentence(&self) -> String {
        let needed: Vec<String> = self
            .needed
            .iter()
            .map(|needed| match needed.rows {
                Some(rows) => format!("{rows} for +{}", needed.points),
                None => format!("more than {} for +{}", power::ROWS_MAX, needed.points),
            })
            .collect();
        let smallest = match self.smallest_gain {
            Some(gain) => format!(
                "enough to prove a gain of {:.1} points or more",
                100.0 * gain
            ),
            None => "too few to prove any gain".to_owned(),
        };
        format!(
            "The holdout has {} rows, {smallest}. It takes {} \
             (first attempt, α = {}, power {}, programs that differ on {} % of the rows).",
            self.rows,
            needed.join(", "),
            self.alpha,
            self.power,
            100.0 * self.discordance,
        )
    }
}
