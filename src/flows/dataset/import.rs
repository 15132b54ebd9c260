//! Import: rows from files become a signature's dataset, all of them or none.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::improve::dataset::Split;
use crate::domain::improve::dataset::difference::{self, Difference};
use crate::domain::improve::dataset::formats::{self, File, FileFormat, Read};
use crate::domain::improve::dataset::intake::{Intake, Mapping};
use crate::domain::improve::dataset::upsert::{self, Intent, LeftOut, Planned, Refusal, Tally};
use crate::domain::improve::dataset::{near, rules};
use crate::domain::improve::signature::Signature;
use crate::host::files;
use crate::id::SignatureId;
use crate::records::datasets::upkeep;
use crate::schema::{Diagnostic, Diagnostics, Validator};
use crate::store::{Decision, Transaction};

use crate::flows::{FlowError, Kind, Workspace};

use super::provable::{Provable, provable};
use super::{pair_in_words, split_name};

/// Where rows come from.
pub enum From {
    /// A file of the user's.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// Bytes that are here already, and what they are called.
    Bytes(&'static str, &'static [u8]),
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl From {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "<stdin>".to_owned(),
            Self::Bytes(name, _) => (*name).to_owned(),
        }
    }

    fn open(&self) -> Result<Box<dyn BufRead>, FlowError> {
        Ok(match self {
            Self::File(path) => Box::new(files::open(path).map_err(FlowError::input)?),
            Self::Stdin => Box::new(std::io::stdin().lock()),
            Self::Bytes(_, bytes) => Box::new(*bytes),
        })
    }
}

/// How an import is meant.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The form of every file; what its name promises when absent, JSONL on standard input.
    pub format: Option<FileFormat>,
    /// How rows that are not in our form are read.
    pub mapping: Mapping,
    /// What is done about splits, groups and rows that are gone.
    pub intent: Intent,
    /// Refuse rows that are almost the same in different splits, instead of reporting them.
    pub refuse_near: bool,
    /// Say what would change, and change nothing.
    pub dry_run: bool,
}

/// What an import came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Imported {
    /// The signature.
    pub signature: SignatureId,
    /// Whether nothing was written, only said.
    pub dry_run: bool,
    /// How rows of each split changed; rows that have none yet are under `unassigned`.
    pub splits: BTreeMap<String, Tallied>,
    /// New rows that were not taken, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Members of rows that were left out, and in how many rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members_left_out: BTreeMap<String, u64>,
    /// Rows in different splits that are almost the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
    /// How many such pairs there are in all.
    pub near_pairs: u64,
    /// Whether every pair was looked at.
    pub near_complete: bool,
    /// Rows that were in the files more than once; each is taken once.
    pub repeated: u64,
    /// Rows that stay in the split they have, although the import names another for rows without one.
    pub stayed: u64,
    /// Rows that went from one open split to another.
    pub moved: u64,
    /// Rows whose input and expected output stand in the same split under another id.
    pub duplicates: u64,
    /// Inputs that have two different expected outputs, as two ids each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contradictions: Vec<String>,
    /// How many of those there are in all.
    pub contradictions_total: u64,
    /// What the holdout can prove with these rows.
    pub provable: Provable,
    /// The datasets commit that holds the rows; absent when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What would change, for a dry run.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// How rows of one split changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallied {
    /// New rows.
    pub added: u64,
    /// Rows that differ from before.
    pub changed: u64,
    /// Rows as they were.
    pub unchanged: u64,
    /// Rows that are gone.
    pub removed: u64,
}

impl std::convert::From<Tally> for Tallied {
    fn from(tally: Tally) -> Self {
        Self {
            added: tally.added,
            changed: tally.changed,
            unchanged: tally.unchanged,
            removed: tally.removed,
        }
    }
}

impl Imported {
    /// Whether any row changed.
    pub fn changed(&self) -> bool {
        self.splits
            .values()
            .any(|tally| tally.added + tally.changed + tally.removed > 0)
    }

    /// Rows there are now.
    pub fn rows(&self) -> u64 {
        self.splits
            .values()
            .map(|tally| tally.added + tally.changed + tally.unchanged)
            .sum()
    }

    /// The import in a sentence.
    pub fn sentence(&self) -> String {
        if !self.changed() {
            return format!(
                "nothing to change: {} rows are there as they were",
                self.rows()
            );
        }
        let sum = |of: fn(&Tallied) -> u64| self.splits.values().map(of).sum::<u64>();
        format!(
            "{} added, {} changed, {} removed; {} rows now",
            sum(|tally| tally.added),
            sum(|tally| tally.changed),
            sum(|tally| tally.removed),
            self.rows()
        )
    }
}

/// Read, check, decide, commit. Any fault anywhere leaves everything as it was.
pub fn import(
    workspace: &Workspace,
    signature: &Signature,
    from: &[From],
    options: &Options,
) -> Result<Imported, FlowError> {
    let mut read = read(signature, from, options)?;
    let left_out = std::mem::take(&mut read.left_out);
    let names: Vec<String> = from.iter().map(From::name).collect();
    let transaction = Transaction::new(workspace.refs.datasets.clone(), workspace.author()?);
    let mut imported = None;
    let mut incoming = Some(read.rows);
    let streamed = from.iter().any(|from| matches!(from, From::Stdin));
    let outcome =
        workspace
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
                // Deciding again is rare: reading the files again costs no memory. Only a stream can't be.
                let rows = match incoming.take() {
                    Some(rows) if streamed => incoming.insert(rows).clone(),
                    Some(rows) => rows,
                    None => self::read(signature, from, options)?.rows,
                };
                let before = upkeep::load(&workspace.refs, snapshot, &signature.id)?;
                let planned = upsert::plan(&before.rows, &before.register, rows, options.intent)
                    .map_err(|refusals| refuse(&names, refusals))?;
                let mut done = describe(workspace, signature, options, &names, &planned)?;
                done.members_left_out.clone_from(&left_out);
                if options.refuse_near && done.near_pairs > 0 {
                    return Err(refuse_near(&done));
                }
                let changed = done.changed();
                if options.dry_run {
                    done.difference = Some(difference::between(&before.rows, &planned.rows, false));
                }
                let decision = if changed && !options.dry_run {
                    Decision::Commit {
                        edits: upkeep::edits(snapshot, &signature.id, &before, &planned.rows)?,
                        message: message(signature, &done, &names),
                    }
                } else {
                    Decision::Nothing
                };
                imported = Some(done);
                Ok(decision)
            })?;
    let mut imported =
        imported.ok_or_else(|| FlowError::bug("an import ended without a decision"))?;
    imported.commit = outcome
        .committed()
        .map(|committed| committed.commit.to_string());
    Ok(imported)
}

fn message(signature: &Signature, done: &Imported, names: &[String]) -> String {
    let mut text = format!("dataset {}: {}\n\n", signature.id.name(), done.sentence());
    for (split, tally) in &done.splits {
        text.push_str(&format!(
            "{split}: {} added, {} changed, {} removed, {} as they were\n",
            tally.added, tally.changed, tally.removed, tally.unchanged
        ));
    }
    // Names only: where on somebody's disk a file was is nobody's business.
    for name in names {
        let name = Path::new(name)
            .file_name()
            .map_or(name.as_str(), |name| name.to_str().unwrap_or_default());
        text.push_str(&format!("\nFrom: {name}"));
    }
    text.push_str(&format!("\nSignature: {}\n", signature.id));
    text
}

/// Rows in the project's own `datasets/` folder, if it has some for the signature:
/// `datasets/<signature>.jsonl` (or `.json`, `.csv`), or any such file below `datasets/<signature>/`.
pub fn from_project(
    workspace: &Workspace,
    signature: &Signature,
) -> Result<Option<Imported>, FlowError> {
    let folder = workspace.root.join("datasets");
    let mut found = Vec::new();
    for name in [signature.id.path(), signature.id.name()] {
        for end in ["jsonl", "json", "csv"] {
            let file = folder.join(format!("{name}.{end}"));
            if file.is_file() {
                found.push(file);
            }
        }
        found.extend(files_below(&folder.join(name)));
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Ok(None);
    }
    let from: Vec<From> = found.into_iter().map(From::File).collect();
    import(workspace, signature, &from, &Options::default()).map(Some)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(folder)
        .max_depth(1)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| {
            path.to_str()
                .is_some_and(|path| FileFormat::of_name(path).is_some())
        })
        .collect()
}

fn read(signature: &Signature, from: &[From], options: &Options) -> Result<Read, FlowError> {
    let compile = |schema, what: &str| {
        Validator::new(schema).map_err(|error| {
            FlowError::input(format!("the {what} schema of {}: {error}", signature.id))
        })
    };
    let (input, output) = (
        compile(&signature.input, "input")?,
        compile(&signature.output, "output")?,
    );
    let intake = Intake {
        mapping: &options.mapping,
        input: &input,
        output: &output,
    };
    let mut read = Read::default();
    for (index, from) in from.iter().enumerate() {
        let name = from.name();
        let format = match (options.format, from) {
            (Some(format), _) => format,
            (None, From::Stdin) => FileFormat::Jsonl,
            (None, _) => FileFormat::of_name(&name).ok_or_else(|| {
                FlowError::usage(format!("the name `{name}` does not say what form it has"))
                    .hint("say it: `--format jsonl`, `csv` or `json`")
            })?,
        };
        let file = File {
            index,
            name: &name,
            format,
        };
        formats::read(file, from.open()?, &intake, &mut read)
            .map_err(|error| FlowError::input(format!("cannot read {name}: {error}")))?;
    }
    if !read.faults.is_empty() {
        return Err(std::mem::take(&mut read.faults).into());
    }
    Ok(read)
}

fn refuse(names: &[String], refusals: Vec<Refusal>) -> FlowError {
    let count = refusals.len();
    let mut faults = Diagnostics::new();
    for refusal in refusals {
        let mut fault = match refusal.place {
            Some((file, line)) => {
                let mut fault = Diagnostic::of_file(names[file].clone(), refusal.message);
                fault.line = line;
                fault
            }
            None => Diagnostic::of_file("the dataset", refusal.message),
        };
        fault.hint = Some(refusal.hint);
        faults.push(fault);
    }
    let mut error = FlowError::from(faults);
    let what = match count {
        1 => "1 row breaks".to_owned(),
        _ => format!("{count} rows break"),
    };
    error.message = format!("{what} the rules of a dataset; nothing was changed");
    error
}

fn refuse_near(done: &Imported) -> FlowError {
    let message = format!(
        "{} pairs of rows in different splits are almost the same; nothing was changed",
        done.near_pairs
    );
    let mut error = FlowError::new(Kind::Refused, message);
    error.hints.extend(done.near.iter().cloned());
    error.hint("give each pair one `group` and one split, or take one row out; `--near-duplicates report` lets them pass")
}

/// The most pairs of a kind that are named.
const PAIRS_SHOWN: usize = 20;

fn describe(
    workspace: &Workspace,
    signature: &Signature,
    options: &Options,
    names: &[String],
    planned: &Planned,
) -> Result<Imported, FlowError> {
    let rows = &planned.rows;
    let touched = |row: usize| planned.touched[row];
    let any = planned.touched.contains(&true);
    // What did not change was looked at when it came.
    let near = if any {
        near::near(rows, touched)
    } else {
        near::Near {
            complete: true,
            ..near::Near::default()
        }
    };
    let mut contradictions = if any {
        rules::contradictions(rows)
    } else {
        Vec::new()
    };
    contradictions.retain(|(left, right)| touched(*left) || touched(*right));
    let holdout = rows
        .iter()
        .filter(|row| row.split == Some(Split::Holdout))
        .count() as u64;
    Ok(Imported {
        signature: signature.id.clone(),
        dry_run: options.dry_run,
        splits: planned
            .tallies
            .iter()
            .map(|(split, tally)| (split_name(*split).to_owned(), (*tally).into()))
            .collect(),
        left_out: planned
            .left_out
            .iter()
            .map(|row| left_out(names, row))
            .collect(),
        members_left_out: BTreeMap::new(),
        near_pairs: near.pairs.len() as u64,
        near_complete: near.complete,
        near: near
            .pairs
            .iter()
            .take(PAIRS_SHOWN)
            .map(|pair| pair_in_words(rows, pair))
            .collect(),
        repeated: planned.repeated,
        stayed: planned.stayed,
        moved: planned.moved,
        duplicates: rules::duplicates(rows),
        contradictions_total: contradictions.len() as u64,
        contradictions: contradictions
            .iter()
            .take(PAIRS_SHOWN)
            .map(|(left, right)| format!("{} and {}", rows[*left].id, rows[*right].id))
            .collect(),
        provable: provable(workspace, holdout)?,
        commit: None,
        difference: None,
    })
}

fn left_out(names: &[String], row: &LeftOut) -> String {
    format!("{}:{}: {}", names[row.file], row.line, row.reason)
}
