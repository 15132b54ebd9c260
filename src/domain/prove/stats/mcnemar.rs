//! The exact one-sided McNemar test: did the candidate win more rows than luck
//! would give it?
//!
//! Both arms answer the same rows. Rows where they are both right or both wrong
//! say nothing about which is better; the others are *wins* (the candidate
//! alone is right) and *losses* (the control alone is right). If neither is
//! better, each such row is a fair coin, so with `n = wins + losses` the
//! p-value is `Σ_{k ≥ wins} C(n, k) / 2ⁿ`.
//!
//! Source: Q. McNemar, "Note on the sampling error of the difference between
//! correlated proportions or percentages", Psychometrika 12(2), 1947; the exact
//! conditional form as in A. Agresti, "Categorical Data Analysis", 3rd edition,
//! section 11.1.

/// What two arms did on the same rows, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairedTable {
    /// Rows that both arms got right.
    pub both_right: u64,
    /// Rows that only the candidate got right.
    pub wins: u64,
    /// Rows that only the control got right.
    pub losses: u64,
    /// Rows that both arms got wrong.
    pub both_wrong: u64,
}

impl PairedTable {
    /// Counts rows of `(control is right, candidate is right)`.
    pub fn count(rows: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut table = Self::default();
        for row in rows {
            match row {
                (true, true) => table.both_right += 1,
                (false, true) => table.wins += 1,
                (true, false) => table.losses += 1,
                (false, false) => table.both_wrong += 1,
            }
        }
        table
    }

    /// How many rows were compared.
    pub fn rows(self) -> u64 {
        self.both_right + self.wins + self.losses + self.both_wrong
    }

    /// The p-value of "the candidate is no better than the control": see
    /// [`p_value`].
    pub fn p_value(self) -> f64 {
        p_value(self.wins, self.losses)
    }
}

/// The probability of at least `wins` heads in `wins + losses` tosses of a fair
/// coin; 1 when there is nothing to compare.
///
/// Up to 120 discordant rows it is the correctly rounded value: a whole number
/// over a power of two. Beyond, its relative error is under 10⁻¹¹ for any n up
/// to 100,000 (tested against whole-number arithmetic); a value under the
/// smallest normal f64, about 10⁻³⁰⁸, comes out as 0. Either way it is the same
/// to the bit on every machine: only `+ - * /` and `sqrt` are used.
pub fn p_value(wins: u64, losses: u64) -> f64 {
    const WHOLE_NUMBERS_MAX: u64 = 120;
    let n = wins + losses;
    if wins == 0 {
        1.0
    } else if n <= WHOLE_NUMBERS_MAX {
        whole_number_p_value(wins, n)
    } else if wins <= losses {
        // The upper tail from here holds more than half; its complement, the
        // tail on the other side, is the one to sum.
        1.0 - upper_tail(losses + 1, n)
    } else {
        upper_tail(wins, n)
    }
}

/// The tail as a whole number of the 2ⁿ equally likely sequences. `n` must be
/// at most 120, so that everything fits `u128`.
fn whole_number_p_value(wins: u64, n: u64) -> f64 {
    let (mut choose, mut sequences) = (1_u128, 0_u128);
    for k in (wins..=n).rev() {
        sequences += choose;
        choose = choose * u128::from(k) / u128::from(n - k + 1);
    }
    // The sum is rounded once, here; dividing by a power of two is exact.
    sequences as f64 / (1_u128 << n) as f64
}

/// `Σ_{k ≥ from} C(n, k) / 2ⁿ` for `from` above the middle: the weight of
/// `from` relative to the middle, by ratios, times the sum of the tail relative
/// to `from`, over the sum of everything relative to the middle. So 2ⁿ and the
/// factorials, which overflow, never appear.
fn upper_tail(from: u64, n: u64) -> f64 {
    let middle = n.div_ceil(2);
    debug_assert!(from > n / 2 && from <= n);
    let mut weight = 1.0;
    for k in middle..from {
        weight *= (n - k) as f64 / (k + 1) as f64;
        if weight == 0.0 {
            return 0.0;
        }
    }
    let upper_half = relative_tail(middle, n);
    // For even n the middle belongs to both halves and must be counted once.
    let everything = if n.is_multiple_of(2) {
        2.0 * upper_half - 1.0
    } else {
        2.0 * upper_half
    };
    weight * relative_tail(from, n) / everything
}

/// `Σ_{k ≥ from} C(n, k) / C(n, from)` for `from` at or above the middle, by
/// Horner's scheme from the far end inwards, so that small terms are added
/// first. Terms more than 6√n beyond `from` are left out: they are twelve
/// standard deviations away, under e⁻⁷² of the first.
fn relative_tail(from: u64, n: u64) -> f64 {
    let reach = 6 * (n as f64).sqrt() as u64 + 6;
    let last = n.min(from + reach);
    (from..last).rev().fold(1.0, |tail, k| {
        1.0 + tail * ((n - k) as f64 / (k + 1) as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole number of any size, least significant part first: the second
    /// opinion for what doesn't fit `u128`.
    #[derive(Clone)]
    struct Big(Vec<u32>);

    impl Big {
        fn multiply(&mut self, factor: u32) {
            let mut carry = 0_u64;
            for part in &mut self.0 {
                let product = u64::from(*part) * u64::from(factor) + carry;
                *part = product as u32;
                carry = product >> 32;
            }
            if carry > 0 {
                self.0.push(carry as u32);
            }
        }

        fn divide_exactly(&mut self, divisor: u32) {
            let mut remainder = 0_u64;
            for part in self.0.iter_mut().rev() {
                let dividend = remainder << 32 | u64::from(*part);
                *part = (dividend / u64::from(divisor)) as u32;
                remainder = dividend % u64::from(divisor);
            }
            assert_eq!(remainder, 0);
            while self.0.last() == Some(&0) {
                self.0.pop();
            }
        }

        fn add(&mut self, other: &Big) {
            self.0.resize(self.0.len().max(other.0.len()), 0);
            let mut carry = 0_u64;
            for (index, part) in self.0.iter_mut().enumerate() {
                let sum = u64::from(*part)
                    + other.0.get(index).map_or(0, |other| u64::from(*other))
                    + carry;
                *part = sum as u32;
                carry = sum >> 32;
            }
            if carry > 0 {
                self.0.push(carry as u32);
            }
        }

        /// This number over 2^bits; the parts that matter only.
        fn over_power_of_two(&self, bits: u64) -> f64 {
            let exponent = |index: usize| index as i32 * 32 - bits as i32;
            self.0
                .iter()
                .enumerate()
                .rev()
                .take(4)
                .map(|(index, part)| f64::from(*part) * 2_f64.powi(exponent(index)))
                .sum()
        }
    }

    /// All tails `Σ_{k ≥ w} C(n, k) / 2ⁿ` of one n, straight from the
    /// definition.
    fn tails_by_definition(n: u32) -> Vec<f64> {
        let (mut choose, mut sum) = (Big(vec![1]), Big(vec![0]));
        let mut tails = vec![0.0; n as usize + 1];
        for k in (0..=n).rev() {
            sum.add(&choose);
            tails[k as usize] = sum.over_power_of_two(u64::from(n));
            if k > 0 {
                choose.multiply(k);
                choose.divide_exactly(n - k + 1);
            }
        }
        tails
    }

    #[test]
    fn known_values_come_out_to_the_bit() {
        let table = [
            (0, 0, 1.0),
            (0, 7, 1.0),
            (1, 0, 0.5),
            (1, 1, 0.75),
            (5, 0, 0.031_25),
            (8, 2, 0.054_687_5),
            (10, 2, 79.0 / 4096.0),
            (60, 60, 0.536_342_489_455_058_4),
        ];
        for (wins, losses, expected) in table {
            assert_eq!(
                p_value(wins, losses),
                expected,
                "{wins} wins, {losses} losses"
            );
        }
    }

    #[test]
    fn every_small_case_matches_the_definition() {
        for n in 0..=400_u32 {
            for (wins, expected) in tails_by_definition(n).into_iter().enumerate() {
                let got = p_value(wins as u64, u64::from(n) - wins as u64);
                let tolerance = if n <= 120 { 4e-16 } else { 1e-13 };
                assert!(
                    (got - expected).abs() <= tolerance * expected,
                    "{wins} of {n}: {got:e}, expected {expected:e}"
                );
            }
        }
    }

    #[test]
    fn large_cases_match_whole_number_arithmetic() {
        // Computed with Python's whole numbers and `fractions.Fraction`,
        // rounded once at the end.
        let table = [
            (100, 50, 2.723_766_551_696_293e-5),
            (130, 100, 0.027_806_788_890_696_193),
            (600, 500, 0.001_409_772_495_718_213_8),
            (520, 480, 0.108_724_146_602_070_47),
            (900, 100, 6.701_717_790_006_296e-162),
            (1_100, 900, 4.228_544_767_751_963e-6),
            (5_200, 4_800, 3.296_757_799_336_221e-5),
            (49_000, 51_000, 0.999_999_999_875_758_8),
            (50_000, 50_000, 0.501_261_563_107_098_4),
            (50_001, 49_999, 0.498_738_436_892_901_65),
            (50_700, 49_300, 4.842_371_758_012_842e-6),
            (51_000, 49_000, 1.294_358_019_173_449e-10),
            (52_500, 47_500, 1.295_941_676_315_196_5e-56),
            (55_000, 45_000, 4.300_170_822_857_348e-220),
            (100_000, 0, 0.0),
        ];
        for (wins, losses, expected) in table {
            let got = p_value(wins, losses);
            assert!(
                (got - expected).abs() <= 1e-11 * expected,
                "{wins} wins, {losses} losses: {got:e}, expected {expected:e}"
            );
        }
    }

    #[test]
    fn more_wins_never_raise_it_and_more_losses_never_lower_it() {
        for n in [1_u64, 2, 9, 119, 120, 121, 122, 500, 3_001] {
            for wins in 0..n {
                let here = p_value(wins, n - wins);
                assert!((0.0..=1.0).contains(&here));
                assert!(
                    p_value(wins + 1, n - wins - 1) <= here,
                    "one row turned at {wins} of {n}"
                );
                assert!(
                    p_value(wins + 1, n - wins) <= here,
                    "one more win at {wins} of {n}"
                );
                assert!(
                    p_value(wins, n - wins + 1) >= here,
                    "one more loss at {wins} of {n}"
                );
            }
        }
    }

    #[test]
    fn the_two_sides_share_one_whole() {
        // P(X ≥ w) + P(X ≤ w − 1) = 1, and by symmetry P(X ≤ w − 1) = P(X ≥ n −
        // w + 1), the test with sides exchanged.
        for n in [1_u64, 10, 120, 121, 250, 1_001, 40_000] {
            for wins in (1..=n).step_by(1 + n as usize / 200) {
                let losses = n - wins;
                let whole = p_value(wins, losses) + p_value(losses + 1, wins - 1);
                assert!((whole - 1.0).abs() < 1e-12, "{wins} of {n}: {whole}");
            }
        }
    }

    #[test]
    fn a_table_counts_its_rows() {
        let table = PairedTable::count([
            (true, true),
            (false, true),
            (false, true),
            (true, false),
            (false, false),
        ]);
        assert_eq!(
            table,
            PairedTable {
                both_right: 1,
                wins: 2,
                losses: 1,
                both_wrong: 1
            }
        );
        assert_eq!((table.rows(), table.p_value()), (5, 0.5));
    }
}
