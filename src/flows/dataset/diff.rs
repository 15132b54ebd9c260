//! Diff: what differs between a dataset at two commits.

use serde::Serialize;

use crate::domain::improve::dataset::difference::{self, Difference};
use crate::flows::{FlowError, Workspace};
use crate::id::SignatureId;
use crate::records::datasets::upkeep;
use crate::store::{ObjectName, ReadError, Snapshot};

/// What differs.
#[derive(Debug, Clone, Serialize)]
pub struct Diffed {
    /// The signature.
    pub signature: SignatureId,
    /// The older commit; absent for the time before the first.
    pub old: Option<String>,
    /// The newer commit.
    pub new: String,
    /// The rows.
    #[serde(flatten)]
    pub difference: Difference,
}

/// Compare two states. `new` is the tip of the datasets branch when absent, `old` the commit before `new`.
pub fn diff(
    workspace: &Workspace,
    signature: &SignatureId,
    old: Option<&str>,
    new: Option<&str>,
    include_holdout: bool,
) -> Result<Diffed, FlowError> {
    let tip = workspace
        .store
        .tip(&workspace.refs.datasets)?
        .ok_or_else(|| {
            FlowError::input(format!(
                "there is no branch {} yet",
                workspace.refs.datasets
            ))
            .hint(format!(
                "import rows: `proofline dataset import FILE --signature {signature}`"
            ))
        })?;
    let new = match new {
        Some(revision) => resolve(workspace, revision)?,
        None => tip,
    };
    let old = match old {
        Some(revision) => Some(resolve(workspace, revision)?),
        None => workspace.store.commit(new)?.parents.first().copied(),
    };
    let at = |commit: Option<ObjectName>| -> Result<_, FlowError> {
        let snapshot: Option<Snapshot> = commit
            .map(|commit| workspace.store.snapshot_at(commit))
            .transpose()?;
        Ok(upkeep::load(&workspace.refs, snapshot.as_ref(), signature)?.rows)
    };
    Ok(Diffed {
        signature: signature.clone(),
        old: old.map(|commit| commit.to_string()),
        new: new.to_string(),
        difference: difference::between(&at(old)?, &at(Some(new))?, include_holdout),
    })
}

/// A revision of git's, or one relative to the datasets branch: `~2`, `^`, `@{yesterday}`.
fn resolve(workspace: &Workspace, revision: &str) -> Result<ObjectName, FlowError> {
    let whole = match revision.starts_with(['~', '^', '@']) && !revision.starts_with("@~") {
        true => format!("{}{revision}", workspace.refs.datasets),
        false => revision.to_owned(),
    };
    let missing = |why: &str| {
        FlowError::input(format!("`{revision}` names no commit here{why}"))
            .hint("give a commit of the datasets branch, or count back from its tip: `~1`")
    };
    match workspace.store.resolve(&whole) {
        Ok(found) => found.ok_or_else(|| missing("")),
        // Counting back beyond the first commit, mostly.
        Err(ReadError::Reference { reason, .. }) => Err(missing(&format!(": {reason}"))),
        Err(error) => Err(error.into()),
    }
}
