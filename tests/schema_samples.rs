//! The public schemas: each is a schema, says what it means, and judges the
//! samples in `tests/samples/<name>/{valid,invalid}` as their folder says. What
//! people are told about the invalid ones is kept as a snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proofline::schema::{self, Diagnostics, Located, SchemaName, Validator, registry};
use serde_json::{Value, json};

/// The schemas of what people write or read most. Their refusals are kept word
/// for word, and editors get a title and examples for every property.
const FOR_PEOPLE: [SchemaName; 7] = [
    SchemaName::Signature,
    SchemaName::Example,
    SchemaName::Dataset,
    SchemaName::Project,
    SchemaName::Policy,
    SchemaName::Run,
    SchemaName::Event,
];

fn read(path: &Path) -> Result<Located<Value>, Diagnostics> {
    let name = path
        .file_name()
        .expect("a file")
        .to_string_lossy()
        .into_owned();
    let bytes = fs::read(path).expect("a readable sample");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => schema::json::parse(&name, bytes),
        Some("yaml") => schema::yaml::parse(&name, bytes),
        Some("toml") => schema::toml::parse(&name, bytes),
        other => panic!("{}: no reader for {other:?}", path.display()),
    }
}

fn check(name: SchemaName, path: &Path) -> Result<(), Diagnostics> {
    registry::validate(name, &read(path)?)
}

/// `signature` of `proofline/signature/v1`.
fn folder(name: SchemaName) -> &'static str {
    name.as_str().split('/').nth(1).expect("three parts")
}

fn samples(name: SchemaName, kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples")
        .join(folder(name))
        .join(kind);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} needs {kind} samples");
    paths
}

#[test]
fn valid_samples_pass() {
    for &name in SchemaName::ALL {
        for path in samples(name, "valid") {
            if let Err(faults) = check(name, &path) {
                panic!("{}:\n{faults}", path.display());
            }
        }
    }
}

#[test]
fn invalid_samples_are_refused_in_words_that_help() {
    for &name in SchemaName::ALL {
        let mut story = String::new();
        for path in samples(name, "invalid") {
            let faults = check(name, &path).expect_err(&path.display().to_string());
            story.push_str(&format!("{faults}\n\n"));
        }
        if !FOR_PEOPLE.contains(&name) {
            continue;
        }
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(format!("refusals_{}", folder(name)), story);
        });
    }
}

#[test]
fn every_schema_is_one() {
    for &name in SchemaName::ALL {
        let schema = name.schema();
        assert_eq!(schema["$schema"], registry::META_SCHEMA, "{name}");
        assert_eq!(schema["$id"], name.id(), "{name}");
        if let Err(bad) = Validator::new(schema) {
            panic!("{name}: {bad}");
        }
        name.validator();
        for text in [name.as_str(), &name.id(), folder(name)] {
            assert_eq!(text.parse(), Ok(name));
        }
        assert_eq!(
            fs::read_to_string(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("schemas")
                    .join(&name.as_str()["proofline/".len()..])
                    .with_extension("json")
            )
            .expect("the file that is embedded"),
            name.text()
        );
    }
}

/// Calls `visit` for every subschema, with its pointer.
fn subschemas(schema: &Value, pointer: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(pointer, schema);
    let Value::Object(members) = schema else {
        return;
    };
    for (key, value) in members {
        match (key.as_str(), value) {
            ("properties" | "$defs", Value::Object(named)) => {
                for (name, inner) in named {
                    subschemas(inner, &format!("{pointer}/{key}/{name}"), visit);
                }
            }
            ("additionalProperties" | "items" | "propertyNames", inner @ Value::Object(_)) => {
                subschemas(inner, &format!("{pointer}/{key}"), visit);
            }
            _ => {}
        }
    }
}

#[test]
fn every_property_is_explained() {
    for &name in SchemaName::ALL {
        let mut missing = Vec::new();
        subschemas(name.schema(), "", &mut |pointer, schema| {
            let mut tokens = pointer.rsplit('/').skip(1);
            let named = matches!(tokens.next(), Some("properties" | "$defs")) || pointer.is_empty();
            // `additionalProperties` and `items` may be bare when their owner explains them.
            if !named {
                return;
            }
            let refers = schema["$ref"]
                .as_str()
                .is_some_and(|to| to.starts_with('#'));
            let for_people = FOR_PEOPLE.contains(&name);
            let all: &[&str] = match for_people || pointer.is_empty() {
                true => &["title", "description"],
                false => &["description"],
            };
            for wanted in all {
                let text = schema[*wanted].as_str();
                if text.is_none_or(str::is_empty) && !refers {
                    missing.push(format!("{pointer}: {wanted}"));
                }
            }
            let closed = schema.get("const").is_some();
            if for_people
                && !refers
                && !closed
                && schema["examples"].as_array().is_none_or(Vec::is_empty)
            {
                missing.push(format!("{pointer}: examples"));
            }
            if schema["type"] == "object"
                && schema.get("properties").is_some()
                && schema.get("additionalProperties").is_none()
                && schema.get("allOf").is_none()
            {
                missing.push(format!("{pointer}: additionalProperties"));
            }
        });
        assert!(missing.is_empty(), "{name}: {missing:#?}");
    }
}

#[test]
fn examples_and_defaults_obey_their_schema() {
    for &name in SchemaName::ALL {
        let root = name.schema();
        subschemas(root, "", &mut |pointer, schema| {
            let examples = schema["examples"].as_array().into_iter().flatten();
            let defaults = schema.get("default");
            let values: Vec<&Value> = examples.chain(defaults).collect();
            if values.is_empty() {
                return;
            }
            let part = json!({
                "$schema": registry::META_SCHEMA,
                "$ref": format!("{}#{}", name.id(), pointer.replace('$', "%24")),
            });
            let validator = Validator::new(&part).expect("a part of a schema");
            for value in values {
                let faults = validator.errors(value);
                assert!(faults.is_empty(), "{name}#{pointer}: {value}: {faults:?}");
            }
        });
    }
}

#[test]
fn what_is_written_twice_is_the_same() {
    let mut seen: BTreeMap<String, (SchemaName, &Value)> = BTreeMap::new();
    for name in FOR_PEOPLE {
        let Some(Value::Object(definitions)) = name.schema().get("$defs") else {
            continue;
        };
        for (key, definition) in definitions {
            if matches!(key.as_str(), "split") {
                continue;
            }
            let (first, known) = seen.entry(key.clone()).or_insert((name, definition));
            assert_eq!(*known, definition, "{key} differs in {first} and {name}");
        }
    }
}

#[test]
fn a_document_is_known_by_its_schema_member() {
    let good = schema::yaml::parse("r.yaml", "schema: proofline/run/v1\nid: n1\ntool: x\nstatus: running\nstarted: 2026-11-21T19:00:00Z\n")
        .expect("valid YAML");
    assert_eq!(registry::validate_document(&good), Ok(SchemaName::Run));
    for (text, message, hint) in [
        (
            "a: 1",
            "the document doesn't say which schema it follows",
            "add `schema`, such as `schema: proofline/signature/v1`",
        ),
        (
            "schema: proofline/rum/v1",
            "`proofline/rum/v1` is not a schema of proofline",
            "did you mean `proofline/run/v1`?",
        ),
        ("schema: 1", "`schema` is not a text", ""),
    ] {
        let document = schema::yaml::parse("x.yaml", text).expect("valid YAML");
        let faults = registry::validate_document(&document).expect_err(text);
        let fault = faults.iter().next().expect("one");
        assert_eq!(fault.message, message);
        assert_eq!(fault.hint.as_deref().unwrap_or_default(), hint);
    }
}

#[test]
fn rows_are_read_and_judged_line_by_line() {
    let text = "\
{\"id\": \"a\", \"input\": 1, \"expected\": 2, \"split\": \"train\"}
{\"id\": \"b\", \"input\": 1, \"expected\": 2, \"splt\": \"train\"}
{\"id\": \"c\", \"input\": 1, \"expected\": 2, \"split\": \"holdout\"}
{\"id\": 
";
    let mut all = Diagnostics::new();
    let mut good = 0;
    for row in schema::json::lines(
        "train.jsonl",
        text.as_bytes(),
        schema::json::EmptyFile::Refuse,
    ) {
        match row.and_then(|row| registry::validate(SchemaName::Example, &row)) {
            Ok(()) => good += 1,
            Err(faults) => all.append(faults),
        }
    }
    assert_eq!(good, 2);
    let places: Vec<(usize, usize)> = all.iter().map(|fault| (fault.line, fault.column)).collect();
    assert_eq!(places, [(2, 1), (2, 40), (4, 8)], "{all}");
}
