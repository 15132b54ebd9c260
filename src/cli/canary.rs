//! `proofline canary`

use std::fmt::Write as _;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::domain::improve::canary::{Canary, Mode, Status, duration};
use crate::domain::improve::receipt::{ArmCounts, Source};
use crate::domain::prove::verdict::Figure;
use crate::flows::canary::{self, Ending, StartRequest, Started, Watched};
use crate::flows::{eval, signatures};
use crate::id::{RunId, WriterId};

use super::{Exit, Page, Terminal};

/// Try a candidate on traffic beside the artifact in force
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Start(StartArgs),
    Status(StatusArgs),
    Decide(DecideArgs),
    Stop(StopArgs),
}

/// Seal what a canary will be judged by, and begin it
///
/// Margins and limits are those of the signature file, within what the policy allows. Each further
/// start of the same candidate against the same control may spend less of α.
#[derive(Debug, clap::Args)]
struct StartArgs {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// The artifact on trial: its id, or the first digits
    #[arg(long, value_name = "ARTIFACT")]
    candidate: String,
    /// The artifact to compare with; the one in force unless given
    #[arg(long, value_name = "ARTIFACT")]
    control: Option<String>,
    /// How requests meet arms
    #[arg(long, value_name = "MODE", default_value = "paired")]
    mode: ModeArg,
    /// Where inputs will come from; exercise rows rehearse, only recorded traffic can pass
    #[arg(long, value_name = "SOURCE", default_value = "exercise")]
    source: SourceArg,
    /// Another clone whose receipts count (repeatable)
    #[arg(long = "writer", value_name = "ID")]
    writers: Vec<WriterId>,
    /// Orders the exercise rows; the signature's seed unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The run it belongs to: starting again under it finds the same canary
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// Say what would be sealed, and seal nothing
    #[arg(long)]
    dry_run: bool,
}

/// How requests meet arms.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArg {
    /// Both arms answer every request
    Paired,
    /// A salted digest of its key decides which arm answers
    Split,
}

/// Where inputs come from.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SourceArg {
    /// Rows of the exercise split
    Exercise,
    /// Recorded traffic
    Recorded,
}

/// Judge the newest canary by the receipts that are committed; changes nothing
#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// The signature: its id, or its last component where that is unique
    signature: String,
}

/// Judge the newest canary, and when it is decided seal what it came to
#[derive(Debug, clap::Args)]
struct DecideArgs {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// No more traffic will come: what is undecided is closed as inconclusive
    #[arg(long)]
    last: bool,
    /// Say what would be sealed, and seal nothing
    #[arg(long)]
    dry_run: bool,
}

/// End a running canary by hand; the control stays
#[derive(Debug, clap::Args)]
struct StopArgs {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Say what would be ended, and end nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    match args.verb {
        Verb::Start(args) => start(args, terminal),
        Verb::Status(args) => show(&args.signature, terminal),
        Verb::Decide(args) if args.dry_run => show(&args.signature, terminal),
        Verb::Stop(args) if args.dry_run => show(&args.signature, terminal),
        Verb::Decide(args) => {
            let workspace = terminal.workspace()?;
            let signature = signatures::find(&workspace, &args.signature)?.signature;
            let policy = canary::policy(&workspace)?;
            let ending = if args.last {
                Ending::Now
            } else {
                Ending::WhenDecided
            };
            let watched = canary::decide_and_close(&workspace, &policy, &signature.id, ending)?;
            say(terminal, &watched);
            terminal.show(&watched)
        }
        Verb::Stop(args) => {
            let workspace = terminal.workspace()?;
            let signature = signatures::find(&workspace, &args.signature)?.signature;
            let policy = canary::policy(&workspace)?;
            let watched = canary::stop(&workspace, &policy, &signature.id, &args.reason)?;
            say(terminal, &watched);
            terminal.show(&watched)?;
            // What was asked for is done.
            Ok(0)
        }
    }
}

fn start(args: StartArgs, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let signature = signatures::find(&workspace, &args.signature)?.signature;
    let policy = canary::policy(&workspace)?;
    let named = |name: &str| canary::artifact_named(&workspace, &signature.id, name);
    let control = match &args.control {
        Some(name) => named(name)?,
        None if args.dry_run => {
            let engine = workspace.engine()?;
            eval::program(&workspace, &engine, &signature, None)?
                .program
                .artifact_id()?
        }
        None => canary::control_in_force(&workspace, &workspace.engine()?, &signature)?,
    };
    let request = StartRequest {
        signature: &signature,
        run: args.run,
        control,
        candidate: named(&args.candidate)?,
        mode: match args.mode {
            ModeArg::Paired => Mode::Paired,
            ModeArg::Split => Mode::Split,
        },
        source: match args.source {
            SourceArg::Exercise => Source::Exercise,
            SourceArg::Recorded => Source::Recorded,
        },
        writers: args.writers,
        seed: args.seed,
    };
    let started = if args.dry_run {
        canary::plan(&workspace, &policy, &request)?
    } else {
        canary::start(&workspace, &policy, &request)?
    };
    terminal.show(&started)
}

fn show(signature: &str, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let signature = signatures::find(&workspace, signature)?.signature;
    let policy = canary::policy(&workspace)?;
    match canary::status(&workspace, &policy, &signature.id)? {
        Some(watched) => terminal.show(&watched),
        None => terminal.show(&NoCanary {
            signature: signature.id.to_string(),
            canary: None,
        }),
    }
}

fn say(terminal: &Terminal, watched: &Watched) {
    for note in &watched.notes {
        terminal.note(&format!("note: {note}"));
    }
}

/// A signature that never had a canary.
#[derive(Debug, Serialize)]
struct NoCanary {
    signature: String,
    canary: Option<Canary>,
}

impl Page for NoCanary {
    fn page(&self) -> String {
        format!("{} has no canary.\n", self.signature)
    }
}

impl Page for Started {
    fn page(&self) -> String {
        let canary = &self.canary;
        let mut page = String::new();
        let verb = match (self.reused, &self.commit) {
            (true, _) => "is there already",
            (false, Some(_)) => "started",
            (false, None) => "would be started",
        };
        let _ = writeln!(
            page,
            "Canary {} of {} {verb}.\n",
            canary.id, canary.signature
        );
        write_rules(&mut page, canary);
        let _ = writeln!(
            page,
            "\nExpected pairs to a decision in the candidate's favour, if both arms fail at this rate:"
        );
        for expected in &self.expected_pairs {
            let pairs = |count: Option<u64>| {
                count.map_or_else(|| "–".to_owned(), |count| count.to_string())
            };
            let _ = writeln!(
                page,
                "  {:4.1} %   half of such canaries {:>5}   nine of ten {:>5}   ever {:3.0} %",
                100.0 * expected.failure_rate,
                pairs(expected.median),
                pairs(expected.ninth_decile),
                100.0 * expected.promoted_share
            );
        }
        if let Some(commit) = &self.commit {
            let _ = writeln!(
                page,
                "\nSealed on the ledger at {}.",
                &commit[..12.min(commit.len())]
            );
        }
        if canary.status == Status::Running {
            let traffic = match canary.source {
                Source::Exercise => "",
                Source::Recorded => " --traffic FILE",
            };
            let _ = writeln!(
                page,
                "Next: proofline exercise {}{traffic}",
                canary.signature
            );
        }
        page
    }
}

impl Page for Watched {
    fn page(&self) -> String {
        let (canary, decision) = (&self.canary, &self.decision);
        let mut page = String::new();
        let stands = match (canary.status, decision.status) {
            (Status::Running, Status::Running) => "running, undecided".to_owned(),
            (Status::Running, status) => format!("running; its receipts say {}", status.as_str()),
            (status, _) => status.as_str().to_owned(),
        };
        let _ = writeln!(
            page,
            "Canary {} of {}: {stands}\n",
            canary.id, canary.signature
        );
        write_rules(&mut page, canary);
        let _ = writeln!(
            page,
            "\n{:<11}{:>9}{:>9}{:>8}{:>8}{:>9}  answered by",
            "", "requests", "ok", "errors", "format", "missing"
        );
        for (name, counts) in [
            ("control", &decision.control),
            ("candidate", &decision.candidate),
        ] {
            page.push_str(&row(name, counts));
        }
        page.push('\n');
        for figure in decision
            .gate
            .figures
            .iter()
            .filter(|figure| is_evidence(figure))
        {
            let _ = writeln!(
                page,
                "{:<26}{:>10}  {}",
                figure.name,
                number(figure),
                figure.label
            );
        }
        for reason in &decision.reasons {
            let _ = writeln!(page, "\n{}.", capitalised(reason));
        }
        let sealed: Vec<&str> = self.sealed_by.iter().map(|name| name.as_str()).collect();
        let _ = writeln!(
            page,
            "\nSealed by {} on the ledger at {}.",
            sealed.join(", "),
            &self.commit[..12.min(self.commit.len())]
        );
        page
    }

    fn exit_code(&self) -> u8 {
        match self.decision.status {
            Status::Running | Status::Passed | Status::Rehearsed => 0,
            Status::Harmed | Status::Inconclusive | Status::Stopped => 1,
        }
    }
}

fn write_rules(page: &mut String, canary: &Canary) {
    let _ = writeln!(page, "control    {}", canary.control.short());
    let _ = writeln!(page, "candidate  {}", canary.candidate.short());
    let traffic = match (&canary.rows, canary.mode) {
        (Some(rows), _) => format!("a rehearsal on {} exercise rows", rows.rows),
        (None, Mode::Paired) => "recorded traffic, answered by both".to_owned(),
        (None, Mode::Split) => format!(
            "recorded traffic, {} % of keys to the candidate",
            canary.rollout_percent
        ),
    };
    let _ = writeln!(
        page,
        "traffic    {traffic}, within {}",
        duration(canary.time_limit_ms)
    );
    let _ = writeln!(
        page,
        "proof      harm margin {:.1} points, start {} at α {:.4}, {} to {} pairs, at most {:.1} % failures",
        100.0 * canary.harm_margin,
        canary.t,
        canary.alpha_t,
        canary.pairs_needed(),
        canary.max_pairs,
        100.0 * canary.max_error_rate
    );
}

fn row(name: &str, counts: &ArmCounts) -> String {
    let who: Vec<&str> = counts.answered_by.iter().map(String::as_str).collect();
    format!(
        "{name:<11}{:>9}{:>9}{:>8}{:>8}{:>9}  {}\n",
        counts.requests,
        counts.ok,
        counts.errors,
        counts.format_failures,
        counts.missing,
        if who.is_empty() {
            "nobody".to_owned()
        } else {
            who.join(", ")
        }
    )
}

fn is_evidence(figure: &Figure) -> bool {
    matches!(
        figure.name.as_str(),
        "pairs"
            | "mean difference"
            | "harm evidence"
            | "non-inferiority evidence"
            | "evidence needed"
    )
}

fn number(figure: &Figure) -> String {
    match figure.value.as_f64() {
        Some(float) if figure.value.is_f64() => format!("{float:.3}"),
        _ => figure.value.to_string(),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}
