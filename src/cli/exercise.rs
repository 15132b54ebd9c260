//! `proofline exercise`

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::flows::exercise::{self, ExerciseRequest, Exercised, Progress};
use crate::flows::{canary, signatures};
use crate::host::files;
use crate::id::RunId;

use super::{Exit, Page, Terminal};

/// Make predictions over exercise rows or recorded traffic, each with a receipt
///
/// With a running canary its arms answer, without one the artifact in force. Receipts and counters
/// are the same for any concurrency. A model that does not answer is an outcome, not an error.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// How many requests; all exercise rows, or the whole traffic, unless given
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Recorded traffic: JSONL of inputs, or of {key, input, expected}
    #[arg(long, value_name = "FILE")]
    traffic: Option<PathBuf>,
    /// Predictions in flight at most; what the models ask for unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Option<u32>,
    /// The run it belongs to: done again under it, only what is missing is asked
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// Orders exercise rows where there is no canary
    #[arg(long, value_name = "N", conflicts_with = "traffic")]
    seed: Option<u64>,
    /// Keep the inputs themselves in the receipts; they may be personal data
    #[arg(long)]
    keep_inputs: bool,
    /// Say what would be asked, and ask nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let signature = signatures::find(&workspace, &args.signature)?.signature;
    let policy = canary::policy(&workspace)?;
    let traffic = match &args.traffic {
        Some(path) => {
            let bytes = files::read(path)?;
            Some(exercise::read_traffic(
                &path.display().to_string(),
                &bytes,
                &signature,
            )?)
        }
        None => None,
    };
    let request = ExerciseRequest {
        signature: &signature,
        run: args.run.unwrap_or_else(exercise::fresh_run),
        count: args.count,
        traffic: traffic.as_deref(),
        concurrency: args.concurrency.map(|count| count as usize),
        seed: args.seed,
        keep_inputs: args.keep_inputs,
    };
    if args.dry_run {
        let planned = exercise::plan(&workspace, &policy, &request)?;
        return terminal.show(&planned);
    }
    let engine = workspace.engine()?;
    let mut said = 0;
    let mut progress = |progress: Progress| {
        // About ten lines, however many requests.
        if progress.done * 10 / progress.of.max(1) > said {
            said = progress.done * 10 / progress.of.max(1);
            terminal.note(&format!(
                "{} of {} requests, {} failures",
                progress.done, progress.of, progress.failures
            ));
        }
    };
    let exercised = exercise::run(&workspace, &engine, &policy, &request, &mut progress)?;
    for note in &exercised.notes {
        terminal.note(&format!("note: {note}"));
    }
    terminal.show(&exercised)
}

impl Page for Exercised {
    fn page(&self) -> String {
        let mut page = String::new();
        let place = match &self.canary {
            Some(canary) => format!("canary {canary}"),
            None => "no canary: the artifact in force answers".to_owned(),
        };
        let _ = writeln!(
            page,
            "{} requests of {} inputs for {} ({place})",
            self.requests,
            self.source.as_str(),
            self.signature
        );
        let _ = writeln!(
            page,
            "{} receipts are new, {} requests had theirs; run {}",
            self.new_receipts, self.already, self.run
        );
        if !self.arms.is_empty() {
            let _ = writeln!(
                page,
                "\n{:<11}{:>9}{:>9}{:>8}{:>8}{:>10}  answered by",
                "", "requests", "ok", "errors", "format", "expected"
            );
        }
        for (arm, counts) in &self.arms {
            let labelled = counts.expected + counts.unexpected;
            let expected = if labelled == 0 {
                "–".to_owned()
            } else {
                format!("{}/{labelled}", counts.expected)
            };
            let who: Vec<&str> = counts.answered_by.iter().map(String::as_str).collect();
            let _ = writeln!(
                page,
                "{:<11}{:>9}{:>9}{:>8}{:>8}{expected:>10}  {}",
                arm.as_str(),
                counts.requests,
                counts.ok,
                counts.errors,
                counts.format_failures,
                if who.is_empty() {
                    "nobody".to_owned()
                } else {
                    who.join(", ")
                }
            );
        }
        if self.usage.input_tokens + self.usage.output_tokens > 0 {
            let _ = writeln!(
                page,
                "\n{} tokens in, {} out",
                self.usage.input_tokens, self.usage.output_tokens
            );
        }
        if let Some(reason) = &self.ended_early {
            let _ = writeln!(page, "\nIt ended early: {reason}.");
        }
        if self.canary.is_some() {
            let _ = writeln!(page, "\nNext: proofline canary status {}", self.signature);
        }
        page
    }
}
