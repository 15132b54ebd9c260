//! Why there is no answer.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A failed request: what went wrong, where, after how long, and the ids that
/// find it in our records and in the provider's.
///
/// The text of an error never holds a key, a header, a query string or the
/// credentials of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelError {
    /// What went wrong.
    pub failure: Failure,
    /// Where, when and which: boxed, so that an answer isn't moved around at an error's size.
    context: Box<Context>,
}

/// Where and after how long a request failed, and the ids that find it. An
/// error's fields: `error.at`, `error.attempts`, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Where: a URL without credentials and query, or a program's name.
    pub at: String,
    /// Milliseconds since the first attempt began.
    pub elapsed_ms: u64,
    /// Attempts made.
    pub attempts: u32,
    /// The request's correlation id.
    pub correlation_id: String,
    /// The provider's id for the request, where it gave one.
    pub server_request_id: Option<String>,
    /// When this is a fallback's failure: why the fallback was asked.
    pub cause: Option<Box<ModelError>>,
}

impl ModelError {
    /// A failure with its context.
    pub fn new(failure: Failure, context: Context) -> Self {
        Self {
            failure,
            context: Box::new(context),
        }
    }
}

impl Deref for ModelError {
    type Target = Context;
    fn deref(&self) -> &Context {
        &self.context
    }
}

impl DerefMut for ModelError {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.context
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection was made.
    #[error("cannot connect: {reason}")]
    Connect {
        /// What the system said.
        reason: String,
    },
    /// A time limit was reached.
    #[error("no {phase} within {limit_ms} ms")]
    Timeout {
        /// What was waited for.
        phase: Phase,
        /// The limit.
        limit_ms: u64,
    },
    /// The connection ended before the answer did.
    #[error("the answer was cut off: {reason}")]
    Truncated {
        /// What was missing.
        reason: String,
    },
    /// The provider said no.
    #[error("HTTP {status}: {message}")]
    Status {
        /// The status code.
        status: u16,
        /// The provider's explanation, shortened, keys removed.
        message: String,
        /// How long it asked us to wait.
        retry_after_ms: Option<u64>,
    },
    /// The answer isn't what the protocol says.
    #[error("not an answer of the protocol: {reason}; it began {excerpt:?}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// Its beginning, keys removed.
        excerpt: String,
    },
    /// The answer has no text in it.
    #[error("the answer is empty (finish reason: {finish})")]
    Empty {
        /// The provider's finish reason.
        finish: String,
    },
    /// The model declined, or a filter did.
    #[error("the model refused: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// The answer is larger than any answer should be.
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The program that answers died or could not be started.
    #[error("{reason}{}", tail(stderr))]
    Process {
        /// What happened.
        reason: String,
        /// The end of its standard error.
        stderr: String,
        /// Whether it will be started again.
        restarts: bool,
    },
    /// The program that answers reported an error.
    #[error("the program reported: {message}")]
    Reported {
        /// Its words.
        message: String,
        /// Whether it says that asking again may help.
        retryable: bool,
    },
    /// The circuit breaker is open: the model failed too often, too recently.
    #[error("not asked: the circuit is open for another {retry_in_ms} ms after: {last}")]
    CircuitOpen {
        /// When it will be tried again.
        retry_in_ms: u64,
        /// The failure that opened it.
        last: String,
    },
    /// Someone asked us to stop.
    #[error("interrupted")]
    Interrupted,
}

fn tail(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("; its standard error ended with: {stderr}")
    }
}

/// What was being waited for when a time limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A connection, names and TLS included.
    Connection,
    /// The first byte of an answer.
    FirstByte,
    /// A whole answer.
    Answer,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::FirstByte => "first byte",
            Self::Answer => "complete answer",
        })
    }
}

impl Failure {
    /// Whether the same request may succeed a little later.
    ///
    /// 408, 409, 425, 429 and 5xx are the provider's word for "later"; anything
    /// that happened to the connection may not happen again. An answer that
    /// arrived whole but is wrong would be wrong again, and would be paid again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => {
                // 501 and 505 say that the request itself is beyond the server.
                matches!(status, 408 | 409 | 425 | 429)
                    || (*status >= 500 && !matches!(status, 501 | 505))
            }
            Self::Process { restarts, .. } => *restarts,
            Self::Reported { retryable, .. } => *retryable,
            Self::Malformed { .. }
            | Self::Empty { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::CircuitOpen { .. }
            | Self::Interrupted => false,
        }
    }

    /// Whether it speaks against the model's health, for the circuit breaker.
    ///
    /// A refusal or a bad request is an answer from a healthy provider.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Malformed { .. } => true,
            // Bad keys and unknown models don't heal by waiting, but asking on is useless too.
            Self::Status { status, .. } => self.is_retryable() || matches!(status, 401 | 403 | 404),
            Self::Process { .. } => true,
            _ => self.is_retryable(),
        }
    }

    /// A short, stable word for counting and for machine-readable output.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Timeout { .. } => "timeout",
            Self::Truncated { .. } => "truncated",
            Self::Status { status: 429, .. } => "rate_limited",
            Self::Status {
                status: 401 | 403, ..
            } => "unauthorised",
            Self::Status { status, .. } if *status >= 500 => "server_error",
            Self::Status { .. } => "rejected",
            Self::Malformed { .. } => "malformed",
            Self::Empty { .. } => "empty",
            Self::Refused { .. } => "refused",
            Self::TooLarge { .. } => "too_large",
            Self::Process { .. } => "process",
            Self::Reported { .. } => "reported",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (after {} ms, {} attempt{}, correlation id {}",
            self.at,
            self.failure,
            self.elapsed_ms,
            self.attempts,
            if self.attempts == 1 { "" } else { "s" },
            self.correlation_id,
        )?;
        if let Some(id) = &self.server_request_id {
            write!(f, ", request id {id}")?;
        }
        f.write_str(")")?;
        match &self.cause {
            Some(cause) => write!(f, "; it was asked because {cause}"),
            None => Ok(()),
        }
    }
}

// The cause is part of the text: it is no `source`, or it would be shown twice.
impl std::error::Error for ModelError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_again() {
        let status = |status| Failure::Status {
            status,
            message: String::new(),
            retry_after_ms: None,
        };
        for code in [408, 409, 425, 429, 500, 502, 503, 504, 529] {
            assert!(status(code).is_retryable(), "{code}");
            assert!(status(code).is_outage(), "{code}");
        }
        for code in [301, 400, 401, 403, 404, 413, 422, 501, 505] {
            assert!(!status(code).is_retryable(), "{code}");
        }
        assert!(!status(400).is_outage());
        assert!(status(401).is_outage());
        assert!(!Failure::Interrupted.is_retryable());
        assert!(
            Failure::Truncated {
                reason: String::new()
            }
            .is_retryable()
        );
    }

    #[test]
    fn an_error_names_place_time_and_ids() {
        let error = ModelError::new(
            Failure::Timeout {
                phase: Phase::FirstByte,
                limit_ms: 60_000,
            },
            Context {
                at: "http://localhost:1/v1/chat/completions".into(),
                elapsed_ms: 60_003,
                attempts: 2,
                correlation_id: "run-1/7".into(),
                server_request_id: Some("req_9".into()),
                cause: None,
            },
        );
        assert_eq!(
            error.to_string(),
            "http://localhost:1/v1/chat/completions: no first byte within 60000 ms \
             (after 60003 ms, 2 attempts, correlation id run-1/7, request id req_9)"
        );
    }
}
