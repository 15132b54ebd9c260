//! The figures of datasets: importing 100,000 rows, importing them again,
//! changing one, and what a search pays to load them.
//!
//! `cargo bench --bench dataset [ROWS]`; prints, judges nothing. The rows are
//! made up from numbers; nothing of them is shipped.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use proofline::domain::improve::dataset::{Kept, Split, near};
use proofline::domain::prove::stats::rng::Rng;
use proofline::flows::Workspace;
use proofline::flows::dataset::import::{self, From, Options};
use proofline::records::{datasets, signatures};

const SIGNATURE: &str = r#"schema: proofline/signature/v1
id: "@bench/rows/Route.v1"
input: {type: object, properties: {text: {type: string}}, required: [text], additionalProperties: false}
output: {type: object, properties: {label: {type: string}}, required: [label], additionalProperties: false}
defaults: {strategy: distilled.lexical.v1}
"#;

fn main() {
    let rows = std::env::args()
        .filter_map(|text| text.parse().ok())
        .next()
        .unwrap_or(100_000);
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("a current folder"))
        .expect("a temporary folder beside the sources, on a real disk");
    git(folder.path(), &["init", "--quiet", "."]);
    let file = folder.path().join("rows.jsonl");
    let text = generate(rows);
    std::fs::write(&file, &text).expect("written");
    println!("{rows} rows, {:.1} MB of JSONL", text.len() as f64 / 1e6);
    drop(text);
    println!("resident before                {:8.1} MB", resident());

    let workspace = Workspace::open_unconfigured(folder.path()).expect("a workspace");
    let signature = signatures::read("Route.v1.yaml", SIGNATURE.into())
        .expect("a signature")
        .signature;
    let import = |what: &str, options: &Options| {
        let start = Instant::now();
        let done = import::import(&workspace, &signature, &[From::File(file.clone())], options)
            .expect("imported");
        println!(
            "{what:<30} {:8.2} s   {}",
            start.elapsed().as_secs_f64(),
            done.sentence()
        );
        println!("resident at most               {:8.1} MB", resident());
        done
    };
    import(
        "dry run",
        &Options {
            dry_run: true,
            ..Options::default()
        },
    );
    let first = import("import", &Options::default());
    println!("pairs almost the same          {:8}", first.near_pairs);
    import("the same again", &Options::default());
    let text = std::fs::read_to_string(&file)
        .expect("read")
        .replacen("\"w", "\"changed w", 1);
    std::fs::write(&file, text).expect("written");
    import("one row changed", &Options::default());

    let start = Instant::now();
    let snapshot = workspace
        .store
        .snapshot(&workspace.refs.datasets)
        .expect("a snapshot");
    let loaded =
        datasets::train_and_dev(&workspace.refs, snapshot.as_ref(), &signature.id).expect("rows");
    println!(
        "load train and dev             {:8.2} s   {} rows",
        start.elapsed().as_secs_f64(),
        loaded.train.len() + loaded.dev.len()
    );
    alike(rows);
    git(folder.path(), &["fsck", "--strict", "--no-dangling"]);
}

/// What looking for near-duplicates costs where it is hardest: texts that are all made of the same few words.
fn alike(rows: usize) {
    for words in [1_000, 100, 30] {
        let mut rng = Rng::new(2);
        let rows: Vec<Kept> = (0..rows)
            .map(|row| {
                let text: Vec<String> = (0..12).map(|_| format!("w{}", rng.below(words))).collect();
                let row = serde_json::json!({
                    "id": format!("{row}"), "input": {"text": text.join(" ")}, "expected": row,
                    "split": Split::ALL[rng.below(4) as usize],
                });
                Kept::new(&serde_json::from_value(row).expect("a row")).expect("canonical")
            })
            .collect();
        let start = Instant::now();
        let found = near::near(&rows, |_| true);
        println!(
            "near, 12 of {words:<4} words         {:8.2} s   {} pairs{}",
            start.elapsed().as_secs_f64(),
            found.pairs.len(),
            if found.complete {
                ""
            } else {
                ", not every pair compared"
            },
        );
    }
}

/// Texts of 4 to 23 words whose frequencies fall as in a language (rank r with probability about 1/r), in four splits.
fn generate(rows: usize) -> String {
    const WORDS: u64 = 30_000;
    let mut rng = Rng::new(1);
    let mut text = String::with_capacity(rows * 200);
    let mut words: Vec<String> = Vec::new();
    for row in 0..rows {
        // Every thousandth text is the one before it with another number at its end.
        if row % 1_000 != 999 {
            words = (0..4 + rng.below(20))
                .map(|_| format!("w{}", (WORDS as f64).powf(rng.unit()) as u64))
                .collect();
        }
        let split = match rng.below(10) {
            0..=5 => Split::Train,
            6 | 7 => Split::Dev,
            8 => Split::Holdout,
            _ => Split::Exercise,
        };
        let _ = writeln!(
            text,
            "{{\"exampleId\":\"b-{row:06}\",\"inputJson\":{{\"text\":\"{} {row}\"}},\"expectedJson\":{{\"label\":\"l{}\"}},\"split\":\"{split}\",\"tags\":[\"made\"]}}",
            words.join(" "),
            rng.below(12),
        );
    }
    text
}

/// The most memory that was resident so far, in MB; 0 where the system does not say.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

fn git(dir: &Path, args: &[&str]) {
    let done = Command::new("git")
        .current_dir(dir)
        .args(args)
        .status()
        .expect("git runs");
    assert!(done.success());
}
