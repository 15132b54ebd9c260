//! Finding a repository, refusing those that can't be used safely, and reading its configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::bstr::ByteSlice;

use super::name::ObjectName;
use crate::host::environment;
use crate::host::files::{self, FileError};

/// One repository. Clones are cheap and share it; it can be used from any thread.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    repo: gix::ThreadSafeRepository,
    /// Objects of a push that has not been accepted yet, when we run in its hook.
    quarantine: Option<Arc<gix::odb::Store>>,
    pub(super) git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
    pub(super) objects_dir: PathBuf,
    work_dir: Option<PathBuf>,
    pub(super) format: ObjectFormat,
    pub(super) bare: bool,
    pub(super) durability: Durability,
}

/// Which hash names the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectFormat {
    /// 40 hex digits.
    Sha1,
    /// 64 hex digits.
    Sha256,
}

impl fmt::Display for ObjectFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        })
    }
}

/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// What a call reports as written survives a power cut.
    #[default]
    Synced,
    /// The system writes when it likes: for tests and throw-away repositories.
    Unsynced,
}

/// Why a repository was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no repository here.
    #[error(
        "{} is not inside a git repository; change to one, or make one with `git init`",
        start.display()
    )]
    NotARepository {
        /// Where the search began.
        start: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// It belongs to somebody else, whose configuration could run programs as us.
    #[error(
        "{} belongs to another user, so git and we refuse it; if you trust it: `git config --global --add safe.directory {}`",
        path.display(),
        path.display()
    )]
    ForeignOwner {
        /// The repository.
        path: PathBuf,
    },
    /// Refs are not stored as files.
    #[error(
        "{} stores its refs as `{format}`, which is not supported yet; convert it with `git refs migrate --ref-format=files`",
        path.display()
    )]
    RefStorage {
        /// The repository.
        path: PathBuf,
        /// The value of `extensions.refStorage`.
        format: String,
    },
    /// Git's own files are broken or of a kind that we don't know.
    #[error("cannot open the repository at {}: {reason}", path.display())]
    Unusable {
        /// The repository, or where the search began.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Store {
    /// Find the repository that `start` is in, as git would: the environment
    /// first (`GIT_DIR` and its companions, which hooks set), then upward.
    pub fn discover(start: &Path) -> Result<Self, OpenError> {
        let options = gix::discover::upwards::Options {
            match_ceiling_dir_or_error: false,
            ..Default::default()
        };
        let repo = gix::ThreadSafeRepository::discover_with_environment_overrides_opts(
            start,
            options,
            Default::default(),
        );
        let quarantine = environment::path("GIT_QUARANTINE_PATH");
        Self::checked(repo, start, quarantine)
    }

    /// Open the repository at this path (a work tree, or a git folder), whatever the environment says.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::checked(gix::ThreadSafeRepository::open(path), path, None)
    }

    fn checked(
        repo: gix::Result<gix::ThreadSafeRepository>,
        start: &Path,
        quarantine: Option<PathBuf>,
    ) -> Result<Self, OpenError> {
        let unusable = |path: &Path, reason: String| OpenError::Unusable {
            path: path.to_owned(),
            reason,
        };
        let mut repo = match repo {
            Ok(repo) => repo.to_thread_local(),
            Err(error) => return Err(refused(start, &error)),
        };
        if repo.git_dir_trust() != gix::sec::Trust::Full {
            return Err(OpenError::ForeignOwner {
                path: repo.git_dir().to_owned(),
            });
        }
        repo.make_paths_absolute()
            .map_err(|error| unusable(start, error.to_string()))?;
        // A namespace would silently write other refs than the ones that are named.
        repo.clear_namespace();
        let git_dir = repo.git_dir().to_owned();
        let common_dir = tidy(repo.common_dir());
        let storage = repo.config_snapshot().string("extensions.refStorage");
        if let Some(format) = storage.filter(|format| format.to_str_lossy() != "files") {
            return Err(OpenError::RefStorage {
                path: common_dir,
                format: format.to_string(),
            });
        }
        let format = match repo.object_hash() {
            gix::hash::Kind::Sha1 => ObjectFormat::Sha1,
            gix::hash::Kind::Sha256 => ObjectFormat::Sha256,
            other => return Err(unusable(&git_dir, format!("objects are named by {other}"))),
        };
        let quarantine = quarantine
            .map(|path| open_quarantine(&path, repo.object_hash()))
            .transpose()
            .map_err(|error| unusable(&git_dir, error.to_string()))?;
        let inner = Inner {
            objects_dir: common_dir.join("objects"),
            work_dir: repo.workdir().map(Path::to_owned),
            bare: repo.is_bare(),
            quarantine,
            git_dir,
            common_dir,
            format,
            durability: Durability::Synced,
            repo: repo.into_sync(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The same repository, with writes that wait for the disk or don't.
    pub fn with_durability(self, durability: Durability) -> Self {
        let inner = Inner {
            durability,
            repo: self.inner.repo.clone(),
            quarantine: self.inner.quarantine.clone(),
            git_dir: self.inner.git_dir.clone(),
            common_dir: self.inner.common_dir.clone(),
            objects_dir: self.inner.objects_dir.clone(),
            work_dir: self.inner.work_dir.clone(),
            format: self.inner.format,
            bare: self.inner.bare,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether writes wait for the disk.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// The folder that all worktrees share: where objects and refs are. Absolute.
    pub fn common_dir(&self) -> &Path {
        &self.inner.common_dir
    }

    /// The git folder of this worktree; the common folder for the main one. Absolute.
    pub fn git_dir(&self) -> &Path {
        &self.inner.git_dir
    }

    /// `<common dir>/proofline`, made if need be: spool, caches, locks. Never committed.
    pub fn local_dir(&self) -> Result<PathBuf, FileError> {
        let path = self.inner.common_dir.join("proofline");
        files::create_dir(&path)?;
        Ok(path)
    }

    /// The top of the work tree; `None` in a bare repository.
    pub fn work_dir(&self) -> Option<&Path> {
        self.inner.work_dir.as_deref()
    }

    /// Whether there is no work tree.
    pub fn is_bare(&self) -> bool {
        self.inner.bare
    }

    /// Whether history is cut off: ancestors may be missing. Asked of the disk each time.
    pub fn is_shallow(&self) -> bool {
        // An unreadable list of cuts is treated as one: we must not claim that history is whole.
        self.inner.local().is_shallow().unwrap_or(true)
    }

    /// Which hash names the objects.
    pub fn object_format(&self) -> ObjectFormat {
        self.inner.format
    }

    /// A configuration value as git would see it (repository, global, system,
    /// environment), such as `gpg.format`, as it was when the store was opened.
    pub fn config_string(&self, key: &str) -> Option<String> {
        let value = self.inner.local().config_snapshot().string(key)?;
        Some(value.to_str_lossy().into_owned())
    }

    /// A configuration value as a boolean; `None` when unset or not a boolean.
    pub fn config_bool(&self, key: &str) -> Option<bool> {
        self.inner.local().config_snapshot().boolean(key)
    }

    /// A configuration value as a path, `~/` resolved.
    pub fn config_path(&self, key: &str) -> Option<PathBuf> {
        self.inner
            .local()
            .config_snapshot()
            .trusted_path(key)
            .ok()
            .flatten()
    }

    /// What `HEAD` is: the branch it points to (even if that has no commit yet), or `None` when detached.
    pub fn head_branch(&self) -> Option<String> {
        let head = self.inner.local().head_name().ok()??;
        Some(head.as_bstr().to_str_lossy().into_owned())
    }

    /// The commit `HEAD` is at; `None` in an empty repository.
    pub fn head_commit(&self) -> Option<ObjectName> {
        let repo = self.inner.local();
        let id = repo.head_id().ok()?.detach();
        Some(id.into())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("git_dir", &self.inner.git_dir)
            .field("format", &self.inner.format)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The repository for one thread. Replacement refs are ignored: what a name
    /// says must be what is read.
    pub(super) fn local(&self) -> gix::Repository {
        let mut repo = self.repo.to_thread_local();
        repo.objects.ignore_replacements = true;
        repo
    }

    pub(super) fn quarantine(&self) -> Option<&Arc<gix::odb::Store>> {
        self.quarantine.as_ref()
    }
}

/// `/a/.git/worktrees/x/../..` is `/a/.git`.
fn tidy(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn open_quarantine(path: &Path, hash: gix::hash::Kind) -> std::io::Result<Arc<gix::odb::Store>> {
    let options = gix::odb::store::init::Options::default();
    gix::odb::Store::at_opts(path.to_owned(), hash, &mut std::iter::empty(), options).map(Arc::new)
}

fn refused(start: &Path, error: &gix::Error) -> OpenError {
    let reason = reason(error);
    if error.is_permission_denied() && reason.contains("not owned by the current user") {
        return OpenError::ForeignOwner {
            path: start.to_owned(),
        };
    }
    if error.is_not_found() || !start.exists() {
        return OpenError::NotARepository {
            start: start.to_owned(),
            reason,
        };
    }
    OpenError::Unusable {
        path: start.to_owned(),
        reason,
    }
}

/// The whole story of an error of gix on one line.
pub(super) fn reason(error: &gix::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.iter_errors() {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}
