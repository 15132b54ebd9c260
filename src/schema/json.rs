//! Strict JSON and JSONL.
//!
//! serde_json does the reading. On top of it: a key may appear once in an
//! object, and an integer must survive a reader that keeps numbers as doubles
//! (RFC 8785, Appendix B), because two such readers must see the same document
//! and compute the same digest. What is refused is scanned a second time by
//! a small parser that names every fault and its place.

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::json_scan;
use super::source::{BYTE_ORDER_MARK, Format, Located, Source, utf8};

/// Arrays and objects may be nested this deep.
pub const MAX_DEPTH: usize = 127;

/// The largest integer that every JSON reader keeps exactly: 2^53 − 1.
pub const LARGEST_INTEGER: u64 = (1 << 53) - 1;

/// What a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest document, or the longest line of JSONL, in bytes.
    pub bytes_max: usize,
    /// Whether integers beyond ±(2^53 − 1) are accepted. A document that has them has no digest.
    pub large_integers: bool,
}

impl Limits {
    /// For whole documents: 64 MiB, no large integers.
    pub const DOCUMENT: Self = Self {
        bytes_max: 64 << 20,
        large_integers: false,
    };
    /// For lines of JSONL: 8 MiB, no large integers.
    pub const LINE: Self = Self {
        bytes_max: 8 << 20,
        large_integers: false,
    };
}

/// Whether a JSONL file may have no line at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyFile {
    /// It has no rows, and that is fine.
    Accept,
    /// It is a mistake: say so.
    Refuse,
}

/// Reads one JSON document within [`Limits::DOCUMENT`].
///
/// A byte-order mark is accepted. All faults are returned, except that a
/// syntax error ends the search.
pub fn parse(file: &str, bytes: impl Into<Vec<u8>>) -> Result<Located<Value>, Diagnostics> {
    parse_within(Limits::DOCUMENT, file, bytes)
}

/// Reads one JSON document within the given limits.
pub fn parse_within(
    limits: Limits,
    file: &str,
    bytes: impl Into<Vec<u8>>,
) -> Result<Located<Value>, Diagnostics> {
    let bytes = bytes.into();
    let file: Arc<str> = file.into();
    if bytes.len() > limits.bytes_max {
        return Err(too_large(&file, bytes.len(), limits.bytes_max).into());
    }
    let text = utf8(&file, bytes, 1, true)?;
    if text.trim().is_empty() {
        return Err(Diagnostic::of_file(&*file, "the file is empty")
            .with_hint("a JSON document was expected here")
            .into());
    }
    read(limits, Source::new(file, text, Format::Json, 1), None)
}

pub(crate) fn too_large(file: &str, bytes: usize, bytes_max: usize) -> Diagnostic {
    Diagnostic::of_file(
        file,
        format!("the file has {bytes} bytes; at most {bytes_max} are read"),
    )
    .with_hint("split it, or keep large values elsewhere and refer to them")
}

/// Reads rows from a JSONL file, one [`Located`] value per line, within [`Limits::LINE`].
///
/// The iterator goes on after a bad line, so that one pass finds all faults.
/// Windows line endings and a byte-order mark are accepted; blank lines only at
/// the end. A line beyond the limit is refused without being held in memory.
/// After an error of the reader itself the iterator ends: see [`Lines::take_error`].
pub fn lines<R: BufRead>(file: &str, reader: R, empty: EmptyFile) -> Lines<R> {
    lines_within(Limits::LINE, file, reader, empty)
}

/// [`lines`] with other limits.
pub fn lines_within<R: BufRead>(
    limits: Limits,
    file: &str,
    reader: R,
    empty: EmptyFile,
) -> Lines<R> {
    Lines {
        reader,
        file: file.into(),
        limits,
        empty,
        line: 0,
        rows: 0,
        blank: None,
        held: None,
        ended: false,
        error: None,
        size_of_last: 0,
    }
}

/// The rows of a JSONL file; see [`lines`].
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    file: Arc<str>,
    limits: Limits,
    empty: EmptyFile,
    line: usize,
    rows: usize,
    blank: Option<usize>,
    held: Option<Result<Located<Value>, Diagnostics>>,
    ended: bool,
    error: Option<io::Error>,
    size_of_last: usize,
}

/// What the next line holds.
enum Raw {
    Line(Vec<u8>),
    TooLong,
    End,
}

impl<R: BufRead> Lines<R> {
    /// How many lines have been read, blank and bad ones included.
    pub fn lines_read(&self) -> usize {
        self.line
    }

    /// The error that made the reader stop, so that the caller can tell "the
    /// file is bad" from "the disk is". The iterator has reported it as well.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn next_raw(&mut self) -> io::Result<Raw> {
        // The limit, a byte-order mark, and the line ending.
        let most = self.limits.bytes_max.saturating_add(5);
        let mut line = Vec::with_capacity(self.size_of_last + self.size_of_last / 4);
        let mut taken = self.reader.by_ref().take(most as u64);
        if taken.read_until(b'\n', &mut line)? == 0 {
            return Ok(Raw::End);
        }
        self.line += 1;
        let mut cut_off = false;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() == most {
            cut_off = true;
            self.reader.skip_until(b'\n')?;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let mark = match self.line == 1 && line.starts_with(BYTE_ORDER_MARK) {
            true => BYTE_ORDER_MARK.len(),
            false => 0,
        };
        if cut_off || line.len() - mark > self.limits.bytes_max {
            return Ok(Raw::TooLong);
        }
        self.size_of_last = line.len();
        Ok(Raw::Line(line))
    }

    fn at_line(&self, line: usize, message: impl Into<String>) -> Diagnostic {
        let mut diagnostic = Diagnostic::of_file(&*self.file, message);
        diagnostic.line = line;
        diagnostic
    }

    fn row(&self, bytes: Vec<u8>) -> Result<Located<Value>, Diagnostics> {
        let text = utf8(&self.file, bytes, self.line, self.line == 1)?;
        let source = Source::new(Arc::clone(&self.file), text, Format::Json, self.line);
        read(
            self.limits,
            source,
            Some("every line of a JSONL file holds one whole JSON document"),
        )
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Located<Value>, Diagnostics>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        while !self.ended {
            let raw = match self.next_raw() {
                Ok(raw) => raw,
                Err(error) => {
                    self.ended = true;
                    let fault = self.at_line(self.line + 1, format!("cannot be read: {error}"));
                    self.error = Some(error);
                    return Some(Err(fault.into()));
                }
            };
            let item = match raw {
                Raw::End => {
                    self.ended = true;
                    if self.rows == 0 && self.empty == EmptyFile::Refuse {
                        let fault = self.at_line(1, "the file is empty");
                        return Some(Err(fault.with_hint("it needs at least one row").into()));
                    }
                    return None;
                }
                Raw::TooLong => {
                    let limit = self.limits.bytes_max;
                    Err(self
                        .at_line(self.line, format!("the line is longer than {limit} bytes"))
                        .with_hint("keep large values elsewhere and refer to them by digest")
                        .into())
                }
                Raw::Line(bytes)
                    if bytes.iter().all(u8::is_ascii_whitespace)
                        || (self.line == 1 && bytes == BYTE_ORDER_MARK) =>
                {
                    self.blank.get_or_insert(self.line);
                    continue;
                }
                Raw::Line(bytes) => self.row(bytes),
            };
            self.rows += 1;
            return match self.blank.take() {
                Some(line) => {
                    self.held = Some(item);
                    let fault = self.at_line(line, "blank line between rows");
                    Some(Err(fault.with_hint("remove it").into()))
                }
                None => Some(item),
            };
        }
        None
    }
}

/// Reads a document quickly, and looks closer when that fails.
fn read(
    limits: Limits,
    source: Source,
    one_document: Option<&str>,
) -> Result<Located<Value>, Diagnostics> {
    let mut deserializer = serde_json::Deserializer::from_str(source.text());
    let seed = Strict {
        large_integers: limits.large_integers,
    };
    let result = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match result {
        Ok(value) => Ok(Located { value, source }),
        Err(error) => {
            let mut all = Diagnostics::new();
            for fault in json_scan::faults(source.text(), limits.large_integers) {
                let mut diagnostic = source.at_bytes(fault.range, &fault.pointer, fault.message);
                diagnostic.hint = match fault.trailing {
                    true => one_document.map(str::to_owned).or(fault.hint),
                    false => fault.hint,
                };
                all.push(diagnostic);
            }
            if all.is_empty() {
                // Our parser is more lenient than serde_json somewhere: still a refusal.
                let before: usize = source
                    .text()
                    .split_inclusive('\n')
                    .take(error.line().saturating_sub(1))
                    .map(str::len)
                    .sum();
                let at = before + error.column().saturating_sub(1);
                all.push(source.at_bytes(at..at + 1, "", error.to_string()));
            }
            Err(all)
        }
    }
}

/// Builds a [`Value`] as serde_json does, refusing what the module says.
#[derive(Clone, Copy)]
struct Strict {
    large_integers: bool,
}

fn is_exact(size: u64) -> bool {
    size <= LARGEST_INTEGER
}

fn is_exact_float(float: f64) -> bool {
    float.fract() != 0.0 || float.abs() <= LARGEST_INTEGER as f64
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if self.large_integers || is_exact(value) {
            Ok(Value::Number(value.into()))
        } else {
            Err(E::custom("a large integer"))
        }
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if self.large_integers || is_exact(value.unsigned_abs()) {
            Ok(Value::Number(value.into()))
        } else {
            Err(E::custom("a large integer"))
        }
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) if self.large_integers || is_exact_float(value) => {
                Ok(Value::Number(number))
            }
            _ => Err(E::custom("a number beyond the range")),
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if object.insert(key, value).is_some() {
                return Err(serde::de::Error::custom("a duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Whether every reader keeps a number as it is written.
pub(crate) fn is_safe(number: &Number) -> bool {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(size), _, _) => is_exact(size),
        (_, Some(size), _) => is_exact(size.unsigned_abs()),
        (_, _, Some(float)) => is_exact_float(float),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(usize, usize, String)> {
        parse("f", text)
            .expect_err(text)
            .into_iter()
            .map(|d| (d.line, d.column, d.message))
            .collect()
    }

    #[test]
    fn refusals_name_the_place() {
        for (text, line, column, message) in [
            ("", 1, 1, "the file is empty"),
            ("{\"a\":1,\n \"a\":2}", 2, 2, "duplicate key `a`"),
            ("{\"é\": NaN}", 1, 7, "expected a value, found `NaN`"),
            (
                "[1, -Infinity]",
                1,
                5,
                "expected a value, found `-Infinity`",
            ),
            (
                "[9007199254740992]",
                1,
                2,
                "9007199254740992 is beyond ±(2^53 − 1): other readers would round it",
            ),
            (
                "[-123456789012345678901234567890]",
                1,
                2,
                "-123456789012345678901234567890 is beyond ±(2^53 − 1): other readers would round it",
            ),
            ("[1e400]", 1, 2, "1e400 is beyond what a number can hold"),
            ("[01]", 1, 2, "`01` is not a JSON number"),
            ("[1,]", 1, 4, "expected a value, found `]`"),
            (
                "{\"a\":1,}",
                1,
                8,
                "expected a key in double quotes, found `}`",
            ),
            ("{a:1}", 1, 2, "expected a key in double quotes, found `a`"),
            (
                "{'a':1}",
                1,
                2,
                "expected a key in double quotes, found `'`",
            ),
            ("{\"a\" 1}", 1, 6, "expected `:`, found `1`"),
            (
                "{\"a\":1",
                1,
                7,
                "the document ends where `,` or `}` should be",
            ),
            ("{\"a", 1, 2, "the string that starts here has no end"),
            ("\"a\nb\"", 1, 3, "a control character in a string"),
            ("\"\\x\"", 1, 2, "not an escape that JSON knows"),
            ("\"\\ud800\"", 1, 2, "half of a surrogate pair"),
            (
                "{} {}",
                1,
                4,
                "something stands after the end of the document",
            ),
            ("True", 1, 1, "expected a value, found `True`"),
        ] {
            assert_eq!(
                faults(text),
                [(line, column, message.to_owned())],
                "for {text:?}"
            );
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(
            faults(&deep),
            [(
                1,
                128,
                "arrays and objects are nested deeper than 127".into()
            )]
        );
        let fits = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse("f", fits).is_ok());
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let text = "{\"a\":1,\"a\":{\"n\":9007199254740993,\"n\":2},\"b\":[1e30]}";
        let found = parse("f", text).expect_err("three faults");
        let pointers: Vec<&str> = found.iter().map(|d| d.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a", "/a/n", "/a/n", "/b/0"]);
    }

    #[test]
    fn invalid_utf8_has_a_place() {
        let found = parse("f", *b"{\"\xc3\xa9\":\n \"\xff\"}").expect_err("not UTF-8");
        let fault = found.iter().next().expect("one");
        assert_eq!((fault.line, fault.column), (2, 3));
        assert_eq!(fault.message, "byte 0xff is not UTF-8");
    }

    #[test]
    fn marks_and_sizes() {
        let document = parse("f", *b"\xef\xbb\xbf{\"a\":1}").expect("a BOM is accepted");
        assert_eq!(document.source.position("/a"), (1, 6));
        let limits = Limits {
            bytes_max: 4,
            large_integers: true,
        };
        assert!(parse_within(limits, "f", "12345").is_err());
        let large = parse_within(
            Limits {
                bytes_max: 99,
                ..limits
            },
            "f",
            "18446744073709551615",
        );
        assert_eq!(large.expect("allowed").value, u64::MAX);
    }

    #[test]
    fn places_of_nested_values() {
        let text = "{\n  \"a/b\": [10, {\"c~\": \"x\"}]\n}";
        let document = parse("f", text).expect("valid");
        assert_eq!(document.source.position(""), (1, 1));
        assert_eq!(document.source.position("/a~1b"), (2, 10));
        assert_eq!(document.source.position("/a~1b/1/c~0"), (2, 22));
        assert_eq!(document.source.position("/a~1b/7/zz"), (2, 10), "nearest");
        assert_eq!(document.source.at_key("/a~1b", "").column, 3);
    }

    #[test]
    fn lines_go_on_after_faults() {
        let text = "\u{feff}{\"a\":1}\r\n\n{bad}\n\r\n[1,2]\n{\"a\":1,\"a\":2}\n\"x\"";
        let mut rows = lines("d.jsonl", text.as_bytes(), EmptyFile::Refuse);
        let seen: Vec<String> = rows
            .by_ref()
            .map(|row| match row {
                Ok(row) => format!("{} {}", row.source.first_line(), row.source.text()),
                Err(faults) => faults
                    .iter()
                    .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
                    .collect(),
            })
            .collect();
        assert_eq!(
            seen,
            [
                "1 {\"a\":1}",
                "2:1 blank line between rows",
                "3:2 expected a key in double quotes, found `bad`",
                "4:1 blank line between rows",
                "5 [1,2]",
                "6:8 duplicate key `a`",
                "7 \"x\"",
            ]
        );
        assert_eq!(rows.lines_read(), 7);
    }

    #[test]
    fn empty_files_and_trailing_blank_lines() {
        for text in ["", "\n\n", "\u{feff}", "\u{feff}\r\n"] {
            let refused = lines("f", text.as_bytes(), EmptyFile::Refuse).next();
            assert!(matches!(refused, Some(Err(_))), "{text:?}");
            assert!(
                lines("f", text.as_bytes(), EmptyFile::Accept)
                    .next()
                    .is_none()
            );
        }
        assert_eq!(lines("f", &b"1\n\n \n"[..], EmptyFile::Refuse).count(), 1);
    }

    #[test]
    fn a_line_beyond_the_limit_is_not_kept() {
        // 50 MB on line 2, produced on the fly.
        let huge = io::Read::chain(
            &b"1\n\""[..],
            io::Read::chain(
                io::Read::take(io::repeat(b'x'), 50_000_000),
                &b"\"\n2\n"[..],
            ),
        );
        let mut rows = lines("f", io::BufReader::new(huge), EmptyFile::Refuse);
        assert!(rows.next().expect("a row").is_ok());
        let refused = rows.next().expect("a row").expect_err("too long");
        let fault = refused.iter().next().expect("one");
        assert_eq!(
            (fault.line, fault.message.as_str()),
            (2, "the line is longer than 8388608 bytes")
        );
        assert!(rows.size_of_last < 10, "the line was kept");
        assert_eq!(
            rows.next()
                .expect("a row")
                .expect("valid")
                .source
                .first_line(),
            3
        );
        assert!(rows.next().is_none());
    }

    #[test]
    fn a_failing_reader_ends_the_rows() {
        struct Failing;
        impl io::Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk"))
            }
        }
        let reader = io::BufReader::new(io::Read::chain(&b"1\n"[..], Failing));
        let mut rows = lines("f", reader, EmptyFile::Refuse);
        assert!(rows.next().expect("a row").is_ok());
        let refused = rows.next().expect("an error").expect_err("an error");
        assert_eq!(refused.iter().next().expect("one").line, 2);
        assert_eq!(rows.take_error().expect("kept").to_string(), "disk");
        assert!(rows.next().is_none());
    }
}
