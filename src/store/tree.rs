//! Applying edits to a tree.

use std::collections::BTreeMap;

use super::name::{ObjectName, TreePath};
use super::open::Inner;
use super::snapshot::{Entry, EntryKind, Snapshot};
use super::transact::WriteError;

/// One change to one path. Within a transaction the last edit of a path counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The file shall have these bytes.
    Put {
        /// The file.
        path: TreePath,
        /// All of its content.
        bytes: Vec<u8>,
    },
    /// The file shall be this blob, which must exist.
    PutBlob {
        /// The file.
        path: TreePath,
        /// The blob.
        blob: ObjectName,
    },
    /// The file shall not be there; folders that become empty go too.
    /// A path that is not there is no error. A folder is removed with all below it.
    Remove {
        /// The file or folder.
        path: TreePath,
    },
}

impl Edit {
    /// A file with these bytes.
    pub fn put(path: TreePath, bytes: impl Into<Vec<u8>>) -> Self {
        Self::Put {
            path,
            bytes: bytes.into(),
        }
    }

    /// The path it changes.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Put { path, .. } | Self::PutBlob { path, .. } | Self::Remove { path } => path,
        }
    }
}

/// What a transaction wants of one name in one folder.
#[derive(Default)]
struct Plan {
    /// What stood here goes, with all below it, before anything else.
    cleared: bool,
    /// This blob shall stand here.
    file: Option<ObjectName>,
    below: BTreeMap<String, Plan>,
}

/// A tree to be written, with its bytes.
pub(super) struct NewTree {
    pub(super) bytes: Vec<u8>,
}

/// Apply edits, whose blobs have names by now, to a snapshot's tree (`None`: to
/// an empty one). Gives the root's name and the trees that may not exist yet.
pub(super) fn apply(
    inner: &Inner,
    snapshot: Option<&Snapshot>,
    edits: &[(TreePath, Option<ObjectName>)],
) -> Result<(ObjectName, Vec<NewTree>), WriteError> {
    let mut plan = Plan::default();
    for (path, blob) in edits {
        plan.add(path, *blob)?;
    }
    let mut trees = Vec::new();
    let root = snapshot.map(|snapshot| Entry {
        kind: EntryKind::Folder,
        object: snapshot.tree(),
    });
    let mut work = Work {
        inner,
        snapshot,
        trees: &mut trees,
    };
    let root = match work.folder(None, &plan, root)? {
        Some(root) => root.object,
        None => work.write(&[]),
    };
    Ok((root, trees))
}

impl Plan {
    fn add(&mut self, path: &TreePath, blob: Option<ObjectName>) -> Result<(), WriteError> {
        let bad = |reason: &str| WriteError::BadEdit {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        path.check().map_err(|error| bad(&error.reason))?;
        let mut here = self;
        for name in path.components() {
            if here.file.is_some() {
                if blob.is_some() {
                    return Err(bad("another edit puts a file where its folder would be"));
                }
                return Ok(());
            }
            here = here.below.entry(name.to_owned()).or_default();
        }
        if blob.is_none() {
            *here = Plan {
                cleared: true,
                ..Plan::default()
            };
            return Ok(());
        }
        if here.below.values().any(Plan::puts) {
            return Err(bad("another edit puts a file below it"));
        }
        here.below.clear();
        here.file = blob;
        Ok(())
    }

    fn puts(&self) -> bool {
        self.file.is_some() || self.below.values().any(Plan::puts)
    }
}

struct Work<'a> {
    inner: &'a Inner,
    snapshot: Option<&'a Snapshot>,
    trees: &'a mut Vec<NewTree>,
}

impl Work<'_> {
    /// What stands at `path` once `plan` is carried out on what stands there now.
    fn entry(
        &mut self,
        path: &TreePath,
        plan: &Plan,
        now: Option<Entry>,
    ) -> Result<Option<Entry>, WriteError> {
        let now = now.filter(|_| !plan.cleared);
        let is_folder = now.is_some_and(|entry| entry.kind == EntryKind::Folder);
        let bad = |reason: &str| WriteError::BadEdit {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        if let Some(object) = plan.file {
            if is_folder {
                return Err(bad("a folder stands there; remove it first"));
            }
            let kind = EntryKind::File;
            return Ok(Some(Entry { kind, object }));
        }
        if plan.below.is_empty() {
            return Ok(now);
        }
        if now.is_some() && !is_folder {
            if plan.puts() {
                return Err(bad(
                    "a file stands where a folder is needed; remove it first",
                ));
            }
            return Ok(now);
        }
        self.folder(Some(path), plan, now)
    }

    /// A folder with the plan carried out; `None` when nothing is left in it.
    fn folder(
        &mut self,
        path: Option<&TreePath>,
        plan: &Plan,
        now: Option<Entry>,
    ) -> Result<Option<Entry>, WriteError> {
        let mut entries = match (self.snapshot, now) {
            (Some(snapshot), Some(now)) => snapshot.folder(now.object)?.to_vec(),
            _ => Vec::new(),
        };
        for (name, plan) in &plan.below {
            let position = entries.iter().position(|(other, _)| other == name);
            let now = position.map(|position| entries[position].1);
            let path = TreePath::found(path, name);
            match (position, self.entry(&path, plan, now)?) {
                (Some(position), Some(entry)) => entries[position].1 = entry,
                (Some(position), None) => drop(entries.remove(position)),
                (None, Some(entry)) => entries.push((name.clone(), entry)),
                (None, None) => {}
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let object = self.write(&entries);
        let kind = EntryKind::Folder;
        Ok(Some(Entry { kind, object }))
    }

    fn write(&mut self, entries: &[(String, Entry)]) -> ObjectName {
        use gix::objs::WriteTo as _;
        let mut entries: Vec<_> = entries
            .iter()
            .map(|(name, entry)| gix::objs::tree::Entry {
                mode: entry.kind.to_git().into(),
                filename: name.as_str().into(),
                oid: entry.object.id(),
            })
            .collect();
        entries.sort();
        let tree = gix::objs::Tree { entries };
        let mut bytes = Vec::new();
        tree.write_to(&mut bytes)
            .expect("because names were checked and writing to memory does not fail");
        let name = self.inner.name_of(gix::object::Kind::Tree, &bytes);
        self.trees.push(NewTree { bytes });
        name
    }
}
