//! Which artifact serves a key now, and how it works. Services ask at every
//! start or request, so it opens no more than it must: no rows, no weights.

use serde::Serialize;

use crate::domain::improve::canary::{Status, arm_of};
use crate::domain::improve::prompt::Prompt;
use crate::domain::improve::receipt::Arm;
use crate::domain::improve::signature::{Parameters, Signature, Strategy};
use crate::id::{Digest, SignatureId};
use crate::models::Message;
use crate::records::artifacts::Artifacts;
use crate::records::control::Control;

use super::freeze::parameters_of;
use super::{FlowError, Workspace, signatures};

/// What serves a key.
#[derive(Debug, Clone, Serialize)]
pub struct Resolved {
    /// The signature.
    pub signature: SignatureId,
    /// Where the answer comes from.
    pub source: Source,
    /// The artifact; absent when the signature's defaults are in force and nothing froze them yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Digest>,
    /// The counter of the statement that put the active artifact in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// The canary's arm that the key falls into, while one is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<Arm>,
    /// How the program works.
    pub parameters: Parameters,
    /// Instruction and few-shots as the model sees them, before the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompt: Vec<Message>,
}

/// Where the answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The pointer on `control`.
    Active,
    /// A running canary.
    Canary,
    /// The signature file: nothing was promoted yet.
    Defaults,
}

/// Which artifact serves a key. Without a key, the artifact in force.
pub fn resolve(
    workspace: &Workspace,
    signature: &Signature,
    key: Option<&str>,
) -> Result<Resolved, FlowError> {
    Ok(
        in_force(workspace, &signature.id, key)?.unwrap_or_else(|| Resolved {
            signature: signature.id.clone(),
            source: Source::Defaults,
            artifact: None,
            counter: None,
            arm: None,
            parameters: signature.defaults.clone(),
            prompt: Vec::new(),
        }),
    )
}

/// The same for a name as a person gives it. What is in force is answered from the
/// branches alone: a service resolves in milliseconds, and no signature file is
/// checked for what was frozen long ago. For a whole id none is even read.
pub fn resolve_named(
    workspace: &Workspace,
    name: &str,
    key: Option<&str>,
) -> Result<Resolved, FlowError> {
    if let Some(id) = signatures::id_named(workspace, name)?
        && let Some(resolved) = in_force(workspace, &id, key)?
    {
        return Ok(resolved);
    }
    let signature = signatures::find(workspace, name)?.signature;
    resolve(workspace, &signature, key)
}

/// What serves a key by the branches; `None` when that is the signature's defaults.
fn in_force(
    workspace: &Workspace,
    id: &SignatureId,
    key: Option<&str>,
) -> Result<Option<Resolved>, FlowError> {
    let control = workspace.store.snapshot(&workspace.refs.control)?;
    let pointer = Control::new(&workspace.refs, control.as_ref()).pointer(id)?;
    let arm = match key {
        Some(key) => running_arm(workspace, id, key)?,
        None => None,
    };
    let artifact = match (&arm, &pointer) {
        (Some((_, artifact)), _) => *artifact,
        (None, Some(pointer)) => pointer.artifact,
        (None, None) => return Ok(None),
    };
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let program =
        Artifacts::new(&workspace.refs, snapshot.as_ref()).program_expected(id, &artifact)?;
    let prompt = match program.strategy {
        Strategy::Direct => Prompt::new(&program)
            .map_err(FlowError::input)?
            .fixed()
            .to_vec(),
        Strategy::DistilledLexical => Vec::new(),
    };
    Ok(Some(Resolved {
        signature: id.clone(),
        source: if arm.is_some() {
            Source::Canary
        } else {
            Source::Active
        },
        artifact: Some(artifact),
        counter: pointer
            .filter(|pointer| pointer.artifact == artifact)
            .map(|pointer| pointer.counter),
        arm: arm.map(|(arm, _)| arm),
        parameters: parameters_of(&program),
        prompt,
    }))
}

fn running_arm(
    workspace: &Workspace,
    id: &SignatureId,
    key: &str,
) -> Result<Option<(Arm, Digest)>, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.ledger)?;
    let Some(sealed) = crate::records::canary::current(&workspace.refs, snapshot.as_ref(), id)?
    else {
        return Ok(None);
    };
    let canary = sealed.body;
    if canary.status != Status::Running {
        return Ok(None);
    }
    let arm = arm_of(&canary, key).map_err(FlowError::input)?;
    let artifact = match arm {
        Arm::Candidate => canary.candidate,
        _ => canary.control,
    };
    Ok(Some((arm, artifact)))
}
