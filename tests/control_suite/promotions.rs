//! Promoting: what lands, what is proposed, what is withheld, and who wins a race.

use proofline::domain::prove::policy::Policy;
use proofline::id::Digest;
use proofline::store::Edit;
use serde_json::{Value, json};

use crate::support::{Repo, SIGNATURE, can_seal, gates, ran, reasons};

#[track_caller]
fn git_accepts(repo: &Repo, revision: &str) {
    let allowed = format!(
        "gpg.ssh.allowedSignersFile={}",
        repo.common("allowed_signers").display()
    );
    let output = repo.output("git", &["-c", &allowed, "verify-commit", revision]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_promotion_lands_once_and_verifies() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let (first, second) = (repo.program("one"), repo.program("two"));
    repo.night("night-1", &first, &second);
    let before = repo.state();
    let preview = repo.run(&["promote", SIGNATURE, "--dry-run"]).expect(0);
    assert_eq!(
        (&preview["mode"], &preview["counter"]),
        (&json!("direct"), &json!(1))
    );
    assert_eq!(repo.state(), before);

    let landed = repo.promote("night-1").expect(0);
    assert_eq!(landed["outcome"], "landed");
    assert_eq!(landed["statement"]["to"], second.to_string());
    assert_eq!(
        landed["commit"],
        repo.git(&["rev-parse", "proofline/control"])
    );
    git_accepts(&repo, "proofline/control");
    assert!(
        repo.read("control", "active/acme/support/SelectTool.v1.yaml")
            .contains(&second.to_string())
    );
    let log = repo.git(&["log", "-1", "--format=%B", "proofline/control"]);
    assert!(log.starts_with("promote SelectTool.v1: "), "{log}");
    assert!(
        log.contains("(+7.2 points on 260 holdout rows, p=4.0e-4)"),
        "{log}"
    );
    let trailers = repo.git(&[
        "log",
        "-1",
        "--format=%(trailers:only)",
        "proofline/control",
    ]);
    for key in [
        "Signature: ",
        "Counter: 1",
        "Artifact: sha256:",
        "Statement: sha256:",
        "Run: night-1",
    ] {
        assert!(trailers.contains(key), "{trailers}");
    }

    let shown = repo.show(&[]).expect(0);
    assert_eq!(shown["verdict"]["verdict"], "pass");
    let names: Vec<&str> = shown["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter_map(|check| check["gate"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "seal",
            "promotion.yaml",
            "chain",
            "pointer",
            "landing",
            "commit signature",
            "artifact",
            "inputs"
        ]
    );
    assert!(
        repo.page(&["promotions", "show", SIGNATURE])
            .ends_with("pass\n")
    );

    // A step that is repeated after a crash finds its own work.
    let state = repo.state();
    let again = repo.promote("night-1").expect(0);
    assert_eq!(
        (&again["outcome"], &again["reused"]),
        (&json!("landed"), &json!(true))
    );
    assert_eq!(again["digest"], landed["digest"]);
    assert_eq!(repo.state(), state);

    // The second builds on the first; then the first run has nothing to say any more.
    let third = repo.program("three");
    repo.night("night-2", &second, &third);
    repo.promote("night-2").expect(0);
    repo.show(&[]).expect(0);
    repo.show(&["1"]).expect(0);
    let late = repo.promote("night-1").expect(1);
    assert!(reasons(&late).contains("since then statement 2"), "{late}");
    let list = repo.run(&["promotions", "list"]).expect(0);
    let list = list["promotions"].as_array().expect("a list");
    assert_eq!(list.len(), 2);
    assert_eq!(
        (&list[0]["in_force"], &list[1]["in_force"]),
        (&json!(false), &json!(true))
    );
    assert!(
        repo.page(&["promotions", "list", "SelectTool.v1"])
            .contains("← in force")
    );
    assert_eq!(repo.show(&["3"]).code, 4);
}

#[test]
fn what_is_withheld_changes_nothing() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let (a, b, c, d) = (
        repo.program("a"),
        repo.program("b"),
        repo.program("c"),
        repo.program("d"),
    );
    repo.night("night-1", &a, &b);
    repo.promote("night-1").expect(0);

    let mut harmed = gates();
    harmed[2] = json!({"gate": "canary", "verdict": "refuse", "reasons": ["it fails more often"]});
    let mut open = gates();
    open[2] = json!({"gate": "canary", "verdict": "undecidable", "missing": ["receipts"], "fetch": "proofline exercise"});
    let mut boasting = gates();
    boasting[1]["figures"][2]["value"] = json!(0.99);
    let mut unproven = gates();
    unproven.as_array_mut().expect("gates").remove(1);
    repo.attempt("night-2", &b, &c, true);
    repo.attempt("night-2", &b, &d, false);
    repo.finished("harmed", &b, &c, harmed);
    repo.finished("open", &b, &c, open);
    repo.finished("boasting", &b, &c, boasting);
    repo.finished("unproven", &b, &c, unproven);
    repo.finished("stale", &a, &c, gates());
    repo.finished("same", &b, &b, gates());
    repo.finished("lost", &b, &d, gates());
    repo.finished("good", &b, &c, gates());
    // Sealed by a key that is no runner's.
    let e = repo.program("e");
    let promoter = repo.common("keys/promoter");
    repo.attempt_sealed("night-3", &b, &e, true, &promoter);
    repo.finished("not-a-runner", &b, &e, gates());
    let f = Digest::of(b"never made");
    repo.attempt("night-4", &b, &f, true);
    repo.finished("gone", &b, &f, gates());

    let before = repo.state();
    for (run, code, why) in [
        ("harmed", 1, "it fails more often"),
        ("open", 3, ""),
        ("boasting", 1, "its report says 0.872"),
        ("unproven", 1, "holdout gate did not pass"),
        ("stale", 1, "which is not in force"),
        ("same", 1, "in force already"),
        ("lost", 1, "no passed holdout attempt"),
        ("not-a-runner", 1, "not sealed by a runner"),
        ("gone", 3, ""),
        ("never", 2, ""),
    ] {
        let ran = repo.promote(run);
        assert_eq!(ran.code, code, "{run}: {}{}", ran.stdout, ran.stderr);
        assert!(reasons(&ran.json).contains(why), "{run}: {}", ran.stdout);
        assert_eq!(repo.state(), before, "{run}");
    }

    // The runner may not promote; a stranger may not either.
    let stranger = repo.home.path().join("stranger");
    let path = stranger.to_str().expect("text");
    assert!(
        repo.output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path])
            .status
            .success()
    );
    let runner = repo.common("keys/runner");
    let args = ["promote", SIGNATURE, "--run", "good"];
    for (key, why) in [
        (runner.as_path(), "has not the role `promoter`"),
        (&stranger, "belongs to nobody"),
    ] {
        let ran = repo.run_with(&args, &[("PROOFLINE_PROMOTER_KEY", key)]);
        assert!(reasons(&ran.json).contains(why), "{}", ran.stdout);
        assert_eq!(ran.code, 1);
        let back = ["rollback", SIGNATURE, "--reason", "x"];
        let ran = repo.run_with(&back, &[("PROOFLINE_PROMOTER_KEY", key)]);
        assert!(reasons(&ran.json).contains(why), "{}", ran.stdout);
        assert_eq!(repo.state(), before);
    }
    repo.promote("good").expect(0);
}

#[test]
fn a_proposal_waits_for_a_person() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    repo.run(&["init"]).expect(0);
    let (a, b, c) = (
        repo.program("be brief"),
        repo.program("be brief and kind\n````\nx"),
        repo.program("c"),
    );
    repo.night("night-1", &a, &b);
    let control = repo.git(&["rev-parse", "proofline/control"]);
    let proposed = repo.promote("night-1").expect(0);
    assert_eq!(proposed["outcome"], "proposed");
    let branch = proposed["branch"].as_str().expect("a branch");
    assert_eq!(branch, "proofline/promote/acme/support/SelectTool.v1/1");
    assert_eq!(
        repo.git(&["rev-parse", "proofline/control"]),
        control,
        "control has not moved"
    );
    assert_eq!(
        repo.git(&["rev-parse", &format!("{branch}^")]),
        control,
        "it stands on control"
    );
    git_accepts(&repo, branch);
    let body = std::fs::read_to_string(proposed["body"].as_str().expect("a path")).expect("a text");
    for part in [
        "+7.2 points",
        "another instruction",
        "+",
        "attested by runner@repo",
        "## Roll back",
        proposed["digest"].as_str().expect("a digest"),
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    assert_eq!(
        body.matches("````").count(),
        2,
        "a prompt does not end the fence"
    );
    repo.show(&["--at", branch]).expect(0);

    // Asked again, by the same run and by another: nothing is proposed again.
    let state = repo.state();
    let again = repo.promote("night-1").expect(0);
    assert_eq!(
        (&again["reused"], &again["commit"]),
        (&json!(true), &proposed["commit"])
    );
    repo.night("night-2", &a, &c);
    let state_2 = repo.state();
    let other = repo.promote("night-2").expect(1);
    assert!(
        reasons(&other).contains("waits for a person already"),
        "{other}"
    );
    assert_eq!(repo.state(), state_2);
    assert_ne!(state, state_2);

    // The printed commands land it as a fast-forward.
    let commands = proposed["commands"].as_array().expect("commands");
    for line in commands.iter().filter_map(Value::as_str) {
        assert!(repo.shell(line).status.success(), "{line}");
    }
    repo.show(&[]).expect(0);
    git_accepts(&repo, "proofline/control");
    let landed = repo.promote("night-1").expect(0);
    assert_eq!(
        (&landed["outcome"], &landed["reused"]),
        (&json!("landed"), &json!(true))
    );
}

#[test]
fn merges_keep_the_signed_commit_and_squashes_do_not() {
    if !can_seal() {
        return;
    }
    for (how, code) in [
        (&["merge", "--quiet", "--no-ff", "-m", "Merge"][..], 0),
        (&["merge", "--quiet", "--squash"], 1),
    ] {
        let repo = Repo::new(&[]);
        repo.run(&["init"]).expect(0);
        let (a, b) = (repo.program("a"), repo.program("b"));
        repo.night("night-1", &a, &b);
        let proposed = repo.promote("night-1").expect(0);
        let branch = proposed["branch"].as_str().expect("a branch");
        let other = repo.home.path().join("review");
        let other = other.to_str().expect("text");
        repo.git(&["worktree", "add", "--quiet", other, "proofline/control"]);
        let mut args = vec!["-C", other];
        args.extend(how);
        args.push(branch);
        repo.git(&args);
        if code != 0 {
            repo.git(&["-C", other, "commit", "--quiet", "-m", "Squashed"]);
        }
        repo.git(&["worktree", "remove", other]);
        let shown = repo.show(&[]).expect(code);
        if code != 0 {
            assert!(
                reasons(&shown).contains("is not signed, and policy asks for it"),
                "{shown}"
            );
        }
    }
}

#[test]
fn one_of_two_promoters_wins() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let base = repo.program("base");
    let runs: Vec<String> = (0..4).map(|index| format!("night-{index}")).collect();
    for run in &runs {
        let to = repo.program(run);
        repo.night(run, &base, &to);
    }
    let children: Vec<_> = runs
        .iter()
        .map(|run| {
            let mut command = repo.command(env!("CARGO_BIN_EXE_proofline"));
            command
                .args(["--json", "promote", SIGNATURE, "--run", run])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().expect("the program starts")
        })
        .collect();
    let ended: Vec<_> = children
        .into_iter()
        .map(|child| ran(child.wait_with_output().expect("it ends")))
        .collect();
    let won = ended.iter().filter(|ran| ran.code == 0).count();
    assert_eq!(won, 1, "{ended:?}");
    for lost in ended.iter().filter(|ran| ran.code != 0) {
        assert_eq!(lost.code, 1, "{}", lost.stderr);
        assert!(
            reasons(&lost.json).contains("statement 1 by ada@example.com promoted"),
            "{}",
            lost.stdout
        );
    }
    assert_eq!(repo.git(&["rev-list", "--count", "proofline/control"]), "2");
    repo.show(&[]).expect(0);
}

#[test]
fn two_machines_through_one_remote() {
    if !can_seal() {
        return;
    }
    let remote = Repo::new(&["--bare"]);
    let one = Repo::new(&[]);
    one.git(&[
        "remote",
        "add",
        "origin",
        remote.dir.to_str().expect("text"),
    ]);
    one.run(&["init", "--direct", "--remote", "origin"])
        .expect(0);
    let (a, b, c) = (one.program("a"), one.program("b"), one.program("c"));
    one.attempt("night-1", &a, &b, true);
    one.attempt("night-2", &a, &c, true);
    one.finished("night-1", &a, &b, gates());
    one.finished("night-2", &a, &c, gates());
    one.git(&["commit", "--quiet", "--allow-empty", "-m", "first"]);
    one.git(&["push", "--quiet", "--all", "origin"]);

    let mut two = Repo::new(&[]);
    let dir = two.home.path().join("clone");
    two.git(&[
        "clone",
        "--quiet",
        remote.dir.to_str().expect("text"),
        dir.to_str().expect("text"),
    ]);
    two.dir = dir;
    two.identify("Ada", "ada@example.com");
    std::fs::copy(
        one.dir.join("proofline.toml"),
        two.dir.join("proofline.toml"),
    )
    .expect("copied");
    let key = one.common("keys/promoter");
    two.run(&["init", "--promoter-key", key.to_str().expect("text")])
        .expect(0);

    let landed = one.promote("night-1").expect(0);
    let tip = landed["commit"].as_str().expect("a commit");
    assert_eq!(
        remote.git(&["rev-parse", "proofline/control"]),
        tip,
        "it counts when the remote has it"
    );
    // The other has not fetched, and is told.
    let late = two.promote("night-2").expect(1);
    assert!(reasons(&late).contains("promoted"), "{late}");
    assert_eq!(remote.git(&["rev-parse", "proofline/control"]), tip);
    assert_eq!(
        two.git(&["rev-parse", "proofline/control"]),
        tip,
        "and knows now"
    );
    // Its own run, repeated on the other machine, is found.
    let again = two.promote("night-1").expect(0);
    assert_eq!(again["reused"], true);

    // A remote that is gone: nothing happened, and it says so.
    let before = two.state();
    two.git(&["remote", "set-url", "origin", "/nowhere"]);
    let lost = two.run(&["rollback", SIGNATURE, "--reason", "bad"]);
    assert_eq!(lost.code, 5, "{}", lost.stderr);
    assert_eq!(two.state(), before);
}

#[test]
fn a_statement_of_an_old_epoch_is_refused() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let (a, b, c) = (repo.program("a"), repo.program("b"), repo.program("c"));
    repo.night("night-1", &a, &b);
    repo.promote("night-1").expect(0);
    repo.night("night-2", &b, &c);

    // A second epoch, after statement 1.
    let text = repo.read("control", "policy/1.yaml");
    let first: Policy = serde_yaml::from_str(&text).expect("a policy");
    let mut second = first.clone();
    second.epoch = 2;
    second.previous = Some(first.digest().expect("canonical"));
    second
        .last_counters
        .insert(SIGNATURE.parse().expect("an id"), 1);
    let value = serde_json::to_string(&second).expect("JSON");
    let epoch = Edit::put("policy/2.yaml".parse().expect("a path"), value);

    // Somebody keeps a statement of epoch 1 back, and lands it under epoch 2.
    let kept = repo.git(&["rev-parse", "proofline/control"]);
    repo.promote("night-2").expect(0);
    let files = ["promotion.yaml", "statement.intoto.jsonl"]
        .map(|name| format!("promotions/acme/support/SelectTool.v1/2/{name}"));
    let pointer = "active/acme/support/SelectTool.v1.yaml".to_owned();
    let edits: Vec<Edit> = files
        .iter()
        .chain([&pointer])
        .map(|path| Edit::put(path.parse().expect("a path"), repo.read("control", path)))
        .collect();
    repo.git(&["update-ref", "refs/heads/proofline/control", &kept]);
    repo.write("control", vec![epoch]);
    let clean = repo.git(&["rev-parse", "proofline/control"]);
    repo.write("control", edits);
    let shown = repo.show(&[]).expect(1);
    assert!(
        reasons(&shown).contains("a statement of an old epoch is not accepted"),
        "{shown}"
    );
    // Nothing is built on it.
    let before = repo.state();
    let stuck = repo.run(&["rollback", SIGNATURE, "--reason", "x"]);
    assert_eq!(stuck.code, 1, "{}", stuck.stderr);
    assert!(stuck.stderr.contains("is not sound"), "{}", stuck.stderr);
    assert_eq!(repo.state(), before);

    // Made anew under epoch 2, it is fine.
    repo.git(&["update-ref", "refs/heads/proofline/control", &clean]);
    repo.show(&["1"]).expect(0);
    let landed = repo.promote("night-2").expect(0);
    assert_eq!(landed["statement"]["epoch"], 2);
    repo.show(&["2"]).expect(0);
}

#[test]
fn a_promotion_that_was_killed_is_completed_or_found() {
    if !can_seal() {
        return;
    }
    let repo = Repo::direct();
    let mut from = repo.program("base");
    for index in 0..8_u64 {
        let run = format!("night-{index}");
        let to = repo.program(&run);
        repo.night(&run, &from, &to);
        let mut child = repo
            .command(env!("CARGO_BIN_EXE_proofline"))
            .args(["promote", SIGNATURE, "--run", &run])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(std::time::Duration::from_millis(12 * index));
        child.kill().expect("killed");
        child.wait().expect("ended");
        // Killed while it held the ref's lock, it leaves the lock behind, and git would say the same.
        let lock = repo.dir.join(".git/refs/heads/proofline/control.lock");
        let _ = std::fs::remove_file(lock);
        let landed = repo.promote(&run).expect(0);
        assert_eq!(landed["statement"]["counter"], index + 1, "{landed}");
        from = to;
    }
    let list = repo.run(&["promotions", "list"]).expect(0);
    assert_eq!(list["promotions"].as_array().map(Vec::len), Some(8));
    repo.show(&[]).expect(0);
}

/// A number that YAML gives back as its neighbour would make `promotion.yaml` differ from what was sealed.
#[test]
fn yaml_gives_every_number_back() {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..5_000 {
        bits = bits
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let small = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let value = json!({"p": small * 10_f64.powi((bits % 24) as i32 - 20)});
        let yaml = proofline::records::document::to_yaml(&value).expect("YAML");
        let back: Value =
            proofline::records::document::from_yaml("t", yaml, None).expect("read back");
        assert_eq!(back, value);
    }
}
