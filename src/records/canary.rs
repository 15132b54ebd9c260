//! Canaries on the ledger: `canary/<signature>.yaml` is the newest one, as it
//! stands; `canary/history/<signature>/<canary>.yaml` is every one as it was
//! sealed at its start, and `….closed.yaml` beside it as it was sealed at its end.

use crate::domain::improve::canary::{Canary, Status};
use crate::domain::prove::policy::{Policy, Role};
use crate::id::{CanaryId, PrincipalId, SignatureId};
use crate::schema::{SchemaName, yaml};
use crate::seal::Namespace;
use crate::store::{Edit, Snapshot, TreePath};

use super::refs::path;
use super::sealed::Sealed;
use super::{RecordError, Refs, document};

/// The newest canary of a signature.
pub fn current(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Option<Sealed<Canary>>, RecordError> {
    load(refs, snapshot, signature, &path::canary(signature))
}

/// A canary as it was sealed at its start.
pub fn started(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    id: &CanaryId,
) -> Result<Option<Sealed<Canary>>, RecordError> {
    load(
        refs,
        snapshot,
        signature,
        &path::canary_history(signature, id),
    )
}

/// A canary as it was sealed at its end.
pub fn closed(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    id: &CanaryId,
) -> Result<Option<Sealed<Canary>>, RecordError> {
    load(refs, snapshot, signature, &closed_path(signature, id)?)
}

/// Where the end of a canary is kept.
pub fn closed_path(signature: &SignatureId, id: &CanaryId) -> Result<TreePath, RecordError> {
    let folder = path::canary_history(signature, id).parent();
    let folder = folder.expect("because a history's path has folders");
    Ok(folder.join(&format!("{id}.closed.yaml"))?)
}

/// Every canary of a signature as it was sealed at its start, by id.
pub fn history(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Vec<Sealed<Canary>>, RecordError> {
    let Some(snapshot) = snapshot else {
        return Ok(Vec::new());
    };
    let folder: TreePath = format!("canary/history/{}", signature.path()).parse()?;
    let mut starts = Vec::new();
    for (name, _) in snapshot.list(Some(&folder))? {
        if name.ends_with(".closed.yaml") || !name.ends_with(".yaml") {
            continue;
        }
        starts.extend(load(refs, Some(snapshot), signature, &folder.join(&name)?)?);
    }
    Ok(starts)
}

fn load(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    path: &TreePath,
) -> Result<Option<Sealed<Canary>>, RecordError> {
    let Some(bytes) = snapshot
        .map(|snapshot| snapshot.read(path))
        .transpose()?
        .flatten()
    else {
        return Ok(None);
    };
    let name = document::shown(&refs.ledger, path);
    let document = yaml::parse(&name, bytes)?;
    // The schema is that of what is sealed.
    SchemaName::Canary
        .validator()
        .check_at(&document, "/body")
        .into_result(())?;
    let sealed: Sealed<Canary> = document.read()?;
    let canary = &sealed.body;
    let mut faults = canary.faults();
    if canary.signature != *signature {
        faults.push(format!("it is about {}", canary.signature));
    }
    if !faults.is_empty() {
        return Err(RecordError::Other(format!("{name}: {}", faults.join("; "))));
    }
    Ok(Some(sealed))
}

/// Who sealed a canary, among the policy's runners; an error when nobody did.
pub fn sealed_by(
    refs: &Refs,
    sealed: &Sealed<Canary>,
    policy: &Policy,
) -> Result<Vec<PrincipalId>, RecordError> {
    let who = sealed.sealed_by(policy, Role::Runner, Namespace::Canary)?;
    if who.is_empty() {
        return Err(RecordError::Other(format!(
            "{}: canary {} is not sealed by a runner of policy epoch {}: it was changed after it was sealed, or sealed with a key the policy does not know",
            document::shown(&refs.ledger, &path::canary(&sealed.body.signature)),
            sealed.body.id,
            policy.epoch
        )));
    }
    Ok(who)
}

/// The edits that put a canary on the ledger: at its start, or at its end.
pub fn edits(sealed: &Sealed<Canary>) -> Result<Vec<Edit>, RecordError> {
    let canary = &sealed.body;
    let bytes = document::to_yaml(sealed)?;
    let kept = match canary.status {
        Status::Running => path::canary_history(&canary.signature, &canary.id),
        _ => closed_path(&canary.signature, &canary.id)?,
    };
    Ok(vec![
        Edit::put(path::canary(&canary.signature), bytes.clone()),
        Edit::put(kept, bytes),
    ])
}
