//! Properties of the readers and the writer, over generated documents.

use proofline::schema::{json as strict, toml, yaml};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Keys and texts that have caused trouble somewhere.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{0,8}",
        2 => any::<String>(),
        2 => "[ \t\n:#\\-a'\"|>%@`{}\\[\\],&*!?]{0,12}",
        1 => "(no|yes|on|null|~|true|\\.nan|0o7|0x1f|1e3|12:30:45|2026-11-21|1_000|010|-|=|<<|---|\\.\\.\\.)",
        1 => "([a-z#: -]{0,6}\n){1,4}[a-z]{0,3}\n{0,2}",
    ]
}

fn number() -> impl Strategy<Value = Value> {
    const MOST: i64 = (1 << 53) - 1;
    prop_oneof![
        (-MOST..=MOST).prop_map(Value::from),
        any::<f64>()
            .prop_filter(
                "JSON has no NaN, and large whole numbers are refused",
                |float| {
                    float.is_finite() && (float.fract() != 0.0 || float.abs() <= MOST as f64)
                }
            )
            .prop_map(Value::from),
        (-1000.0..1000.0).prop_map(Value::from),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// Every pointer of a document.
fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, format!("{at}/{index}"), all);
            }
        }
        Value::Object(members) => {
            for (key, item) in members {
                let token = key.replace('~', "~0").replace('/', "~1");
                pointers(item, format!("{at}/{token}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}

/// The text from a line and column on.
fn from_place(text: &str, (line, column): (usize, usize)) -> String {
    let line_start: usize = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum();
    text[line_start..].chars().skip(column - 1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_json_is_read_as_serde_json_reads_it(value in document(), pretty: bool) {
        let text = match pretty {
            true => serde_json::to_string_pretty(&value),
            false => serde_json::to_string(&value),
        }.expect("a value");
        let read = strict::parse("f", text.as_str()).expect("valid");
        prop_assert_eq!(&read.value, &value);
    }

    #[test]
    fn every_pointer_leads_to_its_bytes(value in document(), pretty: bool) {
        let text = match pretty {
            true => serde_json::to_string_pretty(&value),
            false => serde_json::to_string(&value),
        }.expect("a value");
        let read = strict::parse("f", text.as_str()).expect("valid");
        let mut all = Vec::new();
        pointers(&value, String::new(), &mut all);
        for pointer in all {
            let rest = from_place(&text, read.source.position(&pointer));
            let there = serde_json::Deserializer::from_str(&rest)
                .into_iter::<Value>()
                .next()
                .expect("a value")
                .expect("a valid one");
            prop_assert_eq!(Some(&there), value.pointer(&pointer), "at {}", pointer);
        }
    }

    /// What serde_json refuses we refuse, and say where; what we accept it accepts.
    #[test]
    fn broken_json_has_a_place(value in document(), at in any::<prop::sample::Index>(), put in "[\\[\\]{},:\"\\\\0-9eNx. +\\-\u{0}\u{e9}]{0,2}") {
        let mut text = serde_json::to_string(&value).expect("a value");
        let mut at = at.index(text.len() + 1);
        while !text.is_char_boundary(at) { at -= 1; }
        let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
        text.replace_range(at..end, &put);
        let theirs = serde_json::from_str::<Value>(&text);
        match strict::parse("f", text.as_str()) {
            Ok(read) => prop_assert_eq!(read.value, theirs.expect("serde_json accepts it too")),
            Err(faults) => {
                let lines = text.lines().count().max(1);
                for fault in &faults {
                    prop_assert!(fault.line >= 1 && fault.line <= lines + 1);
                    prop_assert!(fault.column >= 1 && fault.column <= text.chars().count() + 1);
                }
                let ours = ["duplicate key", "is beyond ±", "the file is empty"];
                let only_ours = faults.iter().all(|fault| ours.iter().any(|own| fault.message.contains(own)));
                prop_assert!(theirs.is_err() || only_ours, "{}: {}", text, faults);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = strict::parse("f", bytes.clone());
        let _ = yaml::parse("f", bytes.clone());
        let _ = toml::parse("f", bytes.clone());
        let rows = strict::lines("f", bytes.as_slice(), strict::EmptyFile::Accept);
        prop_assert!(rows.count() <= 2 * bytes.len() + 1);
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \n\ta0~.=<\\\\\u{e9}]{0,60}") {
        for faults in [
            strict::parse("f", text.as_str()).err(),
            yaml::parse("f", text.as_str()).err(),
            toml::parse("f", text.as_str()).err(),
        ] {
            let shown = faults.map(|faults| faults.to_string());
            prop_assert_ne!(shown.as_deref(), Some(""));
        }
        if let Ok(read) = yaml::parse("f", text.as_str()) {
            let mut all = Vec::new();
            pointers(&read.value, String::new(), &mut all);
            for pointer in all {
                let (line, column) = read.source.position(&pointer);
                prop_assert!(line <= text.lines().count() + 1 && column <= text.chars().count() + 1);
            }
        }
    }

    #[test]
    fn yaml_reads_back(value in document()) {
        let text = yaml::to_yaml(&value).expect("serialisable");
        match yaml::parse("f", text.as_str()) {
            Ok(read) => prop_assert_eq!(&read.value, &value, "{}", text),
            Err(faults) => prop_assert!(false, "{}\n{}", faults, text),
        }
    }

    #[test]
    fn toml_is_read_as_the_toml_crate_reads_it(members in prop::collection::btree_map("[a-z\u{e9} .]{0,6}", text(), 0..5)) {
        let value = json!({ "t": members, "n": 1.5, "l": [1, 2] });
        let text = ::toml::to_string(&value).expect("serialisable");
        prop_assert_eq!(toml::parse("f", text).expect("valid").value, value);
    }
}
