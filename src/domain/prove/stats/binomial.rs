//! The binomial distribution as a window of weights around its mode.

/// The probabilities of `Binomial(trials, probability)`, except values that are
/// less than 2⁻⁸⁰ times as likely as the mode: what is left out weighs under
/// 10⁻¹⁹ together, less than the rounding of what is kept.
///
/// Built by ratios from the mode, where the largest weight is set to 1, and
/// divided by the sum at the end: no factorials, no logarithms, nothing that
/// could overflow (the recurrence of C. Loader, "Fast and accurate computation
/// of binomial probabilities", 2000, section 1, started at the mode instead of
/// at 0 so that nothing underflows either).
pub(super) struct Binomial {
    first: u64,
    probabilities: Vec<f64>,
}

impl Binomial {
    /// `probability` must lie in `[0, 1]`.
    pub(super) fn new(trials: u64, probability: f64) -> Self {
        const NEGLIGIBLE: f64 = 1.0 / (1_u128 << 80) as f64;
        debug_assert!((0.0..=1.0).contains(&probability));
        let n = trials as f64;
        let mode = (((n + 1.0) * probability) as u64).min(trials);
        let odds = probability / (1.0 - probability);
        let mut below = Vec::new();
        let mut weight = 1.0;
        for k in (1..=mode).rev() {
            let k = k as f64;
            weight *= k / ((n - k + 1.0) * odds);
            if weight < NEGLIGIBLE {
                break;
            }
            below.push(weight);
        }
        let first = mode - below.len() as u64;
        let mut probabilities: Vec<f64> = below.into_iter().rev().chain([1.0]).collect();
        weight = 1.0;
        for k in mode..trials {
            let k = k as f64;
            weight *= (n - k) / (k + 1.0) * odds;
            if weight < NEGLIGIBLE {
                break;
            }
            probabilities.push(weight);
        }
        let total: f64 = probabilities.iter().sum();
        for probability in &mut probabilities {
            *probability /= total;
        }
        Self {
            first,
            probabilities,
        }
    }

    /// Every value in the window with its probability, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, f64)> {
        (self.first..).zip(self.probabilities.iter().copied())
    }

    /// The probability of `least` or more.
    pub(super) fn at_least(&self, least: u64) -> f64 {
        let skipped = least
            .saturating_sub(self.first)
            .min(self.probabilities.len() as u64) as usize;
        self.probabilities[skipped..]
            .iter()
            .rev()
            .sum::<f64>()
            .min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_match_the_definition() {
        for trials in 0..=20_u64 {
            for probability in [0.0, 0.01, 0.3, 0.5, 0.85, 1.0] {
                let mut expected: Vec<f64> = vec![1.0];
                for _ in 0..trials {
                    // One more trial: each count stays or rises by one.
                    let mut next = vec![0.0; expected.len() + 1];
                    for (k, weight) in expected.iter().enumerate() {
                        next[k] += weight * (1.0 - probability);
                        next[k + 1] += weight * probability;
                    }
                    expected = next;
                }
                let window = Binomial::new(trials, probability);
                let mut got = vec![0.0; trials as usize + 1];
                for (k, weight) in window.iter() {
                    got[k as usize] = weight;
                }
                for k in 0..=trials as usize {
                    assert!(
                        (got[k] - expected[k]).abs() < 1e-14,
                        "n {trials}, p {probability}, k {k}: {} {}",
                        got[k],
                        expected[k]
                    );
                    let tail: f64 = expected[k..].iter().sum();
                    assert!(
                        (window.at_least(k as u64) - tail).abs() < 1e-13,
                        "tail of n {trials}, p {probability}, k {k}"
                    );
                }
            }
        }
    }

    #[test]
    fn large_cases_keep_mean_and_variance() {
        for (trials, probability) in [
            (100_000, 0.3),
            (100_000, 1e-5),
            (99_999, 0.999),
            (1_000, 0.5),
        ] {
            let window = Binomial::new(trials, probability);
            let expected = trials as f64 * probability;
            let mean: f64 = window.iter().map(|(k, weight)| k as f64 * weight).sum();
            let variance: f64 = window
                .iter()
                .map(|(k, weight)| (k as f64 - expected).powi(2) * weight)
                .sum();
            assert!(
                (mean - expected).abs() < 1e-9 * expected.max(1.0),
                "mean {mean} of {trials}, {probability}"
            );
            let expected_variance = expected * (1.0 - probability);
            assert!(
                (variance - expected_variance).abs() < 1e-8 * expected_variance.max(1.0),
                "variance of {trials}, {probability}"
            );
        }
    }
}
