//! The only place that touches the clock, the environment, processes, files,
//! locks and signals. Everything above takes what it needs as values.

pub mod clock;
pub mod environment;
pub mod files;
pub mod lock;
pub mod network;
pub mod process;
pub mod signal;
