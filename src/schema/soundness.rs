//! What makes a schema unusable: its meta-schema, references that lead outside,
//! formats and patterns that nobody here knows.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::explain::shown;
use super::registry;
use super::source::push_token;
use super::validator::Fault;

/// Faults of a schema as a document: against its meta-schema, with all the places.
pub(super) fn check_schema(schema: &Value) -> Result<(), Vec<Fault>> {
    let meta = match schema.get("$schema").and_then(Value::as_str) {
        None => registry::META_SCHEMA,
        Some(uri) => uri.trim_end_matches('#'),
    };
    let Some(meta) = registry::meta_validator(meta) else {
        return Err(vec![Fault {
            pointer: "/$schema".to_owned(),
            message: format!("`{meta}` is not a dialect of JSON Schema that is known here"),
            schema_path: String::new(),
            hint: Some(format!("use `{}`", registry::META_SCHEMA)),
            at_key: false,
        }]);
    };
    match meta.errors(schema) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(faults),
    }
}

/// Notes every `$ref` that seems to lead outside of the schema and of our own schemas.
fn refuse_remote(root: &Value, schema: &Value, pointer: &mut String, faults: &mut Vec<Fault>) {
    let length = pointer.len();
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                // What stands in these is data, not a schema.
                if matches!(key.as_str(), "const" | "enum" | "default" | "examples") {
                    continue;
                }
                push_token(pointer, key);
                let target = value
                    .as_str()
                    .filter(|_| key == "$ref" || key == "$dynamicRef");
                if let Some(target) = target
                    && !target.starts_with('#')
                    && !is_known_target(root, target)
                {
                    faults.push(Fault {
                        pointer: pointer.clone(),
                        message: format!(
                            "`{target}` leads out of this schema; references are never fetched"
                        ),
                        schema_path: String::new(),
                        hint: Some(
                            "copy the schema into `$defs` and refer to `#/$defs/…`".to_owned(),
                        ),
                        at_key: false,
                    });
                }
                refuse_remote(root, value, pointer, faults);
                pointer.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                push_token(pointer, &index.to_string());
                refuse_remote(root, item, pointer, faults);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

fn is_known_target(root: &Value, target: &str) -> bool {
    let document = target.split('#').next().unwrap_or("");
    registry::is_ours(document) || registry::is_meta(document) || holds_id(root, document)
}

fn holds_id(schema: &Value, id: &str) -> bool {
    match schema {
        Value::Object(members) => {
            members
                .get("$id")
                .and_then(Value::as_str)
                .is_some_and(|own| {
                    own.trim_end_matches('#') == id || (!id.contains(':') && own.ends_with(id))
                })
                || members.values().any(|value| holds_id(value, id))
        }
        Value::Array(items) => items.iter().any(|item| holds_id(item, id)),
        _ => false,
    }
}

/// The pointer that a `$ref` within the document means.
pub(super) fn local_target(root: &Value, target: &str) -> Option<String> {
    let own_id = root.get("$id").and_then(Value::as_str);
    let fragment = match target.split_once('#') {
        Some((before, fragment)) if before.is_empty() || Some(before) == own_id => fragment,
        None if Some(target) == own_id => "",
        _ => return None,
    };
    let pointer = percent_decoded(fragment)?;
    if pointer.is_empty() || pointer.starts_with('/') {
        return Some(pointer);
    }
    find_anchor(root, &pointer, &mut String::new())
}

fn find_anchor(schema: &Value, name: &str, pointer: &mut String) -> Option<String> {
    let length = pointer.len();
    match schema {
        Value::Object(members) => {
            if members.get("$anchor").and_then(Value::as_str) == Some(name) {
                return Some(pointer.clone());
            }
            for (key, value) in members {
                push_token(pointer, key);
                if let Some(found) = find_anchor(value, name, pointer) {
                    return Some(found);
                }
                pointer.truncate(length);
            }
            None
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            push_token(pointer, &index.to_string());
            let found = find_anchor(item, name, pointer);
            pointer.truncate(length);
            found
        }),
        _ => None,
    }
}

pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Why a schema that obeys its meta-schema cannot be used.
pub(super) fn unusable(schema: &Value, error: &ValidationError<'_>) -> Vec<Fault> {
    let mut fault = Fault {
        pointer: error.instance_path().to_string(),
        message: error.to_string(),
        schema_path: String::new(),
        hint: None,
        at_key: false,
    };
    if schema.pointer(&fault.pointer).is_none() {
        fault.pointer.clear();
    }
    match error.kind() {
        ValidationErrorKind::Referencing(_) => {
            // The library says what it could not find, not where it is asked for.
            let mut faults = Vec::new();
            refuse_remote(schema, schema, &mut String::new(), &mut faults);
            if !faults.is_empty() {
                return faults;
            }
            fault.hint =
                Some("references are resolved within the schema; nothing is fetched".to_owned());
        }
        ValidationErrorKind::Format { format } if format == "regex" => {
            fault.message = format!(
                "{} is not a regular expression that is understood here",
                shown(error.instance())
            );
        }
        _ if fault.pointer.is_empty() && fault.message.to_lowercase().contains("format") => {
            // The error of an unknown format names it and nothing else.
            if let Some((place, name)) = unknown_format(schema, &fault.message, &mut String::new())
            {
                fault.pointer = place;
                fault.message = format!("the format `{name}` is not known here");
                fault.hint = Some("use a format of JSON Schema 2020-12, or a `pattern`".to_owned());
            }
        }
        _ => {}
    }
    vec![fault]
}

fn unknown_format(schema: &Value, message: &str, pointer: &mut String) -> Option<(String, String)> {
    let length = pointer.len();
    let children: Vec<(String, &Value)> = match schema {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => return None,
    };
    for (key, value) in children {
        push_token(pointer, &key);
        if key == "format"
            && let Some(name) = value.as_str()
            && message.contains(&format!("'{name}'"))
        {
            return Some((pointer.clone(), name.to_owned()));
        }
        if let Some(found) = unknown_format(value, message, pointer) {
            return Some(found);
        }
        pointer.truncate(length);
    }
    None
}
