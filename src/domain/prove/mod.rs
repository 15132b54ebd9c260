//! Is it really better, and who says so? Statistics, gates, the holdout ledger, promotion, policy.

pub mod admission;
pub mod gate;
pub mod holdout;
pub mod policy;
pub mod promotion;
pub mod stats;
pub mod verdict;
