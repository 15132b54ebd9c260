//! A program with everything it closes over, and the artifact id over all of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canon::{self, CanonError};
use crate::id::{Digest, ExampleId};

use super::signature::{Budgets, Decode, Instruction, Interface, Strategy};

/// A frozen program: nothing outside it can change what it does, but the model behind its identity.
///
/// `artifact_id = sha256` over the canonical JSON of this whole value. Time,
/// host and actor are not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Always [`Program::SCHEMA`].
    pub schema: String,
    /// Schemas and prompt frame.
    pub interface: Interface,
    /// How it works; the version is part of the name.
    pub strategy: Strategy,
    /// Who answers.
    pub model: ProgramModel,
    /// What the model is told.
    pub instruction: Instruction,
    /// What the model is shown, by content, so that the program needs no dataset.
    pub few_shots: Vec<Shot>,
    /// How an answer is read.
    pub decode: Decode,
    /// How an answer is drawn.
    pub sampling: Sampling,
    /// Limits of one prediction.
    pub budgets: Budgets,
    /// The embedded classifier, for `distilled.lexical.v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lexical: Option<Lexical>,
}

/// One few-shot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shot {
    /// The train row it came from.
    pub id: ExampleId,
    /// Its input.
    pub input: Value,
    /// Its expected output.
    pub expected: Value,
}

/// How an answer is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Sampling temperature, 0 to 2.
    pub temperature: f64,
    /// Nucleus sampling mass, 0 to 1.
    pub top_p: f64,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
}

/// Who answers: the name in `proofline.toml` and what that name stood for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramModel {
    /// The name in `proofline.toml`.
    pub name: String,
    /// `openai`, `exec` or `lexical`.
    pub provider: String,
    /// What the provider is asked for.
    pub model: String,
}

/// A classifier fitted to train rows: its weights by digest, and what they were made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lexical {
    /// The knobs, as the signature or the search gave them.
    pub knobs: Map<String, Value>,
    /// The seed of the fit.
    pub seed: u64,
    /// How many rows it was fitted to.
    pub rows: u64,
    /// The digest over the rows' content digests, in order.
    pub trained_on: Digest,
    /// The digest of the weights, stored beside the artifact.
    pub weights: Digest,
}

impl Program {
    /// The `schema` field of a program.
    pub const SCHEMA: &str = "proofline/artifact/v1";

    /// The artifact id.
    pub fn artifact_id(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }
}
