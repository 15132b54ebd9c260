//! `proofline compile`

use std::fmt::Write as _;

use crate::cli::progress::Bar;
use crate::domain::improve::report::Conclusion;
use crate::flows::compile::{self, Compiled};
use crate::flows::{runs, signatures};

use super::{Exit, Page, Terminal};

/// Search for a better program, on train and dev rows alone
///
/// Starts from the artifact in force. The report is kept on the artifacts branch; asking for the
/// same search again answers from it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// Record it as part of this run
    #[arg(long, value_name = "ID")]
    run: Option<crate::id::RunId>,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let signature = signatures::find(&workspace, &args.signature)?.signature;
    let engine = workspace.engine()?;
    let label = args.run.as_ref().map_or("compile", |run| run.as_str());
    let bar = Bar::new(terminal, signature.id.name());
    let compiled = compile::compile(&workspace, &engine, &signature, label, &mut |progress| {
        bar.search(progress)
    });
    bar.clear();
    let compiled = compiled?;
    if let Some(run) = &args.run {
        runs::note(
            &workspace,
            run,
            "compile",
            &signature.id,
            &compiled.sentence(),
        )?;
    }
    terminal.show(&compiled)
}

impl Page for Compiled {
    fn page(&self) -> String {
        let report = &self.report;
        let comparison = &report.comparison;
        let mut page = String::new();
        let _ = writeln!(page, "{}", self.sentence());
        for stage in &report.stages {
            let _ = writeln!(page, "\n{}", stage.name);
            for arm in &stage.arms {
                let mark = if arm.artifact == stage.winner {
                    "*"
                } else {
                    " "
                };
                let left = match &arm.dropped {
                    Some(dropped) => format!(
                        "dropped after {}: {}, p = {:.3}",
                        dropped.after_rows, dropped.reason, dropped.p
                    ),
                    None => String::new(),
                };
                let _ = writeln!(
                    page,
                    "{mark} {:6.1} %  {:>5} rows  {}  {:<40} {left}",
                    100.0 * arm.mean,
                    arm.rows,
                    arm.artifact.short(),
                    arm.label
                );
            }
        }
        let _ = writeln!(
            page,
            "\n{} predictions of {} in the full grid ({} tokens in, {} out); wins {}, losses {} on {} dev rows.",
            report.evaluations,
            report.full_grid,
            report.usage.input_tokens,
            report.usage.output_tokens,
            comparison.wins,
            comparison.losses,
            comparison.rows
        );
        let _ = writeln!(
            page,
            "Report {} on commit {}.",
            self.key.short(),
            self.commit
        );
        if report.conclusion == Conclusion::Improved {
            page.push_str("Dev selected the winner, so this proves nothing yet; `proofline overnight` proves it on the holdout.\n");
        }
        page
    }
}
