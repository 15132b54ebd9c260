//! `proofline dataset export`

use super::{Exit, Terminal, Which};
use crate::domain::improve::dataset::Split;
use crate::domain::improve::dataset::formats::FileFormat;
use crate::flows::dataset::export;

/// Write rows to standard output, as `dataset import` takes them
///
/// Holdout rows are left where they are unless `--include-holdout` is given: a holdout proves
/// something only as long as nobody fits a program to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    signature: Which,
    /// Only rows of this split
    #[arg(long)]
    split: Option<Split>,
    /// jsonl, json or csv
    #[arg(long, default_value = "jsonl")]
    format: FileFormat,
    /// Holdout rows too
    #[arg(long)]
    include_holdout: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.unconfigured()?;
    let signature = args.signature.find(&workspace)?;
    let options = export::Options {
        split: args.split,
        // With `--json` standard output is one JSON document, whatever else is asked for.
        format: if terminal.global.json {
            FileFormat::Json
        } else {
            args.format
        },
        include_holdout: args.include_holdout,
    };
    terminal.print(&export::export(&workspace, &signature, options)?)?;
    Ok(0)
}
