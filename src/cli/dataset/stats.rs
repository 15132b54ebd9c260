//! `proofline dataset stats`

use std::fmt::Write as _;

use super::{Exit, Page, Terminal, Which};
use crate::cli::table::{plural, shortened, table};
use crate::flows::dataset::stats::{self, Stats};

/// Count what is in a dataset, and say what it could prove
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    signature: Which,
    /// JSON pointer into the expected output that counts as a row's label; all of it when absent
    #[arg(
        long,
        value_name = "POINTER",
        default_value = "",
        hide_default_value = true
    )]
    by: String,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.unconfigured()?;
    let signature = args.signature.find(&workspace)?;
    terminal.show(&stats::stats(&workspace, &signature, &args.by)?)
}

impl Page for Stats {
    fn page(&self) -> String {
        let mut page = format!("{}\n\n", self.signature);
        let splits: Vec<Vec<String>> = self
            .splits
            .iter()
            .map(|split| {
                vec![
                    split.split.clone(),
                    split.rows.to_string(),
                    split.groups.to_string(),
                ]
            })
            .collect();
        page += &table(&["split", "rows", "groups"], &splits);
        page.push('\n');
        page += &self.labels();
        if !self.tags.is_empty() {
            let tags: Vec<String> = self
                .tags
                .iter()
                .map(|(tag, rows)| format!("{tag} {rows}"))
                .collect();
            let _ = writeln!(page, "\nTags: {}", tags.join(", "));
        }
        let _ = writeln!(
            page,
            "\n{} within their split; {} of one input with different outputs; {} almost the same in different splits{}",
            plural(self.duplicates, "duplicate"),
            plural(self.contradictions, "pair"),
            plural(self.near_pairs, "pair"),
            if self.near_complete {
                ""
            } else {
                " (not every pair was compared)"
            },
        );
        for line in &self.near {
            let _ = writeln!(page, "  {line}");
        }
        let _ = writeln!(page, "\n{}", self.provable.sentence());
        let _ = writeln!(page, "Data gate: {}", self.gate.verdict);
        page
    }
}

impl Stats {
    fn labels(&self) -> String {
        let splits: Vec<&str> = self
            .splits
            .iter()
            .map(|split| split.split.as_str())
            .collect();
        let rows: Vec<Vec<String>> = self
            .labels
            .iter()
            .map(|label| {
                let counts = splits
                    .iter()
                    .map(|split| label.splits.get(*split).copied().unwrap_or(0).to_string());
                [shortened(&label.label), label.rows.to_string()]
                    .into_iter()
                    .chain(counts)
                    .collect()
            })
            .collect();
        let head: Vec<&str> = ["label", "rows"]
            .into_iter()
            .chain(splits.iter().copied())
            .collect();
        let mut page = table(&head, &rows);
        if self.labels_total > self.labels.len() {
            let _ = writeln!(
                page,
                "… and {} more labels",
                self.labels_total - self.labels.len()
            );
        }
        page
    }
}
