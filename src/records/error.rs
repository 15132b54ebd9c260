//! Why a record could not be loaded or written.

use crate::canon::CanonError;
use crate::schema::Diagnostics;
use crate::store::segment::SegmentError;
use crate::store::shard::ShardError;
use crate::store::{AuthorError, NameError, ReadError, TransactError, WriteError};

/// Why a record could not be loaded or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The repository could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A log could not be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A table could not be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The repository could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A committed document is not what its schema says.
    #[error("{0}")]
    Document(Diagnostics),
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nobody can be named as author.
    #[error(transparent)]
    Author(#[from] AuthorError),
    /// A value has no canonical form.
    #[error(transparent)]
    Canon(#[from] CanonError),
    /// The bytes are not those that their name says.
    #[error(
        "{what} has digest {found}, but its name says {named}: the branch was damaged or tampered with"
    )]
    Digest {
        /// The record, as `ref:path`.
        what: String,
        /// The digest of the bytes.
        found: String,
        /// The digest that the name holds.
        named: String,
    },
    /// The root policy is not the one that is pinned.
    #[error(
        "proofline.toml pins {pinned} as the root policy, and {what} is {found}: the pin was changed, or the branch is another or was tampered with"
    )]
    Pin {
        /// The policy, as `ref:path`.
        what: String,
        /// Its digest.
        found: String,
        /// The digest that is pinned.
        pinned: String,
    },
    /// Something that another record names is not there.
    #[error("{what} is missing from `{reference}`")]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        reference: String,
    },
    /// Anything else a decision found wrong.
    #[error("{0}")]
    Other(String),
}

impl From<Diagnostics> for RecordError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Document(diagnostics)
    }
}

impl From<TransactError<RecordError>> for RecordError {
    fn from(error: TransactError<RecordError>) -> Self {
        match error {
            TransactError::Decide(error) => error,
            TransactError::Write(error) => error.into(),
        }
    }
}
