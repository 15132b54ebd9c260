//! What happened overnight? Runs and their events.

pub mod command;
pub mod event;
pub mod junit;
pub mod output;
pub mod redact;
pub mod run;
