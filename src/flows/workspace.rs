//! What every flow starts from: the repository, its configuration, the clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::clock::{self, Clock};
use crate::host::process::Program;
use crate::host::signal::Interrupt;
use crate::models::Surroundings;
use crate::models::cache::Cache;
use crate::records::Refs;
use crate::seal::commit::SigningConfig;
use crate::seal::{CommitSigner, PublicKey, SealSigner, keys};
use crate::store::{Author, Remote, SignCommit, SignError, Store};

use super::predict::Engine;
use super::project::{self, Project};
use super::{FlowError, Kind};

/// The repository, its configuration, the clock.
#[derive(Clone)]
pub struct Workspace {
    /// The repository.
    pub store: Store,
    /// `proofline.toml`.
    pub project: Project,
    /// The folder that paths in `proofline.toml` are relative to.
    pub root: PathBuf,
    /// How our refs are named.
    pub refs: Refs,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// Set when the user asks to stop.
    pub interrupt: Interrupt,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Workspace {
    /// Find the repository that a folder belongs to, and its `proofline.toml`:
    /// in the folder or the nearest one above it within the work tree, or for a
    /// bare repository at its default branch.
    pub fn open(dir: &Path) -> Result<Self, FlowError> {
        let workspace = Self::open_unconfigured(dir)?;
        if workspace.project.control.root.is_none() {
            return Err(FlowError::input("this repository is not set up for Proofline: there is no proofline.toml with a pinned root")
                .hint("run `proofline init`"));
        }
        Ok(workspace)
    }

    /// The same, for flows that set a repository up.
    pub fn open_unconfigured(dir: &Path) -> Result<Self, FlowError> {
        let store = Store::discover(dir)?;
        let clock: Arc<dyn Clock> = Arc::from(clock::from_environment().map_err(|error| {
            FlowError::usage(format!("PROOFLINE_NOW is not an RFC 3339 time: {error}"))
        })?);
        let interrupt = Interrupt::from_signals()
            .map_err(|error| FlowError::outside(format!("signals cannot be handled: {error}")))?;
        let (root, project) = match store.work_dir() {
            Some(top) => find_project(dir, top)?,
            None => (store.git_dir().to_owned(), committed_project(&store)?),
        };
        let project = project.unwrap_or_default();
        Ok(Self {
            refs: Refs::new(&project.refs.prefix)?,
            store,
            project,
            root,
            clock,
            interrupt,
        })
    }

    /// Author of the commits of this moment: the user that git knows.
    pub fn author(&self) -> Result<Author, FlowError> {
        let name = std::env::var("GIT_AUTHOR_NAME")
            .ok()
            .or_else(|| self.store.config_string("user.name"));
        let email = std::env::var("GIT_AUTHOR_EMAIL")
            .ok()
            .or_else(|| self.store.config_string("user.email"));
        // A machine without an identity still runs nights; the seals say who vouches.
        Ok(Author::new(
            name.unwrap_or_else(|| "Proofline".to_owned()),
            email.unwrap_or_else(|| "proofline@localhost".to_owned()),
            self.clock.now(),
        )?)
    }

    /// The remote that `control` and `ledger` are shared through.
    pub fn remote(&self) -> Result<Option<Remote>, FlowError> {
        match &self.project.remote {
            Some(name) => Ok(Some(self.store.remote(name)?)),
            None => Ok(None),
        }
    }

    /// Where a role's key is expected when nothing else is configured.
    pub fn key_path(&self, role: KeyRole) -> Result<PathBuf, FlowError> {
        Ok(self.store.local_dir()?.join("keys").join(role.as_str()))
    }

    /// The key that seals for a role: `PROOFLINE_RUNNER_KEY` or
    /// `PROOFLINE_PROMOTER_KEY`, then the key `init` made for the role, then the one git signs with.
    pub fn sealer(&self, role: KeyRole) -> Result<SealSigner, FlowError> {
        let own = self.key_path(role)?;
        let variable = format!("PROOFLINE_{}_KEY", role.as_str().to_uppercase());
        // The public half alone stands for a key that an agent holds.
        let public = keys::public_path(&own);
        let path = match std::env::var_os(&variable) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ if own.exists() => own,
            _ if public.exists() => public,
            _ => match self.git_ssh_key() {
                Some(path) => path,
                None => {
                    return Err(FlowError::input(format!(
                        "there is no {} key here",
                        role.as_str()
                    ))
                    .hint(format!(
                        "set {variable} to a key file that ssh-keygen can use"
                    ))
                    .hint("or run `proofline init`, which makes one for this clone"));
                }
            },
        };
        let signer =
            SealSigner::from_file(&path).map_err(|error| FlowError::new(Kind::Input, error))?;
        Ok(signer.interrupt(self.interrupt.clone()))
    }

    /// The key file that git signs commits with, when that is an SSH key.
    pub fn git_ssh_key(&self) -> Option<PathBuf> {
        if self.store.config_string("gpg.format")? != "ssh" {
            return None;
        }
        self.store
            .config_path("user.signingKey")
            .filter(|path| path.is_file())
    }

    /// Signs commits on `control`: as the user's git is configured, else with the promoter's key.
    pub fn commit_signer(&self) -> Result<StoreSigner, FlowError> {
        if self.store.config_string("user.signingKey").is_some() {
            let text = |key: &str| self.store.config_string(key);
            let config = SigningConfig {
                format: text("gpg.format"),
                signing_key: text("user.signingKey"),
                committer: match (text("user.name"), text("user.email")) {
                    (Some(name), Some(email)) => Some(format!("{name} <{email}>")),
                    _ => None,
                },
                openpgp_program: text("gpg.openpgp.program").or_else(|| text("gpg.program")),
                x509_program: text("gpg.x509.program"),
                ssh_program: text("gpg.ssh.program"),
                ssh_default_key_command: text("gpg.ssh.defaultKeyCommand"),
                home: crate::host::environment::path("HOME"),
                dir: self.store.work_dir().map(Path::to_owned),
            };
            return CommitSigner::from_config(&config)
                .map(StoreSigner)
                .map_err(FlowError::input);
        }
        let sealer = self.sealer(KeyRole::Promoter)?;
        Ok(StoreSigner(CommitSigner::from_ssh_key(sealer.path())))
    }

    /// Models, cache and meter for predictions.
    pub fn engine(&self) -> Result<Engine, FlowError> {
        let mut surroundings =
            Surroundings::new(Arc::clone(&self.clock), self.interrupt.clone(), |name| {
                std::env::var(name).ok()
            });
        surroundings.directory = Some(self.root.clone());
        let cache = Cache::open(&self.store.local_dir()?.join("cache"))?;
        Ok(Engine::new(
            self.project.models.clone(),
            surroundings,
            Some(cache),
        ))
    }

    /// The public key behind a role, when it is here.
    pub fn public_key(&self, role: KeyRole) -> Option<PublicKey> {
        self.sealer(role)
            .ok()
            .map(|sealer| sealer.public_key().clone())
    }

    /// The commit of the user's code, when there is one.
    pub fn code_commit(&self) -> Option<String> {
        self.store.head_commit().map(|commit| commit.to_string())
    }

    /// A program of the user's, in the project's folder.
    pub fn program(&self, name: &str) -> Program {
        Program::new(name)
            .dir(&self.root)
            .interrupt(self.interrupt.clone())
    }
}

/// What a key on this machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRole {
    /// Writes the holdout ledger, evidence and canaries.
    Runner,
    /// Promotes and rolls back.
    Promoter,
}

impl KeyRole {
    /// The name of its key file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Promoter => "promoter",
        }
    }
}

/// The seal layer's commit signer, as the store asks for it.
#[derive(Debug, Clone)]
pub struct StoreSigner(pub CommitSigner);

impl SignCommit for StoreSigner {
    fn sign(&self, payload: &[u8]) -> Result<String, SignError> {
        self.0.sign(payload).map_err(|error| SignError {
            reason: error.to_string(),
        })
    }
}

fn find_project(dir: &Path, top: &Path) -> Result<(PathBuf, Option<Project>), FlowError> {
    let start = dir
        .canonicalize()
        .map_err(|error| FlowError::input(format!("cannot enter {}: {error}", dir.display())))?;
    let top = top.canonicalize().unwrap_or_else(|_| top.to_owned());
    for folder in start
        .ancestors()
        .take_while(|folder| folder.starts_with(&top))
    {
        if let Some(project) = Project::read(folder)? {
            return Ok((folder.to_owned(), Some(project)));
        }
    }
    Ok((top, None))
}

/// A bare repository has no work tree: its configuration is the one on its default branch.
fn committed_project(store: &Store) -> Result<Option<Project>, FlowError> {
    let Some(commit) = store.head_commit() else {
        return Ok(None);
    };
    let path = project::FILE.parse()?;
    match store.snapshot_at(commit)?.read(&path)? {
        Some(bytes) => Project::parse(&format!("HEAD:{}", project::FILE), bytes).map(Some),
        None => Ok(None),
    }
}
