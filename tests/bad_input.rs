//! Bad input, with the real binary: every refusal has its exit code, names the
//! file, the place and the remedy, and leaves every ref as it was.

#[path = "support/scratch.rs"]
mod scratch;

use std::fmt::Write as _;
use std::io::{BufWriter, Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use scratch::Scratch;
use serde_json::Value;

const FILE: &str = "signatures/Route.v1.yaml";

/// The program in force has seen four rows and not the words of the others.
const SIGNATURE: &str = r#"
schema: proofline/signature/v1
id: "@test/bad/Route.v1"
input: {type: object, required: [text], properties: {text: {type: string}}}
output: {type: object, required: [label], properties: {label: {type: string}}}
defaults:
  strategy: distilled.lexical.v1
  lexical: {train_rows_max: 4}
metric: {kind: field_match, field: /label}
job:
  optimizer: knobs_grid.v1
  seed: 3
  space:
    lexical_variants:
      - {train_rows_max: null}
canary: {min_pairs: 8, harm_margin: 0.05}
"#;

const POLICY: &str = "
canary: {rehearsal_is_enough: true}
promotion: {mode: direct, skipped_gate: pass}
";

fn row(id: &str, text: &str, split: &str) -> String {
    format!(
        "{}\n",
        serde_json::json!({"id": id, "input": {"text": text}, "expected": {"label": "l0"}, "split": split})
    )
}

/// One of the sixteen words of a label, with nothing in it that tells the label.
fn word(label: usize, number: usize) -> String {
    let syllables = [
        "ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va",
    ];
    let code = (label + 4 * (number % 16)) * 389 % 1331;
    [code / 121, code / 11, code]
        .map(|part| syllables[part % 11])
        .concat()
}

/// A row holds two words of its label.
fn rows(splits: &[(&str, usize)]) -> String {
    let mut lines = String::new();
    let mut id = 0;
    for (split, count) in splits {
        for _ in 0..*count {
            let label = id % 4;
            let text = format!(
                "{} {} r{id}",
                word(label, id / 4),
                word(label, id / 4 * 3 + 1)
            );
            let row = serde_json::json!({
                "id": format!("r{id:04}"), "input": {"text": text}, "expected": {"label": format!("l{label}")}, "split": split,
            });
            let _ = writeln!(lines, "{row}");
            id += 1;
        }
    }
    lines
}

const SPLITS: [(&str, usize); 4] = [
    ("train", 64),
    ("dev", 48),
    ("holdout", 80),
    ("exercise", 12),
];

/// A repository that is set up, without rows.
fn without_rows() -> Scratch {
    let scratch = Scratch::new();
    scratch.write(FILE, SIGNATURE);
    scratch.write("policy.yaml", POLICY);
    scratch.ok(&["init", "--policy", "policy.yaml"]);
    scratch
}

/// A repository that is ready for its first night.
fn ready() -> Scratch {
    let scratch = without_rows();
    scratch.write("rows.jsonl", rows(&SPLITS));
    scratch.ok(&["dataset", "import", "rows.jsonl", "--signature", "Route.v1"]);
    scratch
}

/// Everything but the journal, which tells of failed runs too.
fn refs_but_journal(scratch: &Scratch) -> String {
    let refs = scratch.refs();
    let kept = refs.lines().filter(|line| !line.contains("/journal "));
    kept.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// Refused with this code and these words; not one ref moved.
#[track_caller]
fn refuses(scratch: &Scratch, args: &[&str], code: i32, parts: &[&str]) -> String {
    let before = scratch.refs();
    let said = scratch.refused(args, code);
    has(&said, parts);
    assert_eq!(scratch.refs(), before, "a ref moved: {args:?}");
    scratch.fsck();
    said
}

/// The import of a file of these bytes is refused.
#[track_caller]
fn import_refused(content: &[u8], parts: &[&str]) {
    let scratch = ready();
    scratch.write("bad.jsonl", content);
    refuses(&scratch, &IMPORT, 4, parts);
}

const IMPORT: [&str; 5] = ["dataset", "import", "bad.jsonl", "--signature", "Route.v1"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// Rows.

#[test]
fn every_bad_line_is_named_in_one_go() {
    let lines = [
        row("a1", "one", "train"),
        "{\"id\":\"a2\",\"input\":{\"text\":}\n".to_owned(),
        "{\"id\":\"a3\"}\n".to_owned(),
        "[1]\n".to_owned(),
        row("a5", "five", "tran"),
        "{\"id\":\"a6\",\"input\":{\"text\":7},\"expected\":{\"label\":\"l0\"},\"split\":\"dev\"}\n"
            .to_owned(),
    ];
    import_refused(
        lines.concat().as_bytes(),
        &[
            "bad.jsonl:2:28: expected a value",
            "bad.jsonl:3:1: the row has no input",
            "bad.jsonl:3:1: the row has no expected",
            "hint: a row needs `expected`",
            "bad.jsonl:4:1: a row is a JSON object",
            "bad.jsonl:5:",
            "did you mean `train`?",
            "bad.jsonl:6:",
            "nothing was changed",
        ],
    );
}

#[test]
fn two_rows_with_one_id_are_refused() {
    let lines = row("a1", "one", "train") + &row("a1", "two", "train");
    import_refused(
        lines.as_bytes(),
        &[
            "bad.jsonl:2:1: `a1` is also the id on line 1",
            "hint: give each row its own id",
            "1 row breaks",
        ],
    );
}

#[test]
fn numbers_that_are_none_are_refused() {
    let line = "{\"id\":\"a1\",\"input\":{\"text\":\"t\"},\"expected\":{\"label\":NaN}}\n\
                {\"id\":\"a2\",\"input\":{\"text\":1e999},\"expected\":{\"label\":\"l0\"}}\n\
                {\"id\":\"a3\",\"input\":{\"text\":-Infinity}}\n";
    import_refused(
        line.as_bytes(),
        &[
            "bad.jsonl:1:53: expected a value, found `NaN`",
            "hint: JSON has no NaN",
            "bad.jsonl:2:28: 1e999",
            "bad.jsonl:3:28: expected a value, found `-Infinity`",
        ],
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    let mut bytes = row("a1", "one", "train").into_bytes();
    bytes.extend_from_slice(b"{\"id\":\"a2\",\"input\":{\"text\":\"\xff\"}}\n");
    import_refused(
        &bytes,
        &[
            "bad.jsonl:2:29: byte 0xff is not UTF-8",
            "hint: save the file as UTF-8",
        ],
    );
}

#[test]
fn a_line_of_fifty_megabytes_is_refused_without_being_held() {
    let scratch = ready();
    let file = std::fs::File::create(scratch.root().join("bad.jsonl")).expect("a file");
    let mut file = BufWriter::new(file);
    let block = [b'a'; 1 << 16];
    file.write_all(row("a1", "one", "train").as_bytes())
        .and_then(|()| file.write_all(b"{\"id\":\"a2\",\"input\":{\"text\":\""))
        .and_then(|()| (0..800).try_for_each(|_| file.write_all(&block)))
        .and_then(|()| file.write_all(b"\"}}\n{\"id\":\n"))
        .and_then(|()| file.flush())
        .expect("written");
    let begun = Instant::now();
    // An address space that the line would not fit into a few times over.
    let before = scratch.refs();
    let said = limited(&scratch, "ulimit -v 200000", &IMPORT);
    assert_eq!(said.status.code(), Some(4), "{}", text(&said.stderr));
    has(
        &text(&said.stderr),
        &[
            "bad.jsonl:2:1: the line is longer than 8388608 bytes",
            "hint: keep large values elsewhere",
            "bad.jsonl:3:7:",
        ],
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(scratch.refs(), before);
    scratch.fsck();
}

#[test]
fn files_without_a_row_are_refused() {
    let scratch = ready();
    for (name, content) in [
        ("empty.jsonl", ""),
        ("blank.jsonl", "\n\n"),
        ("bom.jsonl", "\u{feff}"),
        ("empty.json", ""),
        ("none.json", "[]"),
        ("empty.csv", ""),
        ("header.csv", "id,input.text,expected.label\n"),
    ] {
        scratch.write(name, content);
        refuses(
            &scratch,
            &["dataset", "import", name, "--signature", "Route.v1"],
            4,
            &[&format!("{name}:1:1: "), "nothing was changed"],
        );
    }
    refuses(
        &scratch,
        &["dataset", "import", "gone.jsonl", "--signature", "Route.v1"],
        4,
        &["gone.jsonl: No such file"],
    );
    refuses(
        &scratch,
        &["dataset", "import", "rows", "--signature", "Route.v1"],
        2,
        &["the name `rows` does not say", "--format jsonl"],
    );
}

#[test]
fn byte_order_marks_and_crlf_are_accepted() {
    let scratch = ready();
    let lines = format!(
        "\u{feff}{}{}",
        row("a1", "one", "train"),
        row("a2", "two", "dev")
    );
    scratch.write("bad.jsonl", lines.replace('\n', "\r\n"));
    let said = scratch.json(&IMPORT);
    assert_eq!(said["splits"]["train"]["added"], 1, "{said:#}");
    assert_eq!(said["splits"]["dev"]["added"], 1, "{said:#}");
    scratch.fsck();
}

#[test]
fn splits_do_not_overlap() {
    let same = row("a1", "same", "train") + &row("a2", "same", "dev");
    import_refused(
        same.as_bytes(),
        &[
            "bad.jsonl:2:1: `a2` (dev) has the same input and expected output as `a1` (train, line 1)",
            "hint: a row stands in one split only",
            "`--leave-out-conflicts`",
        ],
    );
    let grouped = |id: &str, text: &str, split: &str| {
        row(id, text, split).replacen('{', "{\"group\":\"g\",", 1)
    };
    let group = grouped("a1", "one", "train") + &grouped("a2", "two", "dev");
    import_refused(
        group.as_bytes(),
        &[
            "bad.jsonl:2:1: `a2` (dev) is of the same group as `a1` (train, line 1)",
            "hint: a group stays together",
        ],
    );
}

#[test]
fn what_was_held_out_never_becomes_train() {
    let scratch = ready();
    let all = rows(&SPLITS);
    let held: String = all
        .lines()
        .filter(|line| line.contains("\"holdout\""))
        .take(2)
        .fold(String::new(), |lines, line| lines + line + "\n");
    scratch.write("bad.jsonl", held.replace("\"holdout\"", "\"train\""));
    refuses(
        &scratch,
        &IMPORT,
        4,
        &[
            "bad.jsonl:1:1: `r0112` may not enter train: it was once in holdout",
            "bad.jsonl:2:1: `r0113`",
            "hint: what was ever in holdout never enters train",
        ],
    );
    // Neither under another id, nor after it was taken out.
    let renamed = held
        .replace("\"holdout\"", "\"train\"")
        .replace("\"r01", "\"q01");
    scratch.write("bad.jsonl", &renamed);
    refuses(&scratch, &IMPORT, 4, &["bad.jsonl:1:1: `q0112` (train)"]);
    let open: String = all
        .lines()
        .filter(|line| !line.contains("\"holdout\""))
        .fold(String::new(), |lines, line| lines + line + "\n");
    scratch.write("open.jsonl", open);
    scratch.ok(&[
        "dataset",
        "import",
        "open.jsonl",
        "--prune",
        "--signature",
        "Route.v1",
    ]);
    refuses(&scratch, &IMPORT, 4, &["bad.jsonl:1:1: `q0112`", "holdout"]);
}

#[test]
fn without_a_holdout_a_night_refuses() {
    let scratch = without_rows();
    scratch.write(
        "bad.jsonl",
        rows(&[("train", 64), ("dev", 48), ("exercise", 12)]),
    );
    scratch.ok(&IMPORT);
    let outlook = scratch.ok(&["overnight", "--dry-run"]);
    has(&outlook, &["there is no holdout", "would end here"]);
    let before = refs_but_journal(&scratch);
    let output = scratch.run(&["overnight", "--run", "n1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    has(
        &text(&output.stdout),
        &["there is no holdout", "next ", "dataset"],
    );
    assert_eq!(refs_but_journal(&scratch), before);
    scratch.fsck();
}

// Signatures.

/// The signature file with one text replaced is refused by compile and by a night.
#[track_caller]
fn signature_refused(from: &str, to: &str, parts: &[&str]) {
    let scratch = ready();
    assert!(SIGNATURE.contains(from), "{from}");
    scratch.write(FILE, SIGNATURE.replacen(from, to, 1));
    refuses(&scratch, &["compile", "Route.v1"], 4, parts);
    let before = refs_but_journal(&scratch);
    let said = scratch.refused(&["overnight", "--run", "n1"], 4);
    has(&said, parts);
    assert_eq!(refs_but_journal(&scratch), before);
    // The record says where, too.
    let run = scratch.json(&["runs", "show", "n1"]);
    let reason = run["run"]["reason"].as_str().expect("a reason");
    has(reason, &parts[..1]);
    scratch.fsck();
}

#[test]
fn an_unknown_optimizer_is_refused() {
    signature_refused(
        "knobs_grid.v1",
        "knobs_gird.v1",
        &[
            "signatures/Route.v1.yaml:11:14: `knobs_gird.v1` is not one of",
            "did you mean `knobs_grid.v1`?",
        ],
    );
}

#[test]
fn an_unknown_field_is_refused() {
    signature_refused(
        "harm_margin",
        "harm_margn",
        &[
            "signatures/Route.v1.yaml:16:24: unknown property `harm_margn`",
            "did you mean `harm_margin`?",
        ],
    );
    signature_refused(
        "metric: {kind: field_match, field: /label}",
        "metric: [",
        &["signatures/Route.v1.yaml:10:1: not valid YAML"],
    );
}

#[test]
fn a_search_space_with_one_candidate_is_refused() {
    signature_refused(
        "{train_rows_max: null}",
        "{train_rows_max: 4}",
        &[
            "signatures/Route.v1.yaml:14:5: the search space has 1 distinct candidate(s); it needs at least two",
            "hint: add variants to `job.space`",
        ],
    );
}

#[test]
fn unknown_names_are_met_with_the_nearest() {
    let scratch = ready();
    scratch.ok(&["overnight", "--run", "night-1", "--no-promote"]);
    let cases: [(&[&str], i32, &[&str]); 8] = [
        (
            &["compile", "Rout.v1"],
            4,
            &[
                "there is no signature `Rout.v1`",
                "did you mean `Route.v1`?",
            ],
        ),
        (&["predict", "Rout.v1"], 4, &["did you mean `Route.v1`?"]),
        (
            &["overnight", "--signature", "Rout.v1"],
            4,
            &["did you mean `Route.v1`?"],
        ),
        (
            &["runs", "show", "nigth-1"],
            2,
            &[
                "there is no run `nigth-1`",
                "did you mean `night-1`?",
                "runs list",
            ],
        ),
        (
            &["overnight", "--resume", "nigth-1"],
            2,
            &["there is no run `nigth-1`", "did you mean `night-1`?"],
        ),
        (
            &["eval", "Route.v1", "--split", "trian"],
            2,
            &["`trian` is not a split", "did you mean `train`?"],
        ),
        (
            &["eval", "Route.v1", "--split", "holdout"],
            2,
            &["holdout rows are read by the holdout gate alone"],
        ),
        (&["overnigth"], 2, &["unrecognized subcommand", "overnight"]),
    ];
    for (args, code, parts) in cases {
        refuses(&scratch, args, code, parts);
    }
}

// The repository.

#[test]
fn a_corrupt_spool_is_set_aside_and_the_night_goes_on() {
    let scratch = ready();
    let spool = scratch.root().join(".git/proofline/spool");
    let seen = interrupted(&scratch, "e2e");
    assert_eq!(seen["status"], "failed");
    // What was spooled and not committed when the disk went bad.
    let file = spool.join("n1.jsonl");
    let mut bytes = std::fs::read(&file).expect("a spool");
    bytes.extend_from_slice(b"\x00garbage\xff\nmore of it\n");
    std::fs::write(&file, bytes).expect("written");
    let output = scratch.run(&["overnight", "--resume", "n1", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    has(
        &text(&output.stderr),
        &[
            "2 damaged line(s) of the spool were left out",
            "n1.jsonl.corrupt-1",
        ],
    );
    let night: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(night["signatures"][0]["conclusion"], "promoted");
    assert!(spool.join("n1.jsonl.corrupt-1").exists());
    scratch.ok(&["runs", "verify", "n1"]);
    scratch.fsck();
}

#[test]
fn a_spool_of_garbage_alone_does_not_stop_a_night() {
    let scratch = ready();
    scratch.write(
        ".git/proofline/spool/n1.jsonl",
        b"\xff\xfe\x00garbage\nand no end",
    );
    let said = scratch.refused(&["overnight", "--run", "n1", "--no-promote"], 0);
    has(&said, &["damaged line(s)", "n1.jsonl.corrupt-1"]);
    scratch.fsck();
}

#[test]
fn a_ref_lock_of_another_process_is_named() {
    let scratch = ready();
    let lock = ".git/refs/heads/proofline/datasets.lock";
    scratch.write(lock, "0000000000000000000000000000000000000000\n");
    scratch.write("bad.jsonl", row("a1", "one", "train"));
    let begun = Instant::now();
    refuses(
        &scratch,
        &IMPORT,
        5,
        &[
            "`refs/heads/proofline/datasets` is locked",
            "datasets.lock",
            "remove that file",
        ],
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(
        scratch.root().join(lock).exists(),
        "it is not ours to remove"
    );
    std::fs::remove_file(scratch.root().join(lock)).expect("removed");
    scratch.ok(&IMPORT);
    scratch.fsck();
}

/// Put a file on `control`, as somebody with git and no seal could.
fn tamper(scratch: &Scratch, path: &str, content: &str) {
    scratch.write("tampered", content);
    let blob = scratch.git(&["hash-object", "-w", "tampered"]);
    let (folder, name) = path.split_once('/').expect("a folder");
    let listed = scratch.git(&["ls-tree", &format!("proofline/control:{folder}")]);
    let kept: String = listed
        .lines()
        .filter(|line| !line.ends_with(&format!("\t{name}")))
        .fold(String::new(), |lines, line| lines + line + "\n");
    let inner = mktree(scratch, &format!("{kept}100644 blob {blob}\t{name}\n"));
    let listed = scratch.git(&["ls-tree", "proofline/control"]);
    let kept: String = listed
        .lines()
        .filter(|line| !line.ends_with(&format!("\t{folder}")))
        .fold(String::new(), |lines, line| lines + line + "\n");
    let tree = mktree(scratch, &format!("{kept}040000 tree {inner}\t{folder}\n"));
    let tip = scratch.git(&["rev-parse", "proofline/control"]);
    let commit = scratch.git(&["commit-tree", &tree, "-p", &tip, "-m", "tampered"]);
    scratch.git(&["update-ref", "refs/heads/proofline/control", &commit]);
}

fn mktree(scratch: &Scratch, entries: &str) -> String {
    let mut child = Command::new("git")
        .arg("mktree")
        .current_dir(scratch.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(entries.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success());
    text(&output.stdout).trim().to_owned()
}

/// Everything that needs the policy says why it cannot be used; nothing but the journal moves.
#[track_caller]
fn policy_refused(scratch: &Scratch, parts: &[&str]) {
    let before = refs_but_journal(scratch);
    has(&scratch.refused(&["overnight", "--run", "n1"], 4), parts);
    has(&scratch.refused(&["init"], 4), parts);
    has(&scratch.ok(&["status"]), &parts[..1]);
    let run = scratch.json(&["runs", "show", "n1"]);
    has(
        run["run"]["reason"].as_str().expect("a reason"),
        &parts[..1],
    );
    assert_eq!(refs_but_journal(scratch), before);
    scratch.fsck();
}

#[test]
fn a_policy_that_does_not_parse_is_refused() {
    let scratch = ready();
    tamper(&scratch, "policy/2.yaml", "gates: [\n");
    policy_refused(
        &scratch,
        &["proofline/control:policy/2.yaml:2:1: not valid YAML"],
    );
    let scratch = ready();
    tamper(&scratch, "policy/1.yaml", "gates: [\n");
    policy_refused(
        &scratch,
        &["proofline/control:policy/1.yaml:2:1: not valid YAML"],
    );
    let scratch = ready();
    tamper(&scratch, "policy/2.yaml", "schema: proofline/policy/v1\n");
    policy_refused(&scratch, &["proofline/control:policy/2.yaml:1:1: "]);
}

#[test]
fn a_pin_that_does_not_match_is_refused() {
    let scratch = ready();
    let project = scratch.read("proofline.toml");
    let (head, tail) = project.split_once("root = \"sha256:").expect("a pin");
    let other = "0".repeat(64);
    scratch.write(
        "proofline.toml",
        format!("{head}root = \"sha256:{other}{}", &tail[64..]),
    );
    policy_refused(
        &scratch,
        &["proofline.toml pins sha256:0000", "policy/1.yaml"],
    );
    let said = scratch.refused(&["overnight", "--run", "n2"], 4);
    has(
        &said,
        &["hint: ", "restore `control.root` in proofline.toml"],
    );
    scratch.write(
        "proofline.toml",
        format!("{head}root = \"sha25:{other}{}", &tail[64..]),
    );
    refuses(
        &scratch,
        &["status"],
        4,
        &["proofline.toml:14:8: ", "is not a valid digest"],
    );
    scratch.write(
        "proofline.toml",
        project.replacen("signatures =", "signaturs =", 1),
    );
    refuses(
        &scratch,
        &["status"],
        4,
        &["unknown property `signaturs`", "did you mean `signatures`?"],
    );
}

#[test]
fn a_repository_without_commits_works() {
    let scratch = ready();
    scratch.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    assert!(!scratch.refs().contains("refs/heads/main"));
    let night = scratch.json(&["overnight", "--run", "n1"]);
    assert_eq!(
        night["signatures"][0]["conclusion"], "promoted",
        "{night:#}"
    );
    assert!(!scratch.refs().contains("refs/heads/main"));
    scratch.fsck();
}

#[test]
fn outside_a_repository_it_says_so() {
    let scratch = ready();
    let outside = scratch.root().parent().expect("a parent");
    for args in [
        &["status"][..],
        &["init"],
        &["overnight"],
        &["runs", "list"],
        &IMPORT,
    ] {
        let output = scratch
            .proofline(args)
            .current_dir(outside)
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(4), "{args:?}");
        has(
            &text(&output.stderr),
            &["is not inside a git repository", "git init"],
        );
    }
    let entries = std::fs::read_dir(outside).expect("a folder").count();
    assert_eq!(entries, 1, "nothing was left there");
    refuses(
        &scratch,
        &["-C", "/no/such/folder", "status"],
        4,
        &["/no/such/folder"],
    );
}

#[test]
fn a_repository_that_is_not_set_up_says_so() {
    let scratch = Scratch::new();
    refuses(
        &scratch,
        &["overnight"],
        4,
        &["not set up for Proofline", "hint: run `proofline init`"],
    );
}

#[test]
fn a_bare_repository_works() {
    let scratch = ready();
    let bare = scratch.root().parent().expect("a parent").join("bare.git");
    scratch.git(&["add", FILE, "proofline.toml"]);
    scratch.git(&["commit", "--quiet", "-m", "the code"]);
    let bare_name = bare.to_str().expect("text");
    scratch.git(&["clone", "--quiet", "--mirror", ".", bare_name]);
    let output = scratch
        .proofline(&["-C", bare_name, "status", "--json"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let status: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert!(
        status.to_string().contains("@test/bad/Route.v1"),
        "{status:#}"
    );
    let compiled = scratch.ok(&["-C", bare_name, "compile", "Route.v1"]);
    has(&compiled, &["dev rows"]);
    scratch.git(&["-C", bare_name, "fsck", "--strict"]);
}

#[test]
fn a_reftable_repository_is_refused() {
    let scratch = Scratch::new();
    let folder = scratch.root().parent().expect("a parent").join("tables");
    let name = folder.to_str().expect("text");
    let made = Command::new("git")
        .args(["init", "--quiet", "--ref-format=reftable", name])
        .output()
        .expect("git runs");
    if !made.status.success() {
        return; // A git from before reftables.
    }
    for verb in ["init", "status", "overnight"] {
        let said = scratch.refused(&["-C", name, verb], 4);
        has(&said, &["reftable", "git refs migrate --ref-format=files"]);
    }
    let files = std::fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(files, 1, "only .git is there");
}

// The system.

/// The binary under a limit of the shell's.
fn limited(scratch: &Scratch, limit: &str, args: &[&str]) -> Output {
    let plain = scratch.proofline(args);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{limit} && exec \"$@\""), "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(scratch.root())
        .stdin(Stdio::null())
        .env_clear();
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.output().expect("sh runs")
}

#[test]
fn a_full_disk_leaves_every_ref_as_it_was() {
    let scratch = ready();
    let many: String = (0..400)
        .map(|n| row(&format!("q{n}"), &format!("{n} {}", n * 7919), "train"))
        .collect();
    scratch.write("bad.jsonl", many);
    let before = scratch.refs();
    for blocks in [0, 1, 8] {
        let output = limited(
            &scratch,
            &format!("trap '' XFSZ && ulimit -f {blocks}"),
            &IMPORT,
        );
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
        has(
            &text(&output.stderr),
            &["cannot ", ".git/", "leaves no room"],
        );
        assert_eq!(scratch.refs(), before);
        scratch.fsck();
    }
    // A night says so too, and is resumed when there is room.
    let output = limited(
        &scratch,
        "trap '' XFSZ && ulimit -f 4",
        &["overnight", "--run", "n1", "--json"],
    );
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    has(&text(&output.stderr), &["leaves no room"]);
    let _: Value = serde_json::from_slice(&output.stdout).expect("one document");
    scratch.fsck();
    let night = scratch.json(&["overnight", "--resume", "n1"]);
    assert_eq!(
        night["signatures"][0]["conclusion"], "promoted",
        "{night:#}"
    );
    scratch.fsck();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = ready();
    for args in [
        &["status"][..],
        &["resolve", "Route.v1"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let mut child = scratch
            .proofline(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // Closed before a byte is read.
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
    let mut child = scratch
        .proofline(&["overnight", "--run", "n1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let run = scratch.json(&["runs", "show", "n1"]);
    assert_eq!(run["run"]["status"], "finished");
    if std::path::Path::new("/dev/full").exists() {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("opened");
        let output = scratch
            .proofline(&["status"])
            .stdout(full)
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(5));
        has(&text(&output.stderr), &["cannot write to standard output"]);
    }
}

#[test]
fn without_a_terminal_there_is_no_colour() {
    let scratch = ready();
    let escapes = |output: &Output| {
        [&output.stdout[..], &output.stderr]
            .concat()
            .contains(&0x1b)
    };
    for args in [
        &["overnight", "--run", "n1", "--no-promote"][..],
        &["status"],
        &["runs", "show", "n9"],
        &["overnigth"],
        &["--help"],
    ] {
        assert!(!escapes(&scratch.run(args)), "{args:?}");
        let output = scratch
            .proofline(args)
            .env("NO_COLOR", "1")
            .env("TERM", "xterm-256color")
            .output()
            .expect("it runs");
        assert!(!escapes(&output), "{args:?}");
    }
    let asked = scratch.run(&["--color", "always", "runs", "show", "n9"]);
    assert!(escapes(&asked));
    // On a terminal, NO_COLOR still counts.
    let binary = env!("CARGO_BIN_EXE_proofline");
    let typescript = Command::new("script")
        .args(["-qec", &format!("{binary} runs show n9"), "/dev/null"])
        .current_dir(scratch.root())
        .env("NO_COLOR", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .output();
    if let Ok(output) = typescript {
        assert!(!escapes(&output), "{}", text(&output.stdout));
    }
}

/// A night whose command of this kind sends the signal of Ctrl-C to it, once. The
/// JSON summary of the interrupted night.
fn interrupted(scratch: &Scratch, kind: &str) -> Value {
    let command = "test -e .git/once || { touch .git/once; kill -INT $PPID; sleep 0.2; }";
    let project = scratch.read("proofline.toml");
    scratch.write(
        "proofline.toml",
        format!("{project}\n[[commands.{kind}]]\nname = \"tests\"\nargv = [\"sh\", \"-c\", \"{command}\"]\n"),
    );
    let output = scratch.run(&["overnight", "--run", "n1", "--json"]);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document, whatever happens")
}

#[test]
fn an_interrupted_night_is_on_record_and_goes_on() {
    for kind in ["verify", "e2e"] {
        let scratch = ready();
        let control = scratch.git(&["rev-parse", "proofline/control"]);
        let night = interrupted(&scratch, kind);
        assert_eq!(night["status"], "failed", "{night:#}");
        assert_eq!(night["reason"], "interrupted", "{night:#}");
        let run = scratch.json(&["runs", "show", "n1"]);
        assert_eq!(run["run"]["reason"], "interrupted", "{run:#}");
        assert!(run["run"]["finished"].is_string(), "{run:#}");
        assert_eq!(scratch.git(&["rev-parse", "proofline/control"]), control);
        scratch.fsck();
        let night = scratch.json(&["overnight", "--resume", "n1"]);
        assert_eq!(
            night["signatures"][0]["conclusion"], "promoted",
            "{night:#}"
        );
        scratch.ok(&["runs", "verify", "n1"]);
        scratch.fsck();
    }
}

#[test]
fn standard_input_that_never_was_is_an_empty_file() {
    let scratch = ready();
    refuses(
        &scratch,
        &["dataset", "import", "-", "--signature", "Route.v1"],
        4,
        &["<stdin>:1:1: the file is empty"],
    );
    let mut child = scratch
        .proofline(&[
            "dataset",
            "import",
            "-",
            "--signature",
            "Route.v1",
            "--dry-run",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(row("a1", "one", "train").as_bytes())
        .expect("written");
    drop(stdin);
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("it ends").success());
    has(&said, &["1 added"]);
}
