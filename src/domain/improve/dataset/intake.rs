//! What users write becomes rows.
//!
//! A row may use either naming (`exampleId`, `inputJson` or `id`, `input`), may
//! spread a value over members (`input.text`), and members of any other name
//! can be mapped. Every value is checked here, against the signature's schemas
//! too, and every fault points at what the user wrote, not at what we made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::canon;
use crate::id::{ExampleId, GroupId};
use crate::schema::did_you_mean;
use crate::schema::{Diagnostic, Diagnostics, Validator, json};

use super::{Kept, Row, Split};

/// A part of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Its id.
    Id,
    /// Its input.
    Input,
    /// Its expected output.
    Expected,
    /// Its split.
    Split,
    /// Its tags.
    Tags,
    /// Its group.
    Group,
    /// Where it came from.
    Source,
    /// Anything else.
    Meta,
}

/// The names that a part may have, ours first.
const NAMES: [(Part, &[&str]); 8] = [
    (Part::Id, &["id", "exampleId", "example_id"]),
    (Part::Input, &["input", "inputJson", "input_json"]),
    (
        Part::Expected,
        &["expected", "expectedJson", "expected_json"],
    ),
    (Part::Split, &["split"]),
    (Part::Tags, &["tags"]),
    (Part::Group, &["group", "groupId", "group_id"]),
    (Part::Source, &["source"]),
    (Part::Meta, &["meta"]),
];

impl Part {
    /// Our own name for it.
    pub fn as_str(self) -> &'static str {
        let (_, names) = NAMES[self as usize];
        names[0]
    }

    fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(_, names)| names.contains(&name))
            .map(|(part, _)| *part)
    }
}

/// A place in a row: a part, or something within input, expected or meta.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The part.
    pub part: Part,
    /// Members within it, outermost first.
    pub path: Vec<String>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut steps = text.split('.');
        let name = steps.next().unwrap_or("");
        let path: Vec<String> = steps.map(str::to_owned).collect();
        let Some(part) = Part::named(name) else {
            let names: Vec<&str> = NAMES.iter().map(|(_, names)| names[0]).collect();
            let hint = did_you_mean(name, &names)
                .unwrap_or_else(|| format!("there are: {}", names.join(", ")));
            return Err(format!("a row has no `{name}`; {hint}"));
        };
        if path.iter().any(String::is_empty) {
            return Err(format!("`{text}` has an empty step"));
        }
        if !path.is_empty() && !matches!(part, Part::Input | Part::Expected | Part::Meta) {
            return Err(format!(
                "`{name}` has no members; only input, expected and meta have"
            ));
        }
        Ok(Self { part, path })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.part.as_str())?;
        self.path.iter().try_for_each(|step| write!(f, ".{step}"))
    }
}

/// `input.text=message`: where a place in a row is filled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The place.
    pub target: Target,
    /// A member's name, or a JSON pointer when it starts with `/`.
    pub source: String,
}

impl FromStr for Move {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, source) = text.split_once('=').ok_or_else(|| {
            format!("`{text}` is not of the form TARGET=SOURCE, such as input.text=message")
        })?;
        if source.is_empty() {
            return Err(format!("`{text}` names no source"));
        }
        Ok(Self {
            target: target.parse()?,
            source: source.to_owned(),
        })
    }
}

impl Move {
    fn pointer(&self) -> String {
        match self.source.starts_with('/') {
            true => self.source.clone(),
            false => format!("/{}", escaped(&self.source)),
        }
    }
}

/// How rows that are not in our form are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Where places are filled from. With any of these, members that are not named are left out, and said to be.
    pub moves: Vec<Move>,
    /// Members to leave out without a word.
    pub ignore: BTreeSet<String>,
    /// What values of `split` stand for, beside the four names.
    pub split_values: BTreeMap<String, Split>,
}

/// Able to point at what the user wrote.
pub trait Origin {
    /// A fault in the value at a JSON pointer into the raw row.
    fn at(&self, pointer: &str, message: String) -> Diagnostic;

    /// A fault in the name of the member at a JSON pointer into the raw row.
    fn at_key(&self, pointer: &str, message: String) -> Diagnostic {
        self.at(pointer, message)
    }

    /// The line the row starts on, from 1.
    fn line(&self) -> usize;
}

/// A row as its file has it.
#[derive(Debug)]
pub struct Raw {
    /// Its members.
    pub members: Map<String, Value>,
    /// Whether the members are the texts of cells, to be read as the schemas ask.
    pub cells: bool,
}

/// A row that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The row.
    pub row: Kept,
    /// Whether its id was made from its content.
    pub derived: bool,
    /// Which of the files it is from.
    pub file: usize,
    /// The line it starts on.
    pub line: usize,
}

/// Reads raw rows for one signature.
#[derive(Debug)]
pub struct Intake<'a> {
    /// How rows that are not in our form are read.
    pub mapping: &'a Mapping,
    /// Checks inputs.
    pub input: &'a Validator,
    /// Checks expected outputs.
    pub output: &'a Validator,
}

/// Values put into their places, and where each came from.
#[derive(Debug, Default)]
struct Placed {
    values: BTreeMap<Part, Value>,
    /// Pointer within the row, pointer within the raw row.
    origins: Vec<(String, String)>,
    left_out: Vec<String>,
}

impl Intake<'_> {
    /// Read one raw row. Names of members that were left out go into `left_out`.
    pub fn read(
        &self,
        raw: Raw,
        origin: &dyn Origin,
        file: usize,
        left_out: &mut BTreeMap<String, u64>,
    ) -> Result<Incoming, Diagnostics> {
        let mut faults = Diagnostics::new();
        let mut placed = self.place(raw, origin, &mut faults);
        for name in std::mem::take(&mut placed.left_out) {
            *left_out.entry(name).or_default() += 1;
        }
        self.check(&placed, origin, &mut faults);
        let row = self.build(&mut placed, origin, &mut faults);
        let Some((row, derived)) = row.filter(|_| faults.is_empty()) else {
            return Err(faults);
        };
        match Kept::new(&row) {
            Ok(row) => Ok(Incoming {
                row,
                derived,
                file,
                line: origin.line(),
            }),
            Err(error) => Err(origin.at("", error.to_string()).into()),
        }
    }

    /// Put every member where it belongs.
    fn place(&self, raw: Raw, origin: &dyn Origin, faults: &mut Diagnostics) -> Placed {
        let mut placed = Placed::default();
        let mut used: BTreeSet<String> = BTreeSet::new();
        let whole = Value::Object(raw.members);
        for rule in &self.mapping.moves {
            let pointer = rule.pointer();
            let Some(value) = whole.pointer(&pointer) else {
                continue;
            };
            used.insert(first_step(&pointer));
            match self.put(&mut placed, &rule.target, value.clone(), raw.cells) {
                Ok(()) => placed.came(&rule.target, pointer),
                Err(reason) => faults.push(origin.at(&pointer, reason)),
            }
        }
        let Value::Object(members) = whole else {
            return placed;
        };
        for (name, value) in members {
            if used.contains(&name) || self.mapping.ignore.contains(&name) {
                continue;
            }
            let pointer = format!("/{}", escaped(&name));
            match name.parse::<Target>() {
                Ok(target) => match self.put(&mut placed, &target, value, raw.cells) {
                    Ok(()) => placed.came(&target, pointer),
                    Err(reason) => faults.push(origin.at(&pointer, reason)),
                },
                Err(_) if !self.mapping.moves.is_empty() => placed.left_out.push(name),
                Err(_) => {
                    let names: Vec<&str> = NAMES
                        .iter()
                        .flat_map(|(_, names)| *names)
                        .copied()
                        .collect();
                    let mut fault = origin.at_key(&pointer, format!("a row has no `{name}`"));
                    fault.hint = did_you_mean(&name, &names)
                        .or_else(|| Some(format!("use it with `--map TARGET={name}`, or leave it out with `--ignore {name}`")));
                    faults.push(fault);
                }
            }
        }
        placed
    }

    /// Put one value where it belongs.
    fn put(
        &self,
        placed: &mut Placed,
        target: &Target,
        value: Value,
        cells: bool,
    ) -> Result<(), String> {
        let optional = !matches!(target.part, Part::Input | Part::Expected);
        if value.is_null() && (optional || cells) {
            return Ok(());
        }
        let value = self.cell(target, value, cells)?;
        let twice = || format!("the row has its `{target}` twice");
        let Some((last, folders)) = target.path.split_last() else {
            return match placed.values.insert(target.part, value) {
                None => Ok(()),
                Some(_) => Err(twice()),
            };
        };
        let empty = || Value::Object(Map::new());
        let mut at = placed.values.entry(target.part).or_insert_with(empty);
        for step in folders {
            let Value::Object(members) = at else {
                return Err(twice());
            };
            at = members.entry(step.clone()).or_insert_with(empty);
        }
        match at {
            Value::Object(members) if !members.contains_key(last) => {
                members.insert(last.clone(), value);
                Ok(())
            }
            _ => Err(twice()),
        }
    }

    /// The value of a cell: a text where the schema asks for one, JSON elsewhere.
    fn cell(&self, target: &Target, value: Value, cells: bool) -> Result<Value, String> {
        let Value::String(text) = &value else {
            return Ok(value);
        };
        if !cells {
            return Ok(value);
        }
        let schema = match target.part {
            Part::Input => self.input.schema(),
            Part::Expected => self.output.schema(),
            Part::Meta if target.path.is_empty() => &Value::Null,
            Part::Tags => {
                let tags = text.split(';').map(str::trim).filter(|tag| !tag.is_empty());
                return Ok(tags.map(Value::from).collect());
            }
            _ => return Ok(value),
        };
        match wants_text(schema, &target.path) {
            Some(true) => Ok(value),
            Some(false) => as_json(text),
            None => Ok(as_json(text).unwrap_or(value)),
        }
    }

    /// Hold input and expected output against their schemas.
    fn check(&self, placed: &Placed, origin: &dyn Origin, faults: &mut Diagnostics) {
        for (part, validator) in [(Part::Input, self.input), (Part::Expected, self.output)] {
            let Some(value) = placed.values.get(&part) else {
                let name = part.as_str();
                let hint = format!(
                    "a row needs `{name}`; another member can be mapped: `--map {name}.FIELD=MEMBER`"
                );
                faults.push(
                    origin
                        .at("", format!("the row has no {name}"))
                        .with_hint(hint),
                );
                continue;
            };
            for fault in validator.errors(value) {
                let pointer = placed.origin_of(&format!("/{}{}", part.as_str(), fault.pointer));
                let mut diagnostic = match fault.at_key {
                    true => origin.at_key(&pointer, fault.message),
                    false => origin.at(&pointer, fault.message),
                };
                diagnostic.schema_path = Some(format!("{}#{}", part.as_str(), fault.schema_path));
                diagnostic.hint = fault.hint;
                faults.push(diagnostic);
            }
            if let Err(error) = canon::to_bytes(value) {
                faults.push(origin.at(
                    &placed.origin_of(&format!("/{}", part.as_str())),
                    error.to_string(),
                ));
            }
        }
    }

    /// The row, and whether its id was made; `None` only with a fault.
    fn build(
        &self,
        placed: &mut Placed,
        origin: &dyn Origin,
        faults: &mut Diagnostics,
    ) -> Option<(Row, bool)> {
        let mut fault = |placed: &Placed, part: Part, message: String| {
            faults.push(origin.at(&placed.origin_of(&format!("/{}", part.as_str())), message));
        };
        let id = placed.text(Part::Id).and_then(|text| match text {
            Some(text) => text
                .parse::<ExampleId>()
                .map(Some)
                .map_err(|error| error.to_string()),
            None => Ok(None),
        });
        let id = id.unwrap_or_else(|message| {
            fault(placed, Part::Id, message);
            None
        });
        let group = placed.text(Part::Group).and_then(|text| match text {
            Some(text) => text
                .parse::<GroupId>()
                .map(Some)
                .map_err(|error| error.to_string()),
            None => Ok(None),
        });
        let group = group.unwrap_or_else(|message| {
            fault(placed, Part::Group, message);
            None
        });
        let split = placed.text(Part::Split).and_then(|text| match text {
            Some(text) => self.split(&text).map(Some),
            None => Ok(None),
        });
        let split = split.unwrap_or_else(|message| {
            fault(placed, Part::Split, message);
            None
        });
        let source = placed.text(Part::Source).unwrap_or_else(|message| {
            fault(placed, Part::Source, message);
            None
        });
        let tags = placed.tags().unwrap_or_else(|message| {
            fault(placed, Part::Tags, message);
            Vec::new()
        });
        let meta = match placed.values.remove(&Part::Meta) {
            None => Map::new(),
            Some(Value::Object(members)) => members,
            Some(other) => {
                fault(
                    placed,
                    Part::Meta,
                    format!("`meta` is an object, not {other}"),
                );
                Map::new()
            }
        };
        let (input, expected) = (
            placed.values.remove(&Part::Input)?,
            placed.values.remove(&Part::Expected)?,
        );
        let derived = id.is_none();
        let id = match id {
            Some(id) => id,
            None => derived_id(&input, &expected)?,
        };
        let row = Row {
            id,
            input,
            expected,
            split,
            tags,
            group,
            source,
            meta,
        };
        Some((row, derived))
    }

    fn split(&self, text: &str) -> Result<Split, String> {
        match self.mapping.split_values.get(text) {
            Some(split) => Ok(*split),
            None => text.parse().map_err(|reason| {
                format!("{reason}; if it stands for one: `--split-value {text}=SPLIT`")
            }),
        }
    }
}

impl Placed {
    /// Remember where the value of a place came from.
    fn came(&mut self, target: &Target, from: String) {
        let mut pointer = format!("/{}", target.part.as_str());
        for step in &target.path {
            pointer.push('/');
            pointer.push_str(&escaped(step));
        }
        self.origins.push((pointer, from));
    }

    /// The pointer into the raw row for one into the row.
    fn origin_of(&self, pointer: &str) -> String {
        let within = |place: &str| {
            pointer == place
                || (pointer.starts_with(place) && pointer[place.len()..].starts_with('/'))
        };
        self.origins
            .iter()
            .filter(|(place, _)| within(place))
            .max_by_key(|(place, _)| place.len())
            .map(|(place, from)| format!("{from}{}", &pointer[place.len()..]))
            .unwrap_or_default()
    }

    fn text(&self, part: Part) -> Result<Option<String>, String> {
        match self.values.get(&part) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() && part != Part::Id => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            // Databases number their rows.
            Some(Value::Number(number))
                if matches!(part, Part::Id | Part::Group) && !number.is_f64() =>
            {
                Ok(Some(number.to_string()))
            }
            Some(other) => Err(format!("`{}` is a text, not {other}", part.as_str())),
        }
    }

    fn tags(&self) -> Result<Vec<String>, String> {
        let Some(value) = self.values.get(&Part::Tags) else {
            return Ok(Vec::new());
        };
        let wrong = || "`tags` is a list of texts of 1 to 100 characters".to_owned();
        let mut tags: Vec<String> = Vec::new();
        for item in value.as_array().ok_or_else(wrong)? {
            let tag = item
                .as_str()
                .filter(|tag| (1..=100).contains(&tag.chars().count()))
                .ok_or_else(wrong)?;
            if !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
        Ok(tags)
    }
}

/// `r-` and 12 hex digits of the content's digest.
fn derived_id(input: &Value, expected: &Value) -> Option<ExampleId> {
    let digest = canon::digest(&(input, expected)).ok()?;
    Some(
        format!("r-{}", digest.short())
            .parse()
            .expect("because hex digits make an id"),
    )
}

/// Whether a schema asks for a text at a path: yes, no, or it doesn't say.
pub fn wants_text(schema: &Value, path: &[String]) -> Option<bool> {
    let mut at = schema;
    for step in path {
        at = at.get("properties")?.get(step)?;
    }
    let is_text = |kind: &Value| kind == "string";
    match at.get("type") {
        Some(Value::Array(kinds)) => Some(kinds.iter().any(is_text)),
        Some(kind) => Some(is_text(kind)),
        None => match (at.get("enum"), at.get("const")) {
            (Some(Value::Array(values)), _) => Some(values.iter().all(Value::is_string)),
            (_, Some(value)) => Some(value.is_string()),
            _ => None,
        },
    }
}

fn as_json(text: &str) -> Result<Value, String> {
    json::parse("cell", text)
        .map(|document| document.value)
        .map_err(|faults| {
            let first = faults
                .iter()
                .next()
                .map_or("", |fault| fault.message.as_str());
            format!("the cell is not JSON: {first}")
        })
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn first_step(pointer: &str) -> String {
    let step = pointer[1..].split('/').next().unwrap_or("");
    step.replace("~1", "/").replace("~0", "~")
}
