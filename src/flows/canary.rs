//! A canary from start to end: seal what it will be judged by, judge it by the
//! committed receipts, seal what it came to.
//!
//! Every step may be taken again after a crash: a start finds its own canary,
//! and a canary that is closed stays as it was closed.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::domain::improve::canary::{
    self, Canary, CanaryDecision, DecideError, ExpectedPairs, Measured, Mode, Moment, Status,
};
use crate::domain::improve::receipt::{Receipt, Source};
use crate::domain::improve::report::Rows;
use crate::domain::improve::signature::Signature;
use crate::domain::prove::policy::Policy;
use crate::domain::prove::promotion::Bound;
use crate::domain::prove::stats::alpha::Alpha;
use crate::domain::prove::verdict::{GateResult, Label};
use crate::id::{CanaryId, Digest, PrincipalId, RunId, SignatureId, WriterId};
use crate::records::artifacts::Artifacts;
use crate::records::control::Control;
use crate::records::sealed::Sealed;
use crate::records::{canary as record, datasets, receipts};
use crate::seal::{Namespace, SealSigner};
use crate::store::{
    Decision, ObjectName, Outcome, PushRef, PushStatus, Remote, Snapshot, Transaction,
};

use super::holdout::principal;
pub use super::night::policy;
use super::predict::Engine;
use super::preflight::Missing;
use super::workspace::KeyRole;
use super::{FlowError, Kind, Workspace, eval};

/// A canary to start.
#[derive(Debug, Clone)]
pub struct StartRequest<'a> {
    /// The signature; its `canary` plan sets the margins.
    pub signature: &'a Signature,
    /// The run that starts it: with one, starting again finds the same canary.
    pub run: Option<RunId>,
    /// The artifact in force.
    pub control: Digest,
    /// The artifact on trial. Both are on the artifacts branch.
    pub candidate: Digest,
    /// How requests meet arms.
    pub mode: Mode,
    /// Where its inputs will come from.
    pub source: Source,
    /// Whose receipts count besides this clone's own.
    pub writers: Vec<WriterId>,
    /// Orders the exercise rows; the signature's seed when absent.
    pub seed: Option<u64>,
}

/// A canary that was started.
#[derive(Debug, Clone, Serialize)]
pub struct Started {
    /// The record.
    pub canary: Canary,
    /// Who sealed it.
    pub sealed_by: Vec<PrincipalId>,
    /// Whether it was there already.
    pub reused: bool,
    /// The tip of the ledger that holds it; absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What the e-process will ask for.
    pub expected_pairs: Vec<ExpectedPairs>,
}

/// A canary, looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Watched {
    /// The record, as it stands on the ledger.
    pub canary: Canary,
    /// Who sealed it.
    pub sealed_by: Vec<PrincipalId>,
    /// What its receipts say; as it was sealed, once it is closed.
    pub decision: CanaryDecision,
    /// Whether this call closed it.
    pub closed_now: bool,
    /// The tip of the ledger that holds it.
    pub commit: String,
    /// What did not go as one would wish, and does not matter to the decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a night keeps of a canary that was judged, and what a promotion binds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The canary.
    pub canary: CanaryId,
    /// How it ended, or that it is running.
    pub status: Status,
    /// The gate's answer, with its figures.
    pub gate: GateResult,
    /// Whether the candidate was shown to do harm.
    pub harmed: bool,
    /// Whether it only rehearsed: policy says whether that is enough.
    pub rehearsed: bool,
    /// The sealed record, by commit and digest.
    pub bound: Bound,
}

/// Whether a canary that is not decided yet goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    WhenDecided,
    /// No more traffic will come: it is closed as inconclusive.
    Now,
}

/// The artifact in force, kept on the artifacts branch: before the first
/// promotion, the program that the signature's defaults stand for.
pub fn control_in_force(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
) -> Result<Digest, FlowError> {
    let in_force = eval::program(workspace, engine, signature, None)?;
    let artifact = in_force.program.artifact_id()?;
    if in_force.counter.is_none() {
        let edits = Artifacts::keep(
            &signature.id,
            &in_force.program,
            in_force.weights.as_deref(),
        )?;
        let transaction = Transaction::new(workspace.refs.artifacts.clone(), workspace.author()?);
        workspace.store.transact(&transaction, |_| -> Result<Decision, FlowError> {
            Ok(Decision::Commit {
                edits: edits.clone(),
                message: format!("artifact {}: what the defaults stand for\n\nSignature: {}\nArtifact: {artifact}\n", signature.id.name(), signature.id),
            })
        })?;
    }
    Ok(artifact)
}

/// The artifact of a signature that a person means: its id, or the first hex digits where those are unique.
pub fn artifact_named(
    workspace: &Workspace,
    signature: &SignatureId,
    name: &str,
) -> Result<Digest, FlowError> {
    if let Ok(digest) = name.parse() {
        return Ok(digest);
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let found = Artifacts::new(&workspace.refs, snapshot.as_ref()).ids(signature)?;
    let mut matching = found.into_iter().filter(|id| id.hex().starts_with(hex));
    match (matching.next(), matching.next()) {
        (Some(only), None) if hex.len() >= 6 => Ok(only),
        (Some(_), None) => Err(FlowError::usage(format!(
            "`{name}` is too short; give at least 6 digits"
        ))),
        (Some(_), Some(_)) => Err(FlowError::usage(format!(
            "`{name}` may be more than one artifact of {signature}"
        ))
        .hint("give more digits")),
        (None, _) => Err(
            FlowError::input(format!("{signature} has no artifact `{name}`")).hint(format!(
                "list them: `git ls-tree --name-only {} artifacts/{}/`",
                workspace.refs.artifacts.short(),
                signature.path()
            )),
        ),
    }
}

/// Start a canary, or find the one that this run started.
pub fn start(
    workspace: &Workspace,
    policy: &Policy,
    request: &StartRequest<'_>,
) -> Result<Started, FlowError> {
    let sealer = workspace.sealer(KeyRole::Runner)?;
    let runner = principal(policy, &sealer)?;
    let outline = Outline::new(workspace, policy, request)?;
    outline.check_control(workspace, request)?;
    settle_earlier(workspace, policy, request)?;
    let remote = workspace.remote()?;
    let transaction = Transaction::new(workspace.refs.ledger.clone(), workspace.author()?)
        .shared_with(remote.as_ref());
    let mut found = None;
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                if let Some(known) = known_start(workspace, policy, request, snapshot)? {
                    found = Some((known, true));
                    return Ok(Decision::Nothing);
                }
                let canary = outline.canary(workspace, snapshot, request)?;
                let sealed = seal(canary.clone(), &sealer)?;
                found = Some((canary.clone(), false));
                Ok(Decision::Commit {
                    edits: record::edits(&sealed)?,
                    message: start_message(&canary),
                })
            })?;
    let (canary, reused) =
        found.ok_or_else(|| FlowError::bug("a canary was started without a decision"))?;
    Ok(Started {
        expected_pairs: canary::expected_pairs(&canary).map_err(FlowError::input)?,
        canary,
        sealed_by: vec![runner],
        reused,
        commit: Some(tip(&outcome)?),
    })
}

/// What [`start`] would do, without doing it.
pub fn plan(
    workspace: &Workspace,
    policy: &Policy,
    request: &StartRequest<'_>,
) -> Result<Started, FlowError> {
    let outline = Outline::new(workspace, policy, request)?;
    let snapshot = workspace.store.snapshot(&workspace.refs.ledger)?;
    let known = known_start(workspace, policy, request, snapshot.as_ref())?;
    let reused = known.is_some();
    let canary = match known {
        Some(canary) => canary,
        None => outline.canary(workspace, snapshot.as_ref(), request)?,
    };
    Ok(Started {
        expected_pairs: canary::expected_pairs(&canary).map_err(FlowError::input)?,
        canary,
        sealed_by: Vec::new(),
        reused,
        commit: None,
    })
}

/// The newest canary of a signature, judged by the receipts that are committed here now. Writes nothing.
pub fn status(
    workspace: &Workspace,
    policy: &Policy,
    signature: &SignatureId,
) -> Result<Option<Watched>, FlowError> {
    let Some(snapshot) = workspace.store.snapshot(&workspace.refs.ledger)? else {
        return Ok(None);
    };
    let Some(found) = verified(workspace, policy, Some(&snapshot), signature)? else {
        return Ok(None);
    };
    let decision = match found.canary.concluded() {
        Some(decision) => decision,
        None => judge(workspace, &found, &Fetched::new(), false)?.decision,
    };
    Ok(Some(Watched {
        canary: found.canary,
        sealed_by: found.sealed_by,
        decision,
        closed_now: false,
        commit: snapshot.commit().to_string(),
        notes: Vec::new(),
    }))
}

/// The running canary of a signature, its seal checked.
pub fn running(
    workspace: &Workspace,
    policy: &Policy,
    signature: &SignatureId,
) -> Result<Option<Canary>, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.ledger)?;
    let found = verified(workspace, policy, snapshot.as_ref(), signature)?;
    Ok(found
        .map(|found| found.canary)
        .filter(|canary| canary.status == Status::Running))
}

/// Judge the newest canary of a signature, and when it is decided seal what it came to.
/// One that is closed already is given back as it was closed.
pub fn decide_and_close(
    workspace: &Workspace,
    policy: &Policy,
    signature: &SignatureId,
    ending: Ending,
) -> Result<Watched, FlowError> {
    conclude(
        workspace,
        policy,
        signature,
        &|decision| match (decision.status, ending) {
            (Status::Running, _) => None,
            _ => Some(decision),
        },
        ending == Ending::Now,
    )
}

/// End a running canary by hand; the control stays.
pub fn stop(
    workspace: &Workspace,
    policy: &Policy,
    signature: &SignatureId,
    reason: &str,
) -> Result<Watched, FlowError> {
    if reason.trim().is_empty() {
        return Err(FlowError::usage(
            "a canary is stopped for a reason; say which",
        ));
    }
    let watched = conclude(
        workspace,
        policy,
        signature,
        &|decision| Some(decision.stopped(reason)),
        false,
    )?;
    if !watched.closed_now && watched.canary.status != Status::Stopped {
        return Err(FlowError::new(
            Kind::Refused,
            format!(
                "canary {} of {signature} has ended already: {}",
                watched.canary.id,
                watched.canary.status.as_str()
            ),
        ));
    }
    Ok(watched)
}

impl Workspace {
    /// This clone's id as a writer of receipts.
    pub fn receipts_writer(&self) -> Result<WriterId, FlowError> {
        receipts::writer(&self.store).map_err(|error| FlowError::new(Kind::Outside, error))
    }
}

impl Watched {
    /// What a night keeps of it, with the sealed record bound by commit and digest.
    pub fn judged(&self, workspace: &Workspace) -> Result<Judged, FlowError> {
        let canary = &self.canary;
        let path = match canary.status {
            Status::Running => crate::records::refs::path::canary(&canary.signature),
            _ => record::closed_path(&canary.signature, &canary.id)?,
        };
        let commit = workspace
            .store
            .resolve(&self.commit)?
            .ok_or_else(|| FlowError::bug(format!("ledger commit {} is gone", self.commit)))?;
        let bytes = workspace.store.snapshot_at(commit)?.read(&path)?;
        let bytes = bytes
            .ok_or_else(|| FlowError::bug(format!("{path} is not in ledger commit {commit}")))?;
        Ok(Judged {
            canary: canary.id.clone(),
            status: self.decision.status,
            gate: self.decision.gate.clone(),
            harmed: self.decision.status == Status::Harmed,
            rehearsed: self.decision.status == Status::Rehearsed,
            bound: Bound {
                name: "canary".to_owned(),
                reference: workspace.refs.ledger.to_string(),
                commit: commit.to_string(),
                path: path.to_string(),
                digest: Digest::of(&bytes),
            },
        })
    }
}

/// Where a signature allows its canary more than the policy does.
pub fn excesses(policy: &Policy, signature: &Signature) -> Vec<Missing> {
    let plan = &signature.canary;
    let rules = &policy.canary;
    [
        ("harm_margin", plan.harm_margin, rules.harm_margin_max),
        ("max_error_rate", plan.max_error_rate, rules.error_rate_max),
    ]
    .into_iter()
    .filter(|(_, asked, most)| asked > most)
    .map(|(name, asked, most)| {
        Missing::new(
            format!(
                "{} sets canary.{name} to {asked}; policy epoch {} allows at most {most}",
                signature.id, policy.epoch
            ),
            format!("lower canary.{name} in the signature file"),
        )
    })
    .collect()
}

/// What a start asks for, checked against the policy and what is on the branches.
struct Outline {
    epoch: u64,
    alpha: Alpha,
    rows: Option<Rows>,
    writers: Vec<WriterId>,
}

impl Outline {
    fn new(
        workspace: &Workspace,
        policy: &Policy,
        request: &StartRequest<'_>,
    ) -> Result<Self, FlowError> {
        let signature = request.signature;
        if let Some(excess) = excesses(policy, signature).into_iter().next() {
            return Err(FlowError::input(excess.what).hint(excess.remedy));
        }
        let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
        let artifacts = Artifacts::new(&workspace.refs, snapshot.as_ref());
        artifacts.program_expected(&signature.id, &request.candidate)?;
        let mut writers = vec![workspace.receipts_writer()?];
        for writer in &request.writers {
            if !writers.contains(writer) {
                writers.push(writer.clone());
            }
        }
        Ok(Self {
            epoch: policy.epoch,
            alpha: Alpha::new(policy.canary.alpha).map_err(FlowError::input)?,
            rows: match request.source {
                Source::Exercise => Some(exercise_rows(workspace, &signature.id)?),
                Source::Recorded => None,
            },
            writers,
        })
    }

    /// The control is there too. A dry run does without: the defaults need not be frozen for it.
    fn check_control(
        &self,
        workspace: &Workspace,
        request: &StartRequest<'_>,
    ) -> Result<(), FlowError> {
        let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
        let artifacts = Artifacts::new(&workspace.refs, snapshot.as_ref());
        artifacts.program_expected(&request.signature.id, &request.control)?;
        Ok(())
    }

    fn canary(
        &self,
        workspace: &Workspace,
        snapshot: Option<&Snapshot>,
        request: &StartRequest<'_>,
    ) -> Result<Canary, FlowError> {
        let signature = request.signature;
        let plan = &signature.canary;
        let earlier = record::history(&workspace.refs, snapshot, &signature.id)?;
        let earlier = earlier.iter().map(|sealed| &sealed.body);
        let t: NonZeroU64 = canary::next_number(earlier, &request.control, &request.candidate);
        let (id, salt) = canary::identity(
            &signature.id,
            request.run.as_ref(),
            &request.control,
            &request.candidate,
            t.get(),
        );
        let canary = Canary {
            schema: Canary::SCHEMA.to_owned(),
            id,
            signature: signature.id.clone(),
            run: request.run.clone(),
            epoch: self.epoch,
            control: request.control,
            candidate: request.candidate,
            salt,
            seed: request.seed.unwrap_or(signature.job.seed),
            rollout_percent: plan.rollout_percent,
            mode: request.mode,
            outcome: Measured::ErrorOrFormat,
            harm_margin: plan.harm_margin,
            alpha: self.alpha.get(),
            t: t.get(),
            alpha_t: self.alpha.at_attempt(t).get(),
            min_pairs: plan.min_pairs,
            max_pairs: plan.max_pairs,
            max_error_rate: plan.max_error_rate,
            time_limit_ms: plan.time_limit_ms,
            source: request.source,
            rows: self.rows.clone(),
            writers: self.writers.clone(),
            started: workspace.clock.now(),
            status: Status::Running,
            decision: None,
            ended: None,
        };
        let faults = canary.faults();
        if faults.is_empty() {
            Ok(canary)
        } else {
            Err(FlowError::input(format!(
                "a canary of {} cannot be started: {}",
                signature.id,
                faults.join("; ")
            )))
        }
    }
}

fn exercise_rows(workspace: &Workspace, signature: &SignatureId) -> Result<Rows, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let rows = datasets::exercise(&workspace.refs, snapshot.as_ref(), signature)?;
    if rows.is_empty() {
        return Err(FlowError::input(format!("{signature} has no exercise rows to rehearse on"))
            .hint("import rows with the split `exercise`, or send recorded traffic: `--source recorded`"));
    }
    Ok(Rows {
        rows: rows.len() as u64,
        digest: datasets::rows_digest(&rows)?,
    })
}

/// Another comparison's canary that is decided, or out of time, is closed so that this one can begin.
fn settle_earlier(
    workspace: &Workspace,
    policy: &Policy,
    request: &StartRequest<'_>,
) -> Result<(), FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.ledger)?;
    let current = record::current(&workspace.refs, snapshot.as_ref(), &request.signature.id)?;
    let in_the_way = current.is_some_and(|sealed| {
        let canary = sealed.body;
        canary.status == Status::Running
            && !canary.is_start_of(request.run.as_ref(), &request.control, &request.candidate)
    });
    if in_the_way {
        decide_and_close(
            workspace,
            policy,
            &request.signature.id,
            Ending::WhenDecided,
        )?;
    }
    Ok(())
}

/// The canary that this very start made before, if it did; an error when another one is running.
fn known_start(
    workspace: &Workspace,
    policy: &Policy,
    request: &StartRequest<'_>,
    snapshot: Option<&Snapshot>,
) -> Result<Option<Canary>, FlowError> {
    let signature = &request.signature.id;
    let same = |canary: &Canary| {
        canary.is_start_of(request.run.as_ref(), &request.control, &request.candidate)
    };
    let Some(current) = verified(workspace, policy, snapshot, signature)? else {
        return Ok(None);
    };
    let running = current.canary.status == Status::Running;
    // Without a run, a closed canary is a finished one: starting again is a new start.
    if same(&current.canary) && (running || request.run.is_some()) {
        return Ok(Some(current.canary));
    }
    if request.run.is_some() {
        let starts = record::history(&workspace.refs, snapshot, signature)?;
        if let Some(earlier) = starts.into_iter().find(|sealed| same(&sealed.body)) {
            let closed = record::closed(&workspace.refs, snapshot, signature, &earlier.body.id)?;
            return Ok(Some(closed.unwrap_or(earlier).body));
        }
    }
    if running {
        let other = &current.canary;
        let by = other
            .run
            .as_ref()
            .map(|run| format!(" by run {run}"))
            .unwrap_or_default();
        return Err(FlowError::new(
            Kind::Refused,
            format!(
                "canary {} of {signature} is running, started {}{by}: one at a time",
                other.id, other.started
            ),
        )
        .hint(format!("look at it: `proofline canary status {signature}`"))
        .hint(format!(
            "or end it: `proofline canary stop {signature} --reason …`"
        )));
    }
    Ok(None)
}

/// A canary whose seal is good.
struct Verified {
    canary: Canary,
    sealed_by: Vec<PrincipalId>,
}

/// The newest canary of a signature; an error when nobody who may has sealed it, or when its end does not belong to its start.
fn verified(
    workspace: &Workspace,
    policy: &Policy,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Option<Verified>, FlowError> {
    let Some(sealed) = record::current(&workspace.refs, snapshot, signature)? else {
        return Ok(None);
    };
    let canary = &sealed.body;
    // A closed one is history: keys may have changed since.
    let then = match canary.status {
        Status::Running => None,
        _ if canary.epoch == policy.epoch => None,
        _ => {
            let control = workspace.store.snapshot(&workspace.refs.control)?;
            Control::new(&workspace.refs, control.as_ref()).policy_at(canary.epoch)?
        }
    };
    let sealed_by = record::sealed_by(&workspace.refs, &sealed, then.as_ref().unwrap_or(policy))?;
    let start = record::started(&workspace.refs, snapshot, signature, &canary.id)?;
    if start.is_none_or(|start| start.body != canary.as_started()) {
        return Err(FlowError::input(format!(
            "canary {} of {signature} is not what was sealed at its start: the ledger was changed",
            canary.id
        )));
    }
    Ok(Some(Verified {
        canary: sealed.body,
        sealed_by,
    }))
}

fn seal(canary: Canary, sealer: &SealSigner) -> Result<Sealed<Canary>, FlowError> {
    Sealed::seal(canary, sealer, Namespace::Canary).map_err(FlowError::outside)
}

fn tip(outcome: &Outcome) -> Result<String, FlowError> {
    let tip = outcome.tip().map(|tip| tip.to_string());
    tip.ok_or_else(|| FlowError::bug("a canary is on the ledger, yet the ledger has no tip"))
}

/// What the receipts say, and where they were read.
struct Judgement {
    decision: CanaryDecision,
    tips: BTreeMap<WriterId, String>,
}

fn judge(
    workspace: &Workspace,
    found: &Verified,
    fetched: &Fetched,
    last: bool,
) -> Result<Judgement, FlowError> {
    let (receipts, tips) = receipts_of(workspace, &found.canary, fetched)?;
    let attested = match found.sealed_by.first() {
        Some(runner) => Label::AttestedBy(runner.clone()),
        None => Label::Recomputed,
    };
    let moment = Moment {
        now: workspace.clock.now(),
        last,
        attested,
    };
    let decision = canary::decide(&found.canary, &receipts, &moment)?;
    Ok(Judgement { decision, tips })
}

impl From<DecideError> for FlowError {
    fn from(error: DecideError) -> Self {
        Self::input(error)
    }
}

/// Where other writers' receipts were found on the remote.
type Fetched = BTreeMap<WriterId, ObjectName>;

/// The receipts of every writer that a canary names, as far as they are here, and the commits they were read from.
pub fn receipts_of(
    workspace: &Workspace,
    canary: &Canary,
    fetched: &BTreeMap<WriterId, ObjectName>,
) -> Result<(Vec<Receipt>, BTreeMap<WriterId, String>), FlowError> {
    let since = Some(receipts::day(canary.started));
    let (mut all, mut tips) = (Vec::new(), BTreeMap::new());
    for writer in &canary.writers {
        let reference = workspace.refs.receipts(writer.as_str())?;
        let snapshot = match fetched.get(writer) {
            Some(tip) => Some(workspace.store.snapshot_at(*tip)?),
            None => workspace.store.snapshot(&reference)?,
        };
        if let Some(snapshot) = &snapshot {
            tips.insert(writer.clone(), snapshot.commit().to_string());
        }
        let receipts = receipts::since(&reference, snapshot.as_ref(), &canary.signature, since)?;
        all.extend(
            receipts
                .into_iter()
                .filter(|receipt| receipt.canary.as_ref() == Some(&canary.id)),
        );
    }
    Ok((all, tips))
}

/// Bring the other writers' receipts here, and ours to the remote, so that
/// whoever checks the decision can read what it rests on.
fn exchange(workspace: &Workspace, canary: &Canary) -> Result<(Fetched, Vec<String>), FlowError> {
    let (mut fetched, mut notes) = (Fetched::new(), Vec::new());
    let Some(remote) = workspace.remote()? else {
        return Ok((fetched, notes));
    };
    let own = workspace.receipts_writer()?;
    let others: Vec<&WriterId> = canary
        .writers
        .iter()
        .filter(|writer| **writer != own)
        .collect();
    if !others.is_empty() {
        let references: Vec<_> = others
            .iter()
            .map(|writer| workspace.refs.receipts(writer.as_str()))
            .collect::<Result<_, _>>()?;
        let tips = workspace.store.fetch(&remote, &references)?;
        for (writer, reference) in others.into_iter().zip(&references) {
            let tip = tips
                .iter()
                .find(|tip| tip.reference == *reference)
                .and_then(|found| found.tip);
            fetched.extend(tip.map(|tip| (writer.clone(), tip)));
        }
    }
    notes.extend(push_receipts(workspace, &remote)?);
    Ok((fetched, notes))
}

/// Push this clone's receipts. A remote that refuses them is worth a note: what they say is sealed all the same.
pub(super) fn push_receipts(
    workspace: &Workspace,
    remote: &Remote,
) -> Result<Vec<String>, FlowError> {
    let own = workspace.receipts_writer()?;
    let reference = workspace.refs.receipts(own.as_str())?;
    let Some(commit) = workspace.store.tip(&reference)? else {
        return Ok(Vec::new());
    };
    let push = PushRef {
        reference: reference.clone(),
        commit,
    };
    let pushed = workspace.store.push(remote, &[push], false)?;
    Ok(pushed
        .into_iter()
        .filter_map(|status| match status {
            PushStatus::Accepted | PushStatus::UpToDate => None,
            PushStatus::Moved { reason } | PushStatus::Declined { reason } => Some(format!(
                "{} did not take {reference}: {reason}",
                remote.name()
            )),
        })
        .collect())
}

/// Judge the newest canary, and when `finish` gives it an end, seal that.
fn conclude(
    workspace: &Workspace,
    policy: &Policy,
    signature: &SignatureId,
    finish: &dyn Fn(CanaryDecision) -> Option<CanaryDecision>,
    last: bool,
) -> Result<Watched, FlowError> {
    let none = || {
        FlowError::input(format!("{signature} has no canary")).hint(format!(
            "start one: `proofline canary start {signature} --candidate ARTIFACT`"
        ))
    };
    let snapshot = workspace.store.snapshot(&workspace.refs.ledger)?;
    let before = verified(workspace, policy, snapshot.as_ref(), signature)?.ok_or_else(none)?;
    let (fetched, notes) = match before.canary.status {
        Status::Running => exchange(workspace, &before.canary)?,
        _ => (Fetched::new(), Vec::new()),
    };
    let remote = workspace.remote()?;
    let transaction = Transaction::new(workspace.refs.ledger.clone(), workspace.author()?)
        .shared_with(remote.as_ref());
    let mut watched = None;
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                let found = verified(workspace, policy, snapshot, signature)?.ok_or_else(none)?;
                if let Some(decision) = found.canary.concluded() {
                    watched = Some((found.canary, found.sealed_by, decision, false));
                    return Ok(Decision::Nothing);
                }
                let judgement = judge(workspace, &found, &fetched, last)?;
                let Some(decision) = finish(judgement.decision.clone()) else {
                    watched = Some((found.canary, found.sealed_by, judgement.decision, false));
                    return Ok(Decision::Nothing);
                };
                let sealer = workspace.sealer(KeyRole::Runner)?;
                let runner = principal(policy, &sealer)?;
                let closed =
                    found
                        .canary
                        .closed(decision.clone(), judgement.tips, workspace.clock.now())?;
                let sealed = seal(closed.clone(), &sealer)?;
                let message = end_message(&closed, &decision);
                watched = Some((closed, vec![runner], decision, true));
                Ok(Decision::Commit {
                    edits: record::edits(&sealed)?,
                    message,
                })
            })?;
    let commit = tip(&outcome)?;
    let (canary, sealed_by, decision, closed_now) =
        watched.ok_or_else(|| FlowError::bug("a canary was judged without a decision"))?;
    Ok(Watched {
        canary,
        sealed_by,
        decision,
        closed_now,
        commit,
        notes,
    })
}

fn trailers(canary: &Canary) -> String {
    let run = canary
        .run
        .as_ref()
        .map(|run| format!("Run: {run}\n"))
        .unwrap_or_default();
    format!(
        "Signature: {}\nCanary: {}\n{run}",
        canary.signature, canary.id
    )
}

fn start_message(canary: &Canary) -> String {
    format!(
        "canary {}: start {} of {} against {}\n\n{} on {} inputs, at α_t = {:.4} with a harm margin of {:.1} points.\n\n{}",
        canary.signature.name(),
        canary.t,
        canary.candidate.short(),
        canary.control.short(),
        canary.mode.as_str(),
        canary.source.as_str(),
        canary.alpha_t,
        100.0 * canary.harm_margin,
        trailers(canary)
    )
}

fn end_message(canary: &Canary, decision: &CanaryDecision) -> String {
    let why: String = decision
        .reasons
        .iter()
        .map(|reason| format!("{reason}.\n"))
        .collect();
    let why = if why.is_empty() {
        String::new()
    } else {
        format!("{why}\n")
    };
    format!(
        "canary {}: {} after {} pairs\n\n{why}{}",
        canary.signature.name(),
        canary.status.as_str(),
        decision.pairs,
        trailers(canary)
    )
}
