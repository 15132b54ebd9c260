//! Git commit signatures: made as the user's git is configured to make them,
//! and verified in process (SSH) or by git (OpenPGP, X.509).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::files::{self, FileError};
use crate::host::process::{ProcessError, Program};

use super::keys::{self, PublicKey};
use super::sign::{self, SignError};
use super::sshsig::{SealError, SshSig};

/// The namespace that git seals commits and tags in.
const NAMESPACE: &str = "git";

/// What git's configuration says about signing commits. Values are as
/// `git config --get` prints them; `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SigningConfig {
    /// `gpg.format`: `openpgp` (git's default), `x509` or `ssh`.
    pub format: Option<String>,
    /// `user.signingKey`: for ssh a path, `key::<public key>` or `ssh-…`; otherwise a key id or user id.
    pub signing_key: Option<String>,
    /// `Name <email>` of the committer: what gpg looks for where there is no signing key.
    pub committer: Option<String>,
    /// `gpg.ssh.program`.
    pub ssh_program: Option<String>,
    /// `gpg.openpgp.program`, else `gpg.program`.
    pub openpgp_program: Option<String>,
    /// `gpg.x509.program`.
    pub x509_program: Option<String>,
    /// `gpg.ssh.defaultKeyCommand`. Never run: it is a shell command.
    pub ssh_default_key_command: Option<String>,
    /// What `~/` in a path stands for.
    pub home: Option<PathBuf>,
    /// What a relative path is relative to: the top of the work tree, as for git.
    pub dir: Option<PathBuf>,
}

/// Signs commits as the user's git would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSigner {
    program: String,
    key: CommitKey,
    dir: Option<PathBuf>,
    limit: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum CommitKey {
    /// A private key, or a `.pub` whose private half is in `ssh-agent`.
    SshFile(PathBuf),
    /// A public key line whose private half is in `ssh-agent`; of any type, for it is OpenSSH that reads it.
    SshAgent(String),
    /// A key id or user id, for `gpg` or `gpgsm`.
    Gpg(String),
}

/// A configuration that can't sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `gpg.format` is none that git knows.
    #[error("gpg.format is `{found}`; git knows openpgp, x509 and ssh")]
    Format {
        /// What it says.
        found: String,
    },
    /// There is no key to sign with.
    #[error("git has no key to sign with: {reason}")]
    NoKey {
        /// What to set.
        reason: String,
    },
    /// `user.signingKey` holds a literal that is no public key line.
    #[error("user.signingKey holds `{literal}`, which is not one public key line")]
    Literal {
        /// The literal.
        literal: String,
    },
}

/// Why a commit was not signed.
#[derive(Debug, thiserror::Error)]
pub enum CommitSignError {
    /// An SSH key did not sign.
    #[error(transparent)]
    Ssh(#[from] SignError),
    /// The program could not be run, or took too long.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// A temporary file could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The program refused.
    #[error("`{program}` could not sign the commit with key `{key}`: {output}")]
    Refused {
        /// The program's name.
        program: String,
        /// The key.
        key: String,
        /// What it said.
        output: String,
    },
}

impl CommitSigner {
    /// Read git's configuration as git does, without running anything.
    pub fn from_config(config: &SigningConfig) -> Result<Self, ConfigError> {
        let program = |set: &Option<String>, default: &str| {
            set.clone()
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        let (program, key) = match config.format.as_deref().unwrap_or("openpgp") {
            "ssh" => (program(&config.ssh_program, "ssh-keygen"), ssh_key(config)?),
            "openpgp" => (program(&config.openpgp_program, "gpg"), gpg_key(config)?),
            "x509" => (program(&config.x509_program, "gpgsm"), gpg_key(config)?),
            other => {
                return Err(ConfigError::Format {
                    found: other.to_owned(),
                });
            }
        };
        Ok(Self {
            program: expand_home(&program, config),
            key,
            dir: config.dir.clone(),
            limit: Duration::from_secs(60),
        })
    }

    /// A signer with a key of ours, whatever git's configuration says.
    pub fn from_ssh_key(path: &Path) -> Self {
        Self {
            program: "ssh-keygen".to_owned(),
            key: CommitKey::SshFile(path.to_owned()),
            dir: None,
            limit: Duration::from_secs(60),
        }
    }

    /// Give up after this long; 60 seconds otherwise.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sign a commit's bytes (without a `gpgsig` header); the armored text that the
    /// header holds, ending in a newline (which the header leaves out).
    pub fn sign(&self, payload: &[u8]) -> Result<String, CommitSignError> {
        match &self.key {
            CommitKey::SshFile(path) => self.sign_ssh(path, &[], payload),
            CommitKey::SshAgent(key) => {
                let dir = temporary_dir()?;
                let path = dir.path().join("key.pub");
                files::write_new(&path, format!("{key}\n").as_bytes())?;
                self.sign_ssh(&path, &["-U"], payload)
            }
            CommitKey::Gpg(key) => self.sign_gpg(key, payload),
        }
    }

    /// As git calls it, so that any `gpg.ssh.program` that works there works here: the payload in a
    /// file, the seal in another beside it.
    fn sign_ssh(
        &self,
        key: &Path,
        extra: &[&str],
        payload: &[u8],
    ) -> Result<String, CommitSignError> {
        let dir = temporary_dir()?;
        let buffer = dir.path().join("commit");
        files::write_new(&buffer, payload)?;
        let program = Program::new(&self.program)
            .args(["-Y", "sign", "-n", NAMESPACE, "-f"])
            .arg(key)
            .args(extra)
            .arg(&buffer);
        let done = self.limited(keys::without_terminal(program)).run()?;
        if !done.status.success() {
            let public = match &self.key {
                CommitKey::SshAgent(key) => key.parse().ok(),
                _ => keys::read_public(key)
                    .or_else(|_| keys::read_public(&keys::public_path(key)))
                    .ok(),
            };
            let said = keys::said(&done.stderr, &done.stdout);
            return Err(sign::explain(key, public.as_ref(), said).into());
        }
        let armored = files::read(&dir.path().join("commit.sig"))?;
        // A pair assertion, as far as it goes: RSA keys sign commits too, which only git can verify.
        match SshSig::from_armor(&armored) {
            Ok(seal) => {
                let own = [seal.key().clone()];
                seal.verify_in(payload, NAMESPACE, &own)
                    .map_err(|source| unverified(key, source))?;
            }
            Err(SealError::UnsupportedAlgorithm { .. }) => {}
            Err(source) => return Err(unverified(key, source)),
        }
        Ok(String::from_utf8(armored).expect("because the armor was parsed as text"))
    }

    fn sign_gpg(&self, key: &str, payload: &[u8]) -> Result<String, CommitSignError> {
        let program = Program::new(&self.program)
            .args(["--status-fd=2", "-bsau", key])
            .env("LC_ALL", "C")
            .input(payload);
        let done = self.limited(program).run()?;
        let status = String::from_utf8_lossy(&done.stderr);
        let created = status
            .lines()
            .any(|line| line.starts_with("[GNUPG:] SIG_CREATED "));
        match String::from_utf8(done.stdout) {
            Ok(armored) if done.status.success() && created && !armored.is_empty() => {
                // gpgsm leaves the last line open.
                Ok(format!("{}\n", armored.replace("\r\n", "\n").trim_end()))
            }
            _ => Err(CommitSignError::Refused {
                program: self.program.clone(),
                key: key.to_owned(),
                output: status.trim().to_owned(),
            }),
        }
    }

    fn limited(&self, program: Program) -> Program {
        let program = program.timeout(self.limit);
        match &self.dir {
            Some(dir) => program.dir(dir),
            None => program,
        }
    }
}

fn unverified(key: &Path, source: SealError) -> CommitSignError {
    CommitSignError::Ssh(SignError::Unverified {
        path: key.to_owned(),
        source,
    })
}

fn temporary_dir() -> Result<tempfile::TempDir, FileError> {
    tempfile::Builder::new()
        .prefix("proofline-")
        .tempdir()
        .map_err(FileError::at("create", Path::new("a temporary folder")))
}

fn ssh_key(config: &SigningConfig) -> Result<CommitKey, ConfigError> {
    let Some(key) = config.signing_key.as_deref().filter(|key| !key.is_empty()) else {
        let reason = if config.ssh_default_key_command.is_some() {
            "gpg.ssh.defaultKeyCommand is a shell command and is not run here; set user.signingKey to the key it prints"
        } else {
            "set user.signingKey to the path of an SSH key"
        };
        return Err(ConfigError::NoKey {
            reason: reason.to_owned(),
        });
    };
    match key.strip_prefix("key::") {
        Some(literal) => literal_key(literal),
        None if key.starts_with("ssh-") => literal_key(key),
        None => Ok(CommitKey::SshFile(expand_home(key, config).into())),
    }
}

/// One line of two fields or more; whether the agent has it is the agent's to say.
fn literal_key(literal: &str) -> Result<CommitKey, ConfigError> {
    let line = literal.trim();
    if line.contains(['\n', '\r']) || line.split(' ').count() < 2 {
        return Err(ConfigError::Literal {
            literal: literal.to_owned(),
        });
    }
    Ok(CommitKey::SshAgent(line.to_owned()))
}

fn gpg_key(config: &SigningConfig) -> Result<CommitKey, ConfigError> {
    let key = config.signing_key.as_ref().or(config.committer.as_ref());
    match key.filter(|key| !key.is_empty()) {
        Some(key) => Ok(CommitKey::Gpg(key.clone())),
        None => Err(ConfigError::NoKey {
            reason: "set user.signingKey to a key id".to_owned(),
        }),
    }
}

fn expand_home(path: &str, config: &SigningConfig) -> String {
    match (path.strip_prefix("~/"), &config.home) {
        (Some(rest), Some(home)) => home.join(rest).to_string_lossy().into_owned(),
        _ => path.to_owned(),
    }
}

/// The repository's object format: it decides which header signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectFormat {
    /// `gpgsig`
    Sha1,
    /// `gpgsig-sha256`
    Sha256,
}

impl ObjectFormat {
    /// The header that holds the signature.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Sha1 => "gpgsig",
            Self::Sha256 => "gpgsig-sha256",
        }
    }
}

/// How a commit was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitFormat {
    /// Verified in process.
    Ssh,
    /// Verified by git and gpg.
    OpenPgp,
    /// Verified by git and gpgsm.
    X509,
}

/// A signed commit, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCommit {
    /// The bytes that were signed: the commit without its signature headers.
    pub payload: Vec<u8>,
    /// The armored signature.
    pub armored: Vec<u8>,
    /// How it was made.
    pub format: CommitFormat,
}

/// A commit whose signature headers can be read in more than one way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed commit: {reason}")]
pub struct MalformedCommit {
    /// What is wrong with it.
    pub reason: String,
}

impl SignedCommit {
    /// Take a raw commit (the object's content, without its `commit <size>` prefix) apart;
    /// `None` if it is not signed.
    ///
    /// Both signature headers are left out of the payload, as git does
    /// (`parse_buffer_signed_by_header`). Where git would join or drop
    /// repeated or unknown headers that start with `gpgsig`, we refuse.
    pub fn parse(raw: &[u8], objects: ObjectFormat) -> Result<Option<Self>, MalformedCommit> {
        let fail = |reason: &str| {
            Err(MalformedCommit {
                reason: reason.to_owned(),
            })
        };
        let mut payload = Vec::with_capacity(raw.len());
        let mut seals: Vec<(&[u8], Vec<u8>)> = Vec::new();
        let mut in_seal = false;
        let mut rest = raw;
        while !rest.is_empty() {
            if rest[0] == b'\n' {
                payload.extend_from_slice(rest);
                break;
            }
            let end = rest
                .iter()
                .position(|b| *b == b'\n')
                .map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            rest = after;
            if let (true, Some(continued)) = (in_seal, line.strip_prefix(b" ")) {
                let (_, seal) = seals.last_mut().expect("because a seal has begun");
                seal.extend_from_slice(continued);
                continue;
            }
            in_seal = line.starts_with(b"gpgsig");
            if !in_seal {
                payload.extend_from_slice(line);
                continue;
            }
            let Some(space) = line.iter().position(|b| *b == b' ') else {
                return fail("a signature header without a value");
            };
            let (name, value) = line.split_at(space);
            if name != b"gpgsig" && name != b"gpgsig-sha256" {
                return fail("an unknown header that starts with `gpgsig`");
            }
            if seals.iter().any(|(seen, _)| *seen == name) {
                return fail("a signature header that is repeated");
            }
            seals.push((name, value[1..].to_vec()));
        }
        let wanted = objects.header().as_bytes();
        let Some((_, armored)) = seals.into_iter().find(|(name, _)| *name == wanted) else {
            return Ok(None);
        };
        let format = if armored.starts_with(b"-----BEGIN SSH SIGNATURE-----") {
            CommitFormat::Ssh
        } else if armored.starts_with(b"-----BEGIN SIGNED MESSAGE-----") {
            CommitFormat::X509
        } else if armored.starts_with(b"-----BEGIN PGP SIGNATURE-----")
            || armored.starts_with(b"-----BEGIN PGP MESSAGE-----")
        {
            CommitFormat::OpenPgp
        } else {
            return fail("a signature of unknown format");
        };
        Ok(Some(Self {
            payload,
            armored,
            format,
        }))
    }

    /// Whether one of the trusted keys signed it, and which. In process; SSH only.
    pub fn verify_ssh<'a>(&self, trusted: &'a [PublicKey]) -> Result<&'a PublicKey, SealError> {
        if self.format != CommitFormat::Ssh {
            return Err(SealError::UnsupportedAlgorithm {
                what: format!("a commit signed by {:?}; git verifies those", self.format),
            });
        }
        SshSig::from_armor(&self.armored)?.verify_in(&self.payload, NAMESPACE, trusted)
    }
}

/// What gpg, asked by git, says about a good signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpgVerified {
    /// The fingerprint of the key that signed: perhaps a subkey.
    pub fingerprint: String,
    /// The fingerprint of its primary key: the one to compare with a policy.
    pub primary_fingerprint: String,
    /// The signer's user id, as gpg prints it.
    pub signer: String,
    /// What gpg thinks of the key: `ultimate`, `fully`, `marginal`, `undefined`, `never`.
    pub trust: Option<String>,
}

/// Why git did not vouch for a commit.
#[derive(Debug, thiserror::Error)]
pub enum GitVerifyError {
    /// It said no.
    #[error("git does not verify commit {commit}: {output}")]
    Refused {
        /// The commit.
        commit: String,
        /// What git and gpg said.
        output: String,
    },
    /// git could not be run, or took too long.
    #[error(transparent)]
    Program(#[from] ProcessError),
}

/// Ask `git verify-commit --raw`: for commits signed by OpenPGP or X.509.
///
/// `commit` is a full object id. Trust stays with the caller, who compares
/// `primary_fingerprint` with its policy: gpg's keyring says only whose the
/// key is.
pub fn verify_with_git(repository: &Path, commit: &str) -> Result<GpgVerified, GitVerifyError> {
    let refused = |output: String| GitVerifyError::Refused {
        commit: commit.to_owned(),
        output,
    };
    if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refused("that is not a full object id".to_owned()));
    }
    let done = Program::new("git")
        .args(["verify-commit", "--raw", commit])
        .dir(repository)
        .env("LC_ALL", "C")
        .run()?;
    let said = keys::said(&done.stderr, &done.stdout);
    if !done.status.success() {
        return Err(refused(said));
    }
    parse_status(&said).ok_or_else(|| refused(said))
}

/// Exactly one good signature, and nothing bad beside it, in gpg's status lines (GnuPG's doc/DETAILS).
fn parse_status(status: &str) -> Option<GpgVerified> {
    let lines = || {
        status
            .lines()
            .filter_map(|line| line.strip_prefix("[GNUPG:] "))
    };
    let of = |name: &'static str| {
        lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let bad = ["BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"];
    if bad.into_iter().any(|name| of(name).next().is_some()) {
        return None;
    }
    let only = |name| {
        let mut found = of(name);
        found.next().filter(|_| found.next().is_none())
    };
    let (_, signer) = only("GOODSIG")?.split_once(' ')?;
    let valid: Vec<&str> = only("VALIDSIG")?.split(' ').collect();
    let fingerprint = *valid.first()?;
    let trust = lines().find_map(|line| line.strip_prefix("TRUST_")?.split(' ').next());
    Some(GpgVerified {
        fingerprint: fingerprint.to_owned(),
        // gpgsm has no subkeys and no tenth field.
        primary_fingerprint: valid.get(9).copied().unwrap_or(fingerprint).to_owned(),
        signer: signer.to_owned(),
        trust: trust.map(str::to_ascii_lowercase),
    })
}
