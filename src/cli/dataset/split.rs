//! `proofline dataset split`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Exit, Page, Terminal, Which};
use crate::cli::table::{plural, shortened, table};
use crate::domain::improve::dataset::Split;
use crate::domain::improve::dataset::assign::{Ratios, Reason, Request};
use crate::flows::FlowError;
use crate::flows::dataset::split::{self, Divided};

/// Give rows their split: seeded, stratified, whole groups at a time
///
/// Only rows without a split are assigned; holdout takes one row per group, and no row ever
/// changes between holdout and the other splits. The same rows and seed give the same result.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    signature: Which,
    /// What each split gets of the groups: `train=0.5,dev=0.2,holdout=0.3`
    #[arg(long)]
    ratios: Ratios,
    /// Where the order starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// JSON pointer into the expected output: rows with the same value there are spread alike
    #[arg(
        long,
        value_name = "POINTER",
        default_value = "",
        hide_default_value = true
    )]
    stratify_by: String,
    /// Draw rows of train, dev and exercise again, among those three
    #[arg(long)]
    reassign: bool,
    /// Show what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    if !args.stratify_by.is_empty() && !args.stratify_by.starts_with('/') {
        let pointer = &args.stratify_by;
        return Err(
            FlowError::usage(format!("`{pointer}` is not a JSON pointer"))
                .hint(format!("write `/{pointer}`")),
        );
    }
    let workspace = terminal.unconfigured()?;
    let signature = args.signature.find(&workspace)?;
    let request = Request {
        ratios: args.ratios,
        seed: args.seed,
        stratify_by: args.stratify_by,
        reassign: args.reassign,
    };
    terminal.show(&split::divide(
        &workspace,
        &signature,
        &request,
        args.dry_run,
    )?)
}

impl Page for Divided {
    fn page(&self) -> String {
        let mut page = format!("{}: ", self.signature);
        if self.moves.is_empty() {
            page.push_str("no row needs a split; nothing to change\n");
        } else {
            let verb = if self.dry_run { "would get" } else { "get" };
            let total: u64 = self.moves.iter().map(|moves| moves.rows).sum();
            let _ = writeln!(
                page,
                "{} {verb} their split (seed {})",
                plural(total, "row"),
                self.seed
            );
        }
        for moves in &self.moves {
            let _ = writeln!(page, "  {} → {}: {}", moves.from, moves.to, moves.rows);
        }
        page.push('\n');
        page += &self.table();
        let mut reasons: BTreeMap<Reason, Vec<&str>> = BTreeMap::new();
        for row in &self.kept_out {
            reasons.entry(row.reason).or_default().push(row.id.as_str());
        }
        for (reason, ids) in reasons {
            let shown = ids.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            let more = if ids.len() > 10 { ", …" } else { "" };
            let _ = writeln!(
                page,
                "\n{} without a split: {reason}\n  {shown}{more}",
                plural(ids.len() as u64, "row")
            );
        }
        let _ = writeln!(page, "\n{}", self.provable.sentence());
        if let Some(commit) = &self.commit {
            let _ = writeln!(page, "Commit {commit}");
        }
        page
    }
}

impl Divided {
    /// Rows per label and split.
    fn table(&self) -> String {
        let splits: Vec<&str> = Split::ALL
            .into_iter()
            .map(Split::as_str)
            .chain(["unassigned"])
            .filter(|split| self.rows.contains_key(*split))
            .collect();
        let line = |name: &str, counts: &BTreeMap<String, u64>| {
            let cells = splits
                .iter()
                .map(|split| counts.get(*split).copied().unwrap_or(0).to_string());
            [shortened(name)]
                .into_iter()
                .chain(cells)
                .collect::<Vec<String>>()
        };
        let mut rows: Vec<Vec<String>> = self
            .labels
            .iter()
            .map(|(label, counts)| line(label, counts))
            .collect();
        rows.push(line("all", &self.rows));
        let head: Vec<&str> = ["label"]
            .into_iter()
            .chain(splits.iter().copied())
            .collect();
        table(&head, &rows)
    }
}
