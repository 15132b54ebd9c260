//! Roll back: a forward, sealed statement that brings back what was in force before.
//!
//! Where it goes is decided on what the caller saw: when another statement lands
//! meanwhile, nothing is rolled back, because it could be the wrong thing.

use crate::canon;
use crate::domain::prove::admission;
use crate::domain::prove::promotion::{self, Draft, Kind, Statement};
use crate::domain::prove::verdict::Verdict;
use crate::id::{Digest, SignatureId};
use crate::records::control::Control;

use super::land::{self, Facts, Plan};
use super::promote::{self, Promoted};
use super::{FlowError, Workspace};

/// What is to come back, and why.
#[derive(Debug, Clone)]
pub struct Request {
    /// The signature.
    pub signature: SignatureId,
    /// Where to; when `None`, the newest artifact that was in force and was never rolled back.
    pub to: Option<Target>,
    /// Why, for whoever reads `git log`.
    pub reason: String,
    /// Propose it instead of landing it.
    pub propose: bool,
}

/// An artifact that was in force before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By its digest.
    Artifact(Digest),
    /// The one that this statement put in force; 0 is what was there before the first.
    Counter(u64),
}

/// Decide, seal and land.
pub fn rollback(workspace: &Workspace, request: &Request) -> Result<Promoted, FlowError> {
    if request.reason.trim().is_empty() {
        return Err(FlowError::usage(
            "a rollback needs a reason, for whoever reads it later",
        ));
    }
    let snapshot = workspace.store.snapshot(&workspace.refs.control)?;
    let seen = Control::new(&workspace.refs, snapshot.as_ref()).pointer(&request.signature)?;
    let seen = seen.map_or(0, |pointer| pointer.counter);
    let decide = |facts: &Facts| decide(workspace, request, facts, seen);
    if request.propose {
        land::propose(workspace, &request.signature, decide)
    } else {
        land::land(workspace, &request.signature, decide)
    }
}

fn decide(
    workspace: &Workspace,
    request: &Request,
    facts: &Facts,
    seen: u64,
) -> Result<Plan, FlowError> {
    let refuse = |reason: String| {
        let reasons = vec![reason];
        Ok(Plan::Withhold(Verdict::Refuse { reasons }))
    };
    let history = facts.statements();
    let Some(last) = history.last() else {
        return refuse(format!(
            "nothing was ever promoted for {}",
            request.signature
        ));
    };
    if last.counter != seen {
        return refuse(format!(
            "the pointer moved meanwhile: {}; look at it, and roll back again if it is still needed",
            promote::told(last)
        ));
    }
    if let Some(fault) = admission::promoter_fault(&facts.policy, facts.promoter.as_ref()) {
        return refuse(fault);
    }
    let to = match target(request, &history) {
        Ok(to) => to,
        Err(reason) => return refuse(reason),
    };
    let (program, bound) = land::artifact(workspace, &request.signature, &to)?;
    let promoter = facts
        .promoter
        .clone()
        .ok_or_else(|| FlowError::bug("a rollback was admitted, yet nobody would seal it"))?;
    Ok(Plan::Move {
        draft: Box::new(Draft {
            kind: Kind::Rollback,
            signature: request.signature.clone(),
            from: last.to,
            to,
            interface: canon::digest(&program.interface)?,
            job: None,
            run: None,
            promoter,
            self_attested: false,
            reason: Some(request.reason.trim().to_owned()),
            gates: Vec::new(),
            inputs: vec![bound],
        }),
        marks: Vec::new(),
    })
}

fn target(request: &Request, history: &[Statement]) -> Result<Digest, String> {
    let to = match &request.to {
        None => promotion::rollback_target(history).ok_or_else(|| {
            "everything that was in force before was rolled back; promote something, or name an artifact with --to".to_owned()
        })?,
        Some(Target::Artifact(artifact)) => *artifact,
        Some(Target::Counter(counter)) => promotion::in_force_at(history, *counter)
            .ok_or_else(|| format!("there is no statement {counter}; the last is {}", history.len()))?,
    };
    match promotion::rollback_fault(history, &to) {
        None => Ok(to),
        Some(fault) => Err(fault),
    }
}
