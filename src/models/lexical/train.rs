//! Linear support vector machines, one against the rest, by dual coordinate descent.
//!
//! Hsieh, Chang, Lin, Keerthi, Sundararajan: *A Dual Coordinate Descent Method for Large-scale Linear SVM*, ICML 2008, algorithm 1 for the
//! L2-loss: minimise ½‖w‖² + Σ cᵢ max(0, 1 − yᵢ w·xᵢ)² through its dual, one αᵢ at a time, with a fresh permutation for every pass. The bias is the weight of
//! a feature that is 1 in every row.
//!
//! Eight labels are trained side by side over one reading of the rows, because fetching a feature's weights from memory is what costs. They
//! don't influence each other: each has its own α, weights and end. So neither the number of threads nor the other labels change a label's weights.

use super::knobs::Knobs;
use super::random::Random;

/// Labels per block: one 256-bit vector of f32.
pub(super) const LANES: usize = 8;

/// The weights of up to eight labels for each feature; the last entry is the bias.
pub(super) type Block = Vec<[f32; LANES]>;

/// Rows as sparse vectors, one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    terms: Vec<(u32, f32)>,
    ends: Vec<usize>,
}

impl Rows {
    pub(super) fn push(&mut self, vector: &[(u32, f32)]) {
        self.terms.extend_from_slice(vector);
        self.ends.push(self.terms.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, row: usize) -> &[(u32, f32)] {
        let begin = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.terms[begin..self.ends[row]]
    }
}

/// A training task: every slice has one entry per row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'t> {
    pub rows: &'t Rows,
    /// Number of features.
    pub features: usize,
    /// The label of each row, as an index.
    pub labels: &'t [u16],
    /// Number of labels.
    pub label_count: usize,
    /// The cost of each row's margin violation.
    pub costs: &'t [f32],
}

/// The bias and the eight weighted sums of a vector.
#[inline]
pub(super) fn margins(block: &[[f32; LANES]], vector: &[(u32, f32)]) -> [f32; LANES] {
    let mut sums = block[block.len() - 1];
    for &(index, value) in vector {
        let weights = &block[index as usize];
        for lane in 0..LANES {
            sums[lane] += value * weights[lane];
        }
    }
    sums
}

/// Trains labels `8 · block` to `8 · block + 7`.
pub(super) fn train(task: &Task<'_>, block: usize, knobs: &Knobs, seed: u64) -> Block {
    let first = block * LANES;
    let mut weights: Block = vec![[0.0; LANES]; task.features + 1];
    let mut alphas = vec![[0.0f32; LANES]; task.rows.len()];
    let mut running: [bool; LANES] = std::array::from_fn(|lane| first + lane < task.label_count);
    // D_ii = 1/(2 c_i); the bias feature adds 1 to every x·x.
    let diagonal: Vec<f32> = task.costs.iter().map(|cost| 0.5 / cost).collect();
    let curvature: Vec<f32> = (0..task.rows.len())
        .map(|row| {
            1.0 + task.rows.get(row).iter().map(|&(_, v)| v * v).sum::<f32>() + diagonal[row]
        })
        .collect();
    let mut order: Vec<u32> = (0..task.rows.len() as u32).collect();
    let mut random = Random::new(seed, 1);
    let tolerance = knobs.tolerance as f32;

    for _ in 0..knobs.epochs_max {
        random.shuffle(&mut order);
        let mut lowest = [f32::INFINITY; LANES];
        let mut highest = [f32::NEG_INFINITY; LANES];
        for &row in &order {
            let row = row as usize;
            let vector = task.rows.get(row);
            let sums = margins(&weights, vector);
            let label = usize::from(task.labels[row]);
            let mut change = [0.0f32; LANES];
            let mut any = false;
            for lane in 0..LANES {
                if !running[lane] {
                    continue;
                }
                let sign = if label == first + lane { 1.0 } else { -1.0 };
                let alpha = &mut alphas[row][lane];
                let gradient = sign * sums[lane] - 1.0 + diagonal[row] * *alpha;
                let projected = if *alpha == 0.0 {
                    gradient.min(0.0)
                } else {
                    gradient
                };
                lowest[lane] = lowest[lane].min(projected);
                highest[lane] = highest[lane].max(projected);
                if projected != 0.0 {
                    let before = *alpha;
                    *alpha = (before - gradient / curvature[row]).max(0.0);
                    change[lane] = (*alpha - before) * sign;
                    any = true;
                }
            }
            if any {
                add(&mut weights, vector, &change);
            }
        }
        for lane in 0..LANES {
            running[lane] &= highest[lane] - lowest[lane] > tolerance;
        }
        if running == [false; LANES] {
            break;
        }
    }
    weights
}

/// weights += change · vector, the bias feature included.
#[inline]
fn add(block: &mut [[f32; LANES]], vector: &[(u32, f32)], change: &[f32; LANES]) {
    let last = block.len() - 1;
    for lane in 0..LANES {
        block[last][lane] += change[lane];
    }
    for &(index, value) in vector {
        let weights = &mut block[index as usize];
        for lane in 0..LANES {
            weights[lane] += change[lane] * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At the optimum of the primal, its slope is nil: w_j = 2 Σ cᵢ yᵢ xᵢⱼ max(0, 1 − yᵢ w·xᵢ) for every feature and the bias.
    #[test]
    fn weights_are_where_the_primal_has_no_slope() {
        const FEATURES: usize = 6;
        let (mut rows, mut labels, mut costs) = (Rows::default(), Vec::new(), Vec::new());
        for row in 0..40u32 {
            let vector: Vec<(u32, f32)> = (0..FEATURES as u32)
                .filter(|f| (row * 7 + f * 5) % 3 != 0)
                .map(|f| (f, ((row * 13 + f * 29) % 17) as f32 / 17.0 + 0.05))
                .collect();
            rows.push(&vector);
            labels.push((row * 5 % 11 % 3) as u16);
            costs.push(0.5 + (row % 4) as f32);
        }
        let task = Task {
            rows: &rows,
            features: FEATURES,
            labels: &labels,
            label_count: 3,
            costs: &costs,
        };
        let knobs = Knobs {
            tolerance: 1e-6,
            epochs_max: 10_000,
            ..Knobs::default()
        };
        let weights = train(&task, 0, &knobs, 5);
        for lane in 0..3 {
            let mut slope = [0.0f64; FEATURES + 1];
            for (row, cost) in costs.iter().enumerate() {
                let sign = if usize::from(labels[row]) == lane {
                    1.0
                } else {
                    -1.0
                };
                let violation =
                    (1.0 - sign * f64::from(margins(&weights, rows.get(row))[lane])).max(0.0);
                let pull = 2.0 * f64::from(*cost) * sign * violation;
                rows.get(row).iter().for_each(|&(feature, value)| {
                    slope[feature as usize] += pull * f64::from(value)
                });
                slope[FEATURES] += pull;
            }
            for (feature, slope) in slope.iter().enumerate() {
                let weight = f64::from(weights[feature][lane]);
                assert!(
                    (weight - slope).abs() < 1e-3,
                    "label {lane}, feature {feature}: {weight} is not {slope}"
                );
            }
        }
        assert!(
            weights.iter().all(|lanes| lanes[3..] == [0.0; LANES - 3]),
            "lanes without a label stay empty"
        );
    }
}
