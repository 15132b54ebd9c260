//! `proofline status`: one page on where everything stands. Reads, and takes up
//! what crashed processes left in their spools; a part that cannot be told says
//! why, and the others are told all the same.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::improve::dataset::Split;
use crate::domain::improve::signature::Signature;
use crate::domain::operate::run::{Run, Status as RunStatus};
use crate::domain::prove::policy::Policy;
use crate::id::{Digest, RunId, SignatureId};
use crate::records::control::Control;
use crate::records::refs::path;
use crate::records::{datasets, ledger};
use crate::store::Snapshot;

use super::{FlowError, Workspace, canary, holdout, promote, runs, signatures};

/// Commits of `control` that are looked through for when a pointer moved.
const LANDINGS_MAX: usize = 10_000;

/// Where everything stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The repository's folder.
    pub folder: String,
    /// The remote that decisions are shared through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The policy.
    pub policy: PolicyStatus,
    /// Every signature that has a file or a pointer.
    pub signatures: Vec<SignatureStatus>,
    /// The newest run of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// What a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The policy and its root.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyStatus {
    /// The root that `proofline.toml` pins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Digest>,
    /// The root that `control` holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// The epoch in force; absent when the policy cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Where one signature stands.
#[derive(Debug, Clone, Serialize)]
pub struct SignatureStatus {
    /// The signature.
    pub id: SignatureId,
    /// What is in force; absent while its defaults are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<Active>,
    /// Rows per split.
    pub rows: Rows,
    /// What is left of α, and what the next attempt could show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// The running canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// The branch of a proposal that waits for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<String>,
    /// The last run about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// What could not be told, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// What to do next.
    pub next: String,
}

/// What is in force.
#[derive(Debug, Clone, Serialize)]
pub struct Active {
    /// The artifact.
    pub artifact: Digest,
    /// The counter of the statement that put it there.
    pub counter: u64,
    /// Since when, by the landing's commit; absent when history here does not reach back so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Rows per split.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rows {
    /// Rows that programs are built from.
    pub train: u64,
    /// Rows that select.
    pub dev: u64,
    /// Rows that prove.
    pub holdout: u64,
    /// Rows that rehearse.
    pub exercise: u64,
    /// Rows without a split yet.
    pub unassigned: u64,
}

/// What a holdout can still show.
#[derive(Debug, Clone, Serialize)]
pub struct Holdout {
    /// Attempts of this signature on the ledger.
    pub attempts: u64,
    /// What attempts on these rows have spent, of α.
    pub alpha_spent: f64,
    /// α over all attempts.
    pub alpha: f64,
    /// What the next attempt may spend.
    pub next_alpha_t: f64,
    /// The smallest gain the next attempt proves with probability 0.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smallest_provable_gain: Option<f64>,
    /// Whether it is time for a rotation.
    pub rotate: bool,
}

/// A run, in short.
#[derive(Debug, Clone, Serialize)]
pub struct LastRun {
    /// The run.
    pub id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// When it began.
    pub started: Timestamp,
    /// What it came to.
    pub result: String,
}

/// Look at everything.
pub fn status(workspace: &Workspace) -> Result<Status, FlowError> {
    let mut notes = match runs::recover_spools(workspace) {
        Ok(recovered) => recovered.notes(),
        // Somebody who may only read still sees where things stand.
        Err(error) => vec![format!("spools were not looked at: {error}")],
    };
    let control = workspace.store.snapshot(&workspace.refs.control)?;
    let (policy_status, policy) = policy_status(workspace, control.as_ref());
    let catalogue = signatures::catalogue(workspace)?;
    notes.extend(catalogue.faults.iter().map(ToString::to_string));
    let files: Vec<Signature> = catalogue
        .files
        .into_iter()
        .map(|file| file.signature)
        .collect();
    let mut ids: BTreeSet<SignatureId> =
        files.iter().map(|signature| signature.id.clone()).collect();
    match Control::new(&workspace.refs, control.as_ref()).signatures() {
        Ok(active) => ids.extend(active),
        Err(error) => notes.push(error.to_string()),
    }
    let records = match runs::records(workspace) {
        Ok(records) => records,
        Err(error) => {
            notes.push(format!("runs cannot be told: {error}"));
            Vec::new()
        }
    };
    let look = Look {
        workspace,
        control: control.as_ref(),
        policy: policy.as_ref(),
        records: &records,
    };
    Ok(Status {
        folder: workspace.root.display().to_string(),
        remote: workspace.project.remote.clone(),
        policy: policy_status,
        signatures: ids
            .into_iter()
            .map(|id| {
                let file = files.iter().find(|signature| signature.id == id);
                look.signature(id, file)
            })
            .collect(),
        last_run: records.first().map(last_run),
        notes,
    })
}

fn policy_status(
    workspace: &Workspace,
    control: Option<&Snapshot>,
) -> (PolicyStatus, Option<Policy>) {
    let pinned = workspace.project.control.root;
    let records = Control::new(&workspace.refs, control);
    let first = records.policy_at(1).ok().flatten();
    let mut status = PolicyStatus {
        pinned,
        found: first.and_then(|policy| policy.digest().ok()),
        epoch: None,
        fault: None,
    };
    match canary::policy(workspace) {
        Ok(policy) => {
            status.epoch = Some(policy.epoch);
            (status, Some(policy))
        }
        Err(error) => {
            status.fault = Some(error.line());
            (status, None)
        }
    }
}

fn last_run(run: &Run) -> LastRun {
    LastRun {
        id: run.id.clone(),
        status: run.status,
        started: run.started,
        result: runs::summary(run),
    }
}

struct Look<'a> {
    workspace: &'a Workspace,
    control: Option<&'a Snapshot>,
    policy: Option<&'a Policy>,
    records: &'a [Run],
}

impl Look<'_> {
    fn signature(&self, id: SignatureId, file: Option<&Signature>) -> SignatureStatus {
        let mut faults = Vec::new();
        let mut told = |what: &str, error: FlowError| faults.push(format!("{what}: {error}"));
        let active = self.active(&id).unwrap_or_else(|error| {
            told("what is in force", error);
            None
        });
        let rows = self.rows(&id).unwrap_or_else(|error| {
            told("rows", error);
            Rows::default()
        });
        let holdout = match (file, self.policy, rows.holdout) {
            (Some(signature), Some(policy), 1..) => self.holdout(signature, policy).map_or_else(
                |error| {
                    told("holdout", error);
                    None
                },
                Some,
            ),
            _ => None,
        };
        let canary = match self
            .policy
            .map(|policy| canary::running(self.workspace, policy, &id))
        {
            Some(Ok(found)) => found.map(|canary| canary.id.to_string()),
            Some(Err(error)) => {
                told("canary", error);
                None
            }
            None => None,
        };
        let proposal = promote::open_proposal(self.workspace, &id).unwrap_or_else(|error| {
            told("proposals", error);
            None
        });
        let last_run = self
            .records
            .iter()
            .find(|run| run.signatures.contains(&id) || run.result.contains_key(id.as_str()));
        let mut status = SignatureStatus {
            active,
            rows,
            holdout,
            canary,
            proposal,
            last_run: last_run.map(|run| about(run, &id)),
            faults,
            next: String::new(),
            id,
        };
        status.next = self.next(&status, file.is_some());
        status
    }

    fn active(&self, id: &SignatureId) -> Result<Option<Active>, FlowError> {
        let records = Control::new(&self.workspace.refs, self.control);
        let (Some(pointer), Some(control)) = (records.pointer(id)?, self.control) else {
            return Ok(None);
        };
        // The landing is the oldest commit with this blob, going back until it differs.
        let file = path::active(id);
        let store = &self.workspace.store;
        let blob = control.entry(&file)?;
        let mut since = None;
        for commit in store.first_parents(control.commit(), LANDINGS_MAX)? {
            if store.snapshot_at(commit.id)?.entry(&file)? != blob {
                break;
            }
            since = Some(commit.time);
        }
        Ok(Some(Active {
            artifact: pointer.artifact,
            counter: pointer.counter,
            since,
        }))
    }

    fn rows(&self, id: &SignatureId) -> Result<Rows, FlowError> {
        let snapshot = self
            .workspace
            .store
            .snapshot(&self.workspace.refs.datasets)?;
        let census = datasets::census(&self.workspace.refs, snapshot.as_ref(), id)?;
        Ok(Rows {
            train: census.rows_in(Split::Train),
            dev: census.rows_in(Split::Dev),
            holdout: census.rows_in(Split::Holdout),
            exercise: census.rows_in(Split::Exercise),
            unassigned: census.unassigned(),
        })
    }

    fn holdout(&self, signature: &Signature, policy: &Policy) -> Result<Holdout, FlowError> {
        let snapshot = self.workspace.store.snapshot(&self.workspace.refs.ledger)?;
        let entries = ledger::entries(&self.workspace.refs, snapshot.as_ref(), &signature.id)?;
        let attempts = entries
            .iter()
            .filter(|entry| {
                matches!(
                    entry.body,
                    crate::domain::prove::holdout::Entry::Reserved(_)
                )
            })
            .count() as u64;
        let power = holdout::outlook(self.workspace, signature, policy)?;
        Ok(Holdout {
            attempts,
            // What is spent before the next attempt; the difference of two sums may be a hair below 0.
            alpha_spent: (power.alpha_spent - power.alpha_t).max(0.0),
            alpha: power.alpha,
            next_alpha_t: power.alpha_t,
            smallest_provable_gain: power.smallest_provable_gain,
            rotate: power.rotate,
        })
    }

    fn next(&self, status: &SignatureStatus, has_file: bool) -> String {
        let id = &status.id;
        let rows = &status.rows;
        if self.policy.is_none() {
            return "make the policy usable first: `proofline init`, or fetch control".to_owned();
        }
        if !status.faults.is_empty() {
            return "see what could not be told".to_owned();
        }
        if let Some(branch) = &status.proposal {
            return format!("review the proposal on {branch}");
        }
        if !has_file {
            return "nothing: it has no signature file here any more".to_owned();
        }
        if let Some(run) = status
            .last_run
            .as_ref()
            .filter(|run| run.status == RunStatus::Running)
        {
            return format!(
                "run {} has not ended; if it was killed: `proofline overnight --resume {}`",
                run.id, run.id
            );
        }
        if status.canary.is_some() {
            return format!("watch the canary: `proofline canary status --signature {id}`");
        }
        if rows.train + rows.dev + rows.holdout == 0 {
            return match rows.unassigned {
                0 => format!("import rows: `proofline dataset import FILE --signature {id}`"),
                _ => format!("give the rows splits: `proofline dataset split --signature {id}`"),
            };
        }
        let lacking: Vec<&str> = [
            ("train", rows.train),
            ("dev", rows.dev),
            ("holdout", rows.holdout),
        ]
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name)
        .collect();
        if !lacking.is_empty() {
            return format!(
                "add rows to {}: `proofline dataset import FILE --signature {id}`",
                lacking.join(" and ")
            );
        }
        if status
            .holdout
            .as_ref()
            .is_some_and(|holdout| holdout.rotate)
        {
            return "add holdout rows, or rotate the holdout to unseen groups: it proves no gain below +15 points any more".to_owned();
        }
        "run a night: `proofline overnight`".to_owned()
    }
}

fn about(run: &Run, id: &SignatureId) -> LastRun {
    let mut short = last_run(run);
    let own = run
        .result
        .get(id.as_str())
        .and_then(|value| value.get("conclusion")?.as_str());
    if let Some(conclusion) = own {
        short.result = conclusion.replace('_', " ");
    }
    short
}
