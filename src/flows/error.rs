//! One error for every flow: its kind (and so its exit code), what happened, and
//! what to do next. A gate's refusal is not an error but a value of its flow.

use std::fmt;

use serde::Serialize;

use crate::records::RecordError;
use crate::schema::{Diagnostic, Diagnostics};
use crate::store::TransactError;

/// What kind of failure, and so which exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A gate refused, where the flow has nothing else to return. Exit 1.
    Refused,
    /// The command line asks for something that makes no sense. Exit 2.
    Usage,
    /// It cannot be decided here. Exit 3.
    Undecidable,
    /// Bad input or configuration. Exit 4.
    Input,
    /// Something outside failed: a model, git, the network, the disk. Exit 5.
    Outside,
    /// A signal asked to stop. Exit 130.
    Interrupted,
    /// Our own fault. Exit 70.
    Bug,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Undecidable => 3,
            Self::Input => 4,
            Self::Outside => 5,
            Self::Bug => 70,
            Self::Interrupted => 130,
        }
    }
}

/// Why a flow has no outcome.
#[derive(Debug, Clone, Serialize)]
pub struct FlowError {
    /// Which kind.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// What to do next, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Where, for faults in files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

impl FlowError {
    /// An error of a kind.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            hints: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// Bad input or configuration.
    pub fn input(message: impl fmt::Display) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Something outside failed.
    pub fn outside(message: impl fmt::Display) -> Self {
        Self::new(Kind::Outside, message)
    }

    /// A question the command line leaves open.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// What cannot happen, and did.
    pub fn bug(message: impl fmt::Display) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// The user asked to stop.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// What happened in one line, for a record or a list: the first place in a file with it.
    pub fn line(&self) -> String {
        let Some(first) = self.diagnostics.first() else {
            return self.message.clone();
        };
        let Diagnostic {
            file,
            line,
            column,
            message,
            ..
        } = first;
        let more = match self.diagnostics.len() {
            1 => String::new(),
            many => format!(" (and {} more)", many - 1),
        };
        format!("{file}:{line}:{column}: {message}{more}")
    }

    /// Add what to do next.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Add where.
    pub fn at(mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) -> Self {
        self.diagnostics.extend(diagnostics);
        self
    }
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FlowError {}

/// What to do when the disk, a quota or a limit leaves no room.
fn room_remedy(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
        {
            return Some(
                "the disk, a quota or `ulimit -f` leaves no room: make some, and run it again; what was committed stands"
                    .to_owned(),
            );
        }
        cause = error.source();
    }
    None
}

/// An error type that is always of one kind.
macro_rules! always {
    ($($error:ty => $kind:expr),* $(,)?) => {
        $(impl From<$error> for FlowError {
            fn from(error: $error) -> Self {
                let remedy = room_remedy(&error);
                let mut failed = Self::new($kind, error);
                failed.hints.extend(remedy);
                failed
            }
        })*
    };
}

always! {
    crate::canon::CanonError => Kind::Input,
    crate::id::IdError => Kind::Input,
    crate::host::files::FileError => Kind::Outside,
    crate::host::process::ProcessError => Kind::Outside,
    crate::store::OpenError => Kind::Input,
    crate::store::NameError => Kind::Input,
    crate::store::AuthorError => Kind::Input,
    crate::store::ReadError => Kind::Undecidable,
    crate::store::WriteError => Kind::Outside,
    crate::store::RemoteError => Kind::Outside,
    crate::seal::sign::SignError => Kind::Outside,
}

impl From<Diagnostics> for FlowError {
    fn from(diagnostics: Diagnostics) -> Self {
        let count = diagnostics.total();
        let more = diagnostics.not_shown();
        let plural = if count == 1 { "fault" } else { "faults" };
        let mut error = Self::input(format!("{count} {plural} found; nothing was changed"))
            .at(diagnostics.iter().cloned());
        if more > 0 {
            error = error.hint(format!("{more} more are not shown"));
        }
        error
    }
}

impl From<RecordError> for FlowError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Document(diagnostics) => diagnostics.into(),
            RecordError::Read(error) => error.into(),
            RecordError::Write(error) => error.into(),
            RecordError::Pin { .. } => Self::input(&error)
                .hint("compare both with your team's: restore `control.root` in proofline.toml, or fetch the branch the pin names; never pin a root you did not check"),
            RecordError::Missing { .. } => Self::new(Kind::Undecidable, &error),
            other => Self::input(other),
        }
    }
}

impl From<TransactError<FlowError>> for FlowError {
    fn from(error: TransactError<FlowError>) -> Self {
        match error {
            TransactError::Decide(error) => error,
            TransactError::Write(error) => error.into(),
        }
    }
}
