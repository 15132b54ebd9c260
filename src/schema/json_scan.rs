//! A second look at a JSON text: where everything stands, and every fault with
//! its place and a guess at what the writer meant. Builds no value.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Number;

use super::json::{MAX_DEPTH, is_safe};
use super::source::{Places, Spot, push_token};

/// Where everything stands in a text that has been read.
pub(crate) fn places(text: &str) -> Places {
    let mut scan = Scan::new(text, true);
    scan.places = Some(Places::new());
    scan.document();
    scan.places.take().unwrap_or_default()
}

/// Everything that is wrong with a text; a syntax error ends the search.
pub(super) fn faults(text: &str, large_integers: bool) -> Vec<Found> {
    let mut scan = Scan::new(text, large_integers);
    scan.document();
    scan.faults
}

/// A fault and its place.
pub(super) struct Found {
    pub range: Range<usize>,
    pub pointer: String,
    pub message: String,
    pub hint: Option<String>,
    /// Something stands after the end of the document.
    pub trailing: bool,
}

/// The syntax is broken here and the rest cannot be trusted; the fault has been noted.
struct Broken;

/// A parser that notes places and faults and builds nothing.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    pointer: String,
    large_integers: bool,
    places: Option<Places>,
    faults: Vec<Found>,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str, large_integers: bool) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            pointer: String::new(),
            large_integers,
            places: None,
            faults: Vec::new(),
        }
    }

    fn document(&mut self) {
        if self.value(None).is_err() {
            return;
        }
        self.space();
        if self.at < self.text.len() {
            self.fault(
                self.at..self.at + 1,
                "something stands after the end of the document",
            );
            if let Some(fault) = self.faults.last_mut() {
                fault.trailing = true;
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn fault(&mut self, range: Range<usize>, message: impl Into<String>) {
        self.faults.push(Found {
            range,
            pointer: self.pointer.clone(),
            message: message.into(),
            hint: None,
            trailing: false,
        });
    }

    fn hint(&mut self, hint: impl Into<String>) {
        if let Some(fault) = self.faults.last_mut() {
            fault.hint = Some(hint.into());
        }
    }

    /// Says that `wanted` should stand here, and guesses what the writer meant.
    fn unexpected(&mut self, wanted: &str) -> Broken {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            self.fault(
                self.at..self.at,
                format!("the document ends where {wanted} should be"),
            );
            self.hint("it is cut off, or a closing bracket or quote is missing");
            return Broken;
        };
        let word: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.'))
            .take(40)
            .collect();
        let shown = match word.is_empty() {
            true => first.to_string(),
            false => word.clone(),
        };
        let shown: String = shown
            .chars()
            .map(|c| if c.is_control() { '·' } else { c })
            .collect();
        let length = word.len().max(first.len_utf8());
        self.fault(
            self.at..self.at + length,
            format!("expected {wanted}, found `{shown}`"),
        );
        let hint = match (word.as_str(), first) {
            ("NaN" | "nan" | "Infinity" | "-Infinity" | "inf" | "-inf", _) => {
                Some("JSON has no NaN and no infinity: use null, or leave the member out")
            }
            ("None" | "undefined" | "nil" | "NULL" | "Null", _) => Some("write `null`"),
            ("True" | "TRUE", _) => Some("write `true`"),
            ("False" | "FALSE", _) => Some("write `false`"),
            (_, '\'') => Some("strings and keys are in double quotes"),
            (_, '/' | '#') => Some("JSON has no comments"),
            (_, '}' | ']') => Some("is there a comma too many before it?"),
            (_, c) if wanted == "a key in double quotes" && c.is_alphanumeric() => {
                Some("keys are in double quotes")
            }
            (_, '"') if wanted.starts_with("`,`") => Some("is a comma missing before it?"),
            _ => None,
        };
        if let Some(hint) = hint {
            self.hint(hint);
        }
        Broken
    }

    fn value(&mut self, key: Option<Range<usize>>) -> Result<(), Broken> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => {
                self.string()?;
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| {
                    rest.strip_prefix(word)
                        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
                });
                match word {
                    Some(word) => self.at += word.len(),
                    None => return Err(self.unexpected("a value")),
                }
            }
        }
        let range = start..self.at;
        if let Some(places) = &mut self.places {
            places
                .entry(self.pointer.clone())
                .or_insert(Spot { key, value: range });
        }
        Ok(())
    }

    fn nested(&mut self, inside: fn(&mut Self) -> Result<(), Broken>) -> Result<(), Broken> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.fault(
                self.at..self.at + 1,
                format!("arrays and objects are nested deeper than {MAX_DEPTH}"),
            );
            return Err(Broken);
        }
        self.at += 1;
        inside(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Broken> {
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        let length = self.pointer.len();
        for index in 0_usize.. {
            push_token(&mut self.pointer, &index.to_string());
            self.value(None)?;
            self.pointer.truncate(length);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    break;
                }
                _ => return Err(self.unexpected("`,` or `]`")),
            }
        }
        Ok(())
    }

    fn object(&mut self) -> Result<(), Broken> {
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let length = self.pointer.len();
        let mut seen = HashMap::new();
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let start = self.at;
            let key = self.string()?;
            let range = start..self.at;
            push_token(&mut self.pointer, &key);
            if let Some(&first) = seen.get(&key) {
                self.fault(range.clone(), format!("duplicate key `{key}`"));
                let line = self.text[..first].matches('\n').count() + 1;
                let this = self.text[..start].matches('\n').count() + 1;
                self.hint(match line == this {
                    true => "readers disagree on which one counts: keep one".to_owned(),
                    false => format!(
                        "it is already {} {} above; readers disagree on which one counts: keep one",
                        this - line,
                        if this - line == 1 { "line" } else { "lines" }
                    ),
                });
            }
            seen.entry(key).or_insert(start);
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("`:`"));
            }
            self.at += 1;
            self.value(Some(range))?;
            self.pointer.truncate(length);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("`,` or `}`")),
            }
        }
    }

    /// Reads a string; the cursor stands on its opening quote.
    fn string(&mut self) -> Result<String, Broken> {
        let opening = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .find(|c: char| matches!(c, '"' | '\\') || c < ' ')
                .unwrap_or(rest.len());
            text.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => {
                    self.fault(self.at..self.at + 1, "a control character in a string");
                    self.hint("write it as an escape, such as \\n or \\t");
                    return Err(Broken);
                }
                None => {
                    self.fault(
                        opening..opening + 1,
                        "the string that starts here has no end",
                    );
                    self.hint("a closing quote is missing, or the document is cut off");
                    return Err(Broken);
                }
            }
        }
    }

    /// Reads an escape; the cursor stands on its backslash.
    fn escape(&mut self) -> Result<char, Broken> {
        let start = self.at;
        let letter = self.text[start + 1..].chars().next();
        let plain = match letter {
            Some('"') => '"',
            Some('\\') => '\\',
            Some('/') => '/',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(),
            _ => {
                let length = letter.map_or(1, |letter| 1 + letter.len_utf8());
                self.fault(start..start + length, "not an escape that JSON knows");
                self.hint("a backslash itself is written `\\\\`");
                return Err(Broken);
            }
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, Broken> {
        let start = self.at;
        let first = self.hex4(start);
        let (unit, length) = match first {
            Some(high @ 0xd800..=0xdbff) => match self.hex4(start + 6) {
                Some(low @ 0xdc00..=0xdfff) => {
                    (Some(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 12)
                }
                _ => (None, 6),
            },
            other => (other, 6),
        };
        if let Some(c) = unit.and_then(char::from_u32) {
            self.at += length;
            return Ok(c);
        }
        self.fault(
            start..start + 6,
            match first {
                Some(_) => "half of a surrogate pair",
                None => "`\\u` needs four hexadecimal digits",
            },
        );
        Err(Broken)
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let bytes = self.text.as_bytes();
        let digits = bytes.get(at + 2..at + 6)?;
        if !bytes[at..].starts_with(b"\\u") || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn number(&mut self) -> Result<(), Broken> {
        let start = self.at;
        let length = self.text[start..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')))
            .unwrap_or(self.text.len() - start);
        let written = &self.text[start..start + length];
        if matches!(written, "-Infinity" | "-inf" | "-NaN") {
            return Err(self.unexpected("a value"));
        }
        // serde_json is the judge of what a number is.
        let Ok(number) = serde_json::from_str::<Number>(written) else {
            let message = match is_number(written) {
                true => format!("{written} is beyond what a number can hold"),
                false => format!("`{written}` is not a JSON number"),
            };
            self.fault(start..start + length, message);
            if !is_number(written) {
                self.hint("no leading zeros, no `+`, digits on both sides of the point; anything else is a string");
            }
            return Err(Broken);
        };
        self.at += length;
        if !self.large_integers && !is_safe(&number) {
            self.fault(
                start..start + length,
                format!("{written} is beyond ±(2^53 − 1): other readers would round it"),
            );
            self.hint("write it as a string, in double quotes");
        }
        Ok(())
    }
}

/// Whether a text is a number by JSON's grammar, whatever its size.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}
