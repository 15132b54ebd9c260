//! Proofline: a git-native control plane for software that improves itself.
//!
//! The library returns values; only `cli` prints. The layers, from the top:
//! `cli`, `flows`, `records`, `domain`, `models`, `schema`, `seal`, `store`,
//! `host`, and `id`/`canon` beneath all of them. Imports point only downward
//! and `tests/architecture.rs` holds them to it; ARCHITECTURE.md has the map.
#![forbid(unsafe_code)]

pub mod canon;
pub mod cli;
pub mod domain;
pub mod flows;
pub mod host;
pub mod id;
pub mod models;
pub mod records;
pub mod schema;
pub mod seal;
pub mod store;
