//! `ledger`: holdout attempts and canaries, each sealed by the runner.

use crate::canon;
use crate::domain::prove::holdout::{Entry, GroupSet, Ledger};
use crate::id::{Digest, SignatureId};
use crate::store::{Edit, Snapshot, TreePath};

use super::refs::path;
use super::sealed::Sealed;
use super::{RecordError, Refs, document};

/// Every sealed entry about a signature, oldest first.
pub fn entries(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
) -> Result<Vec<Sealed<Entry>>, RecordError> {
    read(refs, snapshot, &path::holdout(signature))
}

fn read(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    path: &TreePath,
) -> Result<Vec<Sealed<Entry>>, RecordError> {
    let name = document::shown(&refs.ledger, path);
    let bytes = snapshot
        .map(|snapshot| snapshot.read(path))
        .transpose()?
        .flatten()
        .unwrap_or_default();
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .enumerate()
        .map(|(index, line)| document::from_line(&name, index + 1, line))
        .collect()
}

/// Everything that bears on the number of the next attempt: the entries of every
/// signature, because attempts count across signatures and versions when they share a group.
pub fn load(refs: &Refs, snapshot: Option<&Snapshot>) -> Result<Ledger, RecordError> {
    let mut ledger = Ledger::default();
    let Some(snapshot) = snapshot else {
        return Ok(ledger);
    };
    let folder: TreePath = "holdout".parse()?;
    for (path, _) in snapshot.walk(Some(&folder))? {
        let text = path.to_string();
        if let Some(hex) = text
            .strip_prefix("holdout/sets/")
            .and_then(|name| name.strip_suffix(".json"))
        {
            let bytes = snapshot.read(&path)?.unwrap_or_default();
            let set: GroupSet =
                document::from_line(&document::shown(&refs.ledger, &path), 1, &bytes)?;
            let digest = canon::digest(&set)?;
            if digest.hex() != hex {
                return Err(RecordError::Digest {
                    what: document::shown(&refs.ledger, &path),
                    found: digest.to_string(),
                    named: hex.to_owned(),
                });
            }
            ledger.sets.insert(digest, set);
        } else if text.ends_with(".jsonl") {
            ledger.entries.extend(
                read(refs, Some(snapshot), &path)?
                    .into_iter()
                    .map(|sealed| sealed.body),
            );
        }
    }
    Ok(ledger)
}

/// The edits that append an entry, and keep the group set it names.
pub fn append(
    snapshot: Option<&Snapshot>,
    signature: &SignatureId,
    entry: &Sealed<Entry>,
    groups: Option<(&Digest, &GroupSet)>,
) -> Result<Vec<Edit>, RecordError> {
    let path = path::holdout(signature);
    let mut bytes = snapshot
        .map(|snapshot| snapshot.read(&path))
        .transpose()?
        .flatten()
        .unwrap_or_default();
    bytes.extend(document::to_line(entry)?.into_bytes());
    bytes.push(b'\n');
    let mut edits = vec![Edit::Put { path, bytes }];
    if let Some((digest, set)) = groups {
        let mut bytes = canon::to_bytes(set)?;
        bytes.push(b'\n');
        edits.push(Edit::Put {
            path: path::holdout_set(digest),
            bytes,
        });
    }
    Ok(edits)
}
