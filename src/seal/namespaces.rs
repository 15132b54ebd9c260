//! What a seal was made for.
//!
//! The namespace is part of the sealed bytes, so a seal made for one role
//! never serves as another: an approval can't be replayed as a promotion.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The role a seal plays. Git's own namespace, `git`, is not in this list: it
/// belongs to commits alone (see [`super::commit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Namespace {
    /// A promotion or rollback statement.
    Promotion,
    /// An approval, a request for changes, or a withdrawal of a proposal.
    Approval,
    /// A policy epoch.
    Policy,
    /// An attempt or a rotation in the holdout ledger.
    Ledger,
    /// Evidence of a work phase, and attestations.
    Evidence,
    /// The start or the end of a canary.
    Canary,
}

impl Namespace {
    /// Every namespace.
    pub const ALL: [Self; 6] = [
        Self::Promotion,
        Self::Approval,
        Self::Policy,
        Self::Ledger,
        Self::Evidence,
        Self::Canary,
    ];

    /// The text that is sealed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promotion => "proofline-promotion@v1",
            Self::Approval => "proofline-approval@v1",
            Self::Policy => "proofline-policy@v1",
            Self::Ledger => "proofline-ledger@v1",
            Self::Evidence => "proofline-evidence@v1",
            Self::Canary => "proofline-canary@v1",
        }
    }
}

/// A text that names no namespace of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a seal namespace of this tool (such as `proofline-promotion@v1`)")]
pub struct UnknownNamespace(pub String);

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Namespace {
    type Err = UnknownNamespace;
    fn from_str(text: &str) -> Result<Self, UnknownNamespace> {
        Self::ALL
            .into_iter()
            .find(|namespace| namespace.as_str() == text)
            .ok_or_else(|| UnknownNamespace(text.to_owned()))
    }
}

impl TryFrom<String> for Namespace {
    type Error = UnknownNamespace;
    fn try_from(text: String) -> Result<Self, UnknownNamespace> {
        text.parse()
    }
}

impl From<Namespace> for &'static str {
    fn from(namespace: Namespace) -> Self {
        namespace.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_differ() {
        let mut texts: Vec<&str> = Namespace::ALL.iter().map(|n| n.as_str()).collect();
        for namespace in Namespace::ALL {
            assert_eq!(namespace.as_str().parse(), Ok(namespace));
        }
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Namespace::ALL.len());
        for bad in [
            "",
            "git",
            "file",
            "proofline-promotion",
            "proofline-promotion@v2",
        ] {
            assert!(bad.parse::<Namespace>().is_err());
        }
    }
}
