//! Exercise: predictions over exercise rows or recorded traffic, each with a receipt.
//!
//! With a running canary its arms answer; without one the artifact in force.
//! Receipts are made in the order of the requests, whatever the concurrency. An
//! arm that does not answer is an outcome here; when both do not, the exercise
//! stops and can go on later.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::canon;
use crate::domain::improve::canary::{Canary, Moment, Status, decide};
use crate::domain::improve::dataset::Example;
use crate::domain::improve::metric::Metric;
use crate::domain::improve::receipt::{
    Arm, ArmCounts, Outcome, Receipt, Scope, Source, key_digest, receipt_id,
};
use crate::domain::improve::report::{Failure, Usage};
use crate::domain::improve::signature::Signature;
use crate::domain::prove::policy::Policy;
use crate::domain::prove::stats::rng::Rng;
use crate::domain::prove::verdict::Label;
use crate::id::{CanaryId, Digest, RunId, SignatureId, WriterId};
use crate::models::pool;
use crate::records::receipts::{self, Book};
use crate::records::{datasets, journal};
use crate::schema::{Diagnostics, Validator, json};

use super::predict::{Call, Engine, Prediction, Predictor};
use super::{FlowError, Kind, Workspace, canary, eval, evaluate};

/// What to exercise.
#[derive(Debug, Clone)]
pub struct ExerciseRequest<'a> {
    /// The signature.
    pub signature: &'a Signature,
    /// The run it belongs to: done again under the same run, only what is missing is asked.
    pub run: RunId,
    /// How many requests; all exercise rows, or the whole traffic, when absent.
    pub count: Option<u64>,
    /// Recorded traffic; exercise rows when absent.
    pub traffic: Option<&'a [TrafficRow]>,
    /// How many predictions are in flight at once; what the models ask for when absent.
    pub concurrency: Option<usize>,
    /// Orders exercise rows where there is no canary, whose own seed counts otherwise.
    pub seed: Option<u64>,
    /// Whether receipts keep the inputs themselves.
    pub keep_inputs: bool,
}

/// One recorded request.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficRow {
    /// Who or what asked: decides the arm in a split canary. The input's digest when absent.
    pub key: Option<String>,
    /// The input.
    pub input: Value,
    /// What the answer should have been, where that is known.
    pub expected: Option<Value>,
}

/// What an exercise came to.
#[derive(Debug, Clone, Serialize)]
pub struct Exercised {
    /// The signature.
    pub signature: SignatureId,
    /// The run.
    pub run: RunId,
    /// The canary that took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryId>,
    /// Where the inputs came from.
    pub source: Source,
    /// Whose receipts they are.
    pub writer: WriterId,
    /// Requests asked for, those done earlier under this run included.
    pub requests: u64,
    /// Receipts that were new.
    pub new_receipts: u64,
    /// Requests of this exercise that had their receipts already.
    pub already: u64,
    /// Counters by arm, over all receipts of this run in this canary.
    pub arms: BTreeMap<Arm, ArmCounts>,
    /// What the new predictions cost when nothing is cached.
    pub usage: Usage,
    /// The tip of the receipts ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Why it ended before all requests were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_early: Option<String>,
    /// What did not go as one would wish, and does not matter to the receipts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How far an exercise is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Requests done, those done earlier included.
    pub done: u64,
    /// Requests in all.
    pub of: u64,
    /// Failed predictions.
    pub failures: u64,
}

/// Requests that are answered, and committed, together. In a canary they are few,
/// because it is judged after each batch and harm must stop it soon.
const BATCH: usize = 512;
const BATCH_IN_CANARY: usize = 64;

/// Make the predictions and commit their receipts. An interrupt keeps what was answered.
pub fn run(
    workspace: &Workspace,
    engine: &Engine,
    policy: &Policy,
    request: &ExerciseRequest<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exercised, FlowError> {
    let mut bench = Bench::prepare(workspace, policy, request)?;
    let arms = bench.predictors(workspace, engine)?;
    let batch_size = if bench.canary.is_some() {
        BATCH_IN_CANARY
    } else {
        BATCH
    };
    // Before the requests are taken out of it: it counts them.
    let mut outcome = bench.outline();
    let todo = std::mem::take(&mut bench.todo);
    for batch in todo.chunks(batch_size) {
        if let Some(reason) = bench.is_over(workspace)? {
            outcome.ended_early = Some(reason);
            break;
        }
        let (made, halt) = bench.answer(workspace, engine, &arms, batch);
        for receipt in &made {
            outcome.usage.add(&receipt.usage);
        }
        let subject = format!("{} of {}", made.len(), bench.run);
        let appended = bench.book.append(&workspace.author()?, &made, &subject)?;
        outcome.new_receipts += appended.new;
        outcome.commit = appended.tip.map(|tip| tip.to_string());
        bench.receipts.extend(made);
        if let Some(error) = halt {
            return Err(error);
        }
        progress(bench.progress(outcome.requests));
    }
    outcome.arms = bench.counts();
    if let Some(remote) = workspace.remote()? {
        // The receipts are committed here; a remote that is away gets them with the next step.
        outcome.notes = canary::push_receipts(workspace, &remote).unwrap_or_else(|error| {
            vec![format!(
                "the receipts are not on {} yet: {error}",
                remote.name()
            )]
        });
    }
    Ok(outcome)
}

/// A run id for an exercise that belongs to no run: nothing is ever done again under it.
pub fn fresh_run() -> RunId {
    let id = format!("exercise-{}", uuid::Uuid::now_v7().simple());
    id.parse()
        .expect("because hex digits are allowed in a run's id")
}

/// What [`run`] would do, without asking a model or committing anything.
pub fn plan(
    workspace: &Workspace,
    policy: &Policy,
    request: &ExerciseRequest<'_>,
) -> Result<Exercised, FlowError> {
    let bench = Bench::prepare(workspace, policy, request)?;
    let mut outcome = bench.outline();
    outcome.ended_early = bench.is_over(workspace)?;
    outcome.arms = bench.counts();
    Ok(outcome)
}

/// Read recorded traffic: JSONL of inputs, or of `{key, input, expected}`. Every fault of every line is reported.
pub fn read_traffic(
    name: &str,
    bytes: &[u8],
    signature: &Signature,
) -> Result<Vec<TrafficRow>, FlowError> {
    let input = Validator::new(&signature.input).map_err(|_| {
        FlowError::input(format!(
            "the input schema of {} does not compile",
            signature.id
        ))
    })?;
    let mut faults = Diagnostics::new();
    let mut rows = Vec::new();
    for line in json::lines(name, bytes, json::EmptyFile::Refuse) {
        let line = match line {
            Ok(line) => line,
            Err(found) => {
                faults.append(found);
                continue;
            }
        };
        let wrapped = is_wrapped(&line.value);
        let found = input.check_at(&line, if wrapped { "/input" } else { "" });
        if !found.is_empty() {
            faults.append(found);
            continue;
        }
        let mut value = line.value;
        rows.push(if wrapped {
            TrafficRow {
                key: value["key"].as_str().map(str::to_owned),
                expected: value.get_mut("expected").map(Value::take),
                input: value["input"].take(),
            }
        } else {
            TrafficRow {
                key: None,
                input: value,
                expected: None,
            }
        });
    }
    faults.into_result(rows).map_err(FlowError::from)
}

/// Whether a line is `{key, input, expected}` rather than an input.
fn is_wrapped(value: &Value) -> bool {
    value.as_object().is_some_and(|members| {
        members.contains_key("input")
            && members.iter().all(|(name, member)| match name.as_str() {
                "key" => member.is_string(),
                "input" | "expected" => true,
                _ => false,
            })
    })
}

/// One request to make.
#[derive(Debug, Clone)]
struct Planned {
    index: u64,
    key: Digest,
    input_digest: Digest,
    input: Value,
    expected: Option<Value>,
}

/// A request before it has a number.
struct Wanted {
    key: Digest,
    input_digest: Digest,
    input: Value,
    expected: Option<Value>,
}

/// Everything decided before the first prediction.
struct Bench<'a> {
    signature: &'a Signature,
    run: RunId,
    canary: Option<Canary>,
    source: Source,
    writer: WriterId,
    concurrency: Option<usize>,
    keep_inputs: bool,
    book: Book,
    /// All receipts of the canary, or of this run: every writer's, committed ones and those made here.
    receipts: Vec<Receipt>,
    /// Requests of this run that had their receipts.
    already: u64,
    todo: Vec<Planned>,
}

/// The arms that may be asked.
type Arms = BTreeMap<Arm, Predictor>;

impl<'a> Bench<'a> {
    fn prepare(
        workspace: &Workspace,
        policy: &Policy,
        request: &ExerciseRequest<'a>,
    ) -> Result<Self, FlowError> {
        let signature = request.signature;
        let canary = canary::running(workspace, policy, &signature.id)?;
        let source = match request.traffic {
            Some(_) => Source::Recorded,
            None => Source::Exercise,
        };
        let writer = workspace.receipts_writer()?;
        if let Some(canary) = &canary {
            check_fit(canary, source, &writer, request)?;
        }
        let since = match &canary {
            Some(canary) => receipts::day(canary.started),
            None => receipts::day(run_began(workspace, &request.run)?),
        };
        let (book, own) = Book::open(
            &workspace.store,
            &workspace.refs,
            &writer,
            &signature.id,
            Some(since),
        )?;
        let receipts = match &canary {
            Some(canary) => canary::receipts_of(workspace, canary, &BTreeMap::new())?.0,
            None => own
                .into_iter()
                .filter(|receipt| {
                    receipt.canary.is_none() && receipt.run.as_ref() == Some(&request.run)
                })
                .collect(),
        };
        let mut bench = Self {
            signature,
            run: request.run.clone(),
            canary,
            source,
            writer,
            concurrency: request.concurrency,
            keep_inputs: request.keep_inputs,
            book,
            receipts,
            already: 0,
            todo: Vec::new(),
        };
        bench.already = bench.numbers_of_run().len() as u64;
        bench.todo = bench.todo(workspace, request)?;
        Ok(bench)
    }

    /// What is left to ask, numbered.
    fn todo(
        &self,
        workspace: &Workspace,
        request: &ExerciseRequest<'_>,
    ) -> Result<Vec<Planned>, FlowError> {
        let wanted = match request.traffic {
            Some(traffic) => self.unanswered(traffic)?,
            None => self.rows_left(workspace, request)?,
        };
        let most = match request.count {
            Some(count) => count.saturating_sub(self.already),
            None => wanted.len() as u64,
        };
        let own = self
            .receipts
            .iter()
            .filter(|receipt| receipt.writer == self.writer);
        let first = own.map(|receipt| receipt.index + 1).max().unwrap_or(0);
        Ok(wanted
            .into_iter()
            .zip(first..)
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .map(|(wanted, index)| Planned {
                index,
                key: wanted.key,
                input_digest: wanted.input_digest,
                input: wanted.input,
                expected: wanted.expected,
            })
            .collect())
    }

    /// Recorded requests that have no receipt yet. The n-th request with one key and
    /// input belongs to the n-th receipt with them: traffic that was sent before,
    /// in a run that crashed or in another file, counts once.
    fn unanswered(&self, traffic: &[TrafficRow]) -> Result<Vec<Wanted>, FlowError> {
        let mut answered: BTreeMap<(Digest, Digest), BTreeSet<(&WriterId, u64)>> = BTreeMap::new();
        for receipt in &self.receipts {
            let place = (&receipt.writer, receipt.index);
            answered
                .entry((receipt.key, receipt.input))
                .or_default()
                .insert(place);
        }
        let mut left: BTreeMap<(Digest, Digest), usize> = answered
            .into_iter()
            .map(|(what, places)| (what, places.len()))
            .collect();
        let mut wanted = Vec::new();
        for row in traffic {
            let input_digest = canon::digest(&row.input)?;
            let key = match &row.key {
                Some(key) => self.key(key),
                None => self.key(&input_digest.to_string()),
            };
            match left.get_mut(&(key, input_digest)) {
                Some(count) if *count > 0 => *count -= 1,
                _ => wanted.push(Wanted {
                    key,
                    input_digest,
                    input: row.input.clone(),
                    expected: row.expected.clone(),
                }),
            }
        }
        Ok(wanted)
    }

    /// Exercise rows in seeded order. A canary takes each row once; without one the rows go round.
    fn rows_left(
        &self,
        workspace: &Workspace,
        request: &ExerciseRequest<'_>,
    ) -> Result<Vec<Wanted>, FlowError> {
        let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
        let mut rows = datasets::exercise(&workspace.refs, snapshot.as_ref(), &self.signature.id)?;
        if rows.is_empty() {
            return Err(FlowError::input(format!("{} has no exercise rows", self.signature.id))
                .hint("import rows with the split `exercise`, or send recorded traffic: `--traffic FILE`"));
        }
        let Some(canary) = &self.canary else {
            Rng::new(request.seed.unwrap_or(self.signature.job.seed)).shuffle(&mut rows);
            let count = request.count.unwrap_or(rows.len() as u64);
            let going_round = rows.iter().cycle().skip(self.already as usize % rows.len());
            let left = usize::try_from(count.saturating_sub(self.already)).unwrap_or(usize::MAX);
            return going_round.take(left).map(|row| self.wanted(row)).collect();
        };
        let digest = datasets::rows_digest(&rows)?;
        if canary
            .rows
            .as_ref()
            .is_none_or(|sealed| sealed.digest != digest)
        {
            return Err(FlowError::input(format!(
                "the exercise rows of {} are not those that canary {} was sealed with",
                self.signature.id, canary.id
            ))
            .hint(format!(
                "end it and start another: `proofline canary stop {} --reason \"rows changed\"`",
                self.signature.id
            )));
        }
        Rng::new(canary.seed).shuffle(&mut rows);
        let used: BTreeSet<Digest> = self.receipts.iter().map(|receipt| receipt.key).collect();
        rows.iter()
            .filter(|row| !used.contains(&self.key(row.id.as_str())))
            .map(|row| self.wanted(row))
            .collect()
    }

    fn wanted(&self, row: &Example) -> Result<Wanted, FlowError> {
        Ok(Wanted {
            key: self.key(row.id.as_str()),
            input_digest: canon::digest(&row.input)?,
            input: row.input.clone(),
            expected: Some(row.expected.clone()),
        })
    }

    fn key(&self, key: &str) -> Digest {
        let salt = self
            .canary
            .as_ref()
            .map_or(self.run.as_str(), |canary| canary.salt.as_str());
        key_digest(salt, key)
    }

    fn scope(&self) -> Scope<'_> {
        match &self.canary {
            Some(canary) => Scope::Canary(&canary.id),
            None => Scope::Run(&self.run),
        }
    }

    /// The programs that may be asked.
    fn predictors(&self, workspace: &Workspace, engine: &Engine) -> Result<Arms, FlowError> {
        let wanted = match &self.canary {
            Some(canary) => vec![
                (Arm::Control, canary.control),
                (Arm::Candidate, canary.candidate),
            ],
            None => vec![(
                Arm::Active,
                canary::control_in_force(workspace, engine, self.signature)?,
            )],
        };
        wanted
            .into_iter()
            .map(|(arm, artifact)| {
                let found = eval::program(workspace, engine, self.signature, Some(&artifact))?;
                let predictor = Predictor::new(engine, found.program, found.weights.as_deref())?;
                Ok((arm, predictor))
            })
            .collect()
    }

    /// Why no more requests are to be made, if so.
    fn is_over(&self, workspace: &Workspace) -> Result<Option<String>, FlowError> {
        let Some(canary) = &self.canary else {
            return Ok(None);
        };
        let moment = Moment {
            now: workspace.clock.now(),
            last: false,
            attested: Label::Recomputed,
        };
        let decision = decide(canary, &self.receipts, &moment)?;
        Ok(match decision.status {
            // A rehearsal that could be closed still learns from the rows that are left.
            Status::Running | Status::Rehearsed => None,
            status => {
                let why = decision
                    .reasons
                    .first()
                    .map(|reason| format!(": {reason}"))
                    .unwrap_or_default();
                Some(format!("the canary is decided, {}{why}", status.as_str()))
            }
        })
    }

    /// Ask for a batch. Receipts are in the order of numbers and arms; when something
    /// ended the batch early they are those of the whole requests before it.
    fn answer(
        &self,
        workspace: &Workspace,
        engine: &Engine,
        arms: &Arms,
        batch: &[Planned],
    ) -> (Vec<Receipt>, Option<FlowError>) {
        let ts = workspace.clock.now();
        let mut calls: Vec<(&Planned, Arm)> = Vec::new();
        for planned in batch {
            let mut asked = self.arms_of(planned);
            // Neither arm always goes first: a model that is slow to wake would burden one of them.
            if planned.index % 2 == 1 {
                asked.reverse();
            }
            calls.extend(asked.into_iter().map(|arm| (planned, arm)));
        }
        let widest = arms.values().map(Predictor::concurrency).max().unwrap_or(1);
        let done = pool::run_bounded(
            &calls,
            self.concurrency.unwrap_or(widest),
            || engine.interrupt().is_set(),
            |_, (planned, arm)| self.ask(engine, &arms[arm], planned, *arm, ts),
        );
        let out = outage(&calls, &done);
        let mut receipts = Vec::with_capacity(calls.len());
        let mut halt = None;
        for ((planned, _), result) in calls.iter().zip(done) {
            let answered = result.unwrap_or_else(|| Err(FlowError::interrupted()));
            let receipt = answered.and_then(|answered| match answered.unreachable {
                Some(error) if out => Err(error),
                _ => Ok(answered.receipt),
            });
            match receipt {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    receipts.retain(|receipt: &Receipt| receipt.index < planned.index);
                    halt = Some(error);
                    break;
                }
            }
        }
        receipts.sort_by_key(|receipt| (receipt.index, receipt.arm));
        (receipts, halt)
    }

    fn arms_of(&self, planned: &Planned) -> Vec<Arm> {
        match &self.canary {
            None => vec![Arm::Active],
            Some(canary) => canary
                .arms(&planned.key)
                .expect("because a canary without faults has a rollout of at most 100 %")
                .to_vec(),
        }
    }

    fn ask(
        &self,
        engine: &Engine,
        predictor: &Predictor,
        planned: &Planned,
        arm: Arm,
        ts: Timestamp,
    ) -> Result<Answered, FlowError> {
        let scope = self.scope();
        let call = Call {
            // Fresh answers for this canary or run, and for every number in it; yet a
            // resumed exercise finds those it paid for.
            context: scope.as_str(),
            repetition: (planned.index % u64::from(u32::MAX)) as u32,
            correlation_id: format!(
                "{}-{}-{}-{}",
                self.run,
                scope.as_str(),
                planned.index,
                arm.as_str()
            ),
        };
        let prediction = predictor.predict(engine, &planned.input, &call)?;
        let unreachable = (prediction.failure == Some(Failure::Transport))
            .then(|| evaluate::outage(&prediction, &call));
        let expected_match = planned
            .expected
            .as_ref()
            .map(|expected| Metric::ExactMatch.score(prediction.output.as_ref(), expected) == 1.0);
        let receipt = Receipt {
            schema: Receipt::SCHEMA.to_owned(),
            id: receipt_id(&self.signature.id, scope, &self.writer, planned.index, arm),
            signature: self.signature.id.clone(),
            artifact: predictor.artifact,
            strategy: predictor.program().strategy,
            arm,
            canary: self.canary.as_ref().map(|canary| canary.id.clone()),
            run: Some(self.run.clone()),
            writer: self.writer.clone(),
            index: planned.index,
            source: self.source,
            key: planned.key,
            input: planned.input_digest,
            raw_input: self.keep_inputs.then(|| planned.input.clone()),
            output: prediction.output.as_ref().map(canon::digest).transpose()?,
            outcome: match prediction.failure {
                None => Outcome::Ok,
                Some(failure) => Outcome::Error { failure },
            },
            format_ok: prediction.output.is_some(),
            expected_match,
            answered_by: answered_by(&prediction),
            fallback: prediction.fallback,
            usage: prediction.usage,
            latency_ms: prediction.latency_ms,
            repairs: prediction.repairs,
            ts,
        };
        Ok(Answered {
            receipt,
            unreachable,
        })
    }

    fn of_run(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.iter().filter(|receipt| {
            receipt.writer == self.writer && receipt.run.as_ref() == Some(&self.run)
        })
    }

    fn numbers_of_run(&self) -> BTreeSet<u64> {
        self.of_run().map(|receipt| receipt.index).collect()
    }

    fn counts(&self) -> BTreeMap<Arm, ArmCounts> {
        let mut arms: BTreeMap<Arm, ArmCounts> = BTreeMap::new();
        for receipt in self.of_run() {
            arms.entry(receipt.arm).or_default().add(receipt);
        }
        arms
    }

    fn progress(&self, of: u64) -> Progress {
        Progress {
            done: self.numbers_of_run().len() as u64,
            of,
            failures: self.of_run().filter(|receipt| receipt.failed()).count() as u64,
        }
    }

    fn outline(&self) -> Exercised {
        Exercised {
            signature: self.signature.id.clone(),
            run: self.run.clone(),
            canary: self.canary.as_ref().map(|canary| canary.id.clone()),
            source: self.source,
            writer: self.writer.clone(),
            requests: self.already + self.todo.len() as u64,
            new_receipts: 0,
            already: self.already,
            arms: BTreeMap::new(),
            usage: Usage::default(),
            commit: None,
            ended_early: None,
            notes: Vec::new(),
        }
    }
}

/// One answer, or none.
struct Answered {
    receipt: Receipt,
    /// Why the model could not be reached, if it could not.
    unreachable: Option<FlowError>,
}

/// Whether a batch shows an outage rather than a bad candidate: some request reached
/// neither arm. It ends the exercise, to go on later from the first answer that is
/// missing; counted as failures, the two would cancel out and leave a canary that saw nothing.
/// An arm that fails alone is its own fault, and a failure on its receipt.
fn outage(calls: &[(&Planned, Arm)], done: &[Option<Result<Answered, FlowError>>]) -> bool {
    let mut reached: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
    for ((planned, _), result) in calls.iter().zip(done) {
        let failed = matches!(result, Some(Ok(answered)) if answered.unreachable.is_some());
        let (arms, reached) = reached.entry(planned.index).or_default();
        *arms += 1;
        *reached |= !failed;
    }
    reached
        .values()
        .any(|(arms, reached)| *arms > 1 && !reached)
}

/// Who answered; `None` when every call failed before an answer came.
fn answered_by(prediction: &Prediction) -> Option<String> {
    // A model that never answered is named as it is configured, which is no identity.
    let answered = prediction.output.is_some() || prediction.usage.output_tokens > 0;
    answered.then(|| prediction.answered_by.clone())
}

fn check_fit(
    canary: &Canary,
    source: Source,
    writer: &WriterId,
    request: &ExerciseRequest<'_>,
) -> Result<(), FlowError> {
    if canary.source != source {
        let hint = match canary.source {
            Source::Recorded => "send it: `--traffic FILE`",
            Source::Exercise => {
                "leave out `--traffic`; or end this canary and start one with `--source recorded`"
            }
        };
        return Err(FlowError::input(format!(
            "canary {} takes {} inputs, as was sealed at its start",
            canary.id,
            canary.source.as_str()
        ))
        .hint(hint));
    }
    if !canary.writers.contains(writer) {
        return Err(FlowError::input(format!(
            "receipts of this clone ({writer}) do not count in canary {}, whose writers were sealed at its start",
            canary.id
        ))
        .hint(format!("start the canary with `--writer {writer}`")));
    }
    if request.seed.is_some_and(|seed| seed != canary.seed) {
        return Err(FlowError::usage(format!(
            "canary {} orders its rows by seed {}, as was sealed at its start; leave out `--seed`",
            canary.id, canary.seed
        )));
    }
    Ok(())
}

/// When a run began, as far as its record says; else two days ago, which is longer than a night.
fn run_began(workspace: &Workspace, run: &RunId) -> Result<Timestamp, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.journal)?;
    if let Some(record) = journal::run(&workspace.refs, snapshot.as_ref(), run)? {
        return Ok(record.started);
    }
    let before = SignedDuration::from_hours(48);
    let now = workspace.clock.now();
    now.checked_sub(before)
        .map_err(|error| FlowError::new(Kind::Input, error))
}
