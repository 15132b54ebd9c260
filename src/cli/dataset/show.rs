//! `proofline dataset show`

use std::fmt::Write as _;

use super::{Exit, Page, Terminal, Which};
use crate::cli::table::{plural, shortened, table};
use crate::domain::improve::dataset::Split;
use crate::flows::dataset::show::{self, Options, Shown, ShownRow};
use crate::flows::dataset::split_name;
use crate::id::ExampleId;

/// Show one row, or the first rows of a split
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    signature: Which,
    /// The row's id; the first rows when absent
    id: Option<ExampleId>,
    /// Only rows of this split
    #[arg(long, conflicts_with = "id")]
    split: Option<Split>,
    /// At most so many rows
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Holdout rows too
    #[arg(long)]
    include_holdout: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.unconfigured()?;
    let signature = args.signature.find(&workspace)?;
    let options = Options {
        id: args.id,
        split: args.split,
        limit: args.limit,
        include_holdout: args.include_holdout,
    };
    terminal.show(&show::show(&workspace, &signature.id, &options)?)
}

impl Page for Shown {
    fn page(&self) -> String {
        if let [row] = self.rows.as_slice()
            && self.more == 0
            && self.withheld == 0
        {
            return one(row);
        }
        let Some(dataset) = &self.dataset else {
            return format!("{} has no rows yet.\n", self.signature);
        };
        let mut page = format!(
            "{}: {}, {}\n\n",
            self.signature,
            plural(dataset.rows(), "row"),
            dataset.content_digest
        );
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|shown| {
                let row = &shown.row;
                vec![
                    row.id.to_string(),
                    split_name(row.split).to_owned(),
                    shortened(&row.expected.to_string()),
                    shortened(&row.input.to_string()),
                ]
            })
            .collect();
        page += &table(&["id", "split", "expected", "input"], &rows);
        if self.more > 0 {
            let _ = writeln!(
                page,
                "… and {} more; `--limit` shows more of them",
                self.more
            );
        }
        if self.withheld > 0 {
            let _ = writeln!(
                page,
                "{} in holdout and not shown.",
                plural(self.withheld, "row")
            );
        }
        page
    }
}

fn one(shown: &ShownRow) -> String {
    let row = &shown.row;
    let mut lines = vec![
        vec!["id".to_owned(), row.id.to_string()],
        vec!["split".to_owned(), split_name(row.split).to_owned()],
        vec!["input".to_owned(), format!("{:#}", row.input)],
        vec!["expected".to_owned(), format!("{:#}", row.expected)],
    ];
    let mut add = |name: &str, text: Option<String>| {
        lines.extend(text.map(|text| vec![name.to_owned(), text]))
    };
    add("tags", (!row.tags.is_empty()).then(|| row.tags.join(", ")));
    add("group", row.group.as_ref().map(ToString::to_string));
    add("source", row.source.clone());
    add(
        "meta",
        (!row.meta.is_empty()).then(|| serde_json::Value::Object(row.meta.clone()).to_string()),
    );
    add("content", Some(shown.content_digest.to_string()));
    add("digest", Some(shown.digest.to_string()));
    table(&["", ""], &lines)
}
