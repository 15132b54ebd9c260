//! Signature files: YAML with the user's code, checked whole.
//!
//! The schema holds most of the contract; what is left are the rules between
//! parts of a file (a metric's field must be in the output schema, a knob must
//! exist, a template must render) and between files (no id twice). All faults
//! of all files are reported at once, each in its place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::domain::improve::metric::Metric;
use crate::domain::improve::signature::Signature;
use crate::models::lexical::Knobs;
use crate::schema::did_you_mean;
use crate::schema::{Diagnostic, Diagnostics, Located, SchemaName, Validator, yaml};

/// A signature, the file it stands in, and its schemas ready to use.
#[derive(Debug, Clone)]
pub struct SignatureFile {
    /// The definition.
    pub signature: Signature,
    /// The file, able to point at any part of the definition.
    pub document: Located<Value>,
    /// Checks inputs.
    pub input: Validator,
    /// Checks outputs.
    pub output: Validator,
}

impl SignatureFile {
    /// The file as the user knows it.
    pub fn file(&self) -> &str {
        self.document.source.file()
    }
}

/// Read and check one file. `name` is how the user knows it.
pub fn read(name: &str, bytes: Vec<u8>) -> Result<SignatureFile, Diagnostics> {
    let document = yaml::parse(name, bytes)?;
    SchemaName::Signature
        .validator()
        .check(&document)
        .into_result(())?;
    let signature: Signature = document.read()?;
    let mut faults = Diagnostics::new();
    let mut compile = |pointer| match Validator::compile_at(&document, pointer) {
        Ok(validator) => Some(validator),
        Err(more) => {
            faults.append(more);
            None
        }
    };
    let (input, output) = (compile("/input"), compile("/output"));
    faults.extend(metric_faults(&signature, &document));
    faults.extend(frame_faults(&signature, &document));
    faults.extend(knob_faults(&signature, &document));
    if signature.canary.min_pairs > signature.canary.max_pairs {
        faults.push(document.source.at(
            "/canary/min_pairs",
            format!(
                "`min_pairs` is {}, more than `max_pairs`, {}",
                signature.canary.min_pairs, signature.canary.max_pairs
            ),
        ));
    }
    match (input, output) {
        (Some(input), Some(output)) => faults.into_result(SignatureFile {
            signature,
            document,
            input,
            output,
        }),
        _ => Err(faults),
    }
}

/// Read every file and hold them against each other. What is sound is returned beside the faults of the rest.
pub fn read_all(
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> (Vec<SignatureFile>, Diagnostics) {
    let mut faults = Diagnostics::new();
    // Ids become paths and refs, which some file systems fold.
    let mut by_id: BTreeMap<String, SignatureFile> = BTreeMap::new();
    for (name, bytes) in files {
        let file = match read(&name, bytes) {
            Ok(file) => file,
            Err(more) => {
                faults.append(more);
                continue;
            }
        };
        let folded = file.signature.id.as_str().to_ascii_lowercase();
        match by_id.get(&folded) {
            Some(first) => {
                let (line, _) = first.document.source.position("/id");
                faults.push(
                    file.document
                        .source
                        .at(
                            "/id",
                            format!("`{}` is also the id of another file", file.signature.id),
                        )
                        .with_hint(format!(
                            "the first is {}:{line}; ids differ in more than upper and lower case",
                            first.file()
                        )),
                );
            }
            None => {
                by_id.insert(folded, file);
            }
        }
    }
    (by_id.into_values().collect(), faults)
}

/// The metric's field must be one that the output schema speaks of.
fn metric_faults(signature: &Signature, document: &Located<Value>) -> Vec<Diagnostic> {
    let Metric::FieldMatch { field } = &signature.metric else {
        return Vec::new();
    };
    let at = |message: String| document.source.at("/metric/field", message);
    // Whether it is a pointer at all is in the schema; the empty one is the whole output.
    let Some(tokens) = field.strip_prefix('/') else {
        return Vec::new();
    };
    let mut schema = &signature.output;
    for token in tokens.split('/') {
        let name = token.replace("~1", "/").replace("~0", "~");
        // Only what an object spells out can be checked; anything else may well hold the field.
        let Some(Value::Object(properties)) = schema.get("properties") else {
            return Vec::new();
        };
        let Some(found) = properties.get(&name) else {
            if schema.get("additionalProperties") != Some(&Value::Bool(false))
                && schema.get("required").is_none()
            {
                return Vec::new();
            }
            let names: Vec<&str> = properties.keys().map(String::as_str).collect();
            let mut fault = at(format!("the output schema has no property `{name}`"));
            fault.hint = did_you_mean(&name, &names)
                .or_else(|| Some(format!("it has: {}", names.join(", "))));
            return vec![fault];
        };
        schema = found;
    }
    Vec::new()
}

/// Templates must parse and name nothing that will not be there.
fn frame_faults(signature: &Signature, document: &Located<Value>) -> Vec<Diagnostic> {
    const NAMES: [&str; 3] = ["input", "instruction", "output_schema"];
    let mut faults = Vec::new();
    let parts = [
        ("/prompt/system", &signature.prompt.system, &NAMES[1..]),
        ("/prompt/user", &signature.prompt.user, &NAMES[..]),
    ];
    for (pointer, source, names) in parts {
        let environment = minijinja::Environment::new();
        match environment.template_from_str(source) {
            Err(error) => {
                let line = error
                    .line()
                    .map_or_else(String::new, |line| format!(", line {line} of it"));
                faults.push(document.source.at(
                    pointer,
                    format!("the template can't be read: {error}{line}"),
                ));
            }
            Ok(template) => {
                let mut unknown: Vec<String> = template
                    .undeclared_variables(false)
                    .into_iter()
                    .filter(|name| {
                        !names.contains(&name.as_str()) && !is_builtin(&environment, name)
                    })
                    .collect();
                unknown.sort();
                for name in unknown {
                    let mut fault = document.source.at(
                        pointer,
                        format!("nothing called `{name}` is there for this template"),
                    );
                    fault.hint = did_you_mean(&name, names).or_else(|| {
                        Some(format!(
                            "there are: {}; fields of the input as `input.{name}`",
                            names.join(", ")
                        ))
                    });
                    faults.push(fault);
                }
            }
        }
    }
    faults
}

fn is_builtin(environment: &minijinja::Environment<'_>, name: &str) -> bool {
    environment.globals().any(|(global, _)| global == name)
}

/// Knobs of the embedded classifier must make sense together; that each exists is in the schema.
fn knob_faults(signature: &Signature, document: &Located<Value>) -> Vec<Diagnostic> {
    let mut sets = vec![(
        "/defaults/lexical".to_owned(),
        signature.defaults.lexical.clone(),
    )];
    let space = &signature.job.space;
    for (index, variant) in space.lexical_variants.iter().enumerate() {
        sets.push((
            format!("/job/space/lexical_variants/{index}"),
            merged(&signature.defaults.lexical, variant),
        ));
    }
    for (name, values) in &space.lexical_grid {
        for (index, value) in values.as_array().into_iter().flatten().enumerate() {
            let one = Map::from_iter([(name.clone(), value.clone())]);
            let pointer = format!("/job/space/lexical_grid/{name}/{index}");
            sets.push((pointer, merged(&signature.defaults.lexical, &one)));
        }
    }
    sets.into_iter()
        .filter_map(|(pointer, set)| knob_fault(&set, &pointer, document))
        .collect()
}

fn merged(base: &Map<String, Value>, over: &Map<String, Value>) -> Map<String, Value> {
    let mut all = base.clone();
    all.extend(over.clone());
    // Null stands for a knob's default.
    all.retain(|_, value| !value.is_null());
    all
}

fn knob_fault(
    knobs: &Map<String, Value>,
    pointer: &str,
    document: &Located<Value>,
) -> Option<Diagnostic> {
    let mut own = knobs.clone();
    // Ours, not the classifier's: how many train rows are used.
    if let Some(rows) = own.remove("train_rows_max")
        && !rows.is_null()
        && rows.as_u64().is_none_or(|rows| rows < 2)
    {
        let message = format!("`train_rows_max` is {rows}; it is a whole number of at least 2");
        return Some(document.source.at(pointer, message));
    }
    let reason = match serde_json::from_value::<Knobs>(Value::Object(own)) {
        Ok(set) => set.validate().err()?.to_string(),
        Err(error) => error.to_string(),
    };
    Some(document.source.at(pointer, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"schema: proofline/signature/v1
id: "@acme/demo/SelectTool.v1"
input:
  type: object
  properties: {message: {type: string}}
  required: [message]
output:
  type: object
  properties: {tool: {enum: [search, none]}}
  required: [tool]
  additionalProperties: false
metric: {kind: field_match, field: /tool}
defaults:
  strategy: distilled.lexical.v1
job:
  space:
    lexical_grid: {cost: [1.0, 2.0]}
"#;

    #[test]
    fn a_good_file_is_read() {
        let file =
            read("signatures/a.yaml", GOOD.into()).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(file.signature.id.name(), "SelectTool.v1");
        assert!(file.input.is_valid(&serde_json::json!({"message": "hi"})));
        assert!(!file.output.is_valid(&serde_json::json!({"tool": "other"})));
    }

    #[test]
    fn every_fault_has_its_place_and_a_remedy() {
        // (what to replace, by what, place, words of the message and the hint)
        let table = [
            (
                "metric:",
                "metrics:",
                "a.yaml:12:1:",
                &["metrics", "did you mean `metric`"][..],
            ),
            (
                "field: /tool",
                "field: tool",
                "a.yaml:12:",
                &["json-pointer", "/tool"],
            ),
            (
                "field: /tool",
                "field: /tol",
                "a.yaml:12:",
                &["no property `tol`", "did you mean `tool`"],
            ),
            (
                "cost: [1.0",
                "kost: [1.0",
                "a.yaml:17:20:",
                &["`kost`", "did you mean `cost`"],
            ),
            ("[1.0, 2.0]", "[1.0, -2.0]", "a.yaml:17:", &["cost"]),
            ("[1.0, 2.0]", "[1.0, much]", "a.yaml:17:", &["cost"]),
            ("[1.0, 2.0]", "3.0", "a.yaml:17:", &["3"]),
            (
                "job:",
                "prompt: {user: \"{{ mesage }}\"}\njob:",
                "a.yaml:15:",
                &["`mesage`", "input.mesage"],
            ),
            (
                "job:",
                "prompt: {user: \"{{ inputs }}\"}\njob:",
                "a.yaml:15:",
                &["did you mean `input`"],
            ),
            (
                "job:",
                "prompt: {system: \"{% if x\"}\njob:",
                "a.yaml:15:",
                &["can't be read"],
            ),
            (
                "job:",
                "canary: {min_pairs: 50, max_pairs: 10}\njob:",
                "a.yaml:15:",
                &["more than `max_pairs`"],
            ),
            ("{type: string}", "{type: strng}", "a.yaml:5:", &["strng"]),
            ("SelectTool.v1", "SelectTool", "a.yaml:2:", &["SelectTool"]),
        ];
        for (from, to, place, words) in table {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let faults = read("a.yaml", text.into_bytes()).expect_err(to).to_string();
            assert!(faults.contains(place), "{to}: {faults}");
            for word in words {
                assert!(faults.contains(word), "{to}: no `{word}` in {faults}");
            }
        }
    }

    #[test]
    fn no_id_twice_whatever_its_case() {
        let other = GOOD.replace("@acme/demo/SelectTool.v1", "acme/Demo/selecttool.v1");
        let files = [
            ("a.yaml", GOOD.to_owned()),
            ("b.yaml", other),
            ("c.yaml", "x: 1\n".into()),
        ];
        let (sound, faults) =
            read_all(files.map(|(name, text)| (name.to_owned(), text.into_bytes())));
        assert_eq!(sound.len(), 1);
        let text = faults.to_string();
        assert!(
            text.contains("b.yaml:2:5") && text.contains("a.yaml:2"),
            "{text}"
        );
        assert!(
            text.contains("c.yaml:1:1"),
            "the other files are still checked: {text}"
        );
    }
}
