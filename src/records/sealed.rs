//! A record with a seal over it, readable as it stands: the body in the open,
//! and beside it the `signatures` of a DSSE envelope over the body's canonical
//! JSON. One form for ledger lines, canaries and evidence, so that `git log -p`
//! can be read and the seal is still plain DSSE.

use base64::Engine as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::canon;
use crate::domain::prove::policy::{Policy, Role};
use crate::id::PrincipalId;
use crate::seal::sign::SignError;
use crate::seal::{Envelope, Namespace, PublicKey, SealSigner};

use super::RecordError;

/// A body with the seals over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed<T> {
    /// What is sealed.
    pub body: T,
    /// The `signatures` member of the DSSE envelope over the body's canonical JSON.
    pub signatures: Value,
}

/// Why a seal was not made.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The key did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The body has no canonical form.
    #[error(transparent)]
    Canon(#[from] canon::CanonError),
}

impl<T: Serialize + DeserializeOwned> Sealed<T> {
    /// Seal a body.
    pub fn seal(body: T, signer: &SealSigner, namespace: Namespace) -> Result<Self, SealingError> {
        let envelope = Envelope::seal(&canon::to_bytes(&body)?, &[signer], namespace)?;
        let mut wire: Value = serde_json::from_str(&envelope.to_json_line())
            .expect("because an envelope is written as JSON");
        Ok(Self {
            body,
            signatures: wire["signatures"].take(),
        })
    }

    /// The DSSE envelope, with its payload.
    pub fn envelope(&self) -> Result<Envelope, RecordError> {
        let payload =
            base64::engine::general_purpose::STANDARD.encode(canon::to_bytes(&self.body)?);
        let wire = json!({
            "payload": payload,
            "payloadType": crate::seal::dsse::PAYLOAD_TYPE,
            "signatures": self.signatures,
        });
        Envelope::parse(wire.to_string().as_bytes())
            .map_err(|error| RecordError::Other(error.to_string()))
    }

    /// The principals with this role whose keys sealed the body; empty when nobody's did.
    pub fn sealed_by(
        &self,
        policy: &Policy,
        role: Role,
        namespace: Namespace,
    ) -> Result<Vec<PrincipalId>, RecordError> {
        sealed_by(&self.envelope()?, policy, role, namespace)
    }
}

/// The principals with this role whose keys sealed an envelope, each once.
pub fn sealed_by(
    envelope: &Envelope,
    policy: &Policy,
    role: Role,
    namespace: Namespace,
) -> Result<Vec<PrincipalId>, RecordError> {
    let mut keys: Vec<(PublicKey, &PrincipalId)> = Vec::new();
    for name in policy.in_role(role) {
        for key in policy
            .principals
            .get(name)
            .into_iter()
            .flat_map(|principal| &principal.keys)
        {
            let key = key.parse().map_err(|error| {
                RecordError::Other(format!("the policy's key of `{name}`: {error}"))
            })?;
            keys.push((key, name));
        }
    }
    let trusted: Vec<PublicKey> = keys.iter().map(|(key, _)| key.clone()).collect();
    let verified = envelope.verify(&trusted, namespace);
    let mut names: Vec<PrincipalId> = verified
        .keys
        .iter()
        .filter_map(|key| keys.iter().find(|(known, _)| known == key))
        .map(|(_, name)| (*name).clone())
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}
