//! TOML with positions.
//!
//! TOML has dates and special floats that JSON has not: they are refused with
//! advice. Integers stay within ±(2^53 − 1) as everywhere.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::json::{is_safe, too_large};
use super::source::{Format, Located, Places, Source, Spot, push_token, utf8};

/// The largest TOML document that is read, in bytes.
pub const BYTES_MAX: usize = 4 << 20;

/// Reads one TOML document. An empty one is an empty table.
pub fn parse(file: &str, bytes: impl Into<Vec<u8>>) -> Result<Located<Value>, Diagnostics> {
    let bytes = bytes.into();
    let file: Arc<str> = file.into();
    if bytes.len() > BYTES_MAX {
        return Err(too_large(&file, bytes.len(), BYTES_MAX).into());
    }
    let text = utf8(&file, bytes, 1, true)?;
    let source = Source::new(file, text, Format::Toml, 1);
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let mut all = Diagnostics::new();
    for error in errors {
        all.push(syntax(&source, &error));
    }
    if !all.is_empty() {
        return Err(all);
    }
    let mut convert = Convert::default();
    let value = convert.table(table.get_ref());
    for (range, pointer, message, hint) in convert.faults {
        all.push(source.at_bytes(range, &pointer, message).with_hint(hint));
    }
    all.into_result(Located { value, source })
}

fn syntax(source: &Source, error: &toml::de::Error) -> Diagnostic {
    let message = error.message().replace('\n', ", ");
    source.at_bytes(
        error.span().unwrap_or(0..0),
        "",
        format!("not valid TOML: {message}"),
    )
}

/// Where everything stands in a text that has been read.
pub(crate) fn places(text: &str) -> Places {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut convert = Convert {
        places: Some(Places::new()),
        ..Convert::default()
    };
    convert.place(None, table.span());
    convert.table(table.get_ref());
    convert.places.unwrap_or_default()
}

#[derive(Default)]
struct Convert {
    pointer: String,
    places: Option<Places>,
    faults: Vec<(Range<usize>, String, String, &'static str)>,
}

impl Convert {
    fn place(&mut self, key: Option<Range<usize>>, value: Range<usize>) {
        if let Some(places) = &mut self.places {
            places.insert(self.pointer.clone(), Spot { key, value });
        }
    }

    fn table(&mut self, table: &DeTable<'_>) -> Value {
        let mut members = Map::new();
        let length = self.pointer.len();
        for (key, value) in table {
            push_token(&mut self.pointer, key.get_ref());
            self.place(Some(key.span()), value.span());
            let converted = self.value(value);
            members.insert(key.get_ref().clone().into_owned(), converted);
            self.pointer.truncate(length);
        }
        Value::Object(members)
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Value {
        let number = match value.get_ref() {
            DeValue::String(text) => return Value::String(text.clone().into_owned()),
            DeValue::Boolean(boolean) => return Value::Bool(*boolean),
            DeValue::Table(table) => return self.table(table),
            DeValue::Array(items) => {
                let length = self.pointer.len();
                let mut array = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    push_token(&mut self.pointer, &index.to_string());
                    self.place(None, item.span());
                    array.push(self.value(item));
                    self.pointer.truncate(length);
                }
                return Value::Array(array);
            }
            DeValue::Datetime(date) => {
                let message = format!("`{date}` is a date, which JSON has not");
                return self.refuse(value.span(), message, "put it in quotes: a text");
            }
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(Number::from),
            DeValue::Float(float) => {
                let parsed = float.as_str().parse::<f64>().ok();
                if parsed.is_some_and(|float| !float.is_finite()) {
                    let message = format!("`{}` is not a number that JSON has", float.as_str());
                    return self.refuse(value.span(), message, "leave the member out");
                }
                parsed.and_then(Number::from_f64)
            }
        };
        match number {
            Some(number) if is_safe(&number) => Value::Number(number),
            _ => self.refuse(
                value.span(),
                "the number is beyond ±(2^53 − 1): other readers would round it".to_owned(),
                "put it in quotes: a text",
            ),
        }
    }

    fn refuse(&mut self, range: Range<usize>, message: String, hint: &'static str) -> Value {
        self.faults
            .push((range, self.pointer.clone(), message, hint));
        Value::Null
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_places() {
        let text = "\
# project
name = \"é\"
n = [0x1F, 1_000, -2.5]

[models.\"a/b\"]
kind = \"exec\"

[[commands.verify]]
name = \"one\"
[[commands.verify]]
name = \"two\"
";
        let document = parse("p.toml", text).expect("valid");
        assert_eq!(
            document.value,
            json!({
                "name": "é",
                "n": [31, 1000, -2.5],
                "models": {"a/b": {"kind": "exec"}},
                "commands": {"verify": [{"name": "one"}, {"name": "two"}]},
            })
        );
        for (pointer, place) in [
            ("/name", (2, 8)),
            ("/n/2", (3, 19)),
            ("/models/a~1b/kind", (6, 8)),
            ("/models/a~1b", (5, 1)),
            ("/commands/verify/1/name", (11, 8)),
        ] {
            assert_eq!(document.source.position(pointer), place, "{pointer}");
        }
    }

    #[test]
    fn refusals_name_the_place() {
        for (text, line, column) in [
            ("a = 1\na = 2\n", 2, 1),
            ("a = nan\n", 1, 5),
            ("a = 2026-11-21\n", 1, 5),
            ("x = 1\na = 9007199254740993\n", 2, 5),
            ("a = no\n", 1, 5),
            ("a = \"x\n", 1, 7),
            ("[a\n", 1, 3),
        ] {
            let found = parse("f", text).expect_err(text);
            let fault = found.iter().next().expect("one");
            assert_eq!((fault.line, fault.column), (line, column), "{fault}");
        }
        assert!(parse("f", *b"a = \"\xff\"").is_err());
        assert!(parse("f", "a=[".to_owned() + &"[".repeat(100_000)).is_err());
    }
}
