//! JSONL rows per second: parsed strictly, and validated as examples with a
//! typical user's input and output schema on top. `cargo bench --bench schema_rows`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use proofline::schema::{SchemaName, Validator, json};
use serde_json::{Value, json};

const ROWS: usize = 100_000;

fn main() {
    let text: String = (0..ROWS).map(row).collect();
    let size = text.len() as f64 / 1e6;
    println!("{ROWS} rows, {size:.1} MB, best of 5, one thread");
    let input = Validator::new(&json!({
        "type": "object",
        "properties": { "message": {"type": "string", "minLength": 1}, "turn": {"type": "integer", "minimum": 0} },
        "required": ["message"],
        "additionalProperties": false,
    }))
    .expect("a schema");
    let output = Validator::new(&json!({
        "type": "object",
        "properties": { "tool": {"enum": ["search", "weather", "none"]} },
        "required": ["tool"],
        "additionalProperties": false,
    }))
    .expect("a schema");
    let example = SchemaName::Example.validator();

    report("serde_json alone", size, || {
        for line in text.lines() {
            black_box(serde_json::from_str::<Value>(line).expect("valid"));
        }
    });
    report("strict lines", size, || {
        for line in json::lines("rows", text.as_bytes(), json::EmptyFile::Refuse) {
            black_box(line.expect("valid"));
        }
    });
    report("strict lines, example schema", size, || {
        for line in json::lines("rows", text.as_bytes(), json::EmptyFile::Refuse) {
            assert!(example.is_valid(&line.expect("valid").value));
        }
    });
    report(
        "strict lines, example, input and output schemas",
        size,
        || {
            for line in json::lines("rows", text.as_bytes(), json::EmptyFile::Refuse) {
                let row = line.expect("valid").value;
                assert!(
                    example.is_valid(&row)
                        && input.is_valid(&row["input"])
                        && output.is_valid(&row["expected"])
                );
            }
        },
    );
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("valid"))
        .collect();
    report("example schema alone", size, || {
        assert!(rows.iter().all(|row| example.is_valid(row)));
    });
}

fn row(number: usize) -> String {
    let tool = ["search", "weather", "none"][number % 3];
    let split = ["train", "dev", "holdout", "exercise"][number % 4];
    let row = json!({
        "id": format!("row-{number:06}"),
        "input": { "message": format!("please look up thing {number} \u{2014} and \"quote\" it, would you?"), "turn": number % 7 },
        "expected": { "tool": tool },
        "split": split,
        "tags": ["reviewed", tool],
        "group": format!("group-{}", number / 3),
        "source": "made by a benchmark",
    });
    format!("{row}\n")
}

fn report(what: &str, megabytes: f64, mut work: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap_or(Duration::MAX);
    let seconds = best.as_secs_f64();
    println!(
        "{what:<50} {:>10.0} rows/s {:>7.0} MB/s",
        ROWS as f64 / seconds,
        megabytes / seconds
    );
}
