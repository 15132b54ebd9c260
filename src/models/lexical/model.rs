//! A fitted classifier and its answers.

use super::calibrate::softmax;
use super::features::Scratch;
use super::knobs::Knobs;
use super::quantise::Quantised;
use super::train::{Block, LANES, margins};
use super::vocabulary::Vocabulary;
use super::weighting::{SparseVector, Term, Weighting};

/// A fitted classifier. It doesn't change; many threads may ask it at once.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) parts: Parts,
    vocabulary: Vocabulary,
    weighting: Weighting,
    blocks: Vec<Block>,
}

/// What is written down; the rest of a model follows from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    pub knobs: Knobs,
    /// Number of training rows.
    pub rows: u32,
    /// Ascending, at least two.
    pub labels: Vec<String>,
    /// Sharpness of the softmax, finite and not negative.
    pub beta: f64,
    /// Ascending.
    pub keys: Vec<u32>,
    /// Per key: how many training rows hold it.
    pub document_frequency: Vec<u32>,
    pub weights: Quantised,
}

/// The answer to one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction<'m> {
    /// The answer: the label of the highest margin (the first of equals), or the none label.
    pub label: &'m str,
    /// The probability that the label of the highest margin is right, 0 to 1, as cross-validation on the training rows found it; see
    /// [`Model::predict`] for what it assumes. Exactly 0 when `known_share` is 0. It stays that of the best label when the answer is the none label.
    pub confidence: f64,
    /// The answer is the none label because the confidence is below the threshold or nothing in the text is known.
    pub abstained: bool,
    /// Share of the text's distinct n-grams that the training rows knew, 0 to 1; n-grams of word shapes alone don't count.
    pub known_share: f64,
    /// Per label, in the order of [`Model::labels`]: the support vector machine's margin (without unit; 1 is the side of the label's own rows, −1 of the others).
    pub margins: Vec<f64>,
    /// Per label, in the order of [`Model::labels`]: probabilities that sum to 1; all equal when `known_share` is 0.
    pub probabilities: Vec<f64>,
}

/// Memory that predictions reuse; for callers that ask one after the other.
#[derive(Debug, Default)]
pub struct PredictScratch {
    text: Scratch,
    vector: SparseVector,
}

impl Model {
    pub(super) fn new(parts: Parts) -> Self {
        let vocabulary = Vocabulary::new(parts.keys.clone());
        let weighting = Weighting::new(parts.rows, &parts.document_frequency, &parts.knobs);
        let blocks = parts.weights.blocks();
        Self {
            parts,
            vocabulary,
            weighting,
            blocks,
        }
    }

    /// The labels of the training rows, ascending by bytes.
    pub fn labels(&self) -> &[String] {
        &self.parts.labels
    }

    /// The knobs it was fitted with.
    pub fn knobs(&self) -> &Knobs {
        &self.parts.knobs
    }

    /// Number of features (distinct n-grams) that have weights.
    pub fn feature_count(&self) -> usize {
        self.vocabulary.len()
    }

    /// Answers one text. The confidence assumes that texts come as the training rows did: it is fitted to rows left out of training in turn.
    pub fn predict(&self, text: &str) -> Prediction<'_> {
        self.predict_with(text, &mut PredictScratch::default())
    }

    /// As [`Model::predict`], in memory that is used again. The answer doesn't depend on what the memory held.
    pub fn predict_with(&self, text: &str, scratch: &mut PredictScratch) -> Prediction<'_> {
        let PredictScratch {
            text: reader,
            vector,
        } = scratch;
        let terms = reader.keys(text, &self.parts.knobs).chunk_by(|a, b| a == b);
        let known_share = self.weighting.weigh(
            terms.map(|equal| Term {
                key: equal[0],
                index: self.vocabulary.find(equal[0]),
                count: equal.len() as u32,
            }),
            vector,
        );
        let margins = self.margins(vector);
        let best = first_highest(&margins);
        let mut probabilities = margins.clone();
        let mut confidence = 0.0;
        if vector.is_empty() {
            probabilities.fill(1.0 / margins.len() as f64);
        } else {
            softmax(&mut probabilities, self.parts.beta);
            confidence = probabilities[best];
        }
        let abstention = self.parts.knobs.none_label.as_deref();
        let abstention = abstention
            .filter(|_| vector.is_empty() || confidence < self.parts.knobs.none_threshold);
        Prediction {
            label: abstention.unwrap_or(&self.parts.labels[best]),
            confidence,
            abstained: abstention.is_some(),
            known_share,
            margins,
            probabilities,
        }
    }

    fn margins(&self, vector: &[(u32, f32)]) -> Vec<f64> {
        label_margins(&self.blocks, vector, self.parts.labels.len())
    }
}

/// One margin per label.
pub(super) fn label_margins(
    blocks: &[Block],
    vector: &[(u32, f32)],
    label_count: usize,
) -> Vec<f64> {
    let mut all = Vec::with_capacity(blocks.len() * LANES);
    for block in blocks {
        all.extend(margins(block, vector).map(f64::from));
    }
    all.truncate(label_count);
    all
}

/// The place of the highest number, the first of equals.
fn first_highest(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (place, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = place;
        }
    }
    best
}
