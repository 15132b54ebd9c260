//! The canary's test: a betting e-process that may be looked at after every
//! pair.
//!
//! A pair is the outcome of candidate and control on the same input (or k-th
//! with k-th by arrival): `D = candidate failed − control failed`, so +1 is a
//! harm, −1 a repair, 0 no news; graded outcomes give anything in `[-1, 1]`.
//! Two bets run side by side, each against a hypothesis that it would like to
//! refute:
//!
//! | bet | hypothesis | observation | `m` | when its evidence reaches 1/α |
//! |---|---|---|---|---|
//! | harm | the candidate fails no more often, `E[D] ≤ 0` | `X = (1 + D)/2` | ½ | stop at once |
//! | non-inferiority | it fails at least δ more often, `E[D] ≥ δ` | `X' = (1 − D)/2` | `(1 − δ)/2` | promote, given enough pairs |
//!
//! A bet starts with a wealth of 1 and multiplies it by `1 + λ_t (X_t − m)`
//! with a stake λ_t that only looks back, all sums being over the t − 1
//! observations before:
//!
//! ```text
//! λ_t = clip((μ̂ − m) / (v̂ + (μ̂ − m)²), 0, 1/(2m))
//! μ̂   = (½ + ΣX) / t
//! v̂   = (.02 + Σ(X − ½)²) / t
//! ```
//!
//! As long as the hypothesis holds the game is not in the bettor's favour, so
//! by Ville's inequality the probability that the wealth *ever* reaches 1/α is
//! at most α, however often and for whatever reason one looks and stops.
//!
//! Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random
//! variables by betting", JRSS B 86(1), 2024 (arXiv:2010.09686): the capital
//! process of a bounded mean, with the stake that they name aGRAPA (approximate
//! growth rate adaptive to the particular alternative), truncated at `c/m` with
//! c = ½. Ours differs in two places, neither of which touches validity (any
//! stake that only looks back is valid): the variance is taken around ½, where
//! the mean of paired outcomes is when the arms are alike, and its prior weight
//! is .02 instead of .25, since most pairs are ties and a larger one makes the
//! first hundred bets timid.
//!
//! # What it can't see
//!
//! Both arms failing is a tie. In an outage everything ties, and ties are
//! evidence of non-inferiority; a maximum error rate must be a gate of its own.

use super::alpha::Alpha;
use super::rng::Rng;
use super::{OutOfRange, closed_unit, open_unit};

/// What is sealed when a canary starts. A restart takes a new one, with the α
/// of its attempt ([`Alpha::at_attempt`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanaryRules {
    alpha: Alpha,
    harm_margin: f64,
    pairs_min: u64,
    pairs_max: u64,
}

impl CanaryRules {
    /// - `alpha`: the probability of a false stop, and, separately, of a false
    ///   promotion.
    /// - `harm_margin`: δ in `(0, 1)`, how much more often than the control a
    ///   candidate may fail and still count as no worse; `.05` is five points.
    /// - `pairs_min`: a promotion waits for this many pairs; a stop on harm
    ///   never waits.
    /// - `pairs_max`: without a decision by then the canary is inconclusive; at
    ///   least 1 and at least `pairs_min`.
    pub fn new(
        alpha: Alpha,
        harm_margin: f64,
        pairs_min: u64,
        pairs_max: u64,
    ) -> Result<Self, OutOfRange> {
        open_unit("harm margin", harm_margin)?;
        if pairs_max == 0 || pairs_max < pairs_min {
            return Err(OutOfRange {
                what: "pairs_max",
                value: pairs_max as f64,
                accepted: "at least 1 and at least pairs_min",
            });
        }
        Ok(Self {
            alpha,
            harm_margin,
            pairs_min,
            pairs_max,
        })
    }

    /// The error that each of the two decisions may make.
    pub fn alpha(self) -> Alpha {
        self.alpha
    }

    /// The evidence at which a bet has won: 1/α.
    pub fn evidence_needed(self) -> f64 {
        1.0 / self.alpha.get()
    }

    /// δ, the harm margin.
    pub fn harm_margin(self) -> f64 {
        self.harm_margin
    }

    /// The pairs that a promotion waits for.
    pub fn pairs_min(self) -> u64 {
        self.pairs_min
    }

    /// The pairs after which the canary ends without a decision.
    pub fn pairs_max(self) -> u64 {
        self.pairs_max
    }
}

/// What the pairs so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryDecision {
    /// Nothing yet; send more pairs.
    Continue,
    /// The candidate fails more often than the control: stop. `at` is the pair
    /// (from 1) that showed it.
    Harm {
        /// The deciding pair, from 1.
        at: u64,
    },
    /// The candidate fails less than δ more often than the control: it may be
    /// promoted.
    NonInferior {
        /// The deciding pair, from 1.
        at: u64,
    },
    /// All pairs are used up and neither was shown: the control stays.
    Inconclusive {
        /// The last pair, from 1.
        at: u64,
    },
}

/// One bet on a bounded mean: wealth that grows if observations in `[0, 1]`
/// have a mean above `null_mean`. All fields are plain so that the state can be
/// stored, compared and resumed; it is a function of the observations and can
/// be recomputed from them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bet {
    /// m: the largest mean that the refuted hypothesis allows, in `(0, 1)`.
    pub null_mean: f64,
    /// How many observations were made.
    pub observations: u64,
    /// ΣX.
    pub sum: f64,
    /// Σ(X − ½)².
    pub squares: f64,
    /// The evidence: 1 at the start, never negative, at most
    /// [`Bet::WEALTH_MAX`].
    pub wealth: f64,
}

impl Bet {
    /// Wealth stops growing here, so that it stays a number that JSON can carry
    /// when a promotion waits for `pairs_min`. Capped wealth is less wealth, so
    /// the bet stays valid; and no level that anyone asks for needs more.
    pub const WEALTH_MAX: f64 = 1e100;

    /// A bet that the mean is above `null_mean`.
    pub fn new(null_mean: f64) -> Result<Self, OutOfRange> {
        Ok(Self {
            null_mean: open_unit("null mean", null_mean)?,
            observations: 0,
            sum: 0.0,
            squares: 0.0,
            wealth: 1.0,
        })
    }

    /// λ for the next observation, from those before it: between 0 (no bet) and
    /// `1/(2m)` (half the wealth at risk).
    pub fn stake(&self) -> f64 {
        let t = (self.observations + 1) as f64;
        let mean = (0.5 + self.sum) / t;
        let variance = (0.02 + self.squares) / t;
        let edge = mean - self.null_mean;
        (edge / (variance + edge * edge)).clamp(0.0, 1.0 / (2.0 * self.null_mean))
    }

    /// Settles the bet on one observation, which must be in `[0, 1]`.
    pub fn observe(&mut self, observation: f64) {
        debug_assert!((0.0..=1.0).contains(&observation));
        self.wealth = (self.wealth * (1.0 + self.stake() * (observation - self.null_mean)))
            .min(Self::WEALTH_MAX);
        self.sum += observation;
        self.squares += (observation - 0.5) * (observation - 0.5);
        self.observations += 1;
    }
}

/// A canary as its pairs arrive. Its state is a function of the rules and the
/// pairs in order: [`CanaryTest::replay`] recomputes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanaryTest {
    /// What was sealed at the start.
    pub rules: CanaryRules,
    /// How many pairs were counted, at most up to the decision.
    pub pairs: u64,
    /// ΣD.
    pub difference_sum: f64,
    /// ΣD².
    pub difference_squares: f64,
    /// The bet that the candidate is harmful.
    pub harm: Bet,
    /// The bet that it isn't worse by δ.
    pub non_inferiority: Bet,
    /// What the pairs say.
    pub decision: CanaryDecision,
}

impl CanaryTest {
    /// A canary without pairs.
    pub fn new(rules: CanaryRules) -> Self {
        let bet = |null_mean| {
            Bet::new(null_mean).expect("a harm margin in (0, 1) gives null means in (0, 1)")
        };
        Self {
            rules,
            pairs: 0,
            difference_sum: 0.0,
            difference_squares: 0.0,
            harm: bet(0.5),
            non_inferiority: bet((1.0 - rules.harm_margin) / 2.0),
            decision: CanaryDecision::Continue,
        }
    }

    /// The state after these pairs, in this order. Pairs behind the deciding
    /// one aren't counted.
    pub fn replay(differences: &[f64], rules: CanaryRules) -> Result<Self, OutOfRange> {
        let mut test = Self::new(rules);
        for difference in differences {
            test.push(*difference)?;
        }
        Ok(test)
    }

    /// Counts one pair with the difference D (see [`failure_difference`]) and
    /// says what all pairs so far say.
    ///
    /// Once decided, the test stays as it is: pairs that were in flight when it
    /// was decided change nothing. Harm is looked at first. A promotion needs
    /// the evidence to be there at a pair from `pairs_min` on; to have been
    /// there earlier isn't enough.
    pub fn push(&mut self, difference: f64) -> Result<CanaryDecision, OutOfRange> {
        if !(-1.0..=1.0).contains(&difference) {
            return Err(OutOfRange {
                what: "pair difference",
                value: difference,
                accepted: "[-1, 1]",
            });
        }
        if self.decision == CanaryDecision::Continue {
            self.pairs += 1;
            self.difference_sum += difference;
            self.difference_squares += difference * difference;
            self.harm.observe((1.0 + difference) / 2.0);
            self.non_inferiority.observe((1.0 - difference) / 2.0);
            self.decision = self.judge();
        }
        Ok(self.decision)
    }

    /// The mean of D: how much more often the candidate failed than the
    /// control, `.05` being five points; 0 without pairs.
    pub fn mean_difference(&self) -> f64 {
        if self.pairs == 0 {
            0.0
        } else {
            self.difference_sum / self.pairs as f64
        }
    }

    /// What it would still take: simulates `repetitions` futures from this
    /// state on, with pairs drawn from `law`.
    ///
    /// It takes at most `repetitions` times the pairs left, in steps of tens of
    /// nanoseconds, so `pairs_max` bounds its time.
    ///
    /// [`PairLaw::independent`] gives the law at the start, from a failure rate
    /// that one expects; [`PairLaw::observed`] gives "if it goes on like this".
    pub fn forecast(&self, law: PairLaw, repetitions: u32, seed: u64) -> CanaryForecast {
        let mut rng = Rng::new(seed);
        let (mut harmed, mut promotions) = (0_u32, Vec::new());
        for _ in 0..repetitions {
            let mut future = *self;
            while future.decision == CanaryDecision::Continue {
                future
                    .push(law.draw(&mut rng))
                    .expect("a law draws -1, 0 or 1");
            }
            match future.decision {
                CanaryDecision::Harm { .. } => harmed += 1,
                CanaryDecision::NonInferior { .. } => promotions.push(future.pairs - self.pairs),
                CanaryDecision::Inconclusive { .. } | CanaryDecision::Continue => {}
            }
        }
        promotions.sort_unstable();
        let share = |count: usize| count as f64 / f64::from(repetitions.max(1));
        // A future that never promotes takes longer than any that does, so a
        // quantile that falls on one doesn't exist.
        let quantile = |tenths: usize| {
            promotions
                .get(
                    (repetitions as usize * tenths)
                        .div_ceil(10)
                        .saturating_sub(1),
                )
                .copied()
        };
        CanaryForecast {
            promoted_share: share(promotions.len()),
            harm_share: share(harmed as usize),
            pairs_to_promotion_median: quantile(5),
            pairs_to_promotion_ninth_decile: quantile(9),
        }
    }

    fn judge(&self) -> CanaryDecision {
        let at = self.pairs;
        let needed = self.rules.evidence_needed();
        if self.harm.wealth >= needed {
            CanaryDecision::Harm { at }
        } else if self.non_inferiority.wealth >= needed && at >= self.rules.pairs_min {
            CanaryDecision::NonInferior { at }
        } else if at >= self.rules.pairs_max {
            CanaryDecision::Inconclusive { at }
        } else {
            CanaryDecision::Continue
        }
    }
}

/// D of a pair with binary outcomes: 1 when only the candidate failed, −1 when
/// only the control did, else 0. A missing outcome counts as failed.
pub fn failure_difference(candidate_failed: bool, control_failed: bool) -> f64 {
    f64::from(u8::from(candidate_failed)) - f64::from(u8::from(control_failed))
}

/// How likely each outcome of a pair is, for a forecast. What remains to 1 are
/// ties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLaw {
    worse: f64,
    better: f64,
}

impl PairLaw {
    /// Arms that fail independently of each other at these rates: a cautious
    /// forecast, since on shared inputs some failures are shared, and those are
    /// ties.
    pub fn independent(
        candidate_failure_rate: f64,
        control_failure_rate: f64,
    ) -> Result<Self, OutOfRange> {
        let candidate = closed_unit("candidate failure rate", candidate_failure_rate)?;
        let control = closed_unit("control failure rate", control_failure_rate)?;
        Ok(Self {
            worse: candidate * (1.0 - control),
            better: control * (1.0 - candidate),
        })
    }

    /// The law that the pairs of `test` suggest: outcomes −1, 0, 1 with the
    /// observed mean and mean square, after adding one pair of each kind, so
    /// that a short row of ties isn't taken for a promise.
    pub fn observed(test: &CanaryTest) -> Self {
        let pairs = test.pairs as f64 + 3.0;
        let mean = test.difference_sum / pairs;
        // Graded differences can have a mean square under their mean, which no
        // law on −1, 0, 1 has; the nearest one that has the mean is used then.
        let mean_square = ((test.difference_squares + 2.0) / pairs).max(mean.abs());
        Self {
            worse: (mean_square + mean) / 2.0,
            better: (mean_square - mean) / 2.0,
        }
    }

    /// The probability that only the candidate fails.
    pub fn worse(self) -> f64 {
        self.worse
    }

    /// The probability that only the control fails.
    pub fn better(self) -> f64 {
        self.better
    }

    fn draw(self, rng: &mut Rng) -> f64 {
        let drawn = rng.unit();
        if drawn < self.worse {
            1.0
        } else if drawn < self.worse + self.better {
            -1.0
        } else {
            0.0
        }
    }
}

/// What simulated futures of a canary came to. Shares are of all futures; what
/// is neither promoted nor harm was inconclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanaryForecast {
    /// The share that ended in a promotion.
    pub promoted_share: f64,
    /// The share that stopped on harm.
    pub harm_share: f64,
    /// The number of further pairs within which half of the futures are
    /// promoted; `None` when fewer than half ever are.
    pub pairs_to_promotion_median: Option<u64>,
    /// The same for nine futures of ten.
    pub pairs_to_promotion_ninth_decile: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alpha(level: f64) -> Alpha {
        Alpha::new(level).unwrap()
    }

    fn rules(pairs_min: u64, pairs_max: u64) -> CanaryRules {
        CanaryRules::new(alpha(0.05), 0.05, pairs_min, pairs_max).unwrap()
    }

    /// The first observation at which a bet's wealth reaches `1/.05`, of at
    /// most `observations_max`.
    fn first_win(
        null_mean: f64,
        observations_max: u64,
        mut draw: impl FnMut() -> f64,
    ) -> Option<u64> {
        let mut bet = Bet::new(null_mean).unwrap();
        (1..=observations_max).find(|_| {
            bet.observe(draw());
            bet.wealth >= 20.0
        })
    }

    /// The median of the pairs until harm is shown, arms failing independently.
    fn median_pairs_to_harm(candidate: f64, control: f64, repetitions: usize) -> u64 {
        let law = PairLaw::independent(candidate, control).unwrap();
        let mut rng = Rng::new(31);
        let mut pairs: Vec<u64> = (0..repetitions)
            .map(|_| {
                first_win(0.5, 20_000, || (1.0 + law.draw(&mut rng)) / 2.0).unwrap_or(u64::MAX)
            })
            .collect();
        pairs.sort_unstable();
        pairs[repetitions / 2]
    }

    fn within_15_percent(got: u64, expected: f64) -> bool {
        (got as f64 / expected - 1.0).abs() <= 0.15
    }

    #[test]
    fn the_first_pairs_follow_the_formula() {
        // Computed by hand: the first stake is 0 at m = ½ (μ̂ = ½), so the
        // first harm moves no wealth; then μ̂ = 1.5/2, v̂ = .27/2, and
        // .25/(.135 + .0625) = 1.2658… exceeds the clip at 1.
        let mut bet = Bet::new(0.5).unwrap();
        assert_eq!(bet.stake(), 0.0);
        bet.observe(1.0);
        assert_eq!(
            (bet.wealth, bet.sum, bet.squares, bet.stake()),
            (1.0, 1.0, 0.25, 1.0)
        );
        bet.observe(1.0);
        assert_eq!(bet.wealth, 1.5);
        bet.observe(0.0);
        assert_eq!(bet.wealth, 0.75);
        // Non-inferiority at δ = .05: m = .475, and .025/(.02 + .000625) =
        // 1.21… exceeds the clip at 1/.95. A harm there (X' = 0), and then μ̂ =
        // .25, under m: no bet. Two ties later μ̂ = 1.5/4, still under.
        let mut bet = Bet::new(0.475).unwrap();
        assert_eq!(bet.stake(), 1.0 / 0.95);
        bet.observe(0.0);
        assert!((bet.wealth - 0.5).abs() < 1e-12);
        assert_eq!(bet.stake(), 0.0);
        // An unclipped stake: after one harm and 20 ties μ̂ = 10.5/22 and
        // v̂ = .27/22.
        for _ in 0..20 {
            bet.observe(0.5);
        }
        let edge: f64 = 10.5 / 22.0 - 0.475;
        let expected = edge / (0.27 / 22.0 + edge * edge);
        assert!((bet.stake() - expected).abs() < 1e-12, "{}", bet.stake());
        assert!(expected > 0.1 && expected < 0.3, "{expected} is clipped");
    }

    #[test]
    fn wealth_is_a_fair_game_on_every_path() {
        // All 3^9 paths of ties, harms and repairs with equal probabilities of
        // harm and repair: the mean wealth stays exactly 1 at m = ½.
        fn mean_wealth(bet: Bet, depth: u32) -> f64 {
            if depth == 0 {
                return bet.wealth;
            }
            [(1.0, 0.3), (0.0, 0.3), (0.5, 0.4)]
                .map(|(observation, probability)| {
                    let mut next = bet;
                    next.observe(observation);
                    probability * mean_wealth(next, depth - 1)
                })
                .iter()
                .sum()
        }
        let mean = mean_wealth(Bet::new(0.5).unwrap(), 9);
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
        // At a smaller null mean the same data are in the bettor's favour, at a
        // larger one against it.
        assert!(mean_wealth(Bet::new(0.45).unwrap(), 9) > 1.0);
        assert!(mean_wealth(Bet::new(0.55).unwrap(), 9) < 1.0);
    }

    #[test]
    fn looking_after_every_pair_of_an_a_a_canary_stops_falsely_at_most_at_alpha() {
        const REPETITIONS: u32 = 4_000;
        let sigma = (0.05 * 0.95 / f64::from(REPETITIONS)).sqrt();
        let mut rng = Rng::new(17);
        for (rate, pairs) in [(0.05, 4_000), (0.30, 2_000)] {
            let law = PairLaw::independent(rate, rate).unwrap();
            let stopped = (0..REPETITIONS)
                .filter(|_| first_win(0.5, pairs, || (1.0 + law.draw(&mut rng)) / 2.0).is_some())
                .count();
            let share = stopped as f64 / f64::from(REPETITIONS);
            println!("A/A at failure rate {rate}: {share:.4} false stops within {pairs} pairs");
            assert!(
                share <= 0.05 + 3.0 * sigma,
                "failure rate {rate}: {share} false stops"
            );
            assert!(
                share > 0.005,
                "failure rate {rate}: {share}, so the bet never risks anything"
            );
        }
    }

    #[test]
    fn a_candidate_at_the_margin_is_promoted_falsely_at_most_at_alpha() {
        const REPETITIONS: u32 = 4_000;
        let sigma = (0.05 * 0.95 / f64::from(REPETITIONS)).sqrt();
        let law = PairLaw::independent(0.10, 0.05).unwrap();
        let mut rng = Rng::new(18);
        let promoted = (0..REPETITIONS)
            .filter(|_| first_win(0.475, 1_000, || (1.0 - law.draw(&mut rng)) / 2.0).is_some())
            .count();
        let share = promoted as f64 / f64::from(REPETITIONS);
        println!("candidate exactly at the margin: {share:.4} false promotions within 1000 pairs");
        assert!(share <= 0.05 + 3.0 * sigma, "{share} false promotions");
        assert!(share > 0.005, "{share}, so the bet never risks anything");
    }

    #[test]
    fn harm_is_detected_as_soon_as_the_design_says() {
        let (large, small) = (
            median_pairs_to_harm(0.25, 0.05, 1_001),
            median_pairs_to_harm(0.10, 0.05, 1_001),
        );
        println!("median pairs to detection: {large} for .05 -> .25, {small} for .05 -> .10");
        assert!(
            within_15_percent(large, 49.0),
            "{large} pairs for .05 -> .25"
        );
        assert!(
            within_15_percent(small, 362.0),
            "{small} pairs for .05 -> .10"
        );
    }

    #[test]
    fn a_candidate_that_is_no_worse_is_promoted_as_soon_as_the_design_says() {
        let start = CanaryTest::new(rules(0, 20_000));
        let forecast = |rate| start.forecast(PairLaw::independent(rate, rate).unwrap(), 1_000, 1);
        let (some, none) = (forecast(0.05), forecast(0.0));
        println!("A/A at .05: {some:?}\nA/A at 0: {none:?}");
        assert!(
            within_15_percent(some.pairs_to_promotion_median.unwrap(), 239.0),
            "{some:?}"
        );
        assert_eq!(none.pairs_to_promotion_median, Some(116));
        assert_eq!(none.pairs_to_promotion_ninth_decile, Some(116));
    }

    #[test]
    fn decisions_come_where_the_rules_put_them() {
        let ties = vec![0.0; 600];
        let harms = vec![1.0; 600];
        let coin: Vec<f64> = (0..600)
            .map(|pair| if pair % 2 == 0 { 1.0 } else { -1.0 })
            .collect();
        let decide = |pairs: &[f64], rules| CanaryTest::replay(pairs, rules).unwrap().decision;
        assert_eq!(decide(&[], rules(0, 500)), CanaryDecision::Continue);
        assert_eq!(
            decide(&ties[..115], rules(0, 500)),
            CanaryDecision::Continue
        );
        assert_eq!(
            decide(&ties, rules(0, 500)),
            CanaryDecision::NonInferior { at: 116 }
        );
        assert_eq!(
            decide(&ties, rules(300, 500)),
            CanaryDecision::NonInferior { at: 300 }
        );
        assert_eq!(
            decide(&ties, rules(0, 100)),
            CanaryDecision::Inconclusive { at: 100 }
        );
        // 1.5^8 is the first power above 20; the first pair moves no wealth.
        // Harm waits for no minimum.
        assert_eq!(
            decide(&harms, rules(300, 500)),
            CanaryDecision::Harm { at: 9 }
        );
        assert_eq!(
            decide(&coin, rules(0, 500)),
            CanaryDecision::Inconclusive { at: 500 }
        );
    }

    #[test]
    fn evidence_that_is_gone_when_the_minimum_is_reached_does_not_promote() {
        let mut pairs = vec![0.0; 120];
        pairs.extend([1.0; 4]);
        pairs.extend([0.0; 6]);
        let early = CanaryTest::replay(&pairs, rules(0, 500)).unwrap();
        assert_eq!(early.decision, CanaryDecision::NonInferior { at: 116 });
        let late = CanaryTest::replay(&pairs, rules(130, 500)).unwrap();
        assert_eq!(late.decision, CanaryDecision::Continue);
        assert!(late.non_inferiority.wealth < 20.0);
    }

    #[test]
    fn pair_by_pair_equals_all_at_once_and_a_decided_test_does_not_move() {
        let mut rng = Rng::new(23);
        for _ in 0..50 {
            let law = PairLaw::independent(rng.unit() / 2.0, rng.unit() / 2.0).unwrap();
            let pairs: Vec<f64> = (0..400).map(|_| law.draw(&mut rng)).collect();
            let mut one_by_one = CanaryTest::new(rules(20, 300));
            let mut decided = None;
            for (index, pair) in pairs.iter().enumerate() {
                one_by_one.push(*pair).unwrap();
                let replayed = CanaryTest::replay(&pairs[..=index], rules(20, 300)).unwrap();
                assert_eq!(one_by_one, replayed);
                if one_by_one.decision != CanaryDecision::Continue {
                    let first = *decided.get_or_insert(one_by_one);
                    assert_eq!(one_by_one, first);
                }
            }
            let at = decided.expect("300 pairs decide everything").pairs;
            assert_eq!(
                one_by_one.mean_difference(),
                pairs[..at as usize].iter().sum::<f64>() / at as f64
            );
        }
    }

    #[test]
    fn wealth_stays_finite_and_never_negative() {
        for difference in [-1.0, -0.3, 0.0, 0.3, 1.0] {
            let test = CanaryTest::replay(&vec![difference; 5_000], rules(5_000, 5_000)).unwrap();
            for bet in [test.harm, test.non_inferiority] {
                assert!((0.0..=Bet::WEALTH_MAX).contains(&bet.wealth), "{bet:?}");
            }
        }
        let capped = CanaryTest::replay(&vec![-1.0; 5_000], rules(5_000, 5_000)).unwrap();
        assert_eq!(capped.non_inferiority.wealth, Bet::WEALTH_MAX);
    }

    #[test]
    fn an_observed_law_has_the_observed_moments() {
        // 97 pairs, 14 of them harms and 6 repairs; with one of each kind added
        // 15, 7 and 78 of 100.
        let start = CanaryTest::new(rules(97, 97));
        let law = PairLaw::observed(&CanaryTest {
            pairs: 97,
            difference_sum: 8.0,
            difference_squares: 20.0,
            ..start
        });
        assert!(
            (law.worse() - 0.15).abs() < 1e-12 && (law.better() - 0.07).abs() < 1e-12,
            "{law:?}"
        );
        let graded = PairLaw::observed(&CanaryTest::replay(&[0.5; 30], rules(0, 97)).unwrap());
        assert!(
            graded.better() >= 0.0 && graded.worse() + graded.better() <= 1.0,
            "{graded:?}"
        );
        let none = PairLaw::observed(&CanaryTest::new(rules(0, 97)));
        assert!(
            (none.worse() - 1.0 / 3.0).abs() < 1e-12 && (none.better() - 1.0 / 3.0).abs() < 1e-12
        );
    }

    #[test]
    fn a_forecast_from_the_middle_counts_further_pairs_only() {
        let middle = CanaryTest::replay(&[0.0; 100], rules(0, 500)).unwrap();
        let never = PairLaw::independent(0.0, 0.0).unwrap();
        assert_eq!(
            middle.forecast(never, 10, 1).pairs_to_promotion_median,
            Some(16)
        );
        let harmful = middle.forecast(PairLaw::independent(0.9, 0.0).unwrap(), 100, 1);
        assert_eq!(
            (harmful.harm_share, harmful.pairs_to_promotion_median),
            (1.0, None)
        );
        let decided = CanaryTest::replay(&[0.0; 200], rules(0, 500)).unwrap();
        assert_eq!(
            decided.forecast(never, 10, 1).pairs_to_promotion_median,
            Some(0)
        );
        assert_eq!(middle.forecast(never, 0, 1).promoted_share, 0.0);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let what = |result: Result<CanaryRules, OutOfRange>| result.unwrap_err().what;
        assert_eq!(
            what(CanaryRules::new(alpha(0.05), 0.0, 0, 10)),
            "harm margin"
        );
        assert_eq!(
            what(CanaryRules::new(alpha(0.05), f64::NAN, 0, 10)),
            "harm margin"
        );
        assert_eq!(
            what(CanaryRules::new(alpha(0.05), 0.05, 11, 10)),
            "pairs_max"
        );
        assert_eq!(what(CanaryRules::new(alpha(0.05), 0.05, 0, 0)), "pairs_max");
        let mut test = CanaryTest::new(rules(0, 10));
        let before = test;
        assert!(test.push(1.5).is_err() && test.push(f64::NAN).is_err());
        assert_eq!(test, before);
        assert!(PairLaw::independent(1.2, 0.0).is_err());
        assert_eq!(
            [
                failure_difference(true, false),
                failure_difference(false, true),
                failure_difference(true, true)
            ],
            [1.0, -1.0, 0.0]
        );
    }
}
