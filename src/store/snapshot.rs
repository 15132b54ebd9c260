//! Reading: blobs by name, and a commit's tree by path.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gix::objs::tree::EntryKind as GitKind;

use super::name::{ObjectName, RefName, TreePath};
use super::open::{Inner, Store, reason};
use super::reference;

/// A commit and its tree. It never changes; whoever writes makes a new one.
#[derive(Clone)]
pub struct Snapshot {
    store: Store,
    commit: ObjectName,
    tree: ObjectName,
    /// Folders that were read before. They can't change: their names are their content.
    folders: Arc<Mutex<HashMap<ObjectName, Arc<Folder>>>>,
}

/// A tree's entries in git's order.
pub(super) type Folder = Vec<(String, Entry)>;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The object: a blob, a tree, or another repository's commit.
    pub object: ObjectName,
}

/// Kinds of entries in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// An ordinary file.
    File,
    /// A file that is marked as a program.
    Executable,
    /// A symbolic link. We never follow one.
    Link,
    /// Another repository's commit.
    Submodule,
    /// A folder.
    Folder,
}

/// A path that differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path (of a file, never of a folder).
    pub path: TreePath,
    /// What stood there.
    pub old: Option<Entry>,
    /// What stands there now.
    pub new: Option<Entry>,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The object is not in this repository: a shallow or partial clone, or damage.
    #[error("object {object} is not in this repository{}", missing_hint(*shallow))]
    Missing {
        /// The object.
        object: ObjectName,
        /// Whether history is cut off here.
        shallow: bool,
    },
    /// The object is not what its user said.
    #[error("object {object} is a {actual}, not a {expected}")]
    WrongKind {
        /// The object.
        object: ObjectName,
        /// What was asked for.
        expected: &'static str,
        /// What it is.
        actual: String,
    },
    /// The object's bytes are not what its name says, or can't be decoded.
    #[error("object {object} is damaged: {reason}; `git fsck` shows the extent")]
    Corrupt {
        /// The object.
        object: ObjectName,
        /// What is wrong.
        reason: String,
    },
    /// Something other than a file stands where a file was asked for.
    #[error("`{path}` in {commit} is a {actual}, not a file")]
    NotAFile {
        /// The commit.
        commit: ObjectName,
        /// The path.
        path: TreePath,
        /// What it is.
        actual: &'static str,
    },
    /// A tree holds a name that no path may have.
    #[error("tree {tree} holds an entry whose name is not acceptable: {reason}")]
    BadEntryName {
        /// The tree.
        tree: ObjectName,
        /// What is wrong with which name.
        reason: String,
    },
    /// A ref or revision could not be read.
    #[error("cannot read `{name}`: {reason}")]
    Reference {
        /// The ref or revision.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

fn missing_hint(shallow: bool) -> &'static str {
    if shallow {
        ", whose history is cut off; `git fetch --unshallow` gets the rest"
    } else {
        "; `git fetch` may get it, `git fsck` shows what else is missing"
    }
}

impl EntryKind {
    /// The kind in words, as in "a folder".
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Executable => "executable file",
            Self::Link => "symbolic link",
            Self::Submodule => "submodule",
            Self::Folder => "folder",
        }
    }

    fn from_git(kind: GitKind) -> Self {
        match kind {
            GitKind::Blob => Self::File,
            GitKind::BlobExecutable => Self::Executable,
            GitKind::Link => Self::Link,
            GitKind::Commit => Self::Submodule,
            GitKind::Tree => Self::Folder,
        }
    }

    pub(super) fn to_git(self) -> GitKind {
        match self {
            Self::File => GitKind::Blob,
            Self::Executable => GitKind::BlobExecutable,
            Self::Link => GitKind::Link,
            Self::Submodule => GitKind::Commit,
            Self::Folder => GitKind::Tree,
        }
    }
}

impl Store {
    /// The commit a ref is at; `None` when there is no such ref.
    pub fn tip(&self, reference: &RefName) -> Result<Option<ObjectName>, ReadError> {
        reference::read(&self.inner, reference.as_str())
    }

    /// The refs below a prefix (such as `refs/heads/proofline/`), sorted by name.
    pub fn references(&self, prefix: &str) -> Result<Vec<(RefName, ObjectName)>, ReadError> {
        let fail = |reason: String| ReadError::Reference {
            name: prefix.to_owned(),
            reason,
        };
        let repo = self.inner.local();
        let platform = repo.references().map_err(|e| fail(reason(&e)))?;
        let found = platform.prefixed(prefix).map_err(|e| fail(reason(&e)))?;
        let mut names: Vec<RefName> = Vec::new();
        for reference in found {
            let reference = reference.map_err(|e| fail(e.to_string()))?;
            // A ref that we could not write to is not ours to list.
            if let Ok(name) = reference.name().as_bstr().to_string().parse() {
                names.push(name);
            }
        }
        names.sort();
        names.dedup();
        let mut refs = Vec::with_capacity(names.len());
        for name in names {
            if let Some(tip) = self.tip(&name)? {
                refs.push((name, tip));
            }
        }
        Ok(refs)
    }

    /// The commit that a revision names (`main~2`, a tag, a short id); `None` when nothing has that name.
    pub fn resolve(&self, revision: &str) -> Result<Option<ObjectName>, ReadError> {
        let repo = self.inner.local();
        let id = match repo.rev_parse_single(revision) {
            Ok(id) => id,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => {
                return Err(ReadError::Reference {
                    name: revision.to_owned(),
                    reason: reason(&error),
                });
            }
        };
        let object = id
            .object()
            .and_then(|object| object.peel_to_kind(gix::object::Kind::Commit))
            .map_err(|error| ReadError::Reference {
                name: revision.to_owned(),
                reason: reason(&error),
            })?;
        Ok(Some(object.id.into()))
    }

    /// What a ref holds now; `None` when there is no such ref.
    pub fn snapshot(&self, reference: &RefName) -> Result<Option<Snapshot>, ReadError> {
        match self.tip(reference)? {
            Some(commit) => self.snapshot_at(commit).map(Some),
            None => Ok(None),
        }
    }

    /// What a commit holds.
    pub fn snapshot_at(&self, commit: ObjectName) -> Result<Snapshot, ReadError> {
        let bytes = self.inner.object(commit, gix::object::Kind::Commit)?;
        let tree = gix::objs::CommitRefIter::from_bytes(&bytes, commit.id().kind())
            .tree_id()
            .map_err(|error| damaged(commit, &error))?;
        Ok(Snapshot {
            store: self.clone(),
            commit,
            tree: tree.into(),
            folders: Arc::default(),
        })
    }

    /// A blob's bytes, checked against its name.
    pub fn read_blob(&self, blob: ObjectName) -> Result<Vec<u8>, ReadError> {
        self.inner.object(blob, gix::object::Kind::Blob)
    }

    /// Whether an object is here.
    pub fn has_object(&self, object: ObjectName) -> bool {
        self.inner.local().has_object(object.id())
            || self.inner.quarantine().is_some_and(|quarantine| {
                use gix::objs::Exists as _;
                quarantine.to_cache_arc().exists(&object.id())
            })
    }

    /// The name that these bytes have, or would have, as a blob.
    pub fn blob_name(&self, bytes: &[u8]) -> ObjectName {
        self.inner.name_of(gix::object::Kind::Blob, bytes)
    }
}

impl Inner {
    pub(super) fn name_of(&self, kind: gix::object::Kind, bytes: &[u8]) -> ObjectName {
        gix::objs::compute_hash(self.hash(), kind, bytes)
            .expect("because only bytes made for a SHA-1 collision have no name, and git refuses them too")
            .into()
    }

    pub(super) fn hash(&self) -> gix::hash::Kind {
        match self.format {
            super::open::ObjectFormat::Sha1 => gix::hash::Kind::Sha1,
            super::open::ObjectFormat::Sha256 => gix::hash::Kind::Sha256,
        }
    }

    /// An object's bytes, checked against its name and kind.
    pub(super) fn object(
        &self,
        name: ObjectName,
        expected: gix::object::Kind,
    ) -> Result<Vec<u8>, ReadError> {
        use gix::objs::Find as _;
        let id = name.id();
        let mut bytes = Vec::new();
        let repo = self.local();
        let mut kind = repo
            .objects
            .try_find(&id, &mut bytes)
            .map_err(|error| damaged(name, &error))?
            .map(|data| data.kind);
        if let (None, Some(quarantine)) = (kind, self.quarantine()) {
            kind = quarantine
                .to_cache_arc()
                .try_find(&id, &mut bytes)
                .map_err(|error| damaged(name, &error))?
                .map(|data| data.kind);
        }
        let Some(kind) = kind else {
            return Err(ReadError::Missing {
                object: name,
                shallow: repo.is_shallow().unwrap_or(true),
            });
        };
        if kind != expected {
            return Err(ReadError::WrongKind {
                object: name,
                expected: kind_name(expected),
                actual: kind.to_string(),
            });
        }
        match gix::objs::compute_hash(self.hash(), kind, &bytes) {
            Ok(actual) if actual == id => Ok(bytes),
            Ok(actual) => Err(ReadError::Corrupt {
                object: name,
                reason: format!("its bytes have the name {actual}"),
            }),
            Err(error) => Err(damaged(name, &error)),
        }
    }
}

fn kind_name(kind: gix::object::Kind) -> &'static str {
    match kind {
        gix::object::Kind::Blob => "blob",
        gix::object::Kind::Tree => "tree",
        gix::object::Kind::Commit => "commit",
        gix::object::Kind::Tag => "tag",
    }
}

pub(super) fn damaged(object: ObjectName, error: &gix::Error) -> ReadError {
    ReadError::Corrupt {
        object,
        reason: reason(error),
    }
}

impl Snapshot {
    /// The commit.
    pub fn commit(&self) -> ObjectName {
        self.commit
    }

    /// Its tree.
    pub fn tree(&self) -> ObjectName {
        self.tree
    }

    /// The store it is read from.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A file's bytes; `None` when nothing has that path. Links are not followed: they are no files.
    pub fn read(&self, path: &TreePath) -> Result<Option<Vec<u8>>, ReadError> {
        match self.entry(path)? {
            None => Ok(None),
            Some(Entry {
                kind: EntryKind::File | EntryKind::Executable,
                object,
            }) => self.store.read_blob(object).map(Some),
            Some(Entry { kind, .. }) => Err(ReadError::NotAFile {
                commit: self.commit,
                path: path.clone(),
                actual: kind.name(),
            }),
        }
    }

    /// What stands at a path.
    pub fn entry(&self, path: &TreePath) -> Result<Option<Entry>, ReadError> {
        let mut here = Entry {
            kind: EntryKind::Folder,
            object: self.tree,
        };
        for name in path.components() {
            if here.kind != EntryKind::Folder {
                return Ok(None);
            }
            let folder = self.folder(here.object)?;
            match folder.iter().find(|(other, _)| other == name) {
                Some((_, entry)) => here = *entry,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// What is directly in a folder (`None`: the root), in git's order; nothing when there is no such folder.
    pub fn list(&self, folder: Option<&TreePath>) -> Result<Vec<(String, Entry)>, ReadError> {
        let tree = match folder {
            None => self.tree,
            Some(path) => match self.entry(path)? {
                Some(entry) if entry.kind == EntryKind::Folder => entry.object,
                _ => return Ok(Vec::new()),
            },
        };
        Ok(self.folder(tree)?.to_vec())
    }

    /// Everything that is not a folder, at or below a path (`None`: everywhere), sorted by path.
    pub fn walk(&self, below: Option<&TreePath>) -> Result<Vec<(TreePath, Entry)>, ReadError> {
        let mut found = Vec::new();
        match below {
            None => self.walk_into(None, self.tree, &mut found)?,
            Some(path) => match self.entry(path)? {
                None => {}
                Some(entry) if entry.kind == EntryKind::Folder => {
                    self.walk_into(Some(path), entry.object, &mut found)?;
                }
                Some(entry) => found.push((path.clone(), entry)),
            },
        }
        Ok(found)
    }

    /// What differs from an older snapshot (`None`: from nothing), sorted by path. Equal subtrees are not read.
    pub fn changes_since(&self, older: Option<&Snapshot>) -> Result<Vec<Change>, ReadError> {
        let root = |tree| Entry {
            kind: EntryKind::Folder,
            object: tree,
        };
        let mut changes = Vec::new();
        let old = older.map(|older| root(older.tree));
        self.compare(None, old, Some(root(self.tree)), &mut changes)?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// The entries of a tree, in git's order.
    pub(super) fn folder(&self, tree: ObjectName) -> Result<Arc<Folder>, ReadError> {
        let mut known = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = known.get(&tree) {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(read_folder(&self.store.inner, tree)?);
        known.insert(tree, Arc::clone(&folder));
        Ok(folder)
    }

    fn walk_into(
        &self,
        path: Option<&TreePath>,
        tree: ObjectName,
        found: &mut Vec<(TreePath, Entry)>,
    ) -> Result<(), ReadError> {
        for (name, entry) in self.folder(tree)?.iter() {
            let path = TreePath::found(path, name);
            if entry.kind == EntryKind::Folder {
                self.walk_into(Some(&path), entry.object, found)?;
            } else {
                found.push((path, *entry));
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        path: Option<&TreePath>,
        old: Option<Entry>,
        new: Option<Entry>,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        if old == new {
            return Ok(());
        }
        let is_folder = |entry: &Entry| entry.kind == EntryKind::Folder;
        if let Some(path) = path {
            let [old, new] = [old, new].map(|entry| entry.filter(|entry| !is_folder(entry)));
            if old.is_some() || new.is_some() {
                changes.push(Change {
                    path: path.clone(),
                    old,
                    new,
                });
            }
        }
        let mut below: BTreeMap<String, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
        if let Some(old) = old.filter(is_folder) {
            for (name, entry) in self.folder(old.object)?.iter() {
                below.entry(name.clone()).or_default().0 = Some(*entry);
            }
        }
        if let Some(new) = new.filter(is_folder) {
            for (name, entry) in self.folder(new.object)?.iter() {
                below.entry(name.clone()).or_default().1 = Some(*entry);
            }
        }
        for (name, (old, new)) in below {
            self.compare(Some(&TreePath::found(path, &name)), old, new, changes)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("commit", &self.commit)
            .field("tree", &self.tree)
            .finish_non_exhaustive()
    }
}

fn read_folder(inner: &Inner, tree: ObjectName) -> Result<Folder, ReadError> {
    let empty = gix::ObjectId::empty_tree(inner.hash());
    if tree.id() == empty {
        return Ok(Folder::new());
    }
    let bytes = inner.object(tree, gix::object::Kind::Tree)?;
    let entries = gix::objs::TreeRef::from_bytes(&bytes, inner.hash())
        .map(|tree| tree.entries)
        .map_err(|error| damaged(tree, &error))?;
    let mut folder = Folder::with_capacity(entries.len());
    for entry in entries {
        let bad = |reason: &str| ReadError::BadEntryName {
            tree,
            reason: format!("`{}` {reason}", entry.filename),
        };
        let name = std::str::from_utf8(entry.filename).map_err(|_| bad("is not UTF-8"))?;
        if matches!(name, "" | "." | "..")
            || name.contains('/')
            || name.eq_ignore_ascii_case(".git")
        {
            return Err(bad("would leave its folder"));
        }
        let kind = EntryKind::from_git(entry.mode.kind());
        let object = entry.oid.to_owned().into();
        folder.push((name.to_owned(), Entry { kind, object }));
    }
    Ok(folder)
}
