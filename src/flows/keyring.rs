//! The keys of this clone: where each is, and making those that are missing.
//!
//! A role's key is `<git common dir>/proofline/keys/<role>`: a key pair that was
//! made there, a link to one of the user's, or the public half alone of one that
//! an agent holds. `PROOFLINE_<ROLE>_KEY` goes before it, git's SSH signing key after it.

use std::path::{Path, PathBuf};

use crate::host::{environment, files};
use crate::seal::{Namespace, PublicKey, SealSigner, keys};

use super::workspace::KeyRole;
use super::{FlowError, Workspace};

/// The keys of this clone.
#[derive(Debug)]
pub struct Keyring<'a> {
    workspace: &'a Workspace,
    dry_run: bool,
    made: Vec<String>,
    notes: Vec<String>,
}

/// Where a key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user named it.
    Given,
    /// Git is configured to sign commits with it.
    Git,
    /// It was here.
    Here,
    /// It was made for this clone.
    Made,
}

/// A key for a role.
#[derive(Debug)]
pub struct RoleKey {
    /// What it is for.
    pub role: KeyRole,
    /// Where it came from.
    pub origin: Origin,
    /// Its public half; unknown in a dry run that would make it.
    pub key: Option<PublicKey>,
    /// Where it is.
    pub path: PathBuf,
}

impl RoleKey {
    /// For people: what, where from, where.
    pub fn sentence(&self) -> String {
        let from = match self.origin {
            Origin::Given => "the one you named",
            Origin::Git => "the one git signs your commits with",
            Origin::Here => "in this clone",
            Origin::Made => "an ed25519 key for this clone",
        };
        let fingerprint = match &self.key {
            Some(key) => format!(" {}", key.fingerprint()),
            None => String::new(),
        };
        format!(
            "{} key{fingerprint}, {from}: {}",
            self.role.as_str(),
            self.path.display()
        )
    }

    /// The public half, where it must be known.
    pub fn expected(self) -> Result<PublicKey, FlowError> {
        self.key
            .ok_or_else(|| FlowError::bug("a key was made, yet its public half is not known"))
    }
}

impl<'a> Keyring<'a> {
    /// Look at a clone's keys. A dry run makes none.
    pub fn new(workspace: &'a Workspace, dry_run: bool) -> Self {
        Self {
            workspace,
            dry_run,
            made: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What was made or linked, for people.
    pub fn made(&self) -> Vec<String> {
        self.made.clone()
    }

    /// What the user should know.
    pub fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The keys that are here, by what they are used for.
    pub fn by_role(&self) -> Vec<(KeyRole, PublicKey)> {
        [KeyRole::Promoter, KeyRole::Runner]
            .into_iter()
            // Without a key of its own the runner has none: git's key is a person's.
            .filter(|role| *role == KeyRole::Promoter || self.own(*role).is_some())
            .filter_map(|role| Some((role, self.workspace.public_key(role)?)))
            .collect()
    }

    /// Every public key whose private half this clone may use.
    pub fn known(&self) -> Vec<PublicKey> {
        let roles = self.by_role().into_iter().map(|(_, key)| key);
        roles.chain(self.git_key()).collect()
    }

    /// The key that the user named for a role, linked so that later commands find it.
    pub fn given(&mut self, role: KeyRole, path: &Path) -> Result<RoleKey, FlowError> {
        let path = std::path::absolute(path)
            .map_err(|error| FlowError::input(format!("{}: {error}", path.display())))?;
        let signer = SealSigner::from_file(&path).map_err(FlowError::input)?;
        let key = signer.public_key().clone();
        let link = self.path(role);
        match self.own(role) {
            Some(own) => {
                let there = SealSigner::from_file(&own).map_err(FlowError::input)?;
                if *there.public_key() != key {
                    return Err(FlowError::input(format!(
                        "{} holds another key already ({}); it is not overwritten",
                        own.display(),
                        there.public_key().fingerprint()
                    ))
                    .hint(format!(
                        "move it away, or set PROOFLINE_{}_KEY",
                        role.as_str().to_uppercase()
                    )));
                }
            }
            None => {
                seals(&signer)?;
                if !self.dry_run {
                    self.link(&path, &link)?;
                }
                self.made.push(format!(
                    "{} key {}: {}",
                    role.as_str(),
                    key.fingerprint(),
                    link.display()
                ));
            }
        }
        Ok(RoleKey {
            role,
            origin: Origin::Given,
            key: Some(key),
            path,
        })
    }

    /// The promoter's key: the environment's, this clone's, git's, or a new one.
    pub fn promoter(&mut self) -> Result<RoleKey, FlowError> {
        let role = KeyRole::Promoter;
        if let Some(found) = self.present(role)? {
            return Ok(found);
        }
        if let Some(path) = self.workspace.git_ssh_key() {
            match SealSigner::from_file(&path) {
                Ok(signer) => {
                    seals(&signer)?;
                    return Ok(RoleKey {
                        role,
                        origin: Origin::Git,
                        key: Some(signer.public_key().clone()),
                        path,
                    });
                }
                Err(error) => self.notes.push(format!(
                    "git's signing key cannot seal ({error}), so another key seals; your commits are signed as before"
                )),
            }
        }
        if let Some(key) = self.git_literal() {
            // The agent has the private half; OpenSSH finds it by the public one in a file.
            let path = keys::public_path(&self.path(role));
            if !self.dry_run {
                self.folder()?;
                files::write_new(&path, format!("{key}\n").as_bytes())?;
            }
            return Ok(RoleKey {
                role,
                origin: Origin::Git,
                key: Some(key),
                path,
            });
        }
        self.make(role)
    }

    /// The runner's key: the environment's, this clone's, or a new one. Never git's: the
    /// evidence and the promotion are sealed by two principals.
    pub fn runner(&mut self) -> Result<RoleKey, FlowError> {
        match self.present(KeyRole::Runner)? {
            Some(found) => Ok(found),
            None => self.make(KeyRole::Runner),
        }
    }

    /// The key that git signs commits with, when it is one that we can verify.
    pub fn git_key(&self) -> Option<PublicKey> {
        match self.workspace.git_ssh_key() {
            Some(path) => Some(SealSigner::from_file(&path).ok()?.public_key().clone()),
            None => self.git_literal(),
        }
    }

    fn git_literal(&self) -> Option<PublicKey> {
        let store = &self.workspace.store;
        if store.config_string("gpg.format")? != "ssh" {
            return None;
        }
        let text = store.config_string("user.signingKey")?;
        text.strip_prefix("key::")
            .unwrap_or(&text)
            .trim()
            .parse()
            .ok()
    }

    /// A key that is there already: the environment's or this clone's.
    fn present(&self, role: KeyRole) -> Result<Option<RoleKey>, FlowError> {
        let variable = format!("PROOFLINE_{}_KEY", role.as_str().to_uppercase());
        let (origin, path) = match (environment::path(&variable), self.own(role)) {
            (Some(path), _) => (Origin::Given, path),
            (None, Some(path)) => (Origin::Here, path),
            (None, None) => return Ok(None),
        };
        let signer = SealSigner::from_file(&path).map_err(FlowError::input)?;
        seals(&signer)?;
        Ok(Some(RoleKey {
            role,
            origin,
            key: Some(signer.public_key().clone()),
            path,
        }))
    }

    fn make(&mut self, role: KeyRole) -> Result<RoleKey, FlowError> {
        let path = self.path(role);
        let mut key = None;
        if !self.dry_run {
            self.folder()?;
            let comment = format!("proofline {}", role.as_str());
            key = Some(
                keys::ensure(&path, &comment)
                    .map_err(FlowError::outside)?
                    .key,
            );
        }
        Ok(RoleKey {
            role,
            origin: Origin::Made,
            key,
            path,
        })
    }

    fn path(&self, role: KeyRole) -> PathBuf {
        let local = self.workspace.store.common_dir().join("proofline");
        local.join("keys").join(role.as_str())
    }

    /// The role's file in this clone: a key pair, a link, or the public half alone.
    fn own(&self, role: KeyRole) -> Option<PathBuf> {
        let path = self.path(role);
        let public = keys::public_path(&path);
        [path, public].into_iter().find(|path| path.exists())
    }

    fn folder(&self) -> Result<(), FlowError> {
        let folder = self.workspace.store.local_dir()?.join("keys");
        Ok(files::create_private_dir(&folder)?)
    }

    fn link(&self, path: &Path, link: &Path) -> Result<(), FlowError> {
        self.folder()?;
        let public = keys::public_path(path);
        if path.extension().is_some_and(|end| end == "pub") {
            files::link(path, &keys::public_path(link))?;
        } else {
            files::link(path, link)?;
            if public.exists() {
                files::link(&public, &keys::public_path(link))?;
            }
        }
        Ok(())
    }
}

/// A key that a policy is to name must really seal: a passphrase, a lost half or a missing
/// agent are better found before anything is built on it.
fn seals(signer: &SealSigner) -> Result<(), FlowError> {
    if signer.needs_touch() {
        return Ok(());
    }
    signer
        .sign(Namespace::Evidence, b"proofline init")
        .map(drop)
        .map_err(FlowError::from)
}
