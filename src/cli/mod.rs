//! The command line: one file per verb, each an `Args` and a short `run`. The
//! only place with clap and printing; what a verb does is a flow, below.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::flows::{FlowError, Kind, Workspace};

mod canary;
mod compile;
mod completions;
mod dataset;
mod eval;
mod exercise;
mod init;
mod overnight;
mod predict;
mod progress;
mod promote;
mod promotions;
mod quickstart;
mod receipts;
mod resolve;
mod rollback;
mod runs;
mod signature;
mod status;
mod table;

/// A git-native control plane for software that improves itself.
#[derive(Debug, Parser)]
#[command(
    name = "proofline",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Run as if started in this folder
    #[arg(short = 'C', long = "dir", value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: Color,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Quickstart(quickstart::Args),
    Init(init::Args),
    Signature(signature::Args),
    Dataset(dataset::Args),
    Overnight(overnight::Args),
    Compile(compile::Args),
    Eval(eval::Args),
    Canary(canary::Args),
    Exercise(exercise::Args),
    Predict(predict::Args),
    Resolve(resolve::Args),
    Promote(promote::Args),
    Rollback(rollback::Args),
    Promotions(promotions::Args),
    Status(status::Args),
    Runs(runs::Args),
    Receipts(receipts::Args),
    Completions(completions::Args),
}

/// What a verb has to work with, and where its output goes.
#[derive(Debug)]
pub struct Terminal {
    /// The options that every verb takes.
    pub global: Global,
}

/// What a verb returns: a page for people, a document for programs, an exit code.
pub trait Page: Serialize {
    /// What a person reads on standard output; ends with a newline, or is empty.
    fn page(&self) -> String;

    /// 0, or 1 and 3 for a gate's refusal and for what cannot be decided here.
    fn exit_code(&self) -> u8 {
        0
    }
}

/// The end of a verb.
pub type Exit = Result<u8, FlowError>;

impl Terminal {
    /// The folder to work in.
    pub fn dir(&self) -> Result<PathBuf, FlowError> {
        match &self.global.dir {
            Some(dir) => Ok(dir.clone()),
            None => std::env::current_dir().map_err(|error| {
                FlowError::outside(format!("the current folder cannot be read: {error}"))
            }),
        }
    }

    /// The repository, its configuration and the clock.
    pub fn workspace(&self) -> Result<Workspace, FlowError> {
        Workspace::open(&self.dir()?)
    }

    /// The same for a repository that need not be set up yet.
    pub fn unconfigured(&self) -> Result<Workspace, FlowError> {
        Workspace::open_unconfigured(&self.dir()?)
    }

    /// Print what a verb came to: its page, or with `--json` its document.
    pub fn show(&self, outcome: &impl Page) -> Exit {
        let text = if self.global.json {
            let mut text = serde_json::to_string_pretty(outcome).map_err(|error| {
                FlowError::bug(format!("the outcome does not serialise: {error}"))
            })?;
            text.push('\n');
            text
        } else {
            outcome.page()
        };
        self.print(&text)?;
        Ok(outcome.exit_code())
    }

    /// Write to standard output. A reader that went away (`| head`) is not an error.
    pub fn print(&self, text: &str) -> Result<(), FlowError> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(
                FlowError::outside(format!("cannot write to standard output: {error}")),
            ),
            _ => Ok(()),
        }
    }

    /// A line for people on standard error.
    pub fn note(&self, text: &str) {
        if !self.global.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Say what went wrong, on standard error.
    pub fn explain(&self, error: &FlowError) {
        let mut err = std::io::stderr().lock();
        let (red, bold, plain) = if self.has_color() {
            ("\x1b[31;1m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        // Standard error that went away changes nothing.
        for diagnostic in &error.diagnostics {
            let _ = writeln!(err, "{diagnostic}");
        }
        let _ = writeln!(err, "{red}error:{plain} {}", error.message);
        for hint in &error.hints {
            let _ = writeln!(err, "{bold}hint:{plain} {hint}");
        }
    }

    /// Whether standard error may carry colour and progress bars.
    pub fn is_lively(&self) -> bool {
        !self.global.quiet && std::io::stderr().is_terminal()
    }

    /// Whether standard error may carry colour.
    pub fn has_color(&self) -> bool {
        match self.global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                    && std::io::stderr().is_terminal()
            }
        }
    }
}

/// Run the command line and say how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too, with exit code 0.
            let code = if error.use_stderr() {
                Kind::Usage.exit_code()
            } else {
                0
            };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let terminal = Terminal { global: cli.global };
    match run(cli.verb, &terminal) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal.explain(&error);
            if terminal.global.json {
                let document = serde_json::json!({"error": error});
                let _ = terminal.print(&format!("{document:#}\n"));
            }
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run(verb: Verb, terminal: &Terminal) -> Exit {
    match verb {
        Verb::Compile(args) => compile::run(args, terminal),
        Verb::Completions(args) => completions::run(args, terminal),
        Verb::Eval(args) => eval::run(args, terminal),
        Verb::Overnight(args) => overnight::run(args, terminal),
        Verb::Predict(args) => predict::run(args, terminal),
        Verb::Resolve(args) => resolve::run(args, terminal),
        Verb::Init(args) => init::run(args, terminal),
        Verb::Promote(args) => promote::run(args, terminal),
        Verb::Rollback(args) => rollback::run(args, terminal),
        Verb::Promotions(args) => promotions::run(args, terminal),
        Verb::Runs(args) => runs::run(args, terminal),
        Verb::Signature(args) => signature::run(args, terminal),
        Verb::Dataset(args) => dataset::run(args, terminal),
        Verb::Quickstart(args) => quickstart::run(args, terminal),
        Verb::Status(args) => status::run(args, terminal),
        Verb::Canary(args) => canary::run(args, terminal),
        Verb::Exercise(args) => exercise::run(args, terminal),
        Verb::Receipts(args) => receipts::run(args, terminal),
    }
}
