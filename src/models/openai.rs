//! Any OpenAI-compatible chat endpoint: `POST {base_url}/chat/completions`.
//!
//! One [`complete`](Model::complete) is one attempt on a kept-alive connection;
//! [`Resilient`](super::Resilient) asks again. Guarantees:
//!
//! - Limits hold for names, TCP and TLS (`connect_timeout_ms`), for the answer's
//!   headers (`first_byte_timeout_ms`) and for everything (`total_timeout_ms`).
//! - Keys come from the environment, go into one header of the configured
//!   endpoint, and nowhere else: redirects aren't followed, unencrypted HTTP to
//!   another machine is refused unless allowed, and whatever the provider quotes
//!   is cleaned before it is shown.
//! - An answer is taken only when it is whole and has text in it.
//! - Loopback addresses are never asked through a proxy; others as
//!   `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::header::{HeaderMap, HeaderName, HeaderValue as HttpValue};
use ureq::http::{StatusCode, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::host::signal::Interrupt;

use super::config::{HeaderValue, MaxTokensField, OfferedFormat, OpenAiConfig};
use super::endpoint::{Endpoint, check_header};
use super::error::{Context, Phase};
use super::retry::parse_retry_after;
use super::secret::{Secret, redact};
use super::{
    Completion, Failure, FinishReason, Model, ModelError, ModelIdentity, Request, ResponseFormat,
    Surroundings, Usage,
};

const ANSWER_BYTES_MAX: u64 = 16 << 20;
const ERROR_BYTES_MAX: u64 = 64 << 10;
const EXCERPT_CHARS_MAX: usize = 300;

/// A chat endpoint.
pub struct OpenAi {
    config: OpenAiConfig,
    endpoint: Endpoint,
    headers: HeaderMap,
    secrets: Vec<Secret>,
    agent: ureq::Agent,
    aborted: Arc<AtomicBool>,
    surroundings: Surroundings,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the headers, the query or the agent: keys are in there.
        f.debug_struct("OpenAi")
            .field("at", &self.endpoint.shown)
            .field("model", &self.config.model)
            .finish_non_exhaustive()
    }
}

impl OpenAi {
    /// Read keys from the environment and get ready; connects when first asked.
    ///
    /// On error: the field that is wrong and why.
    pub fn new(
        config: &OpenAiConfig,
        surroundings: &Surroundings,
    ) -> Result<Self, (&'static str, String)> {
        let endpoint = Endpoint::parse(&config.base_url).map_err(|reason| ("base_url", reason))?;
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        let mut secret_from = |variable: &str| match (surroundings.environment)(variable) {
            Some(value) if !value.trim().is_empty() => {
                let value = value.trim().to_owned();
                secrets.push(Secret::new(&value));
                Ok(value)
            }
            _ => Err(format!("the environment variable `{variable}` is not set")),
        };
        for (name, value) in &config.headers {
            check_header(name, value).map_err(|reason| ("headers", reason))?;
            let (value, sensitive) = match value {
                HeaderValue::Literal(value) => (value.clone(), false),
                HeaderValue::Environment(header) => {
                    let value = secret_from(&header.env).map_err(|reason| ("headers", reason))?;
                    (value, true)
                }
            };
            let name = HeaderName::try_from(name.as_str())
                .map_err(|_| ("headers", format!("`{name}` is not a header's name")))?;
            let mut value = HttpValue::try_from(value).map_err(|_| {
                (
                    "headers",
                    format!("the value of `{name}` can't be sent in a header"),
                )
            })?;
            value.set_sensitive(sensitive);
            headers.insert(name, value);
        }
        if let Some(variable) = &config.api_key_env {
            let key = secret_from(variable).map_err(|reason| ("api_key_env", reason))?;
            let mut value = HttpValue::try_from(format!("Bearer {key}")).map_err(|_| {
                let reason = "holds characters that can't be sent in a header";
                ("api_key_env", format!("`{variable}` {reason}"))
            })?;
            value.set_sensitive(true);
            headers.insert("authorization", value);
        }
        if !secrets.is_empty()
            && !endpoint.is_https
            && !endpoint.is_loopback()
            && !config.allow_http
        {
            return Err((
                "base_url",
                format!(
                    "a key would be sent unencrypted to `{}`; use https, or set `allow_http = true` if that network is yours",
                    endpoint.authority
                ),
            ));
        }
        headers.insert("content-type", HttpValue::from_static("application/json"));
        headers.insert("accept", HttpValue::from_static("application/json"));
        let proxy = endpoint
            .proxy(&*surroundings.environment)
            .map_err(|reason| ("base_url", reason))?;
        let agent = ureq::Agent::with_parts(
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .proxy(proxy)
                .user_agent(concat!("proofline/", env!("CARGO_PKG_VERSION")))
                .timeout_resolve(Some(Duration::from_millis(config.connect_timeout_ms)))
                .timeout_connect(Some(Duration::from_millis(config.connect_timeout_ms)))
                .timeout_recv_response(Some(Duration::from_millis(config.first_byte_timeout_ms)))
                .timeout_global(Some(Duration::from_millis(config.total_timeout_ms)))
                .max_idle_connections(config.concurrency)
                .max_idle_connections_per_host(config.concurrency)
                .input_buffer_size(16 << 10)
                .output_buffer_size(16 << 10)
                .build(),
            DefaultConnector::new(),
            RememberingResolver::default(),
        );
        let aborted = Arc::new(AtomicBool::new(false));
        watch(&surroundings.interrupt, &aborted, &agent);
        Ok(Self {
            config: config.clone(),
            endpoint,
            headers,
            secrets,
            agent,
            aborted,
            surroundings: surroundings.clone(),
        })
    }

    /// The models that the endpoint lists (`GET {base_url}/models`): a cheap
    /// question that shows whether it is there and takes the key.
    pub fn models(&self) -> Result<Vec<String>, ModelError> {
        let mut exchange = Exchange::new(self, "preflight");
        let outcome = (|| {
            let mut request = self.agent.get(self.endpoint.url("models"));
            if let Some(headers) = request.headers_mut() {
                headers.extend(self.headers.clone());
            }
            let response = request.call().map_err(|error| self.failure(error))?;
            let body = self.body(response, &mut exchange)?;
            let list: ModelList = serde_json::from_slice(&body)
                .map_err(|error| self.malformed(error.to_string(), &body))?;
            Ok(list.data.into_iter().map(|model| model.id).collect())
        })();
        outcome.map_err(|failure| exchange.error(failure))
    }

    fn ask(&self, request: &Request, exchange: &mut Exchange<'_>) -> Result<Completion, Failure> {
        if self.stopping() {
            return Err(Failure::Interrupted);
        }
        let body = serde_json::to_vec(&self.render(request))
            .expect("because a request has string keys only");
        let mut builder = self.agent.post(self.endpoint.url("chat/completions"));
        if let Some(headers) = builder.headers_mut() {
            headers.extend(self.headers.clone());
            // An id with odd characters isn't worth failing for.
            if let Ok(id) = HttpValue::try_from(request.correlation_id.as_str()) {
                headers.insert("x-request-id", id.clone());
                headers.insert("x-correlation-id", id);
            }
        }
        let response = builder.send(&body).map_err(|error| self.failure(error))?;
        let body = self.body(response, exchange)?;
        self.read(&body)
    }

    fn render(&self, request: &Request) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("model", json!(self.config.model));
        put("messages", json!(request.messages));
        let decoding = &request.decoding;
        if let Some(temperature) = decoding.temperature {
            put("temperature", json!(temperature));
        }
        if let Some(top_p) = decoding.top_p {
            put("top_p", json!(top_p));
        }
        if let Some(max_tokens) = decoding.max_tokens {
            let name = match self.config.max_tokens_field {
                MaxTokensField::MaxTokens => "max_tokens",
                MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
            };
            put(name, json!(max_tokens));
        }
        if let Some(seed) = decoding.seed {
            put("seed", json!(seed));
        }
        let offered = self.config.response_format;
        match &request.response {
            ResponseFormat::JsonSchema { name, schema } if offered == OfferedFormat::JsonSchema => {
                let strict = is_strict(schema);
                let schema = json!({"name": name, "schema": schema, "strict": strict});
                put(
                    "response_format",
                    json!({"type": "json_schema", "json_schema": schema}),
                );
            }
            ResponseFormat::JsonSchema { .. } | ResponseFormat::JsonObject
                if offered >= OfferedFormat::JsonObject =>
            {
                put("response_format", json!({"type": "json_object"}));
            }
            _ => {}
        }
        Value::Object(body)
    }

    /// The whole body of a 2xx response, or what the response's failure is.
    fn body(
        &self,
        mut response: ureq::http::Response<ureq::Body>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let status = response.status();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        exchange.server_request_id = ["x-request-id", "request-id", "apim-request-id"]
            .iter()
            .find_map(|name| header(name))
            .map(|id| self.shorten(&id));
        if status.is_success() {
            return response
                .body_mut()
                .with_config()
                .limit(ANSWER_BYTES_MAX)
                .read_to_vec()
                .map_err(|error| self.failure(error));
        }
        let retry_after_ms = header("retry-after-ms")
            .and_then(|ms| ms.trim().parse().ok())
            .or_else(|| {
                let now = self.surroundings.clock.now();
                parse_retry_after(&header("retry-after")?, now)
            });
        let message = if status.is_redirection() {
            "redirects are not followed with a key; set `base_url` to where the endpoint is".into()
        } else {
            // What can't be read of an explanation isn't worth another failure.
            let body = response
                .body_mut()
                .with_config()
                .limit(ERROR_BYTES_MAX)
                .read_to_vec()
                .unwrap_or_default();
            self.explanation(status, &body)
        };
        Err(Failure::Status {
            status: status.as_u16(),
            message,
            retry_after_ms,
        })
    }

    fn explanation(&self, status: StatusCode, body: &[u8]) -> String {
        let message = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| error_message(&value));
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        let message = self.shorten(&message);
        if message.is_empty() {
            status
                .canonical_reason()
                .unwrap_or("no reason given")
                .to_owned()
        } else {
            message
        }
    }

    fn read(&self, body: &[u8]) -> Result<Completion, Failure> {
        let answer: Answer = serde_json::from_slice(body).map_err(|error| {
            // Without a length, a cut connection looks like an early end of JSON.
            if error.is_eof() && !body.is_empty() {
                Failure::Truncated {
                    reason: format!("the JSON ends after {} bytes", body.len()),
                }
            } else {
                self.malformed(error.to_string(), body)
            }
        })?;
        if let Some(error) = answer.error.filter(|error| !error.is_null()) {
            // Gateways report upstream errors with status 200.
            let code = error.get("code").and_then(Value::as_u64);
            let message = error_message(&json!({ "error": error })).unwrap_or_default();
            let message = self.shorten(&message);
            return Err(match code.and_then(|code| u16::try_from(code).ok()) {
                Some(status @ 400..=599) => Failure::Status {
                    status,
                    message,
                    retry_after_ms: None,
                },
                _ => self.malformed(format!("an error with status 200: {message}"), body),
            });
        }
        let Some(choice) = answer.choices.into_iter().flatten().next() else {
            return Err(self.malformed("no choices".into(), body));
        };
        let finish = choice.finish_reason.unwrap_or_default();
        if let Some(refusal) = choice.message.refusal.filter(|refusal| !refusal.is_empty()) {
            return Err(Failure::Refused {
                message: self.shorten(&refusal),
            });
        }
        if finish == "content_filter" {
            return Err(Failure::Refused {
                message: "a content filter withheld the answer".into(),
            });
        }
        let Some(text) = choice.message.content.and_then(Content::into_text) else {
            return Err(Failure::Empty {
                finish: if finish.is_empty() {
                    "none".into()
                } else {
                    self.shorten(&finish)
                },
            });
        };
        let usage = answer.usage.map_or_else(Usage::default, |usage| Usage {
            input_tokens: usage.prompt_tokens.unwrap_or(0),
            output_tokens: usage.completion_tokens.unwrap_or(0),
        });
        Ok(Completion {
            text,
            answered_by: ModelIdentity {
                provider: self.endpoint.authority.clone(),
                model: answer
                    .model
                    .filter(|model| !model.is_empty())
                    .unwrap_or_else(|| self.config.model.clone()),
                revision: answer.system_fingerprint.filter(|text| !text.is_empty()),
            },
            cost_micro_usd: self.config.price.of(usage),
            usage,
            finish: match finish.as_str() {
                "stop" => FinishReason::Stop,
                "length" => FinishReason::Length,
                _ => FinishReason::Other,
            },
            latency_ms: 0,
            attempts: 1,
            cached: false,
            fallback: None,
            server_request_id: None,
        })
    }

    fn malformed(&self, reason: String, body: &[u8]) -> Failure {
        Failure::Malformed {
            reason: self.shorten(&reason),
            excerpt: self.shorten(&String::from_utf8_lossy(body)),
        }
    }

    /// Outside text, fit to be shown: no keys, no control characters, not long.
    fn shorten(&self, text: &str) -> String {
        // Keys first: cutting could leave half a key that no longer matches.
        let clean = redact(text, &self.secrets);
        let clean = clean.chars().map(|c| if c.is_control() { ' ' } else { c });
        let clean: String = clean.take(EXCERPT_CHARS_MAX).collect();
        clean.trim().to_owned()
    }

    fn stopping(&self) -> bool {
        self.aborted.load(Ordering::Relaxed) || self.surroundings.interrupt.is_set()
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        if self.stopping() {
            return Failure::Interrupted;
        }
        let truncated = |reason: String| Failure::Truncated { reason };
        let connect = |reason: String| Failure::Connect {
            reason: self.shorten(&reason),
        };
        match error {
            ureq::Error::Timeout(which) => self.timeout(which),
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => truncated(self.shorten(&error.to_string())),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    self.timeout(ureq::Timeout::Global)
                }
                _ => connect(error.to_string()),
            },
            ureq::Error::BodyStalled => truncated("the connection closed".into()),
            ureq::Error::HostNotFound => connect("host not found".into()),
            ureq::Error::BodyExceedsLimit(limit_bytes) => Failure::TooLarge { limit_bytes },
            ureq::Error::Protocol(error) => self.malformed(format!("not HTTP: {error}"), b""),
            ureq::Error::LargeResponseHeader(..) => {
                self.malformed("the headers are too large".into(), b"")
            }
            other => connect(other.to_string()),
        }
    }

    fn timeout(&self, which: ureq::Timeout) -> Failure {
        let (phase, limit_ms) = match which {
            ureq::Timeout::Resolve | ureq::Timeout::Connect => {
                (Phase::Connection, self.config.connect_timeout_ms)
            }
            ureq::Timeout::RecvResponse => (Phase::FirstByte, self.config.first_byte_timeout_ms),
            _ => (Phase::Answer, self.config.total_timeout_ms),
        };
        Failure::Timeout { phase, limit_ms }
    }
}

impl Model for OpenAi {
    fn complete(&self, request: &Request) -> Result<Completion, ModelError> {
        let mut exchange = Exchange::new(self, &request.correlation_id);
        match self.ask(request, &mut exchange) {
            Ok(completion) => Ok(Completion {
                latency_ms: exchange.elapsed_ms(),
                server_request_id: exchange.server_request_id,
                ..completion
            }),
            Err(failure) => Err(exchange.error(failure)),
        }
    }

    fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            provider: self.endpoint.authority.clone(),
            model: self.config.model.clone(),
            revision: None,
        }
    }

    fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.agent.clone().shutdown();
    }
}

/// What an error needs to know about one request.
struct Exchange<'a> {
    model: &'a OpenAi,
    began_ms: u64,
    correlation_id: &'a str,
    server_request_id: Option<String>,
}

impl<'a> Exchange<'a> {
    fn new(model: &'a OpenAi, correlation_id: &'a str) -> Self {
        Self {
            model,
            began_ms: model.surroundings.clock.elapsed_ms(),
            correlation_id,
            server_request_id: None,
        }
    }

    fn elapsed_ms(&self) -> u64 {
        let now = self.model.surroundings.clock.elapsed_ms();
        now.saturating_sub(self.began_ms)
    }

    fn error(&self, failure: Failure) -> ModelError {
        ModelError::new(
            failure,
            Context {
                at: self.model.endpoint.shown.clone(),
                elapsed_ms: self.elapsed_ms(),
                attempts: 1,
                correlation_id: self.correlation_id.to_owned(),
                server_request_id: self.server_request_id.clone(),
                cause: None,
            },
        )
    }
}

/// Blocking reads don't notice an interrupt: this thread closes their sockets
/// for them. It ends with the model.
fn watch(interrupt: &Interrupt, aborted: &Arc<AtomicBool>, agent: &ureq::Agent) {
    let interrupt = interrupt.clone();
    let alive: Weak<AtomicBool> = Arc::downgrade(aborted);
    let agent = agent.clone();
    std::thread::spawn(move || {
        while alive.strong_count() > 0 {
            if interrupt.is_set() {
                agent.shutdown();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// Whether a schema is within OpenAI's strict subset: every object lists all of
/// its properties as required and allows no others. Outside it, `strict` is an error there.
fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            let properties = members.get("properties").and_then(Value::as_object);
            let is_object =
                properties.is_some() || members.get("type").is_some_and(|kind| kind == "object");
            let closed = members.get("additionalProperties") == Some(&Value::Bool(false));
            let required = members.get("required").and_then(Value::as_array);
            let all = properties.is_none_or(|properties| {
                properties
                    .keys()
                    .all(|name| required.is_some_and(|required| required.iter().any(|r| r == name)))
            });
            (!is_object || (closed && all)) && members.values().all(is_strict)
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

fn error_message(value: &Value) -> Option<String> {
    let error = value.get("error").unwrap_or(value);
    let message = error
        .get("message")
        .or_else(|| error.get("detail"))
        .or_else(|| value.get("detail"))
        .unwrap_or(error);
    Some(match message {
        Value::String(text) => text.clone(),
        Value::Null => return None,
        other => other.to_string(),
    })
}

#[derive(Deserialize)]
struct Answer {
    choices: Option<Vec<Choice>>,
    model: Option<String>,
    system_fingerprint: Option<String>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: WireMessage,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireMessage {
    content: Option<Content>,
    refusal: Option<String>,
}

/// Some servers send the text in parts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

impl Content {
    fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Parts(parts) => {
                let texts: Vec<_> = parts.into_iter().filter_map(|part| part.text).collect();
                (!texts.is_empty()).then(|| texts.concat())
            }
        }
    }
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
}

/// Looks names up once a minute instead of once a request: with time limits on,
/// ureq's own resolver starts a thread each time, even for an IP address and
/// even when a kept-alive connection is used.
#[derive(Default)]
struct RememberingResolver {
    inner: DefaultResolver,
    known: Mutex<HashMap<String, (Instant, Vec<SocketAddr>)>>,
}

impl fmt::Debug for RememberingResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RememberingResolver")
    }
}

impl Resolver for RememberingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        const KEPT: Duration = Duration::from_secs(60);
        let name = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => DefaultResolver::host_and_port(scheme, authority),
            _ => None,
        };
        let Some(name) = name else {
            return self.inner.resolve(uri, config, timeout);
        };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, addresses)) = known().get(&name)
            && when.elapsed() < KEPT
        {
            let mut resolved = self.empty();
            for address in addresses {
                resolved.push(*address);
            }
            return Ok(resolved);
        }
        let resolved = self.inner.resolve(uri, config, timeout)?;
        known().insert(name, (Instant::now(), resolved.to_vec()));
        Ok(resolved)
    }
}
