//! Who answers a prompt: `openai` (HTTP), `exec` (JSON lines), `lexical`
//! (embedded); with cache, retry, circuit breaker and metering.
//!
//! A caller makes a [`Request`], hands it to a [`Model`] and gets a
//! [`Completion`] that says who really answered, or a [`ModelError`] that says
//! where, after how long and under which correlation id it failed.
//!
//! How the parts fit, from the caller down:
//!
//! ```text
//! pool::run_bounded        items in order, bounded threads
//!   cache::Cache           has this exact request been answered before?
//!     meter::Meter         may we pay for one more call? what did it cost?
//!       Resilient          retries, circuit breaker, recorded fallback
//!         OpenAi | Exec    one attempt
//! ```
//!
//! [`connect`] builds the lower half from configuration. Nothing here reads the
//! environment or the clock by itself: [`Surroundings`] carries both, so that a
//! test decides what time it is and how long a pause takes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::clock::Clock;
use crate::host::signal::Interrupt;

pub mod breaker;
pub mod cache;
pub mod config;
pub mod endpoint;
pub mod error;
pub mod exec;
pub mod lexical;
pub mod meter;
pub mod openai;
pub mod pool;
pub mod resilient;
pub mod retry;
pub mod secret;

pub use config::{ModelConfig, ModelConfigs, connect};
pub use error::{Failure, ModelError};
pub use resilient::Resilient;

/// Something that answers prompts.
///
/// `complete` blocks until there is an answer, a definite failure, or an
/// interrupt; every implementation bounds its own time.
pub trait Model: Send + Sync + fmt::Debug {
    /// Answer one request.
    fn complete(&self, request: &Request) -> Result<Completion, ModelError>;

    /// Who is asked, as configured. Who *answered* is on the completion.
    fn identity(&self) -> ModelIdentity;

    /// How many requests it is worth having in flight.
    fn concurrency(&self) -> usize;

    /// Whether an answer may stand for a later, equal request. False where
    /// asking is cheaper than looking up.
    fn cacheable(&self) -> bool {
        true
    }

    /// Give up the calls in flight: they fail as interrupted. Final.
    fn abort(&self) {}
}

/// One prompt and how to answer it. Everything but `correlation_id` can change
/// the answer, and belongs in a cache key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The conversation so far, oldest first.
    pub messages: Vec<Message>,
    /// How the answer is sampled.
    pub decoding: Decoding,
    /// The shape asked of the answer.
    pub response: ResponseFormat,
    /// Which of several equal requests this is; part of cache keys, never sent.
    pub repetition: u32,
    /// Ties our records to the provider's logs; sent as a header. Never in a digest.
    pub correlation_id: String,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What they say.
    pub content: String,
}

impl Message {
    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self {
            role: Role::System,
            content: content.into(),
        }
    }

    /// A user's message.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: Role::User,
            content: content.into(),
        }
    }

    /// An assistant's message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self {
            role: Role::Assistant,
            content: content.into(),
        }
    }
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
}

/// How an answer is sampled. `None` leaves the choice to the provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// Sampling temperature, 0 for greedy.
    pub temperature: Option<f64>,
    /// Nucleus mass, in (0, 1].
    pub top_p: Option<f64>,
    /// Longest answer, in tokens.
    pub max_tokens: Option<u32>,
    /// Sampling seed, where the provider honours one.
    pub seed: Option<u64>,
}

/// The shape asked of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// A short name for the schema: letters, digits, `_` and `-`.
        name: String,
        /// The JSON Schema.
        schema: Value,
    },
}

/// What a model answered, and what that took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// The answer.
    pub text: String,
    /// Who really answered, in the provider's words.
    pub answered_by: ModelIdentity,
    /// Tokens read and written.
    pub usage: Usage,
    /// Why the answer ends where it does.
    pub finish: FinishReason,
    /// Milliseconds from the first attempt to the answer, pauses included.
    pub latency_ms: u64,
    /// Attempts made, 1 when the first was answered.
    pub attempts: u32,
    /// What the answer cost, in millionths of a US dollar, rounded up. Of a
    /// cached completion: what it cost when it was paid for.
    pub cost_micro_usd: u64,
    /// Whether it came from the cache.
    pub cached: bool,
    /// Why another model than the one asked answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The provider's own id for the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_request_id: Option<String>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Host and port of the endpoint, or `exec`, or `lexical`.
    pub provider: String,
    /// The model's name, in the provider's words once it has answered.
    pub model: String,
    /// What distinguishes two builds under one name (`system_fingerprint`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl fmt::Display for ModelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

/// Why an answer ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// `max_tokens` or the context window was reached: the text is cut off.
    Length,
    /// Anything else, or unsaid.
    Other,
}

/// Looks up an environment variable.
pub type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The outside world, as values: what time it is, what the environment says,
/// how to pause, whether someone asked us to stop. Clones share all of it.
#[derive(Clone)]
pub struct Surroundings {
    /// Measures latencies, reads HTTP dates.
    pub clock: Arc<dyn Clock>,
    /// Pauses between attempts.
    pub sleeper: Arc<dyn retry::Sleeper>,
    /// Set when work should end.
    pub interrupt: Interrupt,
    /// Looks up an environment variable.
    pub environment: Arc<Lookup>,
    /// Seeds the jitter of pauses.
    pub seed: u64,
    /// Where programs are run: the folder of `proofline.toml`. None is the current one.
    pub directory: Option<PathBuf>,
}

impl Surroundings {
    /// Real pauses, and what the caller passes for the rest.
    pub fn new(
        clock: Arc<dyn Clock>,
        interrupt: Interrupt,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            clock,
            sleeper: Arc::new(retry::ThreadSleeper),
            interrupt,
            environment: Arc::new(environment),
            seed: 0,
            directory: None,
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment holds keys: it is never shown.
        f.debug_struct("Surroundings")
            .field("interrupt", &self.interrupt)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
