//! Runs as another tool records them, by the command line.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::support::Repo;

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn feed(repo: &Repo, args: &[&str], input: &[u8]) -> Output {
    let mut child = repo
        .proofline(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input)
        .expect("written");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_tool_records_its_run() {
    let repo = Repo::new("");
    let id = repo.says(&[
        "runs",
        "start",
        "--tool",
        "Nightly Import",
        "--note",
        "first",
        "--link",
        "ci=https://ci.example/7",
    ]);
    let id = id.trim();
    assert!(id.starts_with("nightly-import-"), "{id}");
    assert_eq!(
        repo.says(&[
            "runs",
            "event",
            id,
            "--phase",
            "fetch",
            "--message",
            "412 rows"
        ]),
        ""
    );
    repo.says(&[
        "runs",
        "event",
        id,
        "--phase",
        "fetch",
        "--level",
        "warn",
        "-m",
        "slow",
        "--json-data",
        "{\"ms\": 900}",
    ]);
    // Two events are no batch: they are on disk, and `show` takes them up.
    let story = json(&repo.run(&["runs", "show", id, "--json"]));
    assert_eq!(story["events"][1]["json"]["ms"], 900);
    assert_eq!(story["events"][1]["seq"], 2);
    repo.says(&[
        "runs",
        "finish",
        id,
        "--status",
        "finished",
        "--result",
        "{\"rows\": \"imported\"}",
    ]);
    let page = repo.says(&["runs", "show", id]);
    for part in [
        "Nightly Import",
        "finished",
        "412 rows",
        "! slow",
        "note",
        "ci  https://ci.example/7",
        "rows imported",
    ] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    let list = repo.says(&["runs", "list"]);
    assert!(
        list.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with(id) && line.contains("finished")),
        "{list}"
    );
    let verified = repo.run(&["runs", "verify", id]);
    assert_eq!(
        verified.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    let text = String::from_utf8_lossy(&verified.stdout);
    assert!(
        text.contains("events = 2 (recomputed)") && text.contains("leads to nothing of ours"),
        "{text}"
    );
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn wrong_uses_are_refused_and_change_nothing() {
    let repo = Repo::new("");
    repo.says(&["runs", "start", "--tool", "t", "--id", "n"]);
    repo.says(&["runs", "start", "--tool", "t", "--id", "done"]);
    repo.says(&[
        "runs", "finish", "done", "--status", "failed", "--reason", "no rows",
    ]);
    let before = repo.git(&["for-each-ref"]);
    let table: [(&[&str], i32, &str); 12] = [
        (
            &["runs", "start", "--tool", "t", "--id", "n"],
            2,
            "run `n` exists",
        ),
        (&["runs", "start", "--tool", "t", "--id", "../x"], 2, "../x"),
        (&["runs", "start", "--tool", ""], 4, ""),
        (
            &["runs", "event", "gone", "--phase", "p", "--message", "m"],
            2,
            "there is no run `gone`",
        ),
        (
            &["runs", "event", "done", "--phase", "p", "--message", "m"],
            2,
            "has ended",
        ),
        (
            &["runs", "event", "n", "--phase", "", "--message", "m"],
            2,
            "a phase has 1 to 100 characters",
        ),
        (
            &[
                "runs",
                "event",
                "n",
                "--phase",
                "p",
                "--message",
                "m",
                "--json-data",
                "[1]",
            ],
            2,
            "is not a JSON object",
        ),
        (
            &[
                "runs",
                "event",
                "n",
                "--phase",
                "p",
                "--message",
                "m",
                "--json-data",
                "{",
            ],
            4,
            "--json-data:1",
        ),
        (&["runs", "event", "n"], 2, ""),
        (
            &["runs", "finish", "n", "--status", "failed"],
            2,
            "needs a reason",
        ),
        (
            &["runs", "finish", "done", "--status", "finished"],
            2,
            "has ended",
        ),
        (&["runs", "verify", "gone"], 2, "there is no run `gone`"),
    ];
    for (args, code, said) in table {
        let output = repo.run(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
    assert_eq!(repo.git(&["for-each-ref"]), before);
}

#[test]
fn a_stream_keeps_what_is_good_and_names_the_rest() {
    let repo = Repo::new("");
    repo.says(&["runs", "start", "--tool", "t", "--id", "n"]);
    let mut input = String::from(
        "\u{feff}{\"phase\":\"a\",\"message\":\"first\"}\r\n\nnot json\n{\"phase\":\"a\",\"message\":\"x\",\"colour\":1}\n{\"phase\":\"\",\"message\":\"x\"}\n",
    );
    input.push_str(&format!(
        "{{\"phase\":\"a\",\"message\":\"{}\"}}\n",
        "x".repeat(3 << 20)
    ));
    input.push_str("{\"phase\":\"a\",\"level\":\"error\",\"message\":\"last\",\"json\":{\"n\":1},\"ts\":\"2026-11-21T04:00:00Z\"}");
    let output = feed(&repo, &["runs", "event", "n", "-"], input.as_bytes());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    for place in [
        "standard input:3:",
        "standard input:4:",
        "standard input:5:",
        "the line has more than 1048576 bytes",
        "2 events recorded, 4 lines refused",
    ] {
        assert!(said.contains(place), "{place:?} is not in\n{said}");
    }
    assert!(said.len() < 10_000, "a long line is not quoted in full");
    let story = json(&repo.run(&["runs", "show", "n", "--json"]));
    let messages: Vec<&str> = story["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["message"].as_str())
        .collect();
    assert_eq!(messages, ["first", "last"]);
    assert_eq!(story["events"][1]["ts"], "2026-11-21T04:00:00Z");
}

#[test]
fn many_events_are_few_commits() {
    let repo = Repo::new("");
    repo.says(&["runs", "start", "--tool", "t", "--id", "n"]);
    let input: String = (0..20_000)
        .map(|n| format!("{{\"phase\":\"p\",\"message\":\"event {n}\"}}\n"))
        .collect();
    let output = feed(&repo, &["runs", "event", "n", "-"], input.as_bytes());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let commits: usize = repo
        .git(&["rev-list", "--count", "proofline/journal"])
        .parse()
        .expect("a number");
    assert!(commits < 60, "{commits} commits");
    let files = repo.git(&[
        "ls-tree",
        "-r",
        "--name-only",
        "proofline/journal",
        "journal/runs/n/events",
    ]);
    assert!(files.lines().count() > 10, "the log is cut into segments");
    let verified = repo.run(&["runs", "verify", "n"]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("events = 20000 (recomputed)"));
}

#[test]
fn secrets_of_the_environment_do_not_enter_the_journal() {
    let repo = Repo::new("");
    repo.says(&["runs", "start", "--tool", "t", "--id", "n"]);
    let secret = "pl4nted-journal-secret";
    let run = |args: &[&str]| {
        let output = repo
            .proofline(args)
            .env("DEPLOY_TOKEN", secret)
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let message = format!("\u{1b}[31mlogged in with {secret} and sk-planted0123456789abcdef");
    run(&[
        "runs",
        "event",
        "n",
        "--phase",
        "p",
        "--message",
        &message,
        "--json-data",
        &format!("{{\"a\":[\"{secret}\"]}}"),
    ]);
    run(&[
        "runs", "finish", "n", "--status", "failed", "--reason", &message,
    ]);
    let everything = repo.everything();
    assert!(
        everything.contains("logged in with [redacted] and [redacted]"),
        "{everything}"
    );
    for planted in [secret, "sk-planted0123456789abcdef", "\u{1b}"] {
        assert!(!everything.contains(planted), "{planted:?} leaked");
    }
}

#[test]
fn status_tells_a_young_repository_what_to_do() {
    let repo = Repo::new("");
    let page = repo.says(&["status"]);
    assert!(
        page.contains("policy: epoch 1, root ") && page.contains("No signatures yet"),
        "{page}"
    );
    let head = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["update-ref", "-d", "refs/heads/proofline/control"]);
    let page = repo.says(&["status"]);
    assert!(page.contains("policy: unusable: "), "{page}");
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), head);
    let status = json(&repo.run(&["status", "--json"]));
    assert!(status["policy"]["pinned"].is_string() && status["policy"]["epoch"].is_null());
}
