//! Every record schema and its Rust type say the same.
//!
//! For each valid sample: the schema and the type accept it, and what the type
//! writes back is the same canonical JSON. Then each sample is changed in one
//! place, everywhere in turn (a member dropped, a member added), and schema and
//! type must agree about the result: so required, optional and known members
//! are equal at every depth.

use std::path::{Path, PathBuf};

use proofline::canon;
use proofline::domain::improve::artifact::Program;
use proofline::domain::improve::canary::Canary;
use proofline::domain::improve::job::Job;
use proofline::domain::improve::receipt::Receipt;
use proofline::domain::improve::report::{CompileReport, EvalReport};
use proofline::domain::operate::command::CommandEvidence;
use proofline::domain::prove::gate::HoldoutReport;
use proofline::domain::prove::holdout::{Attempt, Closing};
use proofline::domain::prove::promotion::{Pointer, Statement};
use proofline::schema::{Located, SchemaName, registry, yaml};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A record type, as far as the test needs it: from JSON and back.
type Through = fn(&Value) -> Result<Value, String>;

fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let read: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(read).map_err(|error| error.to_string())
}

const RECORDS: [(SchemaName, Through); 12] = [
    (SchemaName::Artifact, through::<Program>),
    (SchemaName::Job, through::<Job>),
    (SchemaName::CompileReport, through::<CompileReport>),
    (SchemaName::EvalReport, through::<EvalReport>),
    (SchemaName::HoldoutAttempt, through::<Attempt>),
    (SchemaName::HoldoutClosing, through::<Closing>),
    (SchemaName::HoldoutReport, through::<HoldoutReport>),
    (SchemaName::Promotion, through::<Statement>),
    (SchemaName::Pointer, through::<Pointer>),
    (SchemaName::CommandEvidence, through::<CommandEvidence>),
    (SchemaName::Canary, through::<Canary>),
    (SchemaName::Receipt, through::<Receipt>),
];

fn samples(name: SchemaName, kind: &str) -> Vec<(PathBuf, Value)> {
    let short = name
        .as_str()
        .split('/')
        .nth(1)
        .expect("a short name has three parts");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/samples")
        .join(short)
        .join(kind);
    let mut samples: Vec<(PathBuf, Value)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.expect("a folder can be read").path();
            let bytes = std::fs::read(&path).expect("a sample can be read");
            let document = yaml::parse(&path.display().to_string(), bytes)
                .unwrap_or_else(|faults| panic!("{faults:?}"));
            (path, document.value)
        })
        .collect();
    assert!(!samples.is_empty(), "{} is empty", folder.display());
    samples.sort_by(|left, right| left.0.cmp(&right.0));
    samples
}

fn accepts(name: SchemaName, value: &Value) -> Result<(), String> {
    registry::validate(name, &Located::made("sample", value.clone())).map_err(|faults| {
        faults
            .iter()
            .map(|fault| fault.to_string())
            .collect::<Vec<_>>()
            .join("\n")
    })
}

#[test]
fn valid_samples_go_through_the_type_unchanged() {
    for (name, through) in RECORDS {
        for (path, value) in samples(name, "valid") {
            accepts(name, &value).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            let back = through(&value).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            assert_eq!(
                canon::to_string(&back).expect("a record is canonical"),
                canon::to_string(&value).expect("a sample is canonical"),
                "{}",
                path.display()
            );
        }
        for example in name.schema()["examples"]
            .as_array()
            .expect("every schema has examples")
        {
            accepts(name, example).unwrap_or_else(|why| panic!("{name}: {why}"));
            through(example).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
}

/// What only the schema can say: ranges, patterns and conditions that the type leaves open.
const SCHEMA_ONLY: [&str; 8] = [
    "eval-report/invalid/holdout",
    "holdout-attempt/invalid/zeroth",
    "holdout-closing/invalid/refused-with-report",
    "promotion/invalid/pass-with-reasons",
    "pointer/invalid/zeroth",
    "command-evidence/invalid/no-argv",
    "canary/invalid/zeroth",
    "receipt/invalid/ok-with-failure",
];

#[test]
fn invalid_samples_are_refused_by_both() {
    for (name, through) in RECORDS {
        for (path, value) in samples(name, "invalid") {
            let shown = path.with_extension("").display().to_string();
            assert!(accepts(name, &value).is_err(), "the schema accepts {shown}");
            let schema_only = SCHEMA_ONLY.iter().any(|known| shown.ends_with(known));
            assert_eq!(
                through(&value).is_ok(),
                schema_only,
                "{shown}: {:?}",
                through(&value).err()
            );
        }
    }
}

/// Pointers of every object in a value, the value itself included.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            for (name, member) in members {
                objects(
                    member,
                    &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Where serde cannot be strict: an internally tagged enum does not look at the
/// other members of a variant without fields. The schema refuses them, and
/// records are read through the schema.
fn is_lenient(value: &Value, at: &str) -> bool {
    let object = value
        .pointer(at)
        .expect("the pointer was made from the value");
    matches!(object["kind"].as_str(), Some("exact_match" | "reward"))
        || object["verdict"] == "pass"
        || object["status"] == "ok"
}

#[test]
fn schema_and_type_agree_about_every_member() {
    let mut tried = 0;
    for (name, through) in RECORDS {
        for (path, value) in samples(name, "valid") {
            let mut places = Vec::new();
            objects(&value, "", &mut places);
            for at in places {
                let members: Map<String, Value> = value
                    .pointer(&at)
                    .and_then(Value::as_object)
                    .expect("an object")
                    .clone();
                let mut variants: Vec<(String, Map<String, Value>)> = members
                    .keys()
                    .map(|dropped| {
                        let mut fewer = members.clone();
                        fewer.remove(dropped);
                        (format!("without {at}/{dropped}"), fewer)
                    })
                    .collect();
                if !is_lenient(&value, &at) {
                    let mut more = members.clone();
                    more.insert("an_unknown_member".to_owned(), json!({"x": 1}));
                    variants.push((format!("with {at}/an_unknown_member"), more));
                }
                for (what, variant) in variants {
                    let mut changed = value.clone();
                    *changed.pointer_mut(&at).expect("an object") = Value::Object(variant);
                    let by_schema = accepts(name, &changed);
                    let by_type = through(&changed).map(drop);
                    assert_eq!(
                        by_schema.is_ok(),
                        by_type.is_ok(),
                        "{} {what}: the schema says {by_schema:?}, the type says {by_type:?}",
                        path.display()
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 500, "only {tried} changes were tried");
}

/// Each schema stands alone, so that an editor needs one file; what several define must be the same.
#[test]
fn a_definition_says_the_same_in_every_schema() {
    let mut known: Map<String, Value> = Map::new();
    for (name, _) in RECORDS {
        for (key, definition) in name.schema()["$defs"]
            .as_object()
            .expect("every record schema has definitions")
        {
            let first = known
                .entry(key.clone())
                .or_insert_with(|| definition.clone());
            assert_eq!(
                first, definition,
                "{name}: `{key}` differs from the schema before it"
            );
        }
    }
    let mut job = SchemaName::Job.schema().clone();
    let nested = &known["job"];
    for member in ["required", "properties", "additionalProperties"] {
        assert_eq!(
            job[member].take(),
            nested[member],
            "the job in a compile report is not the job schema: {member}"
        );
    }
}
