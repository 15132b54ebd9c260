//! `proofline promotions`

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use crate::domain::prove::promotion::Kind;
use crate::domain::prove::verdict::Verdict;
use crate::flows::promotions::{self, Listed, Shown};

use super::promote::code;
use super::{Exit, Page, Terminal};

/// What came into force, when, and on whose word
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(ListArgs),
    Show(ShowArgs),
}

/// List promotions and rollbacks, oldest first
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// One signature's only: its id, or its last component where that is unique
    signature: Option<String>,
}

/// Verify one statement and print what it rests on
///
/// Recomputes the seal, the chain, the pointer, the landing commit with its signature, and the
/// digest of everything the statement binds. Exit code 1 when something is wrong, 3 when
/// something that is needed is not here.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// The statement's number; the last one when absent
    counter: Option<u64>,
    /// Look at this revision instead of control: a proposal's branch, say
    #[arg(long, value_name = "REVISION")]
    at: Option<String>,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    match args.verb {
        Verb::List(args) => {
            let signature = args
                .signature
                .map(|text| promotions::signature(&workspace, &text))
                .transpose()?;
            let promotions = promotions::list(&workspace, signature.as_ref())?;
            terminal.show(&List { promotions })
        }
        Verb::Show(args) => {
            let signature = promotions::signature(&workspace, &args.signature)?;
            terminal.show(&promotions::show(
                &workspace,
                &signature,
                args.counter,
                args.at.as_deref(),
            )?)
        }
    }
}

#[derive(Debug, Serialize)]
struct List {
    promotions: Vec<Listed>,
}

impl Page for List {
    fn page(&self) -> String {
        if self.promotions.is_empty() {
            return "Nothing was ever promoted.\n".to_owned();
        }
        let mut page = String::new();
        let mut heading = None;
        for listed in &self.promotions {
            if heading != Some(&listed.signature) {
                let _ = writeln!(page, "{}", listed.signature);
                heading = Some(&listed.signature);
            }
            let kind = match listed.kind {
                Kind::Promotion => "promotion",
                Kind::Rollback => "rollback ",
            };
            let gain = match listed.gain {
                Some(gain) => format!("  {:+.1} points", 100.0 * gain),
                None => String::new(),
            };
            let why = match &listed.reason {
                Some(reason) => format!("  {}", reason.lines().next().unwrap_or_default()),
                None => String::new(),
            };
            let attested = if listed.self_attested {
                "  self-attested"
            } else {
                ""
            };
            let now = if listed.in_force {
                "  ← in force"
            } else {
                ""
            };
            let _ = writeln!(
                page,
                "  {:>4}  {kind}  {} → {}  by {}{gain}{why}{attested}{now}",
                listed.counter,
                listed.from.short(),
                listed.to.short(),
                listed.promoter
            );
        }
        page
    }
}

impl Page for Shown {
    fn page(&self) -> String {
        let mut page = format!("{} statement {}\n", self.signature, self.counter);
        if let Some(statement) = &self.statement {
            let kind = match statement.kind {
                Kind::Promotion => "promotion",
                Kind::Rollback => "rollback",
            };
            let _ = writeln!(page, "{kind} from {}", statement.from);
            let _ = writeln!(
                page,
                "{:>width$} {}",
                "to",
                statement.to,
                width = kind.len() + 5
            );
            let attested = if statement.self_attested {
                " (self-attested)"
            } else {
                ""
            };
            let _ = writeln!(
                page,
                "by {}{attested}, policy epoch {}",
                statement.promoter, statement.epoch
            );
            if let Some(run) = &statement.run {
                let _ = writeln!(page, "run {run}");
            }
            if let Some(reason) = &statement.reason {
                let _ = writeln!(page, "reason: {reason}");
            }
            if !statement.gates.is_empty() {
                page.push_str("\nWhat its gates answered:\n");
            }
            for gate in &statement.gates {
                let skipped = match &gate.skipped {
                    Some(why) => format!(", skipped: {why}"),
                    None => String::new(),
                };
                let _ = writeln!(page, "  {}: {}{skipped}", gate.gate, gate.verdict.word());
                for figure in &gate.figures {
                    let _ = writeln!(
                        page,
                        "    {} = {} ({})",
                        figure.name, figure.value, figure.label
                    );
                }
            }
        }
        page.push_str("\nVerified here:\n");
        for check in &self.checks {
            let figures: Vec<String> = check
                .figures
                .iter()
                .map(|figure| {
                    let value = match &figure.value {
                        serde_json::Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    format!("{} {value}", figure.name)
                })
                .collect();
            let figures = match figures.is_empty() {
                true => String::new(),
                false => format!(" ({})", figures.join(", ")),
            };
            let _ = writeln!(page, "  {}: {}{figures}", check.gate, check.verdict);
        }
        let _ = match &self.verdict {
            Verdict::Pass => writeln!(page, "\npass"),
            other => writeln!(page, "\n{}", other.word()),
        };
        page
    }

    fn exit_code(&self) -> u8 {
        code(&self.verdict)
    }
}
