//! What a search or an evaluation saw and concluded.
//!
//! A report holds nothing that depends on time, host, cache or thread count, so
//! the same inputs give the same bytes anywhere. What a run really paid
//! (cached calls, latency) is on its events.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canon::{self, CanonError};
use crate::domain::prove::stats::mcnemar;
use crate::id::{Digest, ExampleId, SignatureId};

use super::dataset::Split;
use super::job::Job;
use super::metric::Metric;
use super::search::{Found, Stage, Stopped};

/// What one prediction came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The output, decoded and valid by the output schema; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// 0 to 1, by the signature's metric.
    pub score: f64,
    /// How often the model was asked again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repairs: u32,
    /// What the prediction costs when nothing is cached.
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    /// Which model answered, as `provider/model` with its revision after `@` where it says one.
    pub answered_by: String,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Why a prediction has no output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The answer is not JSON in the form the decode policy accepts.
    Decode,
    /// It is JSON, but not valid by the output schema.
    Schema,
    /// The answer was cut off or over a limit of the program.
    Limit,
    /// The model declined.
    Refused,
    /// No model answered: time-out, connection, server error.
    Transport,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Decode => "the answer is not JSON",
            Self::Schema => "the answer does not fit the output schema",
            Self::Limit => "the answer is over a limit",
            Self::Refused => "the model declined",
            Self::Transport => "no model answered",
        })
    }
}

/// What predictions cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Model calls.
    pub calls: u64,
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Money, in millionths of a US dollar, at the configured price.
    pub cost_micro_usd: u64,
}

impl Usage {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Add another's figures.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cost_micro_usd += other.cost_micro_usd;
    }
}

/// One line of `examples.jsonl`: one program on one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleOutcome {
    /// The program.
    pub artifact: Digest,
    /// The row.
    pub example: ExampleId,
    /// What came of it.
    pub outcome: Outcome,
}

/// Which rows a report is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// How many.
    pub rows: u64,
    /// Digest over their row digests, in id order.
    pub digest: Digest,
}

/// What a search saw and concluded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompileReport {
    /// Always [`CompileReport::SCHEMA`].
    pub schema: String,
    /// The signature.
    pub signature: SignatureId,
    /// Digest of the job.
    pub job_hash: Digest,
    /// The job itself.
    pub job: Job,
    /// The train rows that programs could be built from.
    pub train: Rows,
    /// The dev rows that selected.
    pub dev: Rows,
    /// What came of it.
    pub conclusion: Conclusion,
    /// The program the search started from.
    pub base: Digest,
    /// The program it ended with; the base itself when nothing was better.
    pub winner: Digest,
    /// Winner against base, on the dev rows both were evaluated on.
    pub comparison: Comparison,
    /// The races, in order, with why each arm left.
    pub stages: Vec<Stage>,
    /// Predictions made, each program and row once.
    pub evaluations: u64,
    /// Predictions that trying every candidate on every row would have made.
    pub full_grid: u64,
    /// What they cost when nothing is cached.
    pub usage: Usage,
    /// Every model that answered, per program of the winner and the base.
    pub answered_by: BTreeMap<String, BTreeSet<String>>,
    /// Which budget ended the search early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// Digest of `examples.jsonl` beside the report.
    pub examples: Digest,
}

/// What came of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// A program scored higher on dev than the base.
    Improved,
    /// The base is still the best.
    NoChange,
}

/// Two programs on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Rows both were evaluated on.
    pub rows: u64,
    /// Mean score of the base.
    pub base_mean: f64,
    /// Mean score of the winner.
    pub winner_mean: f64,
    /// Rows on which the winner scored higher.
    pub wins: u64,
    /// Rows on which it scored lower.
    pub losses: u64,
    /// One-sided exact McNemar p of these wins and losses. The rows selected the
    /// winner, so this describes the search; the holdout gate is the proof.
    pub p_selected: f64,
    /// Share of valid outputs, base.
    pub base_format: f64,
    /// Share of valid outputs, winner.
    pub winner_format: f64,
}

impl Comparison {
    /// Mean score gained, −1 to 1.
    pub fn gain(&self) -> f64 {
        self.winner_mean - self.base_mean
    }

    /// Compare outcomes pair by pair.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a Outcome, &'a Outcome)>) -> Self {
        let (mut rows, mut wins, mut losses) = (0_u64, 0, 0);
        let (mut base_sum, mut winner_sum, mut base_valid, mut winner_valid) =
            (0.0, 0.0, 0_u64, 0_u64);
        for (base, winner) in pairs {
            rows += 1;
            base_sum += base.score;
            winner_sum += winner.score;
            base_valid += u64::from(base.output.is_some());
            winner_valid += u64::from(winner.output.is_some());
            wins += u64::from(winner.score > base.score);
            losses += u64::from(winner.score < base.score);
        }
        let mean = |sum: f64| if rows == 0 { 0.0 } else { sum / rows as f64 };
        Self {
            rows,
            base_mean: mean(base_sum),
            winner_mean: mean(winner_sum),
            wins,
            losses,
            p_selected: mcnemar::p_value(wins, losses),
            base_format: mean(base_valid as f64),
            winner_format: mean(winner_valid as f64),
        }
    }
}

impl CompileReport {
    /// The `schema` field of a compile report.
    pub const SCHEMA: &str = "proofline/compile-report/v1";

    /// Draw the report, and the lines of its `examples.jsonl`, from what a search found.
    pub fn new(
        job: Job,
        train: Rows,
        dev: Rows,
        dev_ids: &[ExampleId],
        found: &Found,
    ) -> Result<(Self, Vec<u8>), CanonError> {
        let base = job.base;
        let empty = BTreeMap::new();
        let of = |artifact: &Digest| found.outcomes.get(artifact).unwrap_or(&empty);
        let comparison =
            Comparison::of(of(&base).iter().filter_map(|(row, outcome)| {
                of(&found.winner).get(row).map(|other| (outcome, other))
            }));
        let mut usage = Usage::default();
        let mut examples = Vec::new();
        for (artifact, outcomes) in &found.outcomes {
            for (row, outcome) in outcomes {
                usage.add(&outcome.usage);
                let line = ExampleOutcome {
                    artifact: *artifact,
                    example: dev_ids[*row].clone(),
                    outcome: outcome.clone(),
                };
                examples.extend(canon::to_bytes(&line)?);
                examples.push(b'\n');
            }
        }
        let answered_by = [base, found.winner]
            .into_iter()
            .map(|artifact| {
                let who = of(&artifact)
                    .values()
                    .map(|outcome| outcome.answered_by.clone());
                (artifact.to_string(), who.collect())
            })
            .collect();
        let programs: BTreeSet<_> = found
            .stages
            .iter()
            .flat_map(|stage| &stage.arms)
            .map(|arm| arm.artifact)
            .collect();
        let report = Self {
            schema: Self::SCHEMA.to_owned(),
            signature: job.interface.signature.clone(),
            job_hash: job.hash()?,
            conclusion: if found.winner == base {
                Conclusion::NoChange
            } else {
                Conclusion::Improved
            },
            base,
            winner: found.winner,
            comparison,
            stages: found.stages.clone(),
            evaluations: found.evaluations,
            full_grid: programs.len() as u64 * dev.rows,
            usage,
            answered_by,
            stopped: found.stopped,
            examples: Digest::of(&examples),
            job,
            train,
            dev,
        };
        Ok((report, examples))
    }

    /// Whether an arm was answered by more than one model, so that it cannot be promoted.
    pub fn is_mixed(&self) -> bool {
        self.answered_by.values().any(|models| models.len() > 1)
    }
}

/// One program on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalReport {
    /// Always [`EvalReport::SCHEMA`].
    pub schema: String,
    /// The signature.
    pub signature: SignatureId,
    /// The program.
    pub artifact: Digest,
    /// The split; never holdout.
    pub split: Split,
    /// Its rows.
    pub data: Rows,
    /// How outputs were scored.
    pub metric: Metric,
    /// Mean score.
    pub mean: f64,
    /// Share of exact matches.
    pub exact: f64,
    /// Share of outputs valid by the output schema.
    pub format: f64,
    /// How many predictions failed in which way.
    pub failures: BTreeMap<Failure, u64>,
    /// What they cost when nothing is cached.
    pub usage: Usage,
    /// Every model that answered.
    pub answered_by: BTreeSet<String>,
    /// Digest of `examples.jsonl` beside the report.
    pub examples: Digest,
}

impl EvalReport {
    /// The `schema` field of an eval report.
    pub const SCHEMA: &str = "proofline/eval-report/v1";
}
