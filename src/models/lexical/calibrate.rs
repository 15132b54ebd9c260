//! From margins to a confidence that means what it says.
//!
//! Probabilities are softmax(β · margins). β is fitted to margins of rows that the weights which gave them had not seen (cross-validation over the
//! training rows): the β of least log loss, which is temperature scaling (Guo, Pleiss, Sun, Weinberger: *On Calibration of Modern Neural
//! Networks*, ICML 2017, section 4.2, with β = 1/T). As in Platt (1999), a row's target is slightly less than certain: a share 1/(n + 2) goes evenly to all labels. So no
//! data set, however easy, yields certainty that its size doesn't warrant.

use super::arithmetic::exp_of_nonpositive;
use super::random::Random;

/// The sharpest β on offer.
const BETA_MAX: f64 = 64.0;

/// Folds for so many rows: few rows can't spare any, many make cross-validation dear and the estimate good anyway.
pub(super) fn fold_count(rows: usize) -> usize {
    if rows < 2_000 { 5.min(rows) } else { 3 }
}

/// The fold of each row. `rows` are (text, label) in ascending order of label, then text.
///
/// Each label's distinct texts are dealt out evenly in random order; equal texts of a label stay together, or a row would be judged by its twin.
pub(super) fn folds(rows: &[(&str, u16)], seed: u64) -> Vec<u8> {
    let count = fold_count(rows.len());
    let mut groups: Vec<&[(&str, u16)]> = rows.chunk_by(|a, b| a == b).collect();
    let mut random = Random::new(seed, 2);
    let mut fold_of = vec![0; rows.len()];
    let mut start_of = Vec::with_capacity(groups.len());
    let mut start = 0;
    for group in &groups {
        start_of.push((start, group.len()));
        start += group.len();
    }
    let mut dealt = 0;
    let mut begin = 0;
    for label in groups.chunk_by_mut(|a, b| a[0].1 == b[0].1) {
        let places = &mut start_of[begin..begin + label.len()];
        begin += label.len();
        random.shuffle(places);
        for &(start, length) in places.iter() {
            fold_of[start..start + length].fill((dealt % count) as u8);
            dealt += 1;
        }
    }
    fold_of
}

/// β of least log loss. `margins` holds `label_count` numbers per row, `labels` the right label of each row.
///
/// The loss is convex in β (it is a logistic regression on one number), so its slope is bisected.
pub(super) fn fit(margins: &[f64], labels: &[u16], label_count: usize) -> f64 {
    let smoothing = 1.0 / (labels.len() as f64 + 2.0);
    let mut probabilities = vec![0.0; label_count];
    let mut slope = |beta: f64| {
        let mut sum = 0.0;
        for (row, &label) in margins.chunks_exact(label_count).zip(labels) {
            probabilities.copy_from_slice(row);
            softmax(&mut probabilities, beta);
            let even: f64 = row.iter().sum::<f64>() / label_count as f64;
            let target = (1.0 - smoothing) * row[usize::from(label)] + smoothing * even;
            sum += row
                .iter()
                .zip(&probabilities)
                .map(|(m, p)| m * p)
                .sum::<f64>()
                - target;
        }
        sum
    };
    let (mut low, mut high) = (0.0, BETA_MAX);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if slope(middle) > 0.0 {
            high = middle
        } else {
            low = middle
        }
    }
    low
}

/// Margins become probabilities in place.
pub(super) fn softmax(margins: &mut [f64], beta: f64) {
    let highest = margins.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for margin in margins.iter_mut() {
        *margin = exp_of_nonpositive(beta * (*margin - highest));
        sum += *margin;
    }
    margins.iter_mut().for_each(|p| *p /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_is_high_for_margins_that_tell_and_low_for_those_that_do_not() {
        let labels: Vec<u16> = (0..400).map(|row| row % 2).collect();
        let telling: Vec<f64> = labels
            .iter()
            .flat_map(|&l| if l == 0 { [1.0, -1.0] } else { [-1.0, 1.0] })
            .collect();
        let silent: Vec<f64> = (0..400)
            .flat_map(|row| {
                if row % 4 < 2 {
                    [1.0, -1.0]
                } else {
                    [-1.0, 1.0]
                }
            })
            .collect();
        assert!(fit(&telling, &labels, 2) > 2.0);
        assert!(
            fit(&telling, &labels, 2) < 10.0,
            "400 rows don't warrant certainty"
        );
        assert!(fit(&silent, &labels, 2) < 0.01);
    }

    #[test]
    fn folds_are_even_within_labels_and_keep_twins_together() {
        let texts: Vec<String> = (0..50).map(|i| format!("text {:02}", i / 2)).collect();
        let mut rows: Vec<(&str, u16)> = texts.iter().map(|t| (t.as_str(), 0)).collect();
        rows.extend(texts.iter().map(|t| (t.as_str(), 1)));
        let folds = folds(&rows, 5);
        for fold in 0..5 {
            for label in 0..2 {
                let rows_here = rows
                    .iter()
                    .zip(&folds)
                    .filter(|((_, l), f)| *l == label && **f == fold)
                    .count();
                assert_eq!(rows_here, 10);
            }
        }
        assert!(
            rows.iter()
                .zip(&folds)
                .collect::<Vec<_>>()
                .chunks(2)
                .all(|twins| twins[0].1 == twins[1].1)
        );
    }
}
