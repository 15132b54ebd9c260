//! Cross-validation of knob settings on a train file.
//!
//! `lexical_tune TRAIN.jsonl [KNOBS-JSON …]`: the defaults, then each setting given. Per setting:
//! - `full`: accuracy and log loss by five-fold cross-validation (equal texts share a fold);
//! - `20`, `100`: accuracy, log loss and calibration error of models fitted to so many rows per label, on 3,000 other rows; means of several draws;
//! - `strange`: chance that a row of a label left out of training gets a lower confidence than a row of a label in it (area under the ROC curve; 100 rows per label).

use proofline::models::lexical::{Knobs, Model, PredictScratch, fit};

type Rows = Vec<(String, String)>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .expect("the first argument is the train file");
    let rows = read(&path);
    println!(
        "{:62} {:^15} | {:^22} | {:^22} | strange",
        "", "full", "20 per label", "100 per label"
    );
    for setting in std::iter::once("{}".to_owned()).chain(arguments) {
        let knobs: Knobs =
            serde_json::from_str(&setting).unwrap_or_else(|error| panic!("{setting}: {error}"));
        let full = if std::env::var_os("SMALL").is_some() {
            Score::default()
        } else {
            cross_validate(&rows, &knobs)
        };
        let (few, many) = (small(&rows, &knobs, 20, 20), small(&rows, &knobs, 100, 6));
        let strange = strange(&rows, &knobs);
        println!(
            "{setting:62} {:.4} {:.4}   | {:.4} {:.4} {:.4}   | {:.4} {:.4} {:.4}   | {strange:.4}",
            full.accuracy,
            full.loss,
            few.accuracy,
            few.loss,
            few.gap,
            many.accuracy,
            many.loss,
            many.gap
        );
    }
}

#[derive(Default)]
struct Score {
    accuracy: f64,
    loss: f64,
    /// Mean confidence less accuracy: above 0 is boastful.
    gap: f64,
}

/// Scores as means over all rows of all tests.
fn score(tests: &[(Model, Rows)]) -> Score {
    let (mut right, mut loss, mut confidence, mut count) = (0.0, 0.0, 0.0, 0.0);
    let mut scratch = PredictScratch::default();
    for (model, rows) in tests {
        for (text, label) in rows {
            let answer = model.predict_with(text, &mut scratch);
            let place = model
                .labels()
                .iter()
                .position(|l| l == label)
                .expect("every label is trained");
            right += f64::from(u8::from(answer.label == label));
            loss -= answer.probabilities[place].max(1e-9).ln();
            confidence += answer.confidence;
            count += 1.0;
        }
    }
    Score {
        accuracy: right / count,
        loss: loss / count,
        gap: (confidence - right) / count,
    }
}

fn cross_validate(rows: &Rows, knobs: &Knobs) -> Score {
    let fold = |text: &str| mixed(0, text) % 5;
    let test = |k| {
        let (outside, inside): (Rows, Rows) =
            rows.iter().cloned().partition(|(text, _)| fold(text) == k);
        (
            fit(&inside, knobs, 1).expect("the rows can be fitted"),
            outside,
        )
    };
    score(&(0..5).map(test).collect::<Vec<_>>())
}

/// So many rows of each label, and 3,000 others without their texts.
fn draw(rows: &Rows, per_label: usize, seed: u64) -> (Rows, Rows) {
    let mut order: Vec<&(String, String)> = rows.iter().collect();
    order.sort_by_key(|(text, _)| mixed(seed, text));
    let mut taken = std::collections::BTreeMap::<&str, usize>::new();
    let (mut inside, mut outside) = (Rows::new(), Rows::new());
    for row in order {
        let count = taken.entry(&row.1).or_default();
        if *count < per_label {
            *count += 1;
            inside.push(row.clone());
        } else if outside.len() < 3000 && !inside.iter().any(|other| other.0 == row.0) {
            outside.push(row.clone());
        }
    }
    (inside, outside)
}

fn small(rows: &Rows, knobs: &Knobs, per_label: usize, draws: u64) -> Score {
    let test = |seed| {
        let (inside, outside) = draw(rows, per_label, seed + 100);
        (
            fit(&inside, knobs, 1).expect("the rows can be fitted"),
            outside,
        )
    };
    score(&(0..draws).map(test).collect::<Vec<_>>())
}

fn strange(rows: &Rows, knobs: &Knobs) -> f64 {
    let (inside, outside) = draw(rows, 100, 7);
    let mut labels: Vec<&String> = inside.iter().map(|(_, label)| label).collect();
    labels.sort();
    labels.dedup();
    let mut sum = 0.0;
    for left_out in &labels {
        let inside: Rows = inside
            .iter()
            .filter(|(_, label)| label != *left_out)
            .cloned()
            .collect();
        let model = fit(&inside, knobs, 1).expect("the rows can be fitted");
        let mut judged: Vec<(f64, bool)> = outside
            .iter()
            .map(|(text, label)| (model.predict(text).confidence, label == *left_out))
            .collect();
        judged.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut strangers, mut pairs) = (0.0, 0.0);
        for (_, stranger) in &judged {
            if *stranger {
                strangers += 1.0
            } else {
                pairs += strangers
            }
        }
        sum += pairs / (strangers * (judged.len() as f64 - strangers));
    }
    sum / labels.len() as f64
}

/// A hash of seed and text, to order and deal out rows.
fn mixed(seed: u64, text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

fn read(path: &str) -> Rows {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let field = |row: &serde_json::Value, name: &str| {
        row[name]
            .as_str()
            .unwrap_or_else(|| panic!("{path}: no {name}"))
            .to_owned()
    };
    text.lines()
        .map(|line| {
            let row = serde_json::from_str(line).unwrap_or_else(|error| panic!("{path}: {error}"));
            (field(&row, "text"), field(&row, "label"))
        })
        .collect()
}
