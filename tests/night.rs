//! Whole nights with the real binary: what they come to, what git says about
//! it, and that a killed night, resumed, ends as an undisturbed one.

#[path = "support/scratch.rs"]
mod scratch;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use scratch::Scratch;
use serde_json::Value;

/// A small signature that a search can improve: it begins with a twelfth of the rows.
const SIGNATURE: &str = r#"
schema: proofline/signature/v1
id: "@test/night/Route.v1"
input: {type: object, required: [text], properties: {text: {type: string}}}
output: {type: object, required: [label], properties: {label: {type: string}}}
defaults:
  strategy: distilled.lexical.v1
  lexical: {train_rows_max: 12}
metric: {kind: field_match, field: /label}
job:
  optimizer: knobs_grid.v1
  seed: 3
  space:
    lexical_variants:
      - {train_rows_max: null}
      - {train_rows_max: null, char_ngram_max: 0}
canary: {min_pairs: 20, harm_margin: 0.05}
"#;

const POLICY: &str = "
canary: {rehearsal_is_enough: true}
promotion: {mode: direct, skipped_gate: pass}
";

/// Rows that are hard with twelve examples and easy with all: each label has many
/// words of its own, and a row holds two of them among common words.
fn rows() -> String {
    let mut random = 1_u64;
    let mut below = |n: u64| {
        // Splitmix64, so that the rows are the same everywhere.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    };
    let syllables = [
        "ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "ze",
    ];
    let word = |label: u64, number: u64| {
        let code = 7 * (label * 40 + number) + 1;
        [code / 144, code / 12, code]
            .map(|part| syllables[(part % 12) as usize])
            .concat()
    };
    let common = [
        "please", "now", "the", "a", "for", "me", "today", "could", "you",
    ];
    let mut lines = String::new();
    let splits = [
        ("train", 144),
        ("dev", 80),
        ("holdout", 160),
        ("exercise", 40),
    ];
    let mut id = 0;
    for (split, count) in splits {
        for _ in 0..count {
            let label = id % 4;
            let text = format!(
                "{} {} {} {} r{id}",
                common[below(9) as usize],
                word(label, below(40)),
                common[below(9) as usize],
                word(label, below(40)),
            );
            lines.push_str(&format!(
                "{}\n",
                serde_json::json!({
                    "id": format!("r{id:04}"), "input": {"text": text}, "expected": {"label": format!("l{label}")}, "split": split,
                })
            ));
            id += 1;
        }
    }
    lines
}

/// A repository that is ready for its first night.
fn ready() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("signatures/Route.v1.yaml", SIGNATURE);
    scratch.write("policy.yaml", POLICY);
    scratch.write("rows.jsonl", rows());
    scratch.ok(&["init", "--policy", "policy.yaml"]);
    scratch.ok(&["dataset", "import", "rows.jsonl", "--signature", "Route.v1"]);
    // The same in every copy, as in one clone that is used twice.
    scratch.write(".git/proofline/writer", "w-0000000000000001\n");
    scratch
}

/// What matters of a repository after a night: the trees of every branch but the
/// journal, and the run's record without what tells how it got there.
fn state(scratch: &Scratch) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for line in scratch.refs().lines() {
        let (name, _) = line.split_once(' ').expect("a ref and its object");
        if !name.ends_with("/journal") {
            state.insert(
                name.to_owned(),
                scratch.git(&["rev-parse", &format!("{name}^{{tree}}")]),
            );
        }
    }
    let mut run = scratch.json(&["runs", "show", "night-1"]);
    let result = run.pointer_mut("/run/result").expect("a result").take();
    state.insert("result".to_owned(), without_reused(result).to_string());
    state
}

fn without_reused(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.remove("reused");
            for member in members.values_mut() {
                *member = without_reused(member.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = without_reused(item.take());
            }
        }
        _ => {}
    }
    value
}

#[test]
fn a_night_promotes_and_the_next_finds_nothing_better() {
    let scratch = ready();
    let head = scratch.git(&["status", "--porcelain"]);
    let night = scratch.json(&["overnight", "--run", "night-1"]);
    assert_eq!(
        night["signatures"][0]["conclusion"], "promoted",
        "{night:#}"
    );
    assert_eq!(
        scratch.git(&["status", "--porcelain"]),
        head,
        "the work tree is as it was"
    );

    // Git is the second opinion.
    let signers = scratch.root().join(".git/proofline/allowed_signers");
    let setting = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    scratch.git(&["-c", &setting, "verify-commit", "proofline/control"]);
    scratch.ok(&["promotions", "show", "Route.v1"]);
    scratch.ok(&["runs", "verify", "night-1"]);

    let resolved = scratch.json(&["resolve", "Route.v1"]);
    assert_eq!(resolved["artifact"], night["signatures"][0]["candidate"]);

    let second = scratch.json(&["overnight", "--run", "night-2"]);
    assert_eq!(
        second["signatures"][0]["conclusion"], "no_change",
        "{second:#}"
    );
    assert_eq!(second["signatures"][0]["control"], resolved["artifact"]);
    scratch.fsck();
}

#[test]
fn the_same_rows_and_job_give_the_same_report_in_any_repository() {
    let keys = |scratch: &Scratch| {
        let compiled = scratch.json(&["compile", "Route.v1"]);
        (
            compiled["key"].clone(),
            compiled["report"].clone(),
            compiled["reused"].clone(),
        )
    };
    let (one, other) = (ready(), ready());
    let (first, second) = (keys(&one), keys(&other));
    assert_eq!(first, second);
    let again = keys(&one);
    assert_eq!((again.0, again.1), (first.0, first.1));
    assert_eq!((first.2, again.2), (Value::from(false), Value::from(true)));
}

#[test]
fn a_dry_run_changes_nothing() {
    let scratch = ready();
    let before = scratch.refs();
    let said = scratch.ok(&["overnight", "--dry-run"]);
    assert!(
        said.contains("knobs_grid.v1") && said.contains("α_t"),
        "{said}"
    );
    assert_eq!(scratch.refs(), before);
}

#[test]
fn a_run_id_is_used_once() {
    let scratch = ready();
    scratch.ok(&["overnight", "--run", "night-1", "--no-promote"]);
    scratch.refused(&["overnight", "--run", "night-1"], 2);
    scratch.refused(&["overnight", "--resume", "night-1"], 2);
    scratch.refused(&["overnight", "--resume", "night-9"], 2);
}

/// Kill nights at many moments and resume each until it ends.
fn kill_and_resume(times: u64) {
    let template = ready();
    let undisturbed = template.copy();
    let began = std::time::Instant::now();
    undisturbed.ok(&["overnight", "--run", "night-1"]);
    let length = began.elapsed();
    let wanted = state(&undisturbed);
    assert!(wanted["result"].contains("promoted"), "{wanted:?}");
    for time in 0..times {
        let scratch = template.copy();
        // Moments spread over the night, a little past its end included.
        let moment = length.mul_f64(1.05 * (time as f64 + 0.5) / times as f64);
        let mut child = scratch
            .proofline(&["overnight", "--run", "night-1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        std::thread::sleep(moment.max(Duration::from_millis(1)));
        child.kill().expect("it can be killed, or has ended");
        child.wait().expect("it ends");
        let resumed = scratch.run(&["overnight", "--resume", "night-1"]);
        match resumed.status.code() {
            Some(0) => {}
            // Killed before it began, or after it had ended.
            Some(2) => {
                let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
                if said.contains("no run") {
                    scratch.ok(&["overnight", "--run", "night-1"]);
                } else {
                    assert!(said.contains("is finished"), "{said}");
                }
            }
            other => panic!(
                "killed after {moment:?}, the resumed night ended with {other:?}\n{}",
                String::from_utf8_lossy(&resumed.stderr)
            ),
        }
        assert_eq!(state(&scratch), wanted, "killed after {moment:?}");
        scratch.fsck();
    }
}

#[test]
fn a_killed_night_ends_as_an_undisturbed_one() {
    kill_and_resume(20);
}

#[test]
#[ignore = "two hundred nights take minutes; run once before a release"]
fn two_hundred_killed_nights_end_as_undisturbed_ones() {
    kill_and_resume(200);
}
