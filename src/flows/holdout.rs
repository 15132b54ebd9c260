//! The holdout gate: reserve, read, compare once, publish as little as the answer needs.
//!
//! The reservation is sealed and committed (and on the remote, where there is
//! one) before any holdout row is read. A resumed run finds it and goes on; the
//! same comparison is never paid twice, and once it is decided asking again costs nothing.

use std::num::NonZeroU64;

use serde::Serialize;

use crate::canon;
use crate::domain::improve::artifact::Program;
use crate::domain::improve::report::{ExampleOutcome, Outcome};
use crate::domain::improve::signature::Signature;
use crate::domain::prove::gate::{HoldoutReport, Power};
use crate::domain::prove::holdout::{Attempt, Claim, Closing, Entry, GroupSet};
use crate::domain::prove::policy::Policy;
use crate::domain::prove::stats::alpha::Alpha;
use crate::domain::prove::verdict::{GateResult, Label, Verdict};
use crate::id::{Digest, PrincipalId, RunId};
use crate::records::datasets;
use crate::records::refs::path;
use crate::records::sealed::Sealed;
use crate::records::{document, ledger};
use crate::seal::{Namespace, SealSigner};
use crate::store::{Decision, Edit, Transaction};

use super::evaluate::{self, Context, Work};
use super::predict::{Engine, Predictor};
use super::workspace::KeyRole;
use super::{FlowError, Workspace};

/// A program with its weights.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The program.
    pub program: &'a Program,
    /// Its weights, for a lexical one.
    pub weights: Option<&'a [u8]>,
}

/// What the gate answered.
#[derive(Debug, Clone, Serialize)]
pub struct Gated {
    /// The answer, with its figures.
    pub gate: GateResult,
    /// Digest of the attempt.
    pub attempt: Digest,
    /// What this holdout could show.
    pub power: Power,
    /// Whether the answer was there already, from an earlier night.
    pub reused: bool,
    /// Digest of the published report, on a pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
}

/// Compare the finalist with the control on the holdout.
pub fn gate(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
    policy: &Policy,
    run: &RunId,
    control: Side<'_>,
    candidate: Side<'_>,
) -> Result<Gated, FlowError> {
    let sealer = workspace.sealer(KeyRole::Runner)?;
    let runner = principal(policy, &sealer)?;
    let alpha = Alpha::new(policy.gates.alpha).map_err(FlowError::input)?;
    let (attempt, closing) = reserve(
        workspace,
        signature,
        alpha,
        run,
        control.program,
        candidate.program,
        &sealer,
    )?;
    let digest = attempt.digest()?;
    let number = NonZeroU64::new(attempt.t)
        .ok_or_else(|| FlowError::input("the ledger holds an attempt number 0"))?;
    let power = Power::at(attempt.rows, number, alpha).map_err(FlowError::input)?;
    if let Some(closing) = closing {
        let report = closing
            .report
            .map(|_| published(workspace, signature, &digest))
            .transpose()?;
        return Ok(Gated {
            gate: answer(closing.passed, report.as_ref(), &power, &runner),
            attempt: digest,
            power,
            reused: true,
            report: closing.report,
        });
    }

    let (report, examples) = compare(
        workspace, engine, signature, &attempt, control, candidate, run,
    )?;
    let passed = report.passed();
    let mut report_digest = None;
    if passed {
        // Artifacts before ledger: a closing never names a report that is not there.
        let bytes = document::to_yaml(&report)?;
        report_digest = Some(Digest::of(&bytes));
        publish(workspace, signature, &digest, bytes, examples)?;
    }
    close(workspace, signature, &sealer, digest, passed, report_digest)?;
    Ok(Gated {
        gate: answer(passed, passed.then_some(&report), &power, &runner),
        attempt: digest,
        power,
        reused: false,
        report: report_digest,
    })
}

/// What the next attempt on the holdout could show, without making one.
pub fn outlook(
    workspace: &Workspace,
    signature: &Signature,
    policy: &Policy,
) -> Result<Power, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let summary = datasets::holdout_summary(&workspace.refs, snapshot.as_ref(), &signature.id)?;
    let snapshot = workspace.store.snapshot(&workspace.refs.ledger)?;
    let ledger = ledger::load(&workspace.refs, snapshot.as_ref())?;
    let alpha = Alpha::new(policy.gates.alpha).map_err(FlowError::input)?;
    // A comparison that nobody has made: its number is that of the next new one.
    let nothing = Digest::of(b"");
    let t = match ledger.claim(&nothing, &nothing, &summary.digest, &summary.groups, alpha)? {
        Claim::New { t, .. } => t,
        Claim::Decided(attempt, _) | Claim::Reserved(attempt) => attempt.t,
    };
    let t = NonZeroU64::new(t).expect("because attempts are counted from one");
    Power::at(summary.rows, t, alpha).map_err(FlowError::input)
}

/// The principal of the policy who holds a key, in the runner's role.
pub fn principal(policy: &Policy, sealer: &SealSigner) -> Result<PrincipalId, FlowError> {
    let key = sealer.public_key().to_string();
    policy
        .principal_of(&key)
        .filter(|name| policy.roles.runner.contains(name))
        .cloned()
        .ok_or_else(|| {
            FlowError::input(format!(
                "the runner's key {} belongs to no principal with the role `runner` in policy epoch {}",
                sealer.public_key().fingerprint(),
                policy.epoch
            ))
            .hint("set PROOFLINE_RUNNER_KEY to a runner's key, or add this one to the policy")
        })
}

fn reserve(
    workspace: &Workspace,
    signature: &Signature,
    alpha: Alpha,
    run: &RunId,
    control: &Program,
    candidate: &Program,
    sealer: &SealSigner,
) -> Result<(Attempt, Option<Closing>), FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let summary = datasets::holdout_summary(&workspace.refs, snapshot.as_ref(), &signature.id)?;
    if summary.rows == 0 {
        return Err(FlowError::input(format!(
            "{} has no holdout rows, so nothing can be proven",
            signature.id
        ))
        .hint("import rows with the split `holdout`; there is no fallback to other rows"));
    }
    let (control, candidate) = (control.artifact_id()?, candidate.artifact_id()?);
    let groups: &GroupSet = &summary.groups;
    let groups_digest = canon::digest(groups)?;
    let remote = workspace.remote()?;
    let transaction = Transaction::new(workspace.refs.ledger.clone(), workspace.author()?)
        .shared_with(remote.as_ref());
    let mut claimed = None;
    workspace.store.transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
        let ledger = ledger::load(&workspace.refs, snapshot)?;
        let (t, alpha_t) = match ledger.claim(&control, &candidate, &summary.digest, groups, alpha)? {
            Claim::Decided(attempt, closing) => {
                claimed = Some((attempt, Some(closing)));
                return Ok(Decision::Nothing);
            }
            Claim::Reserved(attempt) => {
                claimed = Some((attempt, None));
                return Ok(Decision::Nothing);
            }
            Claim::New { t, alpha_t } => (t, alpha_t),
        };
        let attempt = Attempt {
            schema: Attempt::SCHEMA.to_owned(),
            signature: signature.id.clone(),
            run: run.clone(),
            t,
            control,
            candidate,
            holdout: summary.digest,
            groups: groups_digest,
            rows: summary.rows,
            alpha: alpha.get(),
            alpha_t,
            at: workspace.clock.now(),
        };
        let entry = seal(Entry::Reserved(attempt.clone()), sealer)?;
        let edits = ledger::append(snapshot, &signature.id, &entry, Some((&groups_digest, groups)))?;
        claimed = Some((attempt, None));
        Ok(Decision::Commit {
            edits,
            message: format!(
                "holdout {}: reserve attempt {t} at α_t = {alpha_t:.4}\n\n{} against {} on {} rows.\n\nSignature: {}\nRun: {run}\n",
                signature.id.name(),
                candidate.short(),
                control.short(),
                summary.rows,
                signature.id
            ),
        })
    })?;
    claimed.ok_or_else(|| FlowError::bug("a reservation ended without a decision"))
}

fn seal(entry: Entry, sealer: &SealSigner) -> Result<Sealed<Entry>, FlowError> {
    Sealed::seal(entry, sealer, Namespace::Ledger).map_err(FlowError::outside)
}

/// Run both programs on every row, interleaved: even rows ask the control first, odd rows the candidate.
fn compare(
    workspace: &Workspace,
    engine: &Engine,
    signature: &Signature,
    attempt: &Attempt,
    control: Side<'_>,
    candidate: Side<'_>,
    run: &RunId,
) -> Result<(HoldoutReport, Vec<u8>), FlowError> {
    let digest = attempt.digest()?;
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let rows = datasets::holdout(&workspace.refs, snapshot.as_ref(), attempt)?;
    let control = Predictor::new(engine, control.program.clone(), control.weights)?;
    let candidate = Predictor::new(engine, candidate.program.clone(), candidate.weights)?;
    let work: Vec<Work<'_>> = rows
        .iter()
        .enumerate()
        .flat_map(|(index, row)| {
            let pair = if index % 2 == 0 {
                [&control, &candidate]
            } else {
                [&candidate, &control]
            };
            pair.map(|predictor| Work { predictor, row })
        })
        .collect();
    let key = digest.to_string();
    let context = Context {
        key: &key,
        run: run.as_str(),
    };
    let outcomes = evaluate::outcomes(engine, &signature.metric, &work, context)?;
    let pairs: Vec<(Outcome, Outcome)> = outcomes
        .chunks(2)
        .enumerate()
        .map(|(index, pair)| {
            let (first, second) = (pair[0].clone(), pair[1].clone());
            if index % 2 == 0 {
                (first, second)
            } else {
                (second, first)
            }
        })
        .collect();
    let mut examples = Vec::new();
    for (row, (of_control, of_candidate)) in rows.iter().zip(&pairs) {
        for (artifact, outcome) in [
            (control.artifact, of_control),
            (candidate.artifact, of_candidate),
        ] {
            let line = ExampleOutcome {
                artifact,
                example: row.id.clone(),
                outcome: outcome.clone(),
            };
            examples.extend(canon::to_bytes(&line)?);
            examples.push(b'\n');
        }
    }
    let alpha_t = Alpha::new(attempt.alpha_t).map_err(FlowError::input)?;
    let report = HoldoutReport::compare(
        digest,
        &pairs,
        signature.metric.is_binary(),
        alpha_t,
        // From the sealed reservation, so that nobody can look for a lucky seed.
        u64::from_be_bytes(
            digest.as_bytes()[..8]
                .try_into()
                .expect("because a digest has 32 bytes"),
        ),
        Digest::of(&examples),
    )
    .map_err(FlowError::input)?;
    Ok((report, examples))
}

fn publish(
    workspace: &Workspace,
    signature: &Signature,
    attempt: &Digest,
    report: Vec<u8>,
    examples: Vec<u8>,
) -> Result<(), FlowError> {
    let file = |name: &str| path::report("holdout", &signature.id, attempt, name);
    let transaction = Transaction::new(workspace.refs.artifacts.clone(), workspace.author()?);
    workspace.store.transact(&transaction, |_| -> Result<Decision, FlowError> {
        Ok(Decision::Commit {
            edits: vec![
                Edit::Put {
                    path: file("report.yaml"),
                    bytes: report.clone(),
                },
                Edit::Put {
                    path: file("examples.jsonl"),
                    bytes: examples.clone(),
                },
            ],
            message: format!(
                "holdout {}: the outcomes of a passed attempt\n\nSignature: {}\nAttempt: {attempt}\n",
                signature.id.name(),
                signature.id
            ),
        })
    })?;
    Ok(())
}

/// The report of a passed attempt.
pub fn published(
    workspace: &Workspace,
    signature: &Signature,
    attempt: &Digest,
) -> Result<HoldoutReport, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let path = path::report("holdout", &signature.id, attempt, "report.yaml");
    let report = document::load(snapshot.as_ref(), &workspace.refs.artifacts, &path, None)?;
    report.ok_or_else(|| {
        FlowError::new(
            super::Kind::Undecidable,
            format!(
                "the report of the passed attempt {attempt} is missing from {}",
                workspace.refs.artifacts
            ),
        )
    })
}

fn close(
    workspace: &Workspace,
    signature: &Signature,
    sealer: &SealSigner,
    attempt: Digest,
    passed: bool,
    report: Option<Digest>,
) -> Result<(), FlowError> {
    let closing = Closing {
        schema: Closing::SCHEMA.to_owned(),
        attempt,
        passed,
        report,
    };
    let entry = seal(Entry::Closed(closing.clone()), sealer)?;
    let remote = workspace.remote()?;
    let transaction = Transaction::new(workspace.refs.ledger.clone(), workspace.author()?)
        .shared_with(remote.as_ref());
    workspace
        .store
        .transact(&transaction, |snapshot| -> Result<Decision, FlowError> {
            let known = ledger::entries(&workspace.refs, snapshot, &signature.id)?;
            let closed = known.iter().any(
                |entry| matches!(&entry.body, Entry::Closed(other) if other.attempt == attempt),
            );
            if closed {
                return Ok(Decision::Nothing);
            }
            Ok(Decision::Commit {
                edits: ledger::append(snapshot, &signature.id, &entry, None)?,
                message: format!(
                    "holdout {}: {}\n\nSignature: {}\nAttempt: {attempt}\n",
                    signature.id.name(),
                    if passed {
                        "proven better"
                    } else {
                        "not proven better"
                    },
                    signature.id
                ),
            })
        })?;
    Ok(())
}

/// The gate's answer. A refusal says that the gain was not proven, and nothing else about the rows.
fn answer(
    passed: bool,
    report: Option<&HoldoutReport>,
    power: &Power,
    runner: &PrincipalId,
) -> GateResult {
    let attested = Label::AttestedBy(runner.clone());
    let verdict = if passed {
        Verdict::Pass
    } else {
        Verdict::Refuse {
            reasons: vec![
                "the finalist was not proven better than the control on the holdout".to_owned(),
            ],
        }
    };
    let mut gate = GateResult::new("holdout", verdict)
        .with("attempt", power.t, &Label::Recomputed)
        .with("rows", power.rows, &Label::Recomputed)
        .with("alpha_t", power.alpha_t, &Label::Recomputed);
    if let Some(report) = report {
        gate = gate
            .with("control mean", report.control_mean, &attested)
            .with("candidate mean", report.candidate_mean, &attested)
            .with("wins", report.wins, &attested)
            .with("losses", report.losses, &attested)
            .with("p", report.p, &attested);
        if let Some([low, high]) = report.interval {
            gate = gate.with("difference low", low, &attested).with(
                "difference high",
                high,
                &attested,
            );
        }
    }
    gate
}
