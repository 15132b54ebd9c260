//! What we write as YAML is read alike by two other implementations: yaml_serde
//! (a port of libyaml) and PyYAML, which follows YAML 1.1.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proofline::schema::yaml;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

/// Documents that show every decision of the writer, and some hundred generated ones.
fn documents() -> Vec<Value> {
    let words = [
        "",
        " ",
        "y",
        "Y",
        "n",
        "yes",
        "No",
        "ON",
        "off",
        "true",
        "False",
        "null",
        "Null",
        "~",
        "none",
        "nan",
        "inf",
        ".inf",
        "-.Inf",
        ".nan",
        "0",
        "-0",
        "007",
        "0o7",
        "0x1F",
        "0b101",
        "1_000",
        "1e3",
        "1.",
        ".5",
        "+1",
        "12:30",
        "12:30:45",
        "190:20:30.15",
        "2026-11-21",
        "2026-11-21 19:00:00",
        "2026-11-21T19:00:00Z",
        "=",
        "<<",
        "---",
        "...",
        "- a",
        "-",
        "? a",
        "?",
        "a: b",
        "a:",
        ":a",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "!!str a",
        "%a",
        "@org/app/X.v1",
        "`a`",
        "[a]",
        "{a}",
        "{{ input }}",
        "|",
        ">",
        "'",
        "\"",
        "it's",
        "\"q\" and 'q'",
        "\\",
        "C:\\new",
        "\t",
        "a\tb",
        " a",
        "a ",
        "a\u{a0}",
        "\u{a0}a",
        "é",
        "日本語",
        "😀",
        "\u{7f}",
        "\u{85}",
        "a\u{2028}b",
        "\u{feff}a",
        "\u{0}",
        "\u{1b}[0m",
        "a\n",
        "\n",
        "\n\n",
        "a\nb",
        "a\nb\n",
        "a\nb\n\n\n",
        "a\n\n\nb",
        "  a\nb",
        "a\n  b\n",
        "a\n \nb",
        "a\nb \n",
        "a\r\nb",
        "\na\nb",
        "a\n\tb",
        "\ta\nb",
        "a\n# b\n",
        "---\na\n",
        "a\n...\nb\n",
        "- a\n- b\n",
        "a: |\n  b\n",
        "a\u{85}b\nc\n",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "/a/b",
        "https://example.com/?a=b#c",
        "proofline/signature/v1",
    ];
    let mut documents: Vec<Value> = vec![
        json!(null),
        json!([]),
        json!({}),
        json!([[], {}, [[]], [{}], {"a": []}, {"a": {}}]),
        json!([
            0,
            -1,
            9_007_199_254_740_991_i64,
            0.5,
            -1.5e-9,
            1e-7,
            123456.789,
            1.0,
            1e15,
            2.5e300,
            5e-324
        ]),
        json!({"x".repeat(2000): {"y".repeat(200): ["z".repeat(2000)]}}),
        json!([{"a".repeat(300): 1, "b": 2}]),
    ];
    for word in words {
        documents.push(json!(word));
        documents.push(json!({ "k": word, "l": [word, [word], { "m": word }], "z": 1 }));
        documents.push(json!({ word: { word: word } }));
        documents.push(json!([{ word: word, "zz": word }, word]));
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let text = prop_oneof![
        any::<String>(),
        "[ \t\n:#a'\"|>-]{0,16}",
        "([a-z#: -]{0,8}\n){1,4}[a-z]{0,3}\n{0,2}",
    ];
    let member = (text, any::<f64>())
        .prop_map(|(text, float)| json!([text, { text.clone(): float }, { "k": text }]));
    for _ in 0..500 {
        documents.push(member.new_tree(&mut runner).expect("a strategy").current());
    }
    documents
}

#[test]
fn yaml_serde_reads_what_we_write() {
    for document in documents() {
        let text = yaml::to_yaml(&document).expect("serialisable");
        let read: Value =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text:?}"));
        assert_eq!(
            numbers_as_floats(&read),
            numbers_as_floats(&document),
            "{text:?}"
        );
    }
}

#[test]
fn pyyaml_reads_what_we_write() {
    let Some(python) = python_with_yaml() else {
        eprintln!("skipped: no python3 with PyYAML here, and none could be installed");
        return;
    };
    let documents = documents();
    let texts: Vec<String> = documents
        .iter()
        .map(|document| yaml::to_yaml(document).expect("serialisable"))
        .collect();
    let program = "import json, sys, yaml\n\
        def read(text):\n    \
            try: return ['ok', yaml.safe_load(text)]\n    \
            except Exception as error: return ['error', str(error)]\n\
        json.dump([read(text) for text in json.load(sys.stdin)], sys.stdout, default=repr)";
    let mut child = Command::new(python)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = serde_json::to_vec(&texts).expect("texts");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("python ends");
    writer
        .join()
        .expect("no panic")
        .expect("python reads it all");
    assert!(output.status.success());
    let read: Vec<(String, Value)> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read.len(), documents.len());
    for ((document, text), (outcome, value)) in documents.iter().zip(&texts).zip(&read) {
        assert_eq!(outcome, "ok", "{value}\n{text:?}");
        assert_eq!(
            numbers_as_floats(value),
            numbers_as_floats(document),
            "{text:?}"
        );
    }
}

/// `1` and `1.0` are one number in JSON.
fn numbers_as_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(numbers_as_floats).collect(),
        Value::Object(members) => Value::Object(Map::from_iter(
            members
                .iter()
                .map(|(key, value)| (key.clone(), numbers_as_floats(value))),
        )),
        other => other.clone(),
    }
}

/// A python that has PyYAML: the system's, or one in a virtual environment made here.
fn python_with_yaml() -> Option<PathBuf> {
    let has_yaml = |python: &PathBuf| {
        Command::new(python)
            .args(["-c", "import yaml"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let system = PathBuf::from("python3");
    if has_yaml(&system) {
        return Some(system);
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pyyaml");
    let python = folder.join("bin/python");
    let quietly = |command: &mut Command| {
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let made = has_yaml(&python)
        || (quietly(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            && quietly(Command::new(&python).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--timeout",
                "10",
                "pyyaml",
            ])));
    (made && has_yaml(&python)).then_some(python)
}
