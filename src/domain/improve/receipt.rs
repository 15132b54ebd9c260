//! A receipt: what one prediction did, in one line. It holds digests of what
//! went in and came out; the input itself only where its owner opted in,
//! because it may be personal data.
//!
//! A receipt's id follows from where the prediction belongs (a canary, or a
//! run), its arrival number and its arm, so that a step that is done again
//! after a crash recognises its own receipts and writes none twice.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canon::{self, CanonError};
use crate::domain::prove::stats::bucket;
use crate::id::{CanaryId, Digest, RunId, SignatureId, WriterId};

use super::report::{Failure, Usage};
use super::signature::Strategy;

/// What one prediction did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Always [`Receipt::SCHEMA`].
    pub schema: String,
    /// Follows from scope, writer, index and arm: see [`receipt_id`].
    pub id: Digest,
    /// The signature.
    pub signature: SignatureId,
    /// The program that served it.
    pub artifact: Digest,
    /// How the program works.
    pub strategy: Strategy,
    /// Which side of a canary it served on.
    pub arm: Arm,
    /// The canary it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryId>,
    /// The run that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Who writes it down.
    pub writer: WriterId,
    /// Its arrival number within canary (or run) and writer, from 0.
    pub index: u64,
    /// Where the input came from.
    pub source: Source,
    /// Salted digest of the request's key: see [`key_digest`].
    pub key: Digest,
    /// Digest of the input.
    pub input: Digest,
    /// The input itself, where its owner opted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_input: Option<Value>,
    /// Digest of the output, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Digest>,
    /// Whether there is an output, and if not, why.
    pub outcome: Outcome,
    /// Whether the output is valid by the output schema.
    pub format_ok: bool,
    /// Whether the output is what was expected, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_match: Option<bool>,
    /// Who really answered, `provider/model@revision`; absent when nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Why another model than the configured one answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// What it costs when nothing is cached.
    pub usage: Usage,
    /// Milliseconds of the calls.
    pub latency_ms: u64,
    /// How often the model was asked again.
    pub repairs: u32,
    /// When its batch began.
    pub ts: Timestamp,
}

/// Which side of a canary a prediction served on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// There was no canary: the artifact in force.
    Active,
    /// The artifact in force, in a canary.
    Control,
    /// The artifact on trial.
    Candidate,
}

impl Arm {
    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Control => "control",
            Self::Candidate => "candidate",
        }
    }
}

/// Where inputs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Rows of the exercise split: a rehearsal.
    Exercise,
    /// Recorded traffic.
    Recorded,
}

impl Source {
    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exercise => "exercise",
            Self::Recorded => "recorded",
        }
    }
}

/// Whether there is an output, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// There is one.
    Ok,
    /// There is none.
    Error {
        /// Why.
        failure: Failure,
    },
}

impl Receipt {
    /// The `schema` field of a receipt.
    pub const SCHEMA: &str = "proofline/receipt/v1";

    /// Whether it counts as a failure in a canary that measures errors and format failures.
    pub fn failed(&self) -> bool {
        self.outcome != Outcome::Ok || !self.format_ok
    }

    /// Whether someone answered, but not in the format asked for.
    pub fn is_format_failure(&self) -> bool {
        match self.outcome {
            Outcome::Ok => !self.format_ok,
            Outcome::Error { failure } => matches!(failure, Failure::Decode | Failure::Schema),
        }
    }

    /// Whether its id is the one that its own fields ask for.
    pub fn has_own_id(&self) -> bool {
        let scope = Scope::of(self.canary.as_ref(), self.run.as_ref());
        scope.is_some_and(|scope| {
            receipt_id(&self.signature, scope, &self.writer, self.index, self.arm) == self.id
        })
    }
}

/// What a receipt's number counts within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope<'a> {
    /// A canary, whatever runs and commands sent it traffic.
    Canary(&'a CanaryId),
    /// A run without a canary.
    Run(&'a RunId),
}

impl<'a> Scope<'a> {
    /// The scope of a receipt: its canary, else its run.
    pub fn of(canary: Option<&'a CanaryId>, run: Option<&'a RunId>) -> Option<Self> {
        canary.map(Scope::Canary).or(run.map(Scope::Run))
    }

    /// The id within.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Canary(id) => id.as_str(),
            Self::Run(id) => id.as_str(),
        }
    }
}

/// The id of a receipt: a digest of where the prediction belongs, its number and its arm.
pub fn receipt_id(
    signature: &SignatureId,
    scope: Scope<'_>,
    writer: &WriterId,
    index: u64,
    arm: Arm,
) -> Digest {
    // As texts: an index has no upper bound that canonical JSON would mind.
    let number = index.to_string();
    canon::digest(&("receipt", signature, scope, writer, number, arm))
        .expect("because texts always have a canonical form")
}

/// The salted digest of a request's key. [`bucket::arm`] of it is the arm that
/// serves the key in a split canary, so every assignment can be recomputed from
/// the receipts alone.
pub fn key_digest(salt: &str, key: &str) -> Digest {
    Digest::of(&bucket::preimage(salt.as_bytes(), key.as_bytes()))
}

/// What an arm's receipts add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmCounts {
    /// Predictions asked for, missing ones included.
    pub requests: u64,
    /// Those with a valid output.
    pub ok: u64,
    /// Those nobody answered, or that were declined or cut off.
    pub errors: u64,
    /// Those answered in a form that could not be used.
    pub format_failures: u64,
    /// Those without a receipt.
    pub missing: u64,
    /// Those that a stand-in answered.
    pub fallbacks: u64,
    /// Labelled ones whose output was as expected.
    pub expected: u64,
    /// Labelled ones whose output was not.
    pub unexpected: u64,
    /// Everyone who answered.
    pub answered_by: BTreeSet<String>,
}

impl ArmCounts {
    /// Count a receipt.
    pub fn add(&mut self, receipt: &Receipt) {
        self.requests += 1;
        if !receipt.failed() {
            self.ok += 1;
        } else if receipt.is_format_failure() {
            self.format_failures += 1;
        } else {
            self.errors += 1;
        }
        self.fallbacks += u64::from(receipt.fallback.is_some());
        self.expected += u64::from(receipt.expected_match == Some(true));
        self.unexpected += u64::from(receipt.expected_match == Some(false));
        self.answered_by.extend(receipt.answered_by.clone());
    }

    /// Count a request without a receipt: a failure.
    pub fn add_missing(&mut self) {
        self.requests += 1;
        self.missing += 1;
    }

    /// Everything that is not ok.
    pub fn failures(&self) -> u64 {
        self.errors + self.format_failures + self.missing
    }

    /// The share of failures, 0 to 1; `None` without requests.
    pub fn failure_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failures() as f64 / self.requests as f64)
    }

    /// Whether more than one model answered, or a stand-in did.
    pub fn is_mixed(&self) -> bool {
        self.answered_by.len() > 1 || self.fallbacks > 0
    }
}

/// The digest that binds a set of receipts, in this order.
pub fn set_digest<'a>(receipts: impl Iterator<Item = &'a Receipt>) -> Result<Digest, CanonError> {
    let digests: Vec<Digest> = receipts.map(canon::digest).collect::<Result<_, _>>()?;
    canon::digest(&digests)
}
