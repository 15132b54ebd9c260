//! A value together with the text that it came from.
//!
//! Positions are not recorded while parsing. When a fault must be shown, the
//! text is scanned a second time and every JSON pointer gets its place, so that
//! good input is read as fast as if nobody had asked for line numbers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::diagnostic::{Diagnostic, Diagnostics, Excerpt};
use super::json::LARGEST_INTEGER;

/// The syntax of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A JSON document, or one line of JSONL.
    Json,
    /// A YAML document.
    Yaml,
    /// A TOML document.
    Toml,
    /// A value made by a program: every place is line 1, column 1.
    None,
}

/// Where a member or item stands in its text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The key, with its quotes; `None` for items and for the root.
    pub key: Option<Range<usize>>,
    /// The value.
    pub value: Range<usize>,
}

/// Every JSON pointer of a document and its place.
pub(crate) type Places = HashMap<String, Spot>;

/// A text and its name, able to turn a JSON pointer into line and column.
#[derive(Debug, Clone)]
pub struct Source {
    file: Arc<str>,
    text: String,
    format: Format,
    first_line: usize,
    places: OnceLock<Places>,
}

impl Source {
    /// A text whose first line is line `first_line` of `file`.
    pub fn new(
        file: impl Into<Arc<str>>,
        text: impl Into<String>,
        format: Format,
        first_line: usize,
    ) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
            format,
            first_line,
            places: OnceLock::new(),
        }
    }

    /// The file as the user knows it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The text, without a byte-order mark or (for a line of JSONL) its line ending.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, by value.
    pub fn into_text(self) -> String {
        self.text
    }

    /// The syntax of the text.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number of the text's first line in its file.
    pub fn first_line(&self) -> usize {
        self.first_line
    }

    /// A fault in the value at `pointer`, or in the nearest value around it that exists.
    pub fn at(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        let mut range = self.spot(pointer).map_or(0..0, |spot| spot.value.clone());
        if self.text[range.start..].starts_with(['{', '[']) {
            // The whole of an object says less than where it begins.
            range.end = range.start + 1;
        }
        self.at_bytes(range, pointer, message)
    }

    /// A fault in the key of the member at `pointer`.
    pub fn at_key(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        let range = self
            .spot(pointer)
            .map(|spot| spot.key.clone().unwrap_or_else(|| spot.value.clone()));
        self.at_bytes(range.unwrap_or(0..0), pointer, message)
    }

    /// A fault in a range of bytes of the text.
    pub fn at_bytes(
        &self,
        range: Range<usize>,
        pointer: &str,
        message: impl Into<String>,
    ) -> Diagnostic {
        let mut diagnostic = Diagnostic::of_file(&*self.file, message);
        diagnostic.pointer = pointer.to_owned();
        diagnostic.line = self.first_line;
        if self.format == Format::None {
            return diagnostic;
        }
        let start = floor_char(&self.text, range.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |newline| start + newline);
        let line = self.text[line_start..line_end].trim_end_matches('\r');
        let column = self.text[line_start..start].chars().count();
        let end = floor_char(&self.text, range.end.clamp(start, line_end));
        diagnostic.line += before.bytes().filter(|&byte| byte == b'\n').count();
        diagnostic.column = column + 1;
        diagnostic.excerpt = (!line.trim().is_empty())
            .then(|| Excerpt::of(line, column, self.text[start..end].chars().count()));
        diagnostic
    }

    /// Line and column (both from 1) of the value at `pointer`.
    pub fn position(&self, pointer: &str) -> (usize, usize) {
        let diagnostic = self.at(pointer, "");
        (diagnostic.line, diagnostic.column)
    }

    fn spot(&self, pointer: &str) -> Option<&Spot> {
        let places = self.places.get_or_init(|| match self.format {
            Format::Json => super::json_scan::places(&self.text),
            Format::Yaml => super::yaml::places(&self.text),
            Format::Toml => super::toml::places(&self.text),
            Format::None => Places::new(),
        });
        let mut pointer = pointer;
        loop {
            if let Some(spot) = places.get(pointer) {
                return Some(spot);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A value and its source.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

impl<T> Located<T> {
    /// A value that a program made: its faults name the file, at line 1.
    pub fn made(file: impl Into<Arc<str>>, value: T) -> Self {
        Self {
            value,
            source: Source::new(file, "", Format::None, 1),
        }
    }
}

impl Located<Value> {
    /// The value as a Rust type.
    ///
    /// Validate against the schema first, which names every place. What only
    /// the type refuses stops at the first fault; it is shown where the text
    /// that the type's error quotes first occurs, or else at the start.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Diagnostics> {
        T::deserialize(&self.value)
            .or_else(|error| {
                // To JSON Schema 2.0 is an integer, to serde it is not.
                let mut value = self.value.clone();
                match whole_floats_to_integers(&mut value) {
                    true => T::deserialize(&value).map_err(|_| error),
                    false => Err(error),
                }
            })
            .map_err(|error| {
                let message = error.to_string();
                let quoted = message.split('`').nth(1).unwrap_or_default();
                let place = find_text(&self.value, quoted, &mut String::new());
                let diagnostic = match &place {
                    Some((pointer, true)) => self.source.at_key(pointer, message),
                    Some((pointer, false)) => self.source.at(pointer, message),
                    None => self.source.at("", message),
                };
                diagnostic.into()
            })
    }
}

/// Writes `2.0` as `2`, as canonical JSON does, and says whether there was any.
fn whole_floats_to_integers(value: &mut Value) -> bool {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or(0.5);
            let whole = float.fract() == 0.0 && float.abs() <= LARGEST_INTEGER as f64;
            if whole {
                // In range, so that the conversion is exact.
                *number = (float as i64).into();
            }
            whole
        }
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |any, item| whole_floats_to_integers(item) | any),
        Value::Object(members) => members
            .values_mut()
            .fold(false, |any, item| whole_floats_to_integers(item) | any),
        _ => false,
    }
}

/// The first member or item that is `text`, and whether as a key.
fn find_text(value: &Value, text: &str, pointer: &mut String) -> Option<(String, bool)> {
    if text.is_empty() {
        return None;
    }
    let length = pointer.len();
    match value {
        Value::String(own) => (own == text).then(|| (pointer.clone(), false)),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            push_token(pointer, &index.to_string());
            let found = find_text(item, text, pointer);
            pointer.truncate(length);
            found
        }),
        Value::Object(members) => members.iter().find_map(|(key, item)| {
            push_token(pointer, key);
            let found = match key == text {
                true => Some((pointer.clone(), true)),
                false => find_text(item, text, pointer),
            };
            pointer.truncate(length);
            found
        }),
        _ => None,
    }
}

/// Appends a reference token to a JSON pointer (RFC 6901).
pub(crate) fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    if token.contains(['~', '/']) {
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
    } else {
        pointer.push_str(token);
    }
}

/// U+FEFF in UTF-8, which some editors put before the text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads bytes as UTF-8, without a byte-order mark; `at_start` says whether one may be there.
pub(crate) fn utf8(
    file: &Arc<str>,
    bytes: Vec<u8>,
    first_line: usize,
    at_start: bool,
) -> Result<String, Box<Diagnostic>> {
    let bytes = match at_start && bytes.starts_with(BYTE_ORDER_MARK) {
        true => bytes[BYTE_ORDER_MARK.len()..].to_vec(),
        false => bytes,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        // Up to `at` both texts are the same, so that the place is right.
        let diagnostic = Source::new(Arc::clone(file), text, Format::Json, first_line)
            .at_bytes(at..at + 3, "", format!("byte 0x{byte:02x} is not UTF-8"))
            .with_hint("save the file as UTF-8");
        Box::new(diagnostic)
    })
}
