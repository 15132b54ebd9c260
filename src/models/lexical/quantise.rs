//! Weights as one signed byte each.
//!
//! A label's weights range over two orders of magnitude, with most of them small. So the byte holds the square root: w = s · (q/127) · |q/127|, where s is the
//! label's largest |w|. Small weights keep their proportions, and 0 stays 0. Predictions are made from these bytes, never from the weights
//! before rounding, so a model read back answers as the one that was written.

use super::train::{Block, LANES};

/// The weights of all labels after rounding.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantised {
    /// Per label: the largest |w|, finite and not negative.
    pub scales: Vec<f32>,
    /// Per label: the bias, exact.
    pub biases: Vec<f32>,
    /// `codes[feature · labels + label]`, −127 to 127.
    pub codes: Vec<i8>,
}

impl Quantised {
    pub(super) fn new(blocks: &[Block], label_count: usize) -> Self {
        let features = blocks[0].len() - 1;
        let weight = |feature: usize, label: usize| blocks[label / LANES][feature][label % LANES];
        let scales: Vec<f32> = (0..label_count)
            .map(|label| {
                (0..features)
                    .map(|feature| weight(feature, label).abs())
                    .fold(0.0, f32::max)
            })
            .collect();
        let biases = (0..label_count)
            .map(|label| weight(features, label))
            .collect();
        let mut codes = Vec::with_capacity(features * label_count);
        for feature in 0..features {
            codes.extend((0..label_count).map(|label| code(weight(feature, label), scales[label])));
        }
        Self {
            scales,
            biases,
            codes,
        }
    }

    /// The weights that predictions use.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let label_count = self.scales.len();
        let features = self.codes.len() / label_count;
        let mut blocks = vec![vec![[0.0; LANES]; features + 1]; label_count.div_ceil(LANES)];
        for label in 0..label_count {
            let (block, lane) = (&mut blocks[label / LANES], label % LANES);
            let table: [f32; 255] = std::array::from_fn(|place| {
                let ratio = (place as f32 - 127.0) / 127.0;
                self.scales[label] * (ratio * ratio.abs())
            });
            for (feature, weights) in block[..features].iter_mut().enumerate() {
                weights[lane] =
                    table[(i16::from(self.codes[feature * label_count + label]) + 127) as usize];
            }
            block[features][lane] = self.biases[label];
        }
        blocks
    }
}

fn code(weight: f32, scale: f32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    let magnitude = ((weight.abs() / scale).sqrt() * 127.0 + 0.5) as i8;
    if weight < 0.0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_close_keeps_zero_and_is_stable() {
        let mut block: Block = (0..1000)
            .map(|i| [(i as f32 - 500.0) / 250.0; LANES])
            .collect();
        block.push([0.25; LANES]);
        let once = Quantised::new(&[block.clone(), block.clone()], 9);
        let read = once.blocks();
        for (before, after) in block.iter().zip(&read[1]) {
            let (before, after) = (before[0], after[0]);
            assert!(
                (before - after).abs() <= 0.009 * (before.abs() * 2.0).sqrt() + 1e-4,
                "{before} became {after}"
            );
        }
        assert_eq!(read[0][500], [0.0; LANES]);
        assert_eq!(
            Quantised::new(&read, 9),
            once,
            "rounding what is rounded changes nothing"
        );
    }
}
