//! A small signature and rows for it, for tests of datasets.

#![allow(dead_code, reason = "every test binary uses its own part")]

use serde_json::{Value, json};

use crate::scratch::Scratch;

/// The signature's id.
pub const ID: &str = "@test/data/Route.v1";

/// Where it stands in the work tree.
pub const FILE: &str = "signatures/Route.v1.yaml";

/// A text, and a number that need not be there, become a label.
pub const SIGNATURE: &str = r#"schema: proofline/signature/v1
id: "@test/data/Route.v1"
description: Where a message goes.
input:
  type: object
  required: [text]
  additionalProperties: false
  properties: {text: {type: string}, n: {type: integer}}
output:
  type: object
  required: [label]
  additionalProperties: false
  properties: {label: {enum: [a, b, c]}}
metric: {kind: field_match, field: /label}
defaults: {strategy: distilled.lexical.v1}
"#;

/// A repository with the signature.
pub fn project() -> Scratch {
    let scratch = Scratch::new();
    scratch.write(FILE, SIGNATURE);
    scratch
}

/// `id text label split` and more members: one row.
pub fn row(id: &str, text: &str, label: &str, split: &str, more: Value) -> String {
    let mut row = json!({"id": id, "input": {"text": text}, "expected": {"label": label}});
    if !split.is_empty() {
        row["split"] = json!(split);
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        row[name] = value.clone();
    }
    format!("{row}\n")
}

/// `id:text:label:split:group`, a row each; the last two may be left off.
pub fn rows(short: &[&str]) -> String {
    short
        .iter()
        .map(|short| {
            let mut parts = short.split(':');
            let mut part = || parts.next().unwrap_or("");
            let (id, text, label, split, group) = (part(), part(), part(), part(), part());
            let more = if group.is_empty() {
                json!({})
            } else {
                json!({"group": group})
            };
            row(id, text, label, split, more)
        })
        .collect()
}

/// What `dataset.yaml` says now.
pub fn dataset(scratch: &Scratch) -> String {
    scratch.git(&[
        "show",
        "proofline/datasets:datasets/test/data/Route.v1/dataset.yaml",
    ])
}
