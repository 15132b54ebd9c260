//! Runs of any tool: begin one, add to its story, end it; list and show them;
//! and take up what a crash left in a spool.

use std::collections::BTreeMap;
use std::io::Read;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::operate::event::{Event, Level};
use crate::domain::operate::output;
use crate::domain::operate::redact::Redactor;
use crate::domain::operate::run::{Run, Status};
use crate::host::lock::LockError;
use crate::id::{RunId, SignatureId};
use crate::records::journal::{self, Appender, Entry, LogError};
use crate::schema::{Diagnostic, Diagnostics, json};
use crate::store::Snapshot;
use crate::store::spool::{Recovery, SpoolError};

use super::{FlowError, Workspace, commands};

/// Events that a spool may hold before they are committed.
const PENDING_MAX: usize = 256;
/// Longest line of events on standard input, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest phase, in characters.
const PHASE_CHARS_MAX: usize = 100;

/// A run to begin.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Who makes it.
    pub tool: String,
    /// Its id; made from tool and date when absent.
    pub id: Option<RunId>,
    /// The signatures it is about.
    pub signatures: Vec<SignatureId>,
    /// For people.
    pub notes: Vec<String>,
    /// Name to place; see [`crate::domain::operate::run::link`].
    pub links: BTreeMap<String, String>,
}

/// A run that began or ended.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// Its record.
    pub run: Run,
    /// The journal commit that holds it.
    pub commit: String,
}

/// Begin a run of another tool. The id must be new.
pub fn start(workspace: &Workspace, start: Start) -> Result<Recorded, FlowError> {
    let id = match start.id {
        Some(id) => id,
        None => new_id(workspace, &start.tool)?,
    };
    let record = Run {
        schema: Run::SCHEMA.to_owned(),
        id: id.clone(),
        tool: start.tool,
        status: Status::Running,
        reason: None,
        started: workspace.clock.now(),
        finished: None,
        commit: workspace.code_commit(),
        signatures: start.signatures,
        notes: start.notes,
        links: start.links,
        result: Map::new(),
    };
    let mut log = open(workspace, &id)?;
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    let exists = journal::run(&workspace.refs, snapshot.as_ref(), &id)?.is_some();
    if exists || !log.pending().is_empty() {
        return Err(FlowError::usage(format!("run `{id}` exists"))
            .hint(format!("`proofline runs show {id}` tells its story")));
    }
    record_in(workspace, &mut log, record, "a run begins")
}

/// Add one event. It is on disk on return; it is committed with the next batch, at the latest when the run ends.
pub fn event(workspace: &Workspace, run: &RunId, entry: NewEvent) -> Result<Event, FlowError> {
    let mut log = open_running(workspace, run)?;
    let redactor = commands::redactor(workspace, &[]);
    let entry = entry
        .checked(workspace, &redactor)
        .map_err(FlowError::usage)?;
    let event = log.append([entry])?.last().cloned();
    if log.pending().len() >= PENDING_MAX {
        log.commit(&workspace.author()?, None, "events")?;
    }
    event.ok_or_else(|| FlowError::bug("an event was appended and is not there"))
}

/// Note in a run that a step taken by hand is part of it.
pub fn note(
    workspace: &Workspace,
    run: &RunId,
    phase: &str,
    signature: &SignatureId,
    message: &str,
) -> Result<(), FlowError> {
    let entry = NewEvent {
        phase: phase.to_owned(),
        level: Level::Info,
        message: message.to_owned(),
        json: Map::from_iter([("signature".to_owned(), signature.as_str().into())]),
        ts: None,
    };
    event(workspace, run, entry).map(drop)
}

/// An event as a tool gives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Which step of the tool.
    pub phase: String,
    /// How it matters.
    #[serde(default = "info")]
    pub level: Level,
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(default)]
    pub json: Map<String, Value>,
    /// When; now when absent.
    #[serde(default)]
    pub ts: Option<Timestamp>,
}

fn info() -> Level {
    Level::Info
}

impl NewEvent {
    fn checked(self, workspace: &Workspace, redactor: &Redactor) -> Result<Entry, String> {
        let chars = self.phase.chars().count();
        if chars == 0 || chars > PHASE_CHARS_MAX || self.phase.chars().any(char::is_control) {
            return Err(format!(
                "a phase has 1 to {PHASE_CHARS_MAX} characters, without control characters"
            ));
        }
        let json = redacted(Value::Object(self.json), redactor);
        crate::canon::to_bytes(&json).map_err(|error| error.to_string())?;
        Ok(Entry {
            ts: self.ts.unwrap_or_else(|| workspace.clock.now()),
            phase: self.phase,
            level: self.level,
            message: redactor.redact(&output::plain(self.message.as_bytes())),
            json: match json {
                Value::Object(members) => members,
                _ => Map::new(),
            },
        })
    }
}

/// A value with every text in it redacted.
fn redacted(value: Value, redactor: &Redactor) -> Value {
    match value {
        Value::String(text) => Value::String(redactor.redact(&text)),
        Value::Array(items) => items
            .into_iter()
            .map(|item| redacted(item, redactor))
            .collect(),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, member)| (redactor.redact(&name), redacted(member, redactor)))
                .collect(),
        ),
        other => other,
    }
}

/// What came of a stream of events.
#[derive(Debug, Clone, Serialize)]
pub struct Streamed {
    /// The run.
    pub run: RunId,
    /// Events recorded.
    pub recorded: u64,
    /// Lines refused.
    pub refused: u64,
    /// Why, line by line.
    pub faults: Vec<Diagnostic>,
}

/// Add events from a stream of JSON lines, as they come: what has arrived is on
/// disk before more is waited for. A line that is not an event is refused and
/// reported, and the others count: a story with a hole is better than none.
pub fn stream(
    workspace: &Workspace,
    run: &RunId,
    name: &str,
    mut from: impl Read,
) -> Result<Streamed, FlowError> {
    let mut log = open_running(workspace, run)?;
    let redactor = commands::redactor(workspace, &[]);
    let author = workspace.author()?;
    let (mut recorded, mut line_number) = (0, 0);
    let mut faults = Diagnostics::new();
    let mut rest: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut is_too_long = false;
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => {
                other.map_err(|error| FlowError::outside(format!("cannot read {name}: {error}")))?
            }
        };
        rest.extend_from_slice(&buffer[..read]);
        if read == 0 && !rest.is_empty() {
            rest.push(b'\n');
        }
        let mut entries = Vec::new();
        let whole = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            line_number += 1;
            if std::mem::take(&mut is_too_long) {
                continue;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match parsed(name, line, line_number, workspace, &redactor) {
                Ok(entry) => entries.push(entry),
                Err(wrong) => faults.append(wrong),
            }
        }
        rest.drain(..whole);
        if rest.len() > LINE_BYTES_MAX {
            // The rest of the line is dropped as it comes; it is counted when it ends.
            if !is_too_long {
                let mut fault = Diagnostic::of_file(
                    name,
                    format!("the line has more than {LINE_BYTES_MAX} bytes"),
                );
                fault.line = line_number + 1;
                faults.push(fault);
            }
            is_too_long = true;
            rest.clear();
        }
        recorded += log.append(entries)?.len() as u64;
        if log.pending().len() >= PENDING_MAX || read == 0 {
            log.commit(&author, None, "events")?;
        }
        if read == 0 {
            break;
        }
        if workspace.interrupt.is_set() {
            log.commit(&author, None, "events")?;
            return Err(FlowError::interrupted().hint(format!("{recorded} events were recorded")));
        }
    }
    Ok(Streamed {
        run: run.clone(),
        recorded,
        refused: faults.total() as u64,
        faults: faults.iter().cloned().collect(),
    })
}

fn parsed(
    name: &str,
    line: &[u8],
    number: usize,
    workspace: &Workspace,
    redactor: &Redactor,
) -> Result<Entry, Diagnostics> {
    let placed = |wrong: Diagnostics| {
        let mut moved = Diagnostics::new();
        for mut fault in wrong {
            fault.line += number - 1;
            moved.push(fault);
        }
        moved
    };
    let document = json::parse(name, line.trim_ascii_end()).map_err(placed)?;
    let event: NewEvent = document.read().map_err(placed)?;
    event.checked(workspace, redactor).map_err(|reason| {
        let mut wrong = Diagnostics::new();
        wrong.push(document.source.at("", reason));
        placed(wrong)
    })
}

/// How a run ends.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Finished or failed.
    pub status: Status,
    /// Why, when it failed.
    pub reason: Option<String>,
    /// What it came to.
    pub result: Map<String, Value>,
    /// Links to add.
    pub links: BTreeMap<String, String>,
    /// Notes to add.
    pub notes: Vec<String>,
}

/// End a run. It must have begun, and not have ended.
pub fn finish(workspace: &Workspace, run: &RunId, finish: Finish) -> Result<Recorded, FlowError> {
    if finish.status == Status::Failed
        && finish
            .reason
            .as_ref()
            .is_none_or(|reason| reason.trim().is_empty())
    {
        return Err(
            FlowError::usage("a run that failed needs a reason").hint("add `--reason TEXT`")
        );
    }
    let mut log = open(workspace, run)?;
    let mut record = running(workspace, run)?;
    let redactor = commands::redactor(workspace, &[]);
    record.status = finish.status;
    record.reason = finish.reason.map(|reason| redactor.redact(&reason));
    record.finished = Some(workspace.clock.now());
    if let Value::Object(result) = redacted(Value::Object(finish.result), &redactor) {
        record.result.extend(result);
    }
    record.links.extend(finish.links);
    record.notes.extend(finish.notes);
    let subject = match record.status {
        Status::Failed => "a run failed",
        _ => "a run ends",
    };
    record_in(workspace, &mut log, record, subject)
}

fn record_in(
    workspace: &Workspace,
    log: &mut Appender,
    run: Run,
    subject: &str,
) -> Result<Recorded, FlowError> {
    // What we write must be what we would read: the schema bounds what tools hand in.
    let text = crate::records::document::to_yaml(&run)?;
    crate::records::document::from_yaml::<Run>(
        "the run's record",
        text,
        Some(crate::schema::SchemaName::Run),
    )?;
    let outcome = log.commit(
        &workspace.author()?,
        Some(&run),
        &format!("{subject}: {}", run.tool),
    )?;
    let commit = outcome
        .tip()
        .ok_or_else(|| FlowError::bug("a run was committed, and the journal has no tip"))?;
    Ok(Recorded {
        run,
        commit: commit.to_string(),
    })
}

/// The record of a run that has not ended.
fn running(workspace: &Workspace, run: &RunId) -> Result<Run, FlowError> {
    let record = record(workspace, run)?;
    if record.status != Status::Running {
        return Err(FlowError::usage(format!(
            "run `{run}` has ended; what has ended is not changed"
        ))
        .hint("begin a new one: `proofline runs start --tool NAME`"));
    }
    Ok(record)
}

/// The record of a run.
pub fn record(workspace: &Workspace, run: &RunId) -> Result<Run, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    journal::run(&workspace.refs, snapshot.as_ref(), run)?
        .ok_or_else(|| unknown(workspace, snapshot.as_ref(), run))
}

/// There is no such run; perhaps one of a name much like it.
pub(super) fn unknown(
    workspace: &Workspace,
    snapshot: Option<&Snapshot>,
    run: &RunId,
) -> FlowError {
    let mut error = FlowError::usage(format!(
        "there is no run `{run}` in {}",
        workspace.refs.journal
    ));
    let runs = journal::runs(snapshot).unwrap_or_default();
    let names: Vec<&str> = runs.iter().map(RunId::as_str).collect();
    error
        .hints
        .extend(crate::schema::did_you_mean(run.as_str(), &names));
    error.hint("`proofline runs list` shows the runs")
}

fn open(workspace: &Workspace, run: &RunId) -> Result<Appender, FlowError> {
    let log = Appender::open(&workspace.store, &workspace.refs, run);
    log.map_err(|error| match error {
        LogError::Spool(SpoolError::Lock(LockError::Held { holder, .. })) => {
            FlowError::outside(format!("run `{run}` is being written to by {holder}"))
        }
        other => other.into(),
    })
}

fn open_running(workspace: &Workspace, run: &RunId) -> Result<Appender, FlowError> {
    running(workspace, run)?;
    let mut log = open(workspace, run)?;
    if let Some(words) = repaired(&log.recovery) {
        log.append([repair_entry(workspace, words)])?;
    }
    Ok(log)
}

fn repair_entry(workspace: &Workspace, message: String) -> Entry {
    Entry {
        ts: workspace.clock.now(),
        phase: "recovery".to_owned(),
        level: Level::Warn,
        message,
        json: Map::new(),
    }
}

/// What opening a spool had to repair, in a sentence; `None` when it was sound.
pub fn repaired(recovery: &Recovery) -> Option<String> {
    if *recovery == Recovery::default() {
        return None;
    }
    let mut words = Vec::new();
    if recovery.torn_bytes > 0 {
        words.push(format!(
            "an event that a crash cut short ({} bytes) was dropped; it had not been confirmed to its writer",
            recovery.torn_bytes
        ));
    }
    if !recovery.damaged_lines.is_empty() {
        let lines: Vec<String> = recovery.damaged_lines.iter().map(u64::to_string).collect();
        words.push(format!(
            "the spool was damaged at line {}; the sound lines were kept",
            lines.join(", ")
        ));
    }
    if let Some(path) = &recovery.set_aside {
        // Only the name: the folder is the git directory's own.
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        words.push(format!(
            "the damaged file is kept as proofline/spool/{}",
            name.unwrap_or_default()
        ));
    }
    Some(words.join("; "))
}

fn new_id(workspace: &Workspace, tool: &str) -> Result<RunId, FlowError> {
    let word: String = tool
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(24)
        .collect();
    let word = match word.trim_matches('-') {
        "" => "run",
        word => word,
    };
    let day = workspace.clock.now().strftime("%Y-%m-%d").to_string();
    // The end of a v7 UUID is random.
    let random = uuid::Uuid::now_v7().simple().to_string();
    Ok(format!("{word}-{day}-{}", &random[24..]).parse()?)
}

/// What was taken up from spools.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovered {
    /// Runs whose spooled events are committed now.
    pub runs: Vec<RecoveredRun>,
    /// Runs that another process is writing to.
    pub held: Vec<RunId>,
    /// What could not be taken up, and why; it stays in its spool.
    pub failed: Vec<String>,
}

/// One run's spool.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveredRun {
    /// The run.
    pub run: RunId,
    /// Events committed.
    pub events: u64,
    /// What had to be repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
}

impl Recovered {
    /// What a person should know, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .runs
            .iter()
            .filter_map(|run| {
                run.repaired
                    .as_ref()
                    .map(|repaired| format!("run {}: {repaired}", run.run))
            })
            .collect();
        notes.extend(self.failed.iter().cloned());
        notes
    }
}

/// Commit what crashed processes left in their spools. A run that another
/// process holds is left to it; a spool that cannot be taken up is reported and
/// stays where it is, and the others are taken up all the same.
pub fn recover_spools(workspace: &Workspace) -> Result<Recovered, FlowError> {
    let mut recovered = Recovered::default();
    for run in journal::spooled(&workspace.store)? {
        let taken = Appender::open(&workspace.store, &workspace.refs, &run);
        let mut log = match taken {
            Ok(log) => log,
            Err(LogError::Spool(SpoolError::Lock(LockError::Held { .. }))) => {
                recovered.held.push(run);
                continue;
            }
            Err(error) => {
                recovered
                    .failed
                    .push(format!("the spool of run {run} was left as it is: {error}"));
                continue;
            }
        };
        match take_up(workspace, &mut log) {
            Ok(Some(run)) => recovered.runs.push(run),
            Ok(None) => {}
            Err(error) => recovered
                .failed
                .push(format!("the spool of run {run} was left as it is: {error}")),
        }
    }
    Ok(recovered)
}

fn take_up(workspace: &Workspace, log: &mut Appender) -> Result<Option<RecoveredRun>, FlowError> {
    let events = log.pending().len() as u64;
    let repaired = repaired(&log.recovery);
    if let Some(words) = &repaired {
        log.append([repair_entry(workspace, words.clone())])?;
    }
    log.commit(
        &workspace.author()?,
        None,
        "events that were left in a spool",
    )?;
    Ok((events > 0 || repaired.is_some()).then(|| RecoveredRun {
        run: log.run().clone(),
        events,
        repaired,
    }))
}

/// Runs, newest first.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// One line each.
    pub runs: Vec<Row>,
    /// How many there are in all.
    pub total: usize,
}

/// One run in a list.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The run.
    pub id: RunId,
    /// Who made it.
    pub tool: String,
    /// Where it stands.
    pub status: Status,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in milliseconds; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// What it was about.
    pub signatures: Vec<SignatureId>,
    /// What it came to, in a few words.
    pub result: String,
}

/// Every record, newest first.
pub fn records(workspace: &Workspace) -> Result<Vec<Run>, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    let mut records = Vec::new();
    for id in journal::runs(snapshot.as_ref())? {
        // Events without a record: the run's first commit has not come yet.
        records.extend(journal::run(&workspace.refs, snapshot.as_ref(), &id)?);
    }
    records.sort_by(|left: &Run, right| {
        right
            .started
            .cmp(&left.started)
            .then_with(|| right.id.cmp(&left.id))
    });
    Ok(records)
}

/// List the newest runs.
pub fn list(workspace: &Workspace, most: usize) -> Result<Listed, FlowError> {
    let records = records(workspace)?;
    Ok(Listed {
        total: records.len(),
        runs: records.iter().take(most).map(row).collect(),
    })
}

fn row(run: &Run) -> Row {
    Row {
        id: run.id.clone(),
        tool: run.tool.clone(),
        status: run.status,
        started: run.started,
        duration_ms: run
            .finished
            .map(|finished| finished.as_millisecond() - run.started.as_millisecond()),
        signatures: run.signatures.clone(),
        result: summary(run),
    }
}

/// What a run came to, in a few words.
pub fn summary(run: &Run) -> String {
    let conclusions: Vec<String> = run
        .result
        .iter()
        .filter_map(|(name, value)| {
            let word = value
                .as_str()
                .or_else(|| value.get("conclusion")?.as_str())?;
            let name = name.rsplit('/').next().unwrap_or(name);
            Some(format!("{name} {}", word.replace('_', " ")))
        })
        .collect();
    match &run.reason {
        Some(reason) => reason.clone(),
        None => conclusions.join(", "),
    }
}

/// A run's story.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// Its record; absent when only its events came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Its events, in order.
    pub events: Vec<Event>,
}

/// Tell a run's story.
pub fn show(workspace: &Workspace, run: &RunId) -> Result<Story, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    let story = Story {
        run: journal::run(&workspace.refs, snapshot.as_ref(), run)?,
        events: journal::events(&workspace.refs, snapshot.as_ref(), run)?,
    };
    if story.run.is_none() && story.events.is_empty() {
        record(workspace, run)?;
    }
    Ok(story)
}
