//! `proofline dataset import` with the real binary and real git: every form of
//! row, every refusal, and what stands on the branch afterwards.

#[path = "support/rows.rs"]
mod rows;
#[path = "support/scratch.rs"]
mod scratch;

use std::io::Write;
use std::process::Stdio;

use rows::{dataset, project, row, rows};
use scratch::Scratch;
use serde_json::json;

fn import<'a>(scratch: &Scratch, text: impl AsRef<[u8]>, more: &[&'a str]) -> Vec<&'a str> {
    scratch.write("rows.jsonl", text);
    [&["dataset", "import", "rows.jsonl"], more].concat()
}

/// Import rows; it must succeed. The outcome.
fn imported(scratch: &Scratch, text: impl AsRef<[u8]>, more: &[&str]) -> serde_json::Value {
    let args = import(scratch, text, more);
    scratch.json(&args)
}

/// The first row as it is stored, whatever form it came in.
const CANONICAL: &str = r#"{"expected":{"label":"a"},"group":"g","id":"1","input":{"n":3,"text":"hi, \"you\""},"meta":{"k":[1]},"source":"s","split":"train","tags":["x","y z"]}"#;

#[test]
fn every_form_of_row_is_the_same_dataset() {
    let snake = concat!(
        r#"{"id":"1","input":{"text":"hi, \"you\"","n":3},"expected":{"label":"a"},"split":"train","tags":["x","y z"],"group":"g","source":"s","meta":{"k":[1]}}"#,
        "\n",
        r#"{"id":"2","input":{"text":""},"expected":{"label":"b"},"split":"dev"}"#,
        "\n",
        r#"{"id":"3","input":{"text":"null"},"expected":{"label":"c"}}"#,
        "\n"
    );
    let camel = snake
        .replace("\"id\"", "\"exampleId\"")
        .replace("\"input\"", "\"inputJson\"")
        .replace("\"expected\"", "\"expectedJson\"")
        .replace("\"group\"", "\"groupId\"");
    let lines: Vec<&str> = snake.lines().collect();
    let reversed: Vec<&str> = lines.iter().rev().copied().collect();
    let csv = "id,input.text,input.n,expected.label,split,tags,group,source,meta\n\
               1,\"hi, \"\"you\"\"\",3,a,train,x; y z,g,s,\"{\"\"k\"\":[1]}\"\n\
               2,\"\",,b,dev,,,,\n3,null,,c,,,,,\n";
    let csv_whole = "exampleId,inputJson,expectedJson,split,tags,group,source,meta\n\
               1,\"{\"\"text\"\":\"\"hi, \\\"\"you\\\"\"\"\",\"\"n\"\":3}\",\"{\"\"label\"\":\"\"a\"\"}\",train,x;y z,g,s,\"{\"\"k\"\":[1]}\"\n\
               2,\"{\"\"text\"\":\"\"\"\"}\",\"{\"\"label\"\":\"\"b\"\"}\",dev,,,,\n3,\"{\"\"text\"\":\"\"null\"\"}\",\"{\"\"label\"\":\"\"c\"\"}\",,,,,\n";
    let mapped = r#"[{"n":1,"q":"hi, \"you\"","d":{"num":3,"l":"a"},"part":"training","tags":["x","y z"],"group":"g","source":"s","meta":{"k":[1]}},
        {"n":2,"q":"","d":{"l":"b"},"part":"dev"},
        {"n":3,"q":"null","d":{"l":"c"},"part":null}]"#;
    let map: &[&str] = &[
        "--map",
        "id=n",
        "--map",
        "input.text=q",
        "--map",
        "input.n=/d/num",
        "--map",
        "expected.label=/d/l",
        "--split-by",
        "part",
        "--split-value",
        "training=train",
    ];
    let table: [(&str, String, &[&str]); 9] = [
        ("rows.jsonl", snake.to_owned(), &[]),
        ("rows.jsonl", camel, &[]),
        (
            "rows.jsonl",
            format!("\u{feff}{}\r\n", lines.join("\r\n")),
            &[],
        ),
        ("rows.jsonl", reversed.join("\n"), &[]),
        ("rows.json", format!("[{}]", lines.join(",\n")), &[]),
        ("rows.csv", csv.to_owned(), &[]),
        (
            "rows.csv",
            format!("\u{feff}{}", csv.replace('\n', "\r\n")),
            &[],
        ),
        ("rows.txt", csv_whole.to_owned(), &["--format", "csv"]),
        ("rows.json", mapped.to_owned(), map),
    ];
    let mut first = None;
    for (name, text, more) in table {
        let scratch = project();
        scratch.write(name, &text);
        scratch.ok(&[&["dataset", "import", name], more].concat());
        let found = dataset(&scratch);
        assert_eq!(
            *first.get_or_insert_with(|| found.clone()),
            found,
            "{name} {more:?}\n{text}"
        );
        let line = scratch.git(&[
            "show",
            "proofline/datasets:datasets/test/data/Route.v1/train.jsonl",
        ]);
        assert_eq!(line, CANONICAL, "{name}");
        scratch.fsck();
    }
}

#[test]
fn standard_input_is_a_file_too() {
    let scratch = project();
    let mut command = scratch.proofline(&[
        "dataset",
        "import",
        "-",
        "--signature",
        "Route.v1",
        "--json",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let text = rows(&["1:hi:a:train"]);
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(done["splits"]["train"]["added"], 1);
}

/// Bad input: nothing changes, and every fault has its place and a remedy.
#[test]
fn refusals_of_files() {
    let scratch = project();
    imported(&scratch, rows(&["0:there already:a:train"]), &[]);
    let refs = scratch.refs();
    let good = rows(&["1:hi:a:train"]);
    let line = |text: &str| format!("{good}{text}\n");
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(50_000_000));
    // (file, content, places and words of standard error)
    let table: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("r.jsonl", line("{\"id\": ").into(), vec!["r.jsonl:2:"]),
        (
            "r.jsonl",
            line("[1]").into(),
            vec!["r.jsonl:2:1", "a row is a JSON object"],
        ),
        (
            "r.jsonl",
            line(r#"{"id":"2","input":{"text":"x"},"expected":{"label":"a"},"x":NaN}"#).into(),
            vec!["r.jsonl:2:", "NaN"],
        ),
        (
            "r.jsonl",
            line(r#"{"id":"2","id":"2","input":{"text":"x"},"expected":{"label":"a"}}"#).into(),
            vec!["r.jsonl:2:", "id"],
        ),
        (
            "r.jsonl",
            line(
                r#"{"id":"2","input":{"text":"x","n":9007199254740993},"expected":{"label":"a"}}"#,
            )
            .into(),
            vec!["r.jsonl:2:", "9007199254740993"],
        ),
        (
            "r.jsonl",
            [line("").as_bytes(), b"{\"id\":\"\xff\"}\n"].concat(),
            vec!["r.jsonl:3:", "UTF-8"],
        ),
        (
            "r.jsonl",
            line(&long).into(),
            vec!["r.jsonl:2:", "longer than"],
        ),
        ("r.jsonl", Vec::new(), vec!["r.jsonl:1:1", "empty"]),
        ("r.json", b"[]".to_vec(), vec!["r.json:1:1", "no rows"]),
        ("r.json", b"{}".to_vec(), vec!["r.json:1:1", "one array"]),
        (
            "r.json",
            b"[\n{\"id\":\"1\",\"input\":{\"text\":3},\"expected\":{\"label\":\"a\"}}]".to_vec(),
            vec!["r.json:2:", "string"],
        ),
        (
            "r.csv",
            b"id,input.text,expected.label\n1,x,z\n".to_vec(),
            vec!["r.csv:2:5", "z"],
        ),
        (
            "r.csv",
            b"id,input.text,input.n,expected.label\n1,x,two,a\n".to_vec(),
            vec!["r.csv:2:5", "not JSON"],
        ),
        (
            "r.csv",
            b"id,input.text,expected.label\n1,\"x,a\n2,y,a\n".to_vec(),
            vec!["r.csv:2:3", "never closed"],
        ),
        (
            "r.jsonl",
            line(&rows(&["1:again:b:dev"])).into(),
            vec!["r.jsonl:2:", "`1` is also the id on line 1"],
        ),
        (
            "r.jsonl",
            rows(&["1:x:z:train"]).into(),
            vec!["r.jsonl:1:", "`z`"],
        ),
        (
            "r.jsonl",
            rows(&["1:x:a:test"]).into(),
            vec![
                "r.jsonl:1:",
                "`test` is not a split",
                "--split-value test=SPLIT",
            ],
        ),
        (
            "r.jsonl",
            row("1", "x", "a", "dev", json!({"tag": ["x"]})).into(),
            vec!["r.jsonl:1:", "no `tag`", "did you mean `tags`"],
        ),
        (
            "r.jsonl",
            row("1", "x", "a", "dev", json!({"slots": 1})).into(),
            vec!["r.jsonl:1:", "no `slots`", "--ignore slots"],
        ),
        (
            "r.jsonl",
            row("1", "x", "a", "dev", json!({"tags": [1]})).into(),
            vec!["r.jsonl:1:", "`tags` is a list"],
        ),
        (
            "r.jsonl",
            row(" 1", "x", "a", "dev", json!({})).into(),
            vec!["r.jsonl:1:", "surrounding space"],
        ),
        (
            "r.jsonl",
            row("1", "x", "a", "dev", json!({"exampleId": "2"})).into(),
            vec!["r.jsonl:1:", "its `id` twice"],
        ),
        (
            "r.jsonl",
            b"{\"id\":\"1\",\"input\":{\"text\":\"x\"}}\n".to_vec(),
            vec!["r.jsonl:1:1", "has no expected", "--map"],
        ),
        (
            "r.jsonl",
            format!("{good}\n{good}").into(),
            vec!["r.jsonl:2:1", "blank line", "`1` is also the id"],
        ),
    ];
    for (name, content, words) in table {
        scratch.write(name, &content);
        let said = scratch.refused(&["dataset", "import", name], 4);
        for word in words {
            // Reading faults come before faults between rows, so that one pass need not show both.
            if word.contains("also the id") && said.contains("blank line") {
                continue;
            }
            assert!(
                said.contains(word),
                "no `{word}` in: {}",
                said.chars().take(2000).collect::<String>()
            );
        }
        assert_eq!(scratch.refs(), refs, "{name}");
    }
    for (args, code, word) in [
        (&["dataset", "import", "gone.jsonl"][..], 4, "gone.jsonl"),
        (&["dataset", "import", "rows.data"], 2, "--format"),
        (
            &["dataset", "import", "rows.jsonl", "--signature", "Rout.v1"],
            4,
            "did you mean `Route.v1`",
        ),
        (
            &["dataset", "import", "rows.jsonl", "--map", "inptu.text=x"],
            2,
            "did you mean `input`",
        ),
        (&["dataset", "import", "-", "-"], 2, "only once"),
    ] {
        scratch.write("rows.data", "x");
        let said = scratch.refused(args, code);
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    scratch.fsck();
}

#[test]
fn all_faults_of_all_files_at_once() {
    let scratch = project();
    scratch.write(
        "a.jsonl",
        format!(
            "{{\n{}[]\n{}",
            rows(&["1:x:z:dev"]),
            rows(&["2:y:q:nowhere"])
        ),
    );
    scratch.write("b.csv", "id,input.text,expected.label\n3,x,w\n");
    let said = scratch.refused(&["dataset", "import", "a.jsonl", "b.csv"], 4);
    for place in [
        "a.jsonl:1:",
        "a.jsonl:2:",
        "a.jsonl:3:1",
        "a.jsonl:4:",
        "b.csv:2:5",
        "6 faults",
        "nothing was changed",
    ] {
        assert!(said.contains(place), "no `{place}` in {said}");
    }
}

/// What keeps the splits apart: (what is there, options, what comes, exit code, words).
#[test]
fn refusals_between_rows() {
    type Case<'a> = (
        &'a [&'a str],
        &'a [&'a str],
        &'a [&'a str],
        i32,
        &'a [&'a str],
    );
    let table: [Case<'_>; 12] = [
        (
            &[],
            &[],
            &["1:x:a:train", "2:x:a:dev"],
            4,
            &[
                "rows.jsonl:2:",
                "`2` (dev) has the same input and expected output as `1` (train, line 1)",
            ],
        ),
        (
            &["1:x:a:train"],
            &[],
            &["2:x:a:holdout"],
            4,
            &["rows.jsonl:1:", "as `1` (train)", "--leave-out-conflicts"],
        ),
        (
            &[],
            &[],
            &["1:x:a:train:g", "2:y:a:exercise:g"],
            4,
            &["`2` (exercise) is of the same group as `1` (train, line 1)"],
        ),
        (
            &[],
            &[],
            &["1:x:a:holdout:g", "2:y:a:holdout:g"],
            4,
            &["one row per group", "--one-per-group"],
        ),
        (
            &[],
            &["--one-per-group"],
            &["2:y:a:holdout:g", "1:x:a:holdout:g"],
            0,
            &[],
        ),
        (
            &[],
            &["--leave-out-conflicts"],
            &["1:x:a:train", "2:x:a:dev", "3:z:a:dev"],
            0,
            &[],
        ),
        (
            &["1:x:a:holdout"],
            &[],
            &["1:x:a:train"],
            4,
            &["`1` may not enter train: it was once in holdout"],
        ),
        (
            &["1:x:a:dev"],
            &[],
            &["1:x:a:holdout"],
            4,
            &["may not enter holdout: it was once outside holdout"],
        ),
        (
            &["1:x:a:dev"],
            &["--leave-out-conflicts"],
            &["1:x:a:holdout"],
            4,
            &["may not enter holdout"],
        ),
        (
            &["1:x:a:holdout:g"],
            &["--prune"],
            &["2:y:a:train:g"],
            4,
            &["a row of its group was once in holdout"],
        ),
        (&["1:x:a:train"], &[], &["1:x:a:dev"], 0, &[]),
        (
            &[],
            &["--near-duplicates", "refuse"],
            &[
                "1:one two three four:a:train",
                "2:Four, three two ONE!:b:holdout",
            ],
            1,
            &[
                "almost the same",
                "1 (train) and 2 (holdout) share 4 of 4 words",
            ],
        ),
    ];
    for (before, options, rows_in, code, words) in table {
        let scratch = project();
        if !before.is_empty() {
            imported(&scratch, rows(before), &[]);
        }
        let refs = scratch.refs();
        let args = import(&scratch, rows(rows_in), options);
        let output = scratch.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{before:?} {rows_in:?}: {said}"
        );
        for word in words {
            assert!(said.contains(word), "no `{word}` in {said}");
        }
        assert_eq!(scratch.refs() == refs, code != 0, "{rows_in:?}");
        scratch.fsck();
    }
}

#[test]
fn what_was_left_out_is_named() {
    let scratch = project();
    let done = imported(
        &scratch,
        rows(&["2:y:a:holdout:g", "1:x:a:holdout:g", "3:q:a:train"]),
        &["--one-per-group"],
    );
    assert_eq!(done["splits"]["holdout"]["added"], 1);
    let left_out = done["left_out"][0].as_str().expect("a text");
    assert!(
        left_out.starts_with("rows.jsonl:1: `2` is of the same group as `1` (holdout, line 2)"),
        "{left_out}"
    );
    let page = scratch.ok(&["dataset", "import", "rows.jsonl", "--one-per-group"]);
    assert!(
        page.contains("nothing to change") && page.contains("1 row left out:"),
        "{page}"
    );
}

#[test]
fn a_deleted_row_is_remembered() {
    let scratch = project();
    imported(
        &scratch,
        rows(&["1:x:a:holdout", "2:y:a:train", "3:q:a:dev"]),
        &[],
    );
    let done = imported(&scratch, rows(&["3:q:a:dev"]), &["--prune"]);
    assert_eq!(
        (
            done["splits"]["holdout"]["removed"].clone(),
            done["splits"]["train"]["removed"].clone()
        ),
        (json!(1), json!(1))
    );
    // Under another id, with another group: it is still the same content.
    let args = import(
        &scratch,
        row("9", "x", "a", "train", json!({"group": "new"})),
        &[],
    );
    assert!(scratch.refused(&args, 4).contains("was once in holdout"));
    let args = import(&scratch, rows(&["9:y:a:holdout"]), &[]);
    assert!(
        scratch
            .refused(&args, 4)
            .contains("was once outside holdout")
    );
    // Where it was it may be again.
    imported(&scratch, rows(&["9:x:a:holdout"]), &[]);
    let seen = scratch.git(&[
        "show",
        "proofline/datasets:datasets/test/data/Route.v1/seen/0000/00.jsonl",
    ]);
    assert_eq!(
        seen.lines().count(),
        3,
        "the register grows by news only: {seen}"
    );
    assert!(!seen.contains("\"x\""), "the register holds digests only");
    scratch.fsck();
}

#[test]
fn importing_twice_changes_nothing_and_a_row_is_replaced_by_its_id() {
    let scratch = project();
    let text = rows(&["1:x:a:train", "2:y:b:dev", "3:z:c:holdout"]);
    let first = imported(&scratch, &text, &[]);
    assert!(first["commit"].is_string());
    let refs = scratch.refs();
    let again = imported(&scratch, &text, &[]);
    assert!(again.get("commit").is_none());
    assert_eq!(scratch.refs(), refs);
    // A dry run says what would change, and changes nothing.
    let text = rows(&["1:a new text:a:train", "4:q:a:train"]);
    let args = import(&scratch, &text, &["--dry-run"]);
    let page = scratch.ok(&args);
    assert!(
        page.contains("/input/text: [-x-]{+a new text+}") && page.contains("+ 4 (train)"),
        "{page}"
    );
    assert_eq!(scratch.refs(), refs);
    let done = imported(&scratch, &text, &[]);
    assert_eq!(
        done["splits"]["train"],
        json!({"added": 1, "changed": 1, "unchanged": 0, "removed": 0})
    );
    assert_eq!(done["splits"]["dev"]["unchanged"], 1);
    let message = scratch.git(&["log", "-1", "--format=%B", "proofline/datasets"]);
    assert!(
        message.starts_with("dataset Route.v1: 1 added, 1 changed, 0 removed; 4 rows now"),
        "{message}"
    );
    scratch.fsck();
}

#[test]
fn rows_without_an_id_or_a_split() {
    let scratch = project();
    let text = concat!(
        r#"{"q":"x","l":"a","slots":[1]}"#,
        "\n",
        r#"{"q":"x","l":"a","slots":[2]}"#,
        "\n",
        r#"{"q":"y","l":"b"}"#,
        "\n"
    );
    let map = ["--map", "input.text=q", "--map", "expected.label=l"];
    let done = imported(&scratch, text, &map);
    assert_eq!(done["splits"]["unassigned"]["added"], 2);
    assert_eq!(
        (
            done["repeated"].clone(),
            done["members_left_out"]["slots"].clone()
        ),
        (json!(1), json!(2))
    );
    let done = imported(
        &scratch,
        text,
        &[&map[..], &["--into-split", "train"]].concat(),
    );
    assert_eq!(
        done["splits"]["train"]["changed"], 2,
        "they get the split now"
    );
    let done = imported(
        &scratch,
        text,
        &[&map[..], &["--into-split", "dev"]].concat(),
    );
    assert_eq!(
        (
            done["splits"]["train"]["unchanged"].clone(),
            done["stayed"].clone()
        ),
        (json!(2), json!(2))
    );
    let rows = scratch.json(&["dataset", "show"]);
    let id = rows["rows"][0]["id"].as_str().expect("an id");
    let digest = rows["rows"][0]["content_digest"]
        .as_str()
        .expect("a digest");
    assert_eq!(id, format!("r-{}", &digest["sha256:".len()..][..12]));
    scratch.fsck();
}

#[test]
fn warnings_are_on_the_page() {
    let scratch = project();
    let text = rows(&[
        "1:play some jazz please:a:train",
        "2:play some jazz please:b:train",
        "3:PLEASE play some jazz:c:holdout",
        "4:q:a:dev",
        "5:q:a:dev",
    ]);
    let args = import(&scratch, text, &[]);
    let page = scratch.ok(&args);
    for words in [
        "1 row repeat the input and expected output",
        "1 pair have the same input and different expected outputs:\n  1 and 2",
        "almost the same:\n  1 (train) and 3 (holdout) share 4 of 4 words",
        "The holdout has 1 rows, too few to prove any gain. It takes 920 for +5, 233 for +10, 106 for +15",
        "Next: `proofline compile",
    ] {
        assert!(page.contains(words), "no `{words}` in {page}");
    }
}

#[test]
fn two_imports_at_once_both_count() {
    let scratch = project();
    let mut children = Vec::new();
    for writer in 0..4 {
        let text: String = (0..50)
            .map(|row| rows(&[&format!("w{writer}-{row}:text {writer} {row}:a:train")]))
            .collect();
        let name = format!("w{writer}.jsonl");
        scratch.write(&name, text);
        children.push(
            scratch
                .proofline(&["dataset", "import", &name, "--quiet"])
                .stdout(Stdio::null())
                .spawn()
                .expect("the binary runs"),
        );
    }
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    assert!(
        dataset(&scratch).contains("rows: 200"),
        "{}",
        dataset(&scratch)
    );
    assert_eq!(
        scratch.git(&["rev-list", "--count", "proofline/datasets"]),
        "4"
    );
    scratch.fsck();
}

#[test]
fn a_branch_that_was_changed_by_hand_is_refused() {
    let scratch = project();
    imported(&scratch, rows(&["1:x:a:train", "2:y:a:dev"]), &[]);
    scratch.git(&["checkout", "--quiet", "proofline/datasets"]);
    let path = "datasets/test/data/Route.v1/train.jsonl";
    let line = scratch.read(path);
    scratch.write(path, line.replace("\"x\"", "\"z\""));
    scratch.git(&["commit", "--quiet", "--all", "--message", "by hand"]);
    scratch.git(&["checkout", "--quiet", "--orphan", "main"]);
    scratch.write(rows::FILE, rows::SIGNATURE);
    let args = import(&scratch, rows(&["3:q:a:train"]), &[]);
    let said = scratch.refused(&args, 4);
    assert!(said.contains("changed by something other than"), "{said}");
}
