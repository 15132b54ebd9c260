//! `proofline dataset`

use clap::Subcommand;

use crate::domain::improve::dataset::difference::Difference;

use crate::domain::improve::signature::Signature;
use crate::flows::{FlowError, Workspace, signatures};

use super::{Exit, Page, Terminal};

mod changes;
mod diff;
mod export;
mod import;
mod show;
mod split;
mod stats;

/// Bring rows in and out, look at them, divide them into splits
///
/// A row is one labelled example. Train is what programs are built from, dev selects between
/// them, holdout proves the finalist and is read by nothing else, exercise is for rehearsals.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// Which signature's rows.
#[derive(Debug, clap::Args)]
struct Which {
    /// The signature: its id, or its last component where that is unique; not needed when there is only one
    #[arg(long, value_name = "ID")]
    signature: Option<String>,
}

impl Which {
    fn find(&self, workspace: &Workspace) -> Result<Signature, FlowError> {
        Ok(match &self.signature {
            Some(name) => signatures::find(workspace, name)?.signature,
            None => signatures::only(workspace)?.signature,
        })
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Import(import::Args),
    Export(export::Args),
    Show(show::Args),
    Diff(diff::Args),
    Split(split::Args),
    Stats(stats::Args),
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    match args.verb {
        Verb::Import(args) => import::run(args, terminal),
        Verb::Export(args) => export::run(args, terminal),
        Verb::Show(args) => show::run(args, terminal),
        Verb::Diff(args) => diff::run(args, terminal),
        Verb::Split(args) => split::run(args, terminal),
        Verb::Stats(args) => stats::run(args, terminal),
    }
}
