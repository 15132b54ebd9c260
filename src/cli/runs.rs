//! `proofline runs`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;

use clap::Subcommand;
use serde_json::{Map, Value};

use crate::domain::operate::event::{Event, Level};
use crate::domain::operate::run::Status;
use crate::flows::runs::{self, Finish, Listed, NewEvent, Recorded, Start, Story, Streamed};
use crate::flows::verify_run::{self, Verified};
use crate::flows::{FlowError, Kind, Workspace, signatures};
use crate::id::{RunId, SignatureId};

use super::table::{duration, plural, shortened, table, time};
use super::{Exit, Page, Terminal};

/// Record runs, list them, tell their story, verify what they link to
///
/// Any tool may record its runs here:
///
///   id=$(proofline runs start --tool nightly-import)
///   proofline runs event "$id" --phase fetch --message "412 rows"
///   proofline runs finish "$id" --status finished
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Start(StartArgs),
    Event(EventArgs),
    Finish(FinishArgs),
    List(ListArgs),
    Show(ShowArgs),
    Verify(VerifyArgs),
}

/// Begin a run, and print its id
#[derive(Debug, clap::Args)]
struct StartArgs {
    /// Who makes it
    #[arg(long, value_name = "NAME")]
    tool: String,
    /// Its id; made from tool and date when absent
    #[arg(long, value_name = "ID")]
    id: Option<RunId>,
    /// A signature it is about (may be given several times)
    #[arg(long, value_name = "ID")]
    signature: Vec<String>,
    /// A note for people (may be given several times)
    #[arg(long, value_name = "TEXT")]
    note: Vec<String>,
    /// A link, as NAME=PLACE (may be given several times)
    #[arg(long, value_name = "NAME=PLACE", value_parser = pair)]
    link: Vec<(String, String)>,
}

/// Add to a run's story: one event, or many as JSON lines from standard input
///
/// A line is `{"phase": …, "message": …}`, with `level`, `json` and `ts` where they matter.
#[derive(Debug, clap::Args)]
struct EventArgs {
    /// The run
    run: RunId,
    /// Which step of the tool
    #[arg(long, value_name = "WORD", requires = "message")]
    phase: Option<String>,
    /// How it matters
    #[arg(long, default_value = "info", requires = "phase")]
    level: LevelArg,
    /// What happened, for people
    #[arg(long, short, value_name = "TEXT", requires = "phase")]
    message: Option<String>,
    /// The same for programs: a JSON object, or `-` for one on standard input
    #[arg(long, value_name = "JSON", requires = "phase")]
    json_data: Option<String>,
    /// `-`: read events from standard input, one JSON object a line
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with = "phase", required_unless_present = "phase")]
    lines: Option<String>,
}

/// End a run
#[derive(Debug, clap::Args)]
struct FinishArgs {
    /// The run
    run: RunId,
    /// How it ended
    #[arg(long)]
    status: StatusArg,
    /// Why; needed when it failed
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What it came to: a JSON object, or `-` for one on standard input
    #[arg(long, value_name = "JSON")]
    result: Option<String>,
    /// A note for people (may be given several times)
    #[arg(long, value_name = "TEXT")]
    note: Vec<String>,
    /// A link, as NAME=PLACE (may be given several times)
    #[arg(long, value_name = "NAME=PLACE", value_parser = pair)]
    link: Vec<(String, String)>,
}

/// List runs, newest first
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Tell a run's story
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The run
    run: RunId,
}

/// Follow every link of a run and do again what can be done again
///
/// Ends with 1 when something is wrong and with 3 when something is not here.
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The run
    run: RunId,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LevelArg {
    /// As planned
    Info,
    /// A person should know
    Warn,
    /// Something failed
    Error,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum StatusArg {
    /// It came to its end, whatever it concluded
    Finished,
    /// It could not come to its end
    Failed,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, place)) if !name.is_empty() && !place.is_empty() => {
            Ok((name.to_owned(), place.to_owned()))
        }
        _ => Err("it is not NAME=PLACE".to_owned()),
    }
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    // An event takes up its own run's spool, and stays in it until there is a batch to commit.
    if !matches!(args.verb, Verb::Event(_)) {
        take_up(&workspace, terminal)?;
    }
    match args.verb {
        Verb::Start(args) => start(args, &workspace, terminal),
        Verb::Event(args) => event(args, &workspace, terminal),
        Verb::Finish(args) => finish(args, &workspace, terminal),
        Verb::List(args) => terminal.show(&runs::list(&workspace, args.limit)?),
        Verb::Show(args) => terminal.show(&runs::show(&workspace, &args.run)?),
        Verb::Verify(args) => terminal.show(&verify_run::verify(&workspace, &args.run)?),
    }
}

/// What a crash left in a spool is taken up by whoever comes next.
fn take_up(workspace: &Workspace, terminal: &Terminal) -> Result<(), FlowError> {
    for note in runs::recover_spools(workspace)?.notes() {
        terminal.note(&format!("warning: {note}"));
    }
    Ok(())
}

fn start(args: StartArgs, workspace: &Workspace, terminal: &Terminal) -> Exit {
    let signatures = args
        .signature
        .iter()
        .map(|name| match name.parse::<SignatureId>() {
            Ok(id) => Ok(id),
            Err(_) => Ok(signatures::find(workspace, name)?.signature.id),
        })
        .collect::<Result<_, FlowError>>()?;
    let started = runs::start(
        workspace,
        Start {
            tool: args.tool,
            id: args.id,
            signatures,
            notes: args.note,
            links: args.link.into_iter().collect(),
        },
    )?;
    terminal.show(&started)
}

fn event(args: EventArgs, workspace: &Workspace, terminal: &Terminal) -> Exit {
    if args.lines.is_some() {
        let streamed = runs::stream(
            workspace,
            &args.run,
            "standard input",
            std::io::stdin().lock(),
        )?;
        if streamed.refused > 0 {
            let message = format!(
                "{} recorded, {} refused",
                plural(streamed.recorded, "event"),
                plural(streamed.refused, "line")
            );
            terminal.explain(&FlowError::input(message).at(streamed.faults.clone()));
        }
        return terminal.show(&streamed);
    }
    let entry = NewEvent {
        phase: args.phase.unwrap_or_default(),
        level: match args.level {
            LevelArg::Info => Level::Info,
            LevelArg::Warn => Level::Warn,
            LevelArg::Error => Level::Error,
        },
        message: args.message.unwrap_or_default(),
        json: object("--json-data", args.json_data.as_deref())?,
        ts: None,
    };
    terminal.show(&runs::event(workspace, &args.run, entry)?)
}

fn finish(args: FinishArgs, workspace: &Workspace, terminal: &Terminal) -> Exit {
    let finished = runs::finish(
        workspace,
        &args.run,
        Finish {
            status: match args.status {
                StatusArg::Finished => Status::Finished,
                StatusArg::Failed => Status::Failed,
            },
            reason: args.reason,
            result: object("--result", args.result.as_deref())?,
            links: args.link.into_iter().collect::<BTreeMap<_, _>>(),
            notes: args.note,
        },
    )?;
    terminal.show(&finished)
}

/// A JSON object that was given as an argument, or with `-` on standard input.
fn object(option: &str, text: Option<&str>) -> Result<Map<String, Value>, FlowError> {
    let Some(text) = text else {
        return Ok(Map::new());
    };
    let (name, bytes) = match text {
        "-" => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(|error| {
                    FlowError::outside(format!("cannot read standard input: {error}"))
                })?;
            ("standard input", bytes)
        }
        text => (option, text.as_bytes().to_vec()),
    };
    match crate::schema::json::parse(name, bytes)?.value {
        Value::Object(members) => Ok(members),
        _ => Err(FlowError::new(
            Kind::Usage,
            format!("{name} is not a JSON object"),
        )),
    }
}

impl Page for Recorded {
    fn page(&self) -> String {
        match self.run.status {
            Status::Running => format!("{}\n", self.run.id),
            status => format!("{} {}\n", self.run.id, word(status)),
        }
    }
}

impl Page for Event {
    fn page(&self) -> String {
        String::new()
    }
}

impl Page for Streamed {
    fn page(&self) -> String {
        format!("{}\n", plural(self.recorded, "event"))
    }

    fn exit_code(&self) -> u8 {
        match self.refused {
            0 => 0,
            _ => Kind::Input.exit_code(),
        }
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Finished => "finished",
        Status::Failed => "failed",
    }
}

impl Page for Listed {
    fn page(&self) -> String {
        if self.runs.is_empty() {
            return "No runs yet. `proofline overnight` makes one; other tools record theirs with `proofline runs start`.\n".to_owned();
        }
        let rows: Vec<Vec<String>> = self
            .runs
            .iter()
            .map(|run| {
                let names: Vec<&str> = run.signatures.iter().map(SignatureId::name).collect();
                vec![
                    run.id.to_string(),
                    run.tool.clone(),
                    word(run.status).to_owned(),
                    time(run.started),
                    run.duration_ms
                        .map(duration)
                        .unwrap_or_else(|| "-".to_owned()),
                    if names.is_empty() {
                        "-".to_owned()
                    } else {
                        names.join(",")
                    },
                    shortened(&run.result),
                ]
            })
            .collect();
        let mut page = table(
            &[
                "RUN",
                "TOOL",
                "STATUS",
                "STARTED (UTC)",
                "TOOK",
                "SIGNATURES",
                "RESULT",
            ],
            &rows,
        );
        if self.total > self.runs.len() {
            let _ = writeln!(
                page,
                "… and {} older ones; `--limit` shows more",
                self.total - self.runs.len()
            );
        }
        page
    }
}

impl Page for Story {
    fn page(&self) -> String {
        let mut page = String::new();
        if let Some(run) = &self.run {
            let _ = writeln!(page, "{} · {} · {}", run.id, run.tool, word(run.status));
            let mut facts = vec![vec![
                "began".to_owned(),
                format!("{} UTC", time(run.started)),
            ]];
            let mut fact = |name: &str, value: String| facts.push(vec![name.to_owned(), value]);
            if let Some(finished) = run.finished {
                let took = finished.as_millisecond() - run.started.as_millisecond();
                fact("took", duration(took));
            }
            if let Some(commit) = &run.commit {
                fact("code", commit.clone());
            }
            for signature in &run.signatures {
                fact("signature", signature.to_string());
            }
            for note in &run.notes {
                fact("note", note.clone());
            }
            let result = runs::summary(run);
            if !result.is_empty() {
                fact(
                    if run.reason.is_some() {
                        "reason"
                    } else {
                        "result"
                    },
                    result,
                );
            }
            page.push_str(&table(&["", ""], &facts));
        }
        let began = self
            .run
            .as_ref()
            .map(|run| run.started)
            .or(self.events.first().map(|event| event.ts));
        let rows: Vec<Vec<String>> = self
            .events
            .iter()
            .map(|event| {
                let since = event.ts.as_millisecond() - began.unwrap_or(event.ts).as_millisecond();
                let about = event
                    .json
                    .get("signature")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let mark = match event.level {
                    Level::Info => "",
                    Level::Warn => "! ",
                    Level::Error => "✗ ",
                };
                let message = event.message.replace('\n', " ⏎ ");
                vec![
                    format!("+{}", duration(since)),
                    event.phase.clone(),
                    about.rsplit('/').next().unwrap_or_default().to_owned(),
                    format!("{mark}{message}"),
                ]
            })
            .collect();
        if rows.is_empty() {
            page.push_str("\nNo events yet.\n");
        } else {
            page.push('\n');
            page.push_str(&table(&["", "", "", ""], &rows));
        }
        if let Some(run) = self.run.as_ref().filter(|run| !run.links.is_empty()) {
            page.push('\n');
            let links: Vec<Vec<String>> = run
                .links
                .iter()
                .map(|(name, place)| vec![name.clone(), place.clone()])
                .collect();
            page.push_str(&table(&["", ""], &links));
            let _ = writeln!(
                page,
                "\n`proofline runs verify {}` follows these links.",
                run.id
            );
        }
        page
    }
}

impl Page for Verified {
    fn page(&self) -> String {
        let mut page = String::new();
        for link in &self.links {
            let mark = match (&link.skipped, link.verdict.word()) {
                (Some(_), _) => "skipped",
                (None, word) => word,
            };
            let _ = writeln!(page, "{mark:<12}{}", link.gate);
            let indent = " ".repeat(12);
            if let Some(why) = &link.skipped {
                let _ = writeln!(page, "{indent}{why}");
            }
            if !link.verdict.is_pass() {
                let _ = writeln!(page, "{indent}{}", link.verdict);
            }
            for figure in &link.figures {
                let value = match &figure.value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let _ = writeln!(page, "{indent}{} = {value} ({})", figure.name, figure.label);
            }
        }
        let _ = writeln!(page, "\n{}: {}", self.run, self.verdict.word());
        page
    }

    fn exit_code(&self) -> u8 {
        Verified::exit_code(self)
    }
}
