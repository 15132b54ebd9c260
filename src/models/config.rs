//! `[models.NAME]` in `proofline.toml`: which models there are and how to reach them.
//!
//! ```toml
//! [models.main]
//! kind = "openai"
//! base_url = "https://api.example.com/v1"
//! model = "small-2"
//! api_key_env = "EXAMPLE_API_KEY"
//! concurrency = 16
//! price = { input_per_million_usd = "0.15", output_per_million_usd = "0.60" }
//! breaker = { failures = 5, cool_down_ms = 30000 }
//! fallback = "local"
//!
//! [models.local]
//! kind = "exec"
//! command = ["python3", "answer.py"]
//!
//! [models.embedded]
//! kind = "lexical"
//! ```
//!
//! Keys are never written here: `api_key_env` and `headers.NAME.env` name
//! environment variables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::breaker::Breaker;
use super::endpoint::{Endpoint, check_header};
use super::retry::RetryPolicy;
use super::{Model, Resilient, Surroundings, Usage, exec, openai};

/// Every configured model, by name.
pub type ModelConfigs = BTreeMap<String, ModelConfig>;

/// One configured model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelConfig {
    /// An OpenAI-compatible chat endpoint.
    Openai(OpenAiConfig),
    /// A program that speaks JSON lines.
    Exec(ExecConfig),
    /// The embedded classifier.
    Lexical(LexicalConfig),
}

/// The embedded classifier has no settings here: its knobs are program parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LexicalConfig {}

/// An OpenAI-compatible chat endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// Where `/chat/completions` hangs, usually ending in `/v1`. A query is kept.
    pub base_url: String,
    /// The model to ask for.
    pub model: String,
    /// The environment variable that holds the key. Local servers need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderValue>,
    /// The strictest response format that the endpoint understands.
    #[serde(default)]
    pub response_format: OfferedFormat,
    /// What `max_tokens` is called there.
    #[serde(default)]
    pub max_tokens_field: MaxTokensField,
    /// Send the key over unencrypted HTTP to another machine.
    #[serde(default)]
    pub allow_http: bool,
    /// Limit for names, TCP and TLS.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Limit from the request sent to the answer's headers.
    #[serde(default = "default_first_byte_timeout_ms")]
    pub first_byte_timeout_ms: u64,
    /// Limit for one attempt, the whole body included.
    #[serde(default = "default_total_timeout_ms")]
    pub total_timeout_ms: u64,
    /// Further attempts after the first.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Requests in flight at most.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// What a token costs.
    #[serde(default)]
    pub price: Price,
    /// When to stop asking for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerConfig>,
    /// Who is asked instead while this model is out. Never used unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// A program that speaks JSON lines; see [`exec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecConfig {
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// Environment variables it may see, besides `PATH`, `HOME`, `TMPDIR`, `LANG` and `LC_ALL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Limit for one answer, starting the program included.
    #[serde(default = "default_total_timeout_ms")]
    pub timeout_ms: u64,
    /// Processes kept alive, each answering one request at a time.
    #[serde(default = "default_exec_concurrency")]
    pub concurrency: usize,
    /// Further attempts after the first.
    #[serde(default = "default_exec_retries")]
    pub retries: u32,
    /// What a token costs, where the program reports usage.
    #[serde(default)]
    pub price: Price,
    /// When to stop asking for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerConfig>,
    /// Who is asked instead while this model is out. Never used unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// A header's value: literal, or from the environment when it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    /// As written; it will be committed with the configuration.
    Literal(String),
    /// From the environment; treated as a key.
    Environment(EnvironmentHeader),
}

/// A header whose value an environment variable holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentHeader {
    /// The variable's name.
    pub env: String,
}

/// The strictest response format that an endpoint understands. A request for
/// more is sent as this; the answer is validated by the caller all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferedFormat {
    /// `response_format` is never sent.
    Text,
    /// `{"type": "json_object"}`.
    JsonObject,
    /// `{"type": "json_schema", …}`.
    #[default]
    JsonSchema,
}

/// What the limit on an answer's length is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    /// `max_tokens`, which nearly every server understands.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's newer models insist on.
    MaxCompletionTokens,
}

/// What tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// A million prompt tokens.
    #[serde(default)]
    pub input_per_million_usd: MicroUsd,
    /// A million tokens of answer.
    #[serde(default)]
    pub output_per_million_usd: MicroUsd,
}

impl Price {
    /// What an answer costs, in micro-dollars, rounded up: a budget must not be
    /// passed by many small roundings down.
    pub fn of(&self, usage: Usage) -> u64 {
        let input = u128::from(usage.input_tokens) * u128::from(self.input_per_million_usd.0);
        let output = u128::from(usage.output_tokens) * u128::from(self.output_per_million_usd.0);
        u64::try_from((input + output).div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Money: millionths of a US dollar. Written as a decimal string of dollars
/// (`"0.15"`) or as an integer of micro-dollars (`150000`); never a float.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "MoneyText", into = "u64")]
pub struct MicroUsd(pub u64);

impl From<MicroUsd> for u64 {
    fn from(money: MicroUsd) -> u64 {
        money.0
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "dollars as a decimal string (\"0.15\") or micro-dollars as an integer (150000)"
)]
enum MoneyText {
    Micro(u64),
    Dollars(String),
}

impl TryFrom<MoneyText> for MicroUsd {
    type Error = String;
    fn try_from(text: MoneyText) -> Result<Self, String> {
        match text {
            MoneyText::Micro(micro) => Ok(Self(micro)),
            MoneyText::Dollars(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for MicroUsd {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || {
            format!("`{text}` is not an amount of dollars: digits, and at most six after the point")
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return Err(fail());
        }
        let whole: u64 = whole.parse().map_err(|_| fail())?;
        let part: u64 = format!("{part:0<6}").parse().map_err(|_| fail())?;
        whole
            .checked_mul(1_000_000)
            .and_then(|micro| micro.checked_add(part))
            .map(Self)
            .ok_or_else(fail)
    }
}

/// When a failing model is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// Consecutive outages (after retries) that open the circuit.
    pub failures: u32,
    /// How long it stays open before one request tries again.
    pub cool_down_ms: u64,
}

fn default_connect_timeout_ms() -> u64 {
    5_000
}
fn default_first_byte_timeout_ms() -> u64 {
    60_000
}
fn default_total_timeout_ms() -> u64 {
    120_000
}
fn default_retries() -> u32 {
    4
}
fn default_concurrency() -> usize {
    8
}
fn default_exec_concurrency() -> usize {
    1
}
fn default_exec_retries() -> u32 {
    1
}

/// A setting that can't work, by model and field, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("models.{model}.{field}: {reason}")]
pub struct ConfigError {
    /// The model's name.
    pub model: String,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

impl ConfigError {
    fn new(model: &str, field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            model: model.to_owned(),
            field,
            reason: reason.into(),
        }
    }
}

impl ModelConfig {
    fn fallback(&self) -> Option<&str> {
        match self {
            Self::Openai(config) => config.fallback.as_deref(),
            Self::Exec(config) => config.fallback.as_deref(),
            Self::Lexical(_) => None,
        }
    }

    /// The environment variables that must be set before it can be asked.
    pub fn required_environment(&self) -> Vec<&str> {
        match self {
            Self::Openai(config) => {
                let headers = config.headers.values().filter_map(|value| match value {
                    HeaderValue::Environment(header) => Some(header.env.as_str()),
                    HeaderValue::Literal(_) => None,
                });
                config
                    .api_key_env
                    .as_deref()
                    .into_iter()
                    .chain(headers)
                    .collect()
            }
            Self::Exec(_) | Self::Lexical(_) => Vec::new(),
        }
    }
}

/// Everything that is wrong with the settings themselves, whatever the environment says.
pub fn check(configs: &ModelConfigs) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (name, config) in configs {
        let mut wrong = |field, reason: String| errors.push(ConfigError::new(name, field, reason));
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            wrong(
                "kind",
                "a model's name has letters, digits, `-`, `_` and `.` only".into(),
            );
        }
        match config {
            ModelConfig::Openai(openai) => {
                if let Err(reason) = Endpoint::parse(&openai.base_url) {
                    wrong("base_url", reason);
                }
                if openai.model.trim().is_empty() {
                    wrong("model", "name the model to ask for".into());
                }
                for header in openai.headers.iter() {
                    if let Err(reason) = check_header(header.0, header.1) {
                        wrong("headers", reason);
                    }
                }
                for (field, value) in [
                    ("connect_timeout_ms", openai.connect_timeout_ms),
                    ("first_byte_timeout_ms", openai.first_byte_timeout_ms),
                    ("total_timeout_ms", openai.total_timeout_ms),
                    ("concurrency", openai.concurrency as u64),
                ] {
                    positive(field, value, &mut wrong);
                }
                bounded(openai.concurrency, openai.retries, &mut wrong);
                breaker(openai.breaker.as_ref(), &mut wrong);
            }
            ModelConfig::Exec(exec) => {
                if exec
                    .command
                    .first()
                    .is_none_or(|program| program.is_empty())
                {
                    wrong(
                        "command",
                        "name a program: [\"python3\", \"answer.py\"]".into(),
                    );
                }
                positive("timeout_ms", exec.timeout_ms, &mut wrong);
                positive("concurrency", exec.concurrency as u64, &mut wrong);
                bounded(exec.concurrency, exec.retries, &mut wrong);
                breaker(exec.breaker.as_ref(), &mut wrong);
            }
            ModelConfig::Lexical(_) => {}
        }
        if let Err(reason) = check_fallbacks(configs, name) {
            wrong("fallback", reason);
        }
    }
    errors
}

fn positive(field: &'static str, value: u64, wrong: &mut impl FnMut(&'static str, String)) {
    if value == 0 {
        wrong(field, "must be at least 1".into());
    }
}

fn bounded(concurrency: usize, retries: u32, wrong: &mut impl FnMut(&'static str, String)) {
    if concurrency > 1024 {
        wrong("concurrency", "more than 1024 threads help nobody".into());
    }
    if retries > 20 {
        wrong(
            "retries",
            "more than 20 retries would hide an outage".into(),
        );
    }
}

fn breaker(breaker: Option<&BreakerConfig>, wrong: &mut impl FnMut(&'static str, String)) {
    if breaker.is_some_and(|breaker| breaker.failures == 0 || breaker.cool_down_ms == 0) {
        wrong(
            "breaker",
            "`failures` and `cool_down_ms` must be at least 1".into(),
        );
    }
}

fn check_fallbacks(configs: &ModelConfigs, name: &str) -> Result<(), String> {
    let mut seen = BTreeSet::from([name]);
    let mut at = name;
    while let Some(next) = configs.get(at).and_then(ModelConfig::fallback) {
        match configs.get(next) {
            None => return Err(format!("there is no `[models.{next}]`")),
            Some(ModelConfig::Lexical(_)) => {
                return Err(format!(
                    "`{next}` is embedded: it is trained per signature and can't stand in for a prompted model"
                ));
            }
            Some(_) => {}
        }
        if !seen.insert(next) {
            return Err(format!("the fallbacks go in a circle through `{next}`"));
        }
        at = next;
    }
    Ok(())
}

/// Build a configured model: one attempt at the bottom, then retries, the
/// breaker and the fallback.
///
/// The embedded model isn't built here: it is trained from rows.
pub fn connect(
    configs: &ModelConfigs,
    name: &str,
    surroundings: &Surroundings,
) -> Result<Arc<dyn Model>, ConfigError> {
    let config = configs.get(name).ok_or_else(|| {
        let known: Vec<_> = configs.keys().map(|known| format!("`{known}`")).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        ConfigError::new(
            name,
            "kind",
            format!("no such model is configured (known: {known})"),
        )
    })?;
    if let Some(error) = check(configs).into_iter().find(|error| error.model == name) {
        return Err(error);
    }
    let (model, retries, breaker): (Arc<dyn Model>, _, _) = match config {
        ModelConfig::Openai(openai) => {
            let model = openai::OpenAi::new(openai, surroundings)
                .map_err(|(field, reason)| ConfigError::new(name, field, reason))?;
            (Arc::new(model), openai.retries, openai.breaker)
        }
        ModelConfig::Exec(exec) => (
            Arc::new(exec::Exec::new(exec, surroundings)),
            exec.retries,
            exec.breaker,
        ),
        ModelConfig::Lexical(_) => {
            return Err(ConfigError::new(
                name,
                "kind",
                "the embedded model is trained per signature; use strategy `distilled.lexical.v1`",
            ));
        }
    };
    let mut resilient = Resilient::new(
        name,
        model,
        RetryPolicy::with_retries(retries),
        surroundings,
    );
    if let Some(breaker) = breaker {
        resilient = resilient.breaker(Breaker::new(breaker));
    }
    if let Some(fallback) = config.fallback() {
        resilient = resilient.fallback(fallback, connect(configs, fallback, surroundings)?);
    }
    Ok(Arc::new(resilient))
}
