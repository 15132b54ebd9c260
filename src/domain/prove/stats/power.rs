//! How many holdout rows would prove a gain, and which gain these rows can
//! prove: the exact power of the [McNemar test](super::mcnemar).
//!
//! Let ψ be the win rate plus the loss rate. The number of discordant rows
//! among n is `Binomial(n, ψ)`; given m of them, the number of wins is
//! `Binomial(m, win rate / ψ)`, and the test rejects from some critical number
//! of wins on. So the power is a finite sum, taken here over every m that
//! matters, with no normal approximation. Source: S. Duffy, "Asymptotic and
//! exact power for the McNemar test and its analogue with R controls per case",
//! Biometrics 40(4), 1984.
//!
//! What nobody knows before the rows are run is ψ, the share of rows on which
//! the two programs differ. [`PowerAssumption`] makes the guess explicit, and
//! pages must print it beside the figures.

use super::alpha::Alpha;
use super::binomial::Binomial;
use super::{OutOfRange, closed_unit, mcnemar, open_unit};

/// The largest holdout that [`rows_needed`] considers, in rows.
pub const ROWS_MAX: u64 = 100_000;

/// The rates at which rows are discordant, per row of the population that the
/// holdout stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscordantRates {
    /// Rows that only the candidate gets right, as a share of all rows.
    pub wins: f64,
    /// Rows that only the control gets right, as a share of all rows.
    pub losses: f64,
}

/// What has to be assumed before the rows are run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerAssumption {
    /// ψ: the share of rows on which exactly one of the two programs is right,
    /// in `(0, 1]`. A gain larger than ψ raises it to the gain.
    pub discordance: f64,
    /// The probability with which a true gain should be proven, in `(0, 1)`.
    pub power: f64,
}

impl Default for PowerAssumption {
    /// ψ = .30 and power .80: for +10 points, a candidate that repairs 20 % of
    /// the rows and breaks 10 %. At the first attempt under α = .05 (α₁ =
    /// .0304) +5, +10 and +15 points then need 920, 233 and 106 rows: the
    /// design's "about 240 rows for +10".
    fn default() -> Self {
        Self {
            discordance: 0.30,
            power: 0.80,
        }
    }
}

impl PowerAssumption {
    fn checked(self) -> Result<Self, OutOfRange> {
        open_unit("power", self.power)?;
        if self.discordance == 0.0 {
            return Err(OutOfRange {
                what: "discordance",
                value: 0.0,
                accepted: "(0, 1]",
            });
        }
        closed_unit("discordance", self.discordance)?;
        Ok(self)
    }

    /// The rates under which the net gain is `gain`.
    fn rates(self, gain: f64) -> DiscordantRates {
        // Without this, a gain above ψ would ask for a negative loss rate; all
        // discordant rows being wins is what such a gain means.
        let discordance = self.discordance.max(gain);
        DiscordantRates {
            wins: (discordance + gain) / 2.0,
            losses: (discordance - gain) / 2.0,
        }
    }
}

/// The probability that the exact one-sided McNemar test rejects at `alpha`
/// when `rows` rows are drawn with these rates.
///
/// Refused unless both rates and their sum are in `[0, 1]`.
pub fn power(rows: u64, rates: DiscordantRates, alpha: Alpha) -> Result<f64, OutOfRange> {
    closed_unit("win rate", rates.wins)?;
    closed_unit("loss rate", rates.losses)?;
    Ok(power_of(
        rows,
        rates,
        closed_unit("win rate + loss rate", rates.wins + rates.losses)?,
        alpha,
    ))
}

/// The smallest number of rows with which a true gain of `gain` (`.10` is ten
/// points) is proven with the assumed power at `alpha`; `None` when more than
/// [`ROWS_MAX`] would be needed.
///
/// Found by bisection. Power grows with rows up to ripples of a tenth of a
/// point (the test's critical value is a whole number), so within a row or two
/// there may be a smaller number that also has the power; the one returned has
/// it and the next smaller one hasn't.
pub fn rows_needed(
    gain: f64,
    assumption: PowerAssumption,
    alpha: Alpha,
) -> Result<Option<u64>, OutOfRange> {
    open_unit("gain", gain)?;
    let assumption = assumption.checked()?;
    let rates = assumption.rates(gain);
    let discordance = rates.wins + rates.losses;
    Ok(first_in(ROWS_MAX, |rows| {
        power_of(rows, rates, discordance, alpha) >= assumption.power
    }))
}

/// The smallest true gain, in steps of a tenth of a point and rounded up, that
/// `rows` rows prove with the assumed power at `alpha`; `None` when they can't
/// even prove that everything became right.
pub fn smallest_provable_gain(
    rows: u64,
    assumption: PowerAssumption,
    alpha: Alpha,
) -> Result<Option<f64>, OutOfRange> {
    let assumption = assumption.checked()?;
    let provable = |permille: u64| {
        let rates = assumption.rates(permille as f64 / 1000.0);
        power_of(rows, rates, (rates.wins + rates.losses).min(1.0), alpha) >= assumption.power
    };
    Ok(first_in(1000, provable).map(|permille| permille as f64 / 1000.0))
}

/// The power with `discordance` = win rate + loss rate, all three checked.
fn power_of(rows: u64, rates: DiscordantRates, discordance: f64, alpha: Alpha) -> f64 {
    if discordance == 0.0 {
        return 0.0;
    }
    let win_share = (rates.wins / discordance).min(1.0);
    let mut critical_wins = None;
    let mut total = 0.0;
    for (discordant, probability) in Binomial::new(rows, discordance).iter() {
        // One more discordant row raises the critical number by one or not at
        // all, so it is searched for once and then followed.
        let critical = match critical_wins {
            None => first_critical(discordant, alpha),
            Some(previous) if rejects(previous, discordant, alpha) => previous,
            Some(previous) => previous + 1,
        };
        critical_wins = Some(critical);
        if critical <= discordant {
            total += probability * Binomial::new(discordant, win_share).at_least(critical);
        }
    }
    total.min(1.0)
}

/// Whether `wins` among `discordant` rows are enough. More wins than rows are
/// "enough" by convention: the critical number may be out of reach.
fn rejects(wins: u64, discordant: u64, alpha: Alpha) -> bool {
    wins > discordant || alpha.rejects(mcnemar::p_value(wins, discordant - wins))
}

/// The smallest number of wins among `discordant` rows that rejects;
/// `discordant + 1` when none does.
fn first_critical(discordant: u64, alpha: Alpha) -> u64 {
    first_in(discordant, |wins| rejects(wins, discordant, alpha)).unwrap_or(discordant + 1)
}

/// The smallest number in `1..=largest` for which a monotone condition holds:
/// doubling, then bisection.
fn first_in(largest: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut fails, mut reaches) = (0, 1.min(largest));
    while !holds(reaches) {
        if reaches == largest {
            return None;
        }
        fails = reaches;
        reaches = (reaches * 2).min(largest);
    }
    while reaches - fails > 1 {
        let middle = fails + (reaches - fails) / 2;
        if holds(middle) {
            reaches = middle;
        } else {
            fails = middle;
        }
    }
    Some(reaches)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::super::rng::Rng;
    use super::*;

    fn alpha(level: f64) -> Alpha {
        Alpha::new(level).unwrap()
    }

    fn first_attempt() -> Alpha {
        alpha(0.05).at_attempt(NonZeroU64::MIN)
    }

    #[test]
    fn small_power_matches_the_sum_over_all_tables() {
        // Every (wins, losses, rest) of n rows with its multinomial
        // probability, straight from the definition.
        for (n, wins_rate, losses_rate) in [
            (5_u64, 0.4, 0.1),
            (12, 0.3, 0.05),
            (12, 0.2, 0.2),
            (12, 1.0, 0.0),
            (30, 0.25, 0.1),
        ] {
            let factorial = |k: u64| (1..=k).map(|i| i as f64).product::<f64>();
            let mut expected = 0.0;
            for wins in 0..=n {
                for losses in 0..=n - wins {
                    if mcnemar::p_value(wins, losses) <= 0.05 {
                        let rest = n - wins - losses;
                        let ways =
                            factorial(n) / factorial(wins) / factorial(losses) / factorial(rest);
                        let rest_rate: f64 = 1.0 - wins_rate - losses_rate;
                        expected += ways
                            * f64::powi(wins_rate, wins as i32)
                            * f64::powi(losses_rate, losses as i32)
                            * rest_rate.powi(rest as i32);
                    }
                }
            }
            let got = power(
                n,
                DiscordantRates {
                    wins: wins_rate,
                    losses: losses_rate,
                },
                alpha(0.05),
            )
            .unwrap();
            assert!(
                (got - expected).abs() < 1e-12,
                "n {n}: {got} expected {expected}"
            );
        }
    }

    #[test]
    fn power_matches_a_simulation() {
        let rates = DiscordantRates {
            wins: 0.20,
            losses: 0.10,
        };
        let exact = power(240, rates, first_attempt()).unwrap();
        let mut rng = Rng::new(11);
        let repetitions = 4_000;
        let mut rejected = 0;
        for _ in 0..repetitions {
            let (mut wins, mut losses) = (0, 0);
            for _ in 0..240 {
                let drawn = rng.unit();
                wins += u64::from(drawn < 0.20);
                losses += u64::from((0.20..0.30).contains(&drawn));
            }
            rejected += u32::from(first_attempt().rejects(mcnemar::p_value(wins, losses)));
        }
        let simulated = f64::from(rejected) / f64::from(repetitions);
        let sigma = (exact * (1.0 - exact) / f64::from(repetitions)).sqrt();
        assert!(
            (simulated - exact).abs() < 4.0 * sigma,
            "simulated {simulated}, exact {exact}"
        );
    }

    #[test]
    fn a_null_candidate_is_promoted_at_most_at_alpha() {
        for rows in [10, 100, 1_000] {
            for rate in [0.01, 0.1, 0.5] {
                let size = power(
                    rows,
                    DiscordantRates {
                        wins: rate,
                        losses: rate,
                    },
                    alpha(0.05),
                )
                .unwrap();
                assert!(size <= 0.05, "{rows} rows, rate {rate}: {size}");
            }
        }
    }

    #[test]
    fn ten_points_need_about_240_rows() {
        let needed = |gain| {
            rows_needed(gain, PowerAssumption::default(), first_attempt())
                .unwrap()
                .unwrap()
        };
        assert_eq!([needed(0.05), needed(0.10), needed(0.15)], [920, 233, 106]);
        assert!(
            (needed(0.10) as f64 / 240.0 - 1.0).abs() < 0.05,
            "the design says about 240"
        );
    }

    #[test]
    fn the_rows_needed_have_the_power_and_one_row_less_has_not() {
        let assumption = PowerAssumption::default();
        for t in [1, 3, 30] {
            let level = alpha(0.05).at_attempt(NonZeroU64::new(t).unwrap());
            let mut previous = u64::MAX;
            for gain in [0.03, 0.05, 0.10, 0.15, 0.30, 0.5, 0.9] {
                let rows = rows_needed(gain, assumption, level).unwrap().unwrap();
                let reached =
                    |rows| power(rows, assumption.rates(gain), level).unwrap() >= assumption.power;
                assert!(
                    reached(rows) && !reached(rows - 1),
                    "attempt {t}, gain {gain}: {rows} rows"
                );
                assert!(rows < previous, "a larger gain needs fewer rows");
                previous = rows;
            }
        }
        assert_eq!(rows_needed(0.001, assumption, first_attempt()), Ok(None));
    }

    #[test]
    fn the_smallest_provable_gain_is_the_inverse_of_the_rows_needed() {
        let assumption = PowerAssumption::default();
        for rows in [10, 30, 106, 233, 240, 920, 3_000] {
            let gain = smallest_provable_gain(rows, assumption, first_attempt())
                .unwrap()
                .unwrap();
            let reached = |gain| {
                power(rows, assumption.rates(gain), first_attempt()).unwrap() >= assumption.power
            };
            assert!(
                reached(gain) && !reached(gain - 0.001),
                "{rows} rows: {gain}"
            );
        }
        assert_eq!(
            smallest_provable_gain(240, assumption, first_attempt()),
            Ok(Some(0.099))
        );
        // 2⁻⁵ is above α₁, so five rows can't prove anything, whatever the
        // candidate does.
        assert_eq!(
            smallest_provable_gain(5, assumption, first_attempt()),
            Ok(None)
        );
        assert_eq!(
            smallest_provable_gain(0, assumption, first_attempt()),
            Ok(None)
        );
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let level = first_attempt();
        let refused = |result: Result<f64, OutOfRange>| result.unwrap_err().what;
        assert_eq!(
            refused(power(
                10,
                DiscordantRates {
                    wins: -0.1,
                    losses: 0.1
                },
                level
            )),
            "win rate"
        );
        assert_eq!(
            refused(power(
                10,
                DiscordantRates {
                    wins: 0.1,
                    losses: f64::NAN
                },
                level
            )),
            "loss rate"
        );
        assert_eq!(
            refused(power(
                10,
                DiscordantRates {
                    wins: 0.6,
                    losses: 0.6
                },
                level
            )),
            "win rate + loss rate"
        );
        let odd = |discordance, power| {
            rows_needed(0.1, PowerAssumption { discordance, power }, level)
                .unwrap_err()
                .what
        };
        assert_eq!(
            (odd(0.0, 0.8), odd(1.1, 0.8), odd(0.3, 1.0)),
            ("discordance", "discordance", "power")
        );
        assert_eq!(
            rows_needed(0.0, PowerAssumption::default(), level)
                .unwrap_err()
                .what,
            "gain"
        );
        assert_eq!(
            power(
                10,
                DiscordantRates {
                    wins: 0.0,
                    losses: 0.0
                },
                level
            ),
            Ok(0.0)
        );
    }
}
