//! The rules, pure: no git, no files, no clock, no environment, no threads, no
//! randomness without a seed. Everything here can be tested with values alone.

pub mod improve;
pub mod operate;
pub mod prove;
