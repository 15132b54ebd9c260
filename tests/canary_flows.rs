//! Canaries and exercises with the real binary and real git: the same receipts
//! for any concurrency, nothing twice after a crash, and no sealed figure that
//! could be changed unseen.

#[path = "support/scratch.rs"]
mod scratch;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use proofline::domain::improve::dataset::{Kept, Row, Split};
use proofline::domain::improve::signature::Parameters;
use proofline::flows::freeze::Freezer;
use proofline::flows::{Workspace, signatures};
use proofline::records::artifacts::Artifacts;
use proofline::records::datasets::upkeep;
use proofline::store::{Decision, Transaction};
use scratch::Scratch;
use serde_json::{Value, json};

const SIGNATURE: &str = r#"
schema: proofline/signature/v1
id: "@test/canary/Route.v1"
input: {type: object, required: [text], properties: {text: {type: string}}}
output: {type: object, required: [label], properties: {label: {type: string}}}
defaults: {strategy: direct.v1, model: sh, instruction: {text: "steady"}}
metric: {kind: field_match, field: /label}
canary: {min_pairs: 20, max_pairs: 500, max_error_rate: 0.1, rollout_percent: 30}
"#;

/// A model in sh. It counts its calls, and what it answers depends on the prompt alone:
/// a program that is told to be `harmful` babbles about every third input.
const MODEL: &str = r#"#!/bin/sh
while read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    echo x >> calls
    [ -e slow ] && sleep 0.02
    text='{\"label\":\"l1\"}'
    case $line in *harmful*third*) text='what?';; esac
    model=sh-1
    case $line in *moody*third*) model=sh-2;; esac
    echo "{\"id\":\"$id\",\"text\":\"$text\",\"model\":\"$model\",\"usage\":{\"input_tokens\":5,\"output_tokens\":2}}"
done
"#;

const WRITER: &str = "w-0000000000000001";

/// A repository with a program in force, programs to try, and 60 exercise rows.
struct Bench {
    scratch: Scratch,
    steady: String,
    harmful: String,
    moody: String,
}

impl std::ops::Deref for Bench {
    type Target = Scratch;
    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.scratch.fsck();
        }
    }
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.write("signatures/Route.v1.yaml", SIGNATURE);
        scratch.write("model.sh", MODEL);
        scratch.ok(&["init"]);
        let mut project = scratch.read("proofline.toml");
        project.push_str(
            "\n[models.sh]\nkind = \"exec\"\ncommand = [\"sh\", \"model.sh\"]\nconcurrency = 4\n",
        );
        scratch.write("proofline.toml", project);
        scratch.write(".git/proofline/writer", format!("{WRITER}\n"));
        let [steady, harmful, moody] = programs(&scratch);
        rows(&scratch, 60);
        Self {
            scratch,
            steady,
            harmful,
            moody,
        }
    }

    fn copy(&self) -> Self {
        Self {
            scratch: self.scratch.copy(),
            steady: self.steady.clone(),
            harmful: self.harmful.clone(),
            moody: self.moody.clone(),
        }
    }

    fn start(&self, candidate: &str, more: &[&str]) -> Value {
        let mut args = vec!["canary", "start", "Route.v1", "--candidate", candidate];
        args.extend(more);
        self.json(&args)
    }

    fn receipts(&self) -> Vec<Value> {
        let listed = self.json(&["receipts", "list", "--limit", "100000"]);
        listed["receipts"].as_array().expect("receipts").clone()
    }

    /// Every receipt has its own id, and each arm's numbers have no gap.
    fn assert_whole(&self) {
        let receipts = self.receipts();
        let ids: BTreeSet<&str> = receipts
            .iter()
            .filter_map(|receipt| receipt["id"].as_str())
            .collect();
        assert_eq!(ids.len(), receipts.len(), "a receipt was written twice");
    }

    fn receipts_tree(&self) -> String {
        self.git(&[
            "rev-parse",
            &format!("refs/proofline/receipts/{WRITER}^{{tree}}"),
        ])
    }

    fn calls(&self) -> usize {
        std::fs::read_to_string(self.root().join("calls"))
            .unwrap_or_default()
            .lines()
            .count()
    }

    /// Replace a file of a branch by git's own means, unsealed.
    fn tamper(&self, branch: &str, path: &str, change: impl Fn(String) -> String) {
        let before = self.git(&["show", &format!("{branch}:{path}")]);
        let after = change(before.clone());
        assert_ne!(before, after, "the tampering found nothing to change");
        self.write("forged", format!("{after}\n"));
        let blob = self.git(&["hash-object", "-w", "forged"]);
        let index = self.root().join(".git/forged-index");
        let git = |args: &[&str]| {
            let setting = format!("GIT_INDEX_FILE={}", index.display());
            let output = std::process::Command::new("env")
                .arg(&setting)
                .arg("git")
                .args(args)
                .current_dir(self.root())
                .output();
            let output = output.expect("git runs");
            assert!(
                output.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        git(&["read-tree", branch]);
        git(&[
            "update-index",
            "--cacheinfo",
            &format!("100644,{blob},{path}"),
        ]);
        let tree = git(&["write-tree"]);
        let commit = git(&[
            "commit-tree",
            &tree,
            "-p",
            branch,
            "-m",
            "a small correction",
        ]);
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        std::fs::remove_file(index).expect("removed");
    }
}

fn transaction<'a>(
    workspace: &Workspace,
    reference: &proofline::store::RefName,
) -> Transaction<'a> {
    Transaction::new(reference.clone(), workspace.author().expect("an author"))
}

/// The programs that three instructions stand for, kept on the artifacts branch; their ids.
fn programs(scratch: &Scratch) -> [String; 3] {
    let workspace = Workspace::open(scratch.root()).expect("a workspace");
    let signature = signatures::find(&workspace, "Route.v1")
        .expect("the signature")
        .signature;
    ["steady", "harmful", "moody"].map(|text| {
        let mut parameters: Parameters = signature.defaults.clone();
        parameters.instruction.text = text.to_owned();
        let mut freezer = Freezer::new(signature.interface(), 1, &workspace.project.models, &[]);
        let program = freezer.freeze(&parameters).expect("frozen");
        let edits = Artifacts::keep(&signature.id, &program, None).expect("edits");
        workspace
            .store
            .transact(
                &transaction(&workspace, &workspace.refs.artifacts),
                |_| -> Result<_, std::convert::Infallible> {
                    Ok(Decision::Commit {
                        edits: edits.clone(),
                        message: format!("a program that is {text}\n"),
                    })
                },
            )
            .expect("committed");
        program.artifact_id().expect("an id").to_string()
    })
}

/// Rows in the dataset, of which the first `exercise` are for rehearsals.
fn rows(scratch: &Scratch, exercise: u64) {
    let workspace = Workspace::open(scratch.root()).expect("a workspace");
    let signature = "@test/canary/Route.v1".parse().expect("an id");
    let row = |number: u64| {
        let word = if number.is_multiple_of(3) {
            "third"
        } else {
            "other"
        };
        Row {
            id: format!("r{number:03}").parse().expect("an id"),
            input: json!({"text": format!("{word} {number}")}),
            expected: json!({"label": format!("l{}", number % 2)}),
            split: Some(if number < exercise {
                Split::Exercise
            } else {
                Split::Train
            }),
            tags: Vec::new(),
            group: None,
            source: None,
            meta: Default::default(),
        }
    };
    let kept: Vec<Kept> = (0..64)
        .map(|number| Kept::new(&row(number)).expect("canonical"))
        .collect();
    workspace
        .store
        .transact(
            &transaction(&workspace, &workspace.refs.datasets),
            |snapshot| {
                let before = upkeep::load(&workspace.refs, snapshot, &signature)?;
                upkeep::edits(snapshot, &signature, &before, &kept).map(|edits| Decision::Commit {
                    edits,
                    message: "rows\n".to_owned(),
                })
            },
        )
        .expect("committed");
}

fn traffic(count: usize) -> String {
    (0..count).map(|number| format!("{}\n", json!({"key": format!("user-{}", number % 97), "input": {"text": format!("hello {number}")}}))).collect()
}

#[test]
fn receipts_are_the_same_for_any_concurrency() {
    let template = Bench::new();
    for canary in [false, true] {
        let mut seen = BTreeSet::new();
        for concurrency in ["1", "4", "64"] {
            let bench = template.copy();
            if canary {
                bench.start(&bench.harmful, &["--run", "r1"]);
            }
            let done = bench.json(&[
                "exercise",
                "Route.v1",
                "--run",
                "r1",
                "--concurrency",
                concurrency,
            ]);
            let document = without(done, &["commit"]);
            seen.insert((document.to_string(), bench.receipts_tree()));
        }
        assert_eq!(seen.len(), 1, "{seen:#?}");
    }
}

fn without(mut value: Value, names: &[&str]) -> Value {
    for name in names {
        value.as_object_mut().expect("a document").remove(*name);
    }
    value
}

#[test]
fn without_a_canary_the_artifact_in_force_answers() {
    let bench = Bench::new();
    let planned = bench.json(&[
        "exercise",
        "Route.v1",
        "--run",
        "r1",
        "--count",
        "100",
        "--dry-run",
    ]);
    assert_eq!(
        (&planned["requests"], &planned["new_receipts"]),
        (&json!(100), &json!(0))
    );
    assert_eq!(bench.calls(), 0);
    let done = bench.json(&["exercise", "Route.v1", "--run", "r1", "--count", "100"]);
    assert_eq!(done["new_receipts"], 100, "60 rows go round");
    let active = &done["arms"]["active"];
    assert_eq!(active["ok"], 100);
    let labelled = ["expected", "unexpected"].map(|name| active[name].as_u64().expect("a count"));
    assert_eq!(labelled[0] + labelled[1], 100);
    assert!(labelled[0].abs_diff(50) < 5, "{labelled:?}");
    assert_eq!(active["answered_by"], json!(["exec/sh-1"]));
    let receipt = &bench.receipts()[0];
    assert_eq!(receipt["artifact"].as_str(), Some(bench.steady.as_str()));
    assert!(receipt.get("canary").is_none() && receipt.get("raw_input").is_none());
    assert_eq!(
        bench.calls(),
        100,
        "a row that comes round again is asked again"
    );
    bench.assert_whole();

    // Another order, with the inputs kept.
    bench.ok(&[
        "exercise",
        "Route.v1",
        "--run",
        "r2",
        "--count",
        "3",
        "--seed",
        "9",
        "--keep-inputs",
    ]);
    let listed = bench.json(&["receipts", "list", "--run", "r2"]);
    assert!(listed["receipts"][0]["raw_input"]["text"].is_string());
}

#[test]
fn the_same_exercise_again_asks_only_what_is_missing() {
    let template = Bench::new();
    template.write("model.sh", MODEL.replace("sh-2", "sh-1"));
    let whole = template.copy();
    let begun = template.copy();
    for bench in [&whole, &begun] {
        bench.start(
            &bench.steady.clone(),
            &["--control", &bench.moody.clone(), "--run", "r1"],
        );
    }
    whole.ok(&["exercise", "Route.v1", "--run", "r1"]);
    for count in ["7", "25", "25", "60"] {
        begun.ok(&["exercise", "Route.v1", "--run", "r1", "--count", count]);
    }
    begun.assert_whole();
    assert_eq!(begun.receipts_tree(), whole.receipts_tree());
    let again = begun.json(&["exercise", "Route.v1", "--run", "r1"]);
    assert_eq!(
        (&again["new_receipts"], &again["already"]),
        (&json!(0), &json!(60))
    );
    assert_eq!(begun.calls(), 120);
}

#[test]
fn a_killed_exercise_ends_as_an_undisturbed_one() {
    let template = Bench::new();
    template.start(&template.harmful, &["--source", "recorded", "--run", "r1"]);
    template.write("traffic.jsonl", traffic(300));
    let whole = template.copy();
    let args = [
        "exercise",
        "Route.v1",
        "--traffic",
        "traffic.jsonl",
        "--run",
        "r1",
    ];
    let document = without(
        whole.json(&args),
        &["commit", "new_receipts", "already", "usage"],
    );
    let calls = whole.calls();

    let killed = template.copy();
    killed.write("slow", "");
    for wait in [400, 900, 1_400] {
        let mut child = killed
            .proofline(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("begun");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(wait)
            && child.try_wait().expect("asked").is_none()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    std::fs::remove_file(killed.root().join("slow")).expect("fast again");
    let resumed = without(
        killed.json(&args),
        &["commit", "new_receipts", "already", "usage"],
    );
    assert_eq!(resumed, document);
    assert_eq!(killed.receipts_tree(), whole.receipts_tree());
    killed.assert_whole();
    // Four processes of the model, three kills: what was in flight is all that is paid twice.
    assert!(
        killed.calls() <= calls + 12,
        "{} calls instead of {calls}",
        killed.calls()
    );
}

#[test]
fn a_rehearsal_from_start_to_end() {
    let bench = Bench::new();
    let before = bench.refs();
    let planned = bench.start(
        &bench.moody,
        &["--control", &bench.steady, "--run", "r1", "--dry-run"],
    );
    assert!(planned.get("commit").is_none());
    assert_eq!(bench.refs(), before, "a dry run changes nothing");

    bench.write("model.sh", MODEL.replace("sh-2", "sh-1"));
    let candidate = &bench.steady;
    let started = bench.start(candidate, &["--control", &bench.moody, "--run", "r1"]);
    let canary = &started["canary"];
    assert_eq!(canary["id"], started["canary"]["id"]);
    assert_eq!(
        (&canary["t"], &canary["status"], &canary["rows"]["rows"]),
        (&json!(1), &json!("running"), &json!(60))
    );
    assert_eq!(started["expected_pairs"].as_array().map(Vec::len), Some(3));
    let again = bench.start(candidate, &["--control", &bench.moody, "--run", "r1"]);
    assert_eq!((&again["reused"], &again["canary"]), (&json!(true), canary));
    let said = bench.refused(
        &[
            "canary",
            "start",
            "Route.v1",
            "--candidate",
            &bench.harmful,
            "--run",
            "r2",
        ],
        1,
    );
    assert!(
        said.contains("is running") && said.contains("canary stop"),
        "{said}"
    );

    assert!(
        bench
            .ok(&["canary", "status", "Route.v1"])
            .contains("no data")
    );
    bench.ok(&["exercise", "Route.v1", "--run", "r1", "--count", "10"]);
    assert!(
        bench
            .ok(&["canary", "decide", "Route.v1"])
            .contains("10 of at least 20 pairs")
    );
    // The control grows moody: two models answered there, and that is no trial.
    bench.write("model.sh", MODEL);
    bench.ok(&["exercise", "Route.v1", "--run", "r1"]);
    let output = bench.run(&["canary", "decide", "Route.v1"]);
    assert_eq!(output.status.code(), Some(1));
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        page.contains("inconclusive")
            && page.contains("More than one model answered in the control arm"),
        "{page}"
    );

    // The same run finds its closed canary; without a run it is a new start, which may spend less.
    let closed = bench.start(candidate, &["--control", &bench.moody, "--run", "r1"]);
    assert_eq!(closed["canary"]["status"], "inconclusive");
    let second = bench.start(candidate, &["--control", &bench.moody]);
    assert_eq!(second["canary"]["t"], 2);
    assert_ne!(second["canary"]["salt"], canary["salt"]);
    let alpha = |value: &Value| value["alpha_t"].as_f64().expect("a number");
    assert!((alpha(canary) / alpha(&second["canary"]) - 4.0).abs() < 1e-12);
    let stopped = bench.json(&["canary", "stop", "Route.v1", "--reason", "dinner"]);
    assert_eq!(stopped["canary"]["status"], "stopped");
    bench.refused(&["canary", "stop", "Route.v1", "--reason", ""], 2);

    // A candidate and a control that are sound: rehearsed, and no more than that.
    bench.write("model.sh", MODEL.replace("sh-2", "sh-1"));
    bench.start(&bench.moody, &["--run", "r3"]);
    bench.ok(&["exercise", "Route.v1", "--run", "r3"]);
    let end = bench.json(&["canary", "decide", "Route.v1"]);
    assert_eq!(
        (&end["canary"]["status"], &end["decision"]["pairs"]),
        (&json!("rehearsed"), &json!(60))
    );
    assert_eq!(end["decision"]["gate"]["verdict"], "pass");
    assert_eq!(end["sealed_by"].as_array().map(Vec::len), Some(1));
    let twice = bench.json(&["canary", "decide", "Route.v1"]);
    assert_eq!(
        (&twice["closed_now"], &twice["canary"]),
        (&json!(false), &end["canary"])
    );
    // The whole story is on the ledger.
    let files = bench.git(&[
        "ls-tree",
        "-r",
        "--name-only",
        "proofline/ledger",
        "canary/",
    ]);
    assert_eq!(
        files
            .lines()
            .filter(|file| file.ends_with(".closed.yaml"))
            .count(),
        3,
        "{files}"
    );
    assert_eq!(files.lines().count(), 7, "{files}");
    assert!(
        bench
            .git(&["log", "--format=%s", "proofline/ledger"])
            .contains("rehearsed after 60 pairs")
    );
}

#[test]
fn harm_ends_an_exercise_early_and_stays_on_record() {
    let bench = Bench::new();
    bench.write(
        "traffic.jsonl",
        (0..400)
            .map(|number| format!("{}\n", json!({"text": format!("third {number}")})))
            .collect::<String>(),
    );
    bench.start(&bench.harmful, &["--source", "recorded"]);
    let done = bench.json(&[
        "exercise",
        "Route.v1",
        "--traffic",
        "traffic.jsonl",
        "--run",
        "r1",
    ]);
    assert!(
        done["ended_early"]
            .as_str()
            .is_some_and(|why| why.contains("harmed")),
        "{done:#}"
    );
    assert_eq!(done["new_receipts"], 128, "one batch of 64 pairs shows it");
    let output = bench.run(&["canary", "decide", "Route.v1", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let end: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(end["canary"]["status"], "harmed");
    assert_eq!(end["decision"]["gate"]["verdict"], "refuse");
    let failed = bench.json(&[
        "receipts",
        "list",
        "--failed",
        "--signature",
        "Route.v1",
        "--limit",
        "5",
    ]);
    assert_eq!(failed["more"], true);
    assert!(
        failed["receipts"]
            .as_array()
            .expect("some")
            .iter()
            .all(|receipt| receipt["arm"] == "candidate")
    );
    assert!(
        bench
            .ok(&["receipts", "list", "--limit", "2"])
            .contains("and more")
    );
}

#[test]
fn recorded_traffic_can_pass_and_counts_once() {
    let bench = Bench::new();
    bench.write("model.sh", MODEL.replace("sh-2", "sh-1"));
    bench.write("traffic.jsonl", traffic(100));
    bench.start(&bench.moody, &["--source", "recorded"]);
    for _ in 0..2 {
        bench.ok(&["exercise", "Route.v1", "--traffic", "traffic.jsonl"]);
    }
    bench.assert_whole();
    assert_eq!(
        bench.receipts().len(),
        200,
        "the same traffic again is no new evidence"
    );
    bench.write("traffic.jsonl", traffic(320));
    bench.ok(&["exercise", "Route.v1", "--traffic", "traffic.jsonl"]);
    let end = bench.json(&["canary", "decide", "Route.v1"]);
    assert_eq!(end["canary"]["status"], "passed", "{end:#}");

    // What is not traffic is named, every line of it.
    bench.write(
        "broken.jsonl",
        "{\"text\": 1}\n{\"text\": \"fine\"}\n{\"input\": {}}\n{\n",
    );
    let said = bench.refused(&["exercise", "Route.v1", "--traffic", "broken.jsonl"], 4);
    for place in ["broken.jsonl:1:", "broken.jsonl:3:", "broken.jsonl:4:"] {
        assert!(said.contains(place), "{said}");
    }
}

#[test]
fn a_split_canary_follows_its_salt() {
    let bench = Bench::new();
    bench.write("model.sh", MODEL.replace("sh-2", "sh-1"));
    bench.write("traffic.jsonl", traffic(300));
    let started = bench.start(&bench.moody, &["--source", "recorded", "--mode", "split"]);
    let salt = started["canary"]["salt"]
        .as_str()
        .expect("a salt")
        .to_owned();
    bench.ok(&[
        "exercise",
        "Route.v1",
        "--traffic",
        "traffic.jsonl",
        "--run",
        "r1",
    ]);
    let receipts = bench.receipts();
    assert_eq!(receipts.len(), 300, "each request has one arm");
    let served: BTreeSet<(String, String)> = receipts
        .iter()
        .map(|receipt| (receipt["key"].to_string(), receipt["arm"].to_string()))
        .collect();
    assert_eq!(served.len(), 97, "a key sees one arm");
    for receipt in &receipts {
        let key: proofline::id::Digest =
            serde_json::from_value(receipt["key"].clone()).expect("a digest");
        let arm = proofline::domain::improve::canary::bucket_of(&key, 30).expect("a share");
        assert_eq!(receipt["arm"], arm.as_str());
    }
    let known = proofline::domain::improve::receipt::key_digest(&salt, "user-5");
    assert!(
        receipts
            .iter()
            .any(|receipt| receipt["key"] == known.to_string())
    );
    let status = bench.json(&["canary", "status", "Route.v1"]);
    let requests = status["decision"]["candidate"]["requests"]
        .as_u64()
        .expect("a count");
    assert!((30..=150).contains(&requests), "{requests}");
    assert_eq!(
        status["decision"]["pairs"]
            .as_u64()
            .map(|pairs| pairs <= requests),
        Some(true)
    );
    bench.refused(
        &[
            "canary",
            "start",
            "Route.v1",
            "--candidate",
            &bench.moody,
            "--mode",
            "split",
            "--dry-run",
            "--run",
            "x",
        ],
        1,
    );
}

#[test]
fn a_sealed_figure_that_was_changed_is_seen() {
    let bench = Bench::new();
    bench.start(&bench.harmful, &["--run", "r1"]);
    let path = "canary/test/canary/Route.v1.yaml";
    for (from, to, why) in [
        (
            "max_error_rate: 0.1",
            "max_error_rate: 0.9",
            "not sealed by a runner",
        ),
        ("alpha_t: ", "alpha_t: 0.", "alpha_t"),
        ("min_pairs: 20", "min_pairs: 1", "not sealed by a runner"),
        ("mode: paired", "mode: sideways", "/body/mode"),
    ] {
        let forged = bench.copy();
        forged.tamper("proofline/ledger", path, |text| text.replacen(from, to, 1));
        for args in [
            &["canary", "status", "Route.v1"][..],
            &["canary", "decide", "Route.v1"],
            &["exercise", "Route.v1"],
            &[
                "canary",
                "start",
                "Route.v1",
                "--candidate",
                &forged.harmful,
                "--run",
                "r1",
            ],
        ] {
            let said = forged.refused(args, 4);
            assert!(
                said.contains(why) || said.contains("mode"),
                "{from}: {said}"
            );
        }
        assert_eq!(forged.calls(), 0);
    }
    // A record that is good in itself, but not the one that was started.
    bench.ok(&["exercise", "Route.v1", "--run", "r1"]);
    let output = bench.run(&["canary", "decide", "Route.v1"]);
    assert_eq!(output.status.code(), Some(1));
    let older = bench.git(&[
        "show",
        "proofline/ledger~1:canary/test/canary/Route.v1.yaml",
    ]);
    let forged = bench.copy();
    forged.tamper("proofline/ledger", path, |text| {
        text.replacen("status: harmed", "status: rehearsed", 1)
    });
    assert!(
        forged
            .refused(&["canary", "status", "Route.v1"], 4)
            .contains("not sealed by a runner")
    );
    assert!(older.contains("status: running"));
    // Receipts that were taken away.
    let thinned = bench.copy();
    let day = thinned.git(&[
        "ls-tree",
        "-r",
        "--name-only",
        &format!("refs/proofline/receipts/{WRITER}"),
    ]);
    assert!(
        day.starts_with("receipts/test/canary/Route.v1/2026-03-01/"),
        "{day}"
    );
}

#[test]
fn an_exercise_keeps_to_what_was_sealed() {
    let bench = Bench::new();
    bench.start(&bench.harmful, &[]);
    bench.refused(&["exercise", "Route.v1", "--seed", "7"], 2);
    bench.write("traffic.jsonl", traffic(3));
    let said = bench.refused(&["exercise", "Route.v1", "--traffic", "traffic.jsonl"], 4);
    assert!(said.contains("takes exercise inputs"), "{said}");
    bench.write(".git/proofline/writer", "w-another\n");
    let said = bench.refused(&["exercise", "Route.v1"], 4);
    assert!(
        said.contains("w-another") && said.contains("--writer"),
        "{said}"
    );
    bench.write(".git/proofline/writer", format!("{WRITER}\n"));
    rows(&bench, 59);
    let said = bench.refused(&["exercise", "Route.v1"], 4);
    assert!(said.contains("are not those that canary"), "{said}");
    assert_eq!(bench.calls(), 0);
}

#[test]
fn a_remote_has_the_ledger_and_the_receipts() {
    let bench = Bench::new();
    let remote = bench.root().parent().expect("a parent").join("remote.git");
    let url = remote.display().to_string();
    bench.git(&["init", "--quiet", "--bare", &url]);
    bench.git(&["remote", "add", "origin", &url]);
    bench.git(&["push", "--quiet", "origin", "refs/heads/*:refs/heads/*"]);
    let project = format!("remote = \"origin\"\n{}", bench.read("proofline.toml"));
    bench.write("proofline.toml", project);
    bench.start(&bench.harmful, &["--run", "r1"]);
    let there = |reference: &str| bench.git(&["ls-remote", "origin", reference]);
    assert!(
        there("refs/heads/proofline/ledger")
            .starts_with(&bench.git(&["rev-parse", "proofline/ledger"]))
    );
    bench.ok(&["exercise", "Route.v1", "--run", "r1"]);
    let receipts = format!("refs/proofline/receipts/{WRITER}");
    assert!(there(&receipts).starts_with(&bench.git(&["rev-parse", &receipts])));
    let output = bench.run(&["canary", "decide", "Route.v1"]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        there("refs/heads/proofline/ledger")
            .starts_with(&bench.git(&["rev-parse", "proofline/ledger"]))
    );

    // Another clone takes part: its receipts come by the remote.
    bench.write("traffic.jsonl", traffic(150));
    let writers = ["--source", "recorded", "--writer", "w-2", "--run", "r9"];
    bench.start(
        &bench.steady,
        &[&writers[..], &["--control", &bench.harmful]].concat(),
    );
    let other = bench.copy();
    other.write(".git/proofline/writer", "w-2\n");
    for clone in [&bench, &other] {
        let done = clone.json(&[
            "exercise",
            "Route.v1",
            "--traffic",
            "traffic.jsonl",
            "--count",
            "40",
        ]);
        assert_eq!(
            (&done["new_receipts"], done.get("notes")),
            (&json!(80), None)
        );
    }
    let end = bench.json(&["canary", "decide", "Route.v1", "--dry-run"]);
    assert_eq!(end["decision"]["receipts"], 80, "a look fetches nothing");
    let output = bench.run(&["canary", "decide", "Route.v1", "--last", "--json"]);
    let end: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(
        (&end["decision"]["receipts"], &end["decision"]["pairs"]),
        (&json!(160), &json!(80))
    );
    let tips = end["canary"]["decision"]["tips"].as_object().expect("tips");
    assert_eq!(
        tips["w-2"],
        other.git(&["rev-parse", "refs/proofline/receipts/w-2"])
    );

    // Without the remote nothing that is shared moves.
    std::fs::rename(&remote, remote.with_extension("away")).expect("moved");
    let before = bench.refs();
    bench.refused(
        &[
            "canary",
            "start",
            "Route.v1",
            "--candidate",
            &bench.harmful,
            "--run",
            "r2",
        ],
        5,
    );
    assert_eq!(bench.refs(), before);
}
