//! `proofline rollback`

use crate::flows::promotions;
use crate::flows::rollback::{self, Request, Target};

use super::{Exit, Terminal};

/// Bring back what was in force before, by a sealed statement of its own
///
/// Never returns to what was rolled back already. A rollback moves forward: history keeps both.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// An artifact, `sha256:…`, or the number of the statement that put it in force (0: before the first)
    #[arg(long, value_name = "ARTIFACT|COUNTER", value_parser = target)]
    to: Option<Target>,
    /// Why, for whoever reads the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Propose it instead of landing it
    #[arg(long)]
    propose: bool,
}

fn target(text: &str) -> Result<Target, String> {
    match text.parse::<u64>() {
        Ok(counter) => Ok(Target::Counter(counter)),
        Err(_) => text
            .parse()
            .map(Target::Artifact)
            .map_err(|error| format!("{error}")),
    }
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let request = Request {
        signature: promotions::signature(&workspace, &args.signature)?,
        to: args.to,
        reason: args.reason,
        propose: args.propose,
    };
    terminal.show(&rollback::rollback(&workspace, &request)?)
}
