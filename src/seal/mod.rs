//! Seals: SSHSIG, DSSE envelopes, keys. (Never called signatures: that word means the interface of an LLM program.)
//!
//! Seals are verified in process and made by other programs: `ssh-keygen`,
//! `ssh-agent` and `gpg`, as git does. No private key is ever read here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`keys`] | [`PublicKey`], key generation |
//! | [`namespaces`] | [`Namespace`]: what a seal was made for |
//! | [`sshsig`] | the SSHSIG format: parse and verify |
//! | [`sign`] | [`SealSigner`]: `ssh-keygen -Y sign` |
//! | [`dsse`] | [`Envelope`]: a payload with its seals |
//! | [`commit`] | git commit signatures, made and verified |
//! | [`allowed_signers`] | the allowed_signers file of `ssh-keygen` |
//!
//! A seal that does not verify is a value ([`SealError`]) that says which of
//! the few possible reasons it was.

pub mod allowed_signers;
mod armor;
pub mod commit;
pub mod dsse;
pub mod keys;
pub mod namespaces;
pub mod sign;
pub mod sshsig;

pub use commit::CommitSigner;
pub use dsse::Envelope;
pub use keys::PublicKey;
pub use namespaces::Namespace;
pub use sign::SealSigner;
pub use sshsig::{SealError, SshSig};
