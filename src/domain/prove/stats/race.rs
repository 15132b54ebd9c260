//! Racing: which candidates deserve more examples during a search.
//!
//! Evaluating every candidate on every dev example is the *full grid*. A race
//! gives all arms a small block of examples, drops those that are clearly
//! behind, gives the rest the next, larger block, and so on. An arm is dropped
//! after a block for one of two reasons:
//!
//! - **The test**: its one-sided exact [McNemar](super::mcnemar) p against the
//!   current leader is at most [`DROP_P_VALUE_MAX`] (for graded scores the
//!   [sign-flip](super::permutation) p). Source: O. Maron and A. Moore,
//!   "Hoeffding races", NIPS 1993; comparing paired differences instead of
//!   bounds on each arm is from A. Moore and M. Lee, "Efficient algorithms for
//!   minimizing cross validation error", ICML 1994.
//! - **The cap**: only so many arms may go on after a block, the best by mean.
//!   Source: successive halving, Z. Karnin, T. Koren and O. Somekh, "Almost
//!   optimal exploration in multi-armed bandits", ICML 2013; K. Jamieson and A.
//!   Talwalkar, "Non-stochastic best arm identification and hyperparameter
//!   optimization", AISTATS 2016. The test alone can't bound the cost: arms
//!   that are truly close are never told apart, and among those it hardly
//!   matters which one wins.
//!
//! The base (the program in force, or the defaults) is a candidate like the
//! others but is never dropped: at the end the winner's gain over it is known
//! on all examples.
//!
//! All arms still in the race have seen the same examples, so means are
//! compared on common ground. The race assumes that examples come in random
//! order (the caller shuffles, seeded, and may stratify); a sorted dataset
//! would make the first block a biased sample.
//!
//! A p-value here is a rule of thumb for spending calls: it is looked at after
//! every block, against the luckiest arm. Nothing is proven by it.
//!
//! Scores are kept as whole numbers (module `quanta`), so a tie is a tie and
//! the ranking is the same on every machine and in any order of arrival.

use std::cmp::Reverse;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use super::mcnemar;
use super::permutation::{SignDraws, sign_flip_quanta};
use super::quanta::{ONE, quanta};
use super::rng::Rng;

/// An arm is dropped when its one-sided p-value against the leader is at most
/// this.
pub const DROP_P_VALUE_MAX: f64 = 0.10;

/// One block of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedBlock {
    /// How many further examples each arm in the race answers.
    pub examples: usize,
    /// How many arms besides the base may go on after this block.
    pub challengers_max: usize,
}

/// How a race cuts its examples into blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPlan(Vec<PlannedBlock>);
/// The examples of the first block of [`BlockPlan::halving`]: the fewest at
/// which an arm that is behind can be told at all (four losses and no win give
/// p = .0625).
const FIRST_BLOCK_EXAMPLES: usize = 10;

/// The fewest challengers that [`BlockPlan::halving`] keeps. With one, the last
/// blocks would only compare the base with whoever was ahead halfway; a second
/// one costs little and took about a fifth off the regret in the simulations
/// with which the plan was chosen.
const CHALLENGERS_MIN: usize = 2;

/// Up to so many arms, base included, the standard plan has no cap.
pub const ARMS_UNCAPPED_MAX: usize = 8;

impl BlockPlan {
    /// A plan of these blocks, in order.
    pub fn new(blocks: Vec<PlannedBlock>) -> Self {
        Self(blocks)
    }

    /// The plan to use unless there is a reason not to. Up to [`ARMS_UNCAPPED_MAX`] arms the test alone drops anyone: so few arms are worth
    /// telling apart on every example. Above, [`BlockPlan::halving`] keeps the race within a quarter of the full grid's calls, or within
    /// what that many arms would make, whichever is more.
    pub fn standard(arms: usize, examples: usize) -> Self {
        if arms <= ARMS_UNCAPPED_MAX {
            return Self::uncapped(arms, examples);
        }
        Self::halving(
            arms,
            examples,
            (arms * examples / 4).max(ARMS_UNCAPPED_MAX * examples),
        )
    }

    /// Blocks that double the examples seen, with no cap.
    fn uncapped(arms: usize, examples: usize) -> Self {
        let (mut blocks, mut seen) = (Vec::new(), 0);
        while seen < examples {
            let block = seen.max(FIRST_BLOCK_EXAMPLES).min(examples - seen);
            blocks.push(PlannedBlock {
                examples: block,
                challengers_max: arms,
            });
            seen += block;
        }
        Self(blocks)
    }

    /// Successive halving: blocks that double the examples seen, after each of
    /// which half of the challengers go on, down to two.
    ///
    /// How many go on after the first block is the largest number that keeps
    /// the whole race within `calls_max` model calls even when the test never
    /// drops anyone, but never less than half of the arms: ten examples are no
    /// ground for more. So with few arms or few examples the race may exceed
    /// `calls_max`; [`BlockPlan::calls_max`] tells.
    pub fn halving(arms: usize, examples: usize, calls_max: usize) -> Self {
        let challengers_least = arms.div_ceil(2).max(CHALLENGERS_MIN);
        (challengers_least..arms)
            .rev()
            .map(|challengers| Self::halving_from(challengers, examples))
            .find(|plan| plan.calls_max(arms) <= calls_max)
            .unwrap_or_else(|| Self::halving_from(challengers_least, examples))
    }

    fn halving_from(challengers: usize, examples: usize) -> Self {
        let (mut blocks, mut seen, mut challengers_max) = (Vec::new(), 0, challengers);
        while seen < examples {
            let block = seen.max(FIRST_BLOCK_EXAMPLES).min(examples - seen);
            blocks.push(PlannedBlock {
                examples: block,
                challengers_max,
            });
            seen += block;
            challengers_max = challengers_max.div_ceil(2).max(CHALLENGERS_MIN);
        }
        Self(blocks)
    }

    /// The blocks, in order.
    pub fn blocks(&self) -> &[PlannedBlock] {
        &self.0
    }

    /// How many examples an arm answers that stays to the end.
    pub fn examples(&self) -> usize {
        self.0.iter().map(|block| block.examples).sum()
    }

    /// The largest number of model calls that a race of `arms` arms, base
    /// included, can make under this plan.
    pub fn calls_max(&self, arms: usize) -> usize {
        let (mut calls, mut racing) = (0, arms);
        for block in &self.0 {
            calls += block.examples * racing;
            racing = racing.min(block.challengers_max + 1);
        }
        calls
    }
}

/// What to evaluate next: every arm on every example. Examples are positions in
/// the caller's (shuffled) order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The number of the block in the plan, from 0.
    pub index: usize,
    /// The examples, as positions.
    pub examples: Range<usize>,
    /// The arms still in the race, ascending.
    pub arms: Vec<usize>,
}

/// Why an arm was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EliminationReason {
    /// Its p-value against the leader was at most [`DROP_P_VALUE_MAX`].
    BehindTheLeader,
    /// It wasn't among the challengers that the plan lets go on.
    OutsideTheCap {
        /// Its rank among the challengers, from 1.
        rank: usize,
        /// How many were let go on.
        challengers_max: usize,
    },
}

impl fmt::Display for EliminationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BehindTheLeader => f.write_str("behind the leader"),
            Self::OutsideTheCap {
                rank,
                challengers_max,
            } => write!(f, "rank {rank}, and the schedule keeps {challengers_max}"),
        }
    }
}

/// How a p-value against the leader was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairedTest {
    /// Exact McNemar: both arms have only scores 0 and 1.
    McNemar,
    /// Sign-flip permutation: graded scores.
    SignFlip,
}

/// The record of an arm that was dropped. Prints as one line for a report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elimination {
    /// The arm.
    pub arm: usize,
    /// How many examples it had answered.
    pub at_examples: usize,
    /// Who led at that moment.
    pub leader: usize,
    /// Examples on which the leader scored higher.
    pub wins: u64,
    /// Examples on which the dropped arm scored higher.
    pub losses: u64,
    /// The one-sided p-value of "the leader is no better".
    pub p_value: f64,
    /// The test that gave the p-value.
    pub test: PairedTest,
    /// Why it was dropped.
    pub reason: EliminationReason,
}

impl fmt::Display for Elimination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let test = match self.test {
            PairedTest::McNemar => "mcnemar",
            PairedTest::SignFlip => "sign-flip",
        };
        let Self {
            arm,
            at_examples,
            leader,
            wins,
            losses,
            p_value,
            ..
        } = self;
        write!(f, "arm {arm} dropped at {at_examples} examples: ")?;
        match self.reason {
            EliminationReason::BehindTheLeader => write!(f, "{test} p={p_value:.4}")?,
            EliminationReason::OutsideTheCap {
                rank,
                challengers_max,
            } => {
                write!(
                    f,
                    "halving: rank {rank}, outside the best {challengers_max} ({test} p={p_value:.4})"
                )?;
            }
        }
        write!(
            f,
            " against leader {leader}, which won {wins} and lost {losses}"
        )
    }
}

/// An arm's place at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The arm.
    pub arm: usize,
    /// How many examples it answered.
    pub examples: usize,
    /// The sum of its scores over them.
    pub score_sum: f64,
    /// Its mean score over them; 0 without any.
    pub mean: f64,
    /// Whether it was still in the race.
    pub racing: bool,
}

/// How a race ended, or stands.
#[derive(Debug, Clone, PartialEq)]
pub struct RaceResult {
    /// All arms, best first: those that stayed longer before those dropped
    /// earlier, then by mean, on equal means the base first, then by arm
    /// number. Arms that answered as many examples answered the same ones.
    pub ranking: Vec<Standing>,
    /// How many times an arm answered an example.
    pub calls: usize,
    /// How many the full grid would have been.
    pub calls_full_grid: usize,
}

impl RaceResult {
    /// The best arm. The base when nothing was recorded.
    pub fn winner(&self) -> Standing {
        self.ranking[0]
    }
}

/// Why a race or a record of scores was refused. The race is unchanged.
#[derive(Debug, Clone, PartialEq)]
pub enum RaceError {
    /// The base isn't one of the arms (a race without arms included).
    NoSuchBase {
        /// The base as given.
        base: usize,
        /// How many arms there are.
        arms: usize,
    },
    /// A block of the plan has no examples.
    EmptyBlock {
        /// Its number, from 0.
        index: usize,
    },
    /// The scores are for another block than the next one, or the race is over.
    NotTheNextBlock {
        /// The number of the block that they are for.
        given: usize,
        /// The number of the next block.
        expected: Option<usize>,
    },
    /// There isn't one row of scores per arm of the block, or a row hasn't one
    /// score per example.
    WrongShape {
        /// The arm whose row is wrong; `None` when the number of rows is.
        arm: Option<usize>,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A score isn't in `[0, 1]`.
    ScoreOutOfRange {
        /// The arm.
        arm: usize,
        /// The example, as a position.
        example: usize,
        /// The score.
        score: f64,
    },
}

impl fmt::Display for RaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBase { base, arms } => write!(f, "base {base} isn't one of {arms} arms"),
            Self::EmptyBlock { index } => write!(f, "block {index} of the plan has no examples"),
            Self::NotTheNextBlock {
                given,
                expected: Some(expected),
            } => {
                write!(
                    f,
                    "scores are for block {given}, but block {expected} is next or its arms or examples differ"
                )
            }
            Self::NotTheNextBlock {
                given,
                expected: None,
            } => write!(f, "scores are for block {given}, but the race is over"),
            Self::WrongShape {
                arm: None,
                expected,
                found,
            } => write!(f, "{found} rows of scores for {expected} arms"),
            Self::WrongShape {
                arm: Some(arm),
                expected,
                found,
            } => {
                write!(f, "{found} scores of arm {arm} for {expected} examples")
            }
            Self::ScoreOutOfRange {
                arm,
                example,
                score,
            } => {
                write!(
                    f,
                    "score of arm {arm} on example {example} is {score}, accepted is [0, 1]"
                )
            }
        }
    }
}

impl std::error::Error for RaceError {}

/// A race under way. Pure: the caller evaluates the blocks that it asks for and
/// may stop after any of them; its state is a function of the plan, the seed
/// and the recorded scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    base: usize,
    plan: BlockPlan,
    seed: u64,
    blocks_done: usize,
    lanes: Vec<Lane>,
    eliminations: Vec<Elimination>,
}

/// What one arm has done.
#[derive(Debug, Clone, PartialEq)]
struct Lane {
    scores: Vec<i64>,
    sum: i64,
    is_binary: bool,
    racing: bool,
}

impl Race {
    /// A race of `arms` arms, numbered from 0, of which `base` is never
    /// dropped. `seed` is for the random signs of the sign-flip test; binary
    /// scores need none.
    pub fn new(arms: usize, base: usize, plan: BlockPlan, seed: u64) -> Result<Self, RaceError> {
        if base >= arms {
            return Err(RaceError::NoSuchBase { base, arms });
        }
        if let Some(index) = plan.0.iter().position(|block| block.examples == 0) {
            return Err(RaceError::EmptyBlock { index });
        }
        let lane = Lane {
            scores: Vec::with_capacity(plan.examples()),
            sum: 0,
            is_binary: true,
            racing: true,
        };
        Ok(Self {
            base,
            plan,
            seed,
            blocks_done: 0,
            lanes: vec![lane; arms],
            eliminations: Vec::new(),
        })
    }

    /// What to evaluate next; `None` when the plan is done or only the base is
    /// left.
    pub fn next_block(&self) -> Option<Block> {
        let planned = self.plan.0.get(self.blocks_done)?;
        let arms: Vec<usize> = self.racing().collect();
        let nothing_to_compare = self.blocks_done > 0 && arms.len() == 1;
        let seen = self.examples_done();
        (!nothing_to_compare).then_some(Block {
            index: self.blocks_done,
            examples: seen..seen + planned.examples,
            arms,
        })
    }

    /// Records the scores of the next block, `scores[i][j]` being that of
    /// `block.arms[i]` on the j-th example of the block, in `[0, 1]`; then
    /// drops whom the test and the cap drop.
    ///
    /// A refusal leaves the race as it was.
    pub fn record(&mut self, block: &Block, scores: &[Vec<f64>]) -> Result<(), RaceError> {
        self.check(block, scores)?;
        for (arm, scores) in block.arms.iter().zip(scores) {
            self.lanes[*arm].extend(scores);
        }
        let challengers_max = self.plan.0[block.index].challengers_max;
        self.blocks_done += 1;
        let leader = self.leader();
        self.drop_those_behind(leader);
        self.drop_those_outside(challengers_max, leader);
        Ok(())
    }

    /// Everyone dropped so far, in the order in which it happened.
    pub fn eliminations(&self) -> &[Elimination] {
        &self.eliminations
    }

    /// The record of one arm, if it was dropped.
    pub fn elimination(&self, arm: usize) -> Option<&Elimination> {
        self.eliminations
            .iter()
            .find(|elimination| elimination.arm == arm)
    }

    /// How many arms are still in the race, the base included.
    pub fn racing_arms(&self) -> usize {
        self.racing().count()
    }

    /// How many examples the arms still in the race have answered.
    pub fn examples_done(&self) -> usize {
        // The base is always one of them.
        self.lanes[self.base].scores.len()
    }

    /// The ranking as it stands: the result when the race is over, the best so
    /// far when the caller stops early.
    pub fn finish(&self) -> RaceResult {
        let mut arms: Vec<usize> = (0..self.lanes.len()).collect();
        arms.sort_by_key(|arm| (Reverse(self.lanes[*arm].scores.len()), self.place(*arm)));
        let standing = |arm: usize| {
            let Lane {
                scores,
                sum,
                racing,
                ..
            } = &self.lanes[arm];
            let score_sum = *sum as f64 / ONE as f64;
            let mean = if scores.is_empty() {
                0.0
            } else {
                score_sum / scores.len() as f64
            };
            Standing {
                arm,
                examples: scores.len(),
                score_sum,
                mean,
                racing: *racing,
            }
        };
        RaceResult {
            ranking: arms.into_iter().map(standing).collect(),
            calls: self.lanes.iter().map(|lane| lane.scores.len()).sum(),
            calls_full_grid: self.lanes.len() * self.plan.examples(),
        }
    }

    fn check(&self, block: &Block, scores: &[Vec<f64>]) -> Result<(), RaceError> {
        let next = self.next_block();
        if next.as_ref() != Some(block) {
            return Err(RaceError::NotTheNextBlock {
                given: block.index,
                expected: next.map(|next| next.index),
            });
        }
        if scores.len() != block.arms.len() {
            return Err(RaceError::WrongShape {
                arm: None,
                expected: block.arms.len(),
                found: scores.len(),
            });
        }
        for (arm, scores) in block.arms.iter().zip(scores) {
            if scores.len() != block.examples.len() {
                return Err(RaceError::WrongShape {
                    arm: Some(*arm),
                    expected: block.examples.len(),
                    found: scores.len(),
                });
            }
            for (example, score) in block.examples.clone().zip(scores) {
                if !(0.0..=1.0).contains(score) {
                    return Err(RaceError::ScoreOutOfRange {
                        arm: *arm,
                        example,
                        score: *score,
                    });
                }
            }
        }
        Ok(())
    }

    fn racing(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.lanes.len()).filter(|arm| self.lanes[*arm].racing)
    }

    /// Sorts arms that answered the same examples, best first.
    fn place(&self, arm: usize) -> (Reverse<i64>, bool, usize) {
        (Reverse(self.lanes[arm].sum), arm != self.base, arm)
    }

    fn leader(&self) -> usize {
        self.racing()
            .min_by_key(|arm| self.place(*arm))
            .expect("the base is always in the race")
    }

    fn drop_those_behind(&mut self, leader: usize) {
        let challengers: Vec<usize> = self
            .racing()
            .filter(|arm| *arm != leader && *arm != self.base)
            .collect();
        for arm in challengers {
            let elimination = self.compare(leader, arm, EliminationReason::BehindTheLeader);
            if elimination.p_value <= DROP_P_VALUE_MAX {
                self.eliminate(elimination);
            }
        }
    }

    fn drop_those_outside(&mut self, challengers_max: usize, leader: usize) {
        let mut challengers: Vec<usize> = self.racing().filter(|arm| *arm != self.base).collect();
        challengers.sort_by_key(|arm| self.place(*arm));
        for (index, arm) in challengers.into_iter().enumerate().skip(challengers_max) {
            let reason = EliminationReason::OutsideTheCap {
                rank: index + 1,
                challengers_max,
            };
            self.eliminate(self.compare(leader, arm, reason));
        }
    }

    fn eliminate(&mut self, elimination: Elimination) {
        self.lanes[elimination.arm].racing = false;
        self.eliminations.push(elimination);
    }

    /// The leader against an arm on the examples that both answered.
    fn compare(&self, leader: usize, arm: usize, reason: EliminationReason) -> Elimination {
        let (ahead, behind) = (&self.lanes[leader], &self.lanes[arm]);
        let pairs = || ahead.scores.iter().zip(&behind.scores);
        let wins = pairs().filter(|(ahead, behind)| ahead > behind).count() as u64;
        let losses = pairs().filter(|(ahead, behind)| ahead < behind).count() as u64;
        let (p_value, test) = if ahead.is_binary && behind.is_binary {
            (mcnemar::p_value(wins, losses), PairedTest::McNemar)
        } else {
            let differences = pairs().map(|(ahead, behind)| ahead - behind);
            (
                sign_flip_quanta(differences, self.sign_draws(arm)).p_value,
                PairedTest::SignFlip,
            )
        };
        Elimination {
            arm,
            at_examples: self.examples_done(),
            leader,
            wins,
            losses,
            p_value,
            test,
            reason,
        }
    }

    /// Random signs of their own for every comparison, so that dropping one arm
    /// doesn't change the p-value of another.
    fn sign_draws(&self, arm: usize) -> SignDraws {
        // At a p-value of .10 the standard error of this many draws is .007:
        // enough for a rule of thumb.
        const DRAWS: NonZeroU32 = NonZeroU32::new(1_999).unwrap();
        let comparison = self.blocks_done as u64 * self.lanes.len() as u64 + arm as u64;
        SignDraws {
            draws: DRAWS,
            seed: Rng::stream(self.seed, comparison).next_u64(),
        }
    }
}

impl Lane {
    fn extend(&mut self, scores: &[f64]) {
        for score in scores.iter().copied().map(quanta) {
            self.is_binary &= score == 0 || score == ONE;
            self.sum += score;
            self.scores.push(score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(blocks: &[(usize, usize)]) -> BlockPlan {
        BlockPlan::new(
            blocks
                .iter()
                .map(|&(examples, challengers_max)| PlannedBlock {
                    examples,
                    challengers_max,
                })
                .collect(),
        )
    }

    /// Runs a race over a grid of scores, `grid[arm][example]`.
    fn run(grid: &[Vec<f64>], base: usize, plan: BlockPlan) -> Race {
        let mut race = Race::new(grid.len(), base, plan, 1).unwrap();
        while let Some(block) = race.next_block() {
            let scores: Vec<Vec<f64>> = block
                .arms
                .iter()
                .map(|arm| grid[*arm][block.examples.clone()].to_vec())
                .collect();
            race.record(&block, &scores).unwrap();
        }
        race
    }

    fn order(race: &Race) -> Vec<usize> {
        race.finish()
            .ranking
            .iter()
            .map(|standing| standing.arm)
            .collect()
    }

    /// A row of scores: ones for the first `right` examples of `examples`, then
    /// zeros.
    fn first_right(right: usize, examples: usize) -> Vec<f64> {
        (0..examples)
            .map(|example| f64::from(u8::from(example < right)))
            .collect()
    }

    #[test]
    fn an_arm_that_is_clearly_behind_is_dropped_with_its_figures() {
        let grid = [first_right(10, 20), first_right(6, 20), first_right(7, 20)];
        let race = run(&grid, 0, plan(&[(10, 9), (10, 9)]));
        assert_eq!(
            (race.racing_arms(), race.elimination(1)),
            (2, race.eliminations().first())
        );
        assert_eq!(race.elimination(2), None);
        // Four losses and no win: p = 1/16; three: p = 1/8, which is not
        // enough.
        let [dropped] = race.eliminations() else {
            panic!("{:?}", race.eliminations())
        };
        let expected = Elimination {
            arm: 1,
            at_examples: 10,
            leader: 0,
            wins: 4,
            losses: 0,
            p_value: 0.0625,
            test: PairedTest::McNemar,
            reason: EliminationReason::BehindTheLeader,
        };
        assert_eq!(*dropped, expected);
        let line = "arm 1 dropped at 10 examples: mcnemar p=0.0625 against leader 0, which won 4 and lost 0";
        assert_eq!(dropped.to_string(), line);
        let result = race.finish();
        assert_eq!((result.calls, result.calls_full_grid), (10 + 20 + 20, 60));
        assert_eq!(order(&race), [0, 2, 1]);
    }

    #[test]
    fn the_base_is_never_dropped_and_its_gain_is_known_on_all_examples() {
        let grid = [first_right(40, 40), first_right(0, 40), first_right(39, 40)];
        let race = run(&grid, 1, plan(&[(20, 1), (20, 1)]));
        let ranking = race.finish().ranking;
        assert_eq!(
            ranking[0],
            Standing {
                arm: 0,
                examples: 40,
                score_sum: 40.0,
                mean: 1.0,
                racing: true
            }
        );
        assert_eq!(
            ranking[1],
            Standing {
                arm: 1,
                examples: 40,
                score_sum: 0.0,
                mean: 0.0,
                racing: true
            }
        );
        assert_eq!(
            ranking[2],
            Standing {
                arm: 2,
                examples: 20,
                score_sum: 20.0,
                mean: 1.0,
                racing: false
            }
        );
        let [dropped] = race.eliminations() else {
            panic!("{:?}", race.eliminations())
        };
        assert_eq!(
            dropped.reason,
            EliminationReason::OutsideTheCap {
                rank: 2,
                challengers_max: 1
            }
        );
        let line = "arm 2 dropped at 20 examples: halving: rank 2, outside the best 1 (mcnemar p=1.0000) against leader 0, which won 0 and lost 0";
        assert_eq!(dropped.to_string(), line);
    }

    #[test]
    fn a_race_of_the_base_alone_stops_and_one_without_challengers_asks_nothing_more() {
        let grid = [first_right(0, 40), first_right(40, 40)];
        let race = run(&grid, 1, plan(&[(20, 9), (20, 9)]));
        assert_eq!(race.next_block(), None);
        let result = race.finish();
        assert_eq!(
            (result.winner().arm, result.winner().examples, result.calls),
            (1, 20, 40)
        );
        // A single arm is still evaluated once, so that a report has something
        // to say.
        let alone = run(&[first_right(3, 40)], 0, plan(&[(20, 9), (20, 9)]));
        assert_eq!(
            alone.finish().winner(),
            Standing {
                arm: 0,
                examples: 20,
                score_sum: 3.0,
                mean: 0.15,
                racing: true
            }
        );
    }

    #[test]
    fn exact_ties_go_to_the_base_and_then_to_the_lower_number() {
        let tied = vec![first_right(5, 20); 4];
        assert_eq!(order(&run(&tied, 2, plan(&[(20, 9)]))), [2, 0, 1, 3]);
        assert_eq!(
            order(&run(&tied, 2, plan(&[(10, 1), (10, 1)]))),
            [2, 0, 1, 3]
        );
        // Three thirds tie with a whole, whatever floating point makes of their
        // sum.
        let thirds = vec![
            vec![1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
            vec![0.0, 1.0, 0.0],
            vec![0.1 + 0.2, 0.3, 0.4],
        ];
        assert_eq!(order(&run(&thirds, 1, plan(&[(3, 9)]))), [1, 0, 2]);
    }

    #[test]
    fn nothing_recorded_means_the_base_wins() {
        let race = Race::new(3, 1, plan(&[(10, 9)]), 1).unwrap();
        let winner = race.finish().winner();
        assert_eq!((winner.arm, winner.examples, winner.mean), (1, 0, 0.0));
    }

    #[test]
    fn graded_scores_are_compared_by_sign_flips() {
        let mut rng = Rng::new(6);
        let better: Vec<f64> = (0..60).map(|_| 0.6 + 0.3 * rng.unit()).collect();
        let worse: Vec<f64> = better
            .iter()
            .map(|score| score - 0.4 + 0.3 * rng.unit())
            .collect();
        let alike: Vec<f64> = better
            .iter()
            .map(|score| score - 0.1 + 0.19 * rng.unit())
            .collect();
        let race = run(&[better, worse, alike], 0, plan(&[(30, 9), (30, 9)]));
        let [dropped] = race.eliminations() else {
            panic!("{:?}", race.eliminations())
        };
        assert_eq!(
            (dropped.arm, dropped.test, dropped.at_examples),
            (1, PairedTest::SignFlip, 30)
        );
        assert!(dropped.p_value < 0.01 && dropped.to_string().contains("sign-flip p="));
    }

    #[test]
    fn stopping_early_gives_the_best_so_far() {
        let grid = [first_right(5, 20), first_right(8, 20), first_right(20, 20)];
        let mut race = Race::new(3, 0, plan(&[(10, 9), (10, 9)]), 1).unwrap();
        let block = race.next_block().unwrap();
        let scores: Vec<Vec<f64>> = grid
            .iter()
            .map(|row| row[block.examples.clone()].to_vec())
            .collect();
        race.record(&block, &scores).unwrap();
        assert_eq!(order(&race), [2, 1, 0]);
        // Arm 0 is the base; ten wins to five lose it five to nothing, but it
        // stays.
        assert_eq!(
            (
                race.racing_arms(),
                race.examples_done(),
                race.elimination(1)
            ),
            (3, 10, None)
        );
        assert_eq!(race.finish().winner().examples, 10);
    }

    #[test]
    fn wrong_records_are_refused_and_change_nothing() {
        assert_eq!(
            Race::new(2, 2, plan(&[(1, 1)]), 0),
            Err(RaceError::NoSuchBase { base: 2, arms: 2 })
        );
        assert_eq!(
            Race::new(0, 0, plan(&[(1, 1)]), 0),
            Err(RaceError::NoSuchBase { base: 0, arms: 0 })
        );
        assert_eq!(
            Race::new(2, 0, plan(&[(1, 1), (0, 1)]), 0),
            Err(RaceError::EmptyBlock { index: 1 })
        );
        let mut race = Race::new(2, 0, plan(&[(2, 9), (2, 9)]), 0).unwrap();
        let before = race.clone();
        let block = race.next_block().unwrap();
        let later = Block {
            index: 1,
            ..block.clone()
        };
        let good = [vec![1.0, 0.0], vec![0.5, 0.5]];
        let refused = [
            (
                race.record(&later, &good),
                RaceError::NotTheNextBlock {
                    given: 1,
                    expected: Some(0),
                },
            ),
            (
                race.record(&block, &good[..1]),
                RaceError::WrongShape {
                    arm: None,
                    expected: 2,
                    found: 1,
                },
            ),
            (
                race.record(&block, &[vec![1.0, 0.0], vec![0.5]]),
                RaceError::WrongShape {
                    arm: Some(1),
                    expected: 2,
                    found: 1,
                },
            ),
            (
                race.record(&block, &[vec![1.0, 0.0], vec![0.5, 1.5]]),
                RaceError::ScoreOutOfRange {
                    arm: 1,
                    example: 1,
                    score: 1.5,
                },
            ),
        ];
        for (got, expected) in refused {
            assert_eq!(got, Err(expected));
        }
        assert!(matches!(
            race.record(&block, &[vec![f64::NAN, 0.0], vec![0.5, 0.5]]),
            Err(RaceError::ScoreOutOfRange { .. })
        ));
        assert_eq!(race, before);
        race.record(&block, &good).unwrap();
        assert_eq!(
            race.record(&block, &good),
            Err(RaceError::NotTheNextBlock {
                given: 0,
                expected: Some(1)
            })
        );
        let last = race.next_block().unwrap();
        race.record(&last, &good).unwrap();
        assert_eq!(
            race.record(&last, &good),
            Err(RaceError::NotTheNextBlock {
                given: 1,
                expected: None
            })
        );
    }

    #[test]
    fn the_standard_plan_doubles_halves_and_keeps_its_budget() {
        let blocks = [(10, 24), (10, 12), (20, 6), (40, 3), (80, 2), (40, 2)];
        assert_eq!(BlockPlan::standard(32, 200), plan(&blocks));
        assert_eq!(BlockPlan::standard(32, 200).calls_max(32), 1_550);
        for arms in [1, 2, 3, 8, 32, 100, 500] {
            for examples in [1, 9, 10, 11, 60, 200, 1_000] {
                let plan = BlockPlan::standard(arms, examples);
                assert_eq!(plan.examples(), examples);
                let cheapest = BlockPlan::halving(arms, examples, 0);
                let uncapped = ARMS_UNCAPPED_MAX.min(arms) * examples;
                let budget = (arms * examples / 4)
                    .max(uncapped)
                    .max(cheapest.calls_max(arms));
                assert!(
                    plan.calls_max(arms) <= budget,
                    "{arms} arms, {examples} examples"
                );
                let kept = plan.blocks()[0].challengers_max;
                assert!(
                    kept >= arms / 2,
                    "{kept} of {arms} arms go on after ten examples"
                );
                if arms <= ARMS_UNCAPPED_MAX {
                    assert!(
                        plan.blocks()
                            .iter()
                            .all(|block| block.challengers_max >= arms)
                    );
                }
            }
        }
        assert_eq!(BlockPlan::standard(32, 0).blocks(), []);
    }

    /// How a simulated population of arms came out, on average over seeds.
    #[derive(Debug)]
    struct Simulated {
        /// What the full grid's winner scores on the examples minus what the
        /// race's winner scores on them.
        regret: f64,
        /// The best arm's true accuracy minus the race winner's.
        true_regret: f64,
        /// The same for the full grid's winner: what 200 examples can't tell
        /// even when all are spent.
        true_regret_of_full_grid: f64,
        /// Calls as a share of the full grid's.
        share: f64,
        share_max: f64,
    }

    /// The probability that an arm of this skill is right on an example of this
    /// difficulty, both in `[0, 1]`. Arms share the difficulties, which is what
    /// makes pairing worth while: two arms of equal skill differ on a sixth of
    /// the examples, independent ones of accuracy .8 on a third.
    fn right_probability(skill: f64, difficulty: f64) -> f64 {
        (0.5 + 2.0 * (skill - difficulty)).clamp(0.02, 0.98)
    }

    fn true_accuracy(skill: f64) -> f64 {
        (0..400)
            .map(|step| right_probability(skill, (f64::from(step) + 0.5) / 400.0))
            .sum::<f64>()
            / 400.0
    }

    /// Races of 32 arms over 200 examples. Skills are shuffled over the arms,
    /// so the base, arm 0, is any of them.
    fn simulate(seeds: u64, skill: impl Fn(usize, &mut Rng) -> f64) -> Simulated {
        let mut total = Simulated {
            regret: 0.0,
            true_regret: 0.0,
            true_regret_of_full_grid: 0.0,
            share: 0.0,
            share_max: 0.0,
        };
        for seed in 0..seeds {
            let mut rng = Rng::new(seed);
            let mut skills: Vec<f64> = (0..32).map(|arm| skill(arm, &mut rng)).collect();
            rng.shuffle(&mut skills);
            let difficulties: Vec<f64> = (0..200).map(|_| rng.unit()).collect();
            let mut answer = |skill, difficulty| {
                f64::from(u8::from(rng.chance(right_probability(skill, difficulty))))
            };
            let grid: Vec<Vec<f64>> = skills
                .iter()
                .map(|skill| {
                    difficulties
                        .iter()
                        .map(|difficulty| answer(*skill, *difficulty))
                        .collect()
                })
                .collect();
            let mean = |arm: usize| grid[arm].iter().sum::<f64>() / 200.0;
            let result = run(&grid, 0, BlockPlan::standard(32, 200)).finish();
            let winner = result.winner().arm;
            let best_on_grid = (0..32)
                .rev()
                .max_by(|a, b| mean(*a).total_cmp(&mean(*b)))
                .unwrap();
            let best = skills.iter().copied().fold(0.0, f64::max);
            total.regret += (mean(best_on_grid) - mean(winner)) / seeds as f64;
            total.true_regret +=
                (true_accuracy(best) - true_accuracy(skills[winner])) / seeds as f64;
            total.true_regret_of_full_grid +=
                (true_accuracy(best) - true_accuracy(skills[best_on_grid])) / seeds as f64;
            let share = result.calls as f64 / result.calls_full_grid as f64;
            total.share += share / seeds as f64;
            total.share_max = total.share_max.max(share);
        }
        total
    }

    #[test]
    fn thirty_two_candidates_cost_a_quarter_of_the_grid_at_little_regret() {
        const SEEDS: u64 = 400;
        let check = |name: &str, true_regret_max: f64, simulated: Simulated| {
            println!("{name}: {simulated:.4?}");
            assert!(simulated.share_max <= 0.25, "{name}: {simulated:?}");
            assert!(simulated.regret < 0.015, "{name}: {simulated:?}");
            assert!(
                simulated.true_regret < true_regret_max,
                "{name}: {simulated:?}"
            );
        };
        check(
            "spread over .55 to .85",
            0.015,
            simulate(SEEDS, |_, rng| 0.55 + 0.30 * rng.unit()),
        );
        let eight_on_top = |arm, rng: &mut Rng| match arm {
            0..8 => 0.82 + 0.03 * rng.unit(),
            _ => 0.55 + 0.25 * rng.unit(),
        };
        check(
            "eight in .82 to .85, the rest in .55 to .80",
            0.015,
            simulate(SEEDS, eight_on_top),
        );
        check(
            "all in .78 to .84",
            0.015,
            simulate(SEEDS, |_, rng| 0.78 + 0.06 * rng.unit()),
        );
        // A needle in a haystack: ten examples can't tell one arm of .83 from
        // the luckiest of 31 of .75. Its true regret is known not to hold .015
        // and is only kept from growing; the full grid's own is .011.
        let needle = |arm, _: &mut Rng| if arm == 0 { 0.83 } else { 0.75 };
        check(
            "one at .83, all others at .75",
            0.040,
            simulate(SEEDS, needle),
        );
    }
}
