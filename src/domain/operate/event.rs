//! One event of a run: bounded, append-only, numbered without gaps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::RunId;

/// Longest message, in characters.
pub const MESSAGE_CHARS_MAX: usize = 2_000;
/// Largest `json` member, in bytes of its compact form.
pub const JSON_BYTES_MAX: usize = 16 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// Its number within the run, from 1.
    pub seq: u64,
    /// When.
    pub ts: Timestamp,
    /// Which step of the loop, or a word of another tool's own.
    pub phase: String,
    /// How it matters.
    pub level: Level,
    /// For people, at most [`MESSAGE_CHARS_MAX`] characters.
    pub message: String,
    /// For programs, at most [`JSON_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub json: Map<String, Value>,
}

/// How an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The story as planned.
    Info,
    /// Something a person should know.
    Warn,
    /// Something failed.
    Error,
}

impl Event {
    /// The event with its message and `json` cut to their bounds; says in `json` what was cut.
    pub fn bounded(mut self) -> Self {
        if self.message.chars().count() > MESSAGE_CHARS_MAX {
            self.message = self
                .message
                .chars()
                .take(MESSAGE_CHARS_MAX - 1)
                .chain(['…'])
                .collect();
        }
        let size = serde_json::to_vec(&self.json).map_or(usize::MAX, |bytes| bytes.len());
        if size > JSON_BYTES_MAX {
            self.json = Map::from_iter([("cut_bytes".to_owned(), Value::from(size as u64))]);
        }
        self
    }
}
