//! Promote: bring a proven artifact into force, by a sealed statement on `control`.
//!
//! The statement is decided on the newest `control`, sealed by the promoter's
//! key, and lands in one signed commit (or stands on a branch of its own, as a
//! proposal). When somebody else lands one first, the decision is made again on
//! what is there then. A promotion of the same run that has landed already is
//! found and returned, so that a step repeated after a crash changes nothing.
//! A refusal is a value with reasons and leaves every ref as it was.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canon;
use crate::domain::improve::signature::PromotionMode;
use crate::domain::operate::run::Status;
use crate::domain::prove::admission::{self, Admission, Asked};
use crate::domain::prove::gate::HoldoutReport;
use crate::domain::prove::holdout::{Closing, Entry};
use crate::domain::prove::policy::{Policy, Role};
use crate::domain::prove::promotion::{Bound, Draft, Kind, Statement};
use crate::domain::prove::verdict::{GateResult, Verdict};
use crate::id::{Digest, PrincipalId, RunId, SignatureId};
use crate::records::refs::path;
use crate::records::sealed::Sealed;
use crate::records::{control, document, journal, ledger};
use crate::seal::{Namespace, SealSigner};

use super::land::{self, Facts, Plan};
use super::proposal;
use super::workspace::KeyRole;
use super::{FlowError, Kind as Failure, Workspace};

/// What is to come into force, and what shows that it should.
///
/// A run keeps it in its record, as `result.<signature>.promotion`, so that
/// `proofline promote --run` can take it from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The signature.
    pub signature: SignatureId,
    /// The artifact that the evidence compared with; it must be in force still.
    pub from: Digest,
    /// The artifact that is to come into force.
    pub to: Digest,
    /// Digest of the job that found it.
    pub job: Digest,
    /// The run that found it.
    pub run: RunId,
    /// What each gate answered. `holdout` must be there and pass; `verify`, `canary` and `e2e`
    /// count as skipped when they are not there.
    pub gates: Vec<GateResult>,
    /// What the evidence is. The artifact and the holdout ledger are added when they are not among it.
    pub inputs: Vec<Bound>,
    /// What is asked for. Policy may make a proposal of a direct promotion, never the reverse.
    pub mode: PromotionMode,
    /// Whether the promoter ran the program again and got the same; figures of the gates must say so, too.
    pub re_executed: bool,
}

/// How a promotion or a rollback ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Promoted {
    /// The pointer has moved.
    Landed(Landing),
    /// It waits on a branch for a person.
    Proposed(Proposal),
    /// Nothing was done, and why: a refusal, or what is missing to decide.
    Withheld(Verdict),
}

/// A statement that is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Landing {
    /// What was sealed.
    pub statement: Statement,
    /// Its digest.
    pub digest: Digest,
    /// The commit on `control` that holds it: the one that was made, or the tip it was found at.
    pub commit: String,
    /// Whether it had landed already, by an earlier attempt of the same run.
    pub reused: bool,
    /// What policy lets pass with a mark.
    pub marks: Vec<String>,
}

/// A statement that waits for a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proposal {
    /// What was sealed.
    pub statement: Statement,
    /// Its digest.
    pub digest: Digest,
    /// The branch it stands on, off `control`.
    pub branch: String,
    /// The commit.
    pub commit: String,
    /// The text for the pull request, as Markdown.
    pub body: PathBuf,
    /// The commands that push it and open the pull request.
    pub commands: Vec<String>,
    /// Whether it was proposed already.
    pub reused: bool,
    /// Why it is a proposal, and what policy lets pass with a mark.
    pub marks: Vec<String>,
}

/// What a promotion would come to.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// Directly or as a proposal.
    pub mode: PromotionMode,
    /// The counter that the statement would have.
    pub counter: u64,
    /// Whether it may.
    pub verdict: Verdict,
    /// Why it would be a proposal, and what policy lets pass with a mark.
    pub marks: Vec<String>,
}

/// Decide, seal and land or propose.
pub fn promote(workspace: &Workspace, request: &Request) -> Result<Promoted, FlowError> {
    let known = Known::gather(workspace, request)?;
    let facts = known.facts(workspace, request)?;
    let signature = &request.signature;
    match known.admit(request, &facts).mode {
        PromotionMode::Propose => land::propose(workspace, signature, |facts| {
            known.decide(request, facts, PromotionMode::Propose)
        }),
        PromotionMode::Direct => land::land(workspace, signature, |facts| {
            known.decide(request, facts, PromotionMode::Direct)
        }),
    }
}

/// What [`promote`] would do, without sealing or writing anything.
pub fn preview(workspace: &Workspace, request: &Request) -> Result<Preview, FlowError> {
    let known = Known::gather(workspace, request)?;
    let facts = known.facts(workspace, request)?;
    let admission = known.admit(request, &facts);
    let verdict = match known.decide(request, &facts, admission.mode)? {
        Plan::Withhold(verdict) => verdict,
        Plan::Move { .. } | Plan::Found(_) => Verdict::Pass,
    };
    Ok(Preview {
        mode: admission.mode,
        counter: facts.place.counter(),
        verdict,
        marks: admission.marks,
    })
}

/// The request that a finished run left in its record: that run's, or the newest
/// one's whose winner is the artifact, or simply the newest one's.
pub fn recorded(
    workspace: &Workspace,
    signature: &SignatureId,
    run: Option<&RunId>,
    artifact: Option<&Digest>,
) -> Result<Request, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    let runs = match run {
        Some(run) => vec![run.clone()],
        None => journal::runs(snapshot.as_ref())?,
    };
    let mut newest: Option<(Timestamp, Request)> = None;
    for id in runs {
        let Some(record) = journal::run(&workspace.refs, snapshot.as_ref(), &id)? else {
            return Err(super::runs::unknown(workspace, snapshot.as_ref(), &id));
        };
        let kept = record
            .result
            .get(signature.as_str())
            .and_then(|result| result.get("promotion"));
        let Some(kept) = kept.filter(|kept| !kept.is_null()) else {
            continue;
        };
        let request: Request = serde_json::from_value(kept.clone()).map_err(|error| {
            FlowError::input(format!(
                "the record of run {id} holds no request that can be read: {error}"
            ))
        })?;
        if record.status == Status::Running {
            continue;
        }
        if request.signature != *signature || request.run != id {
            return Err(FlowError::new(
                Failure::Refused,
                format!("the record of run {id} holds a request that is not about it"),
            ));
        }
        let wanted = artifact.is_none_or(|artifact| request.to == *artifact);
        if wanted && newest.as_ref().is_none_or(|(at, _)| *at < record.started) {
            newest = Some((record.started, request));
        }
    }
    newest.map(|(_, request)| request).ok_or_else(|| {
        let what = match (run, artifact) {
            (Some(run), _) => {
                format!("run {run} found nothing to promote for {signature}, or has not finished")
            }
            (None, Some(artifact)) => format!(
                "no finished run proved {} for {signature}",
                artifact.short()
            ),
            (None, None) => format!("no finished run proved anything for {signature}"),
        };
        FlowError::input(what)
            .hint("`proofline overnight` looks for something better and proves it")
    })
}

/// The branch of a proposal that still waits for a person, here or on the remote.
pub fn open_proposal(
    workspace: &Workspace,
    signature: &SignatureId,
) -> Result<Option<String>, FlowError> {
    let counter = proposal::next_counter(workspace, signature)?;
    let open = proposal::open(workspace, signature, counter)?;
    Ok(open.map(|open| open.to_string()))
}

/// A holdout attempt and its closing, as the ledger has them.
type Proof = [Sealed<Entry>; 2];

/// What is found here, and does not depend on `control`.
struct Known {
    /// The frozen interface of the artifact.
    interface: Digest,
    /// Every input, ours included.
    inputs: Vec<Bound>,
    /// The passed comparison of this artifact with that control, as the ledger has it.
    proof: Option<Proof>,
    /// What the holdout gate's figures say that its report does not.
    contradiction: Option<String>,
    /// Set when the ledger is not here at all.
    no_ledger: Option<Verdict>,
    sealer: SealSigner,
}

impl Known {
    fn gather(workspace: &Workspace, request: &Request) -> Result<Self, FlowError> {
        let (program, artifact) = land::artifact(workspace, &request.signature, &request.to)?;
        if program.interface.signature != request.signature {
            return Err(FlowError::input(format!(
                "artifact {} is of {}, not of {}",
                request.to, program.interface.signature, request.signature
            )));
        }
        let refs = &workspace.refs;
        let snapshot = workspace.store.snapshot(&refs.ledger)?;
        let no_ledger = snapshot.is_none().then(|| Verdict::Undecidable {
            missing: vec![format!("the holdout ledger {} is not here", refs.ledger)],
            fetch: workspace
                .project
                .remote
                .as_ref()
                .map(|remote| format!("git fetch {remote} {0}:{0}", refs.ledger)),
        });
        let entries = ledger::entries(refs, snapshot.as_ref(), &request.signature)?;
        let mut inputs = request.inputs.clone();
        let mut add = |bound: Bound| {
            let known = inputs
                .iter()
                .any(|input| input.reference == bound.reference && input.path == bound.path);
            if !known {
                inputs.push(bound);
            }
        };
        add(artifact);
        if !entries.is_empty() {
            let path = path::holdout(&request.signature);
            add(control::bind(
                "holdout_ledger",
                &refs.ledger,
                snapshot.as_ref(),
                &path,
            )?);
        }
        let proof = proof(entries, request)?;
        let mut contradiction = None;
        if let Some(Entry::Closed(Closing {
            attempt,
            report: Some(digest),
            ..
        })) = proof.as_ref().map(|[_, closed]| &closed.body)
        {
            let path = path::report("holdout", &request.signature, attempt, "report.yaml");
            let snapshot = workspace.store.snapshot(&refs.artifacts)?;
            let bound = control::bind("holdout_report", &refs.artifacts, snapshot.as_ref(), &path)?;
            let report = document::load(snapshot.as_ref(), &refs.artifacts, &path, None)?;
            contradiction = report.and_then(|report| contradicts(&report, &request.gates));
            if bound.digest != *digest {
                contradiction =
                    Some("the holdout report is not the one that the ledger names".to_owned());
            }
            add(bound);
        }
        Ok(Self {
            interface: canon::digest(&program.interface)?,
            inputs,
            proof,
            contradiction,
            no_ledger,
            sealer: workspace.sealer(KeyRole::Promoter)?,
        })
    }

    /// `control` as it is here.
    fn facts(&self, workspace: &Workspace, request: &Request) -> Result<Facts, FlowError> {
        let snapshot = workspace.store.snapshot(&workspace.refs.control)?;
        Facts::read(
            workspace,
            snapshot.as_ref(),
            &request.signature,
            &self.sealer,
        )
    }

    fn admit(&self, request: &Request, facts: &Facts) -> Admission {
        let (evidence_by, fault) = self.evidence(request, &facts.policy);
        let mut admission = admission::admit(
            &facts.policy,
            Asked {
                gates: &request.gates,
                promoter: facts.promoter.as_ref(),
                evidence_by: &evidence_by,
                re_executed: request.re_executed && admission::is_re_executed(&request.gates),
                mode: request.mode,
            },
        );
        if let (Verdict::Pass, Some(fault)) = (&admission.verdict, fault) {
            admission.verdict = fault;
        }
        // What a person took back, no machine brings into force again on its own.
        let withdrawn = facts.history.iter().rev().find(|landed| {
            landed.statement.kind == Kind::Rollback && landed.statement.from == request.to
        });
        if let Some(rollback) = withdrawn {
            admission.mode = PromotionMode::Propose;
            admission.marks.push(format!(
                "it was rolled back by statement {}, so a person decides",
                rollback.statement.counter
            ));
        }
        admission
    }

    /// Who sealed the proof in the ledger, and what is wrong with it.
    fn evidence(&self, request: &Request, policy: &Policy) -> (Vec<PrincipalId>, Option<Verdict>) {
        let refuse = |reason: String| {
            let reasons = vec![reason];
            (Vec::new(), Some(Verdict::Refuse { reasons }))
        };
        if let Some(verdict) = &self.no_ledger {
            return (Vec::new(), Some(verdict.clone()));
        }
        let Some(proof) = &self.proof else {
            return refuse(format!(
                "the ledger holds no passed holdout attempt of {} against {}",
                request.to.short(),
                request.from.short()
            ));
        };
        if let Some(contradiction) = &self.contradiction {
            return refuse(contradiction.clone());
        }
        let mut names = Vec::new();
        for entry in proof {
            match entry.sealed_by(policy, Role::Runner, Namespace::Ledger) {
                Ok(by) if by.is_empty() => {
                    return refuse(format!(
                        "the holdout attempt is not sealed by a runner of policy epoch {}",
                        policy.epoch
                    ));
                }
                Ok(by) => names.extend(by),
                Err(error) => return refuse(error.to_string()),
            }
        }
        names.sort();
        names.dedup();
        (names, None)
    }

    fn decide(
        &self,
        request: &Request,
        facts: &Facts,
        mode: PromotionMode,
    ) -> Result<Plan, FlowError> {
        let refuse = |reason: String| {
            let reasons = vec![reason];
            Ok(Plan::Withhold(Verdict::Refuse { reasons }))
        };
        let own = facts.history.iter().position(|landed| {
            landed.statement.kind == Kind::Promotion
                && landed.statement.run.as_ref() == Some(&request.run)
                && landed.statement.to == request.to
        });
        if let Some(index) = own {
            let landed = &facts.history[index];
            return match facts.history.get(index + 1) {
                None => Ok(Plan::Found(Box::new(landed.clone()))),
                Some(next) => refuse(format!(
                    "run {} has promoted it already, as statement {}; since then {}",
                    request.run,
                    landed.statement.counter,
                    told(&next.statement)
                )),
            };
        }
        if request.from == request.to {
            return refuse(format!("{} is in force already", request.to.short()));
        }
        if let Some(last) = facts.history.last()
            && last.statement.to != request.from
        {
            return refuse(format!(
                "the evidence compares with {}, which is not in force: {}",
                request.from.short(),
                told(&last.statement)
            ));
        }
        let admission = self.admit(request, facts);
        if !admission.verdict.is_pass() {
            return Ok(Plan::Withhold(admission.verdict));
        }
        if admission.mode != mode {
            return refuse("the policy changed meanwhile; run it again".to_owned());
        }
        let promoter = facts
            .promoter
            .clone()
            .ok_or_else(|| FlowError::bug("a promotion was admitted, yet nobody would seal it"))?;
        Ok(Plan::Move {
            draft: Box::new(Draft {
                kind: Kind::Promotion,
                signature: request.signature.clone(),
                from: request.from,
                to: request.to,
                interface: self.interface,
                job: Some(request.job),
                run: Some(request.run.clone()),
                promoter,
                self_attested: admission.self_attested,
                reason: None,
                gates: request.gates.clone(),
                inputs: self.inputs.clone(),
            }),
            marks: admission.marks,
        })
    }
}

/// The passed attempt of this artifact against that control, with its closing.
fn proof(entries: Vec<Sealed<Entry>>, request: &Request) -> Result<Option<Proof>, FlowError> {
    for entry in &entries {
        let Entry::Reserved(attempt) = &entry.body else {
            continue;
        };
        if attempt.control != request.from || attempt.candidate != request.to {
            continue;
        }
        let digest = attempt.digest()?;
        let closing = entries.iter().find(|other| {
            matches!(&other.body, Entry::Closed(closing) if closing.attempt == digest && closing.passed)
        });
        if let Some(closing) = closing {
            return Ok(Some([entry.clone(), closing.clone()]));
        }
    }
    Ok(None)
}

/// Where the figures that a run's record gives the holdout gate are not those of the report,
/// whose digest is sealed in the ledger; the record is not sealed.
fn contradicts(report: &HoldoutReport, gates: &[GateResult]) -> Option<String> {
    let figures = gates
        .iter()
        .filter(|gate| gate.gate == "holdout")
        .flat_map(|gate| &gate.figures);
    for figure in figures {
        let known = match figure.name.as_str() {
            "rows" => report.rows as f64,
            "control mean" => report.control_mean,
            "candidate mean" => report.candidate_mean,
            "wins" => report.wins as f64,
            "losses" => report.losses as f64,
            "p" => report.p,
            "alpha_t" => report.alpha_t,
            _ => continue,
        };
        // The record went through other readers and writers of numbers than the report.
        let close = |said: f64| (said - known).abs() <= 1e-9 * known.abs();
        if !figure.value.as_f64().is_some_and(close) {
            return Some(format!(
                "the holdout gate is said to have found {} = {}; its report says {known}",
                figure.name, figure.value
            ));
        }
    }
    (!report.passed()).then(|| "the holdout report shows no proof".to_owned())
}

/// What a statement did, as a clause.
pub fn told(statement: &Statement) -> String {
    let did = match statement.kind {
        Kind::Promotion => "promoted",
        Kind::Rollback => "rolled back to",
    };
    let run = match &statement.run {
        Some(run) => format!(" in run {run}"),
        None => String::new(),
    };
    format!(
        "statement {} by {} {did} {}{run}",
        statement.counter,
        statement.promoter,
        statement.to.short()
    )
}
