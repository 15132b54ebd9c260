//! What the verify and e2e commands of a run showed.
//!
//! A verifier cannot redo a test run, so what it printed is attested by the
//! runner that seals this document. Only what a reviewer needs is in it: how
//! each command ended, which tests failed, which requests to look up, and the
//! end of its output. How long it took is on the run's events: two runs that
//! showed the same have the same digest.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::prove::verdict::Verdict;
use crate::id::{Digest, RunId, SignatureId};

/// Most failing tests that are named.
pub const FAILING_TESTS_MAX: usize = 200;
/// Most correlation ids that are kept of one command.
pub const CORRELATION_IDS_MAX: usize = 50;
/// Most bytes of each output that are kept, from its end.
pub const TAIL_BYTES_MAX: usize = 8 * 1024;

/// What the commands of one kind showed in one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandEvidence {
    /// Always [`CommandEvidence::SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// Before the search, or with the candidate.
    pub kind: CommandKind,
    /// The commit of the user's code, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whose candidate was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureId>,
    /// The candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Digest>,
    /// Set when nothing was run: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// A pattern that the output had to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_match: Option<OutputMatch>,
    /// Each command, in order.
    pub commands: Vec<CommandResult>,
}

/// When commands are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    /// Before anything is searched.
    Verify,
    /// With the candidate, before it is promoted.
    E2e,
}

impl CommandKind {
    /// The name, as in files; also the gate's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::E2e => "e2e",
        }
    }
}

impl fmt::Display for CommandKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A pattern that the output had to match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputMatch {
    /// The regular expression.
    pub pattern: String,
    /// Whether some command's output did.
    pub matched: bool,
}

/// One command and what it showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandResult {
    /// Its name in `proofline.toml`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How it ended.
    pub exit: CommandExit,
    /// What its JUnit report counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestCounts>,
    /// Tests that failed, as `class::name`; at most [`FAILING_TESTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_tests: Vec<String>,
    /// Request and correlation ids in its output; at most [`CORRELATION_IDS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlation_ids: Vec<String>,
    /// The end of its standard output, secrets redacted; at most [`TAIL_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout_tail: String,
    /// The end of its standard error, secrets redacted; at most [`TAIL_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr_tail: String,
    /// What else is wrong: a JUnit report that is missing or cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case", deny_unknown_fields)]
pub enum CommandExit {
    /// By itself.
    Exited {
        /// 0 is success.
        code: u8,
    },
    /// By a signal.
    Signalled {
        /// Its number.
        signal: u8,
    },
    /// Killed after its limit.
    TimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// It never began.
    NotStarted {
        /// What the system said.
        reason: String,
    },
}

impl fmt::Display for CommandExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with {code}"),
            Self::Signalled { signal } => write!(f, "was ended by signal {signal}"),
            Self::TimedOut { limit_ms } => write!(f, "was killed after its limit of {limit_ms} ms"),
            Self::NotStarted { reason } => write!(f, "could not be started: {reason}"),
        }
    }
}

/// What a JUnit report counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCounts {
    /// Test cases.
    pub total: u64,
    /// Those that failed or ended in an error.
    pub failed: u64,
    /// Those that were skipped.
    pub skipped: u64,
}

impl CommandResult {
    /// Why the command does not count as a success; `None` when it does.
    ///
    /// Exit code 0 beside a report with failures is a failure: some runners
    /// report failures and still exit with 0.
    pub fn failure(&self) -> Option<String> {
        let failed = self.tests.map_or(0, |tests| tests.failed);
        let mut reason = if self.exit != (CommandExit::Exited { code: 0 }) {
            format!("`{}` {}", self.name, self.exit)
        } else if failed > 0 {
            format!("`{}` exited with 0, but its report has failures", self.name)
        } else {
            return self
                .fault
                .as_ref()
                .map(|fault| format!("`{}`: {fault}", self.name));
        };
        if failed > 0 {
            let named: Vec<&str> = self
                .failing_tests
                .iter()
                .take(3)
                .map(String::as_str)
                .collect();
            reason.push_str(&format!("; {failed} failing test(s): {}", named.join(", ")));
            if failed > named.len() as u64 {
                reason.push_str(", …");
            }
        }
        if let Some(id) = self.correlation_ids.first() {
            reason.push_str(&format!("; look for {id}"));
        }
        Some(reason)
    }
}

impl CommandEvidence {
    /// The `schema` field of command evidence.
    pub const SCHEMA: &str = "proofline/command-evidence/v1";

    /// What it comes to. A skip passes here; what a skip means is for policy to say.
    pub fn verdict(&self) -> Verdict {
        let mut reasons: Vec<String> = self
            .commands
            .iter()
            .filter_map(CommandResult::failure)
            .collect();
        if let Some(wanted) = self.output_match.as_ref().filter(|wanted| !wanted.matched) {
            reasons.push(format!("no command's output matches `{}`", wanted.pattern));
        }
        Verdict::from_reasons(reasons)
    }
}
