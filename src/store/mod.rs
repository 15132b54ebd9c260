//! Git as bytes and refs: read trees, transactions, segments, sync with remotes. No domain words here.
//!
//! A [`Store`] is one repository. Reading goes through a [`Snapshot`], a commit
//! and its tree, which never changes under the reader. Writing goes through
//! [`Store::transact`]: read the tip, decide, write objects, compare-and-swap
//! the ref; when the tip moved, decide again on the new facts. There is no other
//! way to write, and no textual merge anywhere.
//!
//! Guarantees:
//! - The user's work tree, index and `HEAD` are never touched; a branch that is
//!   checked out somewhere is not written to.
//! - When a call says that something is committed, its objects, their folders,
//!   the ref and its folder are on disk.
//! - A call that fails leaves every ref as it was. What it may leave behind is
//!   objects that nothing refers to, which `git gc` removes.
//! - No lost update, whoever else writes: other threads, other processes, git
//!   itself, `git pack-refs`.
//!
//! What can go wrong and is told apart: a repository that git would refuse or
//! that we can't write safely ([`OpenError`]), objects that are not here or not
//! sound ([`ReadError`]), locks, races and full disks ([`WriteError`]), remotes
//! ([`RemoteError`]).
//!
//! | file | subject |
//! |---|---|
//! | `name.rs` | names of objects, refs and paths |
//! | `open.rs` | finding and refusing repositories; configuration |
//! | `snapshot.rs` | reading: blobs, trees, differences |
//! | `commit.rs` | commits, their authors and signatures |
//! | `object.rs`, `tree.rs`, `reference.rs` | writing: loose objects, trees, compare-and-swap |
//! | `transact.rs` | the transaction over them |
//! | `segment.rs`, `shard.rs` | growing logs, and sorted files, cut into small blobs |
//! | `spool.rs` | a local file of lines that are not committed yet |
//! | `git.rs`, `remote.rs` | the `git` program, fetch and push |

mod commit;
mod git;
mod name;
mod object;
mod open;
mod reference;
mod remote;
pub mod segment;
pub mod shard;
mod snapshot;
pub mod spool;
mod transact;
mod tree;

pub use commit::{Author, AuthorError, CommitRecord, SignCommit, SignError};
pub use git::GitError;
pub use name::{NameError, ObjectName, RefName, TreePath};
pub use open::{Durability, ObjectFormat, OpenError, Store};
pub use remote::{Fetched, PushRef, PushStatus, Remote, RemoteError};
pub use snapshot::{Change, Entry, EntryKind, ReadError, Snapshot};
pub use transact::{Committed, Decision, Outcome, TransactError, Transaction, WriteError};
pub use tree::Edit;
