//! `proofline receipts`

use std::fmt::Write as _;

use clap::Subcommand;

use crate::domain::improve::receipt::Outcome;
use crate::flows::receipts::{self, Listed, Query};
use crate::flows::signatures;
use crate::id::{CanaryId, RunId};

use super::{Exit, Page, Terminal};

/// Look at what predictions did
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(ListArgs),
}

/// List receipts, newest first
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Of this signature: its id, or its last component where that is unique
    #[arg(long, value_name = "ID")]
    signature: Option<String>,
    /// Of this canary
    #[arg(long, value_name = "ID")]
    canary: Option<CanaryId>,
    /// Of this run
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// Failed ones alone
    #[arg(long)]
    failed: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let Verb::List(args) = args.verb;
    let workspace = terminal.workspace()?;
    let signature = match &args.signature {
        Some(name) => Some(match name.parse() {
            Ok(id) => id,
            Err(_) => signatures::find(&workspace, name)?.signature.id,
        }),
        None => None,
    };
    let listed = receipts::list(
        &workspace,
        &Query {
            signature,
            canary: args.canary,
            run: args.run,
            failed: args.failed,
            limit: args.limit,
        },
    )?;
    terminal.show(&listed)
}

impl Page for Listed {
    fn page(&self) -> String {
        if self.receipts.is_empty() {
            return "No receipts.\n".to_owned();
        }
        let mut page = String::new();
        let _ = writeln!(
            page,
            "{:<20}  {:<20}  {:<9}  {:>6}  {:<12}  {:<16}  {:>7}  answered by",
            "time", "signature", "arm", "number", "artifact", "outcome", "ms"
        );
        for receipt in &self.receipts {
            let outcome = match receipt.outcome {
                Outcome::Ok => match receipt.expected_match {
                    Some(false) => "ok, unexpected".to_owned(),
                    _ => "ok".to_owned(),
                },
                Outcome::Error { failure } => serde_json::to_value(failure)
                    .ok()
                    .and_then(|word| word.as_str().map(str::to_owned))
                    .unwrap_or_else(|| "error".to_owned()),
            };
            let _ = writeln!(
                page,
                "{:<20}  {:<20}  {:<9}  {:>6}  {:<12}  {outcome:<16}  {:>7}  {}{}",
                receipt.ts.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                receipt.signature.name(),
                receipt.arm.as_str(),
                receipt.index,
                receipt.artifact.short(),
                receipt.latency_ms,
                receipt.answered_by.as_deref().unwrap_or("nobody"),
                receipt
                    .fallback
                    .as_ref()
                    .map(|why| format!(" (stand-in: {why})"))
                    .unwrap_or_default()
            );
        }
        if self.more {
            let _ = writeln!(
                page,
                "… and more: `--limit` {} is reached",
                self.receipts.len()
            );
        }
        page
    }
}
