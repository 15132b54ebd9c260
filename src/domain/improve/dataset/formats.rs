//! The three forms of a file of rows: JSONL, read as a stream; JSON, one array;
//! CSV, with a header. One bad row does not hide the next.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::schema::json::{self, EmptyFile};
use crate::schema::{Diagnostic, Diagnostics, Located, Source};

use super::intake::{Incoming, Intake, Origin, Raw};
use super::table;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects.
    Json,
    /// Comma-separated cells below a header.
    Csv,
}

impl FileFormat {
    /// The form that a file's name promises.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, end) = name.rsplit_once('.')?;
        match end.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
        })
    }
}

impl FromStr for FileFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Jsonl, Self::Json, Self::Csv]
            .into_iter()
            .find(|format| format.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not a format; expected jsonl, json or csv"))
    }
}

/// What reading files came to.
#[derive(Debug, Default)]
pub struct Read {
    /// The rows, in the order of the files.
    pub rows: Vec<Incoming>,
    /// Every fault, each in its place.
    pub faults: Diagnostics,
    /// Members that were left out, and in how many rows.
    pub left_out: BTreeMap<String, u64>,
}

/// A file to read.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its number among the files.
    pub index: usize,
    /// The name the user knows it by.
    pub name: &'a str,
    /// Its form.
    pub format: FileFormat,
}

/// The largest CSV file, in bytes: it is held in memory while it is read.
pub const TABLE_BYTES_MAX: u64 = 1 << 30;

/// Read one file's rows. The error is the reader's own; what is wrong with rows is in `into`.
pub fn read<R: BufRead>(
    file: File<'_>,
    reader: R,
    intake: &Intake<'_>,
    into: &mut Read,
) -> io::Result<()> {
    match file.format {
        FileFormat::Jsonl => read_lines(file, reader, intake, into),
        FileFormat::Json => {
            let bytes = whole(reader, json::Limits::DOCUMENT.bytes_max as u64)?;
            read_array(file, bytes, intake, into);
            Ok(())
        }
        FileFormat::Csv => {
            let bytes = whole(reader, TABLE_BYTES_MAX)?;
            read_table(file, bytes, intake, into);
            Ok(())
        }
    }
}

fn whole<R: BufRead>(reader: R, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that whoever parses it sees that it is too large.
    io::Read::read_to_end(&mut io::Read::take(reader, most + 1), &mut bytes)?;
    Ok(bytes)
}

fn read_lines<R: BufRead>(
    file: File<'_>,
    reader: R,
    intake: &Intake<'_>,
    into: &mut Read,
) -> io::Result<()> {
    let mut lines = json::lines(file.name, reader, EmptyFile::Refuse);
    for line in lines.by_ref() {
        match line {
            Err(faults) => into.faults.append(faults),
            Ok(Located {
                value: Value::Object(members),
                source,
            }) => {
                let place = Place {
                    source: &source,
                    prefix: String::new(),
                };
                take(
                    file,
                    Raw {
                        members,
                        cells: false,
                    },
                    &place,
                    intake,
                    into,
                );
            }
            Ok(other) => into.faults.push(not_an_object(&other.source, "")),
        }
    }
    lines.take_error().map_or(Ok(()), Err)
}

fn read_array(file: File<'_>, bytes: Vec<u8>, intake: &Intake<'_>, into: &mut Read) {
    let document = match json::parse(file.name, bytes) {
        Ok(document) => document,
        Err(faults) => return into.faults.append(faults),
    };
    let source = &document.source;
    let Value::Array(items) = document.value else {
        let hint = "for one object a line, use `--format jsonl`";
        return into.faults.push(
            source
                .at("", "a JSON file of rows is one array of objects")
                .with_hint(hint),
        );
    };
    if items.is_empty() {
        into.faults.push(source.at("", "there are no rows in it"));
    }
    for (index, item) in items.into_iter().enumerate() {
        let prefix = format!("/{index}");
        match item {
            Value::Object(members) => {
                let place = Place { source, prefix };
                take(
                    file,
                    Raw {
                        members,
                        cells: false,
                    },
                    &place,
                    intake,
                    into,
                );
            }
            _ => into.faults.push(not_an_object(source, &prefix)),
        }
    }
}

fn read_table(file: File<'_>, bytes: Vec<u8>, intake: &Intake<'_>, into: &mut Read) {
    let table = match table::Table::parse(file.name, bytes) {
        Ok(table) => table,
        Err(faults) => return into.faults.append(faults),
    };
    for record in table.records() {
        match record {
            Err(faults) => into.faults.append(faults),
            Ok(record) => {
                let mut members = Map::new();
                for (name, cell) in record.cells() {
                    members.insert(name.to_owned(), cell.map_or(Value::Null, Value::from));
                }
                take(
                    file,
                    Raw {
                        members,
                        cells: true,
                    },
                    &record,
                    intake,
                    into,
                );
            }
        }
    }
}

fn take(file: File<'_>, raw: Raw, origin: &dyn Origin, intake: &Intake<'_>, into: &mut Read) {
    match intake.read(raw, origin, file.index, &mut into.left_out) {
        Ok(row) => into.rows.push(row),
        Err(faults) => into.faults.append(faults),
    }
}

fn not_an_object(source: &Source, pointer: &str) -> Diagnostic {
    source
        .at(pointer, "a row is a JSON object")
        .with_hint("such as {\"id\": \"a-1\", \"input\": …, \"expected\": …, \"split\": \"train\"}")
}

/// A row within a JSON text.
struct Place<'a> {
    source: &'a Source,
    prefix: String,
}

impl Origin for Place<'_> {
    fn at(&self, pointer: &str, message: String) -> Diagnostic {
        self.source
            .at(&format!("{}{pointer}", self.prefix), message)
    }

    fn at_key(&self, pointer: &str, message: String) -> Diagnostic {
        self.source
            .at_key(&format!("{}{pointer}", self.prefix), message)
    }

    fn line(&self) -> usize {
        if self.prefix.is_empty() {
            return self.source.first_line();
        }
        self.source.position(&self.prefix).0
    }
}
