//! A compiled JSON Schema, and faults that say what to do.
//!
//! Draft 2020-12 unless `$schema` names another. Formats are checked, unknown
//! formats are refused, patterns have a limit on backtracking, and a `$ref`
//! is resolved within the schema and among our own schemas, never fetched.

use std::fmt;
use std::sync::Arc;

use jsonschema::PatternOptions;
use serde_json::Value;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::explain::explain;
use super::json;
use super::registry;
use super::soundness::{check_schema, unusable};
use super::source::{Format, Located, Source};

/// One way in which a value breaks a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer to the value at fault.
    pub pointer: String,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// JSON pointer to the broken rule, as it was reached through `$ref`s.
    pub schema_path: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The key of the member is at fault, not its value.
    pub at_key: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// A schema that cannot be used, with everything that is wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSchema {
    /// At least one; pointers lead into the schema.
    pub faults: Vec<Fault>,
}

impl fmt::Display for BadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BadSchema {}

/// A schema, compiled once; cheap to clone and to share between threads.
#[derive(Clone)]
pub struct Validator(Arc<Compiled>);

struct Compiled {
    /// What schema paths start with: `proofline/signature/v1`, or empty.
    name: String,
    schema: Value,
    validator: jsonschema::Validator,
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Validator").field(&self.0.name).finish()
    }
}

impl Validator {
    /// Compiles a schema. It is checked against its own meta-schema first.
    pub fn new(schema: &Value) -> Result<Self, BadSchema> {
        check_schema(schema)
            .and_then(|()| Self::build(String::new(), schema, registry::surroundings(schema)))
            .map_err(|faults| BadSchema { faults })
    }

    /// Compiles the schema that stands at `pointer` of a document; faults name their place in it.
    pub fn compile_at(document: &Located<Value>, pointer: &str) -> Result<Self, Diagnostics> {
        let Some(schema) = document.value.pointer(pointer) else {
            return Err(document
                .source
                .at(pointer, format!("there is no schema at `{pointer}`"))
                .into());
        };
        Self::new(schema).map_err(|bad| {
            let mut all = Diagnostics::new();
            for mut fault in bad.faults {
                fault.pointer.insert_str(0, pointer);
                all.push(locate(&document.source, "", fault));
            }
            all
        })
    }

    /// Compiles a schema that is known to be one.
    pub(crate) fn build(
        name: String,
        schema: &Value,
        registry: Option<&jsonschema::Registry<'static>>,
    ) -> Result<Self, Vec<Fault>> {
        let options = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(
                PatternOptions::fancy_regex()
                    .backtrack_limit(100_000)
                    .size_limit(1 << 20),
            );
        let options = match schema.get("$schema") {
            None => options.with_draft(jsonschema::Draft::Draft202012),
            Some(_) => options,
        };
        let built = match registry {
            Some(registry) => options.with_registry(registry).build(schema),
            None => options.build(schema),
        };
        match built {
            Ok(validator) => Ok(Self(Arc::new(Compiled {
                name,
                schema: schema.clone(),
                validator,
            }))),
            Err(error) => Err(unusable(schema, &error)),
        }
    }

    /// The schema.
    pub fn schema(&self) -> &Value {
        &self.0.schema
    }

    /// Whether a value obeys the schema: the fast question.
    pub fn is_valid(&self, value: &Value) -> bool {
        self.0.validator.is_valid(value)
    }

    /// All the ways in which a value breaks the schema; none when it is valid.
    pub fn errors(&self, value: &Value) -> Vec<Fault> {
        if self.is_valid(value) {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for error in self.0.validator.iter_errors(value) {
            explain(&self.0.schema, &error, &mut faults);
        }
        faults
    }

    /// The same as [`Validator::errors`], with file, line and column.
    pub fn check(&self, document: &Located<Value>) -> Diagnostics {
        self.check_at(document, "")
    }

    /// Checks the value at `pointer` of a document; no value there is no fault.
    pub fn check_at(&self, document: &Located<Value>, pointer: &str) -> Diagnostics {
        let mut all = Diagnostics::new();
        let Some(value) = document.value.pointer(pointer) else {
            return all;
        };
        for mut fault in self.errors(value) {
            yaml_hint(&document.source, value, &mut fault);
            let holds_others = !fault.at_key
                && value
                    .pointer(&fault.pointer)
                    .is_some_and(|v| v.is_object() || v.is_array());
            fault.pointer.insert_str(0, pointer);
            let mut diagnostic = locate(&document.source, &self.0.name, fault);
            if let Some(excerpt) = diagnostic.excerpt.as_mut().filter(|_| holds_others) {
                excerpt.width = 1;
            }
            all.push(diagnostic);
        }
        all.sort();
        all
    }
}

fn locate(source: &Source, schema: &str, fault: Fault) -> Diagnostic {
    let mut diagnostic = match fault.at_key {
        true => source.at_key(&fault.pointer, fault.message),
        false => source.at(&fault.pointer, fault.message),
    };
    diagnostic.schema_path = Some(format!("{schema}#{}", fault.schema_path));
    diagnostic.hint = fault.hint;
    if fault.at_key && is_secret_name(&fault.pointer) {
        // The line holds the value as well, which is likely to be the secret itself.
        diagnostic.excerpt = None;
    }
    diagnostic
}

fn is_secret_name(pointer: &str) -> bool {
    let name = pointer.rsplit('/').next().unwrap_or("").to_lowercase();
    ["key", "token", "secret", "password", "credential"]
        .iter()
        .any(|word| name.contains(word))
}

/// YAML 1.1 had `no` and `on` for booleans: say so where a boolean is wanted.
fn yaml_hint(source: &Source, value: &Value, fault: &mut Fault) {
    if source.format() != Format::Yaml || !fault.schema_path.ends_with("/type") {
        return;
    }
    let Some(Value::String(text)) = value.pointer(&fault.pointer) else {
        return;
    };
    let meant = match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" => "true",
        "no" | "off" | "n" => "false",
        _ => return,
    };
    if fault.message.starts_with("expected a boolean") {
        fault.hint = Some(format!("in YAML 1.2 `{text}` is a text: write `{meant}`"));
    }
}

/// Checks an instance against a schema that a user supplied, both with places.
pub fn validate_against(
    schema: &Located<Value>,
    instance: &Located<Value>,
) -> Result<(), Diagnostics> {
    let all = Validator::compile_at(schema, "")?.check(instance);
    all.into_result(())
}

/// Parses a schema's text and compiles it.
pub fn compile_text(file: &str, text: &str) -> Result<Validator, Diagnostics> {
    Validator::compile_at(&json::parse(file, text)?, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::yaml;
    use serde_json::json;

    fn first(schema: Value, value: Value) -> Fault {
        let validator = Validator::new(&schema).expect("a schema");
        validator
            .errors(&value)
            .into_iter()
            .next()
            .expect("a fault")
    }

    #[test]
    fn faults_say_what_to_do() {
        let schema = json!({
            "type": "object",
            "properties": {
                "few_shot": {"type": "integer", "description": "How many examples. At most nine.", "maximum": 9},
                "mode": {"enum": ["strict_json", "jsonish"]},
                "on": {"$ref": "#/$defs/flag"},
                "tags": {"type": "array", "uniqueItems": true},
                "at": {"format": "date-time"},
            },
            "required": ["mode"],
            "additionalProperties": false,
            "$defs": {"flag": {"type": "object", "properties": {"enabled": {"type": "boolean"}}, "additionalProperties": false}},
        });
        for (value, pointer, message, hint) in [
            (
                json!({"mode": "jsonish", "fewShot": 1}),
                "/fewShot",
                "unknown property `fewShot`",
                "did you mean `few_shot`?",
            ),
            (
                json!({"mode": "json-ish"}),
                "/mode",
                "`json-ish` is not one of `strict_json`, `jsonish`",
                "did you mean `jsonish`?",
            ),
            (
                json!({"mode": "jsonish", "few_shot": "1"}),
                "/few_shot",
                "expected an integer, found the string `1`",
                "How many examples",
            ),
            (
                json!({"mode": "jsonish", "on": {"enable": true}}),
                "/on/enable",
                "unknown property `enable`",
                "did you mean `enabled`?",
            ),
            (
                json!({"mode": "jsonish", "tags": ["a", "b", "a"]}),
                "/tags/2",
                "`a` is in the list twice (items 0 and 2)",
                "keep one",
            ),
            (
                json!({"mode": "jsonish", "zzzzz": 1}),
                "/zzzzz",
                "unknown property `zzzzz`",
                "what may still be given here: `at`, `few_shot`, `on`, `tags`",
            ),
        ] {
            let fault = first(schema.clone(), value);
            assert_eq!(
                (
                    fault.pointer.as_str(),
                    fault.message.as_str(),
                    fault.hint.as_deref()
                ),
                (pointer, message, Some(hint))
            );
        }
        assert_eq!(
            first(schema.clone(), json!({})).message,
            "`mode` is missing"
        );
        assert_eq!(
            first(
                schema.clone(),
                json!({"mode": "jsonish", "at": "yesterday"})
            )
            .message,
            "`yesterday` is not a valid date-time"
        );
        assert_eq!(
            first(schema, json!({"mode": "jsonish", "few_shot": 10})).message,
            "10 is greater than the maximum of 9"
        );
    }

    #[test]
    fn the_branch_that_was_meant_is_explained() {
        let schema = json!({"anyOf": [
            {"type": "string"},
            {"type": "object", "properties": {"a": {"type": "integer"}}},
        ]});
        assert_eq!(first(schema.clone(), json!({"a": "x"})).pointer, "/a");
        assert!(
            first(schema, json!(1))
                .message
                .starts_with("no alternative fits: expected a string")
        );
    }

    #[test]
    fn yaml_words_for_booleans_are_explained() {
        let schema = json!({"properties": {"on": {"type": "boolean"}}});
        let document = yaml::parse("f.yaml", "on: no\n").expect("valid YAML");
        let all = Validator::new(&schema).expect("a schema").check(&document);
        assert_eq!(
            all.to_string(),
            "f.yaml:1:5: expected a boolean, found the string `no`\n    on: no\n        ^^\n  hint: in YAML 1.2 `no` is a text: write `false`"
        );
    }

    #[test]
    fn bad_schemas_are_refused_with_their_place() {
        for (schema, pointer) in [
            (
                json!({"properties": {"a": {"type": "strng"}}}),
                "/properties/a/type",
            ),
            (
                json!({"properties": {"a": {"minimum": "1"}}}),
                "/properties/a/minimum",
            ),
            (json!({"$ref": "https://example.com/a.json"}), "/$ref"),
            (json!({"$ref": "other.json#/a"}), "/$ref"),
            (
                json!({"items": {"$ref": "file:///etc/passwd"}}),
                "/items/$ref",
            ),
            (
                json!({"$schema": "https://example.com/dialect"}),
                "/$schema",
            ),
            (
                json!({"properties": {"a": {"format": "int64"}}}),
                "/properties/a/format",
            ),
        ] {
            let faults = Validator::new(&schema).expect_err("a bad schema").faults;
            assert_eq!(faults[0].pointer, pointer, "{faults:?}");
        }
        for schema in [
            json!({"$ref": "#/$defs/missing"}),
            json!({"pattern": "("}),
            json!({"pattern": 5}),
            json!({"$ref": "#nowhere"}),
            json!([]),
        ] {
            assert!(Validator::new(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn good_schemas_of_all_kinds_compile() {
        for schema in [
            json!(true),
            json!({}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"type": "string"}}, "properties": {"b": {"$ref": "#/definitions/a"}}}),
            json!({"$id": "https://example.com/x.json", "$defs": {"a": {"$anchor": "A", "type": "string"}}, "items": {"$ref": "#A"}, "not": {"$ref": "x.json#/$defs/a"}}),
            json!({"type": "object", "properties": {"children": {"items": {"$ref": "#"}}}}),
            json!({"$id": "https://example.com/a/r", "$defs": {"b": {"$id": "b/b", "$ref": "../r"}}, "items": {"$ref": "./b/b"}}),
            json!({"pattern": "^(?!\\.)(?!.*\\.\\.)[a-z.]+$"}),
            json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
            json!({"const": {"$ref": "https://example.com/"}}),
        ] {
            assert!(
                Validator::new(&schema).is_ok(),
                "{schema}: {:?}",
                Validator::new(&schema).err()
            );
        }
    }

    /// References in a circle judge nothing, and must not run forever either.
    #[test]
    fn circles_end() {
        for schema in [
            json!({"$ref": "#", "type": "string"}),
            json!({"oneOf": [{"$ref": "#"}, {"type": "string"}], "not": {"$ref": "#"}}),
            json!({"if": {"$ref": "#"}, "then": {"type": "string"}, "else": {"$ref": "#"}}),
            json!({"$dynamicAnchor": "x", "$dynamicRef": "#x", "type": "string"}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string", "allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}),
        ] {
            let validator = Validator::new(&schema).expect("a schema");
            assert!(!validator.errors(&json!({"a": 1})).is_empty(), "{schema}");
        }
    }

    #[test]
    fn expensive_patterns_end() {
        let schema = json!({"pattern": "^(?=(a+)+$)(a|aa)+\\1b$"});
        if let Ok(validator) = Validator::new(&schema) {
            assert!(!validator.is_valid(&json!("a".repeat(5000))));
        }
    }

    #[test]
    fn validators_are_shared() {
        fn shareable<T: Send + Sync + Clone>() {}
        shareable::<Validator>();
    }
}
