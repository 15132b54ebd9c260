//! A signature: the typed interface of an LLM program, with its job, canary
//! and promotion settings. One YAML file with the user's code; compile, gate
//! and promotion all read this one definition.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canon::{self, CanonError};
use crate::id::{Digest, ExampleId, SignatureId};

use super::job::JobPlan;
use super::metric::Metric;

/// The `schema` field of a signature file.
pub const SCHEMA: &str = "proofline/signature/v1";

/// A signature file, as read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Who it is.
    pub id: SignatureId,
    /// What the program is for, in a sentence or two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// JSON Schema of an input.
    pub input: Value,
    /// JSON Schema of an output.
    pub output: Value,
    /// How a prompt is laid out.
    #[serde(default)]
    pub prompt: PromptFrame,
    /// The program that is in force before anything was promoted.
    pub defaults: Parameters,
    /// How an output is scored.
    #[serde(default)]
    pub metric: Metric,
    /// What the search may try.
    #[serde(default)]
    pub job: JobPlan,
    /// How a candidate is tried on traffic.
    #[serde(default)]
    pub canary: CanaryPlan,
    /// How a winner comes into force.
    #[serde(default)]
    pub promotion: PromotionPlan,
    /// What the dataset must hold, beyond the policy's own rules.
    #[serde(default)]
    pub data: DataRules,
}

/// The frozen interface: what an artifact closes over besides its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// The signature.
    pub signature: SignatureId,
    /// JSON Schema of an input.
    pub input: Value,
    /// JSON Schema of an output.
    pub output: Value,
    /// How a prompt is laid out.
    pub prompt: PromptFrame,
}

impl Signature {
    /// The part that an artifact freezes.
    pub fn interface(&self) -> Interface {
        Interface {
            signature: self.id.clone(),
            input: self.input.clone(),
            output: self.output.clone(),
            prompt: self.prompt.clone(),
        }
    }

    /// The digest of the whole definition.
    pub fn digest(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }
}

/// Templates around what varies. Both are minijinja templates over
/// `instruction`, `input` (the JSON value) and `output_schema`; autoescaping is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptFrame {
    /// The system message.
    pub system: String,
    /// The user message, rendered once per few-shot and once for the input itself.
    pub user: String,
}

impl Default for PromptFrame {
    fn default() -> Self {
        Self {
            system: "{{ instruction }}\n\nAnswer with one JSON object that satisfies this JSON Schema, and nothing else:\n{{ output_schema }}".to_owned(),
            user: "{{ input }}".to_owned(),
        }
    }
}

/// How a program works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Render the prompt, ask the model once, decode, validate, repair within bounds.
    #[serde(rename = "direct.v1")]
    Direct,
    /// A linear classifier distilled from the train rows; no LLM call.
    #[serde(rename = "distilled.lexical.v1")]
    DistilledLexical,
}

/// A program's parameters as a person writes them: few-shots by id, no weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// How the program works.
    pub strategy: Strategy,
    /// What the model is told to do.
    #[serde(default)]
    pub instruction: Instruction,
    /// Which train rows are shown as examples.
    #[serde(default)]
    pub few_shot: FewShot,
    /// The name of a model in `proofline.toml`; `lexical` is always there.
    #[serde(default = "default_model")]
    pub model: String,
    /// How an answer is read.
    #[serde(default)]
    pub decode: Decode,
    /// Sampling temperature, 0 to 2.
    #[serde(default)]
    pub temperature: f64,
    /// Nucleus sampling mass, 0 to 1.
    #[serde(default = "default_top_p")]
    pub top_p: f64,
    /// Longest answer, in tokens.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: u32,
    /// Knobs of `distilled.lexical.v1`, as `models::lexical::Knobs` reads them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub lexical: Map<String, Value>,
    /// Limits of one prediction.
    #[serde(default)]
    pub budgets: Budgets,
}

fn default_model() -> String {
    "lexical".to_owned()
}

fn default_top_p() -> f64 {
    1.0
}

fn default_max_tokens() -> u32 {
    256
}

/// What the model is told to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instruction {
    /// The text.
    #[serde(default)]
    pub text: String,
}

/// Which train rows are shown as examples, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// Train rows by id.
    #[serde(default)]
    pub example_ids: Vec<ExampleId>,
}

/// How an answer is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// How much around the JSON is forgiven.
    #[serde(default)]
    pub mode: DecodeMode,
    /// How many times the model is shown its mistake and asked again, 0 to 3.
    #[serde(default)]
    pub max_repairs: u32,
}

impl Default for Decode {
    fn default() -> Self {
        Self {
            mode: DecodeMode::StrictJson,
            max_repairs: 0,
        }
    }
}

/// How much around the JSON is forgiven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeMode {
    /// The whole answer is one JSON document.
    #[default]
    StrictJson,
    /// Prose or a code fence around the first JSON object is dropped.
    Jsonish,
}

/// Limits of one prediction; none by default but the model's own time-outs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Wall time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
    /// Model calls, repairs included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lm_calls: Option<u32>,
    /// Characters of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_chars: Option<usize>,
}

/// How a candidate is tried on traffic. Rates are fractions, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryPlan {
    /// Share of keys that the candidate serves, in percent.
    pub rollout_percent: u32,
    /// Fewer pairs than this prove nothing.
    pub min_pairs: u32,
    /// After this many pairs without a decision the canary is inconclusive.
    pub max_pairs: u32,
    /// The candidate's failures may not exceed this share of its answers.
    pub max_error_rate: f64,
    /// δ: how much worse than the control still counts as not worse.
    pub harm_margin: f64,
    /// The canary ends undecided after this long, in milliseconds.
    pub time_limit_ms: u64,
}

impl Default for CanaryPlan {
    fn default() -> Self {
        Self {
            rollout_percent: 50,
            min_pairs: 40,
            max_pairs: 2_000,
            max_error_rate: 0.05,
            harm_margin: 0.05,
            time_limit_ms: 86_400_000,
        }
    }
}

/// How a winner comes into force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromotionPlan {
    /// Directly, or as a proposal for a person; the policy's own word when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<PromotionMode>,
}

/// Directly, or as a proposal for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromotionMode {
    /// The loop moves the pointer itself.
    Direct,
    /// A person reviews and merges.
    Propose,
}

/// What the dataset must hold, beyond the policy's own rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRules {
    /// Fewest rows in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u32>,
    /// Fewest holdout rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_holdout_rows: Option<u32>,
    /// Every row must carry at least one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_tags: Vec<String>,
}
