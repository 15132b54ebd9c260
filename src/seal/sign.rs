//! Making seals, with `ssh-keygen -Y sign`.
//!
//! The private key is a file, or half of a `.pub` file whose other half an
//! `ssh-agent` holds (a hardware key, say). Either way it is used by OpenSSH
//! alone. What comes back is verified here before anybody sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::process::{Finished, ProcessError};
use crate::host::signal::Interrupt;

use super::keys::{self, KeygenError, PublicKey};
use super::namespaces::Namespace;
use super::sshsig::{SealError, SshSig};

/// A key that can seal: its public half, and how OpenSSH finds the other.
#[derive(Debug, Clone)]
pub struct SealSigner {
    key: PublicKey,
    path: PathBuf,
    limit: Duration,
    interrupt: Option<Interrupt>,
}

/// Why nothing was sealed. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no key at the path.
    #[error("there is no key at {}; name a private key, or the `.pub` of one in ssh-agent", path.display())]
    NoKey {
        /// The path.
        path: PathBuf,
    },
    /// The public half is there, the private half is not.
    #[error(
        "the private half of {} ({fingerprint}) is neither beside it nor in ssh-agent; run `ssh-add` with it",
        path.display()
    )]
    NoPrivateHalf {
        /// The path.
        path: PathBuf,
        /// The key's fingerprint.
        fingerprint: String,
    },
    /// The private key is encrypted, and nobody can be asked for its passphrase.
    #[error(
        "{} needs a passphrase; run `ssh-add {}` once (start an agent with `eval $(ssh-agent)`), or set SSH_ASKPASS to a program that asks for it",
        path.display(), path.display()
    )]
    Passphrase {
        /// The path.
        path: PathBuf,
    },
    /// Others can read the private key, so OpenSSH ignores it.
    #[error("{} can be read by others, so OpenSSH ignores it; run `chmod 600 {}`", path.display(), path.display())]
    Permissions {
        /// The path.
        path: PathBuf,
    },
    /// The key pair could not be looked at.
    #[error(transparent)]
    Key(#[from] KeygenError),
    /// `ssh-keygen` could not be run, or took too long (a hardware key that nobody touched?).
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// `ssh-keygen` refused for another reason.
    #[error("ssh-keygen could not seal with {}: {output}", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// What it said.
        output: String,
    },
    /// What came back does not verify: the `.pub` file and the private key are no pair, say.
    #[error("what ssh-keygen made with {} does not verify: {source}", path.display())]
    Unverified {
        /// The path.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
}

impl SealSigner {
    /// A signer for a private key file, or for a `.pub` file whose private half is in `ssh-agent`.
    pub fn from_file(path: &Path) -> Result<Self, SignError> {
        let missing = |path: &Path| path.symlink_metadata().is_err();
        if missing(path) {
            return Err(SignError::NoKey {
                path: path.to_owned(),
            });
        }
        let beside = keys::public_path(path);
        let key = if path.extension().is_some_and(|e| e == "pub") {
            keys::read_public(path)?
        } else if missing(&beside) {
            keys::derive_public(path).map_err(|error| match error {
                KeygenError::Refused { output, .. } => explain(path, None, output),
                other => other.into(),
            })?
        } else {
            keys::read_public(&beside)?
        };
        Ok(Self::new(key, path))
    }

    /// A signer whose public half is known already.
    pub fn new(key: PublicKey, path: &Path) -> Self {
        Self {
            key,
            path: path.to_owned(),
            limit: Duration::from_secs(60),
            interrupt: None,
        }
    }

    /// Give up after this long; 60 seconds otherwise (a touch, a PIN).
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Give up when this flag is set.
    pub fn interrupt(mut self, flag: Interrupt) -> Self {
        self.interrupt = Some(flag);
        self
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Where OpenSSH looks for the private half.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a person must touch the key: worth a line on the terminal before [`SealSigner::sign`].
    pub fn needs_touch(&self) -> bool {
        self.key.kind().is_hardware()
    }

    /// Seal a message for a purpose; the armored SSHSIG.
    pub fn sign(&self, namespace: Namespace, message: &[u8]) -> Result<String, SignError> {
        Ok(self.seal(namespace, message)?.to_armor())
    }

    /// Seal a message for a purpose; the parsed SSHSIG.
    pub fn seal(&self, namespace: Namespace, message: &[u8]) -> Result<SshSig, SignError> {
        let mut program = keys::keygen()
            .args(["-Y", "sign", "-n", namespace.as_str(), "-f"])
            .arg(&self.path)
            .input(message)
            .timeout(self.limit);
        if let Some(flag) = &self.interrupt {
            program = program.interrupt(flag.clone());
        }
        let done = program.run()?;
        if !done.status.success() {
            return Err(explain(&self.path, Some(&self.key), said(&done)));
        }
        // A pair assertion: nothing leaves here that the other side would refuse.
        let verified = SshSig::from_armor(&done.stdout).and_then(|seal| {
            seal.verify(message, namespace, std::slice::from_ref(&self.key))?;
            Ok(seal)
        });
        verified.map_err(|source| SignError::Unverified {
            path: self.path.clone(),
            source,
        })
    }
}

fn said(done: &Finished) -> String {
    keys::said(&done.stderr, b"")
}

/// Turn what `ssh-keygen` says (in the C locale) into what to do.
pub(super) fn explain(path: &Path, key: Option<&PublicKey>, output: String) -> SignError {
    let path = path.to_owned();
    if output.contains("incorrect passphrase") || output.contains("ssh_askpass") {
        SignError::Passphrase { path }
    } else if output.contains("are too open") {
        SignError::Permissions { path }
    } else if let (true, Some(key)) = (output.contains("No private key found"), key) {
        SignError::NoPrivateHalf {
            path,
            fingerprint: key.fingerprint(),
        }
    } else if output.contains("No such file or directory") {
        SignError::NoKey { path }
    } else {
        SignError::Refused { path, output }
    }
}
