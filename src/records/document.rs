//! Committed documents: YAML for people, one JSON object a line for logs, each
//! checked against its schema when it is read.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::schema::{SchemaName, registry, yaml};
use crate::store::{RefName, Snapshot, TreePath};

use super::RecordError;

/// A document as YAML bytes.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<Vec<u8>, RecordError> {
    let text = yaml::to_yaml(value).map_err(|error| RecordError::Other(error.to_string()))?;
    Ok(text.into_bytes())
}

/// Read a YAML document and check it against its schema. `name` is how people know it.
pub fn from_yaml<T: DeserializeOwned>(
    name: &str,
    bytes: Vec<u8>,
    schema: Option<SchemaName>,
) -> Result<T, RecordError> {
    let document = yaml::parse(name, bytes)?;
    if let Some(schema) = schema {
        registry::validate(schema, &document)?;
    }
    Ok(document.read()?)
}

/// Read the YAML document at a path of a snapshot, if it is there.
pub fn load<T: DeserializeOwned>(
    snapshot: Option<&Snapshot>,
    reference: &RefName,
    path: &TreePath,
    schema: Option<SchemaName>,
) -> Result<Option<T>, RecordError> {
    let Some(bytes) = snapshot
        .map(|snapshot| snapshot.read(path))
        .transpose()?
        .flatten()
    else {
        return Ok(None);
    };
    from_yaml(&shown(reference, path), bytes, schema).map(Some)
}

/// `proofline/control:active/x.yaml`, as `git show` takes it.
pub fn shown(reference: &RefName, path: &TreePath) -> String {
    let name = reference.to_string();
    format!(
        "{}:{path}",
        name.strip_prefix("refs/heads/").unwrap_or(&name)
    )
}

/// One line of a log.
pub fn to_line<T: Serialize>(value: &T) -> Result<String, RecordError> {
    serde_json::to_string(value).map_err(|error| RecordError::Other(error.to_string()))
}

/// Read one line of a log.
pub fn from_line<T: DeserializeOwned>(
    name: &str,
    number: usize,
    line: &[u8],
) -> Result<T, RecordError> {
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        RecordError::Other(format!("{name}:{number}:{}: {error}", error.column()))
    })?;
    serde_json::from_value(value)
        .map_err(|error| RecordError::Other(format!("{name}:{number}: {error}")))
}
