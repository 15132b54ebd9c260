//! YAML as far as it is JSON: mappings with text keys, sequences, scalars.
//!
//! Scalars follow the core schema of YAML 1.2, so `no` and `on` are texts. What
//! YAML readers disagree about is refused: duplicate keys, anchors, aliases
//! and merge keys (which also makes bombs of nested aliases impossible), tags,
//! more than one document, keys that are not texts, `.nan` and `.inf`, numbers
//! with leading zeros, integers beyond ±(2^53 − 1).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::json::{MAX_DEPTH, is_safe, too_large};
use super::source::{Format, Located, Places, Source, Spot, push_token, utf8};

pub use super::yaml_writer::to_yaml;

/// The largest YAML document that is read, in bytes.
pub const BYTES_MAX: usize = 16 << 20;

/// Reads one YAML document.
///
/// A byte-order mark and Windows line endings are accepted. All faults are
/// returned, except that a syntax error ends the search.
pub fn parse(file: &str, bytes: impl Into<Vec<u8>>) -> Result<Located<Value>, Diagnostics> {
    let bytes = bytes.into();
    let file: Arc<str> = file.into();
    if bytes.len() > BYTES_MAX {
        return Err(too_large(&file, bytes.len(), BYTES_MAX).into());
    }
    let text = utf8(&file, bytes, 1, true)?;
    let mut load = Load::new(&text, false);
    let value = load.document();
    let found = load.faults;
    let source = Source::new(file, text, Format::Yaml, 1);
    let mut all = Diagnostics::new();
    for fault in found {
        let mut diagnostic = source.at_bytes(fault.range, &fault.pointer, fault.message);
        diagnostic.hint = fault.hint;
        all.push(diagnostic);
    }
    match value {
        Some(value) => all.into_result(Located { value, source }),
        None if all.is_empty() => Err(Diagnostic::of_file(source.file(), "the file is empty")
            .with_hint("a YAML document was expected here")
            .into()),
        None => Err(all),
    }
}

/// Where everything stands in a text that has been read.
pub(crate) fn places(text: &str) -> Places {
    let mut load = Load::new(text, true);
    load.document();
    load.places.unwrap_or_default()
}

struct Found {
    range: Range<usize>,
    pointer: String,
    message: String,
    hint: Option<String>,
}

/// A mapping or sequence that has begun and not ended.
enum Open {
    Mapping {
        members: Map<String, Value>,
        /// Line of each key, from 1.
        seen: HashMap<String, usize>,
        /// The key whose value comes next, and its place.
        key: Option<(String, Range<usize>)>,
    },
    Sequence(Vec<Value>),
}

struct Frame {
    open: Open,
    start: usize,
    /// Length of the pointer to this container.
    pointer: usize,
    /// The place of the key that this container is the value of.
    key: Option<Range<usize>>,
}

struct Load<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    stack: Vec<Frame>,
    pointer: String,
    root: Option<Value>,
    places: Option<Places>,
    faults: Vec<Found>,
}

impl<'a> Load<'a> {
    fn new(text: &'a str, with_places: bool) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            text,
            line_starts: std::iter::once(0)
                .chain(newlines.map(|(at, _)| at + 1))
                .collect(),
            stack: Vec::new(),
            pointer: String::new(),
            root: None,
            places: with_places.then(Places::new),
            faults: Vec::new(),
        }
    }

    /// The document's value, unless there is none or the syntax is broken.
    fn document(&mut self) -> Option<Value> {
        if self.refuse_characters() {
            return None;
        }
        let mut documents = 0;
        for event in Parser::new_from_str(self.text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let at = self.byte(*error.marker());
                    self.broken(at, error.info());
                    return None;
                }
            };
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let range = self.range(span);
                        self.fault(range, "a second document starts here");
                        self.hint("keep one document per file");
                        return None;
                    }
                }
                Event::Alias(_) => {
                    let range = self.range(span);
                    self.fault(range.clone(), "aliases (`*name`) are not accepted");
                    self.hint("write the value out where it is used");
                    self.value(Value::Null, range, true);
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let range = self.range(span);
                    self.refuse_properties(anchor, tag.is_some(), &range);
                    self.scalar(text.into_owned(), style, range);
                }
                Event::SequenceStart(anchor, tag) => {
                    let range = self.range(span);
                    self.refuse_properties(anchor, tag.is_some(), &range);
                    if !self.open(Open::Sequence(Vec::new()), range) {
                        return None;
                    }
                }
                Event::MappingStart(anchor, tag) => {
                    let range = self.range(span);
                    self.refuse_properties(anchor, tag.is_some(), &range);
                    let open = Open::Mapping {
                        members: Map::new(),
                        seen: HashMap::new(),
                        key: None,
                    };
                    if !self.open(open, range) {
                        return None;
                    }
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let end = self.byte(span.end);
                    self.close(end);
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        // An empty file is a null that nobody wrote.
        self.root
            .take()
            .filter(|root| !root.is_null() || documents == 0 || self.text.lines().any(is_content))
    }

    fn byte(&self, marker: Marker) -> usize {
        let start = self
            .line_starts
            .get(marker.line().saturating_sub(1))
            .copied()
            .unwrap_or(self.text.len());
        self.text[start..]
            .char_indices()
            .nth(marker.col())
            .map_or(self.text.len(), |(at, _)| start + at)
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start);
        let end = self.byte(span.end).max(start);
        start..start + self.text[start..end].trim_end().len()
    }

    fn fault(&mut self, range: Range<usize>, message: impl Into<String>) {
        self.faults.push(Found {
            range,
            pointer: self.pointer.clone(),
            message: message.into(),
            hint: None,
        });
    }

    fn hint(&mut self, hint: impl Into<String>) {
        if let Some(fault) = self.faults.last_mut() {
            fault.hint = Some(hint.into());
        }
    }

    fn broken(&mut self, at: usize, info: &str) {
        let line_start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let indentation = self.text[line_start..]
            .find(|c: char| !c.is_whitespace() || c == '\n')
            .map_or("", |length| &self.text[line_start..line_start + length]);
        let hint = if indentation.contains('\t') {
            Some("YAML is indented with spaces, not tabs")
        } else if info.contains("mapping values are not allowed") || info.contains("mapping value")
        {
            Some("a text that holds `: ` needs quotes; otherwise look at the indentation")
        } else if info.contains("simple key") || info.contains("block mapping") {
            Some("look at the indentation, and for a missing `:` or quote")
        } else if self.text[at..].starts_with(['@', '`']) {
            Some("a text that starts with `@` or a backtick needs quotes")
        } else if self.text[at..].starts_with('%') {
            Some("a text that starts with `%` needs quotes")
        } else {
            None
        };
        self.fault(at..at + 1, format!("not valid YAML: {info}"));
        if let Some(hint) = hint {
            self.hint(hint);
        }
    }

    /// Characters that YAML forbids, and line breaks that readers count differently.
    fn refuse_characters(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let bad = self.text.char_indices().find(|&(at, c)| match c {
            '\t' | '\n' => false,
            '\r' => bytes.get(at + 1) != Some(&b'\n'),
            '\u{85}' => false,
            c => c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'),
        });
        let Some((at, c)) = bad else { return false };
        self.fault(
            at..at + c.len_utf8(),
            match c {
                '\r' => "a carriage return without a line feed".to_owned(),
                c => format!(
                    "the character U+{:04X} is not allowed in YAML",
                    u32::from(c)
                ),
            },
        );
        self.hint("in a text in double quotes it can be written as an escape, such as \"\\x07\"");
        true
    }

    fn refuse_properties(&mut self, anchor: usize, tag: bool, range: &Range<usize>) {
        if anchor != 0 {
            self.fault(range.clone(), "anchors (`&name`) are not accepted");
            self.hint("write the value out where it is used");
        }
        if tag {
            self.fault(range.clone(), "tags (`!name`) are not accepted");
            self.hint("remove the tag; a text is marked by quotes");
        }
    }

    /// Whether a scalar that comes now is a key.
    fn expects_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame {
                open: Open::Mapping { key: None, .. },
                ..
            })
        )
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, range: Range<usize>) {
        let plain = style == ScalarStyle::Plain;
        if self.expects_key() {
            let resolved = match plain {
                true => resolve(&text),
                false => Ok(Value::Null),
            };
            if plain && text == "<<" {
                self.fault(range.clone(), "merge keys (`<<`) are not accepted");
                self.hint("write the members out");
            } else if plain && !matches!(resolved, Ok(Value::String(_))) {
                let shown = match text.is_empty() {
                    true => "an empty key".to_owned(),
                    false => format!("the key `{text}` is not a text"),
                };
                self.fault(range.clone(), format!("{shown}; keys are texts"));
                self.hint("put it in quotes");
            }
            self.key(text, range);
            return;
        }
        let value = match plain {
            true => match resolve(&text) {
                Ok(value) => value,
                Err((message, hint)) => {
                    self.fault(range.clone(), message);
                    self.hint(hint);
                    Value::Null
                }
            },
            false => Value::String(text),
        };
        self.value(value, range, false);
    }

    fn key(&mut self, text: String, range: Range<usize>) {
        push_token(&mut self.pointer, &text);
        let line = self
            .line_starts
            .partition_point(|&start| start <= range.start);
        let Some(Frame {
            open: Open::Mapping { seen, key, .. },
            ..
        }) = self.stack.last_mut()
        else {
            return;
        };
        let first = seen.get(&text).copied();
        seen.entry(text.clone()).or_insert(line);
        *key = Some((text.clone(), range.clone()));
        if let Some(first) = first {
            self.fault(range, format!("duplicate key `{text}`"));
            self.hint(format!(
                "it is already in line {first}; readers disagree on which one counts: keep one"
            ));
        }
    }

    fn open(&mut self, open: Open, range: Range<usize>) -> bool {
        if self.stack.len() >= MAX_DEPTH {
            self.fault(
                range,
                format!("sequences and mappings are nested deeper than {MAX_DEPTH}"),
            );
            return false;
        }
        if self.expects_key() {
            self.fault(range.clone(), "a mapping or sequence cannot be a key");
            self.hint("keys are texts; was `{{ … }}` or `[…]` meant as a text? Put it in quotes");
            // What is inside is not looked at.
            return false;
        }
        let key = self.enter();
        self.stack.push(Frame {
            open,
            start: range.start,
            pointer: self.pointer.len(),
            key,
        });
        true
    }

    /// Completes the pointer to the value that comes now; the place of its key.
    fn enter(&mut self) -> Option<Range<usize>> {
        match &self.stack.last()?.open {
            Open::Mapping { key, .. } => key.as_ref().map(|(_, range)| range.clone()),
            Open::Sequence(items) => {
                let index = items.len().to_string();
                push_token(&mut self.pointer, &index);
                None
            }
        }
    }

    fn value(&mut self, value: Value, range: Range<usize>, alias: bool) {
        if alias && self.expects_key() {
            self.key(String::new(), range);
            return;
        }
        let key = self.enter();
        self.place(Spot { key, value: range });
        self.attach(value);
    }

    fn place(&mut self, spot: Spot) {
        if let Some(places) = &mut self.places {
            places.entry(self.pointer.clone()).or_insert(spot);
        }
    }

    fn close(&mut self, end: usize) {
        let Some(frame) = self.stack.pop() else {
            return;
        };
        self.pointer.truncate(frame.pointer);
        let end = frame.start
            + self.text[frame.start..end.max(frame.start)]
                .trim_end()
                .len();
        self.place(Spot {
            key: frame.key,
            value: frame.start..end,
        });
        self.attach(match frame.open {
            Open::Mapping { members, .. } => Value::Object(members),
            Open::Sequence(items) => Value::Array(items),
        });
    }

    /// Puts a finished value where it belongs and leaves its place.
    fn attach(&mut self, value: Value) {
        match self.stack.last_mut() {
            None => self.root = Some(value),
            Some(frame) => {
                match &mut frame.open {
                    Open::Mapping { members, key, .. } => {
                        if let Some((key, _)) = key.take() {
                            members.insert(key, value);
                        }
                    }
                    Open::Sequence(items) => items.push(value),
                }
                self.pointer.truncate(frame.pointer);
            }
        }
    }
}

fn is_content(line: &str) -> bool {
    let line = line.trim();
    !(line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

/// A plain scalar by the core schema (YAML 1.2.2, section 10.3.2), or why not and what to do.
pub(crate) fn resolve(text: &str) -> Result<Value, (String, &'static str)> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err((
            format!("`{text}` is not a number that JSON has"),
            "use null, leave the member out, or put it in quotes if it is a text",
        ));
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Value::String(text.to_owned()));
    }
    let number = if let Some(digits) = text.strip_prefix("0o") {
        radix(digits, 8)
    } else if let Some(digits) = text.strip_prefix("0x") {
        radix(digits, 16)
    } else if is_decimal(unsigned) {
        let whole = unsigned.split(['.', 'e', 'E']).next().unwrap_or("");
        if whole.len() > 1 && whole.starts_with('0') {
            return Err((
                format!("`{text}` has leading zeros: some readers take it as octal"),
                "put it in quotes if it is a text, or drop the zeros",
            ));
        }
        decimal(text)
    } else {
        return Ok(Value::String(text.to_owned()));
    };
    match number {
        None => Ok(Value::String(text.to_owned())),
        Some(Some(number)) if is_safe(&number) => Ok(Value::Number(number)),
        Some(_) => Err((
            format!("{text} is beyond ±(2^53 − 1): other readers would round it"),
            "put it in quotes: a text",
        )),
    }
}

/// `None`: not a number; `Some(None)`: a number that we cannot hold.
fn radix(digits: &str, radix: u32) -> Option<Option<Number>> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(u64::from_str_radix(digits, radix).ok().map(Number::from))
}

fn decimal(text: &str) -> Option<Option<Number>> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = text.parse::<i64>() {
        return Some(Some(integer.into()));
    }
    Some(text.parse::<f64>().ok().and_then(Number::from_f64))
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = "\
# a comment
no: no
on: [on, y, Yes, true, FALSE, ~, null, '', \"~\"]
n: [0, -12, +3, 0o17, 0xfF, 1.5, .5, 1., 1e3, -2.5E-3]
t: [12:30:45, 2026-11-21, 1_000, 0o8, 0b1, 1.2.3, '010', e5, ., -a, <<, v1]
empty:
block: |
  a
   b
folded: >-
  a
  b
";
        let document = parse("f", text).expect("valid");
        assert_eq!(
            document.value,
            json!({
                "no": "no",
                "on": ["on", "y", "Yes", true, false, null, null, "", "~"],
                "n": [0, -12, 3, 15, 255, 1.5, 0.5, 1.0, 1000.0, -0.0025],
                "t": ["12:30:45", "2026-11-21", "1_000", "0o8", "0b1", "1.2.3", "010", "e5", ".", "-a", "<<", "v1"],
                "empty": null,
                "block": "a\n b\n",
                "folded": "a b",
            })
        );
        assert_eq!(document.source.position("/on/3"), (3, 18));
        assert_eq!(document.source.position("/block"), (8, 3));
        assert_eq!(document.source.at_key("/folded", "").line, 10);
    }

    #[test]
    fn refusals_name_the_place() {
        for (text, line, column, message) in [
            ("", 1, 1, "the file is empty"),
            ("# only a comment\n", 1, 1, "the file is empty"),
            ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, 3, "duplicate key `c`"),
            ("a: 1\n\"a\": 2\n", 2, 1, "duplicate key `a`"),
            ("a: &x 1\n", 1, 4, "anchors (`&name`) are not accepted"),
            ("a: !!str 1\n", 1, 4, "tags (`!name`) are not accepted"),
            (
                "a:\n  <<: {b: 1}\n",
                2,
                3,
                "merge keys (`<<`) are not accepted",
            ),
            ("a: 1\n---\nb: 1\n", 2, 1, "a second document starts here"),
            ("1: a\n", 1, 1, "the key `1` is not a text; keys are texts"),
            (
                "true: a\n",
                1,
                1,
                "the key `true` is not a text; keys are texts",
            ),
            ("{[a]: b}\n", 1, 2, "a mapping or sequence cannot be a key"),
            (
                "a: {{ x }}\n",
                1,
                5,
                "a mapping or sequence cannot be a key",
            ),
            ("a: .nan\n", 1, 4, "`.nan` is not a number that JSON has"),
            ("a: -.inf\n", 1, 4, "`-.inf` is not a number that JSON has"),
            (
                "é: 9007199254740993\n",
                1,
                4,
                "9007199254740993 is beyond ±(2^53 − 1): other readers would round it",
            ),
            (
                "a: 0xffffffffffffffffff\n",
                1,
                4,
                "0xffffffffffffffffff is beyond ±(2^53 − 1): other readers would round it",
            ),
            (
                "a: 1e999\n",
                1,
                4,
                "1e999 is beyond ±(2^53 − 1): other readers would round it",
            ),
            (
                "zip: 01234\n",
                1,
                6,
                "`01234` has leading zeros: some readers take it as octal",
            ),
            (
                "a: \"x\0y\"\n",
                1,
                6,
                "the character U+0000 is not allowed in YAML",
            ),
            (
                "a: 1\rb: 2\n",
                1,
                5,
                "a carriage return without a line feed",
            ),
        ] {
            let found = parse("f", text).expect_err(text);
            let fault = found.iter().next().expect("one");
            assert_eq!(
                (
                    fault.line,
                    fault.column,
                    fault.message.as_str(),
                    found.total()
                ),
                (line, column, message, 1),
                "for {text:?}"
            );
        }
        for (text, line) in [
            ("a: b: c\n", 1),
            ("a:\n\t- b\n", 2),
            ("a: [1, 2\nb: 3\n", 2),
            ("a: \"x\n", 1),
            ("id: @org/app\n", 1),
        ] {
            let found = parse("f", text).expect_err(text);
            let fault = found.iter().next().expect("one");
            assert!(fault.message.starts_with("not valid YAML"), "{fault}");
            assert_eq!(fault.line, line, "{fault}");
        }
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let text = "a: &x 01\nb: *x\na: 2\n";
        let found = parse("f", text).expect_err("four faults");
        let lines: Vec<usize> = found.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 1, 2, 3]);
    }

    #[test]
    fn bombs_and_depth_are_refused() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n";
        assert!(parse("f", bomb).is_err());
        for depth in [200, 100_000] {
            assert!(parse("f", "[".repeat(depth)).is_err());
            assert!(parse("f", "- ".repeat(depth)).is_err());
            assert!(parse("f", "{a: ".repeat(depth)).is_err());
        }
        let fits = format!("{}1\n", "- ".repeat(MAX_DEPTH));
        assert!(parse("f", fits).is_ok());
    }

    #[test]
    fn marks_and_line_endings() {
        let document = parse("f", *b"\xef\xbb\xbfa: |\r\n  x\r\n  y\r\nb: 1\r\n").expect("valid");
        assert_eq!(document.value, json!({"a": "x\ny\n", "b": 1}));
        assert_eq!(document.source.position("/b"), (4, 4));
        assert!(parse("f", *b"a: \xff").is_err());
        assert_eq!(parse("f", "~\n").expect("a null").value, Value::Null);
    }
}
