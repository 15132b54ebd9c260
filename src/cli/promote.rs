//! `proofline promote`

use std::fmt::Write as _;

use crate::domain::improve::signature::PromotionMode;
use crate::domain::prove::verdict::Verdict;
use crate::flows::land;
use crate::flows::promote::{self, Landing, Preview, Promoted, Proposal};
use crate::flows::promotions;
use crate::id::{Digest, RunId};

use super::{Exit, Page, Terminal};

/// Bring what a finished run proved into force, or propose it
///
/// The run's record says what each gate answered; the holdout proof is read from the ledger
/// itself. Policy decides whether it lands directly or waits for a person.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// The run; the newest that proved something when absent
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// The artifact, `sha256:…`, of the newest run that proved it
    #[arg(long, value_name = "DIGEST", conflicts_with = "run")]
    artifact: Option<Digest>,
    /// Propose it, even where it could land directly
    #[arg(long)]
    propose: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let signature = promotions::signature(&workspace, &args.signature)?;
    let mut request = promote::recorded(
        &workspace,
        &signature,
        args.run.as_ref(),
        args.artifact.as_ref(),
    )?;
    // Who asks by hand may ask for anything; the policy has the last word.
    request.mode = match args.propose {
        true => PromotionMode::Propose,
        false => PromotionMode::Direct,
    };
    if args.dry_run {
        return terminal.show(&promote::preview(&workspace, &request)?);
    }
    terminal.show(&promote::promote(&workspace, &request)?)
}

/// 0, 1 for a refusal, 3 for what cannot be decided here.
pub fn code(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Refuse { .. } => 1,
        Verdict::Undecidable { .. } => 3,
    }
}

fn marks(page: &mut String, marks: &[String]) {
    for mark in marks {
        let _ = writeln!(page, "Mark: {mark}.");
    }
}

impl Page for Preview {
    fn page(&self) -> String {
        let mut page = match (&self.verdict, self.mode) {
            (Verdict::Pass, PromotionMode::Direct) => {
                format!("Statement {} would land on control.\n", self.counter)
            }
            (Verdict::Pass, PromotionMode::Propose) => {
                format!("Statement {} would be proposed.\n", self.counter)
            }
            (verdict, _) => format!("Nothing would be done: {verdict}.\n"),
        };
        marks(&mut page, &self.marks);
        page
    }

    fn exit_code(&self) -> u8 {
        code(&self.verdict)
    }
}

impl Page for Promoted {
    fn page(&self) -> String {
        match self {
            Self::Landed(landing) => landed(landing),
            Self::Proposed(proposal) => proposed(proposal),
            Self::Withheld(verdict) => format!("Nothing was done: {verdict}.\n"),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Landed(_) | Self::Proposed(_) => 0,
            Self::Withheld(verdict) => code(verdict),
        }
    }
}

fn landed(landing: &Landing) -> String {
    let statement = &landing.statement;
    let again = if landing.reused {
        " (it had landed before)"
    } else {
        ""
    };
    let mut page = format!("{}{again}\n", land::subject(statement));
    let _ = writeln!(
        page,
        "In force for {}: {}",
        statement.signature, statement.to
    );
    let _ = writeln!(page, "Statement {}, {}", statement.counter, landing.digest);
    let _ = writeln!(page, "Commit {}", landing.commit);
    marks(&mut page, &landing.marks);
    let _ = writeln!(
        page,
        "Verify it: `proofline promotions show {} {}`",
        statement.signature, statement.counter
    );
    page
}

fn proposed(proposal: &Proposal) -> String {
    let again = if proposal.reused {
        " (it was proposed before)"
    } else {
        ""
    };
    let mut page = format!("Proposed{again}: {}\n", land::subject(&proposal.statement));
    let _ = writeln!(
        page,
        "Branch {}, commit {}",
        proposal.branch, proposal.commit
    );
    marks(&mut page, &proposal.marks);
    let _ = writeln!(
        page,
        "Text for the pull request: {}",
        proposal.body.display()
    );
    page.push_str("To have it reviewed:\n");
    for command in &proposal.commands {
        let _ = writeln!(page, "  {command}");
    }
    page
}
