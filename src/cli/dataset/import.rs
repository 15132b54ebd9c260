//! `proofline dataset import`

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::domain::improve::dataset::Split;
use crate::domain::improve::dataset::formats::FileFormat;
use crate::domain::improve::dataset::intake::{Mapping, Move};
use crate::domain::improve::dataset::upsert::Intent;
use crate::flows::FlowError;
use crate::flows::dataset::import::{self, From, Imported, Options};

use super::changes::changes;
use super::{Exit, Page, Terminal, Which};
use crate::cli::table::{plural, table};

/// Bring rows in: new ones are added, those with a known id replaced, nothing else changes
///
/// Rows are `{id, input, expected, split, tags, group, source, meta}`, or the same in camelCase
/// (`exampleId`, `inputJson`, `expectedJson`). CSV has the same names as columns, also
/// `input.FIELD` and `expected.FIELD`; tags are separated by `;`. A row without an id gets one
/// from its content, a row without a split waits for `dataset split`. Any fault in any row
/// leaves everything as it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files of rows; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    signature: Which,
    /// The files' form: jsonl, json or csv; by their names when absent
    #[arg(long)]
    format: Option<FileFormat>,
    /// Fill a place of a row from a member: `input.text=message`, `expected.label=label`, `id=/meta/uid`
    ///
    /// With any of these, members that no place takes are left out, and the page says which.
    #[arg(long = "map", value_name = "TARGET=SOURCE")]
    moves: Vec<Move>,
    /// Leave this member out
    #[arg(long, value_name = "MEMBER")]
    ignore: Vec<String>,
    /// The member that holds the split, when it is not called `split`
    #[arg(long, value_name = "MEMBER")]
    split_by: Option<String>,
    /// What another word for a split stands for: `validation=dev`
    #[arg(long, value_name = "VALUE=SPLIT", value_parser = split_value)]
    split_value: Vec<(String, Split)>,
    /// The split of rows that have none, neither in the file nor in the dataset
    #[arg(long, value_name = "SPLIT")]
    into_split: Option<Split>,
    /// Of several rows of a group for holdout, take the first by id and leave the others out
    #[arg(long)]
    one_per_group: bool,
    /// Leave new rows out that the rules keep from their split, instead of refusing the import
    #[arg(long)]
    leave_out_conflicts: bool,
    /// Remove rows that the files do not hold
    #[arg(long)]
    prune: bool,
    /// What to do about rows in different splits that are almost the same
    #[arg(long, value_name = "WHAT", default_value = "report")]
    near_duplicates: NearDuplicates,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum NearDuplicates {
    /// Name them
    Report,
    /// Refuse the import
    Refuse,
}

fn split_value(text: &str) -> Result<(String, Split), String> {
    let (value, split) = text.split_once('=').ok_or_else(|| {
        format!("`{text}` is not of the form VALUE=SPLIT, such as validation=dev")
    })?;
    Ok((value.to_owned(), split.parse()?))
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.unconfigured()?;
    let signature = args.signature.find(&workspace)?;
    let from = args
        .files
        .into_iter()
        .map(|path| match path.as_os_str() == "-" {
            true => From::Stdin,
            false => From::File(path),
        });
    let from: Vec<From> = from.collect();
    if from
        .iter()
        .filter(|from| matches!(from, From::Stdin))
        .count()
        > 1
    {
        return Err(FlowError::usage("standard input can be read only once"));
    }
    let mut moves = args.moves;
    if let Some(member) = args.split_by {
        moves.push(Move {
            target: "split".parse().map_err(FlowError::bug)?,
            source: member,
        });
    }
    let options = Options {
        format: args.format,
        mapping: Mapping {
            moves,
            ignore: args.ignore.into_iter().collect(),
            split_values: args.split_value.into_iter().collect(),
        },
        intent: Intent {
            into_split: args.into_split,
            prune: args.prune,
            one_per_group: args.one_per_group,
            leave_out_conflicts: args.leave_out_conflicts,
        },
        refuse_near: args.near_duplicates == NearDuplicates::Refuse,
        dry_run: args.dry_run,
    };
    terminal.show(&import::import(&workspace, &signature, &from, &options)?)
}

impl Page for Imported {
    fn page(&self) -> String {
        let would = if self.dry_run { "would be: " } else { "" };
        let mut page = format!("{}: {would}{}\n\n", self.signature, self.sentence());
        let names = Split::ALL
            .into_iter()
            .map(Split::as_str)
            .chain(["unassigned"]);
        let rows: Vec<Vec<String>> = names
            .filter_map(|split| Some((split, self.splits.get(split)?)))
            .map(|(split, tally)| {
                let counts = [tally.added, tally.changed, tally.unchanged, tally.removed];
                [
                    vec![split.to_owned()],
                    counts.map(|count| count.to_string()).to_vec(),
                ]
                .concat()
            })
            .collect();
        page += &table(
            &["split", "added", "changed", "unchanged", "removed"],
            &rows,
        );
        self.notes(&mut page);
        if let Some(difference) = &self.difference {
            page.push('\n');
            page += &changes(difference);
        }
        let _ = writeln!(page, "\n{}", self.provable.sentence());
        if let Some(commit) = &self.commit {
            let _ = writeln!(page, "Commit {commit}");
        }
        let _ = writeln!(page, "Next: {}", self.next());
        page
    }
}

impl Imported {
    /// What a person should know and may want to do something about.
    fn notes(&self, page: &mut String) {
        const SHOWN: usize = 20;
        let mut note = |text: String, list: &[String]| {
            let _ = writeln!(page, "\n{text}");
            for line in list.iter().take(SHOWN) {
                let _ = writeln!(page, "  {line}");
            }
            if list.len() > SHOWN {
                let _ = writeln!(
                    page,
                    "  … and {} more; `--json` names all",
                    list.len() - SHOWN
                );
            }
        };
        if !self.left_out.is_empty() {
            note(
                format!("{} left out:", plural(self.left_out.len() as u64, "row")),
                &self.left_out,
            );
        }
        for (member, rows) in &self.members_left_out {
            note(
                format!(
                    "The member `{member}` was left out of {}; no `--map` names it.",
                    plural(*rows, "row")
                ),
                &[],
            );
        }
        if self.repeated > 0 {
            note(
                format!(
                    "{} without an id stood in the files more than once and were taken once.",
                    plural(self.repeated, "row")
                ),
                &[],
            );
        }
        if self.stayed > 0 {
            note(
                format!(
                    "{} stay in the split they have; a split in the file itself would move them.",
                    plural(self.stayed, "row")
                ),
                &[],
            );
        }
        if self.moved > 0 {
            note(
                format!(
                    "{} changed from one split to another.",
                    plural(self.moved, "row")
                ),
                &[],
            );
        }
        if self.duplicates > 0 {
            note(
                format!(
                    "{} repeat the input and expected output of another row of their split: they count twice.",
                    plural(self.duplicates, "row")
                ),
                &[],
            );
        }
        if self.contradictions_total > 0 {
            let text = format!(
                "{} have the same input and different expected outputs:",
                plural(self.contradictions_total, "pair")
            );
            note(text, &self.contradictions);
        }
        if self.near_pairs > 0 {
            let text = format!(
                "{} of rows in different splits are almost the same:",
                plural(self.near_pairs, "pair")
            );
            note(text, &self.near);
            if self.near_pairs as usize > self.near.len() {
                let _ = writeln!(
                    page,
                    "  … and {} more",
                    self.near_pairs as usize - self.near.len()
                );
            }
        }
        if !self.near_complete {
            let _ = writeln!(
                page,
                "\nThe texts are so alike that not every pair of rows was compared."
            );
        }
    }

    fn next(&self) -> String {
        let has = |split: &str| {
            self.splits
                .get(split)
                .is_some_and(|tally| tally.added + tally.changed + tally.unchanged > 0)
        };
        let id = &self.signature;
        if self.dry_run {
            "the same without `--dry-run`".to_owned()
        } else if has("unassigned") {
            format!(
                "`proofline dataset split --signature {id} --ratios train=0.5,dev=0.2,holdout=0.3`"
            )
        } else if !has("train") || !has("dev") || !has("holdout") {
            let missing: Vec<&str> = ["train", "dev", "holdout"]
                .into_iter()
                .filter(|split| !has(split))
                .collect();
            format!(
                "there are no {} rows yet; import some",
                missing.join(" and no ")
            )
        } else {
            format!(
                "`proofline compile {id}`, or the whole night: `proofline overnight --signature {id}`"
            )
        }
    }
}
