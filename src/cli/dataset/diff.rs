//! `proofline dataset diff`

use super::changes::changes;
use super::{Exit, Page, Terminal, Which};
use crate::flows::dataset::diff::{self, Diffed};

/// Show what differs between two states of a dataset
///
/// Without revisions: what the last commit of the datasets branch changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    signature: Which,
    /// The older state: a commit, or `~2` counting back from the branch's tip
    old: Option<String>,
    /// The newer state; the branch's tip when absent
    new: Option<String>,
    /// Show what holdout rows say
    #[arg(long)]
    include_holdout: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.unconfigured()?;
    let signature = args.signature.find(&workspace)?;
    let (old, new) = (args.old.as_deref(), args.new.as_deref());
    terminal.show(&diff::diff(
        &workspace,
        &signature.id,
        old,
        new,
        args.include_holdout,
    )?)
}

impl Page for Diffed {
    fn page(&self) -> String {
        let old = self
            .old
            .as_deref()
            .map_or("nothing", |commit| &commit[..12]);
        format!(
            "{}: {old} to {}\n\n{}",
            self.signature,
            &self.new[..12],
            changes(&self.difference)
        )
    }
}
