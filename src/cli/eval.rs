//! `proofline eval`

use std::fmt::Write as _;

use crate::domain::improve::dataset::Split;
use crate::flows::eval::{self, Evaluated};
use crate::flows::{runs, signatures};
use crate::id::{Digest, RunId};

use super::{Exit, Page, Terminal};

/// Evaluate one program on one split: exact match, format, and the signature's metric
///
/// Any split but holdout, whose rows are read by the holdout gate alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// The split: train, dev or exercise
    #[arg(long, default_value = "dev")]
    split: Split,
    /// The program, `sha256:…`; the one in force when absent
    #[arg(long, value_name = "DIGEST")]
    artifact: Option<Digest>,
    /// Record it as part of this run
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let signature = signatures::find(&workspace, &args.signature)?.signature;
    let engine = workspace.engine()?;
    let label = args.run.as_ref().map_or("eval", |run| run.as_str());
    let done = eval::eval(
        &workspace,
        &engine,
        &signature,
        args.split,
        args.artifact.as_ref(),
        label,
    )?;
    if let Some(run) = &args.run {
        runs::note(&workspace, run, "eval", &signature.id, &done.sentence())?;
    }
    terminal.show(&done)
}

impl Page for Evaluated {
    fn page(&self) -> String {
        let report = &self.report;
        let mut page = format!("{}\n", self.sentence());
        let _ = writeln!(
            page,
            "exact match {:.1} %, valid format {:.1} %, {} tokens in, {} out",
            100.0 * report.exact,
            100.0 * report.format,
            report.usage.input_tokens,
            report.usage.output_tokens
        );
        for (failure, count) in &report.failures {
            let _ = writeln!(page, "{count} failed: {failure}");
        }
        let answered: Vec<&str> = report.answered_by.iter().map(String::as_str).collect();
        let _ = writeln!(
            page,
            "Answered by {}. Report {}.",
            answered.join(", "),
            self.key.short()
        );
        page
    }
}
