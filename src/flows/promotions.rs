//! Statements that landed: a list of them, and one of them verified.
//!
//! Verifying recomputes what can be recomputed from the repository alone: the
//! seal, the chain, the epoch, the pointer, the landing commit and its
//! signature, the digests of everything the statement binds. What a gate printed
//! stays what its label says. What is not here is undecidable, with the command
//! that fetches it; never a silent pass.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::canon;
use crate::domain::prove::admission;
use crate::domain::prove::policy::{Policy, Role};
use crate::domain::prove::promotion::{Bound, Kind as Move, Place, Statement};
use crate::domain::prove::verdict::{GateResult, Label, Verdict};
use crate::id::{Digest, PrincipalId, RunId, SignatureId};
use crate::records::artifacts::Artifacts;
use crate::records::control::{Control, Landed, STATEMENT};
use crate::records::refs::path;
use crate::records::{RecordError, sealed};
use crate::seal::commit::{self, CommitFormat, GitVerifyError, ObjectFormat, SignedCommit};
use crate::seal::{Envelope, Namespace, PublicKey, SealError};
use crate::store::{self, CommitRecord, ObjectName, ReadError, Snapshot, TreePath};

use super::land::landed_faults;
use super::{FlowError, Kind, Workspace, signatures};

/// One statement in a list.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The signature.
    pub signature: SignatureId,
    /// The statement's number.
    pub counter: u64,
    /// Promotion or rollback.
    pub kind: Move,
    /// The artifact in force before.
    pub from: Digest,
    /// The artifact in force after.
    pub to: Digest,
    /// Who sealed it.
    pub promoter: PrincipalId,
    /// Whether they sealed the evidence, too.
    pub self_attested: bool,
    /// The run that found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The gain on the holdout, −1 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// Why, for a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it is what is in force now.
    pub in_force: bool,
    /// The statement's digest.
    pub digest: Digest,
}

/// Every statement, or those of one signature, oldest first.
pub fn list(
    workspace: &Workspace,
    signature: Option<&SignatureId>,
) -> Result<Vec<Listed>, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.control)?;
    let control = Control::new(&workspace.refs, snapshot.as_ref());
    let signatures = match signature {
        Some(signature) => vec![signature.clone()],
        None => control.signatures()?,
    };
    let mut listed = Vec::new();
    for signature in signatures {
        let pointer = control.pointer(&signature)?;
        for landed in control.history(&signature)? {
            let statement = landed.statement;
            listed.push(Listed {
                in_force: pointer
                    .as_ref()
                    .is_some_and(|pointer| pointer.statement == landed.digest),
                gain: statement.holdout_gain().map(|(gain, _, _)| gain),
                signature: statement.signature,
                counter: statement.counter,
                kind: statement.kind,
                from: statement.from,
                to: statement.to,
                promoter: statement.promoter,
                self_attested: statement.self_attested,
                run: statement.run,
                reason: statement.reason,
                digest: landed.digest,
            });
        }
    }
    Ok(listed)
}

/// The signature that a text names: an id, or where that is unique the last component of one
/// that has a pointer, or of one in the user's files.
pub fn signature(workspace: &Workspace, text: &str) -> Result<SignatureId, FlowError> {
    if text.contains('/') {
        return Ok(text.parse()?);
    }
    let snapshot = workspace.store.snapshot(&workspace.refs.control)?;
    let known = Control::new(&workspace.refs, snapshot.as_ref()).signatures()?;
    let mut found: Vec<SignatureId> = known.into_iter().filter(|id| id.name() == text).collect();
    match (found.pop(), found.is_empty()) {
        (Some(id), true) => Ok(id),
        (Some(_), false) => Err(FlowError::usage(format!(
            "several signatures are called `{text}`; give the whole id"
        ))),
        // What was never promoted is only in the user's files.
        (None, _) => Ok(signatures::find(workspace, text)?.signature.id),
    }
}

/// One statement, verified.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The signature.
    pub signature: SignatureId,
    /// The statement's number.
    pub counter: u64,
    /// What was sealed; absent when it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<Statement>,
    /// Its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The commit that landed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What was verified, each with its answer.
    pub checks: Vec<GateResult>,
    /// The answer of all of them together.
    pub verdict: Verdict,
}

/// Verify one statement: the last one when no counter is given, as `control` or another revision holds it.
pub fn show(
    workspace: &Workspace,
    signature: &SignatureId,
    counter: Option<u64>,
    at: Option<&str>,
) -> Result<Shown, FlowError> {
    let snapshot = revision(workspace, at)?;
    let control = Control::new(&workspace.refs, Some(&snapshot));
    let root = workspace.project.control.root.ok_or_else(|| {
        FlowError::input("proofline.toml pins no root").hint("run `proofline init`")
    })?;
    let epochs = match judged(control.epochs(&root))? {
        Ok(epochs) => epochs,
        Err(verdict) => {
            return Ok(Shown {
                signature: signature.clone(),
                counter: counter.unwrap_or(0),
                statement: None,
                digest: None,
                commit: None,
                checks: vec![GateResult::new("policy", verdict.clone())],
                verdict,
            });
        }
    };
    let last = control.last_counter(signature)?;
    let counter = match counter {
        Some(counter) if counter >= 1 && counter <= last => counter,
        None if last >= 1 => last,
        Some(counter) => {
            return Err(FlowError::input(format!(
                "{signature} has no statement {counter}; it has {last}"
            )));
        }
        None => {
            return Err(
                FlowError::input(format!("nothing was ever promoted for {signature}"))
                    .hint("`proofline promotions list` shows what was"),
            );
        }
    };
    let view = View {
        workspace,
        snapshot: &snapshot,
        control,
        epochs: &epochs,
        root: &root,
        signature,
        counter,
        last,
    };
    view.verify()
}

fn revision(workspace: &Workspace, at: Option<&str>) -> Result<Snapshot, FlowError> {
    let control = &workspace.refs.control;
    let found = match at {
        None => workspace.store.tip(control)?,
        Some(at) => workspace.store.resolve(at)?,
    };
    let tip = found.ok_or_else(|| {
        let name = at.map_or_else(|| control.short().to_owned(), str::to_owned);
        let error = FlowError::new(Kind::Undecidable, format!("{name} is not here"));
        match &workspace.project.remote {
            Some(remote) => error.hint(format!("fetch it: `git fetch {remote} {name}:{name}`")),
            None => error.hint("run `proofline init`"),
        }
    })?;
    Ok(workspace.store.snapshot_at(tip)?)
}

struct View<'a> {
    workspace: &'a Workspace,
    snapshot: &'a Snapshot,
    control: Control<'a>,
    epochs: &'a [Policy],
    root: &'a Digest,
    signature: &'a SignatureId,
    counter: u64,
    last: u64,
}

impl View<'_> {
    fn verify(&self) -> Result<Shown, FlowError> {
        let mut checks = Vec::new();
        let mut commit = None;
        let sealed = judged(self.control.statement(self.signature, self.counter))?;
        let (statement, digest) = match sealed {
            Ok(Some((statement, envelope))) => {
                let digest = statement.digest()?;
                checks.push(self.seal(&statement, &envelope, digest)?);
                checks.push(self.readable(&digest)?);
                checks.push(self.chain(&statement)?);
                checks.push(self.pointer(&statement, &digest)?);
                checks.extend(self.landing(&statement, &mut commit)?);
                checks.push(self.artifact(&statement)?);
                checks.push(self.inputs(&statement)?);
                (Some(statement), Some(digest))
            }
            Ok(None) => {
                let reasons = vec![format!("there is no statement {}", self.counter)];
                checks.push(GateResult::new("seal", Verdict::Refuse { reasons }));
                (None, None)
            }
            Err(verdict) => {
                checks.push(GateResult::new("seal", verdict));
                (None, None)
            }
        };
        Ok(Shown {
            signature: self.signature.clone(),
            counter: self.counter,
            statement,
            digest,
            commit: commit.map(|commit| commit.to_string()),
            verdict: together(&checks),
            checks,
        })
    }

    /// The policy epoch that the statement names.
    fn policy(&self, statement: &Statement) -> Option<&Policy> {
        let index = usize::try_from(statement.epoch).ok()?.checked_sub(1)?;
        self.epochs.get(index)
    }

    /// Sealed by the promoter it names, who was one in the epoch it names, which was current then.
    fn seal(
        &self,
        statement: &Statement,
        envelope: &Envelope,
        digest: Digest,
    ) -> Result<GateResult, FlowError> {
        let sealed_by = match self.policy(statement) {
            Some(policy) => {
                sealed::sealed_by(envelope, policy, Role::Promoter, Namespace::Promotion)?
            }
            None => Vec::new(),
        };
        let names: Vec<&str> = sealed_by.iter().map(PrincipalId::as_str).collect();
        let names = names.join(", ");
        let landed = Landed {
            statement: statement.clone(),
            digest,
            sealed_by,
        };
        let mut reasons = landed_faults(self.epochs, self.root, &landed);
        if let Some(policy) = self.policy(statement)
            && statement.self_attested
            && !policy.promotion.self_attested
            && statement.kind == Move::Promotion
            && !admission::is_re_executed(&statement.gates)
        {
            reasons.push(
                "its promoter sealed the evidence, too, and policy does not allow that".to_owned(),
            );
        }
        Ok(GateResult::new("seal", Verdict::from_reasons(reasons))
            .with("sealed by", names, &Label::Recomputed)
            .with("epoch", statement.epoch, &Label::Recomputed))
    }

    /// `promotion.yaml` says what was sealed.
    fn readable(&self, digest: &Digest) -> Result<GateResult, FlowError> {
        let verdict = match judged(self.control.readable(self.signature, self.counter))? {
            Ok(found) => Verdict::from_reasons(match found {
                Some(found) if found == *digest => Vec::new(),
                Some(_) => vec!["promotion.yaml does not say what was sealed".to_owned()],
                None => vec!["promotion.yaml is missing".to_owned()],
            }),
            Err(verdict) => verdict,
        };
        Ok(GateResult::new("promotion.yaml", verdict))
    }

    /// Every statement from the first to this one, each in its place.
    fn chain(&self, statement: &Statement) -> Result<GateResult, FlowError> {
        let mut place = Place {
            repository: *self.root,
            epoch: statement.epoch,
            previous: None,
        };
        let mut in_force = None;
        let mut epoch = 0;
        let mut reasons = Vec::new();
        for counter in 1..=self.counter {
            let earlier = match judged(self.control.statement(self.signature, counter))? {
                Ok(Some((earlier, _))) => earlier,
                Ok(None) => {
                    reasons.push(format!("statement {counter} is missing"));
                    break;
                }
                Err(verdict) => return Ok(GateResult::new("chain", verdict)),
            };
            let faults = earlier.faults_at(&place, in_force.as_ref());
            reasons.extend(
                faults
                    .into_iter()
                    .map(|fault| format!("statement {counter}: {fault}")),
            );
            if earlier.epoch < epoch {
                reasons.push(format!(
                    "statement {counter} is of policy epoch {}, after one of epoch {epoch}",
                    earlier.epoch
                ));
            }
            epoch = earlier.epoch;
            in_force = Some(earlier.to);
            place.previous = Some((counter, earlier.digest()?));
        }
        Ok(
            GateResult::new("chain", Verdict::from_reasons(reasons)).with(
                "statements",
                self.counter,
                &Label::Recomputed,
            ),
        )
    }

    /// The pointer is where the last statement put it.
    fn pointer(&self, statement: &Statement, digest: &Digest) -> Result<GateResult, FlowError> {
        let pointer = match judged(self.control.pointer(self.signature))? {
            Ok(pointer) => pointer,
            Err(verdict) => return Ok(GateResult::new("pointer", verdict)),
        };
        let expected = if self.counter == self.last {
            Some((statement.to, self.counter, *digest))
        } else {
            match judged(self.control.statement(self.signature, self.last))? {
                Ok(Some((last, _))) => Some((last.to, self.last, last.digest()?)),
                Ok(None) => None,
                Err(verdict) => return Ok(GateResult::new("pointer", verdict)),
            }
        };
        let found = pointer.map(|pointer| (pointer.artifact, pointer.counter, pointer.statement));
        let reasons = match found {
            _ if found == expected => Vec::new(),
            None => vec!["there is no pointer".to_owned()],
            Some((artifact, counter, _)) => vec![format!(
                "the pointer says that {} is in force by statement {counter}; no statement put it there",
                artifact.short()
            )],
        };
        Ok(
            GateResult::new("pointer", Verdict::from_reasons(reasons)).with(
                "in force",
                self.counter == self.last,
                &Label::Recomputed,
            ),
        )
    }

    /// The commit that landed it changes nothing else, and somebody who may signed it.
    fn landing(
        &self,
        statement: &Statement,
        found: &mut Option<ObjectName>,
    ) -> Result<Vec<GateResult>, FlowError> {
        let landing = match read(self.landing_commit()) {
            Ok(Some(landing)) => landing,
            Ok(None) => {
                let missing =
                    vec!["the commit that landed it is not in the history that is here".to_owned()];
                let fetch = Some("git fetch --unshallow".to_owned());
                return Ok(vec![GateResult::new(
                    "landing",
                    Verdict::Undecidable { missing, fetch },
                )]);
            }
            Err(verdict) => return Ok(vec![GateResult::new("landing", verdict)]),
        };
        *found = Some(landing.id);
        let alone = match read(self.strangers(&landing)) {
            Ok(strangers) => Verdict::from_reasons(strangers),
            Err(verdict) => verdict,
        };
        let alone = GateResult::new("landing", alone).with(
            "commit",
            landing.id.to_string(),
            &Label::Recomputed,
        );
        let Some(policy) = self.policy(statement) else {
            return Ok(vec![alone]);
        };
        Ok(vec![alone, self.signature_of(&landing, policy)?])
    }

    /// The newest first-parent commit that the statement's file came with.
    fn landing_commit(&self) -> Result<Option<CommitRecord>, ReadError> {
        let store = &self.workspace.store;
        let file = path::promotion(self.signature, self.counter, STATEMENT);
        let mut record = store.commit(self.snapshot.commit())?;
        let wanted = self.snapshot.entry(&file)?;
        loop {
            let Some(parent) = record.parents.first().copied() else {
                return Ok(Some(record));
            };
            if !store.has_object(parent) {
                return Ok(None);
            }
            if store.snapshot_at(parent)?.entry(&file)? != wanted {
                return Ok(Some(record));
            }
            record = store.commit(parent)?;
        }
    }

    /// What the landing changed besides the statement and its pointer.
    fn strangers(&self, landing: &CommitRecord) -> Result<Vec<String>, ReadError> {
        let store = &self.workspace.store;
        let before = match landing.parents.first() {
            Some(parent) => Some(store.snapshot_at(*parent)?),
            None => None,
        };
        let changes = store
            .snapshot_at(landing.id)?
            .changes_since(before.as_ref())?;
        let own = format!("{}/{}/", path::promotions(self.signature), self.counter);
        let pointer = path::active(self.signature);
        Ok(changes
            .iter()
            .filter(|change| change.path != pointer && !change.path.as_str().starts_with(&own))
            .map(|change| format!("the landing changes {}, too", change.path))
            .collect())
    }

    /// Who signed the landing, or a commit that it merged and that holds the same statement.
    fn signature_of(
        &self,
        landing: &CommitRecord,
        policy: &Policy,
    ) -> Result<GateResult, FlowError> {
        let mut answers = vec![self.signed(landing.id, policy)?];
        for parent in landing.parents.iter().skip(1) {
            if answers[0].verdict.is_pass() {
                break;
            }
            let file = path::promotion(self.signature, self.counter, STATEMENT);
            let same = self
                .workspace
                .store
                .snapshot_at(*parent)
                .and_then(|merged| merged.entry(&file));
            if matches!(same, Ok(entry) if entry == self.snapshot.entry(&file)?) {
                answers.insert(0, self.signed(*parent, policy)?);
            }
        }
        Ok(answers.swap_remove(0))
    }

    fn signed(&self, commit: ObjectName, policy: &Policy) -> Result<GateResult, FlowError> {
        let format = match self.workspace.store.object_format() {
            store::ObjectFormat::Sha1 => ObjectFormat::Sha1,
            store::ObjectFormat::Sha256 => ObjectFormat::Sha256,
        };
        let answer = |verdict| GateResult::new("commit signature", verdict);
        let refuse = |reason: String| Ok(answer(Verdict::from_reasons(vec![reason])));
        let bytes = match read(self.workspace.store.commit_bytes(commit)) {
            Ok(bytes) => bytes,
            Err(verdict) => return Ok(answer(verdict)),
        };
        let signed = match SignedCommit::parse(&bytes, format) {
            Ok(Some(signed)) => signed,
            Ok(None) if policy.promotion.require_signed_commit => {
                return refuse(format!(
                    "commit {} is not signed, and policy asks for it",
                    commit.short()
                ));
            }
            Ok(None) => return Ok(answer(Verdict::Pass).with("signed", false, &Label::Recomputed)),
            Err(error) => return refuse(error.to_string()),
        };
        if signed.format != CommitFormat::Ssh {
            return Ok(self.by_git(commit));
        }
        let (keys, names) = landers(policy);
        let by_hand = format!("git verify-commit {commit}");
        match signed.verify_ssh(&keys) {
            Ok(key) => {
                let at = keys.iter().position(|known| known == key);
                let name = at.map_or("", |at| names[at].as_str());
                Ok(answer(Verdict::Pass).with("signed by", name, &Label::Recomputed))
            }
            Err(SealError::UnsupportedAlgorithm { what }) => Ok(answer(Verdict::Undecidable {
                missing: vec![format!(
                    "the signature is by means that only git verifies: {what}"
                )],
                fetch: Some(by_hand),
            })),
            Err(error) => refuse(format!("commit {}: {error}", commit.short())),
        }
    }

    /// OpenPGP and X.509: git and gpg say whose key it is; the policy does not know those keys.
    fn by_git(&self, id: ObjectName) -> GateResult {
        let store = &self.workspace.store;
        let dir = store.work_dir().unwrap_or_else(|| store.git_dir());
        let answer = |verdict| GateResult::new("commit signature", verdict);
        match commit::verify_with_git(dir, &id.to_string()) {
            Ok(good) => answer(Verdict::Pass)
                .with("signed by", good.signer, &Label::Recomputed)
                .with("key", good.primary_fingerprint, &Label::Recomputed),
            Err(GitVerifyError::Refused { output, .. }) if output.contains("BADSIG") => {
                answer(Verdict::from_reasons(vec![format!(
                    "git says that the signature is bad: {output}"
                )]))
            }
            Err(error) => answer(Verdict::Undecidable {
                missing: vec![format!("whose signature it is: {error}")],
                fetch: Some("gpg --recv-keys KEY".to_owned()),
            }),
        }
    }

    /// The artifact is here, is what its name says, and has the interface that was bound.
    fn artifact(&self, statement: &Statement) -> Result<GateResult, FlowError> {
        let snapshot = self
            .workspace
            .store
            .snapshot(&self.workspace.refs.artifacts)?;
        let artifacts = Artifacts::new(&self.workspace.refs, snapshot.as_ref());
        let program = match judged(artifacts.program(self.signature, &statement.to))? {
            Ok(Some(program)) => program,
            Ok(None) => {
                let missing = vec![format!("artifact {} is not here", statement.to)];
                let fetch = self.fetch_ref(self.workspace.refs.artifacts.as_str());
                return Ok(GateResult::new(
                    "artifact",
                    Verdict::Undecidable { missing, fetch },
                ));
            }
            Err(verdict) => return Ok(GateResult::new("artifact", verdict)),
        };
        let mut reasons = Vec::new();
        if canon::digest(&program.interface)? != statement.interface {
            reasons.push("its interface is not the one that was bound".to_owned());
        }
        Ok(GateResult::new("artifact", Verdict::from_reasons(reasons)))
    }

    /// Every bound input is here with the bytes that were bound.
    fn inputs(&self, statement: &Statement) -> Result<GateResult, FlowError> {
        let mut reasons = Vec::new();
        let mut missing = Vec::new();
        let mut fetch = None;
        for input in &statement.inputs {
            match self.bound(input) {
                Ok(Some(digest)) if digest == input.digest => {}
                Ok(Some(_)) => reasons.push(format!(
                    "{} is not what was bound: {}",
                    input.name, input.path
                )),
                Ok(None) => {
                    missing.push(format!(
                        "{} is not here: commit {}",
                        input.name, input.commit
                    ));
                    fetch = fetch.or_else(|| self.fetch_ref(&input.reference));
                }
                Err(reason) => reasons.push(format!("{}: {reason}", input.name)),
            }
        }
        let verdict = if reasons.is_empty() && !missing.is_empty() {
            Verdict::Undecidable { missing, fetch }
        } else {
            Verdict::from_reasons(reasons)
        };
        Ok(GateResult::new("inputs", verdict).with(
            "bound",
            statement.inputs.len() as u64,
            &Label::Recomputed,
        ))
    }

    /// The digest of a bound input's bytes; `None` when they are not here.
    fn bound(&self, input: &Bound) -> Result<Option<Digest>, String> {
        let commit: ObjectName = input.commit.parse().map_err(|error| format!("{error}"))?;
        let file: TreePath = input.path.parse().map_err(|error| format!("{error}"))?;
        let store = &self.workspace.store;
        match store
            .snapshot_at(commit)
            .and_then(|snapshot| snapshot.read(&file))
        {
            Ok(Some(bytes)) => Ok(Some(Digest::of(&bytes))),
            Ok(None) => Err(format!("commit {} has no {file}", commit.short())),
            Err(ReadError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn fetch_ref(&self, reference: &str) -> Option<String> {
        let remote = self.workspace.project.remote.clone();
        let remote =
            remote.or_else(|| Some(self.workspace.store.remotes().first()?.name().to_owned()))?;
        Some(format!("git fetch {remote} {reference}"))
    }
}

/// The keys of everyone who may sign a landing, each with its owner's name.
fn landers(policy: &Policy) -> (Vec<PublicKey>, Vec<PrincipalId>) {
    let roles = [Role::Maintainer, Role::Promoter, Role::Reviewer];
    let names: BTreeSet<&PrincipalId> = roles
        .iter()
        .flat_map(|role| policy.in_role(*role))
        .collect();
    let mut keys = (Vec::new(), Vec::new());
    for name in names {
        let own = policy
            .principals
            .get(name)
            .into_iter()
            .flat_map(|principal| &principal.keys);
        for key in own.filter_map(|key| key.parse().ok()) {
            keys.0.push(key);
            keys.1.push(name.clone());
        }
    }
    keys
}

/// A record that cannot be accepted is a refusal, one that is not here is undecidable; the rest are errors.
fn judged<T>(found: Result<T, RecordError>) -> Result<Result<T, Verdict>, FlowError> {
    Ok(match found {
        Ok(value) => Ok(value),
        Err(RecordError::Read(error)) => Err(unread(&error)),
        Err(RecordError::Document(diagnostics)) => Err(Verdict::from_reasons(
            diagnostics.iter().map(ToString::to_string).collect(),
        )),
        Err(
            error @ (RecordError::Digest { .. } | RecordError::Pin { .. } | RecordError::Other(_)),
        ) => Err(Verdict::from_reasons(vec![error.to_string()])),
        Err(error) => return Err(error.into()),
    })
}

fn read<T>(found: Result<T, ReadError>) -> Result<T, Verdict> {
    found.map_err(|error| unread(&error))
}

fn unread(error: &ReadError) -> Verdict {
    match error {
        ReadError::Missing { .. } => Verdict::Undecidable {
            missing: vec![error.to_string()],
            fetch: None,
        },
        other => Verdict::from_reasons(vec![other.to_string()]),
    }
}

/// A refusal among them refuses; else what one cannot decide, all cannot.
fn together(checks: &[GateResult]) -> Verdict {
    let mut reasons = Vec::new();
    let mut all_missing = Vec::new();
    let mut command = None;
    for check in checks {
        match &check.verdict {
            Verdict::Pass => {}
            Verdict::Refuse { reasons: why } => {
                reasons.extend(why.iter().map(|why| format!("{}: {why}", check.gate)));
            }
            Verdict::Undecidable { missing, fetch } => {
                all_missing.extend(missing.iter().map(|what| format!("{}: {what}", check.gate)));
                command = command.or_else(|| fetch.clone());
            }
        }
    }
    if reasons.is_empty() && !all_missing.is_empty() {
        return Verdict::Undecidable {
            missing: all_missing,
            fetch: command,
        };
    }
    Verdict::from_reasons(reasons)
}
