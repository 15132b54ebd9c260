//! What a gate answers: pass, refuse with reasons, or undecidable with what is
//! missing; every figure with a label that says how it is known.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::PrincipalId;

/// The answer of a gate. A refusal is a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// Everything it asks for was shown.
    Pass,
    /// Something it asks for is not so.
    Refuse {
        /// What, one sentence each.
        reasons: Vec<String>,
    },
    /// It cannot be decided here.
    Undecidable {
        /// What is missing.
        missing: Vec<String>,
        /// The command that fetches it, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetch: Option<String>,
    },
}

impl Verdict {
    /// Pass without reasons, refuse with them.
    pub fn from_reasons(reasons: Vec<String>) -> Self {
        if reasons.is_empty() {
            Self::Pass
        } else {
            Self::Refuse { reasons }
        }
    }

    /// Whether it is a pass.
    pub fn is_pass(&self) -> bool {
        *self == Self::Pass
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refuse { .. } => "refuse",
            Self::Undecidable { .. } => "undecidable",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Refuse { reasons } => write!(f, "refuse: {}", reasons.join("; ")),
            Self::Undecidable { missing, fetch } => {
                write!(f, "undecidable: {}", missing.join("; "))?;
                match fetch {
                    Some(command) => write!(f, " (try `{command}`)"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// How a figure is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Computed again from committed data.
    Recomputed,
    /// The program ran again and gave the same.
    ReExecuted,
    /// Someone who holds a key says so.
    AttestedBy(PrincipalId),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recomputed => f.write_str("recomputed"),
            Self::ReExecuted => f.write_str("re-executed"),
            Self::AttestedBy(principal) => write!(f, "attested by {principal}"),
        }
    }
}

/// A number, or a word, that a verdict rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// What it is: `p`, `rows`, `control mean`.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// How it is known.
    pub label: Label,
}

/// A gate's answer with its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// The gate: `data`, `verify`, `dev`, `holdout`, `canary`, `e2e`.
    pub gate: String,
    /// What it answers.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the answer rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// Set when the gate was not run: why, in a few words. Policy decides what that means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl GateResult {
    /// A gate's answer.
    pub fn new(gate: &str, verdict: Verdict) -> Self {
        Self {
            gate: gate.to_owned(),
            verdict,
            figures: Vec::new(),
            skipped: None,
        }
    }

    /// Add a figure.
    pub fn with(mut self, name: &str, value: impl Into<Value>, label: &Label) -> Self {
        self.figures.push(Figure {
            name: name.to_owned(),
            value: value.into(),
            label: label.clone(),
        });
        self
    }
}
