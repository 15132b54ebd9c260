//! Compile: search for a better program, on train and dev alone.
//!
//! The search starts from the artifact in force, so that a second night builds
//! on the first. Its report holds nothing that depends on time or machine and is
//! kept under the digest of everything that decides it; asking for the same
//! search again answers from that report.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::canon;
use crate::domain::improve::artifact::Program;
use crate::domain::improve::dataset::Example;
use crate::domain::improve::job::Job;
use crate::domain::improve::metric::Metric;
use crate::domain::improve::report::{CompileReport, Outcome, Rows};
use crate::domain::improve::search::Stopped;
use crate::domain::improve::search::{self, Bench, Cell, Halt, Plan, Progress, SearchError};
use crate::domain::improve::signature::{Parameters, Signature, Strategy};
use crate::id::{Digest, ExampleId, SignatureId};
use crate::models::ModelConfig;
use crate::records::artifacts::Artifacts;
use crate::records::control::Control;
use crate::records::datasets::{self, TrainAndDev};
use crate::records::document;
use crate::records::refs::path;
use crate::store::{Decision, Edit, Transaction};

use super::evaluate::{self, Context, Work};
use super::freeze::{Freezer, parameters_of};
use super::predict::{Engine, Predictor};
use super::{FlowError, Kind, Workspace, signatures};

/// What a compile came to.
#[derive(Debug, Clone, Serialize)]
pub struct Compiled {
    /// The digest the report is kept under.
    pub key: Digest,
    /// The report.
    pub report: CompileReport,
    /// Whether it was there already.
    pub reused: bool,
    /// The tip of the artifacts branch that holds it.
    pub commit: String,
}

/// The program in force, or the one that the signature's defaults stand for.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The program.
    pub program: Program,
    /// Its weights, for a lexical one.
    pub weights: Option<Vec<u8>>,
    /// The counter of the statement that put it there; `None` for the defaults.
    pub counter: Option<u64>,
}

/// Load the artifact in force; before the first promotion, freeze the defaults.
pub fn in_force(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
    train: &[Example],
) -> Result<InForce, FlowError> {
    match active(workspace, &signature.id)? {
        Some(in_force) => Ok(in_force),
        None => {
            let mut freezer = Freezer::new(
                signature.interface(),
                signature.job.seed,
                engine.configs(),
                train,
            );
            let program = freezer.freeze(&signature.defaults)?;
            let weights = freezer.weights(&program).map(<[u8]>::to_vec);
            Ok(InForce {
                program,
                weights,
                counter: None,
            })
        }
    }
}

/// The artifact that a pointer puts in force, if there is a pointer.
pub fn active(
    workspace: &Workspace,
    signature: &SignatureId,
) -> Result<Option<InForce>, FlowError> {
    let control = workspace.store.snapshot(&workspace.refs.control)?;
    let Some(pointer) = Control::new(&workspace.refs, control.as_ref()).pointer(signature)? else {
        return Ok(None);
    };
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let artifacts = Artifacts::new(&workspace.refs, snapshot.as_ref());
    let program = artifacts.program_expected(signature, &pointer.artifact)?;
    let weights = artifacts.weights(signature, &program)?;
    Ok(Some(InForce {
        program,
        weights,
        counter: Some(pointer.counter),
    }))
}

/// The rows of a signature that a compile may see.
pub fn rows(workspace: &Workspace, signature: &SignatureId) -> Result<TrainAndDev, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let rows = datasets::train_and_dev(&workspace.refs, snapshot.as_ref(), signature)?;
    if rows.train.is_empty() && rows.dev.is_empty() {
        return Err(
            FlowError::input(format!("there are no train or dev rows of {signature}")).hint(
                format!("import some: `proofline dataset import FILE --signature {signature}`"),
            ),
        );
    }
    Ok(rows)
}

/// The job, resolved: what the search does follows from it and the rows alone.
pub fn job(engine: &Engine, signature: &Signature, base: &Digest) -> Result<Job, FlowError> {
    let mut names = vec![signature.defaults.model.clone()];
    names.extend(signature.job.space.model_variants.iter().cloned());
    let mut models = BTreeMap::new();
    for name in names {
        let how = match engine.configs().get(&name) {
            // Time-outs, retries and keys do not change an answer.
            Some(ModelConfig::Openai(config)) => serde_json::json!({
                "kind": "openai", "model": config.model, "response_format": config.response_format,
                "price": config.price,
            }),
            Some(ModelConfig::Exec(config)) => {
                serde_json::json!({"kind": "exec", "command": config.command})
            }
            Some(ModelConfig::Lexical(_)) | None => continue,
        };
        models.insert(name, how);
    }
    Ok(Job {
        schema: Job::SCHEMA.to_owned(),
        interface: signature.interface(),
        defaults: signature.defaults.clone(),
        metric: signature.metric.clone(),
        plan: signature.job.clone(),
        base: *base,
        models,
    })
}

/// Run the job of a signature, or answer from the report of an equal one.
pub fn compile(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
    run: &str,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Compiled, FlowError> {
    let rows = rows(workspace, &signature.id)?;
    let base = in_force(workspace, engine, signature, &rows.train)?;
    let base_id = base.program.artifact_id()?;
    let job = job(engine, signature, &base_id)?;
    let train = Rows {
        rows: rows.train.len() as u64,
        digest: datasets::rows_digest(&rows.train)?,
    };
    let dev = Rows {
        rows: rows.dev.len() as u64,
        digest: datasets::rows_digest(&rows.dev)?,
    };
    let key = canon::digest(&(job.hash()?, train.digest, dev.digest))?;
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    if let Some(snapshot) = &snapshot
        && let Some(report) =
            Artifacts::new(&workspace.refs, Some(snapshot)).compile_report(&signature.id, &key)?
    {
        return Ok(Compiled {
            key,
            report,
            reused: true,
            commit: snapshot.commit().to_string(),
        });
    }

    let mut bench = LiveBench {
        engine,
        metric: &signature.metric,
        dev: &rows.dev,
        freezer: Freezer::new(
            signature.interface(),
            signature.job.seed,
            engine.configs(),
            &rows.train,
        ),
        predictors: BTreeMap::new(),
        base: &base,
        run,
        deadline_ms: signature
            .job
            .budget
            .max_time_ms
            .map(|limit| workspace.clock.elapsed_ms() + limit),
        workspace,
        progress,
    };
    let pool: Vec<(ExampleId, String)> = rows
        .train
        .iter()
        .map(|row| Ok((row.id.clone(), canon::to_string(&row.expected)?)))
        .collect::<Result<_, FlowError>>()?;
    let base_parameters = parameters_of(&base.program);
    let plan = Plan {
        job: &signature.job,
        base: &base.program,
        base_parameters: &base_parameters,
        dev_rows: rows.dev.len(),
        few_shot_pool: &pool,
    };
    let found =
        search::run(&plan, &mut bench).map_err(|error| explain(workspace, signature, error))?;
    let dev_ids: Vec<ExampleId> = rows.dev.iter().map(|row| row.id.clone()).collect();
    let (report, examples) = CompileReport::new(job, train, dev, &dev_ids, &found)?;

    let mut edits = vec![
        Artifacts::freeze(signature)?,
        Edit::Put {
            path: path::report("compile", &signature.id, &key, "report.yaml"),
            bytes: document::to_yaml(&report)?,
        },
        Edit::Put {
            path: path::report("compile", &signature.id, &key, "examples.jsonl"),
            bytes: examples,
        },
    ];
    edits.extend(Artifacts::keep(
        &signature.id,
        &base.program,
        base.weights.as_deref(),
    )?);
    let winner = &found.programs[&found.winner];
    edits.extend(Artifacts::keep(
        &signature.id,
        winner,
        bench.freezer.weights(winner),
    )?);
    let transaction = Transaction::new(workspace.refs.artifacts.clone(), workspace.author()?);
    let message = message(signature, &key, &report);
    let outcome = workspace
        .store
        .transact(&transaction, |_| -> Result<_, FlowError> {
            Ok(Decision::Commit {
                edits: edits.clone(),
                message: message.clone(),
            })
        })?;
    let tip = outcome
        .tip()
        .ok_or_else(|| FlowError::bug("a report was committed, yet its branch has no tip"))?;
    Ok(Compiled {
        key,
        report,
        reused: false,
        commit: tip.to_string(),
    })
}

fn message(signature: &Signature, key: &Digest, report: &CompileReport) -> String {
    let what = if report.winner == report.base {
        "nothing beats the program in force".to_owned()
    } else {
        format!(
            "{} scores {:+.1} points on dev",
            report.winner.short(),
            100.0 * report.comparison.gain()
        )
    };
    format!(
        "compile {}: {what}\n\n{} predictions over {} dev rows, {} in the full grid.\n\nSignature: {}\nReport: {key}\nBase: {}\nWinner: {}\n",
        signature.id.name(),
        report.evaluations,
        report.dev.rows,
        report.full_grid,
        signature.id,
        report.base,
        report.winner,
    )
}

fn explain(workspace: &Workspace, signature: &Signature, error: SearchError) -> FlowError {
    match error {
        SearchError::Interrupted => FlowError::interrupted(),
        SearchError::Failed(inner) => match inner.downcast::<FlowError>() {
            Ok(error) => *error,
            Err(other) => FlowError::outside(other),
        },
        SearchError::SpaceTooSmall { .. } => FlowError::input(format!("{}: {error}", signature.id))
            .at(signatures::find(workspace, signature.id.as_str())
                .ok()
                .map(|file| file.document.source.at("/job/space", error.to_string())))
            .hint("add variants to `job.space` that differ from the program in force and from each other"),
        SearchError::NoDevRows => FlowError::input(format!("{}: {error}", signature.id))
            .hint("import rows with the split `dev`, or run `proofline dataset split`"),
        other => FlowError::new(Kind::Input, format!("{}: {other}", signature.id)),
    }
}

/// The search's bench over real models.
struct LiveBench<'a> {
    engine: &'a Engine,
    metric: &'a Metric,
    dev: &'a [Example],
    freezer: Freezer<'a>,
    predictors: BTreeMap<Digest, Predictor>,
    base: &'a InForce,
    run: &'a str,
    deadline_ms: Option<u64>,
    workspace: &'a Workspace,
    progress: &'a mut dyn FnMut(&Progress<'_>),
}

impl LiveBench<'_> {
    fn add(&mut self, program: &Program) -> Result<(), FlowError> {
        let artifact = program.artifact_id()?;
        if self.predictors.contains_key(&artifact) {
            return Ok(());
        }
        let weights = match program.strategy {
            Strategy::Direct => None,
            Strategy::DistilledLexical => self
                .freezer
                .weights(program)
                .or(self.base.weights.as_deref()),
        };
        let predictor = Predictor::new(self.engine, program.clone(), weights)?;
        self.predictors.insert(artifact, predictor);
        Ok(())
    }
}

fn halt(error: FlowError) -> Halt {
    match error.kind {
        Kind::Interrupted => Halt::Interrupted,
        _ => Halt::Failed(Box::new(error)),
    }
}

impl Bench for LiveBench<'_> {
    fn freeze(&mut self, parameters: &Parameters) -> Result<Program, Halt> {
        let program = self.freezer.freeze(parameters).map_err(halt)?;
        self.add(&program).map_err(halt)?;
        Ok(program)
    }

    fn evaluate(&mut self, cells: &[Cell]) -> Result<Vec<Outcome>, Halt> {
        if self
            .deadline_ms
            .is_some_and(|deadline| self.workspace.clock.elapsed_ms() >= deadline)
        {
            return Err(Halt::Budget(Stopped::Time));
        }
        self.add(&self.base.program).map_err(halt)?;
        let work: Vec<Work<'_>> = cells
            .iter()
            .map(|cell| Work {
                predictor: &self.predictors[&cell.artifact],
                row: &self.dev[cell.example],
            })
            .collect();
        let context = Context {
            key: "",
            run: self.run,
        };
        evaluate::outcomes(self.engine, self.metric, &work, context).map_err(halt)
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        (self.progress)(progress);
    }
}

impl Compiled {
    /// The search in a sentence.
    pub fn sentence(&self) -> String {
        let comparison = &self.report.comparison;
        let source = if self.reused {
            "An equal search was made before: "
        } else {
            ""
        };
        let stopped = match self.report.stopped {
            Some(stopped) => {
                format!(" The search stopped early: its budget of {stopped} is spent.")
            }
            None => String::new(),
        };
        if self.report.winner == self.report.base {
            format!(
                "{source}no candidate beats the program in force ({:.1} % on {} dev rows).{stopped}",
                100.0 * comparison.base_mean,
                comparison.rows
            )
        } else {
            format!(
                "{source}{} scores {:.1} % on {} dev rows, the program in force {:.1} %.{stopped}",
                self.report.winner.short(),
                100.0 * comparison.winner_mean,
                comparison.rows,
                100.0 * comparison.base_mean
            )
        }
    }
}
