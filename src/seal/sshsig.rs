//! SSHSIG, the format of `ssh-keygen -Y sign` (OpenSSH's PROTOCOL.sshsig):
//! parsed strictly and verified in process.
//!
//! What is stricter here than in `ssh-keygen -Y verify`: version 0 (never
//! specified), a non-empty reserved field, non-minimal integers, text after the
//! armor, certificates and RSA are refused; hardware keys must have been
//! touched. Nothing is looser: what is accepted here is accepted there, and a
//! differential test holds us to it.

use ssh_key::{HashAlg, Signature};

use super::armor;
use super::keys::{KeyError, KeyKind, PublicKey};
use super::namespaces::Namespace;

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
/// FIDO's "user presence": somebody touched the hardware key.
const FLAG_USER_PRESENT: u8 = 0x01;

/// Why a seal does not count. Never a detail of the key or the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not an SSHSIG.
    #[error("malformed seal: {reason}")]
    Malformed {
        /// Which rule it breaks.
        reason: String,
    },
    /// It is an SSHSIG by means that we don't verify.
    #[error("unsupported seal: {what}")]
    UnsupportedAlgorithm {
        /// The version, hash or key type, and why not.
        what: String,
    },
    /// It was made for something else.
    #[error("the seal was made for `{found}`, not for `{expected}`")]
    WrongNamespace {
        /// What was asked for.
        expected: String,
        /// What the seal says.
        found: String,
    },
    /// It was made by a key that is not among the trusted ones.
    #[error("the seal is by key {fingerprint}, which is not trusted for this")]
    WrongKey {
        /// The key's fingerprint.
        fingerprint: String,
    },
    /// It was made by a hardware key that nobody touched.
    #[error("the seal by hardware key {fingerprint} was made without a touch")]
    NotTouched {
        /// The key's fingerprint.
        fingerprint: String,
    },
    /// Its arithmetic fails: the message, or the seal, is not what was sealed.
    #[error("the seal by key {fingerprint} does not fit what it is said to seal")]
    Bad {
        /// The key's fingerprint.
        fingerprint: String,
    },
}

fn malformed(reason: impl Into<String>) -> SealError {
    SealError::Malformed {
        reason: reason.into(),
    }
}

/// A parsed SSHSIG: what it says about itself, which proves nothing before [`SshSig::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSig {
    key: PublicKey,
    namespace: String,
    hash: HashAlg,
    made: Signature,
    flags: Option<u8>,
    blob: Vec<u8>,
}

impl SshSig {
    /// Parse the armored form.
    pub fn from_armor(armored: &[u8]) -> Result<Self, SealError> {
        Self::from_blob(&armor::dearmor(armored).map_err(malformed)?)
    }

    /// Parse the binary form: the bytes inside the armor.
    pub fn from_blob(blob: &[u8]) -> Result<Self, SealError> {
        let mut fields = Fields(blob);
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(malformed("it does not start with SSHSIG"));
        }
        let version = fields.number()?;
        if version != VERSION {
            return Err(SealError::UnsupportedAlgorithm {
                what: format!("SSHSIG version {version}; known is {VERSION}"),
            });
        }
        let key = fields.string()?;
        let namespace = fields.text("namespace")?.to_owned();
        let reserved = fields.string()?;
        let hash = fields.text("hash")?;
        let made = fields.string()?;
        fields.end()?;

        let key = PublicKey::from_blob(key).map_err(|error| match error {
            KeyError::Unsupported { .. } => SealError::UnsupportedAlgorithm {
                what: error.to_string(),
            },
            KeyError::Malformed { .. } => malformed(error.to_string()),
        })?;
        if namespace.is_empty() {
            return Err(malformed("its namespace is empty"));
        }
        if !reserved.is_empty() {
            return Err(malformed("its reserved field is not empty"));
        }
        let hash = match hash {
            "sha256" => HashAlg::Sha256,
            "sha512" => HashAlg::Sha512,
            other => {
                return Err(SealError::UnsupportedAlgorithm {
                    what: format!(
                        "hash `{}`; known are sha256 and sha512",
                        other.escape_debug()
                    ),
                });
            }
        };
        let (made, flags) = parse_made(made, key.kind())?;
        Ok(Self {
            key,
            namespace,
            hash,
            made,
            flags,
            blob: blob.to_owned(),
        })
    }

    /// The key that it names.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The namespace that it names: one of ours, `git`, or any other.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The binary form, byte for byte as it was parsed.
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// The armored form, as `ssh-keygen` prints it.
    pub fn to_armor(&self) -> String {
        armor::armor(&self.blob)
    }

    /// Whether one of the trusted keys sealed exactly this message for exactly this purpose; and which.
    pub fn verify<'a>(
        &self,
        message: &[u8],
        namespace: Namespace,
        trusted: &'a [PublicKey],
    ) -> Result<&'a PublicKey, SealError> {
        self.verify_in(message, namespace.as_str(), trusted)
    }

    pub(super) fn verify_in<'a>(
        &self,
        message: &[u8],
        namespace: &str,
        trusted: &'a [PublicKey],
    ) -> Result<&'a PublicKey, SealError> {
        if self.namespace != namespace {
            return Err(SealError::WrongNamespace {
                expected: namespace.to_owned(),
                found: self.namespace.escape_debug().to_string(),
            });
        }
        let fingerprint = || self.key.fingerprint();
        let key = trusted
            .iter()
            .find(|key| **key == self.key)
            .ok_or_else(|| SealError::WrongKey {
                fingerprint: fingerprint(),
            })?;
        if self
            .flags
            .is_some_and(|flags| flags & FLAG_USER_PRESENT == 0)
        {
            return Err(SealError::NotTouched {
                fingerprint: fingerprint(),
            });
        }
        let bad = |_| SealError::Bad {
            fingerprint: fingerprint(),
        };
        let seal =
            ssh_key::SshSig::new(key.data().clone(), namespace, self.hash, self.made.clone())
                .map_err(bad)?;
        ssh_key::PublicKey::from(key.data().clone())
            .verify(namespace, message, &seal)
            .map_err(bad)?;
        Ok(key)
    }
}

/// Parse and verify an armored SSHSIG in one step.
pub fn verify<'a>(
    armored: &[u8],
    message: &[u8],
    namespace: Namespace,
    trusted: &'a [PublicKey],
) -> Result<&'a PublicKey, SealError> {
    SshSig::from_armor(armored)?.verify(message, namespace, trusted)
}

/// The innermost field: algorithm, bytes, and for hardware keys flags and a counter.
fn parse_made(bytes: &[u8], kind: KeyKind) -> Result<(Signature, Option<u8>), SealError> {
    let mut fields = Fields(bytes);
    let algorithm = fields.text("algorithm")?;
    if algorithm != kind.as_str() {
        return Err(SealError::UnsupportedAlgorithm {
            what: format!(
                "made as `{}` with a key of type `{}`",
                algorithm.escape_debug(),
                kind.as_str()
            ),
        });
    }
    fields.string()?;
    let mut flags = None;
    if kind.is_hardware() {
        flags = Some(fields.take(1)?[0]);
        fields.number()?;
    }
    fields.end()?;
    let made = Signature::try_from(bytes)
        .map_err(|_| malformed("its innermost field has the wrong form"))?;
    Ok((made, flags))
}

/// Reads the fields of RFC 4251, section 5.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], SealError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| malformed("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, SealError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(
            bytes.try_into().expect("because four bytes were taken"),
        ))
    }

    fn string(&mut self) -> Result<&'a [u8], SealError> {
        let length = self.number()?;
        self.take(length as usize)
    }

    fn text(&mut self, what: &str) -> Result<&'a str, SealError> {
        std::str::from_utf8(self.string()?)
            .map_err(|_| malformed(format!("its {what} is not text")))
    }

    fn end(&self) -> Result<(), SealError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(malformed("it has bytes left over"))
    }
}
