//! Where each record lives: ref, path, load, append. Joins the domain's values with the store's bytes.

pub mod artifacts;
pub mod canary;
pub mod control;
pub mod datasets;
pub mod document;
pub mod error;
pub mod evidence;
pub mod journal;
pub mod ledger;
pub mod receipts;
pub mod refs;
pub mod sealed;
pub mod signatures;

pub use error::RecordError;
pub use refs::Refs;
