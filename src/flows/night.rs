//! `proofline overnight`: one night of self-improvement.
//!
//! preflight → verify commands → import → compile → holdout gate → canary start →
//! exercise → decide → e2e commands → promote, propose or stop → finish.
//!
//! Every step is idempotent under the run id and leaves an event that says what
//! it did, so that a resumed night takes the answers of finished steps from the
//! events and repeats nothing that was committed. The run always finishes: a
//! failure is a finished record with a status and a reason.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::domain::improve::search::Progress;
use crate::domain::improve::signature::Signature;
use crate::domain::operate::event::{Event, Level};
use crate::domain::operate::run::{self, Run, Status};
use crate::domain::prove::policy::Policy;
use crate::id::{RunId, SignatureId};
use crate::records::control::Control;
use crate::records::journal::{self, LogError, RunLog};
use crate::store::spool::Recovery;

use super::night_signature::{self, Conclusion, SignatureNight};
use super::predict::Engine;
use super::{FlowError, Kind, Workspace, preflight, signatures};
use crate::domain::operate::run::{Link, link};
use crate::domain::prove::promotion::Bound;
use crate::store::{RefName, TreePath};

/// How a night is run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Options {
    /// The signatures; all of them when empty.
    pub signatures: Vec<SignatureId>,
    /// The run's id; made when absent.
    #[serde(skip)]
    pub run: Option<RunId>,
    /// Go on with the run, under the options it began with, instead of beginning it.
    #[serde(skip)]
    pub resume: bool,
    /// Propose, even where the policy would promote directly.
    pub propose: bool,
    /// Stop before anything comes into force.
    pub no_promote: bool,
    /// Skip the e2e commands, for this reason.
    pub no_e2e: Option<String>,
    /// The e2e commands' output must match this.
    pub e2e_grep: Option<String>,
    /// Recorded traffic for the canary; exercise rows when absent.
    pub traffic: Option<PathBuf>,
    /// Predictions in flight at most; the model's own limit when absent.
    pub concurrency: Option<usize>,
}

/// Who is told how a night goes, while it goes.
pub trait Watcher {
    /// Something was recorded.
    fn event(&mut self, event: &Event);
    /// A search goes on.
    fn progress(&mut self, signature: &SignatureId, progress: &Progress<'_>);
}

/// What a night came to: the summary that is printed, whatever happened.
#[derive(Debug, Clone, Serialize)]
pub struct Night {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub status: Status,
    /// Why, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error behind the reason, with its hints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FlowError>,
    /// Whether it went on from an interrupted one.
    pub resumed: bool,
    /// What it came to, per signature.
    pub signatures: Vec<SignatureNight>,
    /// What calls took and cost in this process; a resumed night's earlier calls are on its events.
    pub meter: crate::models::meter::Snapshot,
    /// The journal commit that holds the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Night {
    /// 0 when every signature came to its truthful end; 1 when a gate that a person
    /// should look at refused; the kind's code when something failed.
    pub fn exit_code(&self) -> u8 {
        if let Some(error) = &self.error {
            return error.kind.exit_code();
        }
        let worst = self
            .signatures
            .iter()
            .map(|night| night.conclusion.exit_code())
            .max();
        worst.unwrap_or(0)
    }
}

/// The member of a step's event that holds what it linked.
const LINKS: &str = "links";

/// A night under way: the log, and who watches it.
pub struct Diary<'a> {
    workspace: &'a Workspace,
    log: RunLog,
    watcher: &'a mut dyn Watcher,
    /// What the record links to, name to `ref:commit:path`.
    pub links: BTreeMap<String, String>,
}

impl std::fmt::Debug for Diary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Diary")
            .field("run", self.log.run())
            .finish_non_exhaustive()
    }
}

impl From<LogError> for FlowError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Record(error) => error.into(),
            other => Self::outside(other),
        }
    }
}

impl<'a> Diary<'a> {
    /// The repository.
    pub fn workspace(&self) -> &'a Workspace {
        self.workspace
    }

    /// Link the record to something committed.
    pub fn link(
        &mut self,
        name: &str,
        signature: &SignatureId,
        reference: &RefName,
        commit: &str,
        path: &TreePath,
    ) {
        let place = Link {
            reference: reference.to_string(),
            commit: commit.to_owned(),
            path: path.to_string(),
            entry: None,
        };
        self.links
            .insert(link::key(name, Some(signature)), place.to_string());
    }

    /// Link the record to evidence, if there is any.
    pub fn link_bound(
        &mut self,
        name: &str,
        signature: Option<&SignatureId>,
        bound: Option<&Bound>,
    ) {
        if let Some(bound) = bound {
            self.links
                .insert(link::key(name, signature), Link::from(bound).to_string());
        }
    }

    /// Everything that is linked about a signature, with the digests of the bytes, for a statement to bind.
    pub fn bound(&self, signature: &SignatureId) -> Result<Vec<Bound>, FlowError> {
        let mut bound = Vec::new();
        for (key, text) in &self.links {
            let (name, about) = link::parse_key(key);
            if about.as_ref().is_some_and(|about| about != signature) {
                continue;
            }
            let place: Link = text.parse().map_err(FlowError::bug)?;
            let commit = place.commit.parse()?;
            let bytes = self
                .workspace
                .store
                .snapshot_at(commit)?
                .read(&place.path.parse()?)?;
            let bytes = bytes
                .ok_or_else(|| FlowError::bug(format!("{text} was linked and is not there")))?;
            bound.push(Bound {
                name: name.to_owned(),
                reference: place.reference,
                commit: place.commit,
                path: place.path,
                digest: crate::id::Digest::of(&bytes),
            });
        }
        Ok(bound)
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        self.log.run()
    }

    /// Record something.
    pub fn note(
        &mut self,
        phase: &str,
        level: Level,
        signature: Option<&SignatureId>,
        message: impl Into<String>,
        mut json: Map<String, Value>,
    ) -> Result<(), FlowError> {
        if let Some(signature) = signature {
            json.insert("signature".to_owned(), Value::from(signature.as_str()));
        }
        let event = self
            .log
            .event(self.workspace.clock.now(), phase, level, message, json)?;
        self.watcher.event(event);
        Ok(())
    }

    /// Take a step once: its result from the events when it is done already, else by
    /// doing it and recording the result. `say` is the event's message.
    pub fn step<T: Serialize + DeserializeOwned>(
        &mut self,
        phase: &str,
        signature: Option<&SignatureId>,
        act: impl FnOnce(&mut Self) -> Result<T, FlowError>,
        say: impl FnOnce(&T) -> (Level, String),
    ) -> Result<T, FlowError> {
        if let Some(event) = run::step_done(self.log.events(), phase, signature) {
            let unreadable = |error: serde_json::Error| {
                FlowError::input(format!(
                    "the run's event about `{phase}` cannot be read: {error}"
                ))
                .hint("it was written by another version; begin a new run")
            };
            if let Some(links) = event.json.get(LINKS) {
                let links: BTreeMap<String, String> =
                    serde_json::from_value(links.clone()).map_err(unreadable)?;
                self.links.extend(links);
            }
            return serde_json::from_value(event.json[run::STEP_DONE].clone()).map_err(unreadable);
        }
        self.stop_if_asked()?;
        let before = self.links.clone();
        let result = act(self)?;
        let (level, message) = say(&result);
        let value = serde_json::to_value(&result).map_err(|error| {
            FlowError::bug(format!(
                "the result of `{phase}` does not serialise: {error}"
            ))
        })?;
        let mut json = Map::from_iter([(run::STEP_DONE.to_owned(), value)]);
        // What the step linked is part of what it left: a resumed run takes it from here.
        let new: Map<String, Value> = self
            .links
            .iter()
            .filter(|(key, place)| before.get(*key) != Some(place))
            .map(|(key, place)| (key.clone(), Value::from(place.as_str())))
            .collect();
        if !new.is_empty() {
            json.insert(LINKS.to_owned(), Value::Object(new));
        }
        self.note(phase, level, signature, message, json)?;
        Ok(result)
    }

    /// Report on a search.
    pub fn progress(&mut self, signature: &SignatureId, progress: &Progress<'_>) {
        self.watcher.progress(signature, progress);
    }

    /// End the night here when the user asked to.
    pub fn stop_if_asked(&self) -> Result<(), FlowError> {
        if self.workspace.interrupt.is_set() {
            return Err(FlowError::interrupted());
        }
        Ok(())
    }

    fn commit(&mut self, record: Option<&Run>, subject: &str) -> Result<Option<String>, FlowError> {
        let author = self.workspace.author()?;
        let outcome = self.log.commit(&author, record, subject)?;
        Ok(outcome.tip().map(|tip| tip.to_string()))
    }
}

/// Run a night, or go on with one. An error is only what left no record: the
/// repository cannot be used, or the run is open elsewhere.
pub fn run(
    workspace: &Workspace,
    engine: &Engine,
    options: &Options,
    watcher: &mut dyn Watcher,
) -> Result<Night, FlowError> {
    let run = match &options.run {
        Some(run) => run.clone(),
        None => new_run_id(workspace)?,
    };
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    let earlier = journal::run(&workspace.refs, snapshot.as_ref(), &run)?;
    match (&earlier, options.resume) {
        (None, true) if !journal::spool_path(&workspace.store, &run)?.exists() => {
            return Err(super::runs::unknown(workspace, snapshot.as_ref(), &run));
        }
        (Some(earlier), _) if earlier.status == Status::Finished => {
            return Err(FlowError::usage(format!(
                "run `{run}` is finished; a finished run is not run again"
            ))
            .hint(format!("`proofline runs show {run}` tells its story")));
        }
        (Some(_), false) => {
            return Err(
                FlowError::usage(format!("run `{run}` exists")).hint(format!(
                    "go on with it: `proofline overnight --resume {run}`"
                )),
            );
        }
        _ => {}
    }
    let log = RunLog::open(&workspace.store, &workspace.refs, &run)?;
    let mut diary = Diary {
        workspace,
        log,
        watcher,
        links: earlier
            .as_ref()
            .map(|run| run.links.clone())
            .unwrap_or_default(),
    };
    let mut record = match earlier {
        Some(mut record) => {
            record.status = Status::Running;
            record.reason = None;
            record.finished = None;
            record
        }
        None => Run {
            schema: Run::SCHEMA.to_owned(),
            id: run.clone(),
            tool: "proofline overnight".to_owned(),
            status: Status::Running,
            reason: None,
            started: workspace.clock.now(),
            finished: None,
            commit: workspace.code_commit(),
            signatures: options.signatures.clone(),
            notes: Vec::new(),
            links: BTreeMap::new(),
            result: Map::new(),
        },
    };
    report_recovery(&mut diary)?;
    if options.resume {
        diary.note("resume", Level::Info, None, "the run goes on", Map::new())?;
    }
    let mut nights = Vec::new();
    let ended = through(&mut diary, engine, options, &mut record, &mut nights);
    finish(diary, engine, record, nights, ended, options.resume)
}

fn report_recovery(diary: &mut Diary<'_>) -> Result<(), FlowError> {
    let recovery = diary.log.recovery.clone();
    let Some(words) = recovered(&recovery) else {
        return Ok(());
    };
    diary.note("resume", Level::Warn, None, words, Map::new())
}

/// What a spool's repair lost or set aside, in words; `None` when it was sound.
fn recovered(recovery: &Recovery) -> Option<String> {
    let mut words = Vec::new();
    if recovery.torn_bytes > 0 {
        words.push(format!(
            "{} bytes of an unfinished last event were dropped",
            recovery.torn_bytes
        ));
    }
    if let Some(path) = &recovery.set_aside {
        words.push(format!(
            "{} damaged line(s) of the spool were left out; the file as it was is kept as {}",
            recovery.damaged_lines.len(),
            path.display()
        ));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// Everything between the beginning of a record and its end.
fn through(
    diary: &mut Diary<'_>,
    engine: &Engine,
    options: &Options,
    record: &mut Run,
    nights: &mut Vec<SignatureNight>,
) -> Result<(), FlowError> {
    let workspace = diary.workspace;
    let policy = policy(workspace)?;
    // A resumed run is the run that was begun: what was asked then counts.
    let options = &diary.step(
        "begin",
        None,
        |_| Ok(options.clone()),
        |_| (Level::Info, "a night begins".to_owned()),
    )?;
    let chosen = chosen(workspace, &options.signatures)?;
    record.signatures = chosen
        .iter()
        .map(|signature| signature.id.clone())
        .collect();
    diary.step(
        "preflight",
        None,
        |_| {
            let missing = preflight::check(workspace, &policy, &chosen, !options.no_promote);
            if missing.is_empty() {
                Ok(json!({"policy_epoch": policy.epoch}))
            } else {
                Err(preflight::error(&missing))
            }
        },
        |_| {
            let names: Vec<&str> = chosen.iter().map(|signature| signature.id.name()).collect();
            (
                Level::Info,
                format!("everything is there for {}", names.join(", ")),
            )
        },
    )?;
    diary.commit(Some(record), "a run begins")?;
    let verified = night_signature::verify(diary, engine)?;
    for signature in &chosen {
        let night = one(diary, engine, options, &policy, signature, &verified);
        let stop = matches!(&night, Err(error) if error.kind == Kind::Interrupted);
        match night {
            Ok(night) => nights.push(night),
            Err(error) if stop => return Err(error),
            Err(error) => {
                diary.note(
                    "failed",
                    Level::Error,
                    Some(&signature.id),
                    error.line(),
                    Map::new(),
                )?;
                nights.push(SignatureNight::failed(signature, error));
            }
        }
        diary.commit(None, &format!("{} is through", signature.id.name()))?;
    }
    Ok(())
}

fn one(
    diary: &mut Diary<'_>,
    engine: &Engine,
    options: &Options,
    policy: &Policy,
    signature: &Signature,
    verified: &crate::domain::prove::verdict::GateResult,
) -> Result<SignatureNight, FlowError> {
    let workspace = diary.workspace;
    night_signature::run(
        workspace, diary, engine, options, policy, signature, verified,
    )
}

/// The signatures that were asked for, or all.
fn chosen(workspace: &Workspace, ids: &[SignatureId]) -> Result<Vec<Signature>, FlowError> {
    let mut all: Vec<Signature> = signatures::all(workspace)?
        .into_iter()
        .map(|file| file.signature)
        .collect();
    if !ids.is_empty() {
        all.retain(|signature| ids.contains(&signature.id));
    }
    if all.is_empty() {
        return Err(FlowError::input("there is no signature file").hint(format!(
            "proofline.toml looks for {}",
            workspace.project.signatures.join(", ")
        )));
    }
    Ok(all)
}

/// The current policy, from the pinned root.
pub fn policy(workspace: &Workspace) -> Result<Policy, FlowError> {
    let root = workspace.project.control.root.ok_or_else(|| {
        FlowError::input("proofline.toml pins no root policy").hint("run `proofline init`")
    })?;
    let snapshot = workspace.store.snapshot(&workspace.refs.control)?;
    Control::new(&workspace.refs, snapshot.as_ref())
        .policy(&root)?
        .ok_or_else(|| {
            FlowError::new(
                Kind::Undecidable,
                format!("{} is not here, or holds no policy", workspace.refs.control),
            )
            .hint("run `proofline init`; in a fresh clone it fetches what the pin names")
        })
}

fn finish(
    mut diary: Diary<'_>,
    engine: &Engine,
    mut record: Run,
    nights: Vec<SignatureNight>,
    ended: Result<(), FlowError>,
    resumed: bool,
) -> Result<Night, FlowError> {
    let mut error = ended.err();
    if error.is_none() {
        // One signature that failed makes the run a failed one; the others' results stand.
        error = nights.iter().find_map(|night| night.error.clone());
    }
    record.status = if error.is_some() {
        Status::Failed
    } else {
        Status::Finished
    };
    record.reason = error.as_ref().map(FlowError::line);
    record.finished = Some(diary.workspace.clock.now());
    record.links = std::mem::take(&mut diary.links);
    record.result = nights
        .iter()
        .map(|night| {
            let value = serde_json::to_value(night)
                .map_err(|error| FlowError::bug(format!("a night does not serialise: {error}")))?;
            Ok((night.signature.to_string(), value))
        })
        .collect::<Result<_, FlowError>>()?;
    let (level, message) = match &error {
        Some(error) => (Level::Error, format!("failed: {}", error.line())),
        None => (Level::Info, conclusions(&nights)),
    };
    diary.note("finish", level, None, message, Map::new())?;
    let subject = match &error {
        Some(error) if error.kind == Kind::Interrupted => "a run was interrupted".to_owned(),
        Some(_) => "a run failed".to_owned(),
        None => format!("a run ends: {}", conclusions(&nights)),
    };
    let commit = diary.commit(Some(&record), &subject)?;
    Ok(Night {
        run: record.id,
        status: record.status,
        reason: record.reason,
        error,
        resumed,
        signatures: nights,
        meter: engine.meter.snapshot(),
        commit,
    })
}

fn conclusions(nights: &[SignatureNight]) -> String {
    nights
        .iter()
        .map(|night| format!("{} {}", night.signature.name(), night.conclusion))
        .collect::<Vec<_>>()
        .join(", ")
}

fn new_run_id(workspace: &Workspace) -> Result<RunId, FlowError> {
    let day = workspace.clock.now().strftime("%Y-%m-%d").to_string();
    // The end of a v7 UUID is random.
    let random = uuid::Uuid::now_v7().simple().to_string();
    Ok(format!("night-{day}-{}", &random[24..]).parse()?)
}

/// What each step of a night would do, without doing it.
#[derive(Debug, Clone, Serialize)]
pub struct Rehearsal {
    /// What is missing; nothing would be begun.
    pub missing: Vec<preflight::Missing>,
    /// What would be done, in order.
    pub steps: Vec<String>,
}

/// Say what a night would do.
pub fn dry_run(
    workspace: &Workspace,
    engine: &Engine,
    options: &Options,
) -> Result<Rehearsal, FlowError> {
    let policy = policy(workspace)?;
    let chosen = chosen(workspace, &options.signatures)?;
    let missing = preflight::check(workspace, &policy, &chosen, !options.no_promote);
    let mut steps = Vec::new();
    for command in &workspace.project.commands.verify {
        steps.push(format!("verify: run `{}`", command.argv.join(" ")));
    }
    for signature in &chosen {
        night_signature::outlook(workspace, engine, options, &policy, signature, &mut steps)?;
    }
    Ok(Rehearsal { missing, steps })
}

impl Conclusion {
    fn exit_code(self) -> u8 {
        u8::from(self.needs_a_person())
    }
}
