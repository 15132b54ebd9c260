//! Can it be better? Signatures, datasets, programs, jobs, metrics, search, reports, canaries.

pub mod artifact;
pub mod canary;
pub mod dataset;
pub mod job;
pub mod metric;
pub mod prompt;
pub mod receipt;
pub mod report;
pub mod search;
pub mod signature;
