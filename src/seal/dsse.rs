//! DSSE v1 envelopes: a payload and the seals over it.
//!
//! Each seal is an SSHSIG over the pre-authentication encoding of the payload
//! (`DSSEv1 <length> <type> <length> <payload>`), so payload and type are both
//! covered. Its `keyid` is the key's fingerprint and its `sig` the base64 of
//! the binary SSHSIG: the bytes inside `ssh-keygen`'s armor. To check one by
//! hand, write the encoding to a file, wrap `sig` in
//! `-----BEGIN SSH SIGNATURE-----` and `-----END SSH SIGNATURE-----` lines, and
//! run `ssh-keygen -Y verify`.
//!
//! Parsing is strict, so that two readers can't see two things in one
//! envelope: one JSON object, known fields once each, canonical base64, one
//! seal per key. Specification:
//! <https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>.

use serde::{Deserialize, Serialize};

use super::armor::{decode_base64, encode_base64};
use super::keys::PublicKey;
use super::namespaces::Namespace;
use super::sign::{SealSigner, SignError};
use super::sshsig::{SealError, SshSig};

/// The only payload type that we write and read: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// More seals than this in one envelope are refused: each costs the reader a verification.
pub const SEALS_MAX: usize = 64;

/// A payload and the seals over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    seals: Vec<SshSig>,
}

/// Why some bytes are not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not exactly one JSON object with exactly the fields of DSSE.
    #[error("not a DSSE envelope: {reason}")]
    Json {
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A payload of another type.
    #[error("the envelope's payloadType is `{found}`, not `{PAYLOAD_TYPE}`")]
    PayloadType {
        /// What it says.
        found: String,
    },
    /// The payload is not canonical base64.
    #[error("the envelope's payload is not canonical base64")]
    Payload,
    /// One of the seals is not well-formed.
    #[error("seal {index} of the envelope: {reason}")]
    Seal {
        /// Which one, from zero.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No seal, or too many.
    #[error("the envelope has {count} seals; it needs 1 to {SEALS_MAX}")]
    Count {
        /// How many.
        count: usize,
    },
}

/// What [`Envelope::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The trusted keys that sealed the payload, each once, in the envelope's order.
    pub keys: Vec<PublicKey>,
    /// The seals that don't count, by their keys' fingerprints, and why.
    pub refused: Vec<(String, SealError)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEnvelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSeal>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSeal {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Seal a payload with each signer. The payload's bytes are kept as they are.
    pub fn seal(
        payload: &[u8],
        signers: &[&SealSigner],
        namespace: Namespace,
    ) -> Result<Self, SignError> {
        let encoding = pre_authentication_encoding(PAYLOAD_TYPE, payload);
        let mut seals: Vec<SshSig> = Vec::with_capacity(signers.len());
        for signer in signers {
            if seals.iter().all(|seal| seal.key() != signer.public_key()) {
                seals.push(signer.seal(namespace, &encoding)?);
            }
        }
        Ok(Self {
            payload: payload.to_owned(),
            seals,
        })
    }

    /// Parse an envelope; space around the object is allowed, anything else is not.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let wire: WireEnvelope =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Json {
                reason: error.to_string(),
            })?;
        if wire.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType {
                found: wire.payload_type,
            });
        }
        let payload = decode_base64(&wire.payload).ok_or(EnvelopeError::Payload)?;
        let count = wire.signatures.len();
        if count == 0 || count > SEALS_MAX {
            return Err(EnvelopeError::Count { count });
        }
        let mut seals: Vec<SshSig> = Vec::with_capacity(count);
        for (index, wire) in wire.signatures.iter().enumerate() {
            let fail = |reason: String| EnvelopeError::Seal { index, reason };
            let blob = decode_base64(&wire.sig)
                .ok_or_else(|| fail("its `sig` is not canonical base64".to_owned()))?;
            let seal = SshSig::from_blob(&blob).map_err(|error| fail(error.to_string()))?;
            if seal.key().fingerprint() != wire.keyid {
                return Err(fail("its `keyid` is not its key's fingerprint".to_owned()));
            }
            if seals.iter().any(|earlier| earlier.key() == seal.key()) {
                return Err(fail("an earlier seal is by the same key".to_owned()));
            }
            seals.push(seal);
        }
        Ok(Self { payload, seals })
    }

    /// One line of JSON, with the line's end.
    pub fn to_json_line(&self) -> String {
        let wire = WireEnvelope {
            payload: encode_base64(&self.payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: self
                .seals
                .iter()
                .map(|seal| WireSeal {
                    keyid: seal.key().fingerprint(),
                    sig: encode_base64(seal.as_blob()),
                })
                .collect(),
        };
        let mut line =
            serde_json::to_string(&wire).expect("because strings and lists are always JSON");
        line.push('\n');
        line
    }

    /// The payload, byte for byte as it was sealed. It proves nothing before [`Envelope::verify`].
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The seals, in order.
    pub fn seals(&self) -> &[SshSig] {
        &self.seals
    }

    /// Which of the trusted keys sealed exactly this payload for exactly this purpose.
    ///
    /// The caller counts principals and compares with its threshold; an empty
    /// list of keys means that nobody did.
    pub fn verify(&self, trusted: &[PublicKey], namespace: Namespace) -> Verified {
        let encoding = pre_authentication_encoding(PAYLOAD_TYPE, &self.payload);
        let mut verified = Verified {
            keys: Vec::new(),
            refused: Vec::new(),
        };
        for seal in &self.seals {
            match seal.verify(&encoding, namespace, trusted) {
                Ok(key) => verified.keys.push(key.clone()),
                Err(error) => verified.refused.push((seal.key().fingerprint(), error)),
            }
        }
        verified
    }
}

/// DSSE's PAE: `DSSEv1 LEN(type) type LEN(payload) payload`, lengths in bytes, one space between.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in DSSE's protocol.md.
    #[test]
    fn encoding_follows_the_specification() {
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
