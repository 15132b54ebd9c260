//! From counted n-grams to a weighted, length-normalised sparse vector (TF-IDF).
//!
//! Inverse document frequency is the smoothed form of scikit-learn's `TfidfTransformer`: ln((1 + N)/(1 + df)) + 1. Words and characters are normalised
//! each by themselves and then share the unit length as `word_share` says; otherwise the many character n-grams would drown the words.

use super::arithmetic::ln;
use super::features::{WORD_BIT, names_text};
use super::knobs::Knobs;

/// A sparse vector: index of a feature and its value, ascending by index.
pub(super) type SparseVector = Vec<(u32, f32)>;

/// Counts up to this get their term weight from a table.
const TABLE: usize = 64;

/// What turns counts into values.
#[derive(Debug, Clone)]
pub(super) struct Weighting {
    inverse_frequency: Vec<f32>,
    inverse_frequency_unknown: f32,
    term_weights: [f32; TABLE],
    sublinear: bool,
    unknown_weight: f64,
    word_length: f64,
    character_length: f64,
}

/// One distinct n-gram of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    /// Its key; only its kind matters here.
    pub key: u32,
    /// Its place among the features, if training knew it.
    pub index: Option<u32>,
    /// How often the text holds it.
    pub count: u32,
}

impl Weighting {
    /// `document_frequency[i]` of the `rows` training rows hold feature i. An n-gram that is not a feature weighs as one that is in a single row.
    pub(super) fn new(rows: u32, document_frequency: &[u32], knobs: &Knobs) -> Self {
        let inverse = |df: u32| (ln((1.0 + f64::from(rows)) / (1.0 + f64::from(df))) + 1.0) as f32;
        let mut term_weights = [0.0; TABLE];
        for (count, weight) in (0u32..).zip(&mut term_weights).skip(1) {
            *weight = term_weight(count, knobs.sublinear);
        }
        let share = knobs.word_share_in_force();
        Self {
            inverse_frequency: document_frequency.iter().map(|&df| inverse(df)).collect(),
            inverse_frequency_unknown: inverse(1),
            term_weights,
            sublinear: knobs.sublinear,
            unknown_weight: knobs.unknown_weight,
            word_length: share.sqrt(),
            character_length: (1.0 - share).sqrt(),
        }
    }

    /// Replaces `vector` by that of a text; answers with the share of the text's distinct n-grams that are known, 0 to 1 (0 for none at all), those
    /// of shapes alone left out. At 0 the vector is empty: shapes alone say nothing.
    pub(super) fn weigh(
        &self,
        terms: impl Iterator<Item = Term>,
        vector: &mut SparseVector,
    ) -> f64 {
        vector.clear();
        let (mut squares, mut seen, mut known) = ([0.0f64; 2], 0u32, 0u32);
        // The key's word bit is its highest, so characters come first and `words` is where words begin.
        let mut words = 0;
        for term in terms {
            let names = u32::from(names_text(term.key));
            seen += names;
            let block = usize::from(term.key & WORD_BIT != 0);
            let weight = match self.term_weights.get(term.count as usize) {
                Some(&weight) => weight,
                None => term_weight(term.count, self.sublinear),
            };
            if let Some(index) = term.index {
                known += names;
                let value = weight * self.inverse_frequency[index as usize];
                squares[block] += f64::from(value) * f64::from(value);
                vector.push((index, value));
                if block == 0 {
                    words = vector.len();
                }
            } else {
                let value = f64::from(weight * self.inverse_frequency_unknown);
                squares[block] += self.unknown_weight * value * value;
            }
        }
        if known == 0 {
            vector.clear();
            return 0.0;
        }
        let (characters, words) = vector.split_at_mut(words);
        scale(characters, self.character_length, squares[0]);
        scale(words, self.word_length, squares[1]);
        f64::from(known) / f64::from(seen)
    }
}

fn term_weight(count: u32, sublinear: bool) -> f32 {
    if sublinear {
        (1.0 + ln(f64::from(count))) as f32
    } else {
        count as f32
    }
}

fn scale(values: &mut [(u32, f32)], length: f64, squares: f64) {
    if squares > 0.0 {
        let factor = (length / squares.sqrt()) as f32;
        values.iter_mut().for_each(|(_, value)| *value *= factor);
    }
}
