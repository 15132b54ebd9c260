//! What else can be done with a dataset, with the real binary: split, export,
//! show, diff, stats; and the signatures they belong to.

#[path = "support/rows.rs"]
mod rows;
#[path = "support/scratch.rs"]
mod scratch;

use std::collections::{BTreeMap, BTreeSet};

use rows::{ID, dataset, project, rows};
use scratch::Scratch;
use serde_json::Value;

fn with(short: &[&str]) -> Scratch {
    let scratch = project();
    scratch.write("rows.jsonl", rows(short));
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    scratch
}

/// Two hundred rows without a split, in three labels, every fifth pair of them paraphrases.
fn many() -> Scratch {
    let scratch = project();
    let text: String = (0..200)
        .map(|row| {
            let group = if row % 10 < 2 {
                format!("g{}", row / 10)
            } else {
                String::new()
            };
            rows(&[&format!(
                "r{row:03}:text number {row}:{}::{group}",
                ["a", "b", "c"][row / 10 % 3]
            )])
        })
        .collect();
    scratch.write("rows.jsonl", text);
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    scratch
}

const RATIOS: &str = "train=0.5,dev=0.2,holdout=0.3";

#[test]
fn a_split_is_seeded_stratified_and_keeps_groups_together() {
    let scratch = many();
    let plan = scratch.json(&[
        "dataset",
        "split",
        "--ratios",
        RATIOS,
        "--seed",
        "7",
        "--dry-run",
    ]);
    assert!(plan.get("commit").is_none());
    let done = scratch.json(&["dataset", "split", "--ratios", RATIOS, "--seed", "7"]);
    assert_eq!(done["rows"], plan["rows"]);
    assert!(done["commit"].is_string());
    // Per label and split, in groups: within one of the share (a group here has one label).
    let export = scratch.ok(&["dataset", "export", "--include-holdout"]);
    let mut units: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut per_group: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in export.lines() {
        let row: Value = serde_json::from_str(line).expect("a row");
        let split = row["split"].as_str().unwrap_or("none").to_owned();
        let unit = row["group"]
            .as_str()
            .unwrap_or(row["id"].as_str().expect("an id"))
            .to_owned();
        per_group
            .entry(unit.clone())
            .or_default()
            .insert(split.clone());
        let label = row["expected"]["label"]
            .as_str()
            .expect("a label")
            .to_owned();
        units
            .entry(label)
            .or_default()
            .entry(split)
            .or_default()
            .insert(unit);
    }
    for splits in units.values() {
        let total: BTreeSet<&String> = splits.values().flatten().collect();
        for (split, share) in [("train", 0.5), ("dev", 0.2), ("holdout", 0.3)] {
            let off = splits[split].len() as f64 - share * total.len() as f64;
            assert!(off.abs() < 1.0 + 1e-6, "{split} is off by {off}");
        }
    }
    for (group, splits) in per_group {
        assert!(
            splits.len() == 1
                || splits == BTreeSet::from(["holdout".to_owned(), "none".to_owned()]),
            "{group}: {splits:?}"
        );
    }
    let kept_out = done["kept_out"].as_array().expect("a list");
    assert!(
        !kept_out.is_empty()
            && kept_out
                .iter()
                .all(|row| row["reason"] == "group_in_holdout")
    );
    // Asking again changes nothing; the same seed elsewhere gives the same dataset.
    let again = scratch.ok(&["dataset", "split", "--ratios", RATIOS, "--seed", "8"]);
    assert!(again.contains("nothing to change"), "{again}");
    let other = many();
    other.ok(&["dataset", "split", "--ratios", RATIOS, "--seed", "7"]);
    assert_eq!(dataset(&scratch), dataset(&other));
    // Importing the rows again, which name no split, keeps what was assigned.
    let refs = scratch.refs();
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    assert_eq!(scratch.refs(), refs);
    // Drawing again moves open rows only.
    let again = scratch.json(&[
        "dataset",
        "split",
        "--ratios",
        "train=1,exercise=1",
        "--seed",
        "9",
        "--reassign",
    ]);
    for moves in again["moves"].as_array().expect("a list") {
        assert!(
            moves["from"] != "holdout" && moves["to"] != "holdout",
            "{moves}"
        );
    }
    assert_eq!(again["rows"]["holdout"], done["rows"]["holdout"]);
    scratch.fsck();
}

#[test]
fn a_split_says_what_is_wrong() {
    let scratch = project();
    for (args, code, word) in [
        (&["dataset", "split", "--ratios", RATIOS][..], 4, "no rows"),
        (
            &["dataset", "split", "--ratios", "tran=1"],
            2,
            "not a split",
        ),
        (&["dataset", "split"], 2, "--ratios"),
        (
            &[
                "dataset",
                "split",
                "--ratios",
                RATIOS,
                "--stratify-by",
                "label",
            ],
            2,
            "write `/label`",
        ),
    ] {
        let said = scratch.refused(args, code);
        assert!(said.contains(word), "no `{word}` in {said}");
    }
}

#[test]
fn what_holdout_rows_say_is_withheld() {
    let scratch = with(&[
        "1:open text:a:train",
        "2:secret text:b:holdout",
        "3:other text:a:dev",
    ]);
    for args in [
        &["dataset", "export"][..],
        &["dataset", "export", "--split", "holdout"],
        &["dataset", "show", "2"],
        &["dataset", "show", "--split", "holdout"],
    ] {
        let said = scratch.refused(args, 2);
        assert!(
            said.contains("--include-holdout") && !said.contains("secret"),
            "{said}"
        );
        assert!(
            scratch
                .ok(&[args, &["--include-holdout"]].concat())
                .contains("secret")
        );
    }
    scratch.write(
        "rows.jsonl",
        rows(&["2:secret words:b:holdout", "4:secret too:c:holdout"]),
    );
    for page in [
        scratch.ok(&["dataset", "import", "rows.jsonl", "--dry-run"]),
        scratch.ok(&["dataset", "import", "rows.jsonl"]),
        scratch.ok(&["dataset", "diff"]),
        scratch.ok(&["dataset", "diff", "--json"]),
        scratch.ok(&["dataset", "show"]),
        scratch.ok(&["dataset", "stats", "--by", "/nothing"]),
        scratch.ok(&["dataset", "export", "--split", "train"]),
    ] {
        assert!(!page.contains("secret"), "{page}");
    }
    let page = scratch.ok(&["dataset", "diff", "--include-holdout"]);
    assert!(
        page.contains("/input/text: secret [-text-]{+words+}"),
        "{page}"
    );
    assert!(
        page.contains("+ 4 (holdout) {\"text\":\"secret too\"}"),
        "{page}"
    );
}

#[test]
fn diff_between_states() {
    let scratch = with(&["1:one text:a:train", "2:two:b:train"]);
    scratch.write("rows.jsonl", rows(&["1:one word:b:dev", "3:three:c:train"]));
    scratch.ok(&["dataset", "import", "rows.jsonl", "--prune"]);
    let page = scratch.ok(&["dataset", "diff"]);
    for words in [
        "1 added\n+ 3 (train)",
        "1 removed\n- 2 (train)",
        "~ 1 (dev)",
        "/expected/label: \"a\" → \"b\"",
        "/input/text: one [-text-]{+word+}",
        "/split: \"train\" → \"dev\"",
    ] {
        assert!(page.contains(words), "no `{words}` in {page}");
    }
}

#[test]
fn diff_names_revisions() {
    let scratch = with(&["1:one:a:train"]);
    let first = scratch.json(&["dataset", "diff"]);
    assert_eq!(
        (
            first["old"].clone(),
            first["added"].as_array().map(Vec::len)
        ),
        (Value::Null, Some(1))
    );
    scratch.write("rows.jsonl", rows(&["2:two:a:dev"]));
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    for args in [
        &["dataset", "diff", "~1"][..],
        &[
            "dataset",
            "diff",
            "proofline/datasets^",
            "proofline/datasets",
        ],
        &["dataset", "diff", "@{1}"],
    ] {
        let found = scratch.json(args);
        assert_eq!(found["added"][0]["id"], "2", "{args:?}");
    }
    assert!(
        scratch
            .refused(&["dataset", "diff", "~9"], 4)
            .contains("`~9`")
    );
    assert!(
        scratch
            .ok(&["dataset", "diff", "~0"])
            .contains("No row differs.")
    );
}

#[test]
fn stats_and_show() {
    let scratch = with(&["1:x:a:train", "2:y:a:dev", "3:z:b:holdout", "4:q:c:"]);
    let page = scratch.ok(&["dataset", "stats", "--by", "/label"]);
    for words in [
        "train       1     1",
        "unassigned  1     1",
        "\"a\"    2     1      1    0        0",
        "Data gate: refuse: there are 3 rows in its splits; at least 30 are asked for",
    ] {
        assert!(page.contains(words), "no `{words}` in {page}");
    }
    let stats = scratch.json(&["dataset", "stats"]);
    assert_eq!(
        (
            stats["gate"]["verdict"].clone(),
            stats["provable"]["needed"][1]["rows"].clone()
        ),
        ("refuse".into(), 233.into())
    );
    let page = scratch.ok(&["dataset", "show"]);
    assert!(page.contains("1 row in holdout and not shown."), "{page}");
    let page = scratch.ok(&["dataset", "show", "1"]);
    assert!(page.starts_with("id        1\nsplit     train\n"), "{page}");
    assert!(
        scratch
            .ok(&["dataset", "show", "--limit", "1"])
            .contains("… and 2 more")
    );
    let said = scratch.refused(&["dataset", "show", "11"], 4);
    assert!(said.contains("no row `11`"), "{said}");
}

#[test]
fn exports_come_back_in() {
    let scratch = project();
    let text = concat!(
        r#"{"id":"1","input":{"text":"a, \"b\"\n;","n":-3},"expected":{"label":"a"},"split":"train","tags":["x","y z"],"group":"g","source":" s ","meta":{"k":[1,{"z":null}]}}"#,
        "\n",
        r#"{"id":"2","input":{"text":""},"expected":{"label":"b"},"split":"holdout"}"#,
        "\n",
        r#"{"id":"3","input":{"text":"\u0000\u2028é"},"expected":{"label":"c"}}"#,
        "\n"
    );
    scratch.write("rows.jsonl", text);
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    for format in ["jsonl", "json", "csv"] {
        let text = scratch.ok(&["dataset", "export", "--include-holdout", "--format", format]);
        let other = project();
        let name = format!("rows.{format}");
        other.write(&name, &text);
        other.ok(&["dataset", "import", &name]);
        assert_eq!(dataset(&other), dataset(&scratch), "{format}\n{text}");
        let again = other.ok(&["dataset", "export", "--include-holdout", "--format", format]);
        assert_eq!(again, text);
    }
    scratch.write("rows.jsonl", text.replace("y z", "y;z"));
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    let said = scratch.refused(
        &["dataset", "export", "--include-holdout", "--format", "csv"],
        4,
    );
    assert!(
        said.contains("`y;z`") && said.contains("--format jsonl"),
        "{said}"
    );
}

#[test]
fn large_datasets_are_cut_into_shards() {
    let scratch = project();
    let text: String = (0..3_000)
        .map(|row| {
            rows(&[&format!(
                "r{row:05}:this is the text of row {row}, made up for a test:a:{}",
                if row % 3 == 0 { "dev" } else { "train" }
            )])
        })
        .collect();
    scratch.write("rows.jsonl", &text);
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    let files = |commit: &str| scratch.git(&["ls-tree", "-r", "--name-only", commit]);
    assert!(
        files("proofline/datasets")
            .lines()
            .filter(|path| path.contains("/train/"))
            .count()
            > 2
    );
    // One changed row changes one shard, the description and the register.
    scratch.write(
        "rows.jsonl",
        text.replacen("text of row 1000,", "changed text of row 1000,", 1),
    );
    scratch.ok(&["dataset", "import", "rows.jsonl"]);
    let changed = scratch.git(&[
        "diff",
        "--name-only",
        "proofline/datasets~1",
        "proofline/datasets",
    ]);
    assert!(changed.lines().count() <= 4, "{changed}");
    scratch.fsck();
}

#[test]
fn signatures_are_found_shown_and_checked() {
    let scratch = project();
    assert!(
        scratch
            .ok(&["signature", "list"])
            .starts_with(&format!("{ID}  {}  Where a message goes.", rows::FILE))
    );
    let shown = scratch.json(&["signature", "show", "Route.v1"]);
    assert_eq!(
        (shown["signature"]["id"].clone(), shown["file"].clone()),
        (ID.into(), rows::FILE.into())
    );
    assert_eq!(
        shown["signature"]["canary"]["min_pairs"], 40,
        "defaults are filled in"
    );
    scratch.ok(&["signature", "check"]);
    // A second id in other case, and a fault elsewhere: all at once, each in its place.
    scratch.write(
        "signatures/b.yaml",
        rows::SIGNATURE.replace("Route", "route"),
    );
    scratch.write(
        "signatures/c.yaml",
        rows::SIGNATURE
            .replace("Route.v1", "Other.v1")
            .replace("metric:", "metrik:"),
    );
    let said = scratch.refused(&["signature", "check"], 4);
    for words in [
        "signatures/b.yaml:2:5",
        "also the id of another file",
        "Route.v1.yaml:2",
        "signatures/c.yaml:14:1",
        "did you mean `metric`",
    ] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    // A fault about another signature does not stand in the way, one about this id does.
    let said = scratch.refused(
        &["dataset", "import", "rows.jsonl", "--signature", "Route.v1"],
        4,
    );
    assert!(said.contains("also the id of another file"), "{said}");
    scratch.write(
        "signatures/b.yaml",
        rows::SIGNATURE.replace("Route", "Second"),
    );
    scratch.write("rows.jsonl", rows(&["1:x:a:train"]));
    scratch.ok(&["dataset", "import", "rows.jsonl", "--signature", "Route.v1"]);
    scratch.write(
        "signatures/c.yaml",
        rows::SIGNATURE.replace("Route", "Third"),
    );
    let said = scratch.refused(&["dataset", "stats"], 2);
    assert!(
        said.contains("which signature?") && said.contains("@test/data/Third.v1"),
        "{said}"
    );
    assert!(
        scratch
            .refused(&["signature", "show", "rout.v1"], 4)
            .contains("did you mean `Route.v1`?")
    );
    scratch.write("one.yaml", "x: [\n");
    assert!(
        scratch
            .refused(&["signature", "check", "one.yaml"], 4)
            .contains("one.yaml:")
    );
}

#[test]
fn models_that_are_asked_for_must_be_configured() {
    let scratch = project();
    scratch.write(
        rows::FILE,
        rows::SIGNATURE.replace("distilled.lexical.v1", "direct.v1, model: fast"),
    );
    let said = scratch.refused(&["signature", "check"], 4);
    assert!(
        said.contains("no model `fast`") && said.contains("[models.fast]"),
        "{said}"
    );
}
