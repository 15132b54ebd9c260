//! Public keys, and making a new pair with `ssh-keygen`.
//!
//! A [`PublicKey`] that exists is one we can verify with: Ed25519, P-256, or
//! one of the two on hardware (`sk-`). Private keys stay in files and agents
//! and are never read here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ssh_key::public::{EcdsaPublicKey, KeyData};

use crate::host::files::{self, FileError};
use crate::host::lock::Lock;
use crate::host::process::{ProcessError, Program};

/// A public key: equal when the key material is equal. Written as
/// `<algorithm> <base64>`, without a comment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(KeyData);

/// What kinds of keys seal. RSA is left out: the only Rust implementation has
/// an open advisory (RUSTSEC-2023-0071) and OpenSSH has better keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `ssh-ed25519`
    Ed25519,
    /// `ecdsa-sha2-nistp256`
    EcdsaP256,
    /// `sk-ssh-ed25519@openssh.com`: a hardware key that asks for a touch.
    SkEd25519,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`: a hardware key that asks for a touch.
    SkEcdsaP256,
}

impl KeyKind {
    const ALL: [Self; 4] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// The algorithm's name in a public key line and in a seal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// Whether the key lives on hardware and each seal needs a person's touch.
    pub const fn is_hardware(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }
}

/// Why a text is not a public key that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The algorithm is one that we don't verify.
    #[error("keys of type `{algorithm}` are not supported: {reason}")]
    Unsupported {
        /// The algorithm, as written.
        algorithm: String,
        /// Why, and what to use.
        reason: &'static str,
    },
    /// It is not one well-formed public key line.
    #[error("not an OpenSSH public key: {reason}")]
    Malformed {
        /// Which rule it breaks.
        reason: String,
    },
}

fn malformed(reason: impl Into<String>) -> KeyError {
    KeyError::Malformed {
        reason: reason.into(),
    }
}

impl PublicKey {
    /// Parse one public key line and its comment, if it has one.
    pub fn parse_line(line: &str) -> Result<(Self, Option<String>), KeyError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains(['\n', '\r']) {
            return Err(malformed("it has more than one line"));
        }
        if line.starts_with("-----BEGIN") {
            return Err(malformed(
                "this looks like a private key or a PEM file; give the `.pub` file",
            ));
        }
        let mut fields = line.splitn(3, ' ');
        let algorithm = fields.next().unwrap_or_default();
        let base64 = fields.next().unwrap_or_default();
        let comment = fields.next().map(str::trim).filter(|c| !c.is_empty());
        check_algorithm(algorithm)?;
        let blob = super::armor::decode_base64(base64)
            .ok_or_else(|| malformed("its second field is not canonical base64"))?;
        let key = Self::from_blob(&blob)?;
        if key.kind().as_str() != algorithm {
            return Err(malformed("its two fields name different algorithms"));
        }
        Ok((key, comment.map(str::to_owned)))
    }

    /// Decode the binary form (RFC 4253, section 6.6), to the last byte.
    pub(super) fn from_blob(blob: &[u8]) -> Result<Self, KeyError> {
        let name = leading_string(blob).ok_or_else(|| malformed("it is cut short"))?;
        check_algorithm(&String::from_utf8_lossy(name))?;
        let key = ssh_key::PublicKey::from_bytes(blob)
            .map_err(|error| malformed(format!("its key data: {error}")))?;
        let key = Self(key.key_data().clone());
        match &key.0 {
            KeyData::Ed25519(public) => refuse_small_order(&public.0)?,
            KeyData::SkEd25519(sk) => refuse_small_order(&sk.public_key().0)?,
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => check_point(point.as_bytes())?,
            KeyData::SkEcdsaSha2NistP256(sk) => check_point(sk.ec_point().as_bytes())?,
            _ => return Err(malformed("its key data is of another type than its name")),
        }
        if key.to_blob() != blob {
            return Err(malformed("its key data is not in canonical form"));
        }
        Ok(key)
    }

    /// The binary form (RFC 4253, section 6.6).
    pub(super) fn to_blob(&self) -> Vec<u8> {
        ssh_key::PublicKey::from(self.0.clone())
            .to_bytes()
            .expect("because a key that was decoded can be encoded")
    }

    /// The key in the terms of the library that verifies.
    pub(super) fn data(&self) -> &KeyData {
        &self.0
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            KeyData::Ed25519(_) => KeyKind::Ed25519,
            KeyData::Ecdsa(_) => KeyKind::EcdsaP256,
            KeyData::SkEd25519(_) => KeyKind::SkEd25519,
            KeyData::SkEcdsaSha2NistP256(_) => KeyKind::SkEcdsaP256,
            other => unreachable!("because from_blob lets no {:?} in", other.algorithm()),
        }
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base64 = super::armor::encode_base64(&self.to_blob());
        write!(f, "{} {base64}", self.kind().as_str())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(line: &str) -> Result<Self, KeyError> {
        Self::parse_line(line).map(|(key, _)| key)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(line: String) -> Result<Self, KeyError> {
        line.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// Refuse an algorithm that we don't verify, with the reason.
pub(super) fn check_algorithm(name: &str) -> Result<KeyKind, KeyError> {
    if let Some(kind) = KeyKind::ALL.into_iter().find(|k| k.as_str() == name) {
        return Ok(kind);
    }
    let unsupported = |reason| {
        Err(KeyError::Unsupported {
            algorithm: name.to_owned(),
            reason,
        })
    };
    if name.contains("-cert-v01@") {
        unsupported(
            "a certificate moves trust to an authority that the policy doesn't name; list the key itself",
        )
    } else if name == "ssh-rsa" || name.starts_with("rsa-sha2-") {
        unsupported(
            "RSA can't be verified safely in process (RUSTSEC-2023-0071); make a key with `ssh-keygen -t ed25519`",
        )
    } else if name.starts_with("ecdsa-sha2-") {
        unsupported("of the ECDSA curves only nistp256 is; or use ed25519")
    } else if name == "ssh-dss" {
        unsupported("DSA is obsolete; make a key with `ssh-keygen -t ed25519`")
    } else if name.starts_with("webauthn-") {
        unsupported("WebAuthn seals cover a browser's data, not ours")
    } else if name.is_empty() || name.len() > 64 || !name.is_ascii() {
        Err(malformed("it doesn't start with an algorithm's name"))
    } else {
        unsupported("known are ssh-ed25519, ecdsa-sha2-nistp256 and their sk- forms")
    }
}

fn leading_string(blob: &[u8]) -> Option<&[u8]> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

/// Uncompressed points only, as OpenSSH. (That the point is on the curve is checked whenever a seal is.)
fn check_point(point: &[u8]) -> Result<(), KeyError> {
    match point {
        [4, rest @ ..] if rest.len() == 64 => Ok(()),
        _ => Err(malformed("its curve point is not uncompressed")),
    }
}

/// With a public key of small order anyone can seal anything, so that the
/// seal would say nothing about who made it. The list is libsodium's
/// (`ge25519_has_small_order`); the top bit, the sign of x, doesn't matter.
fn refuse_small_order(key: &[u8; 32]) -> Result<(), KeyError> {
    const fn ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
        let mut bytes = [middle; 32];
        bytes[0] = first;
        bytes[31] = last;
        bytes
    }
    const SMALL: [[u8; 32]; 7] = [
        ends(0x00, 0x00, 0x00),
        ends(0x01, 0x00, 0x00),
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
        ends(0xec, 0xff, 0x7f),
        ends(0xed, 0xff, 0x7f),
        ends(0xee, 0xff, 0x7f),
    ];
    let mut unsigned = *key;
    unsigned[31] &= 0x7f;
    if SMALL.contains(&unsigned) {
        return Err(malformed("it is a weak key: anyone could seal in its name"));
    }
    Ok(())
}

/// Why no key pair was made.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// There is something at the path already.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The private key's path, or that of its `.pub`.
        path: PathBuf,
    },
    /// `ssh-keygen` could not be run.
    #[error("{source}; sealing needs OpenSSH 8.2 or later (Debian: `apt install openssh-client`)")]
    Program {
        /// What happened to it.
        #[from]
        source: ProcessError,
    },
    /// `ssh-keygen` refused.
    #[error("ssh-keygen could not {action} {}: {output}", path.display())]
    Refused {
        /// What was asked of it.
        action: &'static str,
        /// The private key's path.
        path: PathBuf,
        /// What it said.
        output: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The `.pub` file holds something else than a key that seals.
    #[error("{}: {source}", path.display())]
    Key {
        /// The `.pub` file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// A key pair that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// Its public half.
    pub key: PublicKey,
    /// Whether this call made it.
    pub created: bool,
}

/// Make an Ed25519 pair without a passphrase: `path` (mode 0600) and `path.pub`.
/// Nothing is overwritten.
pub fn generate(path: &Path, comment: &str) -> Result<PublicKey, KeygenError> {
    let public = public_path(path);
    for path in [path, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(KeygenError::Exists {
                path: path.to_owned(),
            });
        }
    }
    // Asked to overwrite a file that appeared meanwhile, ssh-keygen reads the end of its input as no.
    let done = keygen()
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(path)
        .run()?;
    if !done.status.success() {
        return Err(KeygenError::Refused {
            action: "make",
            path: path.to_owned(),
            output: said(&done.stderr, &done.stdout),
        });
    }
    read_public(&public)
}

/// The pair at `path`, made if it is not there. Concurrent calls make one pair.
/// A lost `.pub` file is written again from the private key.
pub fn ensure(path: &Path, comment: &str) -> Result<Ensured, KeygenError> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_dir(parent)?;
    }
    let _lock = Lock::acquire(&with_suffix(path, ".lock"))?;
    if path.symlink_metadata().is_err() {
        let key = generate(path, comment)?;
        return Ok(Ensured { key, created: true });
    }
    let public = public_path(path);
    let key = match read_public(&public) {
        Err(KeygenError::File(error)) if error.source.kind() == std::io::ErrorKind::NotFound => {
            let key = derive_public(path)?;
            files::write_atomic(&public, format!("{key}\n").as_bytes())?;
            key
        }
        read => read?,
    };
    Ok(Ensured {
        key,
        created: false,
    })
}

/// Read a `.pub` file.
pub fn read_public(path: &Path) -> Result<PublicKey, KeygenError> {
    let bytes = files::read(path)?;
    let key = String::from_utf8(bytes)
        .map_err(|_| malformed("it is not UTF-8"))
        .and_then(|line| line.parse());
    key.map_err(|source| KeygenError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Ask `ssh-keygen` for the public half of a private key file.
pub(super) fn derive_public(path: &Path) -> Result<PublicKey, KeygenError> {
    let done = keygen().args(["-y", "-f"]).arg(path).run()?;
    if !done.status.success() {
        return Err(KeygenError::Refused {
            action: "read the public half of",
            path: path.to_owned(),
            output: said(&done.stderr, b""),
        });
    }
    let line = String::from_utf8_lossy(&done.stdout);
    line.parse().map_err(|source| KeygenError::Key {
        path: path.to_owned(),
        source,
    })
}

/// `path` with `.pub` appended, as OpenSSH does.
pub fn public_path(path: &Path) -> PathBuf {
    with_suffix(path, ".pub")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `ssh-keygen` with a time limit, and questions sent to the user's askpass
/// program: it runs in a process group of its own, where reading from the
/// terminal would stop it until the time limit.
pub(super) fn keygen() -> Program {
    without_terminal(Program::new("ssh-keygen"))
}

pub(super) fn without_terminal(program: Program) -> Program {
    program
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env("LC_ALL", "C")
        .timeout(Duration::from_secs(60))
}

/// What a program said, trimmed, for an error message.
pub(super) fn said(stderr: &[u8], stdout: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match text(stderr) {
        empty if empty.is_empty() => text(stdout),
        said => said,
    }
}
