//! `proofline.toml`: what a repository's users share about how Proofline works here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::files;
use crate::id::Digest;
use crate::models::ModelConfigs;
use crate::schema::{self, SchemaName};

use super::FlowError;

/// The file's name.
pub const FILE: &str = "proofline.toml";

/// The file, as read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Project {
    /// Always `proofline/project/v1`, when given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The pin of the root policy.
    pub control: Control,
    /// How our branches are named.
    pub refs: RefsConfig,
    /// The remote that `control` and `ledger` are shared through; local only when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Globs of signature files, relative to this file.
    pub signatures: Vec<String>,
    /// How models are asked, by name.
    pub models: ModelConfigs,
    /// Commands that are evidence.
    pub commands: Commands,
}

impl Default for Project {
    /// What holds where there is no file: signatures are looked for all the same.
    fn default() -> Self {
        Self {
            schema: None,
            control: Control::default(),
            refs: RefsConfig::default(),
            remote: None,
            signatures: vec!["signatures/*.yaml".to_owned()],
            models: ModelConfigs::default(),
            commands: Commands::default(),
        }
    }
}

/// The pin of the root policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Digest of the root policy epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

/// How our branches are named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefsConfig {
    /// First part of every branch: `proofline/control`, ….
    pub prefix: String,
}

impl Default for RefsConfig {
    fn default() -> Self {
        Self {
            prefix: "proofline".to_owned(),
        }
    }
}

/// Commands that are evidence: verify before the search, e2e before the pointer moves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commands {
    /// Must pass before anything is searched.
    pub verify: Vec<CommandConfig>,
    /// Must pass with the candidate before it is promoted.
    pub e2e: Vec<CommandConfig>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// A short name for reports.
    pub name: String,
    /// Program and arguments; no shell.
    pub argv: Vec<String>,
    /// Killed after this long, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// JUnit XML it leaves, relative to the project's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub junit: Option<PathBuf>,
    /// Variables it gets besides PATH, HOME, LANG and TMPDIR.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Variables set for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
}

fn default_timeout_ms() -> u64 {
    600_000
}

impl Project {
    /// Read the file in a folder; `None` when there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, FlowError> {
        let path = folder.join(FILE);
        match files::read_optional(&path)? {
            Some(bytes) => Self::parse(&path.display().to_string(), bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Read the file's text. `name` is how the user knows it.
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Self, FlowError> {
        let document = schema::toml::parse(name, bytes)?;
        schema::registry::validate(SchemaName::Project, &document)?;
        let mut project: Self = document.read()?;
        if project.signatures.is_empty() {
            project.signatures.push("signatures/*.yaml".to_owned());
        }
        let faults = crate::models::config::check(&project.models);
        if !faults.is_empty() {
            return Err(
                FlowError::input(format!("{name} configures a model wrongly")).at(faults
                    .iter()
                    .map(|fault| {
                        document
                            .source
                            .at(&format!("/models/{}", fault.model), fault.to_string())
                    })),
            );
        }
        Ok(project)
    }
}
