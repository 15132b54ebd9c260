//! A linear text classifier over word and character n-grams: the embedded model.
//!
//! [`fit()`] makes a [`Model`] of labelled rows; [`Model::predict`] answers a text with a label and a calibrated confidence; [`Model::to_bytes`] and
//! [`Model::from_bytes`] carry it. [`Knobs`] are what a search may turn.
//!
//! text → n-grams (`features`) → TF-IDF vector (`weighting`) → one linear support vector machine per label (`train`), rounded to a byte per weight (`quantise`)
//! → margins → probabilities (`calibrate`).
//!
//! Guarantees:
//! - the same set of rows, knobs and seed give the same bytes, on any machine with IEEE 754 arithmetic, for any number of threads and order of rows; nothing here
//!   uses more than `+ - * /` and the square root on floats (`arithmetic` has the logarithm and exponential), or walks through a hash map;
//! - a model read back answers to the bit as the one that was written;
//! - malformed bytes are refused with the place, without panic and without allocating more than a fixed multiple of their number;
//! - a text that holds nothing known has confidence 0.
//!
//! Deliberately absent: file access, JSON inputs (the caller joins the texts of an input), parallel prediction (ask from several threads), feature
//! weights for explanation.

mod arithmetic;
mod calibrate;
mod codec;
mod features;
mod fit;
mod knobs;
mod model;
mod quantise;
mod random;
#[cfg(test)]
mod tests;
mod train;
mod vocabulary;
mod weighting;

pub use codec::DecodeError;
pub use fit::{FitError, fit, fit_on_threads};
pub use knobs::{KnobError, Knobs};
pub use model::{Model, PredictScratch, Prediction};
