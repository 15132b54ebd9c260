//! The search: which candidates a job makes, and the race that picks one.
//!
//! Pure: predictions come from a [`Bench`], which the flow above implements
//! with models, caches and threads. The search asks for whole blocks, so that
//! its decisions depend on outcomes only, never on which answer came first: the
//! same inputs give the same report on any machine and any number of threads.
//!
//! The base is always a candidate and always stays one; identical programs
//! (equal artifact ids) are evaluated once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canon;
use crate::domain::prove::stats::race::{BlockPlan, Race, RaceError};
use crate::domain::prove::stats::rng::Rng;
use crate::id::{Digest, ExampleId};

use super::artifact::Program;
use super::job::{JobPlan, Optimizer, SearchBudget, SearchSpace};
use super::report::Outcome;
use super::signature::{Parameters, Strategy};

/// What the search needs from the world.
pub trait Bench {
    /// Turn parameters into a program: look few-shots up, fit weights.
    fn freeze(&mut self, parameters: &Parameters) -> Result<Program, Halt>;

    /// The outcome of each cell, in the order of the cells.
    fn evaluate(&mut self, cells: &[Cell]) -> Result<Vec<Outcome>, Halt>;

    /// Told about every step, for progress displays; must not influence the search.
    fn progress(&mut self, _progress: &Progress<'_>) {}
}

/// One prediction to make: a program on a dev row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    /// The program.
    pub artifact: Digest,
    /// Index into the dev rows.
    pub example: usize,
}

/// Where a search stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// Candidates still in the race.
    pub alive: usize,
    /// Candidates that entered it.
    pub entered: usize,
    /// Dev rows raced so far in this stage.
    pub rows_done: usize,
    /// Dev rows in all.
    pub rows: usize,
    /// Predictions so far, over all stages.
    pub evaluations: u64,
}

/// Why a bench gave no outcome.
#[derive(Debug)]
pub enum Halt {
    /// A budget is spent: stop with the best so far.
    Budget(Stopped),
    /// The user asked to stop; nothing may be concluded.
    Interrupted,
    /// Something outside failed; nothing may be concluded.
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// A candidate cannot be built.
    Unbuildable(String),
}

/// Which budget ended a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// `max_calls`
    Calls,
    /// `max_tokens`
    Tokens,
    /// `max_cost_micro_usd`
    Cost,
    /// `max_time_ms`
    Time,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Calls => "calls",
            Self::Tokens => "tokens",
            Self::Cost => "money",
            Self::Time => "time",
        })
    }
}

/// Why a job is not searched at all.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// There is nothing to choose between.
    #[error("the search space has {distinct} distinct candidate(s); it needs at least two")]
    SpaceTooSmall {
        /// How many there are, the base included.
        distinct: usize,
    },
    /// There are no dev rows.
    #[error("there are no dev rows to select on")]
    NoDevRows,
    /// The space names something that is not there.
    #[error("{0}")]
    Space(String),
    /// The budget does not even reach the base on the first block.
    #[error(
        "the search's budget of {stopped} ends before every candidate was tried on one block of rows"
    )]
    BudgetTooSmall {
        /// Which budget.
        stopped: Stopped,
    },
    /// The bench stopped for a reason from which nothing may be concluded.
    #[error("the search was interrupted")]
    Interrupted,
    /// The bench failed.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// A candidate of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// What makes it different, for people: `instruction=short`, `+fewshot st-0012`.
    pub label: String,
    /// The program.
    pub artifact: Digest,
    /// Dev rows it was evaluated on within the stage.
    pub rows: u64,
    /// Its mean score on them.
    pub mean: f64,
    /// Why it left the race; absent for those that finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
}

/// Why an arm left the race.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// After this many dev rows.
    pub after_rows: u64,
    /// In words.
    pub reason: String,
    /// One-sided p of "the leader is no better" at that point.
    pub p: f64,
    /// Rows the arm won against the leader.
    pub wins: u64,
    /// Rows it lost.
    pub losses: u64,
    /// The leader then.
    pub leader: Digest,
}

/// One race.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// `instruction_grid`, `fewshot 2`, `knobs_grid`, `knobs_refine`.
    pub name: String,
    /// Every candidate, in the order of the space; the first is the stage's incumbent.
    pub arms: Vec<Arm>,
    /// Who won.
    pub winner: Digest,
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// The races, in order.
    pub stages: Vec<Stage>,
    /// The best program; the base itself when nothing beat it.
    pub winner: Digest,
    /// Every program that took part.
    pub programs: BTreeMap<Digest, Program>,
    /// Every outcome, by program, then by dev row.
    pub outcomes: BTreeMap<Digest, BTreeMap<usize, Outcome>>,
    /// Predictions made, each program and row once.
    pub evaluations: u64,
    /// Which budget ended it early.
    pub stopped: Option<Stopped>,
}

/// The inputs of a search.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Space, optimiser, seed, budget.
    pub job: &'a JobPlan,
    /// The program in force.
    pub base: &'a Program,
    /// Its parameters, as a starting point for variations.
    pub base_parameters: &'a Parameters,
    /// How many dev rows there are; the race takes them in an order drawn from the seed.
    pub dev_rows: usize,
    /// Train rows that may be few-shots, each with the label few-shots are spread over.
    pub few_shot_pool: &'a [(ExampleId, String)],
}

/// Run the job.
pub fn run(plan: &Plan<'_>, bench: &mut dyn Bench) -> Result<Found, SearchError> {
    if plan.dev_rows == 0 {
        return Err(SearchError::NoDevRows);
    }
    let distinct = distinct_candidates(plan)?;
    if distinct < 2 {
        return Err(SearchError::SpaceTooSmall { distinct });
    }
    let mut search = Search::new(plan)?;
    let incumbent = search.base;
    let label = "base".to_owned();
    let result = match plan.job.optimizer {
        Optimizer::InstructionGrid => {
            let arms = instruction_arms(plan.base_parameters, &plan.job.space);
            search
                .stage(bench, "instruction_grid", (incumbent, label), arms)
                .map(drop)
        }
        Optimizer::KnobsGrid => {
            let arms = knob_arms(plan.base_parameters, &plan.job.space)?;
            search
                .stage(bench, "knobs_grid", (incumbent, label), arms)
                .map(drop)
        }
        Optimizer::KnobsGridRefine => knobs_refined(&mut search, plan, bench, label),
        Optimizer::FewShotGreedyForward => greedy(
            &mut search,
            plan,
            bench,
            plan.base_parameters.clone(),
            label,
        ),
        Optimizer::JointInstructionThenFewShot => {
            let arms = instruction_arms(plan.base_parameters, &plan.job.space);
            match search.stage(bench, "instruction_grid", (incumbent, label.clone()), arms) {
                Ok(winner) => {
                    let start = winner.unwrap_or_else(|| plan.base_parameters.clone());
                    greedy(
                        &mut search,
                        plan,
                        bench,
                        start,
                        "best instruction".to_owned(),
                    )
                }
                Err(halt) => Err(halt),
            }
        }
    };
    match result {
        Ok(()) => {}
        Err(Halt::Budget(stopped)) => {
            if search.stages.is_empty() {
                return Err(SearchError::BudgetTooSmall { stopped });
            }
            search.stopped = Some(stopped);
        }
        Err(Halt::Interrupted) => return Err(SearchError::Interrupted),
        Err(Halt::Failed(error)) => return Err(SearchError::Failed(error)),
        Err(Halt::Unbuildable(reason)) => return Err(SearchError::Space(reason)),
    }
    Ok(search.finish())
}

/// How many different programs the space can name, the base included. Counted on
/// parameters, so that a space is judged before anything is fitted or asked.
pub fn distinct_candidates(plan: &Plan<'_>) -> Result<usize, SearchError> {
    let base = plan.base_parameters;
    let space = &plan.job.space;
    let mut seen = BTreeSet::new();
    let mut add = |parameters: &Parameters| {
        seen.insert(
            canon::to_bytes(&normalised(parameters))
                .expect("because parameters were read from JSON"),
        );
    };
    add(base);
    if matches!(
        plan.job.optimizer,
        Optimizer::InstructionGrid | Optimizer::JointInstructionThenFewShot
    ) {
        for (_, arm) in instruction_arms(base, space) {
            add(&arm);
        }
    }
    if matches!(
        plan.job.optimizer,
        Optimizer::KnobsGrid | Optimizer::KnobsGridRefine
    ) {
        for (_, arm) in knob_arms(base, space)? {
            add(&arm);
        }
    }
    let mut count = seen.len();
    if plan.job.optimizer.uses_few_shots() {
        count += few_shot_candidates(plan)?
            .iter()
            .filter(|id| !base.few_shot.example_ids.contains(id))
            .count();
    }
    Ok(count)
}

/// Parameters without what their strategy does not look at, so that programs
/// that behave alike have one id.
pub fn normalised(parameters: &Parameters) -> Parameters {
    let mut parameters = parameters.clone();
    match parameters.strategy {
        Strategy::Direct => parameters.lexical = Map::new(),
        Strategy::DistilledLexical => {
            parameters.model = "lexical".to_owned();
            parameters.instruction = Default::default();
            parameters.few_shot = Default::default();
            parameters.decode = Default::default();
            parameters.temperature = 0.0;
            parameters.top_p = 1.0;
            parameters.max_tokens = 0;
        }
    }
    parameters
}

fn instruction_arms(base: &Parameters, space: &SearchSpace) -> Vec<(String, Parameters)> {
    space
        .instruction_variants
        .iter()
        .map(|variant| {
            let mut arm = base.clone();
            arm.instruction.text.clone_from(&variant.text);
            (format!("instruction={}", variant.id), arm)
        })
        .collect()
}

fn knob_arms(
    base: &Parameters,
    space: &SearchSpace,
) -> Result<Vec<(String, Parameters)>, SearchError> {
    let mut arms = vec![(String::new(), base.clone())];
    arms = product(&arms, &space.strategy_variants, |arm, strategy| {
        arm.strategy = *strategy;
        format!("strategy={}", plain(strategy))
    });
    arms = product(&arms, &space.model_variants, |arm, model| {
        arm.model.clone_from(model);
        format!("model={model}")
    });
    arms = product(&arms, &space.decode_variants, |arm, decode| {
        arm.decode = decode.clone();
        format!("decode={}/{}", plain(&decode.mode), decode.max_repairs)
    });
    let mut knob_sets = space.lexical_variants.clone();
    knob_sets.extend(grid(&space.lexical_grid)?);
    arms = product(&arms, &knob_sets, |arm, knobs| {
        merge(&mut arm.lexical, knobs)
    });
    // The base itself is in the race already.
    Ok(arms
        .into_iter()
        .filter(|(label, _)| !label.is_empty())
        .collect())
}

fn plain(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Every arm with every variant; as it was where there are no variants.
fn product<V>(
    arms: &[(String, Parameters)],
    variants: &[V],
    apply: impl Fn(&mut Parameters, &V) -> String,
) -> Vec<(String, Parameters)> {
    if variants.is_empty() {
        return arms.to_vec();
    }
    let mut out = Vec::with_capacity(arms.len() * variants.len());
    for (label, base) in arms {
        for variant in variants {
            let mut arm = base.clone();
            let change = apply(&mut arm, variant);
            let label = match (label.is_empty(), change.is_empty()) {
                (true, _) => change,
                (false, true) => label.clone(),
                (false, false) => format!("{label} {change}"),
            };
            out.push((label, arm));
        }
    }
    out
}

/// Lay knobs over knobs; `null` takes one away, back to its default. Says what it set.
fn merge(into: &mut Map<String, Value>, knobs: &Map<String, Value>) -> String {
    let mut words = Vec::new();
    for (name, value) in knobs {
        words.push(format!("{name}={value}"));
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
    words.join(" ")
}

/// The product of the values per knob.
fn grid(axes: &Map<String, Value>) -> Result<Vec<Map<String, Value>>, SearchError> {
    let mut sets = vec![Map::new()];
    for (name, values) in axes {
        let values = values
            .as_array()
            .filter(|values| !values.is_empty())
            .ok_or_else(|| {
                SearchError::Space(format!(
                    "`lexical_grid.{name}` must be a list of at least one value"
                ))
            })?;
        sets = sets
            .iter()
            .flat_map(|set| {
                values.iter().map(move |value| {
                    let mut set = set.clone();
                    set.insert(name.clone(), value.clone());
                    set
                })
            })
            .collect();
    }
    if axes.is_empty() {
        sets.clear();
    }
    Ok(sets)
}

/// Ids to try as few-shots: those named, else drawn from the pool, spread over its labels.
fn few_shot_candidates(plan: &Plan<'_>) -> Result<Vec<ExampleId>, SearchError> {
    let Some(space) = &plan.job.space.few_shot else {
        return Err(SearchError::Space(
            "this optimizer needs `job.space.few_shot` with a `k_max`".to_owned(),
        ));
    };
    if !space.candidate_example_ids.is_empty() {
        let known: BTreeSet<_> = plan.few_shot_pool.iter().map(|(id, _)| id).collect();
        if let Some(id) = space
            .candidate_example_ids
            .iter()
            .find(|id| !known.contains(id))
        {
            return Err(SearchError::Space(format!(
                "few-shot candidate `{id}` is not a train row (few-shots come from train alone)"
            )));
        }
        return Ok(space.candidate_example_ids.clone());
    }
    // Draw in rounds over the labels: every label is offered before any is offered twice.
    let mut by_label: BTreeMap<&str, Vec<&ExampleId>> = BTreeMap::new();
    for (id, label) in plan.few_shot_pool {
        by_label.entry(label).or_default().push(id);
    }
    let mut rng = Rng::new(plan.job.seed ^ 0x6665_7773_686f_7473);
    let mut queues: Vec<Vec<&ExampleId>> = by_label
        .into_values()
        .map(|mut ids| {
            ids.sort();
            rng.shuffle(&mut ids);
            ids
        })
        .collect();
    let mut drawn = Vec::new();
    while drawn.len() < space.candidate_count as usize
        && queues.iter().any(|queue| !queue.is_empty())
    {
        for queue in &mut queues {
            if drawn.len() < space.candidate_count as usize
                && let Some(id) = queue.pop()
            {
                drawn.push(id.clone());
            }
        }
    }
    Ok(drawn)
}

fn greedy(
    search: &mut Search<'_>,
    plan: &Plan<'_>,
    bench: &mut dyn Bench,
    start: Parameters,
    label: String,
) -> Result<(), Halt> {
    let candidates =
        few_shot_candidates(plan).map_err(|error| Halt::Unbuildable(error.to_string()))?;
    let k_max = plan
        .job
        .space
        .few_shot
        .as_ref()
        .map_or(0, |space| space.k_max as usize);
    let mut current = start;
    let mut label = label;
    while current.few_shot.example_ids.len() < k_max {
        let arms: Vec<_> = candidates
            .iter()
            .filter(|id| !current.few_shot.example_ids.contains(id))
            .map(|id| {
                let mut arm = current.clone();
                arm.few_shot.example_ids.push(id.clone());
                (format!("+fewshot {id}"), arm)
            })
            .collect();
        if arms.is_empty() {
            break;
        }
        let name = format!("fewshot {}", current.few_shot.example_ids.len() + 1);
        let incumbent = search.winner;
        match search.stage(bench, &name, (incumbent, label), arms)? {
            Some(better) => current = better,
            None => break,
        }
        label = format!(
            "best with {} few-shot(s)",
            current.few_shot.example_ids.len()
        );
    }
    Ok(())
}

fn knobs_refined(
    search: &mut Search<'_>,
    plan: &Plan<'_>,
    bench: &mut dyn Bench,
    label: String,
) -> Result<(), Halt> {
    let space = &plan.job.space;
    let arms = knob_arms(plan.base_parameters, space)
        .map_err(|error| Halt::Unbuildable(error.to_string()))?;
    let incumbent = search.winner;
    let best = search
        .stage(bench, "knobs_grid", (incumbent, label), arms)?
        .unwrap_or_else(|| plan.base_parameters.clone());
    let mut arms = Vec::new();
    for (name, values) in &space.lexical_grid {
        let mut values: Vec<f64> = values
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect();
        values.sort_by(f64::total_cmp);
        let Some(at) = best.lexical.get(name).and_then(Value::as_f64) else {
            continue;
        };
        let whole = space.lexical_grid[name]
            .as_array()
            .is_some_and(|values| values.iter().all(|value| value.is_i64() || value.is_u64()));
        let below = values.iter().rev().find(|value| **value < at);
        let above = values.iter().find(|value| **value > at);
        for neighbour in [below, above].into_iter().flatten() {
            let middle = (at + neighbour) / 2.0;
            let value = if whole {
                let middle = middle.round();
                if middle == at || middle == *neighbour {
                    continue;
                }
                Value::from(middle as i64)
            } else {
                Value::from(middle)
            };
            let mut arm = best.clone();
            arm.lexical.insert(name.clone(), value.clone());
            arms.push((format!("{name}={value}"), arm));
        }
    }
    if arms.is_empty() {
        return Ok(());
    }
    let incumbent = search.winner;
    search
        .stage(
            bench,
            "knobs_refine",
            (incumbent, "best of the grid".to_owned()),
            arms,
        )
        .map(drop)
}

fn broken(error: RaceError) -> Halt {
    Halt::Unbuildable(format!("the race refused its own scores: {error}"))
}

struct Search<'a> {
    plan: &'a Plan<'a>,
    /// Dev rows in the order they are raced.
    order: Vec<usize>,
    base: Digest,
    winner: Digest,
    programs: BTreeMap<Digest, Program>,
    outcomes: HashMap<Cell, Outcome>,
    stages: Vec<Stage>,
    evaluations: u64,
    spent_tokens: u64,
    spent_micro_usd: u64,
    stopped: Option<Stopped>,
}

impl<'a> Search<'a> {
    fn new(plan: &'a Plan<'a>) -> Result<Self, SearchError> {
        let base = plan
            .base
            .artifact_id()
            .map_err(|error| SearchError::Space(error.to_string()))?;
        let mut order: Vec<usize> = (0..plan.dev_rows).collect();
        Rng::new(plan.job.seed).shuffle(&mut order);
        Ok(Self {
            plan,
            order,
            base,
            winner: base,
            programs: BTreeMap::from([(base, plan.base.clone())]),
            outcomes: HashMap::new(),
            stages: Vec::new(),
            evaluations: 0,
            spent_tokens: 0,
            spent_micro_usd: 0,
            stopped: None,
        })
    }

    /// Race the incumbent against the arms. `Some` with the winner's parameters
    /// when an arm beat it; a stage that a budget cut short is recorded before the halt is passed on.
    fn stage(
        &mut self,
        bench: &mut dyn Bench,
        name: &str,
        incumbent: (Digest, String),
        arms: Vec<(String, Parameters)>,
    ) -> Result<Option<Parameters>, Halt> {
        let mut entered: Vec<(String, Digest, Option<Parameters>)> =
            vec![(incumbent.1, incumbent.0, None)];
        for (label, parameters) in arms {
            let parameters = normalised(&parameters);
            let program = bench.freeze(&parameters)?;
            let id = program
                .artifact_id()
                .map_err(|error| Halt::Unbuildable(error.to_string()))?;
            // Identical programs race once, under the first label.
            if entered.iter().all(|(_, other, _)| *other != id) {
                self.programs.insert(id, program);
                entered.push((label, id, Some(parameters)));
            }
        }
        let blocks = BlockPlan::standard(entered.len(), self.order.len());
        let mut race = Race::new(entered.len(), 0, blocks, self.plan.job.seed).map_err(broken)?;
        let mut halted = None;
        let mut rows_done = 0;
        while let Some(block) = race.next_block() {
            let cells: Vec<Cell> = block
                .arms
                .iter()
                .flat_map(|arm| {
                    let artifact = entered[*arm].1;
                    self.order[block.examples.clone()]
                        .iter()
                        .map(move |example| Cell {
                            artifact,
                            example: *example,
                        })
                })
                .collect();
            if let Err(halt) = self.fill(bench, &cells) {
                halted = Some(halt);
                break;
            }
            let scores: Vec<Vec<f64>> = cells
                .chunks(block.examples.len())
                .map(|row| row.iter().map(|cell| self.outcomes[cell].score).collect())
                .collect();
            race.record(&block, &scores).map_err(broken)?;
            rows_done = block.examples.end;
            bench.progress(&Progress {
                stage: name,
                alive: entered.len() - race.eliminations().len(),
                entered: entered.len(),
                rows_done,
                rows: self.order.len(),
                evaluations: self.evaluations,
            });
        }
        match halted {
            Some(Halt::Budget(_)) | None if rows_done > 0 => {}
            Some(halt) => return Err(halt),
            None => unreachable!("because a race with rows runs its first block or halts"),
        }
        let result = race.finish();
        let best = result.winner().arm;
        let arms = entered
            .iter()
            .enumerate()
            .map(|(index, (label, artifact, _))| {
                let standing = result.ranking.iter().find(|standing| standing.arm == index);
                let standing = standing.expect("because a ranking holds every arm");
                let dropped = race
                    .eliminations()
                    .iter()
                    .find(|elimination| elimination.arm == index);
                Arm {
                    label: label.clone(),
                    artifact: *artifact,
                    rows: standing.examples as u64,
                    mean: standing.mean,
                    dropped: dropped.map(|elimination| Dropped {
                        after_rows: elimination.at_examples as u64,
                        reason: elimination.reason.to_string(),
                        p: elimination.p_value,
                        wins: elimination.losses,
                        losses: elimination.wins,
                        leader: entered[elimination.leader].1,
                    }),
                }
            })
            .collect();
        self.winner = entered[best].1;
        self.stages.push(Stage {
            name: name.to_owned(),
            arms,
            winner: self.winner,
        });
        match halted {
            Some(halt) => Err(halt),
            None => Ok(entered.swap_remove(best).2),
        }
    }

    /// Make the predictions that are not known yet, within the budget.
    fn fill(&mut self, bench: &mut dyn Bench, cells: &[Cell]) -> Result<(), Halt> {
        let missing: Vec<Cell> = cells
            .iter()
            .filter(|cell| !self.outcomes.contains_key(cell))
            .copied()
            .collect();
        let SearchBudget {
            max_calls,
            max_tokens,
            max_cost_micro_usd,
            ..
        } = self.plan.job.budget;
        if max_calls.is_some_and(|max| self.evaluations + missing.len() as u64 > max) {
            return Err(Halt::Budget(Stopped::Calls));
        }
        if max_tokens.is_some_and(|max| self.spent_tokens >= max) {
            return Err(Halt::Budget(Stopped::Tokens));
        }
        if max_cost_micro_usd.is_some_and(|max| self.spent_micro_usd >= max) {
            return Err(Halt::Budget(Stopped::Cost));
        }
        let outcomes = bench.evaluate(&missing)?;
        assert_eq!(outcomes.len(), missing.len(), "a bench answers every cell");
        for (cell, outcome) in missing.into_iter().zip(outcomes) {
            self.evaluations += 1;
            self.spent_tokens += outcome.usage.input_tokens + outcome.usage.output_tokens;
            self.spent_micro_usd += outcome.usage.cost_micro_usd;
            self.outcomes.insert(cell, outcome);
        }
        Ok(())
    }

    fn finish(self) -> Found {
        let mut outcomes: BTreeMap<Digest, BTreeMap<usize, Outcome>> = BTreeMap::new();
        for (cell, outcome) in self.outcomes {
            outcomes
                .entry(cell.artifact)
                .or_default()
                .insert(cell.example, outcome);
        }
        Found {
            stages: self.stages,
            winner: self.winner,
            programs: self.programs,
            outcomes,
            evaluations: self.evaluations,
            stopped: self.stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::improve::artifact::{ProgramModel, Sampling, Shot};
    use crate::domain::improve::job::{FewShotSpace, InstructionVariant, JobPlan};
    use crate::domain::improve::report::Usage;
    use crate::domain::improve::signature::{Instruction, Interface, PromptFrame};
    use serde_json::json;

    /// A world in which every program has a known accuracy: `skill` of its
    /// parameters, with examples of differing difficulty shared by all programs.
    struct World {
        skill: fn(&Parameters) -> f64,
        known: BTreeMap<Digest, Parameters>,
        calls: u64,
        asked: Vec<Cell>,
        halt_after: Option<u64>,
    }

    impl World {
        fn new(skill: fn(&Parameters) -> f64) -> Self {
            Self {
                skill,
                known: BTreeMap::new(),
                calls: 0,
                asked: Vec::new(),
                halt_after: None,
            }
        }
    }

    fn program(parameters: &Parameters) -> Program {
        Program {
            schema: Program::SCHEMA.to_owned(),
            interface: Interface {
                signature: "@a/b/C.v1".parse().expect("an id"),
                input: json!(true),
                output: json!(true),
                prompt: PromptFrame::default(),
            },
            strategy: parameters.strategy,
            model: ProgramModel {
                name: parameters.model.clone(),
                provider: "test".to_owned(),
                model: "test".to_owned(),
            },
            instruction: parameters.instruction.clone(),
            few_shots: parameters
                .few_shot
                .example_ids
                .iter()
                .map(|id| Shot {
                    id: id.clone(),
                    input: json!(null),
                    expected: json!(null),
                })
                .collect(),
            decode: parameters.decode.clone(),
            sampling: Sampling {
                temperature: 0.0,
                top_p: 1.0,
                max_tokens: 1,
            },
            budgets: Default::default(),
            lexical: None,
        }
    }

    impl Bench for World {
        fn freeze(&mut self, parameters: &Parameters) -> Result<Program, Halt> {
            let program = program(parameters);
            self.known.insert(
                program.artifact_id().expect("canonical"),
                parameters.clone(),
            );
            Ok(program)
        }

        fn evaluate(&mut self, cells: &[Cell]) -> Result<Vec<Outcome>, Halt> {
            if self
                .halt_after
                .is_some_and(|max| self.calls + cells.len() as u64 > max)
            {
                return Err(Halt::Interrupted);
            }
            self.calls += cells.len() as u64;
            self.asked.extend(cells);
            Ok(cells
                .iter()
                .map(|cell| {
                    let skill = (self.skill)(&self.known[&cell.artifact]);
                    let difficulty = Rng::stream(99, cell.example as u64).unit();
                    let luck =
                        Rng::stream(cell.artifact.as_bytes()[0].into(), cell.example as u64).unit();
                    let right = 0.8 * difficulty + 0.2 * luck < skill;
                    Outcome {
                        output: Some(json!(right)),
                        failure: None,
                        score: f64::from(u8::from(right)),
                        repairs: 0,
                        usage: Usage {
                            calls: 1,
                            input_tokens: 10,
                            output_tokens: 1,
                            cost_micro_usd: 3,
                        },
                        answered_by: "test/test".to_owned(),
                    }
                })
                .collect())
        }
    }

    fn base() -> Parameters {
        serde_json::from_value(
            json!({"strategy": "direct.v1", "model": "m", "instruction": {"text": "base"}}),
        )
        .expect("parameters")
    }

    fn job(optimizer: Optimizer) -> JobPlan {
        JobPlan {
            optimizer,
            seed: 7,
            ..JobPlan::default()
        }
    }

    fn search(job: &JobPlan, world: &mut World) -> Result<Found, SearchError> {
        let base = base();
        let program = program(&base);
        world
            .known
            .insert(program.artifact_id().expect("canonical"), base.clone());
        let pool: Vec<(ExampleId, String)> = (0..40)
            .map(|n| {
                (
                    format!("e{n:02}").parse().expect("an id"),
                    format!("label{}", n % 4),
                )
            })
            .collect();
        run(
            &Plan {
                job,
                base: &program,
                base_parameters: &base,
                dev_rows: 120,
                few_shot_pool: &pool,
            },
            world,
        )
    }

    fn instructions(count: usize) -> Vec<InstructionVariant> {
        (0..count)
            .map(|n| InstructionVariant {
                id: format!("i{n}"),
                text: format!("{n:02}"),
            })
            .collect()
    }

    /// Instructions "00" to "31": the later, the better.
    fn later_is_better(parameters: &Parameters) -> f64 {
        let number: f64 = parameters.instruction.text.parse().unwrap_or(0.0);
        0.5 + number / 100.0 + 0.03 * parameters.few_shot.example_ids.len() as f64
    }

    #[test]
    fn a_grid_finds_a_better_instruction_for_a_quarter_of_the_calls() {
        let mut job = job(Optimizer::InstructionGrid);
        job.space.instruction_variants = instructions(32);
        let mut world = World::new(later_is_better);
        let found = search(&job, &mut world).expect("found");
        let winner = &world.known[&found.winner];
        let number: u32 = winner.instruction.text.parse().expect("a number");
        assert!(number >= 24, "it chose {number}");
        assert!(world.calls <= 33 * 120 / 4, "{} calls", world.calls);
        assert_eq!(world.calls, found.evaluations);
        // The base is never dropped, so the gain is known on every row.
        assert_eq!(found.outcomes[&found.stages[0].arms[0].artifact].len(), 120);
        assert_eq!(found.outcomes[&found.winner].len(), 120);
    }

    #[test]
    fn no_cell_is_asked_twice_over_stages() {
        let mut job = job(Optimizer::JointInstructionThenFewShot);
        job.space.instruction_variants = instructions(6);
        job.space.few_shot = Some(FewShotSpace {
            candidate_example_ids: Vec::new(),
            candidate_count: 8,
            k_max: 3,
        });
        let mut world = World::new(later_is_better);
        let found = search(&job, &mut world).expect("found");
        let distinct: std::collections::HashSet<_> = world.asked.iter().collect();
        assert_eq!(distinct.len(), world.asked.len());
        let winner = &world.known[&found.winner];
        assert!(
            !winner.few_shot.example_ids.is_empty(),
            "few-shots help here, and none was taken"
        );
        assert!(
            found.stages.len() >= 3,
            "{:?}",
            found
                .stages
                .iter()
                .map(|stage| &stage.name)
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn drawn_few_shots_are_spread_over_the_labels() {
        let mut job = job(Optimizer::FewShotGreedyForward);
        job.space.few_shot = Some(FewShotSpace {
            candidate_example_ids: Vec::new(),
            candidate_count: 8,
            k_max: 1,
        });
        let mut world = World::new(later_is_better);
        let found = search(&job, &mut world).expect("found");
        let mut per_label = [0; 4];
        for arm in &found.stages[0].arms[1..] {
            let id: usize = arm
                .label
                .trim_start_matches("+fewshot e")
                .parse()
                .expect("a number");
            per_label[id % 4] += 1;
        }
        assert_eq!(per_label, [2; 4]);
    }

    #[test]
    fn nothing_better_leaves_the_base() {
        let mut job = job(Optimizer::InstructionGrid);
        job.space.instruction_variants = instructions(8);
        let mut world = World::new(|parameters| {
            if parameters.instruction.text == "base" {
                0.9
            } else {
                0.4
            }
        });
        let found = search(&job, &mut world).expect("found");
        assert_eq!(found.winner, found.stages[0].arms[0].artifact);
    }

    #[test]
    fn the_same_inputs_give_the_same_search() {
        let mut job = job(Optimizer::InstructionGrid);
        job.space.instruction_variants = instructions(12);
        let run = || {
            let mut world = World::new(later_is_better);
            let found = search(&job, &mut world).expect("found");
            (found.stages, found.outcomes)
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn a_call_budget_stops_with_the_best_so_far() {
        let mut job = job(Optimizer::InstructionGrid);
        job.space.instruction_variants = instructions(12);
        job.budget.max_calls = Some(250);
        let mut world = World::new(later_is_better);
        let found = search(&job, &mut world).expect("found");
        assert_eq!(found.stopped, Some(Stopped::Calls));
        assert!(found.evaluations <= 250);
        job.budget.max_calls = Some(20);
        let mut world = World::new(later_is_better);
        assert!(matches!(
            search(&job, &mut world),
            Err(SearchError::BudgetTooSmall {
                stopped: Stopped::Calls
            })
        ));
        assert_eq!(world.calls, 0);
    }

    #[test]
    fn token_and_money_budgets_stop_after_the_block_that_spent_them() {
        let mut job = job(Optimizer::InstructionGrid);
        job.space.instruction_variants = instructions(12);
        job.budget.max_tokens = Some(1_000);
        let found = search(&job, &mut World::new(later_is_better)).expect("found");
        assert_eq!(found.stopped, Some(Stopped::Tokens));
        job.budget.max_tokens = None;
        job.budget.max_cost_micro_usd = Some(300);
        let found = search(&job, &mut World::new(later_is_better)).expect("found");
        assert_eq!(found.stopped, Some(Stopped::Cost));
    }

    #[test]
    fn spaces_without_a_choice_are_refused_before_anything_is_asked() {
        let mut world = World::new(later_is_better);
        for optimizer in [Optimizer::InstructionGrid, Optimizer::KnobsGrid] {
            let error = search(&job(optimizer), &mut world).expect_err("refused");
            assert!(
                matches!(error, SearchError::SpaceTooSmall { distinct: 1 }),
                "{error}"
            );
        }
        let mut same = job(Optimizer::InstructionGrid);
        same.space.instruction_variants = vec![InstructionVariant {
            id: "same".to_owned(),
            text: "base".to_owned(),
        }];
        assert!(search(&same, &mut world).is_err());
        assert!(search(&job(Optimizer::FewShotGreedyForward), &mut world).is_err());
        assert_eq!(world.calls, 0);
    }

    #[test]
    fn an_interrupt_concludes_nothing() {
        let mut job = job(Optimizer::InstructionGrid);
        job.space.instruction_variants = instructions(12);
        let mut world = World::new(later_is_better);
        world.halt_after = Some(200);
        assert!(matches!(
            search(&job, &mut world),
            Err(SearchError::Interrupted)
        ));
    }

    #[test]
    fn refining_looks_between_the_winner_and_its_neighbours() {
        let mut plan = job(Optimizer::KnobsGridRefine);
        plan.space.lexical_grid = json!({"cost": [1.0, 4.0, 16.0], "epochs_max": [10, 11]})
            .as_object()
            .expect("an object")
            .clone();
        let mut start = base();
        start.strategy = Strategy::DistilledLexical;
        let mut world = World::new(|parameters| {
            let cost = parameters
                .lexical
                .get("cost")
                .and_then(Value::as_f64)
                .unwrap_or(1.0);
            0.9 - (cost - 3.0).abs() / 20.0
        });
        // The embedded strategy keeps its knobs; the test's programs carry them in the instruction.
        struct Knobs<'a>(&'a mut World);
        impl Bench for Knobs<'_> {
            fn freeze(&mut self, parameters: &Parameters) -> Result<Program, Halt> {
                let mut program = program(parameters);
                program.instruction = Instruction {
                    text: canon::to_string(&parameters.lexical).expect("canonical"),
                };
                self.0.known.insert(
                    program.artifact_id().expect("canonical"),
                    parameters.clone(),
                );
                Ok(program)
            }
            fn evaluate(&mut self, cells: &[Cell]) -> Result<Vec<Outcome>, Halt> {
                self.0.evaluate(cells)
            }
        }
        let frozen = Knobs(&mut world).freeze(&start).expect("frozen");
        let found = run(
            &Plan {
                job: &plan,
                base: &frozen,
                base_parameters: &start,
                dev_rows: 200,
                few_shot_pool: &[],
            },
            &mut Knobs(&mut world),
        )
        .expect("found");
        assert_eq!(found.stages[1].name, "knobs_refine");
        let labels: Vec<&str> = found.stages[1]
            .arms
            .iter()
            .map(|arm| arm.label.as_str())
            .collect();
        assert!(labels.contains(&"cost=2.5"), "{labels:?}");
        assert!(
            labels.iter().all(|label| !label.contains("epochs_max")),
            "nothing lies between 10 and 11: {labels:?}"
        );
    }
}
