//! One statement onto `control`, or onto a branch off it: what promotions and rollbacks share.
//!
//! The decision is made on the newest `control` each time somebody else was
//! first. What it is made on is checked before anything is built on it: policy
//! epochs from the pinned root, every statement of the signature sealed by its
//! promoter and in its place, the pointer where the last one put it.

use std::fmt::Write as _;

use crate::domain::improve::artifact::Program;
use crate::domain::prove::policy::Policy;
use crate::domain::prove::promotion::{Bound, Draft, Kind as Move, Place, Statement};
use crate::domain::prove::verdict::Verdict;
use crate::id::{Digest, PrincipalId, SignatureId};
use crate::records::artifacts::Artifacts;
use crate::records::control::{self, Control, Landed};
use crate::records::refs::path;
use crate::seal::{Envelope, Namespace, SealSigner};
use crate::store::{Decision, Outcome, Snapshot, Transaction};

use super::promote::{Landing, Promoted, Proposal};
use super::proposal::{self, Open};
use super::workspace::KeyRole;
use super::{FlowError, Kind, Workspace};

/// What a decision is made on.
#[derive(Debug)]
pub struct Facts {
    /// The policy that is current.
    pub policy: Policy,
    /// Every statement of the signature, oldest first.
    pub history: Vec<Landed>,
    /// Where the next one stands.
    pub place: Place,
    /// Whose key would seal it; `None` when the policy does not know it.
    pub promoter: Option<PrincipalId>,
}

impl Facts {
    /// Read `control` as a snapshot holds it, and check it.
    pub fn read(
        workspace: &Workspace,
        snapshot: Option<&Snapshot>,
        signature: &SignatureId,
        sealer: &SealSigner,
    ) -> Result<Self, FlowError> {
        let root = workspace.project.control.root.ok_or_else(|| {
            FlowError::input("proofline.toml pins no root").hint("run `proofline init`")
        })?;
        let control = Control::new(&workspace.refs, snapshot);
        let epochs = control.epochs(&root)?;
        let Some(policy) = epochs.last().cloned() else {
            return Err(FlowError::new(
                Kind::Undecidable,
                format!("{} is not here, or holds no policy", workspace.refs.control),
            )
            .hint("run `proofline init`"));
        };
        let history = control.history(signature)?;
        let faults = unsound(&control, &epochs, &root, signature, &history)?;
        if !faults.is_empty() {
            return Err(FlowError::new(
                Kind::Refused,
                format!(
                    "{} is not sound, so nothing is built on it: {}",
                    workspace.refs.control,
                    faults.join("; ")
                ),
            )
            .hint(format!("`proofline promotions show {signature}` says more")));
        }
        let promoter = policy
            .principal_of(&sealer.public_key().to_string())
            .cloned();
        let previous = history
            .last()
            .map(|last| (last.statement.counter, last.digest));
        let place = Place {
            repository: root,
            epoch: policy.epoch,
            previous,
        };
        Ok(Self {
            policy,
            history,
            place,
            promoter,
        })
    }

    /// The artifact in force; `None` before the first promotion.
    pub fn in_force(&self) -> Option<Digest> {
        self.history.last().map(|last| last.statement.to)
    }

    /// The statements without their seals.
    pub fn statements(&self) -> Vec<Statement> {
        self.history
            .iter()
            .map(|landed| landed.statement.clone())
            .collect()
    }
}

/// What is wrong with a signature's history and pointer.
fn unsound(
    control: &Control<'_>,
    epochs: &[Policy],
    root: &Digest,
    signature: &SignatureId,
    history: &[Landed],
) -> Result<Vec<String>, FlowError> {
    let mut faults = Vec::new();
    for landed in history {
        let counter = landed.statement.counter;
        let own = landed_faults(epochs, root, landed);
        faults.extend(
            own.into_iter()
                .map(|fault| format!("statement {counter}: {fault}")),
        );
    }
    let last = control.last_counter(signature)?;
    if last != history.len() as u64 {
        faults.push(format!(
            "there is a statement {last}, and none with the number {}",
            history.len() + 1
        ));
    }
    let pointer = control.pointer(signature)?;
    let expected = history
        .last()
        .map(|last| (last.statement.counter, last.digest, last.statement.to));
    let found = pointer.map(|pointer| (pointer.counter, pointer.statement, pointer.artifact));
    if found != expected {
        faults.push("the pointer is not where the last statement put it".to_owned());
    }
    Ok(faults)
}

/// What is wrong with one statement: its repository, its epoch, its seals.
pub fn landed_faults(epochs: &[Policy], root: &Digest, landed: &Landed) -> Vec<String> {
    let statement = &landed.statement;
    let mut faults = Vec::new();
    if statement.repository != *root {
        faults.push(format!(
            "it is of another repository, {}",
            statement.repository
        ));
    }
    let epoch = usize::try_from(statement.epoch).unwrap_or(usize::MAX);
    match epoch.checked_sub(1).and_then(|index| epochs.get(index)) {
        Some(policy) => {
            faults.extend(policy.replayed(
                epochs.get(epoch),
                &statement.signature,
                statement.counter,
            ));
        }
        None => faults.push(format!("there is no policy epoch {}", statement.epoch)),
    }
    if !landed.sealed_by.contains(&statement.promoter) {
        faults.push(format!(
            "no seal of `{}`, the promoter it names, is on it",
            statement.promoter
        ));
    }
    faults
}

/// What a decision wants done.
#[derive(Debug)]
pub enum Plan {
    /// This statement, with what policy lets pass with a mark.
    Move {
        /// The statement, before it has its place.
        draft: Box<Draft>,
        /// What policy lets pass with a mark.
        marks: Vec<String>,
    },
    /// It has landed before.
    Found(Box<Landed>),
    /// Nothing, and why.
    Withhold(Verdict),
}

/// Land what is decided on `control`.
pub fn land(
    workspace: &Workspace,
    signature: &SignatureId,
    mut decide: impl FnMut(&Facts) -> Result<Plan, FlowError>,
) -> Result<Promoted, FlowError> {
    let sealer = workspace.sealer(KeyRole::Promoter)?;
    let signer = workspace.commit_signer()?;
    let remote = workspace.remote()?;
    let transaction = Transaction::new(workspace.refs.control.clone(), workspace.author()?)
        .signed_by(Some(&signer))
        .shared_with(remote.as_ref());
    let mut planned = None;
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                let facts = Facts::read(workspace, snapshot, signature, &sealer)?;
                let (landing, decision) = match decide(&facts)? {
                    Plan::Move { draft, marks } => {
                        let sealed = seal(*draft, &facts.place, &sealer, marks)?;
                        let decision = sealed.decision()?;
                        (Promoted::Landed(sealed.landing()), decision)
                    }
                    Plan::Found(landed) => (found(*landed), Decision::Nothing),
                    Plan::Withhold(verdict) => (Promoted::Withheld(verdict), Decision::Nothing),
                };
                planned = Some(landing);
                Ok(decision)
            })?;
    let mut promoted = planned
        .ok_or_else(|| FlowError::bug("a transaction on control ended without a decision"))?;
    if let Promoted::Landed(landing) = &mut promoted {
        landing.commit = tip(&outcome)?;
    }
    Ok(promoted)
}

fn tip(outcome: &Outcome) -> Result<String, FlowError> {
    let tip = outcome
        .tip()
        .ok_or_else(|| FlowError::bug("a statement was committed, yet its branch has no tip"))?;
    Ok(tip.to_string())
}

fn found(landed: Landed) -> Promoted {
    Promoted::Landed(Landing {
        statement: landed.statement,
        digest: landed.digest,
        commit: String::new(),
        reused: true,
        marks: Vec::new(),
    })
}

/// Put what is decided on a branch off `control`, for a person.
pub fn propose(
    workspace: &Workspace,
    signature: &SignatureId,
    mut decide: impl FnMut(&Facts) -> Result<Plan, FlowError>,
) -> Result<Promoted, FlowError> {
    let sealer = workspace.sealer(KeyRole::Promoter)?;
    let signer = workspace.commit_signer()?;
    let control = newest_control(workspace)?;
    let facts = Facts::read(workspace, Some(&control), signature, &sealer)?;
    let (draft, marks) = match decide(&facts)? {
        Plan::Move { draft, marks } => (draft, marks),
        Plan::Found(landed) => {
            let mut promoted = found(*landed);
            if let Promoted::Landed(landing) = &mut promoted {
                landing.commit = control.commit().to_string();
            }
            return Ok(promoted);
        }
        Plan::Withhold(verdict) => return Ok(Promoted::Withheld(verdict)),
    };
    let counter = facts.place.counter();
    let branch = workspace.refs.proposal(signature, counter)?;
    if let Some(open @ Open::OnRemote(..)) = proposal::open(workspace, signature, counter)? {
        return Ok(Promoted::Withheld(waiting(&open, None)));
    }
    let transaction = Transaction::new(branch.clone(), workspace.author()?)
        .signed_by(Some(&signer))
        .starting_at(control.commit());
    let mut planned = None;
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                let there = Control::new(&workspace.refs, snapshot).landed(signature, counter)?;
                let (sealed, decision) = match there {
                    Some(landed) if same_move(&landed.statement, &draft) => {
                        (Sealed::again(landed, &marks), Decision::Nothing)
                    }
                    Some(landed) => {
                        planned = Some(Err(waiting(
                            &Open::Here(branch.clone()),
                            Some(&landed.statement),
                        )));
                        return Ok(Decision::Nothing);
                    }
                    None => {
                        let sealed = seal((*draft).clone(), &facts.place, &sealer, marks.clone())?;
                        let decision = sealed.decision()?;
                        (sealed, decision)
                    }
                };
                planned = Some(Ok(sealed));
                Ok(decision)
            })?;
    let sealed = match planned {
        Some(Ok(sealed)) => sealed,
        Some(Err(verdict)) => return Ok(Promoted::Withheld(verdict)),
        None => return Err(FlowError::bug("a proposal ended without a decision")),
    };
    let body = proposal::write_body(
        workspace,
        &sealed.statement,
        &sealed.digest,
        &branch,
        &sealed.marks,
    )?;
    Ok(Promoted::Proposed(Proposal {
        commands: proposal::commands(workspace, &sealed.statement, &branch, &body),
        commit: tip(&outcome)?,
        branch: branch.short().to_owned(),
        reused: sealed.envelope.is_none(),
        statement: sealed.statement,
        digest: sealed.digest,
        marks: sealed.marks,
        body,
    }))
}

/// `control` as it is now, the remote's included where there is one.
fn newest_control(workspace: &Workspace) -> Result<Snapshot, FlowError> {
    let remote = workspace.remote()?;
    let look = Transaction::new(workspace.refs.control.clone(), workspace.author()?)
        .shared_with(remote.as_ref());
    let outcome = workspace
        .store
        .transact(&look, |_| -> Result<Decision, FlowError> {
            Ok(Decision::Nothing)
        })?;
    let tip = outcome.tip().ok_or_else(|| {
        FlowError::new(
            Kind::Undecidable,
            format!("{} is not here", workspace.refs.control),
        )
        .hint("run `proofline init`")
    })?;
    Ok(workspace.store.snapshot_at(tip)?)
}

fn waiting(open: &Open, statement: Option<&Statement>) -> Verdict {
    let what = match statement {
        Some(statement) => format!(", {} to {}", word(statement.kind), statement.to.short()),
        None => String::new(),
    };
    Verdict::Refuse {
        reasons: vec![format!(
            "a proposal waits for a person already: {open}{what}; merge it, or withdraw it by deleting the branch"
        )],
    }
}

fn same_move(statement: &Statement, draft: &Draft) -> bool {
    statement.kind == draft.kind
        && statement.run == draft.run
        && statement.from == draft.from
        && statement.to == draft.to
}

/// A statement with its seal.
struct Sealed {
    statement: Statement,
    digest: Digest,
    /// `None` when it was sealed before.
    envelope: Option<Envelope>,
    marks: Vec<String>,
}

fn seal(
    draft: Draft,
    place: &Place,
    sealer: &SealSigner,
    marks: Vec<String>,
) -> Result<Sealed, FlowError> {
    let statement = draft.at(place);
    let envelope = Envelope::seal(&statement.in_toto()?, &[sealer], Namespace::Promotion)?;
    Ok(Sealed {
        digest: statement.digest()?,
        envelope: Some(envelope),
        statement,
        marks,
    })
}

impl Sealed {
    fn again(landed: Landed, marks: &[String]) -> Self {
        Self {
            statement: landed.statement,
            digest: landed.digest,
            envelope: None,
            marks: marks.to_vec(),
        }
    }

    fn decision(&self) -> Result<Decision, FlowError> {
        let Some(envelope) = &self.envelope else {
            return Ok(Decision::Nothing);
        };
        Ok(Decision::Commit {
            edits: Control::landing(&self.statement, envelope)?,
            message: message(&self.statement, &self.digest, &self.marks),
        })
    }

    fn landing(self) -> Landing {
        Landing {
            statement: self.statement,
            digest: self.digest,
            commit: String::new(),
            reused: false,
            marks: self.marks,
        }
    }
}

/// The word for a move, as in a commit's subject.
pub fn word(kind: Move) -> &'static str {
    match kind {
        Move::Promotion => "promote",
        Move::Rollback => "rollback",
    }
}

/// `promote SelectTool.v1: 3f2a91bc → 9bc10f44 (+7.2 points on 260 holdout rows, p=0.0004)`
pub fn subject(statement: &Statement) -> String {
    let short = |digest: &Digest| digest.hex()[..8].to_owned();
    let mut text = format!(
        "{} {}: {} → {}",
        word(statement.kind),
        statement.signature.name(),
        short(&statement.from),
        short(&statement.to)
    );
    if let Some((gain, rows, p)) = statement.holdout_gain() {
        let _ = write!(
            text,
            " ({:+.1} points on {rows} holdout rows, p={})",
            100.0 * gain,
            p_value(p)
        );
    }
    text
}

/// Two significant digits; `1.2e-7` when it is small.
pub fn p_value(p: f64) -> String {
    if p >= 0.001 {
        format!("{p:.3}")
    } else {
        format!("{p:.1e}")
    }
}

fn message(statement: &Statement, digest: &Digest, marks: &[String]) -> String {
    let mut text = format!("{}\n\n", subject(statement));
    match (&statement.reason, statement.kind) {
        (Some(reason), _) => {
            let _ = writeln!(text, "{reason}\n");
        }
        (None, Move::Promotion) => {
            let _ = writeln!(
                text,
                "{} is in force for {} from here on, instead of {}.\n",
                statement.to, statement.signature, statement.from
            );
        }
        (None, Move::Rollback) => {}
    }
    if !statement.gates.is_empty() {
        text.push_str("Gates:\n");
        for gate in &statement.gates {
            let skipped = match &gate.skipped {
                Some(why) => format!(" (skipped: {why})"),
                None => String::new(),
            };
            let _ = writeln!(text, "  {}: {}{skipped}", gate.gate, gate.verdict.word());
        }
        text.push('\n');
    }
    for mark in marks {
        let _ = writeln!(text, "Mark: {mark}.\n");
    }
    if !statement.inputs.is_empty() {
        text.push_str("Evidence:\n");
        for input in &statement.inputs {
            let _ = writeln!(text, "  {} {}", input.name, input.digest);
        }
        text.push('\n');
    }
    let _ = writeln!(text, "Signature: {}", statement.signature);
    let _ = writeln!(text, "Counter: {}", statement.counter);
    let _ = writeln!(text, "Artifact: {}", statement.to);
    let _ = writeln!(text, "Statement: {digest}");
    if let Some(run) = &statement.run {
        let _ = writeln!(text, "Run: {run}");
    }
    text
}

/// The artifact that is to be in force, which must be here, and where it is.
pub fn artifact(
    workspace: &Workspace,
    signature: &SignatureId,
    artifact: &Digest,
) -> Result<(Program, Bound), FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let program = Artifacts::new(&workspace.refs, snapshot.as_ref())
        .program_expected(signature, artifact)
        .map_err(|error| {
            let error = FlowError::from(error);
            match &workspace.project.remote {
                Some(remote) => error.hint(format!(
                    "fetch it: `git fetch {remote} {0}:{0}`",
                    workspace.refs.artifacts
                )),
                None => error,
            }
        })?;
    let bound = control::bind(
        "artifact",
        &workspace.refs.artifacts,
        snapshot.as_ref(),
        &path::artifact(signature, artifact),
    )?;
    Ok((program, bound))
}
