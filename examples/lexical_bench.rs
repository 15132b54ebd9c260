//! Fit time, microseconds per prediction, bytes, accuracy and calibration on given files.
//!
//! `lexical_bench TRAIN.jsonl [VALIDATE.jsonl] [KNOBS.json]`; a row is `{"text": …, "label": …}`.

use std::time::Instant;

use proofline::models::lexical::{Knobs, Model, PredictScratch, fit};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(train_path) = arguments.first() else {
        eprintln!("usage: lexical_bench TRAIN.jsonl [VALIDATE.jsonl] [KNOBS.json]");
        std::process::exit(2);
    };
    let knobs = match arguments.get(2) {
        Some(text) => serde_json::from_str(text).expect("the third argument holds knobs"),
        None => Knobs::default(),
    };
    let train = read(train_path);
    let start = Instant::now();
    let model = fit(&train, &knobs, 1).expect("the rows can be fitted");
    println!(
        "fit            {:.3} s for {} rows, {} labels, {} features",
        start.elapsed().as_secs_f64(),
        train.len(),
        model.labels().len(),
        model.feature_count()
    );
    let bytes = model.to_bytes();
    println!("bytes          {}", bytes.len());
    let start = Instant::now();
    let model = Model::from_bytes(&bytes).expect("what was written reads back");
    println!(
        "read           {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let rows = arguments.get(1).map_or_else(
        || train[..train.len().min(2000)].to_vec(),
        |path| read(path),
    );

    let mut scratch = PredictScratch::default();
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let start = Instant::now();
        for (text, _) in &rows {
            std::hint::black_box(model.predict_with(std::hint::black_box(text), &mut scratch));
        }
        best = best.min(start.elapsed().as_secs_f64() / rows.len() as f64);
    }
    println!(
        "prediction     {:.2} µs (best of 7 passes, memory reused)",
        best * 1e6
    );
    let start = Instant::now();
    for (text, _) in &rows {
        std::hint::black_box(model.predict(std::hint::black_box(text)));
    }
    println!(
        "prediction     {:.2} µs (one pass, fresh memory)",
        start.elapsed().as_secs_f64() / rows.len() as f64 * 1e6
    );
    if arguments.len() > 1 {
        report(&model, &rows);
    }
}

/// Accuracy, log loss, and expected calibration error over ten bins of equal size.
fn report(model: &Model, rows: &[(String, String)]) {
    let (mut right, mut loss, mut judged) = (0, 0.0, Vec::new());
    for (text, label) in rows {
        let prediction = model.predict(text);
        let hit = prediction.label == label;
        right += usize::from(hit);
        let place = model.labels().iter().position(|l| l == label);
        loss -= place
            .map_or(1e-9, |place| prediction.probabilities[place])
            .max(1e-9)
            .ln();
        judged.push((prediction.confidence, hit));
    }
    judged.sort_by(|a, b| a.0.total_cmp(&b.0));
    let gap = |bin: &[(f64, bool)]| {
        (bin.iter()
            .map(|(p, hit)| p - f64::from(u8::from(*hit)))
            .sum::<f64>())
        .abs()
    };
    let error: f64 = judged
        .chunks(judged.len().div_ceil(10))
        .map(gap)
        .sum::<f64>()
        / judged.len() as f64;
    let mean = judged.iter().map(|(p, _)| p).sum::<f64>() / judged.len() as f64;
    println!(
        "accuracy       {:.4} ({right} of {})",
        right as f64 / rows.len() as f64,
        rows.len()
    );
    println!(
        "mean confidence {mean:.4}, log loss {:.4}, calibration error {error:.4}",
        loss / rows.len() as f64
    );
    println!("unknown text   {:?}", model.predict("Ωψξ ЖЩЮ").confidence);
}

fn read(path: &str) -> Vec<(String, String)> {
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
