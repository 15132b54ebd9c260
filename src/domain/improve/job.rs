//! A job: the search plan. Its `job_hash` is the digest of everything that
//! decides what the search does.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canon::{self, CanonError};
use crate::id::{Digest, ExampleId};

use super::metric::Metric;
use super::signature::{Decode, Interface, Parameters, Strategy};

/// The plan as it stands in a signature file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobPlan {
    /// How the space is searched.
    pub optimizer: Optimizer,
    /// Where all randomness starts; 0 to 2^53 − 1.
    pub seed: u64,
    /// What may vary.
    pub space: SearchSpace,
    /// When to stop.
    pub budget: SearchBudget,
}

impl Default for JobPlan {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::KnobsGrid,
            seed: 1,
            space: SearchSpace::default(),
            budget: SearchBudget::default(),
        }
    }
}

/// How a space is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Optimizer {
    /// Every instruction.
    #[serde(rename = "instruction_grid.v1")]
    InstructionGrid,
    /// Few-shots, one more at a time, while each helps.
    #[serde(rename = "fewshot_greedy_forward.v1")]
    FewShotGreedyForward,
    /// The best instruction, then few-shots for it.
    #[serde(rename = "joint_instruction_grid_then_fewshot_greedy_forward.v1")]
    JointInstructionThenFewShot,
    /// Every combination of strategy, model, decode policy and lexical knobs.
    #[serde(rename = "knobs_grid.v1")]
    KnobsGrid,
    /// The grid, then numeric knobs halfway to the winner's neighbours.
    #[serde(rename = "knobs_grid_refine.v1")]
    KnobsGridRefine,
}

impl Optimizer {
    /// The name, as in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InstructionGrid => "instruction_grid.v1",
            Self::FewShotGreedyForward => "fewshot_greedy_forward.v1",
            Self::JointInstructionThenFewShot => {
                "joint_instruction_grid_then_fewshot_greedy_forward.v1"
            }
            Self::KnobsGrid => "knobs_grid.v1",
            Self::KnobsGridRefine => "knobs_grid_refine.v1",
        }
    }

    /// Whether it looks at few-shots.
    pub fn uses_few_shots(self) -> bool {
        matches!(
            self,
            Self::FewShotGreedyForward | Self::JointInstructionThenFewShot
        )
    }
}

/// What may vary. An empty list means "as in the base".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchSpace {
    /// Instructions to try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instruction_variants: Vec<InstructionVariant>,
    /// Few-shots to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub few_shot: Option<FewShotSpace>,
    /// Decode policies to try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decode_variants: Vec<Decode>,
    /// Strategies to try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strategy_variants: Vec<Strategy>,
    /// Names of models in `proofline.toml` to try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_variants: Vec<String>,
    /// Sets of lexical knobs to try, each merged over the base's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lexical_variants: Vec<Map<String, Value>>,
    /// Values per lexical knob; their product is tried.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub lexical_grid: Map<String, Value>,
}

/// One instruction to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstructionVariant {
    /// A short name for reports.
    pub id: String,
    /// The text.
    pub text: String,
}

/// Few-shots to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShotSpace {
    /// Train rows by id; when empty, `candidate_count` rows are drawn, seeded and spread over the outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidate_example_ids: Vec<ExampleId>,
    /// How many rows are drawn when none are named.
    #[serde(default = "default_candidate_count")]
    pub candidate_count: u32,
    /// The most few-shots a program may have.
    pub k_max: u32,
}

fn default_candidate_count() -> u32 {
    12
}

/// When to stop; what is absent does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchBudget {
    /// Predictions, cached ones included, so that a resumed search stops where the first would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_calls: Option<u64>,
    /// Input and output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Money, in millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_micro_usd: Option<u64>,
    /// Wall time in milliseconds. The one limit that makes a report depend on the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
}

/// Everything that decides what a search does, frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Always `proofline/job/v1`.
    pub schema: String,
    /// The interface being searched for.
    pub interface: Interface,
    /// The parameters in force before anything was promoted.
    pub defaults: Parameters,
    /// How outputs are scored.
    pub metric: Metric,
    /// The plan.
    pub plan: JobPlan,
    /// The artifact that the search starts from.
    pub base: Digest,
    /// How each named model that the space can reach is asked: everything of its configuration that can change an answer.
    pub models: std::collections::BTreeMap<String, Value>,
}

impl Job {
    /// The `schema` field of a job.
    pub const SCHEMA: &str = "proofline/job/v1";

    /// The `job_hash`.
    pub fn hash(&self) -> Result<Digest, CanonError> {
        canon::digest(self)
    }
}
