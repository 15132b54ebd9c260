//! What a search may turn.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Settings of the classifier. All have defaults; a setting outside its range is refused by [`Knobs::validate`] with its name and its range.
///
/// Two texts of the same knobs are the same bytes: fields in this order, floats in the shortest form that reads back as the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Knobs {
    /// Unicode compatibility composition (NFKC), so that full-width letters and ligatures meet their plain forms.
    pub nfkc: bool,
    /// Lower case.
    pub lowercase: bool,
    /// Every digit becomes `0`, so that "7 pm" and "9 pm" share features.
    pub fold_digits: bool,
    /// Longest word n-gram, 0 to 4; 0 leaves words out.
    pub word_ngram_max: u8,
    /// N-grams of up to three words in which some are replaced by their shape (capitalised, all capitals, number, plain) are features too. Without effect when
    /// `word_ngram_max` is 0.
    pub word_shapes: bool,
    /// The beginning and end of the text count as words in word n-grams (but not by themselves).
    pub sentence_edges: bool,
    /// Shortest character n-gram, 1 to 8.
    pub char_ngram_min: u8,
    /// Longest character n-gram, `char_ngram_min` to 8, or 0 to leave characters out.
    pub char_ngram_max: u8,
    /// An n-gram counts when at least so many training rows hold it, 1 to 1,000,000; 0 chooses by the number of rows: 1 up to 2,000 rows, where what
    /// occurs once is still worth knowing, and 2 above, which keeps the model small.
    pub min_document_frequency: u32,
    /// Term frequency enters as 1 + ln tf rather than tf.
    pub sublinear: bool,
    /// Share of the squared length of a row's vector that words get, 0 to 1; characters get the rest.
    pub word_share: f64,
    /// How much n-grams never seen in training add to the length of a text's vector, 0 to 1. At 0 a text is read as if it held its known n-grams
    /// only; above, the unfamiliar part weakens the scores and with them the confidence.
    pub unknown_weight: f64,
    /// Cost of a margin violation (the C of the support vector machine), 0.0001 to 10,000. Larger fits the training rows more closely.
    pub cost: f64,
    /// From 0, every row costs the same, to 1, every label's rows together cost the same.
    pub class_balance: f64,
    /// Upper limit of passes over the rows, 1 to 10,000.
    pub epochs_max: u32,
    /// A label's weights are done when its projected gradients all lie within a band of this width, 0.000001 to 1.
    pub tolerance: f64,
    /// Below this confidence the answer is `none_label`, 0 to 1; without a `none_label` it has no effect.
    pub none_threshold: f64,
    /// The answer of a text that no label suits, if the task has one. It may also be a label of the training rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none_label: Option<String>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            nfkc: true,
            lowercase: true,
            fold_digits: false,
            word_ngram_max: 2,
            word_shapes: true,
            sentence_edges: true,
            char_ngram_min: 2,
            char_ngram_max: 5,
            min_document_frequency: 0,
            sublinear: true,
            word_share: 0.6,
            unknown_weight: 0.3,
            cost: 2.0,
            class_balance: 0.0,
            epochs_max: 200,
            tolerance: 0.1,
            none_threshold: 0.0,
            none_label: None,
        }
    }
}

/// A knob outside its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnobError {
    /// The knob's name as it is written in a job.
    pub knob: &'static str,
    /// What it may be.
    pub range: &'static str,
    /// What it was.
    pub found: String,
}

impl fmt::Display for KnobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "knob `{}` is {}: it must be {}",
            self.knob, self.found, self.range
        )
    }
}

impl std::error::Error for KnobError {}

impl Knobs {
    /// Refuses settings that make no sense, naming the first such knob and its range.
    ///
    /// # Errors
    /// [`KnobError`] for a number outside its range (NaN and negative zero included) or when neither words nor characters are read.
    pub fn validate(&self) -> Result<(), KnobError> {
        whole(
            "word_ngram_max",
            self.word_ngram_max,
            0,
            4,
            "a whole number from 0 to 4",
        )?;
        whole(
            "char_ngram_min",
            self.char_ngram_min,
            1,
            8,
            "a whole number from 1 to 8",
        )?;
        if self.char_ngram_max != 0 {
            let range = "0 (no characters) or a whole number from char_ngram_min to 8";
            whole(
                "char_ngram_max",
                self.char_ngram_max,
                self.char_ngram_min,
                8,
                range,
            )?;
        } else if self.word_ngram_max == 0 {
            return Err(refusal(
                "word_ngram_max",
                self.word_ngram_max,
                "1 to 4 when char_ngram_max is 0: something must be read",
            ));
        }
        whole(
            "min_document_frequency",
            self.min_document_frequency,
            0,
            1_000_000,
            "0 (by the number of rows) or a whole number to 1000000",
        )?;
        real(
            "word_share",
            self.word_share,
            0.0,
            1.0,
            "a number from 0 to 1",
        )?;
        real(
            "unknown_weight",
            self.unknown_weight,
            0.0,
            1.0,
            "a number from 0 to 1",
        )?;
        real(
            "cost",
            self.cost,
            1e-4,
            1e4,
            "a number from 0.0001 to 10000",
        )?;
        real(
            "class_balance",
            self.class_balance,
            0.0,
            1.0,
            "a number from 0 to 1",
        )?;
        whole(
            "epochs_max",
            self.epochs_max,
            1,
            10_000,
            "a whole number from 1 to 10000",
        )?;
        real(
            "tolerance",
            self.tolerance,
            1e-6,
            1.0,
            "a number from 0.000001 to 1",
        )?;
        real(
            "none_threshold",
            self.none_threshold,
            0.0,
            1.0,
            "a number from 0 to 1",
        )
    }

    /// The minimum that is in force for so many training rows.
    pub(super) fn min_document_frequency_for(&self, rows: usize) -> u32 {
        match self.min_document_frequency {
            0 if rows <= 2_000 => 1,
            0 => 2,
            chosen => chosen,
        }
    }

    /// The share of words that is in force: all or nothing when only one of the two is read.
    pub(super) fn word_share_in_force(&self) -> f64 {
        match (self.word_ngram_max, self.char_ngram_max) {
            (0, _) => 0.0,
            (_, 0) => 1.0,
            _ => self.word_share,
        }
    }
}

fn whole<N: PartialOrd + fmt::Display>(
    knob: &'static str,
    found: N,
    min: N,
    max: N,
    range: &'static str,
) -> Result<(), KnobError> {
    if found < min || found > max {
        Err(refusal(knob, found, range))
    } else {
        Ok(())
    }
}

/// Negative zero is refused because it is written differently from the zero that it equals.
fn real(
    knob: &'static str,
    found: f64,
    min: f64,
    max: f64,
    range: &'static str,
) -> Result<(), KnobError> {
    let negative_zero = found == 0.0 && found.is_sign_negative();
    if (min..=max).contains(&found) && !negative_zero {
        Ok(())
    } else {
        Err(refusal(knob, format!("{found:?}"), range))
    }
}

fn refusal(knob: &'static str, found: impl fmt::Display, range: &'static str) -> KnobError {
    KnobError {
        knob,
        range,
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_read_back_as_written() {
        let knobs = Knobs::default();
        knobs.validate().expect("the defaults are in range");
        let written = serde_json::to_string(&knobs).expect("knobs are plain data");
        assert_eq!(
            serde_json::from_str::<Knobs>(&written).expect("what was written reads back"),
            knobs
        );
        assert_eq!(
            serde_json::from_str::<Knobs>("{}").expect("every knob has a default"),
            knobs
        );
        assert!(
            serde_json::from_str::<Knobs>(r#"{"costs": 1}"#).is_err(),
            "unknown knobs are refused"
        );
    }

    #[test]
    fn nonsense_is_refused_by_name_and_range() {
        type Spoil = fn(&mut Knobs);
        let refused: [(&str, Spoil); 18] = [
            ("word_ngram_max", |k| k.word_ngram_max = 5),
            ("word_ngram_max", |k| {
                (k.word_ngram_max, k.char_ngram_max) = (0, 0)
            }),
            ("char_ngram_min", |k| k.char_ngram_min = 0),
            ("char_ngram_min", |k| k.char_ngram_min = 9),
            ("char_ngram_max", |k| {
                (k.char_ngram_min, k.char_ngram_max) = (4, 3)
            }),
            ("char_ngram_max", |k| k.char_ngram_max = 9),
            ("min_document_frequency", |k| {
                k.min_document_frequency = 1_000_001
            }),
            ("word_share", |k| k.word_share = 1.5),
            ("word_share", |k| k.word_share = -0.0),
            ("unknown_weight", |k| k.unknown_weight = f64::NAN),
            ("cost", |k| k.cost = 0.0),
            ("cost", |k| k.cost = f64::INFINITY),
            ("cost", |k| k.cost = f64::NAN),
            ("class_balance", |k| k.class_balance = -1.0),
            ("epochs_max", |k| k.epochs_max = 0),
            ("tolerance", |k| k.tolerance = 0.0),
            ("none_threshold", |k| k.none_threshold = 1.01),
            ("none_threshold", |k| k.none_threshold = f64::NAN),
        ];
        for (name, spoil) in refused {
            let mut knobs = Knobs::default();
            spoil(&mut knobs);
            let error = knobs.validate().expect_err(name);
            assert_eq!(error.knob, name);
            assert!(
                error.to_string().starts_with(&format!("knob `{name}` is ")),
                "{error}"
            );
        }
    }
}
