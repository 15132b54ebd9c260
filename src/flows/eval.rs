//! Evaluate one program on one split; never holdout, which belongs to its gate.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::canon;
use crate::domain::improve::dataset::{Example, Split};
use crate::domain::improve::metric::Metric;
use crate::domain::improve::report::{EvalReport, ExampleOutcome, Outcome, Rows, Usage};
use crate::domain::improve::signature::Signature;
use crate::id::Digest;
use crate::records::artifacts::Artifacts;
use crate::records::refs::path;
use crate::records::{datasets, document};
use crate::store::{Decision, Edit, Transaction};

use super::compile::{self, InForce};
use super::evaluate::{self, Context, Work};
use super::predict::{Engine, Predictor};
use super::{FlowError, Workspace};

/// What an evaluation came to.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluated {
    /// The digest the report is kept under.
    pub key: Digest,
    /// The report.
    pub report: EvalReport,
    /// Whether it was there already.
    pub reused: bool,
}

/// The rows of a split that anyone may see.
pub fn rows(
    workspace: &Workspace,
    signature: &Signature,
    split: Split,
) -> Result<Vec<Example>, FlowError> {
    let rows = match split {
        Split::Train => compile::rows(workspace, &signature.id)?.train,
        Split::Dev => compile::rows(workspace, &signature.id)?.dev,
        Split::Exercise => {
            let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
            datasets::exercise(&workspace.refs, snapshot.as_ref(), &signature.id)?
        }
        Split::Holdout => {
            return Err(
                FlowError::usage("holdout rows are read by the holdout gate alone")
                    .hint("every look at them is numbered and paid for; use `--split dev`"),
            );
        }
    };
    if rows.is_empty() {
        return Err(FlowError::input(format!(
            "{} has no {split} rows",
            signature.id
        )));
    }
    Ok(rows)
}

/// The program to evaluate: the one named, else the one in force.
pub fn program(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
    artifact: Option<&Digest>,
) -> Result<InForce, FlowError> {
    let Some(artifact) = artifact else {
        if let Some(active) = compile::active(workspace, &signature.id)? {
            return Ok(active);
        }
        let rows = compile::rows(workspace, &signature.id)?;
        return compile::in_force(workspace, engine, signature, &rows.train);
    };
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let artifacts = Artifacts::new(&workspace.refs, snapshot.as_ref());
    let program = artifacts.program_expected(&signature.id, artifact)?;
    let weights = artifacts.weights(&signature.id, &program)?;
    Ok(InForce {
        program,
        weights,
        counter: None,
    })
}

/// Evaluate, or answer from the report of an equal evaluation.
pub fn eval(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
    split: Split,
    artifact: Option<&Digest>,
    run: &str,
) -> Result<Evaluated, FlowError> {
    let rows = rows(workspace, signature, split)?;
    let program = program(workspace, engine, signature, artifact)?;
    let artifact = program.program.artifact_id()?;
    let data = Rows {
        rows: rows.len() as u64,
        digest: datasets::rows_digest(&rows)?,
    };
    let key = canon::digest(&(artifact, &signature.metric, data.digest))?;
    let file = |name: &str| path::report("eval", &signature.id, &key, name);
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    if let Some(report) = document::load(
        snapshot.as_ref(),
        &workspace.refs.artifacts,
        &file("report.yaml"),
        None,
    )? {
        return Ok(Evaluated {
            key,
            report,
            reused: true,
        });
    }
    let predictor = Predictor::new(engine, program.program.clone(), program.weights.as_deref())?;
    let work: Vec<Work<'_>> = rows
        .iter()
        .map(|row| Work {
            predictor: &predictor,
            row,
        })
        .collect();
    let outcomes = evaluate::outcomes(engine, &signature.metric, &work, Context { key: "", run })?;
    let (report, examples) = draw(signature, artifact, split, data, &rows, &outcomes)?;
    let mut edits = Artifacts::keep(&signature.id, &program.program, program.weights.as_deref())?;
    edits.push(Edit::Put {
        path: file("report.yaml"),
        bytes: document::to_yaml(&report)?,
    });
    edits.push(Edit::Put {
        path: file("examples.jsonl"),
        bytes: examples,
    });
    let transaction = Transaction::new(workspace.refs.artifacts.clone(), workspace.author()?);
    workspace.store.transact(&transaction, |_| -> Result<Decision, FlowError> {
        Ok(Decision::Commit {
            edits: edits.clone(),
            message: format!(
                "eval {}: {:.1} % on {} {split} rows\n\nSignature: {}\nArtifact: {artifact}\nReport: {key}\n",
                signature.id.name(),
                100.0 * report.mean,
                report.data.rows,
                signature.id
            ),
        })
    })?;
    Ok(Evaluated {
        key,
        report,
        reused: false,
    })
}

fn draw(
    signature: &Signature,
    artifact: Digest,
    split: Split,
    data: Rows,
    rows: &[Example],
    outcomes: &[Outcome],
) -> Result<(EvalReport, Vec<u8>), FlowError> {
    let mut examples = Vec::new();
    let mut usage = Usage::default();
    let mut failures = BTreeMap::new();
    let mut answered_by = BTreeSet::new();
    let (mut sum, mut exact, mut valid) = (0.0, 0.0, 0_u64);
    for (row, outcome) in rows.iter().zip(outcomes) {
        let line = ExampleOutcome {
            artifact,
            example: row.id.clone(),
            outcome: outcome.clone(),
        };
        examples.extend(canon::to_bytes(&line)?);
        examples.push(b'\n');
        usage.add(&outcome.usage);
        sum += outcome.score;
        exact += Metric::ExactMatch.score(outcome.output.as_ref(), &row.expected);
        valid += u64::from(outcome.output.is_some());
        answered_by.insert(outcome.answered_by.clone());
        if let Some(failure) = outcome.failure {
            *failures.entry(failure).or_insert(0) += 1;
        }
    }
    let count = rows.len() as f64;
    let report = EvalReport {
        schema: EvalReport::SCHEMA.to_owned(),
        signature: signature.id.clone(),
        artifact,
        split,
        data,
        metric: signature.metric.clone(),
        mean: sum / count,
        exact: exact / count,
        format: valid as f64 / count,
        failures,
        usage,
        answered_by,
        examples: Digest::of(&examples),
    };
    Ok((report, examples))
}

impl Evaluated {
    /// The evaluation in a sentence.
    pub fn sentence(&self) -> String {
        let report = &self.report;
        let source = if self.reused {
            "An equal evaluation was made before: "
        } else {
            ""
        };
        format!(
            "{source}{} scores {:.1} % on {} {} rows.",
            report.artifact.short(),
            100.0 * report.mean,
            report.data.rows,
            report.split
        )
    }
}
