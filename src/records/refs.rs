//! The names of our refs, and of every path on them.

use crate::id::{CanaryId, Digest, RunId, SignatureId};
use crate::store::{NameError, RefName, TreePath};

/// The refs of a project, by what is on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refs {
    prefix: String,
    /// Policy, pointers, statements.
    pub control: RefName,
    /// Holdout attempts and canaries.
    pub ledger: RefName,
    /// Rows.
    pub datasets: RefName,
    /// Programs, frozen signatures and jobs, reports.
    pub artifacts: RefName,
    /// What commands and agents showed.
    pub evidence: RefName,
    /// Runs and what people read.
    pub journal: RefName,
}

impl Refs {
    /// The refs below `refs/heads/<prefix>/`.
    pub fn new(prefix: &str) -> Result<Self, NameError> {
        let branch = |name: &str| format!("refs/heads/{prefix}/{name}").parse();
        Ok(Self {
            prefix: prefix.to_owned(),
            control: branch("control")?,
            ledger: branch("ledger")?,
            datasets: branch("datasets")?,
            artifacts: branch("artifacts")?,
            evidence: branch("evidence")?,
            journal: branch("journal")?,
        })
    }

    /// Every branch, in the order that a step over several of them writes.
    pub fn branches(&self) -> [&RefName; 6] {
        [
            &self.datasets,
            &self.evidence,
            &self.artifacts,
            &self.ledger,
            &self.journal,
            &self.control,
        ]
    }

    /// The receipts of one writer.
    pub fn receipts(&self, writer: &str) -> Result<RefName, NameError> {
        format!("refs/{}/receipts/{writer}", self.prefix).parse()
    }

    /// Where all receipts are, for listing.
    pub fn receipts_prefix(&self) -> String {
        format!("refs/{}/receipts/", self.prefix)
    }

    /// The branch a promotion is proposed on.
    pub fn proposal(&self, signature: &SignatureId, counter: u64) -> Result<RefName, NameError> {
        format!(
            "refs/heads/{}/promote/{}/{counter}",
            self.prefix,
            signature.path()
        )
        .parse()
    }
}

/// Paths on the branches. Every part that comes from data is an id, which is checked to be safe in a path.
pub mod path {
    use super::*;

    fn made(path: String) -> TreePath {
        path.parse().expect("because ids are safe path components")
    }

    /// `policy/<epoch>.yaml` on control.
    pub fn policy(epoch: u64) -> TreePath {
        made(format!("policy/{epoch}.yaml"))
    }

    /// `active/<signature>.yaml` on control.
    pub fn active(signature: &SignatureId) -> TreePath {
        made(format!("active/{}.yaml", signature.path()))
    }

    /// `promotions/<signature>` on control.
    pub fn promotions(signature: &SignatureId) -> TreePath {
        made(format!("promotions/{}", signature.path()))
    }

    /// `promotions/<signature>/<counter>/<file>` on control.
    pub fn promotion(signature: &SignatureId, counter: u64, file: &str) -> TreePath {
        made(format!("promotions/{}/{counter}/{file}", signature.path()))
    }

    /// `holdout/<signature>.jsonl` on the ledger.
    pub fn holdout(signature: &SignatureId) -> TreePath {
        made(format!("holdout/{}.jsonl", signature.path()))
    }

    /// `holdout/sets/<hex>.json` on the ledger: the groups of a holdout.
    pub fn holdout_set(groups: &Digest) -> TreePath {
        made(format!("holdout/sets/{}.json", groups.hex()))
    }

    /// `canary/<signature>.yaml` on the ledger.
    pub fn canary(signature: &SignatureId) -> TreePath {
        made(format!("canary/{}.yaml", signature.path()))
    }

    /// `canary/history/<signature>/<canary>.yaml` on the ledger.
    pub fn canary_history(signature: &SignatureId, canary: &CanaryId) -> TreePath {
        made(format!("canary/history/{}/{canary}.yaml", signature.path()))
    }

    /// `datasets/<signature>/<file>` on datasets.
    pub fn dataset(signature: &SignatureId, file: &str) -> TreePath {
        made(format!("datasets/{}/{file}", signature.path()))
    }

    /// `artifacts/<signature>/<hex>.yaml` on artifacts.
    pub fn artifact(signature: &SignatureId, artifact: &Digest) -> TreePath {
        made(format!(
            "artifacts/{}/{}.yaml",
            signature.path(),
            artifact.hex()
        ))
    }

    /// `artifacts/<signature>/weights/<hex>.bin` on artifacts.
    pub fn weights(signature: &SignatureId, weights: &Digest) -> TreePath {
        made(format!(
            "artifacts/{}/weights/{}.bin",
            signature.path(),
            weights.hex()
        ))
    }

    /// `signatures/<signature>/<hex>.yaml` on artifacts: a frozen signature.
    pub fn signature(signature: &SignatureId, digest: &Digest) -> TreePath {
        made(format!(
            "signatures/{}/{}.yaml",
            signature.path(),
            digest.hex()
        ))
    }

    /// `reports/<kind>/<signature>/<hex>/<file>` on artifacts; kind is `compile`, `eval`, `holdout` or `canary`.
    pub fn report(kind: &str, signature: &SignatureId, hash: &Digest, file: &str) -> TreePath {
        made(format!(
            "reports/{kind}/{}/{}/{file}",
            signature.path(),
            hash.hex()
        ))
    }

    /// `evidence/runs/<run>/<file>` on evidence: a night's command results.
    pub fn run_evidence(run: &RunId, file: &str) -> TreePath {
        made(format!("evidence/runs/{run}/{file}"))
    }

    /// `journal/runs/<run>/<file>` on the journal.
    pub fn run(run: &RunId, file: &str) -> TreePath {
        made(format!("journal/runs/{run}/{file}"))
    }

    /// `journal/runs` on the journal.
    pub fn runs() -> TreePath {
        made("journal/runs".to_owned())
    }
}
