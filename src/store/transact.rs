//! One step on one ref: read the tip, decide, write, compare-and-swap, or decide again.
//!
//! # With a remote
//!
//! Where a step counts only once the remote has it, [`Transaction::remote`] names the remote, and the order is:
//!
//! 1. Fetch the ref. If our ref is behind, it is moved forward to the remote's
//!    tip. If our ref is ahead (commits made while there was no remote), we build
//!    on ours: the push carries them along and loses nothing. If the two
//!    diverged, we stop and say so ([`WriteError::Diverged`]): choosing is not ours.
//! 2. Decide on the newest tip, write the commit's objects, synced.
//! 3. Push that commit to the remote's ref, plain and non-forced, so that the
//!    remote's own compare-and-swap is the judge. Our ref has not moved yet.
//! 4. Rejected because the remote moved: back to 1. The commit that lost is
//!    abandoned; nothing refers to it.
//! 5. Accepted: move our ref by compare-and-swap. If somebody moved it meanwhile,
//!    it is moved only to a descendant; otherwise it stays, the step still
//!    counts, and [`Committed::local_updated`] is false.
//!
//! A crash between 3 and 5 leaves our ref behind the remote, which step 1 of the
//! next transaction repairs. A push whose answer is lost (connection, time
//! limit) is settled by fetching again: if the remote's tip holds our commit, it
//! was accepted. If even that can't be found out, the error says that the step
//! may have happened; the caller asks again later and its decision, made on the
//! newest facts, must recognise its own earlier work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gix::object::Kind;

use super::commit::{self, Author, SignCommit, SignError};
use super::name::{ObjectName, RefName, TreePath};
use super::object::{Draft, Writer};
use super::open::Store;
use super::reference::{self, Swap, Swapped};
use super::remote::{PushRef, PushStatus, Remote, RemoteError};
use super::snapshot::{ReadError, Snapshot};
use super::tree::{self, Edit};
use crate::host::clock::{Clock, SystemClock};
use crate::host::files::FileError;

/// A step to be taken: on which ref, by whom, signed and shared how.
#[derive(Clone)]
pub struct Transaction<'a> {
    /// The ref that moves.
    pub reference: RefName,
    /// Author and committer.
    pub author: Author,
    /// Signs the commit; unsigned when `None`.
    pub signer: Option<&'a dyn SignCommit>,
    /// The step counts only once this remote has it; local only when `None`.
    pub remote: Option<&'a Remote>,
    /// How long to go on deciding again while others win the race, or hold the lock. Twenty seconds by default.
    pub patience: Duration,
    /// Where a ref that does not exist yet begins; from nothing when `None`.
    pub start: Option<ObjectName>,
}

/// What a decision wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A commit on top of the snapshot that was decided on.
    Commit {
        /// Changes to the tree.
        edits: Vec<Edit>,
        /// The commit's message; its first line also goes into the reflog.
        message: String,
    },
    /// Nothing is to be done.
    Nothing,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A commit was made.
    Committed(Committed),
    /// Nothing was decided, or the edits left the tree as it was.
    Nothing {
        /// Where the ref is.
        tip: Option<ObjectName>,
    },
}

/// A commit that was made, and is on disk (and on the remote, where one was asked for).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The commit.
    pub commit: ObjectName,
    /// Its tree.
    pub tree: ObjectName,
    /// Where the ref was before; `None` when this commit created it.
    pub previous: Option<ObjectName>,
    /// How often the decision was made; more than one means that others won races.
    pub attempts: u32,
    /// Whether our own ref is at the commit or beyond it. False only with a remote; see the module's text.
    pub local_updated: bool,
}

impl Outcome {
    /// The commit, when one was made.
    pub fn committed(&self) -> Option<&Committed> {
        match self {
            Self::Committed(committed) => Some(committed),
            Self::Nothing { .. } => None,
        }
    }

    /// Where the ref is now.
    pub fn tip(&self) -> Option<ObjectName> {
        match self {
            Self::Committed(committed) => Some(committed.commit),
            Self::Nothing { tip } => *tip,
        }
    }
}

/// Why a transaction did not happen. Unless the variant says otherwise, every ref is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The decision itself failed.
    #[error(transparent)]
    Decide(E),
    /// The repository or its remote did not allow it.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a repository could not be written to.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something that had to be read could not be.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file could not be written; the disk may be full.
    #[error(transparent)]
    File(#[from] FileError),
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The remote could not be reached or did not accept the step.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Another process holds the ref's lock, or died holding it.
    #[error(
        "`{reference}` is locked: {} exists since {age_ms} ms; wait for the git process that holds it, or, if none is running (it was killed), remove that file",
        lock.display()
    )]
    Locked {
        /// The ref.
        reference: RefName,
        /// The lock file.
        lock: PathBuf,
        /// How long it has existed.
        age_ms: u64,
    },
    /// Others kept winning the race.
    #[error(
        "`{reference}` kept moving: {attempts} attempts in {elapsed_ms} ms; try again when fewer processes write to it"
    )]
    Contended {
        /// The ref.
        reference: RefName,
        /// How often the decision was made.
        attempts: u32,
        /// For how long.
        elapsed_ms: u64,
    },
    /// We run in a hook of a push that is not accepted yet; its objects may still vanish.
    #[error(
        "`{reference}` can't be written while a push is being received (git forbids it in this hook); use `post-receive`"
    )]
    Quarantined {
        /// The ref.
        reference: RefName,
    },
    /// The branch is checked out, so that moving it would make a work tree look modified.
    #[error(
        "`{reference}` is checked out in {}; switch that work tree to another branch first",
        worktree.display()
    )]
    CheckedOut {
        /// The branch.
        reference: RefName,
        /// The work tree.
        worktree: PathBuf,
    },
    /// The ref points to another ref instead of a commit.
    #[error("`{reference}` is a symbolic ref to `{target}`; we write to plain refs only")]
    Symbolic {
        /// The ref.
        reference: RefName,
        /// What it points to.
        target: String,
    },
    /// One ref's name is a folder of the other's.
    #[error("`{reference}` can't exist beside `{other}`; rename or delete that one")]
    NameTaken {
        /// The ref that was to be written.
        reference: RefName,
        /// The ref in its way.
        other: String,
    },
    /// Our ref and the remote's each have commits that the other lacks.
    #[error(
        "`{reference}` is at {local} here and at {remote} on the remote, and neither contains the other; look with `git log {remote}..{local}`, and if those commits are not needed: `git update-ref {reference} {remote} {local}`"
    )]
    Diverged {
        /// The ref.
        reference: RefName,
        /// Our tip.
        local: ObjectName,
        /// The remote's tip.
        remote: ObjectName,
    },
    /// An edit is impossible.
    #[error("`{path}` can't be written: {reason}")]
    BadEdit {
        /// The path.
        path: TreePath,
        /// Why.
        reason: String,
    },
    /// The ref's content is not an object name.
    #[error("`{reference}` is damaged: {reason}; `git fsck` and its reflog may help")]
    DamagedRef {
        /// The ref.
        reference: RefName,
        /// What is wrong.
        reason: String,
    },
}

impl<'a> Transaction<'a> {
    /// A local, unsigned step.
    pub fn new(reference: RefName, author: Author) -> Self {
        Self {
            reference,
            author,
            signer: None,
            remote: None,
            patience: Duration::from_secs(20),
            start: None,
        }
    }

    /// Where the ref begins if it does not exist yet: a branch off another one.
    pub fn starting_at(mut self, commit: ObjectName) -> Self {
        self.start = Some(commit);
        self
    }

    /// Sign the commit.
    pub fn signed_by(mut self, signer: Option<&'a dyn SignCommit>) -> Self {
        self.signer = signer;
        self
    }

    /// Count the step only once this remote has it.
    pub fn shared_with(mut self, remote: Option<&'a Remote>) -> Self {
        self.remote = remote;
        self
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("reference", &self.reference)
            .field("author", &self.author)
            .field("signed", &self.signer.is_some())
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Make a ref at a commit that is here. False when the ref exists already, wherever it is.
    pub fn create_ref(
        &self,
        reference: &RefName,
        commit: ObjectName,
        author: &Author,
    ) -> Result<bool, WriteError> {
        // A ref to something that is no commit, or not here, would be damage.
        self.commit(commit)?;
        let swap = Swap {
            reference,
            expected: None,
            new: commit,
            author,
            message: "proofline: created",
        };
        Ok(
            reference::swap(&self.inner, &swap, reference::settle_alone(&self.inner))?
                == Swapped::Done,
        )
    }

    /// Take a step: decide on what the ref holds now (`None`: the ref does not
    /// exist yet), and commit what was decided. When somebody else moves the ref
    /// first, decide again on the new facts, for as long as the transaction's
    /// patience lasts. So `decide` may be called several times and must have no
    /// lasting effect but its return value.
    pub fn transact<E>(
        &self,
        transaction: &Transaction<'_>,
        mut decide: impl FnMut(Option<&Snapshot>) -> Result<Decision, E>,
    ) -> Result<Outcome, TransactError<E>> {
        let reference = &transaction.reference;
        let clock = SystemClock::default();
        let patience_ms = u64::try_from(transaction.patience.as_millis()).unwrap_or(u64::MAX);
        let mut attempts = 0;
        if self.inner.quarantine().is_some() {
            return Err(TransactError::Write(WriteError::Quarantined {
                reference: reference.clone(),
            }));
        }
        reference::refuse_checked_out(&self.inner, reference)?;
        loop {
            attempts += 1;
            let facts = self.facts(transaction)?;
            let snapshot = facts
                .base
                .or(transaction.start)
                .map(|tip| self.snapshot_at(tip))
                .transpose()
                .map_err(WriteError::from)?;
            let (edits, message) = match decide(snapshot.as_ref()).map_err(TransactError::Decide)? {
                Decision::Commit { edits, message } => (edits, message),
                Decision::Nothing => return Ok(Outcome::Nothing { tip: facts.base }),
            };
            let step = Step {
                store: self,
                transaction,
                tip: facts.base,
                snapshot: snapshot.as_ref(),
                message: &message,
            };
            let writer = Writer::new(&self.inner);
            let Some((commit, tree)) = step.write(&writer, edits)? else {
                return Ok(Outcome::Nothing { tip: facts.base });
            };
            if let Some(local_updated) = step.publish(writer, commit)? {
                return Ok(Outcome::Committed(Committed {
                    commit,
                    tree,
                    previous: facts.base,
                    attempts,
                    local_updated,
                }));
            }
            let elapsed_ms = clock.elapsed_ms();
            if elapsed_ms >= patience_ms {
                return Err(TransactError::Write(WriteError::Contended {
                    reference: reference.clone(),
                    attempts,
                    elapsed_ms,
                }));
            }
            // The longer the race, the longer the pause, up to a tenth of a second.
            let pause_ms = 1_u64 << attempts.min(6);
            std::thread::sleep(jitter(Duration::from_millis(pause_ms)));
        }
    }

    /// What is decided on: the newest tip, the remote's included where there is one.
    fn facts(&self, transaction: &Transaction<'_>) -> Result<Facts, WriteError> {
        let reference = &transaction.reference;
        let local = self.tip(reference)?;
        let Some(remote) = transaction.remote else {
            return Ok(Facts { base: local });
        };
        let fetched = self.fetch(remote, std::slice::from_ref(reference))?;
        let theirs = fetched.first().and_then(|fetched| fetched.tip);
        let base = match (local, theirs) {
            (local, None) => local,
            (Some(local), Some(theirs)) if self.is_ancestor(theirs, local)? => Some(local),
            (local, Some(theirs)) => {
                if let Some(local) = local
                    && !self.is_ancestor(local, theirs)?
                {
                    return Err(WriteError::Diverged {
                        reference: reference.clone(),
                        local,
                        remote: theirs,
                    });
                }
                let swap = Swap {
                    reference,
                    expected: local,
                    new: theirs,
                    author: &transaction.author,
                    message: "proofline: fast-forward to the remote",
                };
                // If somebody moved it meanwhile, the next look at it will tell.
                reference::swap(&self.inner, &swap, reference::settle_alone(&self.inner))?;
                Some(theirs)
            }
        };
        Ok(Facts { base })
    }
}

struct Facts {
    base: Option<ObjectName>,
}

/// One attempt at a transaction.
struct Step<'a> {
    store: &'a Store,
    transaction: &'a Transaction<'a>,
    /// Where the ref is; `None` when it does not exist, though there may be a snapshot to begin at.
    tip: Option<ObjectName>,
    snapshot: Option<&'a Snapshot>,
    message: &'a str,
}

impl Step<'_> {
    /// Write the objects. Gives commit and tree; `None` when the tree stays as it is.
    fn write(
        &self,
        writer: &Writer<'_>,
        edits: Vec<Edit>,
    ) -> Result<Option<(ObjectName, ObjectName)>, WriteError> {
        let inner = &self.store.inner;
        let named = self.write_blobs(writer, &edits)?;
        let (tree, trees) = tree::apply(inner, self.snapshot, &named)?;
        let unchanged = match self.snapshot {
            Some(snapshot) => snapshot.tree() == tree,
            None => tree.id() == gix::ObjectId::empty_tree(inner.hash()),
        };
        if unchanged {
            return Ok(None);
        }
        let draft = commit::Draft {
            tree,
            parent: self.snapshot.map(Snapshot::commit),
            author: &self.transaction.author,
            message: self.message,
        };
        let commit = draft.encode(inner.format, self.transaction.signer)?;
        let mut drafts: Vec<Draft<'_>> = trees
            .iter()
            .map(|tree| Draft {
                kind: Kind::Tree,
                bytes: &tree.bytes,
            })
            .collect();
        drafts.push(Draft {
            kind: Kind::Commit,
            bytes: &commit,
        });
        let names = writer.write(&drafts)?;
        let commit = *names
            .last()
            .expect("because the commit was put last into the list");
        Ok(Some((commit, tree)))
    }

    /// Write the edits' blobs. Gives each path with what shall stand there.
    fn write_blobs(
        &self,
        writer: &Writer<'_>,
        edits: &[Edit],
    ) -> Result<Vec<(TreePath, Option<ObjectName>)>, WriteError> {
        let drafts: Vec<Draft<'_>> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::Put { bytes, .. } => Some(Draft {
                    kind: Kind::Blob,
                    bytes,
                }),
                _ => None,
            })
            .collect();
        let mut written = writer.write(&drafts)?.into_iter();
        let mut named = Vec::with_capacity(edits.len());
        for edit in edits {
            let blob = match edit {
                Edit::Put { .. } => written.next(),
                Edit::PutBlob { path, blob } => {
                    self.check_blob(path, *blob)?;
                    Some(*blob)
                }
                Edit::Remove { .. } => None,
            };
            named.push((edit.path().clone(), blob));
        }
        Ok(named)
    }

    fn check_blob(&self, path: &TreePath, blob: ObjectName) -> Result<(), WriteError> {
        let bad = |reason: String| WriteError::BadEdit {
            path: path.clone(),
            reason,
        };
        match self.store.inner.local().try_find_header(blob.id()) {
            Ok(Some(header)) if header.kind() == Kind::Blob => Ok(()),
            Ok(Some(header)) => Err(bad(format!("{blob} is a {}, not a blob", header.kind()))),
            Ok(None) => Err(bad(format!("there is no blob {blob} here"))),
            Err(error) => Err(bad(super::open::reason(&error))),
        }
    }

    /// Move the ref, the remote's first where there is one. `None`: somebody
    /// else was first. Otherwise, whether our own ref is at the commit.
    fn publish(&self, writer: Writer<'_>, commit: ObjectName) -> Result<Option<bool>, WriteError> {
        let Some(remote) = self.transaction.remote else {
            let expected = self.tip;
            let settle = |path: &Path, file: &File| writer.finish(Some((path, file)));
            return match self.swap(expected, commit, settle)? {
                Swapped::Done => Ok(Some(true)),
                Swapped::Moved => Ok(None),
            };
        };
        writer.finish(None)?;
        if !self.push(remote, commit)? {
            return Ok(None);
        }
        self.follow(commit).map(Some)
    }

    fn swap(
        &self,
        expected: Option<ObjectName>,
        commit: ObjectName,
        settle: impl FnOnce(&Path, &File) -> Result<(), FileError>,
    ) -> Result<Swapped, WriteError> {
        let subject = self.message.lines().next().unwrap_or_default();
        let message = match expected {
            None => format!("commit (initial): {subject}"),
            Some(_) => format!("commit: {subject}"),
        };
        reference::swap(
            &self.store.inner,
            &Swap {
                reference: &self.transaction.reference,
                expected,
                new: commit,
                author: &self.transaction.author,
                message: &message,
            },
            settle,
        )
    }

    /// Whether the remote took the commit. False: it has moved on without it.
    fn push(&self, remote: &Remote, commit: ObjectName) -> Result<bool, WriteError> {
        let reference = &self.transaction.reference;
        let refs = [PushRef {
            reference: reference.clone(),
            commit,
        }];
        let stderr = match self.store.push(remote, &refs, false) {
            Ok(statuses) => match statuses.into_iter().next() {
                Some(PushStatus::Accepted) => return Ok(true),
                // Whoever was there first made the very same commit; to count it
                // twice would be wrong, so decide again and find it there.
                Some(PushStatus::UpToDate) => return Ok(false),
                Some(PushStatus::Moved { .. }) => return Ok(false),
                Some(PushStatus::Declined { reason }) => {
                    return Err(RemoteError::Declined {
                        name: remote.name().to_owned(),
                        reference: reference.clone(),
                        reason,
                    }
                    .into());
                }
                None => "git said nothing about the ref".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        // The answer is lost, or there never was one: ask where the remote is.
        let fetched = self.store.fetch(remote, std::slice::from_ref(reference));
        let Ok(fetched) = fetched else {
            return Err(RemoteError::Unsettled {
                name: remote.name().to_owned(),
                reference: reference.clone(),
                commit,
                stderr,
            }
            .into());
        };
        match fetched.first().and_then(|fetched| fetched.tip) {
            Some(tip) if self.store.is_ancestor(commit, tip)? => Ok(true),
            _ => Err(RemoteError::Unreachable {
                name: remote.name().to_owned(),
                stderr,
            }
            .into()),
        }
    }

    /// Move our own ref to a commit that the remote has. Whether it is there, or beyond.
    fn follow(&self, commit: ObjectName) -> Result<bool, WriteError> {
        for _ in 0..16 {
            let tip = self.store.tip(&self.transaction.reference)?;
            match tip {
                Some(tip) if self.store.is_ancestor(commit, tip)? => return Ok(true),
                Some(tip) if !self.store.is_ancestor(tip, commit)? => return Ok(false),
                _ => {}
            }
            let settle = reference::settle_alone(&self.store.inner);
            match self.swap(tip, commit, settle) {
                Ok(Swapped::Done) => return Ok(true),
                Ok(Swapped::Moved) => {}
                // The step counts: the remote has it. Our ref catches up next time.
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }
}

/// Between half of a pause and all of it, so that racers fall out of step.
pub(super) fn jitter(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0_u8) % 1_000;
    pause / 2 + pause.mul_f64(random as f64 / 2_000.0)
}
