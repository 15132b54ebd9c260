//! `control`: policy epochs, pointers, statements.

use serde::{Deserialize, Serialize};

use crate::domain::prove::policy::{Policy, Role};
use crate::domain::prove::promotion::{Bound, Pointer, Statement};
use crate::id::{Digest, PrincipalId, SignatureId};
use crate::schema::SchemaName;
use crate::seal::{Envelope, Namespace};
use crate::store::{Edit, RefName, Snapshot, TreePath};

use super::refs::path;
use super::{RecordError, Refs, document, sealed};

/// `control` at one commit, or before its first.
#[derive(Debug, Clone)]
pub struct Control<'a> {
    refs: &'a Refs,
    snapshot: Option<&'a Snapshot>,
}

/// The file that holds a sealed statement.
pub const STATEMENT: &str = "statement.intoto.jsonl";
/// The file that holds it for people.
pub const PROMOTION: &str = "promotion.yaml";

/// A statement as it landed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Landed {
    /// What it says.
    pub statement: Statement,
    /// Its digest.
    pub digest: Digest,
    /// The promoters whose seals on it are good under the policy it names.
    pub sealed_by: Vec<PrincipalId>,
}

/// A file as an input that a statement rests on; it must be there.
pub fn bind(
    name: &str,
    reference: &RefName,
    snapshot: Option<&Snapshot>,
    path: &TreePath,
) -> Result<Bound, RecordError> {
    let found = match snapshot {
        Some(snapshot) => snapshot.read(path)?.map(|bytes| (snapshot, bytes)),
        None => None,
    };
    let (snapshot, bytes) = found.ok_or_else(|| RecordError::Missing {
        what: format!("`{path}`"),
        reference: reference.to_string(),
    })?;
    Ok(Bound {
        name: name.to_owned(),
        reference: reference.to_string(),
        commit: snapshot.commit().to_string(),
        path: path.to_string(),
        digest: Digest::of(&bytes),
    })
}

/// The edit that puts a policy epoch on control.
pub fn policy_edit(policy: &Policy) -> Result<Edit, RecordError> {
    Ok(Edit::Put {
        path: path::policy(policy.epoch),
        bytes: document::to_yaml(policy)?,
    })
}

impl<'a> Control<'a> {
    /// Look at `control` as it is in a snapshot.
    pub fn new(refs: &'a Refs, snapshot: Option<&'a Snapshot>) -> Self {
        Self { refs, snapshot }
    }

    /// One policy epoch.
    pub fn policy_at(&self, epoch: u64) -> Result<Option<Policy>, RecordError> {
        let path = path::policy(epoch);
        let policy: Option<Policy> = document::load(
            self.snapshot,
            &self.refs.control,
            &path,
            Some(SchemaName::Policy),
        )?;
        if let Some(policy) = &policy {
            let mut faults = policy.faults();
            if policy.epoch != epoch {
                faults.push(format!("it says it is epoch {}", policy.epoch));
            }
            if !faults.is_empty() {
                let name = document::shown(&self.refs.control, &path);
                return Err(RecordError::Other(format!("{name}: {}", faults.join("; "))));
            }
        }
        Ok(policy)
    }

    /// The current policy: the newest of an unbroken chain of epochs from the
    /// pinned root. `None` before there is a root.
    pub fn policy(&self, root: &Digest) -> Result<Option<Policy>, RecordError> {
        Ok(self.epochs(root)?.pop())
    }

    /// Every policy epoch, an unbroken chain from the pinned root. Empty before there is a root.
    pub fn epochs(&self, root: &Digest) -> Result<Vec<Policy>, RecordError> {
        let Some(first) = self.policy_at(1)? else {
            return Ok(Vec::new());
        };
        let mut before = first.digest()?;
        if before != *root {
            return Err(RecordError::Pin {
                what: document::shown(&self.refs.control, &path::policy(1)),
                found: before.to_string(),
                pinned: root.to_string(),
            });
        }
        let mut epochs = vec![first];
        while let Some(next) = self.policy_at(epochs.len() as u64 + 1)? {
            if next.previous != Some(before) || next.repository != epochs[0].repository {
                return Err(RecordError::Other(format!(
                    "{} does not continue epoch {}",
                    document::shown(&self.refs.control, &path::policy(next.epoch)),
                    epochs.len()
                )));
            }
            before = next.digest()?;
            epochs.push(next);
        }
        Ok(epochs)
    }

    /// The artifact in force.
    pub fn pointer(&self, signature: &SignatureId) -> Result<Option<Pointer>, RecordError> {
        document::load(
            self.snapshot,
            &self.refs.control,
            &path::active(signature),
            Some(SchemaName::Pointer),
        )
    }

    /// Every signature with a pointer.
    pub fn signatures(&self) -> Result<Vec<SignatureId>, RecordError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(Vec::new());
        };
        let folder: TreePath = "active".parse()?;
        let mut ids = Vec::new();
        for (path, _) in snapshot.walk(Some(&folder))? {
            let text = path.to_string();
            let name = text
                .strip_prefix("active/")
                .and_then(|name| name.strip_suffix(".yaml"));
            let Some(name) = name else { continue };
            ids.push(
                name.parse()
                    .map_err(|error| RecordError::Other(format!("{text}: {error}")))?,
            );
        }
        Ok(ids)
    }

    /// Every statement on a signature, oldest first. Each is read from its sealed
    /// bytes; `promotion.yaml` must say the same, counters must be 1, 2, 3, …, and each
    /// must name the one before.
    pub fn history(&self, signature: &SignatureId) -> Result<Vec<Landed>, RecordError> {
        let mut history: Vec<Landed> = Vec::new();
        loop {
            let counter = history.len() as u64 + 1;
            let Some(landed) = self.landed(signature, counter)? else {
                return Ok(history);
            };
            let (from, previous) = match history.last() {
                Some(last) => (last.statement.to, Some(last.digest)),
                None => (landed.statement.from, None),
            };
            if landed.statement.previous != previous || landed.statement.from != from {
                return Err(RecordError::Other(format!(
                    "{} does not continue the statement before it",
                    self.shown(signature, counter)
                )));
            }
            history.push(landed);
        }
    }

    /// The largest number among a signature's statements, whether or not those before it are there.
    pub fn last_counter(&self, signature: &SignatureId) -> Result<u64, RecordError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(0);
        };
        let folders = snapshot.list(Some(&path::promotions(signature)))?;
        let counters = folders.iter().filter_map(|(name, _)| name.parse().ok());
        Ok(counters.max().unwrap_or(0))
    }

    /// One statement.
    pub fn landed(
        &self,
        signature: &SignatureId,
        counter: u64,
    ) -> Result<Option<Landed>, RecordError> {
        let Some((statement, envelope)) = self.statement(signature, counter)? else {
            return Ok(None);
        };
        let digest = statement.digest()?;
        if self.readable(signature, counter)? != Some(digest) {
            return Err(RecordError::Other(format!(
                "{}: {PROMOTION} beside it does not say what was sealed",
                self.shown(signature, counter)
            )));
        }
        let sealed_by = match self.policy_at(statement.epoch)? {
            Some(policy) => {
                sealed::sealed_by(&envelope, &policy, Role::Promoter, Namespace::Promotion)?
            }
            None => Vec::new(),
        };
        Ok(Some(Landed {
            statement,
            digest,
            sealed_by,
        }))
    }

    /// What was sealed as a signature's statement with a counter, and the seals over it, which are not judged here.
    pub fn statement(
        &self,
        signature: &SignatureId,
        counter: u64,
    ) -> Result<Option<(Statement, Envelope)>, RecordError> {
        let path = path::promotion(signature, counter, STATEMENT);
        let bytes = self
            .snapshot
            .map(|snapshot| snapshot.read(&path))
            .transpose()?;
        let Some(bytes) = bytes.flatten() else {
            return Ok(None);
        };
        let fault = |reason: String| {
            RecordError::Other(format!("{}: {reason}", self.shown(signature, counter)))
        };
        let envelope = Envelope::parse(&bytes).map_err(|error| fault(error.to_string()))?;
        let statement = Statement::from_in_toto(envelope.payload()).map_err(fault)?;
        if statement.signature != *signature || statement.counter != counter {
            return Err(fault(format!(
                "it is about {} {}, not {signature} {counter}",
                statement.signature, statement.counter
            )));
        }
        Ok(Some((statement, envelope)))
    }

    /// The digest of what `promotion.yaml` says; `None` when it is not there.
    pub fn readable(
        &self,
        signature: &SignatureId,
        counter: u64,
    ) -> Result<Option<Digest>, RecordError> {
        let readable: Option<Statement> = document::load(
            self.snapshot,
            &self.refs.control,
            &path::promotion(signature, counter, PROMOTION),
            Some(SchemaName::Promotion),
        )?;
        Ok(readable.map(|readable| readable.digest()).transpose()?)
    }

    fn shown(&self, signature: &SignatureId, counter: u64) -> String {
        document::shown(
            &self.refs.control,
            &path::promotion(signature, counter, STATEMENT),
        )
    }

    /// The edits that land a statement: its directory, and the pointer it moves.
    pub fn landing(statement: &Statement, envelope: &Envelope) -> Result<Vec<Edit>, RecordError> {
        let signature = &statement.signature;
        let pointer = Pointer {
            schema: Pointer::SCHEMA.to_owned(),
            signature: signature.clone(),
            artifact: statement.to,
            counter: statement.counter,
            statement: statement.digest()?,
        };
        Ok(vec![
            Edit::Put {
                path: path::promotion(signature, statement.counter, PROMOTION),
                bytes: document::to_yaml(statement)?,
            },
            Edit::Put {
                path: path::promotion(signature, statement.counter, STATEMENT),
                bytes: envelope.to_json_line().into_bytes(),
            },
            Edit::Put {
                path: path::active(signature),
                bytes: document::to_yaml(&pointer)?,
            },
        ])
    }
}
