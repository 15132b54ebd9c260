//! What is wrong in a file, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// A piece of the line at fault, and the part of it to point at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line, cut to a readable width; control characters show as `·`.
    pub text: String,
    /// How many characters of `text` stand before the caret.
    pub caret: usize,
    /// How many characters to underline, at least 1.
    pub width: usize,
}

impl Excerpt {
    /// The widest text shown, in characters.
    const WIDTH: usize = 100;

    /// An excerpt of `line`, around the `width` characters that follow the first `before`.
    pub fn of(line: &str, before: usize, width: usize) -> Self {
        let start = if before > Self::WIDTH * 3 / 4 {
            before - Self::WIDTH / 2
        } else {
            0
        };
        let line = without_credentials(line);
        let mut text: String = line
            .chars()
            .skip(start)
            .take(Self::WIDTH)
            .map(|c| match c {
                '\t' => ' ',
                c if c.is_control() => '·',
                c => c,
            })
            .collect();
        let length = text.chars().count();
        if line.chars().nth(start + Self::WIDTH).is_some() {
            text.push('…');
        }
        let mut caret = before - start;
        if start > 0 {
            text.insert(0, '…');
            caret += 1;
        }
        let room = (length + usize::from(start > 0)).saturating_sub(caret);
        Self {
            text: text.trim_end().to_owned(),
            caret,
            width: width.clamp(1, room.max(1)),
        }
    }
}

/// The text with what stands between `://` and `@` blotted out, at the same
/// length: a user name and password in a URL must not reach a log.
pub(crate) fn without_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>'))
            .unwrap_or(after.len());
        let length = after[..end].rfind('@').unwrap_or(0);
        out.extend(after[..length].chars().map(|_| '•'));
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}

/// One fault in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as the user knows it: a path, `<stdin>`, or `ref:path`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// JSON pointer to the value at fault; empty for the whole document.
    pub pointer: String,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// Where the rule stands, such as `proofline/signature/v1#/properties/id/pattern`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_path: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The text at fault. It quotes the file: leave it out where that may hold secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// A fault that concerns a file as a whole.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: 1,
            column: 1,
            pointer: String::new(),
            message: message.into(),
            schema_path: None,
            hint: None,
            excerpt: None,
        }
    }

    /// The same fault with advice.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault without a quotation of the file.
    pub fn without_excerpt(mut self) -> Self {
        self.excerpt = None;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n    {}", excerpt.text)?;
            let (caret, width) = (excerpt.caret, excerpt.width);
            write!(f, "\n    {:caret$}{:^<width$}", "", "^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// All the faults that were found, the first hundred of them in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// The faults that are kept, in the order found.
    #[serde(rename = "diagnostics")]
    kept: Vec<Diagnostic>,
    /// How many more there were.
    #[serde(rename = "not_shown")]
    more: usize,
    #[serde(skip)]
    cap: usize,
}

impl Default for Diagnostics {
    fn default() -> Self {
        Self::new()
    }
}

impl Diagnostics {
    /// How many faults are kept unless said otherwise; more are counted.
    pub const CAP: usize = 100;

    /// No fault yet.
    pub fn new() -> Self {
        Self::with_cap(Self::CAP)
    }

    /// No fault yet; at most `cap` will be kept.
    pub fn with_cap(cap: usize) -> Self {
        Self {
            kept: Vec::new(),
            more: 0,
            cap,
        }
    }

    /// Adds a fault, or counts it when enough are kept.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.kept.len() < self.cap {
            self.kept.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// Adds all the faults of another collection, and its count of the rest.
    pub fn append(&mut self, other: Diagnostics) {
        for diagnostic in other.kept {
            self.push(diagnostic);
        }
        self.more += other.more;
    }

    /// Whether there is no fault at all.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.more == 0
    }

    /// How many faults were found, kept or not.
    pub fn total(&self) -> usize {
        self.kept.len() + self.more
    }

    /// How many faults were found and are not kept.
    pub fn not_shown(&self) -> usize {
        self.more
    }

    /// The faults that are kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.kept.iter()
    }

    /// Puts the kept faults in the order in which one reads the file.
    pub fn sort(&mut self) {
        self.kept
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    }

    /// `value` when there is no fault.
    pub fn into_result<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        let mut all = Self::new();
        all.push(diagnostic);
        all
    }
}

impl From<Box<Diagnostic>> for Diagnostics {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::from(*diagnostic)
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        for diagnostic in diagnostics {
            self.push(diagnostic);
        }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.kept.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more like these", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_well() {
        let mut fault = Diagnostic::of_file("a.yaml", "unknown property `promt`")
            .with_hint("did you mean `prompt`?");
        fault.line = 3;
        fault.column = 3;
        fault.excerpt = Some(Excerpt::of("\t promt: x", 2, 5));
        assert_eq!(
            fault.to_string(),
            "a.yaml:3:3: unknown property `promt`\n      promt: x\n      ^^^^^\n  hint: did you mean `prompt`?"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_fault() {
        let line = format!("{}HERE{}", "é".repeat(5000), "x".repeat(5000));
        let excerpt = Excerpt::of(&line, 5000, 4);
        assert!(excerpt.text.chars().count() <= Excerpt::WIDTH + 2);
        let pointed: String = excerpt
            .text
            .chars()
            .skip(excerpt.caret)
            .take(excerpt.width)
            .collect();
        assert_eq!(pointed, "HERE");
    }

    #[test]
    fn passwords_in_urls_are_blotted_out() {
        let line = "x http://é:s3@cr3t@h/ y@z https://h/@ git://u@h";
        let shown = without_credentials(line);
        assert_eq!(shown, "x http://•••••••••@h/ y@z https://h/@ git://•@h");
        assert_eq!(shown.chars().count(), line.chars().count());
        assert_eq!(Excerpt::of(line, 2, 4).text, shown);
    }

    #[test]
    fn the_rest_is_counted() {
        let mut all = Diagnostics::with_cap(2);
        all.extend((0..5).map(|n| Diagnostic::of_file("f", format!("{n}"))));
        assert_eq!(
            (all.iter().count(), all.not_shown(), all.total()),
            (2, 3, 5)
        );
        assert!(all.to_string().ends_with("and 3 more like these"));
        assert!(all.into_result(()).is_err());
    }
}
