//! One use case per file: load, decide, one transaction per step, an outcome.

pub mod canary;
pub mod commands;
pub mod compile;
pub mod dataset;
pub mod error;
pub mod eval;
pub mod evaluate;
pub mod exercise;
pub mod freeze;
pub mod holdout;
pub mod init;
pub mod keyring;
pub mod land;
pub mod night;
pub mod night_signature;
pub mod pin;
pub mod predict;
pub mod preflight;
pub mod project;
pub mod promote;
pub mod promotions;
pub mod proposal;
pub mod quickstart;
pub mod receipts;
pub mod resolve;
pub mod rollback;
pub mod runs;
pub mod signatures;
pub mod status;
pub mod verify_run;
pub mod workspace;

pub use error::{FlowError, Kind};
pub use project::Project;
pub use workspace::Workspace;
