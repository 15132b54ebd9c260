//! `proofline runs verify`: follow every link of a run's record to what is
//! committed, and do again what can be done again.
//!
//! Each link gets a verdict of its own. It refuses where something is wrong: a
//! commit that its branch no longer holds, bytes that are not what their name
//! says, a figure that comes out differently, a seal of nobody's. It is
//! undecidable where something is not here, with the command that fetches it.
//! Nothing is run and nothing is fetched.

mod reports;
mod sealed;

use serde::Serialize;

use crate::domain::operate::command::CommandKind;
use crate::domain::operate::run::{Link, Run, Status, link};
use crate::domain::prove::policy::Policy;
use crate::domain::prove::verdict::{Figure, GateResult, Label, Verdict};
use crate::id::{Digest, PrincipalId, RunId};
use crate::records::control::Control;
use crate::records::{RecordError, document, journal};
use crate::schema::SchemaName;
use crate::store::{NameError, ObjectName, ReadError, RefName, Snapshot, TreePath};

use super::{FlowError, Workspace, runs};

/// What following every link of a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub status: Status,
    /// All of it: refused where a link is refused, undecidable where one is undecidable.
    pub verdict: Verdict,
    /// Each link by its key, and before them the record itself: `events`, `commit`, `signature …`.
    pub links: Vec<GateResult>,
}

impl Verified {
    /// 0, 1 or 3.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Pass => 0,
            Verdict::Refuse { .. } => 1,
            Verdict::Undecidable { .. } => 3,
        }
    }
}

/// Follow every link of a run.
pub fn verify(workspace: &Workspace, run: &RunId) -> Result<Verified, FlowError> {
    let record = runs::record(workspace, run)?;
    let check = Check {
        workspace,
        epochs: epochs(workspace),
        record: &record,
    };
    let mut links = vec![check.result("events", check.events(run))];
    if let Some(commit) = &record.commit {
        links.push(check.result("commit", check.code(commit)));
    }
    for signature in &record.signatures {
        let key = link::key(link::SIGNATURE, Some(signature));
        if !record.links.contains_key(&key) {
            let found = check.any_frozen(signature);
            links.push(match found {
                Ok(Some(figures)) => check.result(&key, Ok(figures)),
                // A run that ended before anything of the signature was frozen.
                Ok(None) => skipped(&key, "nothing of it is frozen on the artifacts branch"),
                Err(fault) => check.result(&key, Err(fault)),
            });
        }
    }
    let order = |key: &str| {
        let name = link::parse_key(key).0;
        link::ALL
            .iter()
            .position(|known| *known == name)
            .unwrap_or(link::ALL.len())
    };
    let mut keys: Vec<(&String, &String)> = record.links.iter().collect();
    keys.sort_by_key(|(key, _)| (link::parse_key(key).1, order(key)));
    for (key, text) in keys {
        links.push(check.link(key, text));
    }
    Ok(Verified {
        run: run.clone(),
        status: record.status,
        verdict: overall(&links),
        links,
    })
}

fn overall(links: &[GateResult]) -> Verdict {
    let (mut refused, mut lacking, mut command) = (Vec::new(), Vec::new(), None);
    for link in links {
        match &link.verdict {
            Verdict::Pass => {}
            Verdict::Refuse { reasons } => refused.extend(
                reasons
                    .iter()
                    .map(|reason| format!("{}: {reason}", link.gate)),
            ),
            Verdict::Undecidable { missing, fetch } => {
                lacking.extend(missing.iter().map(|what| format!("{}: {what}", link.gate)));
                command = command.or_else(|| fetch.clone());
            }
        }
    }
    match (refused.is_empty(), lacking.is_empty()) {
        (false, _) => Verdict::Refuse { reasons: refused },
        (true, false) => Verdict::Undecidable {
            missing: lacking,
            fetch: command,
        },
        (true, true) => Verdict::Pass,
    }
}

fn skipped(key: &str, why: &str) -> GateResult {
    let mut result = GateResult::new(key, Verdict::Pass);
    result.skipped = Some(why.to_owned());
    result
}

/// Why a link does not pass.
enum Fault {
    /// Something is wrong.
    Wrong(String),
    /// Something is not here.
    Missing { what: String, fetch: Option<String> },
}

/// Figures of a link that passes.
type Found = Result<Vec<Figure>, Fault>;

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Missing {
            what: error.to_string(),
            fetch: None,
        }
    }
}

impl From<RecordError> for Fault {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Read(error) => error.into(),
            RecordError::Missing { .. } => Self::Missing {
                what: error.to_string(),
                fetch: None,
            },
            RecordError::Document(faults) => {
                let all: Vec<String> = faults.iter().map(|fault| fault.message.clone()).collect();
                Self::Wrong(all.join("; "))
            }
            other => Self::Wrong(other.to_string()),
        }
    }
}

macro_rules! wrong {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Wrong(error.to_string())
            }
        }
    )*};
}

wrong!(
    NameError,
    crate::canon::CanonError,
    crate::schema::Diagnostics,
    crate::id::IdError
);

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Fault> {
    match holds {
        true => Ok(()),
        false => Err(Fault::Wrong(otherwise())),
    }
}

fn recomputed(name: &str, value: impl Into<serde_json::Value>) -> Figure {
    Figure {
        name: name.to_owned(),
        value: value.into(),
        label: Label::Recomputed,
    }
}

fn attested(name: &str, value: impl Into<serde_json::Value>, by: &PrincipalId) -> Figure {
    Figure {
        name: name.to_owned(),
        value: value.into(),
        label: Label::AttestedBy(by.clone()),
    }
}

/// Every epoch of the policy, newest first; why not, when they are not here.
fn epochs(workspace: &Workspace) -> Result<Vec<Policy>, String> {
    let root = workspace
        .project
        .control
        .root
        .ok_or("proofline.toml pins no root policy")?;
    let snapshot = workspace
        .store
        .snapshot(&workspace.refs.control)
        .map_err(|error| error.to_string())?;
    let mut epochs = Control::new(&workspace.refs, snapshot.as_ref())
        .epochs(&root)
        .map_err(|error| error.to_string())?;
    if epochs.is_empty() {
        return Err(format!("there is no policy on {}", workspace.refs.control));
    }
    epochs.reverse();
    Ok(epochs)
}

/// Something linked, at the commit it was linked at.
struct Place<'a> {
    link: &'a Link,
    snapshot: Snapshot,
    reference: RefName,
    path: TreePath,
    bytes: Vec<u8>,
}

impl Place<'_> {
    /// What people know it as.
    fn shown(&self) -> String {
        document::shown(&self.reference, &self.path)
    }

    /// A file beside it.
    fn beside(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let folder = self
            .path
            .parent()
            .ok_or_else(|| Fault::Wrong(format!("{} is not in a folder", self.path)))?;
        let path = folder.join(name)?;
        self.snapshot.read(&path)?.ok_or_else(|| {
            Fault::Wrong(format!(
                "{} is not there",
                document::shown(&self.reference, &path)
            ))
        })
    }

    /// The digest in its path: the file's own name, or for a report its folder's.
    fn named(&self, component: usize) -> Result<Digest, Fault> {
        let names: Vec<&str> = self.path.components().collect();
        let name = names
            .iter()
            .rev()
            .nth(component)
            .copied()
            .unwrap_or_default();
        let hex = name.strip_suffix(".yaml").unwrap_or(name);
        Ok(format!("sha256:{hex}").parse()?)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, schema: Option<SchemaName>) -> Result<T, Fault> {
        Ok(document::from_yaml(
            &self.shown(),
            self.bytes.clone(),
            schema,
        )?)
    }
}

struct Check<'a> {
    workspace: &'a Workspace,
    epochs: Result<Vec<Policy>, String>,
    record: &'a Run,
}

impl Check<'_> {
    fn result(&self, key: &str, found: Found) -> GateResult {
        match found {
            Ok(figures) => {
                let mut result = GateResult::new(key, Verdict::Pass);
                result.figures = figures;
                result
            }
            Err(Fault::Wrong(reason)) => GateResult::new(
                key,
                Verdict::Refuse {
                    reasons: vec![reason],
                },
            ),
            Err(Fault::Missing { what, fetch }) => GateResult::new(
                key,
                Verdict::Undecidable {
                    missing: vec![what],
                    fetch,
                },
            ),
        }
    }

    /// The command that fetches a ref or a commit.
    fn fetch(&self, what: &str) -> Option<String> {
        let known = self.workspace.store.remotes();
        let name = match &self.workspace.project.remote {
            Some(name) => name.clone(),
            None => known.first()?.name().to_owned(),
        };
        Some(match what.starts_with("refs/") {
            true => format!("git fetch {name} {what}:{what}"),
            false => format!("git fetch {name} {what}"),
        })
    }

    fn missing(&self, what: impl Into<String>, fetch: &str) -> Fault {
        Fault::Missing {
            what: what.into(),
            fetch: self.fetch(fetch),
        }
    }

    fn link(&self, key: &str, text: &str) -> GateResult {
        let (name, signature) = link::parse_key(key);
        let known = link::ALL.contains(&name);
        let place: Link = match text.parse() {
            Ok(place) => place,
            Err(reason) if known => return self.result(key, Err(Fault::Wrong(reason))),
            Err(_) => return skipped(key, "it leads to nothing of ours"),
        };
        let found = self
            .place(&place)
            .and_then(|place| match (name, &signature) {
                (link::VERIFY_EVIDENCE, _) => self.evidence(&place, CommandKind::Verify, None),
                (link::E2E_EVIDENCE, signature) => {
                    self.evidence(&place, CommandKind::E2e, signature.as_ref())
                }
                (link::SIGNATURE, Some(signature)) => self.frozen(&place, signature),
                (link::COMPILE_REPORT, Some(signature)) => self.compile_report(&place, signature),
                (link::EVAL_REPORT, Some(signature)) => self.eval_report(&place, signature),
                (link::ARTIFACT, Some(signature)) => self.artifact(&place, signature),
                (link::HOLDOUT_ATTEMPT, Some(signature)) => self.attempt(&place, signature),
                (link::HOLDOUT_REPORT, Some(signature)) => self.holdout_report(&place, signature),
                (link::CANARY, Some(signature)) => self.canary(&place, signature),
                (link::PROMOTION, Some(signature)) => self.promotion(&place, signature),
                (name, None) if known => Err(Fault::Wrong(format!(
                    "a link `{name}` names its signature: `{name} @org/app/Name.v1`"
                ))),
                _ => Ok(vec![recomputed(
                    "digest",
                    Digest::of(&place.bytes).to_string(),
                )]),
            });
        self.result(key, found)
    }

    /// Resolve a link: the commit is here and its branch still holds it, and the path is in it.
    fn place<'l>(&self, link: &'l Link) -> Result<Place<'l>, Fault> {
        let store = &self.workspace.store;
        let reference: RefName = link.reference.parse()?;
        let commit: ObjectName = link.commit.parse()?;
        let path: TreePath = link.path.parse()?;
        if !store.has_object(commit) {
            return Err(self.missing(
                format!("the commit {} of {reference} is not here", commit.short()),
                reference.as_str(),
            ));
        }
        let control = &self.workspace.refs.control;
        let mut holders = vec![&reference];
        // A proposal's branch goes when it is merged; control has the commit then.
        if reference.as_str().starts_with("refs/heads/")
            && reference != *control
            && link.path.starts_with("promotions/")
        {
            holders.push(control);
        }
        let mut tips = Vec::new();
        for holder in holders {
            tips.extend(store.tip(holder)?);
        }
        if tips.is_empty() {
            return Err(self.missing(format!("{reference} is not here"), reference.as_str()));
        }
        let mut held = false;
        for tip in tips {
            held = held || store.is_ancestor(commit, tip)?;
        }
        ensure(held, || {
            format!(
                "{reference} does not hold the commit {} any more: it was rewritten",
                commit.short()
            )
        })?;
        let snapshot = store.snapshot_at(commit)?;
        let bytes = snapshot.read(&path)?.ok_or_else(|| {
            Fault::Wrong(format!("{path} is not in the commit {}", commit.short()))
        })?;
        Ok(Place {
            link,
            snapshot,
            reference,
            path,
            bytes,
        })
    }

    /// Numbers from 1 without gaps, all of this run.
    fn events(&self, run: &RunId) -> Found {
        let snapshot = self
            .workspace
            .store
            .snapshot(&self.workspace.refs.journal)?;
        let events = journal::events(&self.workspace.refs, snapshot.as_ref(), run)?;
        ensure(self.record.id == *run, || {
            format!("the record says it is of run {}", self.record.id)
        })?;
        for (index, event) in events.iter().enumerate() {
            let wanted = index as u64 + 1;
            ensure(event.run == *run, || {
                format!("event {} is of run {}", event.seq, event.run)
            })?;
            ensure(event.seq == wanted, || {
                format!(
                    "event {} stands where event {wanted} should: something was lost or put in",
                    event.seq
                )
            })?;
        }
        Ok(vec![recomputed("events", events.len())])
    }

    /// The user's code, which any branch may hold.
    fn code(&self, commit: &str) -> Found {
        let name: ObjectName = commit.parse()?;
        match self.workspace.store.has_object(name) {
            true => Ok(vec![recomputed("commit", commit)]),
            false => Err(self.missing(
                format!("the commit {} of the code is not here", name.short()),
                commit,
            )),
        }
    }
}
