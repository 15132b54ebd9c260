//! Strict reading of JSON, JSONL, YAML and TOML, the registry of our JSON
//! Schemas, and validation that names file, line and column.
//!
//! What a reader needs to know:
//!
//! - [`json`], [`yaml`] and [`toml`] turn bytes into a [`Located`] value: the
//!   value, and the text that it came from, so that any JSON pointer can be
//!   shown as `file:line:col` later. Positions cost nothing until asked for.
//! - All refuse what readers disagree about: duplicate keys, numbers that are
//!   not JSON's, integers beyond ±(2^53 − 1), anchors, tags, invalid UTF-8.
//! - [`registry`] holds the public contract in `schemas/`, compiled once;
//!   [`validator`] compiles anybody's schema. Neither ever opens a file or a
//!   connection for a `$ref`.
//! - All faults of a document are reported at once, as [`Diagnostics`].

pub mod diagnostic;
mod explain;
pub mod json;
mod json_scan;
pub mod registry;
mod soundness;
pub mod source;
pub mod toml;
pub mod validator;
pub mod yaml;
mod yaml_writer;

pub use diagnostic::{Diagnostic, Diagnostics, Excerpt};
pub use explain::did_you_mean;
pub use registry::SchemaName;
pub use source::{Format, Located, Source};
pub use validator::{BadSchema, Fault, Validator};
