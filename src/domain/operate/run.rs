//! One execution of the loop: its record, and what its events say was done.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::prove::promotion::Bound;
use crate::id::{Digest, RunId, SignatureId};

use super::event::Event;

/// The record of a run, `journal/runs/<run>/run.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Always [`Run::SCHEMA`].
    pub schema: String,
    /// The run.
    pub id: RunId,
    /// Which tool made it: `proofline overnight`, or another's name.
    pub tool: String,
    /// Where it stands.
    pub status: Status,
    /// Why, when it failed or stopped early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// The commit of the user's code it ran on, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The signatures it worked on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<SignatureId>,
    /// For people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Name to path, commit or URL; names of ours are in [`link`], their values are [`Link`]s.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// What it came to, per signature.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub result: Map<String, Value>,
}

impl Run {
    /// The `schema` field of a run record.
    pub const SCHEMA: &str = "proofline/run/v1";
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It began and has not ended; a crash leaves it so until it is resumed.
    Running,
    /// It came to its end, whatever it concluded.
    Finished,
    /// It could not come to its end.
    Failed,
}

/// The names of links that `proofline runs verify` resolves. A link about one
/// signature has its id after the name: `compile_report @acme/shop/Intent.v1`.
/// Other tools may add links under names of their own.
pub mod link {
    use crate::id::SignatureId;

    /// A frozen signature, as it was used: `signatures/<signature>/<hex>.yaml` on artifacts.
    pub const SIGNATURE: &str = "signature";
    /// A program: `artifacts/<signature>/<hex>.yaml` on artifacts.
    pub const ARTIFACT: &str = "artifact";
    /// What the search saw: `reports/compile/<signature>/<hex>/report.yaml` on artifacts.
    pub const COMPILE_REPORT: &str = "compile_report";
    /// What an evaluation saw: `reports/eval/<signature>/<hex>/report.yaml` on artifacts.
    pub const EVAL_REPORT: &str = "eval_report";
    /// The holdout ledger, `holdout/<signature>.jsonl` on ledger, with the
    /// reservation's digest as the entry. Without an entry: the reservation that
    /// the holdout report is about, or else the one that the run made.
    pub const HOLDOUT_ATTEMPT: &str = "holdout_attempt";
    /// The outcomes of a passed attempt: `reports/holdout/<signature>/<hex>/report.yaml` on artifacts.
    pub const HOLDOUT_REPORT: &str = "holdout_report";
    /// The canary: `canary/<signature>.yaml`, or below `canary/history/`, on ledger.
    pub const CANARY: &str = "canary";
    /// What the verify commands showed: `evidence/runs/<run>/verify.yaml` on evidence.
    pub const VERIFY_EVIDENCE: &str = "verify_evidence";
    /// What the e2e commands showed with the candidate: below `evidence/runs/<run>/` on evidence.
    pub const E2E_EVIDENCE: &str = "e2e_evidence";
    /// The statement: `promotions/<signature>/<counter>/promotion.yaml`, on control or on a proposal's branch.
    pub const PROMOTION: &str = "promotion";

    /// Every name, in the order in which a night makes them.
    pub const ALL: [&str; 10] = [
        VERIFY_EVIDENCE,
        SIGNATURE,
        COMPILE_REPORT,
        EVAL_REPORT,
        ARTIFACT,
        HOLDOUT_ATTEMPT,
        HOLDOUT_REPORT,
        CANARY,
        E2E_EVIDENCE,
        PROMOTION,
    ];

    /// The key in [`super::Run::links`] of a link about a signature, or about the whole run.
    pub fn key(name: &str, signature: Option<&SignatureId>) -> String {
        match signature {
            Some(signature) => format!("{name} {signature}"),
            None => name.to_owned(),
        }
    }

    /// The name and the signature of a key; a key that does not end in a signature is all name.
    pub fn parse_key(key: &str) -> (&str, Option<SignatureId>) {
        let parts = key.rsplit_once(' ');
        match parts.and_then(|(name, id)| Some((name, id.parse().ok()?))) {
            Some((name, signature)) => (name, Some(signature)),
            None => (key, None),
        }
    }
}

/// Where something committed is, as `ref:commit:path`, and where the path is a
/// log of many entries, which: `ref:commit:path#sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The full name of the ref it was read from.
    pub reference: String,
    /// The commit, in full.
    pub commit: String,
    /// The path in it.
    pub path: String,
    /// The digest of one entry.
    pub entry: Option<Digest>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.reference, self.commit, self.path)?;
        match &self.entry {
            Some(entry) => write!(f, "#{entry}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("`{text}` is not `ref:commit:path`");
        // Neither a ref nor a commit holds a colon, as git has it; a path may.
        let mut parts = text.splitn(3, ':');
        let (Some(reference), Some(commit), Some(rest)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(fail());
        };
        let is_commit = matches!(commit.len(), 40 | 64)
            && commit
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (path, entry) = match rest.rsplit_once("#sha256:") {
            Some((path, hex)) => (
                path,
                Some(format!("sha256:{hex}").parse().map_err(|_| fail())?),
            ),
            None => (rest, None),
        };
        if !reference.starts_with("refs/") || !is_commit || path.is_empty() {
            return Err(fail());
        }
        Ok(Self {
            reference: reference.to_owned(),
            commit: commit.to_owned(),
            path: path.to_owned(),
            entry,
        })
    }
}

impl From<&Bound> for Link {
    fn from(bound: &Bound) -> Self {
        Self {
            reference: bound.reference.clone(),
            commit: bound.commit.clone(),
            path: bound.path.clone(),
            entry: None,
        }
    }
}

/// The member of an event's `json` that marks a finished step.
pub const STEP_DONE: &str = "step_done";

/// The event of the last finished step of this name (and signature); its
/// [`STEP_DONE`] member holds what the step left.
///
/// Steps are idempotent, so when a crash made one finish twice the two results
/// are equal; the last one counts.
pub fn step_done<'a>(
    events: &'a [Event],
    phase: &str,
    signature: Option<&SignatureId>,
) -> Option<&'a Event> {
    events
        .iter()
        .rev()
        .filter(|event| event.phase == phase)
        .filter(|event| {
            event.json.get("signature").and_then(Value::as_str)
                == signature.map(SignatureId::as_str)
        })
        .find(|event| event.json.contains_key(STEP_DONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_through_text() {
        let commit = "b".repeat(40);
        let entry = Digest::of(b"x");
        let table = [
            format!(
                "refs/heads/proofline/ledger:{commit}:holdout/acme/shop/Intent.v1.jsonl#{entry}"
            ),
            format!("refs/heads/proofline/artifacts:{commit}:a:b#c.yaml"),
        ];
        for text in table {
            let link: Link = text.parse().expect(&text);
            assert_eq!(link.to_string(), text);
        }
        for bad in [
            "",
            "https://ci.example/7",
            "refs/heads/x:abc:p",
            &format!("main:{commit}:p"),
            &format!("refs/x:{commit}:"),
        ] {
            assert!(bad.parse::<Link>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn keys_name_their_signature() {
        let signature: SignatureId = "@acme/shop/Intent.v1".parse().expect("an id");
        for signature in [None, Some(&signature)] {
            let key = link::key(link::CANARY, signature);
            assert_eq!(link::parse_key(&key), (link::CANARY, signature.cloned()));
        }
        assert_eq!(link::parse_key("build log"), ("build log", None));
    }
}
