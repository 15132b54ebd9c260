//! `proofline overnight`

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::domain::improve::search::Progress;
use crate::domain::operate::event::{Event, Level};
use crate::domain::operate::run::Status;
use crate::domain::prove::verdict::GateResult;
use crate::flows::night::{self, Night, Options, Rehearsal, Watcher};
use crate::flows::night_signature::SignatureNight;
use crate::flows::signatures;
use crate::id::{RunId, SignatureId};

use super::progress::Bar;
use super::{Exit, Page, Terminal};

/// Run one night: search, prove, try on traffic, promote or propose
///
/// Every step is recorded as it is done. A night that was killed goes on with `--resume`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this signature (may be given several times); all of them when absent
    #[arg(long, value_name = "ID")]
    signature: Vec<String>,
    /// Say what each step would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Propose the winner for review, even where the policy would promote directly
    #[arg(long)]
    propose: bool,
    /// Stop with a proven winner in hand
    #[arg(long, conflicts_with = "propose")]
    no_promote: bool,
    /// Skip the e2e commands; the reason is recorded and bound in the statement
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "--no-e2e was given")]
    no_e2e: Option<String>,
    /// The e2e commands' output must match this regular expression
    #[arg(long, value_name = "REGEX", conflicts_with = "no_e2e")]
    e2e_grep: Option<String>,
    /// Recorded traffic for the canary, JSON lines; the exercise rows when absent
    #[arg(long, value_name = "FILE")]
    traffic: Option<PathBuf>,
    /// At most this many predictions in flight in the canary
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Name the run; made from the date when absent
    #[arg(long, value_name = "ID", conflicts_with = "resume")]
    run: Option<RunId>,
    /// Go on with a run that was interrupted
    #[arg(long, value_name = "RUN")]
    resume: Option<RunId>,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let mut options = Options {
        resume: args.resume.is_some(),
        run: args.resume.or(args.run),
        propose: args.propose,
        no_promote: args.no_promote,
        no_e2e: args.no_e2e,
        e2e_grep: args.e2e_grep,
        traffic: args.traffic,
        concurrency: args.concurrency,
        signatures: Vec::new(),
    };
    for name in &args.signature {
        options
            .signatures
            .push(signatures::find(&workspace, name)?.signature.id);
    }
    let engine = workspace.engine()?;
    if args.dry_run {
        return terminal.show(&night::dry_run(&workspace, &engine, &options)?);
    }
    let mut display = Display::new(terminal);
    let night = night::run(&workspace, &engine, &options, &mut display);
    display.clear();
    let night = night?;
    if let Some(error) = &night.error {
        terminal.explain(error);
    }
    terminal.show(&night)
}

/// Events as lines on standard error, and a bar below them on a terminal.
#[derive(Debug)]
pub struct Display<'a> {
    terminal: &'a Terminal,
    bar: Bar,
}

impl<'a> Display<'a> {
    /// A display on standard error.
    pub fn new(terminal: &'a Terminal) -> Self {
        Self {
            terminal,
            bar: Bar::new(terminal, "overnight"),
        }
    }

    /// Take the bar away.
    pub fn clear(&self) {
        self.bar.clear();
    }
}

impl Watcher for Display<'_> {
    fn event(&mut self, event: &Event) {
        if self.terminal.global.quiet {
            return;
        }
        let mark = match event.level {
            Level::Info => "",
            Level::Warn => "warning: ",
            Level::Error => "error: ",
        };
        let name = event
            .json
            .get("signature")
            .and_then(|id| id.as_str())
            .unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        let line = format!("{:<9} {name:<16} {mark}{}", event.phase, event.message);
        if self.terminal.is_lively() {
            self.bar.println(line.trim_end());
        } else {
            self.terminal.note(line.trim_end());
        }
    }

    fn progress(&mut self, _signature: &SignatureId, progress: &Progress<'_>) {
        self.bar.search(progress);
    }
}

impl Page for Night {
    fn page(&self) -> String {
        let mut page = String::new();
        for night in &self.signatures {
            page.push_str(&signature_page(night));
            page.push('\n');
        }
        let totals = &self.meter;
        let _ = writeln!(
            page,
            "Run {} {}{}: {} model calls paid, {} answered from the cache.",
            self.run,
            match self.status {
                Status::Running => "goes on",
                Status::Finished => "is finished",
                Status::Failed => "failed",
            },
            if self.resumed { " (resumed)" } else { "" },
            totals.calls,
            totals.answered.cached
        );
        let _ = writeln!(page, "Its story: proofline runs show {}", self.run);
        page
    }

    fn exit_code(&self) -> u8 {
        Night::exit_code(self)
    }
}

fn signature_page(night: &SignatureNight) -> String {
    let mut page = format!(
        "{}: {}\n  {}\n",
        night.signature, night.conclusion, night.reason
    );
    if let Some(compile) = &night.compile {
        let _ = writeln!(
            page,
            "  dev      {:.1} % → {:.1} % on {} rows{}",
            100.0 * compile.base_mean,
            100.0 * compile.winner_mean,
            compile.rows,
            if compile.label.is_empty() {
                String::new()
            } else {
                format!(" ({})", compile.label)
            }
        );
    }
    for gate in &night.gates {
        let _ = writeln!(page, "  {}", gate_line(gate));
    }
    if let Some(power) = &night.power {
        let _ = writeln!(page, "  power    {}", power.sentence());
    }
    let _ = writeln!(page, "  next     {}", night.next);
    page
}

/// The figures a page shows per gate; the others are in the record and in the JSON.
const SHOWN: [(&str, &[&str]); 4] = [
    (
        "data",
        &["train rows", "dev rows", "holdout rows", "exercise rows"],
    ),
    ("dev", &["rows", "control mean", "candidate mean"]),
    (
        "holdout",
        &[
            "rows",
            "control mean",
            "candidate mean",
            "wins",
            "losses",
            "p",
            "difference low",
            "difference high",
        ],
    ),
    (
        "canary",
        &[
            "status",
            "pairs",
            "control failure rate",
            "candidate failure rate",
        ],
    ),
];

/// One gate in one line: `holdout  pass  rows 260, …, p 6.6e-8`.
fn gate_line(gate: &GateResult) -> String {
    let mut line = format!("{:<8} {}", gate.gate, gate.verdict.word());
    if let Some(skipped) = &gate.skipped {
        let _ = write!(line, " (skipped: {skipped})");
    }
    let shown = SHOWN
        .iter()
        .find(|(name, _)| *name == gate.gate)
        .map_or(&[][..], |(_, shown)| shown);
    let figures: Vec<String> = gate
        .figures
        .iter()
        .filter(|figure| shown.contains(&figure.name.as_str()))
        .map(|figure| format!("{} {}", figure.name, brief(&figure.value)))
        .collect();
    if !figures.is_empty() {
        let _ = write!(line, "  {}", figures.join(", "));
    }
    line
}

/// A value as a page shows it: three digits after the point, and small numbers in powers of ten.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            if float != 0.0 && float.abs() < 0.001 {
                format!("{float:.1e}")
            } else {
                format!("{float:.3}")
            }
        }
        other => other.to_string(),
    }
}

impl Page for Rehearsal {
    fn page(&self) -> String {
        let mut page = String::new();
        for step in &self.steps {
            let _ = writeln!(page, "{step}");
        }
        for missing in &self.missing {
            let _ = writeln!(page, "missing: {}; {}", missing.what, missing.remedy);
        }
        page
    }

    fn exit_code(&self) -> u8 {
        if self.missing.is_empty() { 0 } else { 4 }
    }
}
