//! A canary: control and candidate share traffic, and the receipts say whether
//! the candidate does harm.
//!
//! What is sealed at the start (artifacts, salt, margins, α, who may write
//! receipts) and the receipts decide everything: [`decide`] is a function of
//! both and of the time, so anyone can do it again. An anytime-valid betting
//! e-process ([`CanaryTest`]) may be looked at after every pair.
//!
//! What can never be a pass: no data; receipts with gaps in their numbers;
//! more than one model answering in an arm, or a stand-in; a candidate that
//! fails too often, however the control does.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canon::{self, CanonError};
use crate::domain::prove::stats::OutOfRange;
use crate::domain::prove::stats::alpha::Alpha;
use crate::domain::prove::stats::bucket::{self, Rollout};
use crate::domain::prove::stats::eprocess::{CanaryRules, CanaryTest, PairLaw};
use crate::domain::prove::verdict::{GateResult, Verdict};
use crate::id::{CanaryId, Digest, RunId, SignatureId, WriterId};

pub use super::receipt::Arm;
use super::receipt::{ArmCounts, Source, key_digest};
use super::report::Rows;

pub use judge::{CanaryDecision, DecideError, Moment, decide, duration};

/// A canary as its start, and later its end, is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Always [`Canary::SCHEMA`].
    pub schema: String,
    /// Follows from signature, run, programs and attempt number: see [`identity`].
    pub id: CanaryId,
    /// The signature.
    pub signature: SignatureId,
    /// The run that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The policy epoch it was started under.
    pub epoch: u64,
    /// The artifact in force.
    pub control: Digest,
    /// The artifact on trial.
    pub candidate: Digest,
    /// What keys are cut by.
    pub salt: String,
    /// Orders exercise rows.
    pub seed: u64,
    /// Share of keys that the candidate serves, in percent; of a split canary.
    pub rollout_percent: u32,
    /// How requests meet arms.
    pub mode: Mode,
    /// What counts as a failure.
    pub outcome: Measured,
    /// δ: how much more often than the control the candidate may fail and still count as no worse.
    pub harm_margin: f64,
    /// α over all starts of this candidate against this control.
    pub alpha: f64,
    /// The number of this start, from 1.
    pub t: u64,
    /// What this start may spend.
    pub alpha_t: f64,
    /// Fewer pairs than this prove nothing.
    pub min_pairs: u32,
    /// After this many pairs without a decision it is inconclusive.
    pub max_pairs: u32,
    /// The candidate's failures may not exceed this share of its requests.
    pub max_error_rate: f64,
    /// It ends undecided after this long, in milliseconds.
    pub time_limit_ms: u64,
    /// Where its inputs come from.
    pub source: Source,
    /// The exercise rows it rehearses on; absent for recorded traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// Whose receipts count, in this order where numbers are equal.
    pub writers: Vec<WriterId>,
    /// When it was started.
    pub started: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// What it came to; absent while it is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Closing>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// How requests meet arms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Both arms answer every request.
    #[default]
    Paired,
    /// A salted digest of its key decides which arm answers; k-th is paired with k-th.
    Split,
}

impl Mode {
    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::Split => "split",
        }
    }
}

/// What counts as a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// No output, or none that is valid by the output schema.
    #[default]
    ErrorOrFormat,
}

/// Where a canary stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It takes traffic.
    Running,
    /// On recorded traffic the candidate was shown to be no worse.
    Passed,
    /// On exercise rows nothing spoke against the candidate.
    Rehearsed,
    /// The candidate fails more often than the control, or too often.
    Harmed,
    /// It ended without a decision; the control stays.
    Inconclusive,
    /// Someone ended it.
    Stopped,
}

impl Status {
    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Rehearsed => "rehearsed",
            Self::Harmed => "harmed",
            Self::Inconclusive => "inconclusive",
            Self::Stopped => "stopped",
        }
    }
}

/// What a canary came to, sealed at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// Digest of the record that was sealed at the start.
    pub start: Digest,
    /// The gate's answer, with its figures.
    pub gate: GateResult,
    /// The control's counters.
    pub control: ArmCounts,
    /// The candidate's counters.
    pub candidate: ArmCounts,
    /// Pairs that counted, up to the deciding one.
    pub pairs: u64,
    /// Receipts that were looked at.
    pub receipts: u64,
    /// Digest that binds them, in the order they were looked at.
    pub receipts_digest: Digest,
    /// Per writer, the commit its receipts were read from.
    pub tips: BTreeMap<WriterId, String>,
}

/// The id and the salt of a canary: both follow from what it is about, so that
/// a start that is done again after a crash makes the same canary, while
/// another start cuts the keys anew.
pub fn identity(
    signature: &SignatureId,
    run: Option<&RunId>,
    control: &Digest,
    candidate: &Digest,
    t: u64,
) -> (CanaryId, String) {
    let digest = canon::digest(&("canary", signature, run, control, candidate, t.to_string()))
        .expect("because texts always have a canonical form");
    let hex = digest.hex();
    let id = format!("c-{}", &hex[..16]);
    let id = id
        .parse()
        .expect("because hex digits are allowed in a canary's id");
    (id, hex[32..].to_owned())
}

/// The number of the next start of this candidate against this control, from 1.
/// `earlier` is the starts on record.
pub fn next_number<'a>(
    earlier: impl Iterator<Item = &'a Canary>,
    control: &Digest,
    candidate: &Digest,
) -> NonZeroU64 {
    let starts: BTreeSet<&CanaryId> = earlier
        .filter(|canary| canary.control == *control && canary.candidate == *candidate)
        .map(|canary| &canary.id)
        .collect();
    NonZeroU64::MIN.saturating_add(starts.len() as u64)
}

impl Canary {
    /// The `schema` field of a canary.
    pub const SCHEMA: &str = "proofline/canary/v1";

    /// The record at its end.
    pub fn closed(
        &self,
        decision: CanaryDecision,
        tips: BTreeMap<WriterId, String>,
        now: Timestamp,
    ) -> Result<Self, CanonError> {
        Ok(Self {
            status: decision.status,
            decision: Some(Closing {
                start: self.as_started().digest()?,
                gate: decision.gate,
                control: decision.control,
                candidate: decision.candidate,
                pairs: decision.pairs,
                receipts: decision.receipts,
                receipts_digest: decision.receipts_digest,
                tips,
            }),
            ended: Some(now),
            ..self.clone()
        })
    }

    /// What it came to, once it is closed.
    pub fn concluded(&self) -> Option<CanaryDecision> {
        let closing = self.decision.as_ref()?;
        Some(CanaryDecision {
            status: self.status,
            gate: closing.gate.clone(),
            control: closing.control.clone(),
            candidate: closing.candidate.clone(),
            pairs: closing.pairs,
            receipts: closing.receipts,
            receipts_digest: closing.receipts_digest,
            reasons: match &closing.gate.verdict {
                Verdict::Refuse { reasons } => reasons.clone(),
                _ => Vec::new(),
            },
        })
    }

    /// The digest of the record as it stands.
    pub fn digest(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }

    /// The record as it was sealed at the start.
    pub fn as_started(&self) -> Self {
        Self {
            status: Status::Running,
            decision: None,
            ended: None,
            ..self.clone()
        }
    }

    /// Whether this is the same start: the same run, asking for the same comparison.
    pub fn is_start_of(&self, run: Option<&RunId>, control: &Digest, candidate: &Digest) -> bool {
        self.run.as_ref() == run && self.control == *control && self.candidate == *candidate
    }

    /// The artifact that serves an arm.
    pub fn artifact(&self, arm: Arm) -> &Digest {
        match arm {
            Arm::Active | Arm::Control => &self.control,
            Arm::Candidate => &self.candidate,
        }
    }

    /// The arms that answer a request with this (salted) key.
    pub fn arms(&self, key: &Digest) -> Result<&'static [Arm], OutOfRange> {
        Ok(match self.mode {
            Mode::Paired => &[Arm::Control, Arm::Candidate],
            Mode::Split => match bucket_of(key, self.rollout_percent)? {
                Arm::Candidate => &[Arm::Candidate],
                _ => &[Arm::Control],
            },
        })
    }

    /// The rules of its test.
    pub fn rules(&self) -> Result<CanaryRules, OutOfRange> {
        CanaryRules::new(
            Alpha::new(self.alpha_t)?,
            self.harm_margin,
            u64::from(self.min_pairs),
            u64::from(self.max_pairs),
        )
    }

    /// Pairs without which nothing is concluded in the candidate's favour.
    pub fn pairs_needed(&self) -> u64 {
        let most = self.rows.as_ref().map_or(u64::MAX, |rows| rows.rows);
        u64::from(self.min_pairs).min(most).max(1)
    }

    /// Everything wrong with it on its own, whoever sealed it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let expected = NonZeroU64::new(self.t)
            .zip(Alpha::new(self.alpha).ok())
            .map(|(t, alpha)| alpha.at_attempt(t).get());
        if expected != Some(self.alpha_t) {
            faults.push(format!(
                "alpha_t is {}, but start {} of alpha {} may spend {expected:?}",
                self.alpha_t, self.t, self.alpha
            ));
        }
        if let Err(error) = self.rules() {
            faults.push(error.to_string());
        }
        if !(0.0..=1.0).contains(&self.max_error_rate) {
            faults.push(format!(
                "max_error_rate is {}; it must lie in 0 to 1",
                self.max_error_rate
            ));
        }
        if self.control == self.candidate {
            faults.push("control and candidate are the same artifact".to_owned());
        }
        let split = self.mode == Mode::Split;
        if split && !(1..=99).contains(&self.rollout_percent) {
            faults.push(format!(
                "rollout_percent is {}; a split canary needs 1 to 99, or an arm stays empty",
                self.rollout_percent
            ));
        }
        match (self.source, &self.rows) {
            (Source::Exercise, None) => {
                faults.push("a rehearsal names the rows it is on".to_owned())
            }
            (Source::Exercise, Some(rows)) if rows.rows == 0 => {
                faults.push("a rehearsal needs exercise rows".to_owned())
            }
            (Source::Recorded, Some(_)) => {
                faults.push("recorded traffic has no exercise rows".to_owned())
            }
            _ => {}
        }
        if split && self.source == Source::Exercise {
            faults.push(
                "exercise rows are answered by both arms: `mode` must be `paired`".to_owned(),
            );
        }
        if self.writers.is_empty() {
            faults.push("no writer's receipts would count".to_owned());
        }
        if let Some(closing) = &self.decision
            && self.as_started().digest().ok() != Some(closing.start)
        {
            faults.push(
                "its end does not belong to its start: a sealed figure was changed".to_owned(),
            );
        }
        if (self.status == Status::Running) != (self.decision.is_none() && self.ended.is_none()) {
            faults.push(
                "a canary has a decision and an end when it is no longer running, and only then"
                    .to_owned(),
            );
        }
        faults
    }
}

/// The arm whose answer a caller with this key gets. In a paired canary that is
/// always the control: the candidate answers too, but nobody depends on it.
pub fn arm_of(canary: &Canary, key: &str) -> Result<Arm, OutOfRange> {
    match canary.mode {
        Mode::Paired => Ok(Arm::Control),
        Mode::Split => bucket_of(&key_digest(&canary.salt, key), canary.rollout_percent),
    }
}

/// The arm that a salted key falls to in a split canary: [`bucket::arm`] in our words.
pub fn bucket_of(key: &Digest, rollout_percent: u32) -> Result<Arm, OutOfRange> {
    let rollout = Rollout::from_percent(rollout_percent)?;
    Ok(match bucket::arm(key.as_bytes(), rollout) {
        bucket::Arm::Control => Arm::Control,
        bucket::Arm::Candidate => Arm::Candidate,
    })
}

/// How many pairs a promotion takes if both arms fail at a rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExpectedPairs {
    /// The failure rate of both arms, 0 to 1.
    pub failure_rate: f64,
    /// Pairs within which half of such canaries are decided in the candidate's favour; `None` when fewer ever are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<u64>,
    /// The same for nine of ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ninth_decile: Option<u64>,
    /// The share that is ever decided in its favour, 0 to 1.
    pub promoted_share: f64,
}

impl ExpectedPairs {
    /// In words.
    pub fn sentence(&self) -> String {
        let rate = 100.0 * self.failure_rate;
        match self.median {
            Some(median) => {
                format!("at {rate:.0} % failures a decision takes about {median} pairs")
            }
            None => format!("at {rate:.0} % failures it will hardly be decided"),
        }
    }
}

/// What the e-process will ask for, at failure rates that a good program has.
pub fn expected_pairs(canary: &Canary) -> Result<Vec<ExpectedPairs>, OutOfRange> {
    const FUTURES: u32 = 200;
    let test = CanaryTest::new(canary.rules()?);
    [0.0, 0.01, 0.05]
        .into_iter()
        .map(|failure_rate| {
            let law = PairLaw::independent(failure_rate, failure_rate)?;
            let forecast = test.forecast(law, FUTURES, canary.seed);
            Ok(ExpectedPairs {
                failure_rate,
                median: forecast.pairs_to_promotion_median,
                ninth_decile: forecast.pairs_to_promotion_ninth_decile,
                promoted_share: forecast.promoted_share,
            })
        })
        .collect()
}
