//! A confidence interval for the difference of two paired proportions, for
//! reviewers' pages.
//!
//! Source: R. Newcombe, "Improved confidence intervals for the difference
//! between binomial proportions based on paired data", Statistics in Medicine
//! 17, 1998, method 10: Wilson's score intervals of the two accuracies, squared
//! and added with a correction for their correlation. It stays within [−1, 1],
//! has a width even when no row is discordant, and needs nothing but square
//! roots.
//!
//! A gate never reads it: at the edge it may disagree with the exact test, and
//! then the exact test is right.

use super::mcnemar::PairedTable;

/// How often, over many comparisons, the interval should hold the true
/// difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// 90 %.
    Ninety,
    /// 95 %.
    NinetyFive,
    /// 99 %.
    NinetyNine,
}

impl Confidence {
    /// The two-sided standard normal quantile. A constant, since computing it
    /// would need logarithms.
    fn quantile(self) -> f64 {
        match self {
            Self::Ninety => 1.644_853_626_951_472_7,
            Self::NinetyFive => 1.959_963_984_540_054_2,
            Self::NinetyNine => 2.575_829_303_548_901,
        }
    }
}

/// A difference of accuracies, candidate − control, and its bounds; `0.1` is
/// ten points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DifferenceInterval {
    /// The observed difference.
    pub difference: f64,
    /// The lower bound, at least −1.
    pub low: f64,
    /// The upper bound, at most 1.
    pub high: f64,
}

/// Newcombe's method-10 interval; `None` for a table without rows.
pub fn paired_difference(table: PairedTable, confidence: Confidence) -> Option<DifferenceInterval> {
    let rows = table.rows();
    if rows == 0 {
        return None;
    }
    let candidate = Score::of(table.both_right + table.wins, rows, confidence);
    let control = Score::of(table.both_right + table.losses, rows, confidence);
    let correlation = correlation(table);
    let reach = |a: f64, b: f64| (a * a - 2.0 * correlation * a * b + b * b).max(0.0).sqrt();
    let difference = (table.wins as f64 - table.losses as f64) / rows as f64;
    Some(DifferenceInterval {
        difference,
        low: (difference
            - reach(
                candidate.share - candidate.low,
                control.high - control.share,
            ))
        .max(-1.0),
        high: (difference
            + reach(
                candidate.high - candidate.share,
                control.share - control.low,
            ))
        .min(1.0),
    })
}

/// A share with Wilson's score interval.
struct Score {
    share: f64,
    low: f64,
    high: f64,
}

impl Score {
    /// E. Wilson, "Probable inference, the law of succession, and statistical
    /// inference", JASA 22, 1927.
    fn of(right: u64, rows: u64, confidence: Confidence) -> Self {
        let (n, z) = (rows as f64, confidence.quantile());
        let share = right as f64 / n;
        let centre = 2.0 * n * share + z * z;
        let reach = z * (z * z + 4.0 * n * share * (1.0 - share)).sqrt();
        let scale = 2.0 * (n + z * z);
        // At the ends rounding could leave the share a hair outside its own
        // interval.
        Self {
            share,
            low: ((centre - reach) / scale).clamp(0.0, share),
            high: ((centre + reach) / scale).clamp(share, 1.0),
        }
    }
}

/// The correlation of the two arms' outcomes with Newcombe's continuity
/// correction: what exceeds half a row counts, and an empty margin counts as
/// none.
fn correlation(table: PairedTable) -> f64 {
    let [both_right, wins, losses, both_wrong] =
        [table.both_right, table.wins, table.losses, table.both_wrong].map(|count| count as f64);
    let margins =
        (both_right + wins) * (losses + both_wrong) * (both_right + losses) * (wins + both_wrong);
    let agreement = both_right * both_wrong - wins * losses;
    let half_a_row = (both_right + wins + losses + both_wrong) / 2.0;
    if margins == 0.0 {
        0.0
    } else if agreement > half_a_row {
        (agreement - half_a_row) / margins.sqrt()
    } else if agreement >= 0.0 {
        0.0
    } else {
        agreement / margins.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    fn table(both_right: u64, wins: u64, losses: u64, both_wrong: u64) -> PairedTable {
        PairedTable {
            both_right,
            wins,
            losses,
            both_wrong,
        }
    }

    #[test]
    fn published_examples_come_out() {
        // Airway hyper-responsiveness (Bentur et al. 2009) and complete
        // response (Cavo et al. 2012), both as worked in M. Fagerland, S.
        // Lydersen and P. Laake, "Statistical Analysis of Contingency Tables",
        // chapter 8, to the digits printed there.
        let published = [
            (table(1, 1, 7, 12), -0.286, -0.507, -0.026, 5e-4),
            (table(59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 5e-5),
        ];
        for (table, difference, low, high, tolerance) in published {
            let got = paired_difference(table, Confidence::NinetyFive).unwrap();
            for (got, expected) in [
                (got.difference, difference),
                (got.low, low),
                (got.high, high),
            ] {
                assert!(
                    (got - expected).abs() <= tolerance,
                    "{table:?}: {got} expected {expected}"
                );
            }
        }
    }

    #[test]
    fn exchanging_the_arms_mirrors_the_interval_and_more_confidence_widens_it() {
        let mut rng = Rng::new(2);
        for _ in 0..2_000 {
            let one = table(rng.below(40), rng.below(12), rng.below(12), rng.below(40));
            let other = PairedTable {
                wins: one.losses,
                losses: one.wins,
                ..one
            };
            let levels = [
                Confidence::Ninety,
                Confidence::NinetyFive,
                Confidence::NinetyNine,
            ];
            if one.rows() == 0 {
                assert_eq!(paired_difference(one, Confidence::Ninety), None);
                continue;
            }
            let [a, b, c] = levels.map(|confidence| paired_difference(one, confidence).unwrap());
            let mirrored = paired_difference(other, Confidence::Ninety).unwrap();
            assert!(
                (a.low + mirrored.high).abs() < 1e-12 && (a.high + mirrored.low).abs() < 1e-12,
                "{one:?}"
            );
            assert!(
                -1.0 <= c.low && c.low <= b.low && b.low <= a.low && a.low <= a.difference,
                "{one:?}"
            );
            assert!(
                a.difference <= a.high && a.high <= b.high && b.high <= c.high && c.high <= 1.0,
                "{one:?}"
            );
        }
    }

    #[test]
    fn it_covers_the_truth_about_as_often_as_it_says() {
        // 120 rows with 20 % wins and 10 % losses; 3 sigma of 4,000 repetitions
        // is .010, and the method itself is off by up to about .01.
        let mut rng = Rng::new(9);
        let mut held = 0;
        for _ in 0..4_000 {
            let mut counts = [0_u64; 4];
            for _ in 0..120 {
                let drawn = rng.unit();
                counts[usize::from(drawn >= 0.55)
                    + usize::from(drawn >= 0.75)
                    + usize::from(drawn >= 0.85)] += 1;
            }
            let [both_right, wins, losses, both_wrong] = counts;
            let interval = paired_difference(
                table(both_right, wins, losses, both_wrong),
                Confidence::NinetyFive,
            )
            .unwrap();
            held += u32::from(interval.low <= 0.1 && 0.1 <= interval.high);
        }
        let coverage = f64::from(held) / 4_000.0;
        assert!((0.93..=0.97).contains(&coverage), "coverage {coverage}");
    }
}
