//! `evidence`: what a run's commands showed, sealed by the runner.

use crate::domain::operate::command::{CommandEvidence, CommandKind};
use crate::id::{RunId, SignatureId};
use crate::schema::{SchemaName, registry, yaml};
use crate::store::{Edit, RefName, Snapshot, TreePath};

use super::refs::path;
use super::sealed::Sealed;
use super::{RecordError, document};

/// Where a run keeps what its commands showed. What was shown with a candidate
/// has the candidate's signature in its path: a night may try several.
pub fn command_path(run: &RunId, kind: CommandKind, signature: Option<&SignatureId>) -> TreePath {
    match signature {
        Some(signature) => path::run_evidence(run, &format!("{kind}/{}.yaml", signature.path())),
        None => path::run_evidence(run, &format!("{kind}.yaml")),
    }
}

/// Read sealed evidence at a path, if it is there. Whose seal it is, the caller asks.
pub fn commands(
    reference: &RefName,
    snapshot: Option<&Snapshot>,
    path: &TreePath,
) -> Result<Option<Sealed<CommandEvidence>>, RecordError> {
    let Some(bytes) = snapshot
        .map(|snapshot| snapshot.read(path))
        .transpose()?
        .flatten()
    else {
        return Ok(None);
    };
    let document = yaml::parse(&document::shown(reference, path), bytes)?;
    let validator = SchemaName::CommandEvidence.validator();
    // The schema is of the body; the seal beside it is for `seal` to judge.
    if document.value.get("body").is_some() {
        validator.check_at(&document, "/body").into_result(())?;
    } else {
        registry::validate(SchemaName::CommandEvidence, &document)?;
    }
    Ok(Some(document.read()?))
}

/// The edit that keeps sealed evidence, and its bytes.
pub fn keep(
    path: TreePath,
    sealed: &Sealed<CommandEvidence>,
) -> Result<(Edit, Vec<u8>), RecordError> {
    let bytes = document::to_yaml(sealed)?;
    let edit = Edit::Put {
        path,
        bytes: bytes.clone(),
    };
    Ok((edit, bytes))
}
