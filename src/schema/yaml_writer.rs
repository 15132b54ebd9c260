//! Writing YAML that every reader reads alike, and people too.
//!
//! Block style, members in the order given, texts of several lines as literal
//! blocks. A text is quoted whenever a reader of YAML 1.1 or 1.2 could take it
//! for something else (`no`, `12:30:45`, `0o7`, `2026-11-21`, `~`).

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The value as a YAML document, ending in a line feed.
///
/// Members of a struct keep their order; those of a [`Value`] are sorted. Fails
/// only when the value has no JSON form (a failing serialiser, a key that is not a text).
pub fn to_yaml<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    // Our own output may be nested deeper than input may be, never deeper than the stack.
    let ordered: Ordered = serde_json::from_str(&json)?;
    let mut out = String::with_capacity(json.len() + json.len() / 4);
    write(&mut out, &ordered, 0, Place::Root);
    Ok(out)
}

/// What the value follows on its line.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Nothing.
    Root,
    /// `key:`
    Member,
    /// `-`
    Item,
}

const STEP: usize = 2;

/// Writes a value and its line ending. `indent` is where its members or items start.
fn write(out: &mut String, value: &Ordered, indent: usize, place: Place) {
    let space = if place == Place::Root { "" } else { " " };
    match value {
        Ordered::Members(members) if !members.is_empty() => {
            if place == Place::Member {
                out.push('\n');
            }
            for (index, (key, value)) in members.iter().enumerate() {
                match (place, index) {
                    (Place::Item, 0) => out.push(' '),
                    _ => pad(out, indent),
                }
                write_key(out, key, indent);
                write(out, value, indent + STEP, Place::Member);
            }
        }
        Ordered::Items(items) if !items.is_empty() => {
            if place == Place::Member {
                out.push('\n');
            }
            for (index, value) in items.iter().enumerate() {
                match (place, index) {
                    (Place::Item, 0) => out.push(' '),
                    _ => pad(out, indent),
                }
                out.push('-');
                write(out, value, indent + STEP, Place::Item);
            }
        }
        Ordered::Members(_) => {
            out.push_str(space);
            out.push_str("{}\n");
        }
        Ordered::Items(_) => {
            out.push_str(space);
            out.push_str("[]\n");
        }
        Ordered::Atom(atom) => {
            out.push_str(space);
            out.push_str(&atom_text(atom));
            out.push('\n');
        }
        Ordered::Text(text) if is_block(text) => {
            out.push_str(space);
            write_block(out, text, indent.max(STEP));
        }
        Ordered::Text(text) => {
            out.push_str(space);
            write_text(out, text);
            out.push('\n');
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_key(out: &mut String, key: &str, indent: usize) {
    // YAML allows an implicit key no more than 1024 characters, as written.
    if key.len() > 128 {
        out.push_str("? ");
        write_text(out, key);
        out.push('\n');
        pad(out, indent);
    } else {
        write_text(out, key);
    }
    out.push(':');
}

/// A number that YAML 1.1 takes for a number as well: it wants a point and a signed exponent.
fn atom_text(atom: &Value) -> String {
    let text = atom.to_string();
    let Some((mantissa, exponent)) = text.split_once('e').filter(|_| atom.is_number()) else {
        return text;
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) {
        ""
    } else {
        "+"
    };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// Printable for every reader, and no line break for any.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// Whether a text reads best, and safely, as a literal block.
fn is_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && text.chars().all(|c| c == '\n' || is_printable(c))
        // Lines of nothing but space, and space at the start, confuse the indentation.
        && !text.starts_with([' ', '\n'])
        && text.split('\n').all(|line| line.is_empty() || !line.trim().is_empty())
}

fn write_block(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for line in body.split('\n') {
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
        out.push('\n');
    }
    out.extend(std::iter::repeat_n(
        '\n',
        (text.len() - body.len()).saturating_sub(1),
    ));
}

fn write_text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else if text.contains(['"', '\\']) && !text.contains('\'') && text.chars().all(is_printable) {
        out.push('\'');
        out.push_str(text);
        out.push('\'');
    } else {
        write_double_quoted(out, text);
    }
}

fn write_double_quoted(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c => write!(out, "\\u{:04x}", u32::from(c))
                .expect("because writing to a String cannot fail"),
        }
    }
    out.push('"');
}

/// Whether a text may stand without quotes: nobody could take it for anything else.
fn is_plain(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'));
    let word = text.len() <= 5
        && matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
        );
    starts_well
        && !word
        && text.chars().all(is_printable)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        // Other kinds of space: readers differ on what ends a text.
        && !text.contains(|c: char| c.is_whitespace() && c != ' ')
}

/// A JSON value whose members keep the order in which they were written.
///
/// [`Value`] sorts them, which is right for digests and wrong for people.
#[derive(Debug, Clone, PartialEq)]
enum Ordered {
    /// Null, a boolean or a number.
    Atom(Value),
    /// A string.
    Text(String),
    /// An array.
    Items(Vec<Ordered>),
    /// An object.
    Members(Vec<(String, Ordered)>),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Atom(Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Atom(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Atom(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Atom(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
                Ok(Ordered::Atom(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
                Ok(Ordered::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::Items(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered::Members(members))
            }
        }
        deserializer.deserialize_any(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::yaml::parse;
    use serde_json::json;

    #[derive(Serialize)]
    struct InOrder {
        schema: &'static str,
        id: &'static str,
        prompt: Prompt,
        steps: Vec<Value>,
        rate: f64,
        none: Option<u8>,
    }

    #[derive(Serialize)]
    struct Prompt {
        system: &'static str,
        answer: &'static str,
    }

    #[test]
    fn reads_well() {
        let value = InOrder {
            schema: "proofline/x/v1",
            id: "@org/app/X.v1",
            prompt: Prompt {
                system: "Pick one tool.\n\n  - be brief: always\n",
                answer: "no",
            },
            steps: vec![
                json!({"b": [], "a": {"m": 1}}),
                json!([1, [2]]),
                json!("it's: 5"),
            ],
            rate: 1e-7,
            none: None,
        };
        let text = to_yaml(&value).expect("serialisable");
        assert_eq!(
            text,
            r#"schema: proofline/x/v1
id: "@org/app/X.v1"
prompt:
  system: |
    Pick one tool.

      - be brief: always
  answer: "no"
steps:
  - a:
      m: 1
    b: []
  - - 1
    - - 2
  - "it's: 5"
rate: 1.0e-7
none: null
"#
        );
        let read = parse("f", text).expect("valid").value;
        assert_eq!(read, serde_json::to_value(&value).expect("a value"));
    }

    #[test]
    fn texts_stay_texts() {
        let words = [
            "",
            " ",
            "no",
            "On",
            "y",
            "NULL",
            "~",
            "12:30:45",
            "0o7",
            "0x1F",
            "010",
            "1e3",
            ".5",
            "1_000",
            "2026-11-21",
            "2026-11-21T00:00:00Z",
            "-",
            "- a",
            "? a",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a",
            "[a",
            "{a",
            "|",
            ">",
            "=",
            "<<",
            "'",
            "\"",
            "\\",
            "a\\b",
            "it's",
            "\"q\" it's",
            "\t",
            "a\tb",
            "a\n",
            "\n",
            "a\nb",
            "a\n\nb\n",
            "a\nb\n\n",
            " a\nb",
            "a\n \nb",
            "\na\nb",
            "a\r\nb",
            "a\u{85}b",
            "a\u{2028}b\nc",
            "\u{feff}",
            "é",
            "😀",
            "a\u{0}b",
            "a\u{7f}",
            "---",
            "...",
            "--- a\n--- b",
            "a\u{a0}",
            "null ",
            "a\n# b\n",
            "a\n\tb",
            "sha256:abc",
            "/path",
            "x: |\n  y\n",
        ];
        for word in words {
            for value in [
                json!(word),
                json!({ "k": word, "l": 1 }),
                json!([word, [word]]),
                json!({ word: word }),
            ] {
                let text = to_yaml(&value).expect("serialisable");
                let read = parse("f", text.clone());
                assert_eq!(
                    read.map(|read| read.value),
                    Ok(value),
                    "written as {text:?}"
                );
            }
        }
    }
}
