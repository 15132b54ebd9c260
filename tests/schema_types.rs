//! The schemas of what people write, and the types that read it, say the same:
//! what a schema accepts its type accepts, so that every refusal has a place;
//! and what the type writes back the schema accepts.

use std::path::Path;

use proofline::domain::improve::dataset::Example;
use proofline::domain::improve::signature::Signature;
use proofline::domain::operate::event::Event;
use proofline::domain::operate::run::Run;
use proofline::domain::prove::policy::Policy;
use proofline::flows::project::Project;
use proofline::schema::{self, Located, SchemaName, registry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Through = fn(&Value) -> Result<Value, String>;

fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let read: T = Located::made("value", value.clone())
        .read()
        .map_err(|faults| faults.to_string())?;
    let written = schema::yaml::to_yaml(&read).map_err(|error| error.to_string())?;
    schema::yaml::parse("written", written)
        .map(|document| document.value)
        .map_err(|faults| faults.to_string())
}

const TYPES: [(SchemaName, Through); 6] = [
    (SchemaName::Signature, through::<Signature>),
    (SchemaName::Example, through::<Example>),
    (SchemaName::Project, through::<Project>),
    (SchemaName::Policy, through::<Policy>),
    (SchemaName::Run, through::<Run>),
    (SchemaName::Event, through::<Event>),
];

fn valid_samples(name: SchemaName) -> Vec<Value> {
    let short = name.as_str().split('/').nth(1).expect("three parts");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples")
        .join(short)
        .join("valid");
    let mut values: Vec<Value> = std::fs::read_dir(&folder)
        .expect("a folder of samples")
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let bytes = std::fs::read(&path).expect("a readable sample");
            let shown = path.display().to_string();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => schema::json::parse(&shown, bytes),
                Some("toml") => schema::toml::parse(&shown, bytes),
                _ => schema::yaml::parse(&shown, bytes),
            }
            .unwrap_or_else(|faults| panic!("{faults}"))
            .value
        })
        .collect();
    let examples = name.schema()["examples"].as_array();
    values.extend(examples.into_iter().flatten().cloned());
    values
}

fn accepts(name: SchemaName, value: &Value) -> Result<(), String> {
    registry::validate(name, &Located::made("value", value.clone()))
        .map_err(|faults| faults.to_string())
}

/// Every value that differs from this one in one place: a member or item
/// dropped, an unknown member added, or a value replaced by another of its type.
fn neighbours(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Object(members) => {
            for (key, inner) in members {
                let mut fewer = members.clone();
                fewer.remove(key);
                all.push(Value::Object(fewer));
                for changed in neighbours(inner) {
                    let mut other = members.clone();
                    other.insert(key.clone(), changed);
                    all.push(Value::Object(other));
                }
            }
            let mut more = members.clone();
            more.insert("an_unknown_member".to_owned(), json!(1));
            all.push(Value::Object(more));
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                let mut fewer = items.clone();
                fewer.remove(index);
                all.push(Value::Array(fewer));
                for changed in neighbours(inner) {
                    let mut other = items.clone();
                    other[index] = changed;
                    all.push(Value::Array(other));
                }
            }
        }
        Value::String(_) => {
            all.extend(
                ["", "x", "a/b/C.v1", "-1", "1.5", "é\u{300}", "x y", "/x/0"].map(Value::from),
            );
        }
        Value::Number(_) => {
            all.extend([
                json!(0),
                json!(-1),
                json!(1),
                json!(0.5),
                json!(2.0),
                json!(4_294_967_296_u64),
            ]);
            all.push(json!(9_007_199_254_740_991_u64));
        }
        Value::Bool(boolean) => all.push(json!(!boolean)),
        Value::Null => all.push(json!(0)),
    }
    for other in [
        Value::Null,
        json!([]),
        json!({}),
        json!("x"),
        json!(true),
        json!(1),
    ] {
        if std::mem::discriminant(&other) != std::mem::discriminant(value) {
            all.push(other);
        }
    }
    all
}

#[test]
fn what_a_schema_accepts_its_type_accepts() {
    let mut disagreements = std::collections::BTreeMap::new();
    for (name, through) in TYPES {
        let mut agreed = 0;
        for sample in valid_samples(name) {
            accepts(name, &sample).unwrap_or_else(|why| panic!("{name}: {why}"));
            for value in neighbours(&sample).into_iter().chain([sample]) {
                if !name.validator().is_valid(&value) {
                    continue;
                }
                match through(&value).and_then(|back| accepts(name, &back)) {
                    Ok(()) => agreed += 1,
                    Err(why) => {
                        disagreements
                            .entry(format!("{name}: {why}"))
                            .or_insert(value);
                    }
                }
            }
        }
        assert!(agreed > 20, "{name}: only {agreed} documents tried");
    }
    assert!(
        disagreements.is_empty(),
        "the types refuse what the schemas accept: {:#?}",
        disagreements.keys()
    );
}
