//! From labelled rows to a model.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::calibrate;
use super::features::Scratch;
use super::knobs::{KnobError, Knobs};
use super::model::{Model, Parts, label_margins};
use super::quantise::Quantised;
use super::train::{LANES, Rows, Task, train};
use super::vocabulary::Vocabulary;
use super::weighting::{Term, Weighting};

/// Rows read by one thread in one go.
const CHUNK: usize = 512;

/// Why no model can be made of these rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FitError {
    /// A knob is outside its range.
    Knob(KnobError),
    /// There are no rows.
    NoRows,
    /// All rows have this label, so there is nothing to tell apart.
    OneLabel(String),
    /// More than 65,535 labels or 2³¹ rows.
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// No n-gram is in as many rows as `min_document_frequency` asks for.
    NoFeatures {
        /// The minimum in force.
        min_document_frequency: u32,
        /// Number of rows.
        rows: usize,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knob(error) => error.fmt(f),
            Self::NoRows => f.write_str("there are no training rows"),
            Self::OneLabel(label) => write!(
                f,
                "all training rows have the label {label:?}: a classifier needs at least two"
            ),
            Self::TooMany { what, found, max } => {
                write!(f, "{found} {what}: at most {max} are supported")
            }
            Self::NoFeatures {
                min_document_frequency,
                rows,
            } => write!(
                f,
                "no n-gram is in {min_document_frequency} or more of the {rows} training rows: lower `min_document_frequency` or add rows with text"
            ),
        }
    }
}

impl std::error::Error for FitError {}

impl From<KnobError> for FitError {
    fn from(error: KnobError) -> Self {
        Self::Knob(error)
    }
}

/// Fits a model to rows of (text, label), on as many threads as the machine offers.
///
/// The model is the same to the bit for the same set of rows (in any order), knobs and seed, on any machine that computes f32 and f64 by IEEE 754, and for any
/// number of threads. Rows that occur twice count twice. Texts may be empty.
///
/// # Errors
/// [`FitError`] when a knob is out of range, there are no rows, only one label, or no n-gram frequent enough.
pub fn fit<T: AsRef<str>, L: AsRef<str>>(
    rows: &[(T, L)],
    knobs: &Knobs,
    seed: u64,
) -> Result<Model, FitError> {
    fit_on_threads(
        rows,
        knobs,
        seed,
        std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    )
}

/// As [`fit`], on at most so many threads.
///
/// # Errors
/// As [`fit`].
pub fn fit_on_threads<T: AsRef<str>, L: AsRef<str>>(
    rows: &[(T, L)],
    knobs: &Knobs,
    seed: u64,
    threads: NonZeroUsize,
) -> Result<Model, FitError> {
    knobs.validate()?;
    let threads = threads.get();
    let corpus = Corpus::read(rows, knobs, threads)?;
    let folds = calibrate::folds(&corpus.rows, seed);
    let fold_count = calibrate::fold_count(corpus.rows.len());

    // The last split leaves nothing out: it makes the model. The others make margins for its calibration.
    let splits = in_parallel(fold_count + 1, threads, |fold| {
        Split::new(&corpus, knobs, |row| usize::from(folds[row]) != fold)
    });
    let whole = &splits[fold_count];
    if whole.kept.is_empty() {
        return Err(FitError::NoFeatures {
            min_document_frequency: knobs.min_document_frequency_for(corpus.rows.len()),
            rows: corpus.rows.len(),
        });
    }
    let block_count = corpus.labels.len().div_ceil(LANES);
    let mut blocks = in_parallel(splits.len() * block_count, threads, |place| {
        // The longest first.
        let split = &splits[fold_count - place / block_count];
        train(
            &split.task(corpus.labels.len()),
            place % block_count,
            knobs,
            seed,
        )
    });

    let folded = blocks.split_off(block_count);
    let weights = Quantised::new(&blocks, corpus.labels.len());
    let (mut margins, mut truth) = (Vec::new(), Vec::new());
    for (split, blocks) in splits[..fold_count]
        .iter()
        .rev()
        .zip(folded.chunks(block_count))
    {
        let blocks = Quantised::new(blocks, corpus.labels.len()).blocks();
        for (row, &label) in split.left_out_labels.iter().enumerate() {
            margins.extend(label_margins(
                &blocks,
                split.left_out.get(row),
                corpus.labels.len(),
            ));
            truth.push(label);
        }
    }
    let beta = calibrate::fit(&margins, &truth, corpus.labels.len());
    Ok(Model::new(Parts {
        knobs: knobs.clone(),
        rows: corpus.rows.len() as u32,
        labels: corpus
            .labels
            .iter()
            .map(|label| (*label).to_owned())
            .collect(),
        beta,
        keys: whole
            .kept
            .iter()
            .map(|&id| corpus.keys.keys()[id as usize])
            .collect(),
        document_frequency: whole.document_frequency.clone(),
        weights,
    }))
}

/// All rows as counted n-grams, in ascending order of label, then text.
struct Corpus<'r> {
    rows: Vec<(&'r str, u16)>,
    labels: Vec<&'r str>,
    /// Every key of any row; an id is a place in it.
    keys: Vocabulary,
    /// Per row and distinct n-gram: (id, count), ascending.
    counts: Vec<Vec<(u32, u32)>>,
}

impl<'r> Corpus<'r> {
    fn read<T: AsRef<str>, L: AsRef<str>>(
        rows: &'r [(T, L)],
        knobs: &Knobs,
        threads: usize,
    ) -> Result<Self, FitError> {
        let mut sorted: Vec<(&str, &str)> = rows
            .iter()
            .map(|(text, label)| (label.as_ref(), text.as_ref()))
            .collect();
        sorted.sort_unstable();
        let mut labels: Vec<&str> = sorted.iter().map(|(label, _)| *label).collect();
        labels.dedup();
        match labels[..] {
            [] => return Err(FitError::NoRows),
            [only] => return Err(FitError::OneLabel(only.to_owned())),
            _ => {}
        }
        at_most("labels", labels.len(), usize::from(u16::MAX))?;
        at_most("rows", sorted.len(), i32::MAX as usize)?;
        let rows: Vec<(&str, u16)> = sorted
            .iter()
            .map(|&(label, text)| {
                (
                    text,
                    labels
                        .binary_search(&label)
                        .expect("every row's label is listed") as u16,
                )
            })
            .collect();

        let chunks: Vec<&[(&str, u16)]> = rows.chunks(CHUNK).collect();
        let read = in_parallel(chunks.len(), threads, |chunk| count(chunks[chunk], knobs));
        let mut keys: Vec<u32> = read.iter().flat_map(|(_, keys)| keys).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let keys = Vocabulary::new(keys);
        let counts = in_parallel(chunks.len(), threads, |chunk| {
            let with_id = |&(key, count): &(u32, u32)| {
                (keys.find(key).expect("every key read is listed"), count)
            };
            read[chunk]
                .0
                .iter()
                .map(|row| row.iter().map(with_id).collect())
                .collect::<Vec<Vec<(u32, u32)>>>()
        });
        Ok(Self {
            rows,
            labels,
            keys,
            counts: counts.into_iter().flatten().collect(),
        })
    }
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), FitError> {
    if found > max {
        Err(FitError::TooMany { what, found, max })
    } else {
        Ok(())
    }
}

/// The counted keys of each row, and the distinct keys of them all.
fn count(rows: &[(&str, u16)], knobs: &Knobs) -> (Vec<Vec<(u32, u32)>>, Vec<u32>) {
    let mut scratch = Scratch::default();
    let mut all = Vec::new();
    let counted = rows
        .iter()
        .map(|(text, _)| {
            let equal = scratch.keys(text, knobs).chunk_by(|a, b| a == b);
            let row: Vec<(u32, u32)> = equal.map(|keys| (keys[0], keys.len() as u32)).collect();
            all.extend(row.iter().map(|(key, _)| key));
            row
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    (counted, all)
}

/// Rows to train on and rows left out, as vectors over the features that the former know.
struct Split {
    /// The ids of the features.
    kept: Vec<u32>,
    document_frequency: Vec<u32>,
    rows: Rows,
    labels: Vec<u16>,
    costs: Vec<f32>,
    left_out: Rows,
    left_out_labels: Vec<u16>,
}

impl Split {
    fn new(corpus: &Corpus<'_>, knobs: &Knobs, trains: impl Fn(usize) -> bool) -> Self {
        const DROPPED: u32 = u32::MAX;
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..corpus.rows.len()).partition(|&row| trains(row));
        let mut frequency = vec![0u32; corpus.keys.len()];
        for &row in &inside {
            corpus.counts[row]
                .iter()
                .for_each(|&(id, _)| frequency[id as usize] += 1);
        }
        // The same for all splits: a model is calibrated by others like it.
        let min_document_frequency = knobs.min_document_frequency_for(corpus.rows.len());
        let (mut kept, mut document_frequency, mut index_of) =
            (Vec::new(), Vec::new(), vec![DROPPED; frequency.len()]);
        for (id, &df) in frequency.iter().enumerate() {
            if df >= min_document_frequency {
                index_of[id] = kept.len() as u32;
                kept.push(id as u32);
                document_frequency.push(df);
            }
        }
        let weighting = Weighting::new(inside.len() as u32, &document_frequency, knobs);
        let vectors = |rows: &[usize]| {
            let (mut all, mut vector) = (Rows::default(), Vec::new());
            for &row in rows {
                let terms = corpus.counts[row].iter().map(|&(id, count)| Term {
                    key: corpus.keys.keys()[id as usize],
                    index: Some(index_of[id as usize]).filter(|&index| index != DROPPED),
                    count,
                });
                weighting.weigh(terms, &mut vector);
                all.push(&vector);
            }
            all
        };
        let labels_of = |rows: &[usize]| {
            rows.iter()
                .map(|&row| corpus.rows[row].1)
                .collect::<Vec<u16>>()
        };
        let labels = labels_of(&inside);
        let costs = costs(&labels, corpus.labels.len(), knobs);
        Self {
            rows: vectors(&inside),
            left_out: vectors(&outside),
            left_out_labels: labels_of(&outside),
            kept,
            document_frequency,
            labels,
            costs,
        }
    }

    fn task(&self, label_count: usize) -> Task<'_> {
        Task {
            rows: &self.rows,
            features: self.kept.len(),
            labels: &self.labels,
            label_count,
            costs: &self.costs,
        }
    }
}

/// The cost of each row: between C and C · n/(k · n_label) ("balanced" in scikit-learn), as far as `class_balance` says.
fn costs(labels: &[u16], label_count: usize, knobs: &Knobs) -> Vec<f32> {
    let mut sizes = vec![0u32; label_count];
    labels
        .iter()
        .for_each(|&label| sizes[usize::from(label)] += 1);
    let even = labels.len() as f64 / label_count as f64;
    let cost = |&label: &u16| {
        let balanced = even / f64::from(sizes[usize::from(label)]);
        (knobs.cost * (1.0 + knobs.class_balance * (balanced - 1.0))) as f32
    };
    labels.iter().map(cost).collect()
}

/// The results of `work(0)`, `work(1)`, … in this order, whichever thread made them.
fn in_parallel<R: Send>(tasks: usize, threads: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return done;
            }
            done.push((task, work(task)));
        }
    };
    if threads <= 1 || tasks <= 1 {
        return take_turns().into_iter().map(|(_, result)| result).collect();
    }
    let mut results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(tasks))
            .map(|_| scope.spawn(take_turns))
            .collect();
        let joined = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.flatten().collect::<Vec<_>>()
    });
    results.sort_unstable_by_key(|(task, _)| *task);
    results.into_iter().map(|(_, result)| result).collect()
}
