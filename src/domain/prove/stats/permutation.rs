//! The one-sided sign-flip test for graded metrics: is the mean paired
//! difference larger than luck would make it?
//!
//! If neither arm is better, the sign of each row's difference is a fair coin.
//! The p-value is the share of all sign choices whose sum is at least the
//! observed one: counted over all 2ⁿ choices for up to [`ENUMERATED_MAX`]
//! non-zero differences, otherwise estimated from seeded random choices as
//! `(b + 1) / (m + 1)`, b being those whose sum is at least the observed one;
//! this counts the observed choice as one of them, so that the test never
//! rejects a true hypothesis more often than its level says.
//!
//! Sources: R. Fisher, "The Design of Experiments", 1935, section 21 (the
//! test); B. Phipson and G. Smyth, "Permutation p-values should never be zero",
//! Statistical Applications in Genetics and Molecular Biology 9(1), 2010 (the
//! estimate).
//!
//! Who chooses the seed could choose the luckiest of many, so a gate derives it
//! from something sealed before the rows are read, such as the reservation.

use std::num::NonZeroU32;

use super::OutOfRange;
use super::alpha::Alpha;
use super::quanta::{ONE, quanta};
use super::rng::Rng;

/// Up to this many non-zero differences all sign choices are counted: 2²⁰ of
/// them, a few milliseconds.
pub const ENUMERATED_MAX: usize = 20;

/// How a sign-flip p-value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignFlipMethod {
    /// All sign choices were counted; the p-value is exact.
    Enumerated,
    /// Random sign choices were counted.
    MonteCarlo {
        /// How many, m in `(b + 1) / (m + 1)`.
        draws: NonZeroU32,
        /// The seed of their [`Rng`].
        seed: u64,
    },
}

/// The outcome of a sign-flip test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignFlip {
    /// The p-value of "the candidate is no better"; 1 when no difference is
    /// non-zero.
    pub p_value: f64,
    /// The mean of all differences, zeros included.
    pub mean_difference: f64,
    /// How many differences aren't zero.
    pub nonzero: usize,
    /// How the p-value was found.
    pub method: SignFlipMethod,
}

/// Random sign choices, for when there are too many to count them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignDraws {
    /// How many to draw; see [`SignDraws::for_level`].
    pub draws: NonZeroU32,
    /// The seed.
    pub seed: u64,
}

impl SignDraws {
    /// Enough draws to decide at `alpha`: 400/α, at least 10,000 and at most 4
    /// million, so that a p-value near α has a relative standard error of at
    /// most 5 % while the cap isn't reached. A p-value can't be under
    /// `1 / (draws + 1)`, so draws must grow as α shrinks.
    pub fn for_level(alpha: Alpha, seed: u64) -> Self {
        let draws = (400.0 / alpha.get()).clamp(10_000.0, 4_000_000.0) as u32;
        Self {
            draws: NonZeroU32::new(draws).expect("the clamp keeps it at 10,000 or more"),
            seed,
        }
    }
}

/// Tests paired differences, candidate − control, each in `[-1, 1]`, against
/// "the candidate is no better".
///
/// Differences are taken to the nearest of 27,027,000,000 parts of one, so that
/// ties are ties (module `quanta`).
pub fn sign_flip(differences: &[f64], draws: SignDraws) -> Result<SignFlip, OutOfRange> {
    let refused = differences
        .iter()
        .find(|difference| !(-1.0..=1.0).contains(*difference));
    match refused {
        Some(value) => Err(OutOfRange {
            what: "paired difference",
            value: *value,
            accepted: "[-1, 1]",
        }),
        None => Ok(sign_flip_quanta(
            differences.iter().copied().map(quanta),
            draws,
        )),
    }
}

/// [`sign_flip`] on differences that are whole numbers of quanta already.
pub(super) fn sign_flip_quanta(
    differences: impl ExactSizeIterator<Item = i64>,
    draws: SignDraws,
) -> SignFlip {
    let rows = differences.len();
    let nonzero: Vec<i64> = differences.filter(|difference| *difference != 0).collect();
    let observed: i64 = nonzero.iter().sum();
    let magnitudes: Vec<i64> = nonzero.iter().map(|difference| difference.abs()).collect();
    let (p_value, method) = if magnitudes.len() <= ENUMERATED_MAX {
        (
            enumerated(&magnitudes, observed),
            SignFlipMethod::Enumerated,
        )
    } else {
        (
            drawn(&magnitudes, observed, draws),
            SignFlipMethod::MonteCarlo {
                draws: draws.draws,
                seed: draws.seed,
            },
        )
    };
    let mean_difference = if rows == 0 {
        0.0
    } else {
        observed as f64 / ONE as f64 / rows as f64
    };
    SignFlip {
        p_value,
        mean_difference,
        nonzero: magnitudes.len(),
        method,
    }
}

/// The share of all sign choices with a sum of at least `observed`, walking
/// them in Gray-code order so that each differs from the one before in one
/// sign.
fn enumerated(magnitudes: &[i64], observed: i64) -> f64 {
    let choices = 1_u64 << magnitudes.len();
    let mut sum: i64 = -magnitudes.iter().sum::<i64>();
    let mut at_least = u64::from(sum >= observed);
    for choice in 1..choices {
        let flipped = choice.trailing_zeros();
        let is_positive_now = (choice ^ (choice >> 1)) >> flipped & 1 == 1;
        let change = 2 * magnitudes[flipped as usize];
        sum += if is_positive_now { change } else { -change };
        at_least += u64::from(sum >= observed);
    }
    at_least as f64 / choices as f64
}

/// `(b + 1) / (m + 1)` over random sign choices, 64 signs from each word of the
/// generator.
fn drawn(magnitudes: &[i64], observed: i64, draws: SignDraws) -> f64 {
    let total: i64 = magnitudes.iter().sum();
    let mut rng = Rng::new(draws.seed);
    let mut at_least = 0_u32;
    for _ in 0..draws.draws.get() {
        let mut positive = 0;
        for chunk in magnitudes.chunks(64) {
            let mut signs = rng.next_u64();
            for magnitude in chunk {
                // All ones where the sign is plus: a mask, because a branch on
                // a fair coin is mispredicted half of the time.
                positive += magnitude & (signs & 1).cast_signed().wrapping_neg();
                signs >>= 1;
            }
        }
        at_least += u32::from(2 * positive - total >= observed);
    }
    (f64::from(at_least) + 1.0) / (f64::from(draws.draws.get()) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::mcnemar;
    use super::*;

    fn draws(draws: u32, seed: u64) -> SignDraws {
        SignDraws {
            draws: NonZeroU32::new(draws).unwrap(),
            seed,
        }
    }

    fn p_value(differences: &[f64]) -> f64 {
        sign_flip(differences, draws(9_999, 1)).unwrap().p_value
    }

    #[test]
    fn small_cases_are_counted_by_hand() {
        // Signs of (.5, .25, .25): sums 1, .5, .5, 0, 0, -.5, -.5, -1.
        let table: [(&[f64], f64); 7] = [
            (&[], 1.0),
            (&[0.0, 0.0], 1.0),
            (&[0.4], 0.5),
            (&[-0.4], 1.0),
            (&[0.5, 0.25, 0.25], 1.0 / 8.0),
            (&[0.5, 0.25, -0.25, 0.0], 3.0 / 8.0),
            (&[0.5, -0.25, -0.25], 5.0 / 8.0),
        ];
        for (differences, expected) in table {
            assert_eq!(p_value(differences), expected, "{differences:?}");
        }
    }

    #[test]
    fn on_binary_differences_it_is_the_mcnemar_test() {
        for wins in 0..=12_u64 {
            for losses in 0..=8_u64 {
                let mut differences = vec![1.0; wins as usize];
                differences.extend(vec![-1.0; losses as usize]);
                differences.push(0.0);
                assert_eq!(
                    p_value(&differences),
                    mcnemar::p_value(wins, losses),
                    "{wins} wins, {losses} losses"
                );
            }
        }
    }

    #[test]
    fn ties_survive_rounding_and_order() {
        // Without whole numbers .1 + .2 − .3 is above zero by one part in 10¹⁷,
        // and the choices that tie with it would be miscounted.
        assert_eq!(p_value(&[0.1, 0.2, -0.3]), p_value(&[-0.3, 0.2, 0.1]));
        assert_eq!(p_value(&[0.1, 0.2, -0.3]), 5.0 / 8.0);
        let thirds = [1.0 / 3.0, 2.0 / 3.0 - 1.0, 1.0 - 2.0 / 3.0];
        assert_eq!(p_value(&thirds), 0.5);
    }

    #[test]
    fn random_choices_agree_with_counting_and_repeat_with_the_seed() {
        let mut rng = Rng::new(4);
        for _ in 0..10 {
            let magnitudes: Vec<i64> = (0..16).map(|_| rng.below(1000) as i64 + 1).collect();
            let observed = rng.below(6_000) as i64;
            let exact = enumerated(&magnitudes, observed);
            let estimate = drawn(&magnitudes, observed, draws(20_000, rng.next_u64()));
            let sigma = (exact * (1.0 - exact) / 20_000.0).sqrt();
            assert!(
                (estimate - exact).abs() < 4.5 * sigma + 1e-4,
                "estimate {estimate}, exact {exact}"
            );
        }
        // Thirteen wins and twelve losses: 15 % of the choices tie with what was
        // observed, and ties count.
        let tied = drawn(&[ONE; 25], ONE, draws(20_000, 3));
        assert!((tied - mcnemar::p_value(13, 12)).abs() < 0.02, "{tied}");
        let differences: Vec<f64> = (0..130).map(|_| rng.unit() - 0.45).collect();
        let once = sign_flip(&differences, draws(2_000, 5)).unwrap();
        assert_eq!(once, sign_flip(&differences, draws(2_000, 5)).unwrap());
        assert_ne!(
            once.p_value,
            sign_flip(&differences, draws(2_000, 6)).unwrap().p_value
        );
        assert_eq!(
            once.method,
            SignFlipMethod::MonteCarlo {
                draws: NonZeroU32::new(2_000).unwrap(),
                seed: 5
            }
        );
        assert_eq!(once.nonzero, 130);
    }

    #[test]
    fn the_estimate_is_never_zero_and_its_level_holds() {
        let certain = vec![1.0; 100];
        assert_eq!(p_value(&certain), 1.0 / 10_000.0);
        // Null data: symmetric graded differences. Of 1,000 tests at most 5 % +
        // 3 sigma may reject, and, as they aren't very discrete, not far fewer.
        let mut rng = Rng::new(8);
        let mut rejected = 0;
        for repetition in 0..1_000 {
            let differences: Vec<f64> =
                (0..30).map(|_| (rng.below(9) as f64 - 4.0) / 4.0).collect();
            rejected += u32::from(
                sign_flip(&differences, draws(399, repetition))
                    .unwrap()
                    .p_value
                    <= 0.05,
            );
        }
        assert!(
            (20..=71).contains(&rejected),
            "{rejected} of 1,000 null tests rejected"
        );
    }

    #[test]
    fn draws_grow_as_the_level_shrinks() {
        let for_level = |level| {
            SignDraws::for_level(Alpha::new(level).unwrap(), 0)
                .draws
                .get()
        };
        assert_eq!(
            [
                for_level(0.5),
                for_level(0.01),
                for_level(0.001),
                for_level(1e-9)
            ],
            [10_000, 40_000, 400_000, 4_000_000]
        );
    }

    #[test]
    fn what_is_no_difference_of_scores_is_refused() {
        for value in [1.1, -1.000_001, f64::NAN, f64::INFINITY] {
            let refused = sign_flip(&[0.0, value], draws(10, 1)).unwrap_err();
            assert_eq!(
                (refused.what, refused.accepted),
                ("paired difference", "[-1, 1]")
            );
        }
    }
}
