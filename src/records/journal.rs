//! Runs and their events: spooled and synced at once, committed in batches.
//!
//! An event is on disk when [`Appender::append`] returns, in the spool under the
//! git common dir. [`Appender::commit`] moves what is spooled to the journal
//! branch, in segments, and confirms it to the spool. After a crash between the
//! two, the next [`Appender::open`] finds events in the spool that are committed
//! already, sees that the journal holds them, and does not commit them twice.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::domain::operate::event::{Event, Level};
use crate::domain::operate::run::Run;
use crate::host::files;
use crate::id::RunId;
use crate::schema::SchemaName;
use crate::store::spool::{Recovery, Spool, SpoolError};
use crate::store::{
    Author, Decision, Edit, Outcome, Snapshot, Store, Transaction, TreePath, segment,
};

use super::refs::path;
use super::{RecordError, Refs, document};

/// Appends to one run's log, and owns it for this process. Knows what is not
/// committed yet and nothing else of the log, so that it opens as fast after a
/// million events as after ten.
#[derive(Debug)]
pub struct Appender {
    store: Store,
    refs: Refs,
    run: RunId,
    spool: Spool,
    /// Events that are spooled and not committed, by number.
    pending: Vec<Event>,
    /// The last number that is committed.
    committed: u64,
    /// What opening the spool had to repair.
    pub recovery: Recovery,
}

/// The log of one run with everything that is in it, for whoever goes on with the run.
#[derive(Debug)]
pub struct RunLog {
    appender: Appender,
    /// Every event, committed or spooled, by number.
    events: Vec<Event>,
    /// What opening the spool had to repair.
    pub recovery: Recovery,
}

/// An event as its writer knows it; the log adds run and number.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When.
    pub ts: Timestamp,
    /// Which step.
    pub phase: String,
    /// How it matters.
    pub level: Level,
    /// For people.
    pub message: String,
    /// For programs.
    pub json: Map<String, Value>,
}

/// Why a run's log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has the run open, or the spool cannot be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Where a run's spool is.
pub fn spool_path(store: &Store, run: &RunId) -> Result<PathBuf, files::FileError> {
    let folder = store.local_dir()?.join("spool");
    files::create_dir(&folder)?;
    Ok(folder.join(format!("{run}.jsonl")))
}

/// The events of a run that are committed, in order.
pub fn events(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    run: &RunId,
) -> Result<Vec<Event>, RecordError> {
    let prefix = path::run(run, "events");
    let name = document::shown(&refs.journal, &prefix);
    segment::lines(snapshot, &prefix)?
        .enumerate()
        .map(|(index, line)| document::from_line(&name, index + 1, &line?))
        .collect()
}

/// The record of a run.
pub fn run(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    run: &RunId,
) -> Result<Option<Run>, RecordError> {
    document::load(
        snapshot,
        &refs.journal,
        &path::run(run, "run.yaml"),
        Some(SchemaName::Run),
    )
}

/// Every run, by id.
pub fn runs(snapshot: Option<&Snapshot>) -> Result<Vec<RunId>, RecordError> {
    let Some(snapshot) = snapshot else {
        return Ok(Vec::new());
    };
    snapshot
        .list(Some(&path::runs()))?
        .into_iter()
        .map(|(name, _)| {
            name.parse()
                .map_err(|error| RecordError::Other(format!("journal/runs: {error}")))
        })
        .collect()
}

impl Appender {
    /// Open a run's log for appending, taking up what a crash left in its spool.
    pub fn open(store: &Store, refs: &Refs, run: &RunId) -> Result<Self, LogError> {
        let (spool, recovery) = Spool::open(&spool_path(store, run)?, store.durability())?;
        let snapshot = store.snapshot(&refs.journal).map_err(RecordError::from)?;
        let committed = last_seq(refs, snapshot.as_ref(), &path::run(run, "events"))?;
        let name = spool.path().display().to_string();
        let spooled: Vec<Event> = spool
            .pending()
            .iter()
            .enumerate()
            .map(|(index, pending)| document::from_line(&name, index + 1, &pending.line))
            .collect::<Result<_, _>>()?;
        let mut log = Self {
            store: store.clone(),
            refs: refs.clone(),
            run: run.clone(),
            spool,
            pending: Vec::new(),
            committed,
            recovery,
        };
        log.pending = log.uncommitted(snapshot.as_ref(), spooled)?;
        Ok(log)
    }

    /// Those spooled events that the journal does not hold. A crash between a
    /// commit and its confirmation leaves events that it holds, under the same
    /// numbers; an event whose number another one has taken (another clone wrote
    /// to the run) gets a new one.
    fn uncommitted(
        &self,
        snapshot: Option<&Snapshot>,
        spooled: Vec<Event>,
    ) -> Result<Vec<Event>, RecordError> {
        let below = spooled
            .iter()
            .filter(|event| event.seq <= self.committed)
            .count();
        let depth = spooled
            .first()
            .map_or(0, |first| (self.committed + 1).saturating_sub(first.seq));
        let known: BTreeSet<Vec<u8>> = match below {
            0 => BTreeSet::new(),
            _ => segment::tail(snapshot, &path::run(&self.run, "events"), depth as usize)?
                .into_iter()
                .collect(),
        };
        let mut last = self.committed;
        let mut pending = Vec::new();
        for mut event in spooled {
            if known.contains(document::to_line(&event)?.as_bytes()) {
                continue;
            }
            event.seq = event.seq.max(last + 1);
            last = event.seq;
            pending.push(event);
        }
        Ok(pending)
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Events that are spooled and not committed.
    pub fn pending(&self) -> &[Event] {
        &self.pending
    }

    /// Append events with one sync for all; they are on disk when this returns. Gives them as they were written.
    pub fn append(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<&[Event], LogError> {
        let before = self.pending.len();
        let next = self.pending.last().map_or(self.committed, |last| last.seq) + 1;
        let mut fresh: Vec<Event> = (next..)
            .zip(entries)
            .map(|(seq, entry)| self.numbered(seq, entry))
            .collect();
        let lines: Vec<String> = fresh
            .iter()
            .map(document::to_line)
            .collect::<Result<_, _>>()?;
        if !lines.is_empty() {
            self.spool.append_all(&lines)?;
        }
        self.pending.append(&mut fresh);
        Ok(&self.pending[before..])
    }

    fn numbered(&self, seq: u64, entry: Entry) -> Event {
        Event {
            run: self.run.clone(),
            seq,
            ts: entry.ts,
            phase: entry.phase,
            level: entry.level,
            message: entry.message,
            json: entry.json,
        }
        .bounded()
    }

    /// Commit what is spooled, and the run's record when it changed.
    pub fn commit(
        &mut self,
        author: &Author,
        record: Option<&Run>,
        subject: &str,
    ) -> Result<Outcome, LogError> {
        let prefix = path::run(&self.run, "events");
        let through = self.spool.last_sequence();
        let transaction = Transaction::new(self.refs.journal.clone(), author.clone());
        let lines: Vec<String> = self
            .pending
            .iter()
            .map(document::to_line)
            .collect::<Result<_, _>>()?;
        let outcome = self
            .store
            .transact(&transaction, |snapshot| -> Result<Decision, RecordError> {
                let known = last_seq(&self.refs, snapshot, &prefix)?;
                if known != self.committed {
                    return Err(RecordError::Other(format!(
                        "somebody else wrote to the log of run `{}`: it ends with event {known}, not {}; do it again, and the events here get new numbers",
                        self.run, self.committed
                    )));
                }
                let mut edits = match lines.is_empty() {
                    true => Vec::new(),
                    false => segment::append(snapshot, &prefix, &lines)?,
                };
                if let Some(record) = record {
                    edits.push(Edit::Put {
                        path: path::run(&self.run, "run.yaml"),
                        bytes: document::to_yaml(record)?,
                    });
                }
                Ok(Decision::Commit {
                    edits,
                    message: format!("journal: {subject}\n\nRun: {}\n", self.run),
                })
            })
            .map_err(RecordError::from)?;
        self.committed = self.pending.last().map_or(self.committed, |last| last.seq);
        self.pending.clear();
        self.spool.confirm(through)?;
        Ok(outcome)
    }
}

impl RunLog {
    /// Open a run's log with all its events, taking up what a crash left in its spool.
    pub fn open(store: &Store, refs: &Refs, run: &RunId) -> Result<Self, LogError> {
        let appender = Appender::open(store, refs, run)?;
        let snapshot = store.snapshot(&refs.journal).map_err(RecordError::from)?;
        let mut events = events(refs, snapshot.as_ref(), run)?;
        events.extend(appender.pending.iter().cloned());
        Ok(Self {
            recovery: appender.recovery.clone(),
            appender,
            events,
        })
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.appender.run
    }

    /// Every event so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many events are not committed yet.
    pub fn pending(&self) -> usize {
        self.appender.pending.len()
    }

    /// Append an event; it is on disk when this returns.
    pub fn event(
        &mut self,
        ts: Timestamp,
        phase: &str,
        level: Level,
        message: impl Into<String>,
        json: Map<String, Value>,
    ) -> Result<&Event, LogError> {
        let entry = Entry {
            ts,
            phase: phase.to_owned(),
            level,
            message: message.into(),
            json,
        };
        self.events
            .extend_from_slice(self.appender.append([entry])?);
        Ok(self.events.last().expect("because one was pushed just now"))
    }

    /// Commit what is spooled, and the run's record when it changed.
    pub fn commit(
        &mut self,
        author: &Author,
        record: Option<&Run>,
        subject: &str,
    ) -> Result<Outcome, LogError> {
        self.appender.commit(author, record, subject)
    }
}

/// The runs of which a spool in this clone holds something: events that are not
/// committed, or damage. The spools are read, not opened: others may be writing to them.
pub fn spooled(store: &Store) -> Result<Vec<RunId>, files::FileError> {
    let folder = store.local_dir()?.join("spool");
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(files::FileError::at("list", &folder))?,
    };
    let mut runs = Vec::new();
    for entry in entries {
        let path = entry.map_err(files::FileError::at("list", &folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jsonl"));
        // Locks and copies that were set aside have other endings.
        let Some(Ok(run)) = name.map(str::parse::<RunId>) else {
            continue;
        };
        let bytes = files::read_optional(&path)?.unwrap_or_default();
        let is_empty_spool =
            bytes.iter().filter(|byte| **byte == b'\n').count() == 1 && bytes.ends_with(b"\n");
        if !is_empty_spool && !bytes.is_empty() {
            runs.push(run);
        }
    }
    runs.sort();
    Ok(runs)
}

fn last_seq(
    refs: &Refs,
    snapshot: Option<&Snapshot>,
    prefix: &TreePath,
) -> Result<u64, RecordError> {
    match segment::last_line(snapshot, prefix)? {
        Some(line) => {
            let event: Event =
                document::from_line(&document::shown(&refs.journal, prefix), 0, &line)?;
            Ok(event.seq)
        }
        None => Ok(0),
    }
}
