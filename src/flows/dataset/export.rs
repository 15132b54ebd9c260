//! Export: rows as a file that `dataset import` takes as it is.

use std::fmt::Write as _;

use serde_json::Value;

use crate::domain::improve::dataset::formats::FileFormat;
use crate::domain::improve::dataset::intake::wants_text;
use crate::domain::improve::dataset::table::cell;
use crate::domain::improve::dataset::{Kept, Row, Split};
use crate::domain::improve::signature::Signature;
use crate::flows::{FlowError, Workspace};
use crate::records::datasets::upkeep;

use super::withheld;

/// Which rows, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only rows of this split.
    pub split: Option<Split>,
    /// The form.
    pub format: FileFormat,
    /// Holdout rows too.
    pub include_holdout: bool,
}

/// The rows as one text.
pub fn export(
    workspace: &Workspace,
    signature: &Signature,
    options: Options,
) -> Result<String, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let rows = upkeep::load(&workspace.refs, snapshot.as_ref(), &signature.id)?.rows;
    let rows: Vec<Kept> = rows
        .into_iter()
        .filter(|row| options.split.is_none_or(|split| row.split == Some(split)))
        .collect();
    let holdout = rows
        .iter()
        .filter(|row| row.split == Some(Split::Holdout))
        .count();
    if holdout > 0 && !options.include_holdout {
        return Err(withheld(&format!("{holdout} of the rows are"))
            .hint("or name another split: `--split train`"));
    }
    match options.format {
        FileFormat::Jsonl => Ok(rows.iter().flat_map(|row| [row.line(), "\n"]).collect()),
        FileFormat::Json => {
            let lines: Vec<&str> = rows.iter().map(Kept::line).collect();
            Ok(format!("[\n{}\n]\n", lines.join(",\n")))
        }
        FileFormat::Csv => csv(signature, &rows),
    }
}

fn csv(signature: &Signature, rows: &[Kept]) -> Result<String, FlowError> {
    let mut text = "id,input,expected,split,tags,group,source,meta\n".to_owned();
    for row in rows.iter().map(Kept::row) {
        if let Some(tag) = row
            .tags
            .iter()
            .find(|tag| tag.contains(';') || tag.trim() != *tag)
        {
            return Err(FlowError::input(format!(
                "the tag `{tag}` of `{}` cannot stand in a CSV cell",
                row.id
            ))
            .hint("tags are separated by `;` there; use `--format jsonl`"));
        }
        let cells = [
            cell(Some(row.id.as_str())),
            value(&signature.input, &row.input),
            value(&signature.output, &row.expected),
            cell(row.split.map(Split::as_str)),
            cell(
                Some(row.tags.join(";"))
                    .as_deref()
                    .filter(|tags| !tags.is_empty()),
            ),
            cell(row.group.as_ref().map(|group| group.as_str())),
            cell(row.source.as_deref()),
            meta(&row),
        ];
        let _ = writeln!(text, "{}", cells.join(","));
    }
    Ok(text)
}

/// As the import will read it: a text as it is where the schema asks for one, JSON elsewhere.
fn value(schema: &Value, value: &Value) -> String {
    match value {
        Value::String(text) if wants_text(schema, &[]) == Some(true) => cell(Some(text)),
        other => cell(Some(&other.to_string())),
    }
}

fn meta(row: &Row) -> String {
    match row.meta.is_empty() {
        true => String::new(),
        false => cell(Some(&Value::Object(row.meta.clone()).to_string())),
    }
}
