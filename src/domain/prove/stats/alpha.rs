//! The error that a test may spend, and how a row of attempts on one holdout
//! shares it.
//!
//! A holdout is looked at more than once: every night may bring a finalist. So
//! the t-th attempt is tested at `α_t = 6α / (π² t²)`. Since `Σ 1/t² = π²/6`
//! (Euler), all attempts that will ever be made, however many, spend α
//! together, and by the union bound the probability that any null candidate is
//! ever promoted is at most α.
//!
//! The union bound needs no independence between nights. It also survives that
//! the search knows of earlier refusals: as long as all that was published is
//! "refused, refused, …" there is one single story, so the t-th candidate on
//! that path is determined without the holdout, and its p-value is as good as a
//! fresh one. This is why a refusal may publish one bit and no more. It is also
//! the limit of the argument: a pass publishes outcomes, and candidates that
//! are chosen by looking at those are no longer covered. The split discipline
//! (the search can't read the holdout) and rotation are what stands there.
//!
//! Sources: the name and idea of spending are from G. Lan and D. DeMets,
//! "Discrete sequential boundaries for clinical trials", Biometrika 70(3),
//! 1983; the sequence `6/(π²t²)` is the usual summable choice, as in D. Foster
//! and R. Stine, "α-investing", JRSS B 70(2), 2008; the argument about paths is
//! that of A. Blum and M. Hardt, "The Ladder", ICML 2015.

use std::f64::consts::PI;
use std::num::NonZeroU64;

use super::{OutOfRange, open_unit};

/// A significance level: the probability, strictly between 0 and 1, that a test
/// may reject what is true.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Alpha(f64);

impl Alpha {
    /// A level from a number; refused unless `0 < level < 1`.
    pub fn new(level: f64) -> Result<Self, OutOfRange> {
        open_unit("alpha", level).map(Self)
    }

    /// The level as a number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether a p-value is small enough to reject at this level. NaN never is.
    pub fn rejects(self, p_value: f64) -> bool {
        p_value <= self.0
    }

    /// The level of the attempt number `attempt` (from 1) when this is the
    /// level of all attempts together: `6α / (π² t²)`.
    pub fn at_attempt(self, attempt: NonZeroU64) -> Self {
        let t = attempt.get() as f64;
        Self(6.0 * self.0 / (PI * PI * t * t))
    }

    /// What the first `attempts` attempts have spent together: `Σ α_t`, at most
    /// α.
    pub fn spent_after(self, attempts: u64) -> f64 {
        // Beyond this many, the rest of the series is known better than the
        // sum: Σ_{t>T} 1/t² = 1/T − 1/(2T²) + 1/(6T³) − … (Euler–Maclaurin; the
        // next term is under 10⁻²⁰).
        const SUMMED_MAX: u64 = 10_000;
        let share = if attempts <= SUMMED_MAX {
            // Smallest first, so that the small terms aren't lost in the large
            // sum.
            let inverse_squares: f64 = (1..=attempts)
                .rev()
                .map(|t| 1.0 / (t as f64 * t as f64))
                .sum();
            6.0 / (PI * PI) * inverse_squares
        } else {
            let t = attempts as f64;
            1.0 - 6.0 / (PI * PI) * (1.0 / t - 1.0 / (2.0 * t * t) + 1.0 / (6.0 * t * t * t))
        };
        self.0 * share.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mcnemar;
    use super::super::rng::Rng;
    use super::*;

    fn alpha(level: f64) -> Alpha {
        Alpha::new(level).unwrap()
    }

    fn attempt(t: u64) -> NonZeroU64 {
        NonZeroU64::new(t).unwrap()
    }

    #[test]
    fn levels_outside_the_open_unit_interval_are_refused() {
        for level in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            let refused = Alpha::new(level).unwrap_err();
            assert_eq!((refused.what, refused.accepted), ("alpha", "(0, 1)"));
        }
        assert!(!alpha(0.05).rejects(f64::NAN));
        assert!(alpha(0.05).rejects(0.05));
    }

    #[test]
    fn the_first_attempts_have_the_known_levels() {
        for (t, expected) in [
            (1, 0.030_396_355_092_701_34),
            (2, 0.007_599_088_773_175_335),
            (10, 0.000_303_963_550_927_013_4),
        ] {
            let got = alpha(0.05).at_attempt(attempt(t)).get();
            assert!(
                (got - expected).abs() < 1e-15 * expected,
                "attempt {t}: {got}"
            );
        }
    }

    #[test]
    fn attempts_never_spend_more_than_alpha_and_come_as_close_as_the_series_does() {
        for level in [0.001, 0.05, 0.3, 0.999] {
            let whole = alpha(level);
            let mut spent = 0.0;
            for t in 1..=30_000 {
                spent += whole.at_attempt(attempt(t)).get();
                assert!(spent <= level, "level {level}: {spent} after {t}");
                if [1, 2, 9_999, 10_000, 10_001, 30_000].contains(&t) {
                    let reported = whole.spent_after(t);
                    assert!(
                        (reported - spent).abs() < 1e-12,
                        "level {level}, {t} attempts: {reported} against {spent}"
                    );
                }
            }
            assert_eq!(whole.spent_after(0), 0.0);
            assert!(whole.spent_after(u64::MAX) <= level);
            assert!(whole.spent_after(u64::MAX) > 0.999_999 * level);
        }
    }

    /// 64 coins in one word, each 1 with probability `numerator / 256`, from
    /// eight words of fair coins: bit by bit of the numerator from the lowest,
    /// "or" raises the probability by a half and "and" halves it.
    fn coins(rng: &mut Rng, numerator: u32) -> u64 {
        (0..8).fold(0, |coins, bit| {
            let fair = rng.next_u64();
            if numerator >> bit & 1 == 1 {
                coins | fair
            } else {
                coins & fair
            }
        })
    }

    /// The design's promise: a hundred nights, each with a candidate that is
    /// truly no better, against one holdout whose control answers never change.
    /// A promotion in any of the nights is a false one; 256 rows of four
    /// difficulties.
    #[test]
    fn a_hundred_null_nights_on_one_holdout_promote_falsely_in_at_most_five_percent_of_repetitions()
    {
        const NIGHTS: u64 = 100;
        const REPETITIONS: u32 = 4_000;
        const SUCCESS: [u32; 4] = [243, 218, 179, 102];
        let levels: Vec<Alpha> = (1..=NIGHTS)
            .map(|t| alpha(0.05).at_attempt(attempt(t)))
            .collect();
        let p_values: Vec<Vec<f64>> = (0..=256_u64)
            .map(|n| {
                (0..=n)
                    .map(|wins| mcnemar::p_value(wins, n - wins))
                    .collect()
            })
            .collect();
        let mut rng = Rng::new(20_260_101);
        let (mut spent_repetitions, mut unspent_repetitions) = (0_u32, 0_u32);
        for _ in 0..REPETITIONS {
            let control = SUCCESS.map(|success| coins(&mut rng, success));
            let (mut promoted, mut promoted_without_spending) = (false, false);
            for level in &levels {
                let (mut wins, mut losses) = (0, 0);
                for (success, control) in SUCCESS.into_iter().zip(control) {
                    let candidate = coins(&mut rng, success);
                    wins += (candidate & !control).count_ones() as usize;
                    losses += (control & !candidate).count_ones() as usize;
                }
                let p_value = p_values[wins + losses][wins];
                promoted |= level.rejects(p_value);
                promoted_without_spending |= alpha(0.05).rejects(p_value);
            }
            spent_repetitions += u32::from(promoted);
            unspent_repetitions += u32::from(promoted_without_spending);
        }
        let share = f64::from(spent_repetitions) / f64::from(REPETITIONS);
        let unspent_share = f64::from(unspent_repetitions) / f64::from(REPETITIONS);
        println!(
            "any false promotion in 100 nights: {share:.4} with alpha_t, {unspent_share:.4} with alpha at every attempt"
        );
        // The bound itself, without the simulation's noise on top: the exact
        // test is conservative enough to leave room.
        assert!(
            share <= 0.05,
            "false promotion in {share} of the repetitions"
        );
        // The same simulation must be able to fail: without spending, it does.
        assert!(unspent_share > 0.3, "without spending only {unspent_share}");
    }
}
