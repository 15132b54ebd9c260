//! Comma-separated tables, strictly by RFC 4180 and with a place for every cell.
//!
//! Written here because the usual readers are lenient where it hurts: a quote
//! that is never closed swallows the rest of the file without a word. An
//! unquoted empty cell is no value; `""` is an empty text.

use std::ops::Range;
use std::sync::Arc;

use crate::schema::source::utf8;
use crate::schema::{Diagnostic, Diagnostics, Format, Source};

use super::formats::TABLE_BYTES_MAX;
use super::intake::Origin;

/// A table, parsed as it is asked for.
#[derive(Debug)]
pub struct Table {
    source: Source,
    header: Vec<String>,
    body: usize,
}

/// One record.
#[derive(Debug)]
pub struct Record<'a> {
    table: &'a Table,
    cells: Vec<Cell>,
    range: Range<usize>,
    line: usize,
}

#[derive(Debug, Clone)]
struct Cell {
    /// `None` for an unquoted empty cell.
    text: Option<String>,
    range: Range<usize>,
}

impl Table {
    /// Read the header.
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        if bytes.len() as u64 > TABLE_BYTES_MAX {
            let message = format!("the file has more than {TABLE_BYTES_MAX} bytes");
            return Err(Diagnostic::of_file(name, message)
                .with_hint("split it, or use JSONL")
                .into());
        }
        let file: Arc<str> = name.into();
        let text = utf8(&file, bytes, 1, true)?;
        if text.trim().is_empty() {
            let hint =
                "a CSV file starts with a header, such as `id,input.text,expected.label,split`";
            return Err(Diagnostic::of_file(name, "the file is empty")
                .with_hint(hint)
                .into());
        }
        let source = Source::new(file, text, Format::Json, 1);
        let (cells, body) = cut(&source, 0)?;
        let mut faults = Diagnostics::new();
        let mut header: Vec<String> = Vec::new();
        for cell in cells {
            let name = cell.text.unwrap_or_default().trim().to_owned();
            if name.is_empty() {
                faults.push(source.at_bytes(cell.range, "", "a column has no name"));
            } else if header.contains(&name) {
                faults.push(source.at_bytes(
                    cell.range,
                    "",
                    format!("two columns are called `{name}`"),
                ));
            }
            header.push(name);
        }
        if source.text()[body..].trim().is_empty() {
            faults.push(source.at_bytes(0..0, "", "the file has a header and no rows"));
        }
        faults.into_result(Self {
            source,
            header,
            body,
        })
    }

    /// The records below the header.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'_>, Diagnostics>> {
        let mut at = self.body;
        // Counted as we go: counting from the start for every record would take quadratic time.
        let mut line = 1 + newlines(&self.source.text()[..at]);
        std::iter::from_fn(move || {
            let text = self.source.text();
            if text[at..].trim().is_empty() {
                return None;
            }
            let start = at;
            let record = cut(&self.source, start);
            let result = match record {
                Err(fault) => {
                    at = text.len();
                    Err(fault)
                }
                Ok((cells, next)) => {
                    at = next;
                    self.fit(cells, start..next, line)
                }
            };
            line += newlines(&text[start..at]);
            Some(result)
        })
    }

    fn fit(
        &self,
        cells: Vec<Cell>,
        range: Range<usize>,
        line: usize,
    ) -> Result<Record<'_>, Diagnostics> {
        if cells.len() != self.header.len() {
            let message = format!(
                "the row has {} cells, the header {}",
                cells.len(),
                self.header.len()
            );
            return Err(self
                .source
                .at_bytes(range, "", message)
                .with_hint("a cell with a comma or a line break in it stands in double quotes")
                .into());
        }
        Ok(Record {
            table: self,
            cells,
            range,
            line,
        })
    }
}

impl Record<'_> {
    /// Column and text of every cell; `None` for one that is empty.
    pub fn cells(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let texts = self.cells.iter().map(|cell| cell.text.as_deref());
        self.table.header.iter().map(String::as_str).zip(texts)
    }
}

impl Origin for Record<'_> {
    fn at(&self, pointer: &str, message: String) -> Diagnostic {
        let name = pointer
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or("");
        let name = name.replace("~1", "/").replace("~0", "~");
        let column = self.table.header.iter().position(|column| *column == name);
        let range = column.map_or_else(
            || self.range.start..self.range.start,
            |column| self.cells[column].range.clone(),
        );
        self.table.source.at_bytes(range, pointer, message)
    }

    fn line(&self) -> usize {
        self.line
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The cells of the record at `start`, and where the next one begins.
fn cut(source: &Source, start: usize) -> Result<(Vec<Cell>, usize), Diagnostics> {
    let text = source.text();
    let bytes = text.as_bytes();
    let mut cells = Vec::new();
    let mut at = start;
    loop {
        let begin = at;
        let cell = if bytes.get(at) == Some(&b'"') {
            let (value, end) = quoted(source, at)?;
            at = end;
            if !matches!(bytes.get(at), None | Some(b',' | b'\n' | b'\r')) {
                return Err(source
                    .at_bytes(at..at + 1, "", "text after the closing quote of a cell")
                    .with_hint("a double quote within a quoted cell is written twice")
                    .into());
            }
            Some(value)
        } else {
            let length = bytes[at..]
                .iter()
                .position(|byte| matches!(byte, b',' | b'\n'));
            at = length.map_or(bytes.len(), |length| at + length);
            let value = text[begin..at].trim_end_matches('\r');
            if let Some(quote) = value.find('"') {
                let quote = begin + quote;
                return Err(source
                    .at_bytes(
                        quote..quote + 1,
                        "",
                        "a double quote in a cell that is not quoted",
                    )
                    .with_hint("put the cell in double quotes and write this one twice")
                    .into());
            }
            (!value.is_empty()).then(|| value.to_owned())
        };
        let end = begin + text[begin..at].trim_end_matches('\r').len();
        cells.push(Cell {
            text: cell,
            range: begin..end,
        });
        if bytes.get(at) == Some(&b'\r') {
            at += 1;
        }
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b'\n') => return Ok((cells, at + 1)),
            _ => return Ok((cells, at)),
        }
    }
}

/// The text of a quoted cell, and where it ends.
fn quoted(source: &Source, start: usize) -> Result<(String, usize), Diagnostics> {
    let text = source.text();
    let mut value = String::new();
    let mut at = start + 1;
    loop {
        let Some(length) = text[at..].find('"') else {
            return Err(source
                .at_bytes(
                    start..start + 1,
                    "",
                    "the quote that opens this cell is never closed",
                )
                .with_hint("the rest of the file was not read")
                .into());
        };
        value.push_str(&text[at..at + length]);
        at += length + 1;
        if !text[at..].starts_with('"') {
            return Ok((value, at));
        }
        value.push('"');
        at += 1;
    }
}

/// A cell as it is written: quoted where it must be.
pub fn cell(text: Option<&str>) -> String {
    match text {
        None => String::new(),
        Some(text)
            if text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.trim() != text =>
        {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<Vec<Option<String>>, String>> {
        let table = Table::parse("t.csv", text.as_bytes().to_vec())
            .unwrap_or_else(|faults| panic!("{faults}"));
        let records: Vec<_> = table
            .records()
            .map(|record| match record {
                Ok(record) => Ok(record
                    .cells()
                    .map(|(_, text)| text.map(str::to_owned))
                    .collect()),
                Err(faults) => {
                    let fault = faults.iter().next().expect("a fault");
                    Err(format!(
                        "{}:{}: {}",
                        fault.line, fault.column, fault.message
                    ))
                }
            })
            .collect();
        records
    }

    #[test]
    fn cells() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read("\u{feff}a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n,\"\"\r\n\r\n"),
            [
                Ok(vec![some("1"), some("x, \"y\"\nz")]),
                Ok(vec![None, some("")])
            ]
        );
    }

    #[test]
    fn faults_have_places() {
        for (text, fault) in [
            ("a,b\n1\n2,3\n", "2:1: the row has 1 cells, the header 2"),
            (
                "a,b\n1,2\nx,\"y\n",
                "3:3: the quote that opens this cell is never closed",
            ),
            (
                "a,b\n1,x\"y\n",
                "2:4: a double quote in a cell that is not quoted",
            ),
            (
                "a,b\n1,\"x\"y\n",
                "2:6: text after the closing quote of a cell",
            ),
        ] {
            let faults: Vec<String> = read(text).into_iter().filter_map(Result::err).collect();
            assert_eq!(faults, [fault], "{text}");
        }
        for (text, word) in [
            ("", "empty"),
            ("a,a\n1,2\n", "two columns"),
            ("a,\n1,2\n", "no name"),
            ("a\n", "no rows"),
        ] {
            let faults = Table::parse("t.csv", text.as_bytes().to_vec()).expect_err(text);
            assert!(faults.to_string().contains(word), "{faults}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["", " x ", "a,b", "\"", "two\nlines", "\r", "plain", "é;"] {
            let table = format!("c,d\n{},1\n", cell(Some(text)));
            assert_eq!(
                read(&table)[0].as_ref().map(|cells| cells[0].as_deref()),
                Ok(Some(text)),
                "{table:?}"
            );
        }
    }
}
