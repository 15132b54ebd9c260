//! One signature's part of a night, from its rows to the pointer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::improve::canary::Mode;
use crate::domain::improve::dataset::Split;
use crate::domain::improve::dataset::requirements::requirements;
use crate::domain::improve::receipt::Source;
use crate::domain::improve::report::{Conclusion as Found, Failure};
use crate::domain::improve::signature::{PromotionMode, Signature};
use crate::domain::operate::command::CommandKind;
use crate::domain::operate::event::Level;
use crate::domain::operate::run::link;
use crate::domain::prove::gate::Power;
use crate::domain::prove::policy::Policy;
use crate::domain::prove::verdict::{GateResult, Label, Verdict};
use crate::host::files;
use crate::id::{CanaryId, Digest, SignatureId};
use crate::records::datasets;
use crate::records::refs::path;
use crate::store::RefName;

use super::canary::{self, Ending, StartRequest};
use super::commands::{self, CommandsOutcome};
use super::compile::{self, InForce};
use super::dataset::import;
use super::exercise::{self, ExerciseRequest, TrafficRow};
use super::holdout::{self, Gated, Side};
use super::night::{Diary, Options};
use super::predict::{Call, Engine, Predictor};
use super::promote::{self, Promoted};
use super::{FlowError, Workspace, eval, rollback};

/// How a signature's night ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The winner is in force.
    Promoted,
    /// The winner awaits a person.
    Proposed,
    /// An earlier proposal still awaits a person; nothing was searched.
    ProposalOpen,
    /// Nothing beats the program in force.
    NoChange,
    /// The gain on dev is too small to spend a holdout attempt on.
    BelowThreshold,
    /// The holdout did not prove the winner better.
    NotProven,
    /// The winner did harm in the canary.
    Harmed,
    /// The canary ended undecided; the control stays.
    Inconclusive,
    /// The winner is proven, and `--no-promote` kept it from coming into force.
    Ready,
    /// A gate refused: rows, commands, policy, or answers from more than one model.
    Refused,
    /// The winner came into force, did not answer, and was rolled back.
    RolledBack,
    /// Something failed.
    Failed,
}

impl Conclusion {
    /// Whether a person should look at it in the morning: exit code 1.
    pub fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::Harmed | Self::Refused | Self::RolledBack | Self::Failed
        )
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promoted => "promoted",
            Self::Proposed => "proposed",
            Self::ProposalOpen => "proposal open",
            Self::NoChange => "no change",
            Self::BelowThreshold => "below threshold",
            Self::NotProven => "not proven",
            Self::Harmed => "harmed",
            Self::Inconclusive => "inconclusive",
            Self::Ready => "ready",
            Self::Refused => "refused",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
        })
    }
}

/// What a night came to for one signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignatureNight {
    /// The signature.
    pub signature: SignatureId,
    /// How it ended.
    pub conclusion: Conclusion,
    /// Why, in a sentence.
    pub reason: String,
    /// The program in force when the night began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Digest>,
    /// The search's winner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Digest>,
    /// What the search saw on dev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<CompileStep>,
    /// What the holdout could show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// What each gate answered, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
    /// What is to be promoted, and on what evidence: `proofline promote --run` takes it from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<promote::Request>,
    /// How the promotion ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Promoted>,
    /// What to do next.
    pub next: String,
    /// The error, when something failed.
    #[serde(skip)]
    pub error: Option<FlowError>,
}

/// What the search saw on dev.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompileStep {
    /// The digest the report is kept under.
    pub key: Digest,
    /// Digest of the job.
    pub job_hash: Digest,
    /// The program it started from.
    pub base: Digest,
    /// The program it ended with.
    pub winner: Digest,
    /// What it concluded.
    pub conclusion: Found,
    /// What makes the winner different.
    pub label: String,
    /// Mean score of the base on dev.
    pub base_mean: f64,
    /// Mean score of the winner on dev.
    pub winner_mean: f64,
    /// Dev rows.
    pub rows: u64,
    /// Predictions made.
    pub evaluations: u64,
    /// Predictions of the full grid.
    pub full_grid: u64,
    /// Whether an equal search had been made before. Told, not kept: a resumed run ends as an undisturbed one.
    #[serde(skip)]
    pub reused: bool,
    /// Whether an arm was answered by more than one model.
    pub mixed: bool,
    /// The artifacts commit that holds it.
    pub commit: String,
}

/// What the verify or e2e commands left.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CommandStep {
    gate: GateResult,
    /// How each command ended, in a line.
    lines: Vec<String>,
}

impl From<CommandsOutcome> for CommandStep {
    fn from(outcome: CommandsOutcome) -> Self {
        Self {
            lines: outcome.lines(),
            gate: outcome.gate,
        }
    }
}

impl CommandStep {
    fn say(&self) -> (Level, String) {
        let (level, verdict) = say_gate(&self.gate);
        if self.lines.is_empty() {
            return (level, verdict);
        }
        (level, format!("{verdict}; {}", self.lines.join("; ")))
    }
}

/// What the holdout gate left.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HoldoutStep {
    gate: GateResult,
    attempt: Digest,
    power: Power,
    reused: bool,
    report: Option<Digest>,
}

impl From<Gated> for HoldoutStep {
    fn from(gated: Gated) -> Self {
        Self {
            gate: gated.gate,
            attempt: gated.attempt,
            power: gated.power,
            reused: gated.reused,
            report: gated.report,
        }
    }
}

impl SignatureNight {
    fn new(signature: &Signature) -> Self {
        Self {
            signature: signature.id.clone(),
            conclusion: Conclusion::Failed,
            reason: String::new(),
            control: None,
            candidate: None,
            compile: None,
            power: None,
            gates: Vec::new(),
            promotion: None,
            promoted: None,
            next: String::new(),
            error: None,
        }
    }

    /// A night that an error ended.
    pub fn failed(signature: &Signature, error: FlowError) -> Self {
        let mut night = Self::new(signature);
        night.reason = error.line();
        night.next = error
            .hints
            .first()
            .cloned()
            .unwrap_or_else(|| "see `proofline runs show`".to_owned());
        night.error = Some(error);
        night
    }

    fn end(
        mut self,
        conclusion: Conclusion,
        reason: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        self.conclusion = conclusion;
        self.reason = reason.into();
        self.next = next.into();
        self
    }
}

/// Run the verify commands, once for all signatures.
pub fn verify(diary: &mut Diary<'_>, _engine: &Engine) -> Result<GateResult, FlowError> {
    let step = diary.step(
        "verify",
        None,
        |diary| {
            let workspace = diary.workspace();
            let options = commands::Options::default();
            let outcome =
                commands::run_all(workspace, diary.run(), CommandKind::Verify, &options, None)?;
            diary.link_bound(link::VERIFY_EVIDENCE, None, outcome.bound.as_ref());
            Ok(CommandStep::from(outcome))
        },
        CommandStep::say,
    )?;
    Ok(step.gate)
}

/// One signature, from its rows to the pointer.
pub fn run(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    engine: &Engine,
    options: &Options,
    policy: &Policy,
    signature: &Signature,
    verified: &GateResult,
) -> Result<SignatureNight, FlowError> {
    let id = &signature.id;
    let mut night = SignatureNight::new(signature);
    // Read before anything is paid for: a file with faults ends the night here.
    let traffic = match &options.traffic {
        Some(path) => {
            let name = path.display().to_string();
            let rows = exercise::read_traffic(&name, &files::read(path)?, signature)?;
            Some(rows)
        }
        None => None,
    };
    night.gates.push(verified.clone());
    if !verified.verdict.is_pass() {
        return Ok(night.end(
            Conclusion::Refused,
            format!("the verify commands did not pass: {}", verified.verdict),
            format!("`proofline runs show {}` has their output", diary.run()),
        ));
    }
    // A step, because later the run's own proposal will be open.
    let open = diary.step(
        "proposals",
        Some(id),
        |_| promote::open_proposal(workspace, id),
        |open| match open {
            Some(branch) => (Level::Warn, format!("{branch} still awaits a person")),
            None => (Level::Info, "no proposal is open".to_owned()),
        },
    )?;
    if let Some(branch) = open {
        return Ok(night.end(
            Conclusion::ProposalOpen,
            format!("{branch} still awaits a person"),
            format!("review it, or withdraw it: `git branch -D {branch}`"),
        ));
    }

    diary.step(
        "import",
        Some(id),
        |_| import::from_project(workspace, signature),
        |done| match done {
            Some(done) => (Level::Info, done.sentence()),
            None => (
                Level::Info,
                "the project has no datasets folder for it".to_owned(),
            ),
        },
    )?;
    let data = diary.step(
        "data",
        Some(id),
        |_| data_gate(workspace, policy, signature, traffic.is_some()),
        say_gate,
    )?;
    night.gates.push(data.clone());
    if !data.verdict.is_pass() {
        return Ok(night.end(
            Conclusion::Refused,
            data.verdict.to_string(),
            format!("add rows: `proofline dataset import FILE --signature {id}`"),
        ));
    }

    let compiled = compile_step(workspace, diary, engine, signature)?;
    night.control = Some(compiled.base);
    night.candidate = (compiled.winner != compiled.base).then_some(compiled.winner);
    night.compile = Some(compiled.clone());
    let attested = Label::AttestedBy(holdout::principal(
        policy,
        &workspace.sealer(super::workspace::KeyRole::Runner)?,
    )?);
    let gain = compiled.winner_mean - compiled.base_mean;
    if compiled.conclusion == Found::NoChange {
        return Ok(night.end(
            Conclusion::NoChange,
            format!(
                "no candidate beats the program in force on {} dev rows ({:.1} %)",
                compiled.rows,
                100.0 * compiled.base_mean
            ),
            "nothing; widen `job.space` or add rows to look further",
        ));
    }
    if compiled.mixed {
        return Ok(night.end(
            Conclusion::Refused,
            "more than one model answered within an arm of the search, so the figures compare nothing",
            "pin the model's version, or take the fallback away, and run again",
        ));
    }
    let dev = dev_gate(policy, &compiled, gain, &attested);
    night.gates.push(dev.clone());
    if !dev.verdict.is_pass() {
        return Ok(night.end(
            Conclusion::BelowThreshold,
            dev.verdict.to_string(),
            "nothing; no holdout attempt was spent",
        ));
    }

    let control = eval::program(workspace, engine, signature, Some(&compiled.base))?;
    let candidate = eval::program(workspace, engine, signature, Some(&compiled.winner))?;
    let held = holdout_step(
        workspace, diary, engine, signature, policy, &control, &candidate,
    )?;
    night.gates.push(held.gate.clone());
    night.power = Some(held.power.clone());
    if !held.gate.verdict.is_pass() {
        let next = if held.power.rotate {
            "rotate the holdout to unseen groups: what is left of α proves too little"
        } else {
            "nothing; the finalist may return with a larger gain, or more holdout rows may prove this one"
        };
        return Ok(night.end(Conclusion::NotProven, held.gate.verdict.to_string(), next));
    }

    let judged = canary_step(
        workspace,
        diary,
        engine,
        options.concurrency,
        traffic.as_deref(),
        signature,
        policy,
        &compiled,
    )?;
    night.gates.push(judged.gate.clone());
    match &judged.gate.verdict {
        Verdict::Pass => {}
        verdict if judged.harmed => {
            return Ok(night.end(
                Conclusion::Harmed,
                verdict.to_string(),
                format!(
                    "look at its receipts: `proofline receipts list --signature {id} --failed`"
                ),
            ));
        }
        verdict => {
            return Ok(night.end(
                Conclusion::Inconclusive,
                verdict.to_string(),
                "give the canary more traffic: `--traffic FILE`, or raise `canary.max_pairs`",
            ));
        }
    }

    let e2e = e2e_step(
        workspace,
        diary,
        options,
        signature,
        &compiled.winner,
        &candidate,
    )?;
    night.gates.push(e2e.clone());
    if !e2e.verdict.is_pass() {
        return Ok(night.end(
            Conclusion::Refused,
            format!(
                "the e2e commands did not pass with the candidate: {}",
                e2e.verdict
            ),
            format!("`proofline runs show {}` has their output", diary.run()),
        ));
    }
    decide(
        workspace, diary, engine, options, policy, signature, night, compiled,
    )
}

fn sentence(promoted: &Promoted) -> String {
    match promoted {
        Promoted::Landed(landing) => format!(
            "{} {} is in force as counter {}{}",
            landing.statement.signature.name(),
            landing.statement.to.short(),
            landing.statement.counter,
            because(&landing.marks)
        ),
        Promoted::Proposed(proposal) => format!(
            "proposed on {}{}",
            proposal.branch,
            because(&proposal.marks)
        ),
        Promoted::Withheld(verdict) => format!("withheld: {verdict}"),
    }
}

fn data_gate(
    workspace: &Workspace,
    policy: &Policy,
    signature: &Signature,
    has_traffic: bool,
) -> Result<GateResult, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.datasets)?;
    let census = datasets::census(&workspace.refs, snapshot.as_ref(), &signature.id)?;
    let mut gate = requirements(&census, &policy.gates, &signature.data);
    // Known now rather than when the canary starts: by then the holdout is paid for.
    if !has_traffic && census.rows_in(Split::Exercise) == 0 {
        let mut reasons = match gate.verdict {
            Verdict::Refuse { reasons } => reasons,
            Verdict::Pass | Verdict::Undecidable { .. } => Vec::new(),
        };
        reasons.push(
            "there are no exercise rows and no `--traffic`, so the canary would see nothing"
                .to_owned(),
        );
        gate.verdict = Verdict::Refuse { reasons };
    }
    Ok(gate)
}

fn say_gate(gate: &GateResult) -> (Level, String) {
    let level = if gate.verdict.is_pass() {
        Level::Info
    } else {
        Level::Warn
    };
    let skipped = gate
        .skipped
        .as_ref()
        .map(|why| format!(" (skipped: {why})"))
        .unwrap_or_default();
    (level, format!("{}{skipped}", gate.verdict))
}

fn compile_step(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    engine: &Engine,
    signature: &Signature,
) -> Result<CompileStep, FlowError> {
    diary.step(
        "compile",
        Some(&signature.id),
        |diary| {
            let run = diary.run().clone();
            let compiled = compile::compile(
                workspace,
                engine,
                signature,
                run.as_str(),
                &mut |progress| {
                    diary.progress(&signature.id, progress);
                },
            )?;
            diary.link(
                link::COMPILE_REPORT,
                &signature.id,
                &workspace.refs.artifacts,
                &compiled.commit,
                &path::report("compile", &signature.id, &compiled.key, "report.yaml"),
            );
            let report = compiled.report;
            let label = report
                .stages
                .iter()
                .flat_map(|stage| &stage.arms)
                .find(|arm| arm.artifact == report.winner)
                .map(|arm| arm.label.clone())
                .unwrap_or_default();
            Ok(CompileStep {
                key: compiled.key,
                job_hash: report.job_hash,
                base: report.base,
                winner: report.winner,
                conclusion: report.conclusion,
                label,
                base_mean: report.comparison.base_mean,
                winner_mean: report.comparison.winner_mean,
                rows: report.comparison.rows,
                evaluations: report.evaluations,
                full_grid: report.full_grid,
                reused: compiled.reused,
                mixed: report.is_mixed(),
                commit: compiled.commit,
            })
        },
        |step| {
            let source = if step.reused {
                "an equal search was made before"
            } else {
                "searched"
            };
            let words = if step.conclusion == Found::NoChange {
                format!(
                    "the program in force stays the best at {:.1} %",
                    100.0 * step.base_mean
                )
            } else {
                format!(
                    "{:.1} % → {:.1} % with {}",
                    100.0 * step.base_mean,
                    100.0 * step.winner_mean,
                    step.label
                )
            };
            (
                Level::Info,
                format!(
                    "{source}: {words} on {} dev rows ({} of {} predictions)",
                    step.rows, step.evaluations, step.full_grid
                ),
            )
        },
    )
}

fn dev_gate(policy: &Policy, compiled: &CompileStep, gain: f64, label: &Label) -> GateResult {
    let wanted = policy.gates.dev_gain_min;
    let reasons = if gain > wanted {
        Vec::new()
    } else {
        vec![format!(
            "the gain on dev is {:+.1} points; the policy asks for more than {:+.1} before an attempt on the holdout is spent",
            100.0 * gain,
            100.0 * wanted
        )]
    };
    GateResult::new("dev", Verdict::from_reasons(reasons))
        .with("rows", compiled.rows, &Label::Recomputed)
        .with("control mean", compiled.base_mean, label)
        .with("candidate mean", compiled.winner_mean, label)
}

fn holdout_step(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    engine: &Engine,
    signature: &Signature,
    policy: &Policy,
    control: &InForce,
    candidate: &InForce,
) -> Result<HoldoutStep, FlowError> {
    let step = diary.step(
        "holdout",
        Some(&signature.id),
        |diary| {
            let gated = holdout::gate(
                workspace,
                engine,
                signature,
                policy,
                diary.run(),
                Side {
                    program: &control.program,
                    weights: control.weights.as_deref(),
                },
                Side {
                    program: &candidate.program,
                    weights: candidate.weights.as_deref(),
                },
            )?;
            let tip = |reference: &RefName| -> Result<String, FlowError> {
                let tip = workspace.store.tip(reference)?;
                Ok(tip.map(|tip| tip.to_string()).unwrap_or_default())
            };
            let id = &signature.id;
            let ledger = &workspace.refs.ledger;
            diary.link(
                link::HOLDOUT_ATTEMPT,
                id,
                ledger,
                &tip(ledger)?,
                &path::holdout(id),
            );
            if gated.report.is_some() {
                let artifacts = &workspace.refs.artifacts;
                let report = path::report("holdout", id, &gated.attempt, "report.yaml");
                diary.link(
                    link::HOLDOUT_REPORT,
                    id,
                    artifacts,
                    &tip(artifacts)?,
                    &report,
                );
            }
            Ok(HoldoutStep::from(gated))
        },
        |step| {
            let (level, verdict) = say_gate(&step.gate);
            let again = if step.reused { " (decided before)" } else { "" };
            (
                level,
                format!("{verdict}{again}; {}", step.power.sentence()),
            )
        },
    )?;
    Ok(step)
}

/// What the canary's steps left.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CanaryStep {
    gate: GateResult,
    harmed: bool,
    pairs: u64,
    status: String,
    id: CanaryId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Exercised {
    requests: u64,
    source: String,
    commit: Option<String>,
    ended_early: Option<String>,
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site; each is a different thing"
)]
fn canary_step(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    engine: &Engine,
    concurrency: Option<usize>,
    traffic: Option<&[TrafficRow]>,
    signature: &Signature,
    policy: &Policy,
    compiled: &CompileStep,
) -> Result<CanaryStep, FlowError> {
    let id = &signature.id;
    let source = if traffic.is_some() {
        Source::Recorded
    } else {
        Source::Exercise
    };
    diary.step(
        "canary",
        Some(id),
        |diary| {
            let started = canary::start(
                workspace,
                policy,
                &StartRequest {
                    signature,
                    run: Some(diary.run().clone()),
                    control: compiled.base,
                    candidate: compiled.winner,
                    mode: Mode::Paired,
                    source,
                    writers: Vec::new(),
                    seed: None,
                },
            )?;
            let expected: Vec<String> = started
                .expected_pairs
                .iter()
                .map(|pairs| pairs.sentence())
                .collect();
            Ok((started.canary.id, expected))
        },
        |(canary, expected)| {
            (
                Level::Info,
                format!("{canary} starts; {}", expected.join("; ")),
            )
        },
    )?;
    diary.step(
        "exercise",
        Some(id),
        |diary| {
            let done = exercise::run(
                workspace,
                engine,
                policy,
                &ExerciseRequest {
                    signature,
                    run: diary.run().clone(),
                    count: None,
                    traffic,
                    concurrency,
                    seed: None,
                    keep_inputs: false,
                },
                &mut |_| {},
            )?;
            diary.stop_if_asked()?;
            Ok(Exercised {
                requests: done.requests,
                source: done.source.as_str().to_owned(),
                commit: done.commit,
                ended_early: done.ended_early,
            })
        },
        |done| {
            let early = done
                .ended_early
                .as_ref()
                .map(|why| format!("; {why}"))
                .unwrap_or_default();
            (
                Level::Info,
                format!(
                    "{} requests from {} rows, answered by both{early}",
                    done.requests, done.source
                ),
            )
        },
    )?;
    let step = diary.step(
        "monitor",
        Some(id),
        |diary| {
            let watched = canary::decide_and_close(workspace, policy, id, Ending::Now)?;
            let judged = watched.judged(workspace)?;
            diary.link_bound(link::CANARY, Some(id), Some(&judged.bound));
            Ok(CanaryStep {
                harmed: judged.harmed,
                status: judged.status.as_str().to_owned(),
                pairs: watched.decision.pairs,
                gate: judged.gate,
                id: judged.canary,
            })
        },
        |step| {
            let (level, verdict) = say_gate(&step.gate);
            (
                level,
                format!("{} after {} pairs: {verdict}", step.status, step.pairs),
            )
        },
    )?;
    Ok(step)
}

fn e2e_step(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    options: &Options,
    signature: &Signature,
    artifact: &Digest,
    candidate: &InForce,
) -> Result<GateResult, FlowError> {
    let id = &signature.id;
    let step = diary.step(
        "e2e",
        Some(id),
        |diary| {
            let outcome = commands::run_all(
                workspace,
                diary.run(),
                CommandKind::E2e,
                &commands::Options {
                    skip: options.no_e2e.clone(),
                    grep: options.e2e_grep.clone(),
                },
                Some(commands::Candidate {
                    signature: id,
                    artifact: *artifact,
                    program: &candidate.program,
                }),
            )?;
            diary.link_bound(link::E2E_EVIDENCE, Some(id), outcome.bound.as_ref());
            Ok(CommandStep::from(outcome))
        },
        CommandStep::say,
    )?;
    Ok(step.gate)
}

/// Promote, propose, or stop with a proven winner in hand.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site; each is a different thing"
)]
fn decide(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    engine: &Engine,
    options: &Options,
    policy: &Policy,
    signature: &Signature,
    night: SignatureNight,
    compiled: CompileStep,
) -> Result<SignatureNight, FlowError> {
    let id = &signature.id;
    let asked = signature.promotion.mode.unwrap_or(policy.promotion.mode);
    let request = promote::Request {
        signature: id.clone(),
        from: compiled.base,
        to: compiled.winner,
        job: compiled.job_hash,
        run: diary.run().clone(),
        gates: night.gates.clone(),
        inputs: diary.bound(id)?,
        // The policy's word is final: a signature may only ask for more caution.
        mode: match (options.propose, asked, policy.promotion.mode) {
            (false, PromotionMode::Direct, PromotionMode::Direct) => PromotionMode::Direct,
            _ => PromotionMode::Propose,
        },
        re_executed: false,
    };
    let mut night = night;
    night.promotion = Some(request.clone());
    if options.no_promote {
        return Ok(night.end(
            Conclusion::Ready,
            "proven; --no-promote kept it from coming into force",
            format!("`proofline promote {id} --run {}`", diary.run()),
        ));
    }
    let promoted = diary.step(
        "promote",
        Some(id),
        |diary| {
            let promoted = promote::promote(workspace, &request)?;
            if let Promoted::Landed(landing) = &promoted {
                let place = path::promotion(
                    id,
                    landing.statement.counter,
                    crate::records::control::PROMOTION,
                );
                diary.link(
                    link::PROMOTION,
                    id,
                    &workspace.refs.control,
                    &landing.commit,
                    &place,
                );
            }
            Ok(promoted)
        },
        |promoted| (Level::Info, sentence(promoted)),
    )?;
    night.promoted = Some(promoted.clone());
    match promoted {
        Promoted::Withheld(verdict) => Ok(night.end(
            Conclusion::Refused,
            format!("the promotion was withheld: {verdict}"),
            "see `proofline status` for the policy in force",
        )),
        Promoted::Proposed(proposal) => {
            let next = proposal
                .commands
                .first()
                .cloned()
                .unwrap_or_else(|| format!("review {}", proposal.branch));
            Ok(night.end(
                Conclusion::Proposed,
                format!(
                    "{} awaits a person{}",
                    proposal.branch,
                    because(&proposal.marks)
                ),
                next,
            ))
        }
        Promoted::Landed(landing) => confirm(
            workspace,
            diary,
            engine,
            signature,
            night,
            compiled.winner,
            landing.statement.counter,
        ),
    }
}

fn because(marks: &[String]) -> String {
    if marks.is_empty() {
        String::new()
    } else {
        format!(": {}", marks.join("; "))
    }
}

/// Resolve and predict once more: the promoted artifact must answer, or it is rolled back.
fn confirm(
    workspace: &Workspace,
    diary: &mut Diary<'_>,
    engine: &Engine,
    signature: &Signature,
    night: SignatureNight,
    artifact: Digest,
    counter: u64,
) -> Result<SignatureNight, FlowError> {
    let id = &signature.id;
    let trouble = diary.step(
        "confirm",
        Some(id),
        |diary| answers(workspace, diary, engine, signature, &artifact),
        |trouble: &Option<String>| match trouble {
            None => (Level::Info, "the promoted artifact answers".to_owned()),
            Some(why) => (
                Level::Error,
                format!("the promoted artifact does not answer: {why}"),
            ),
        },
    )?;
    let Some(why) = trouble else {
        return Ok(night.end(
            Conclusion::Promoted,
            format!("counter {counter} is in force"),
            format!("`proofline promotions show {id}` shows what it rests on"),
        ));
    };
    diary.step(
        "rollback",
        Some(id),
        |_| {
            rollback::rollback(
                workspace,
                &rollback::Request {
                    signature: id.clone(),
                    to: None,
                    reason: format!("the promoted artifact does not answer: {why}"),
                    propose: false,
                },
            )
        },
        |done| (Level::Warn, sentence(done)),
    )?;
    Ok(night.end(
        Conclusion::RolledBack,
        format!("it came into force, did not answer ({why}), and was rolled back"),
        "find out why before the next night",
    ))
}

/// Why the artifact in force does not answer as it should; `None` when it does.
fn answers(
    workspace: &Workspace,
    diary: &Diary<'_>,
    engine: &Engine,
    signature: &Signature,
    artifact: &Digest,
) -> Result<Option<String>, FlowError> {
    let Some(active) = compile::active(workspace, &signature.id)? else {
        return Ok(Some("there is no pointer".to_owned()));
    };
    let found = active.program.artifact_id()?;
    if found != *artifact {
        return Ok(Some(format!("{} is in force instead", found.short())));
    }
    let rows = match eval::rows(workspace, signature, Split::Exercise) {
        Ok(rows) => rows,
        Err(_) => compile::rows(workspace, &signature.id)?.dev,
    };
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let predictor = Predictor::new(engine, active.program, active.weights.as_deref())?;
    let context = format!("confirm {}", diary.run());
    let call = Call {
        context: &context,
        repetition: 0,
        correlation_id: format!("{}-confirm", diary.run()),
    };
    let prediction = predictor.predict(engine, &row.input, &call)?;
    // A wrong answer to one row is no failure; no answer from the model is.
    Ok((prediction.failure == Some(Failure::Transport))
        .then(|| prediction.reason.unwrap_or_default()))
}

/// What each step would do for a signature, without doing it.
pub fn outlook(
    workspace: &Workspace,
    engine: &Engine,
    options: &Options,
    policy: &Policy,
    signature: &Signature,
    steps: &mut Vec<String>,
) -> Result<(), FlowError> {
    let name = signature.id.name();
    let mut say = |step: &str, words: String| steps.push(format!("{name} {step}: {words}"));
    if let Some(branch) = promote::open_proposal(workspace, &signature.id)? {
        say("stop", format!("{branch} still awaits a person"));
        return Ok(());
    }
    let data = data_gate(workspace, policy, signature, options.traffic.is_some())?;
    if let Verdict::Refuse { .. } = data.verdict {
        say(
            "data",
            format!("{}; the night would end here", data.verdict),
        );
        return Ok(());
    }
    let rows = compile::rows(workspace, &signature.id)?;
    let base = match compile::active(workspace, &signature.id)? {
        Some(active) => format!("artifact {}", active.program.artifact_id()?.short()),
        None => "the signature's defaults".to_owned(),
    };
    let _ = engine;
    say(
        "compile",
        format!(
            "{} from {base}, on {} train and {} dev rows",
            signature.job.optimizer.as_str(),
            rows.train.len(),
            rows.dev.len()
        ),
    );
    say(
        "holdout",
        holdout::outlook(workspace, signature, policy)?.sentence(),
    );
    say(
        "canary",
        match &options.traffic {
            Some(path) => format!("traffic of {}", path.display()),
            None => "a rehearsal on the exercise rows".to_owned(),
        },
    );
    let e2e: Vec<String> = workspace
        .project
        .commands
        .e2e
        .iter()
        .map(|command| format!("`{}`", command.argv.join(" ")))
        .collect();
    say(
        "e2e",
        if e2e.is_empty() {
            "no commands are configured: recorded as skipped".to_owned()
        } else {
            e2e.join(", ")
        },
    );
    let last = if options.no_promote {
        "nothing: --no-promote"
    } else if options.propose
        || signature.promotion.mode.unwrap_or(policy.promotion.mode) == PromotionMode::Propose
    {
        "propose the winner on a branch"
    } else {
        "move the pointer"
    };
    say("promote", last.to_owned());
    Ok(())
}
