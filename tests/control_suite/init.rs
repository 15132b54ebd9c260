//! Setting a repository up, in every kind of repository, twice.

use std::path::Path;

use serde_json::Value;

use crate::support::{Repo, SIGNATURE, can_seal};

fn states(document: &Value) -> Vec<&str> {
    let steps = document["steps"].as_array().expect("steps");
    steps
        .iter()
        .filter_map(|step| step["state"].as_str())
        .collect()
}

#[track_caller]
fn git_accepts(repo: &Repo, document: &Value) {
    let line = document["verify"].as_str().expect("a command");
    let output = repo.shell(line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    assert!(said.contains("Good"), "{said}");
}

#[test]
fn twice_is_once() {
    if !can_seal() {
        return;
    }
    for args in [&[][..], &["--object-format=sha256"]] {
        let repo = Repo::new(args);
        let before = repo.state();
        let dry = repo.run(&["init", "--dry-run"]).expect(0);
        assert!(
            states(&dry).iter().all(|state| *state == "would_make"),
            "{dry}"
        );
        assert_eq!(repo.state(), before, "a dry run does nothing");
        assert!(!repo.dir.join(".git/proofline").exists());

        let first = repo.run(&["init"]).expect(0);
        assert!(
            states(&first).iter().all(|state| *state == "made"),
            "{first}"
        );
        assert_eq!(
            repo.git(&["for-each-ref", "--format=%(refname)"]),
            "refs/heads/proofline/control"
        );
        assert_eq!(repo.git(&["status", "--porcelain"]), "?? proofline.toml");
        git_accepts(&repo, &first);

        let after = repo.state();
        let file = std::fs::read(repo.dir.join("proofline.toml")).expect("the file");
        let second = repo.run(&["init"]).expect(0);
        assert!(
            states(&second).iter().all(|state| *state == "present"),
            "{second}"
        );
        assert_eq!(second["root"], first["root"]);
        assert_eq!(repo.state(), after);
        assert_eq!(
            std::fs::read(repo.dir.join("proofline.toml")).ok(),
            Some(file)
        );
        git_accepts(&repo, &second);

        // Evidence and promotion are sealed by two principals.
        let policy = repo.read("control", "policy/1.yaml");
        assert!(policy.contains("mode: propose"), "{policy}");
        let here = second["here"].as_array().expect("keys");
        assert_eq!(here[0]["principal"], "ada@example.com");
        assert_eq!(here[1]["principal"], "runner@repo");
        assert_eq!(here[1]["roles"], serde_json::json!(["runner"]));
    }
}

#[test]
fn what_a_crash_left_is_completed() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    let first = repo.run(&["init", "--prefix", "team/pl"]).expect(0);
    let file = repo.dir.join("proofline.toml");
    let text = std::fs::read(&file).expect("the file");
    std::fs::remove_file(&file).expect("removed");
    std::fs::remove_file(repo.common("allowed_signers")).expect("removed");
    let again = repo.run(&["init", "--prefix", "team/pl"]).expect(0);
    assert_eq!(again["root"], first["root"]);
    assert_eq!(std::fs::read(&file).ok(), Some(text));
    assert!(repo.common("allowed_signers").exists());
    assert_eq!(repo.git(&["rev-list", "--count", "team/pl/control"]), "1");
    let wrong = repo.run(&["init", "--prefix", "other"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
}

#[test]
fn an_existing_file_keeps_every_line() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    let file = repo.dir.join("proofline.toml");
    let text =
        "# ours\nsignatures = [\"prompts/*.yaml\"] # here\n\n[models.main]\nkind = \"lexical\"\n";
    std::fs::write(&file, text).expect("written");
    repo.run(&["init"]).expect(0);
    let edited = std::fs::read_to_string(&file).expect("the file");
    assert!(edited.starts_with(text), "{edited}");

    // A pin of something else is never overwritten, and nothing is made beside it.
    let repo = Repo::new(&[]);
    let file = repo.dir.join("proofline.toml");
    let pinned = format!("[control]\nroot = \"sha256:{}\"\n", "1".repeat(64));
    std::fs::write(&file, &pinned).expect("written");
    let before = repo.state();
    let refused = repo.run(&["init"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("git remote add"),
        "{}",
        refused.stderr
    );
    assert_eq!(repo.state(), before);
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), pinned);
}

#[test]
fn a_root_that_is_not_the_pinned_one_is_refused() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    repo.run(&["init"]).expect(0);
    let file = repo.dir.join("proofline.toml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let at = text.find("sha256:").expect("a pin") + 7;
    let other = format!("{}{}{}", &text[..at], "2".repeat(64), &text[at + 64..]);
    std::fs::write(&file, other).expect("written");
    let before = repo.state();
    let refused = repo.run(&["init"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("policy/1.yaml"),
        "{}",
        refused.stderr
    );
    assert_eq!(repo.state(), before);
}

#[test]
fn the_ssh_key_that_git_signs_with_becomes_the_persons() {
    if !can_seal() {
        return;
    }
    for configured in ["signing", "signing.pub", "~/signing.pub"] {
        let repo = Repo::new(&[]);
        let key = repo.home.path().join("signing");
        let key = key.to_str().expect("text");
        assert!(
            repo.output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key])
                .status
                .success()
        );
        let value = match configured {
            home if home.starts_with('~') => home.to_owned(),
            name => repo
                .home
                .path()
                .join(name)
                .to_str()
                .expect("text")
                .to_owned(),
        };
        repo.git(&["config", "gpg.format", "ssh"]);
        repo.git(&["config", "user.signingKey", &value]);
        let done = repo.run(&["init"]).expect(0);
        assert!(
            !repo.common("keys/promoter").exists(),
            "no key is made beside git's"
        );
        let public = std::fs::read_to_string(format!("{key}.pub")).expect("a public key");
        let public: Vec<&str> = public.split(' ').take(2).collect();
        let policy = repo.read("control", "policy/1.yaml");
        assert!(policy.contains(&public.join(" ")), "{configured}: {policy}");
        git_accepts(&repo, &done);
    }
}

#[test]
fn a_key_that_only_an_agent_holds_seals_too() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    let key = repo.home.path().join("signing");
    let text = key.to_str().expect("text");
    let made = repo.output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text]);
    assert!(made.status.success());
    let socket = repo.home.path().join("agent");
    let agent = repo
        .command("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn();
    let Ok(mut agent) = agent else {
        println!("skipped: ssh-agent is not installed");
        return;
    };
    let env = [("SSH_AUTH_SOCK", socket.as_path())];
    let mut added = false;
    for _ in 0..100 {
        let mut add = repo.command("ssh-add");
        let output = add.arg("-q").arg(&key).envs(env).output();
        added = output.is_ok_and(|output| output.status.success());
        if added {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let public = std::fs::read_to_string(repo.home.path().join("signing.pub")).expect("a key");
    std::fs::remove_file(&key).expect("removed");
    repo.git(&["config", "gpg.format", "ssh"]);
    repo.git(&[
        "config",
        "user.signingKey",
        &format!("key::{}", public.trim()),
    ]);
    let first = repo.run_with(&["init", "--direct"], &env);
    let second = repo.run_with(&["init"], &env);
    let (a, b) = (repo.program("a"), repo.program("b"));
    repo.night("night-1", &a, &b);
    let landed = repo.run_with(&["promote", SIGNATURE, "--run", "night-1"], &env);
    let alone = repo.run(&["rollback", SIGNATURE, "--reason", "x"]);
    let _ = agent.kill();
    let _ = agent.wait();
    assert!(added, "ssh-add");
    let first = first.expect(0);
    assert!(
        states(&second.expect(0))
            .iter()
            .all(|state| *state == "present")
    );
    git_accepts(&repo, &first);
    assert_eq!(landed.expect(0)["outcome"], "landed");
    repo.show(&[]).expect(0);
    assert_ne!(alone.code, 0, "without the agent nothing is sealed");
}

#[test]
fn a_key_that_the_user_names_is_found_again() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    for name in ["mine", "its"] {
        let key = repo.home.path().join(name);
        let key = key.to_str().expect("text");
        assert!(
            repo.output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key])
                .status
                .success()
        );
    }
    let same = repo.run(&[
        "init",
        "--promoter-key",
        "../mine",
        "--runner-key",
        "../mine",
    ]);
    assert_eq!(same.code, 2, "{}", same.stderr);
    std::fs::remove_dir_all(repo.common("keys")).expect("removed");
    let args = [
        "init",
        "--promoter-key",
        "../mine",
        "--runner-key",
        "../its",
        "--name",
        "ada",
    ];
    let done = repo.run(&args).expect(0);
    assert_eq!(done["here"][0]["principal"], "ada");
    git_accepts(&repo, &done);
    assert!(
        states(&repo.run(&args).expect(0))
            .iter()
            .all(|state| *state == "present")
    );
    let other = repo.run(&["init", "--promoter-key", "../its"]);
    assert_eq!(other.code, 4, "{}", other.stderr);
    let missing = repo.run(&["init", "--promoter-key", "../none"]);
    assert_eq!(missing.code, 4, "{}", missing.stderr);
}

#[test]
fn openpgp_goes_on_signing_commits() {
    if !can_seal() {
        return;
    }
    let repo = Repo::new(&[]);
    let made = repo
        .command("gpg")
        .args([
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-generate-key",
            "Ada <ada@example.com>",
            "ed25519",
            "sign",
            "never",
        ])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: gpg is not installed, or makes no key here");
        return;
    }
    repo.git(&["config", "user.signingKey", "ada@example.com"]);
    let done = repo.run(&["init"]).expect(0);
    assert!(
        repo.common("keys/promoter").exists(),
        "seals need an SSH key"
    );
    assert_eq!(done["verify"], "git verify-commit proofline/control");
    git_accepts(&repo, &done);
    let _ = repo.output("gpgconf", &["--kill", "all"]);
}

#[test]
fn other_kinds_of_repository() {
    if !can_seal() {
        return;
    }
    // Bare: the file to commit is printed.
    let repo = Repo::new(&["--bare"]);
    let done = repo.run(&["init"]).expect(0);
    let file = done["commit_this"].as_str().expect("a file");
    assert!(file.contains(done["root"].as_str().expect("a root")));
    git_accepts(&repo, &done);
    let again = repo.run(&["init"]).expect(0);
    assert_eq!(again["root"], done["root"]);
    assert_eq!(again["commit_this"], done["commit_this"]);

    // A linked worktree, with a detached HEAD, in a folder below its top.
    let repo = Repo::new(&[]);
    repo.git(&["commit", "--quiet", "--allow-empty", "-m", "first"]);
    repo.git(&["worktree", "add", "--quiet", "--detach", "../linked"]);
    let linked = repo.home.path().join("linked");
    std::fs::create_dir(linked.join("below")).expect("made");
    let below = linked.join("below");
    let done = repo
        .run(&["-C", below.to_str().expect("text"), "init"])
        .expect(0);
    assert!(linked.join("proofline.toml").exists());
    assert!(
        repo.common("allowed_signers").exists(),
        "local state is shared by all worktrees"
    );
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
    git_accepts(&repo, &done);

    // Outside a repository.
    let outside = repo.run(&["-C", "/", "init"]);
    assert_eq!(outside.code, 4, "{}", outside.stderr);
    assert!(outside.stderr.contains("git init"), "{}", outside.stderr);
}

fn shared() -> (Repo, Repo) {
    let repo = Repo::new(&[]);
    let remote = Repo::new(&["--bare"]);
    repo.git(&[
        "remote",
        "add",
        "origin",
        remote.dir.to_str().expect("text"),
    ]);
    (repo, remote)
}

fn clone(remote: &Repo, args: &[&str]) -> Repo {
    let mut clone = Repo::new(&[]);
    let dir = clone.home.path().join("clone");
    let mut all = vec!["clone", "--quiet"];
    all.extend(args);
    let url = format!("file://{}", remote.dir.display());
    all.extend([url.as_str(), dir.to_str().expect("text")]);
    clone.git(&all);
    clone.dir = dir;
    clone.identify("Bob", "bob@example.com");
    clone
}

#[test]
fn a_fresh_clone_finds_what_is_shared() {
    if !can_seal() {
        return;
    }
    let (repo, remote) = shared();
    let done = repo.run(&["init", "--remote", "origin"]).expect(0);
    let tip = repo.git(&["rev-parse", "proofline/control"]);
    assert_eq!(
        remote.git(&["rev-parse", "proofline/control"]),
        tip,
        "the remote has it"
    );
    repo.git(&["add", "proofline.toml"]);
    repo.git(&["commit", "--quiet", "-m", "set up"]);
    repo.git(&["push", "--quiet", "origin", "main"]);

    let whole = clone(&remote, &[]);
    let here = whole.run(&["init"]).expect(0);
    assert_eq!(here["root"], done["root"]);
    assert_eq!(whole.git(&["rev-parse", "proofline/control"]), tip);
    assert_eq!(
        here["here"],
        serde_json::json!([]),
        "no keys are made that the policy does not know"
    );
    git_accepts(&whole, &here);
    assert!(
        states(&whole.run(&["init"]).expect(0))
            .iter()
            .all(|state| *state == "present")
    );

    // With one branch only: exit 3 and the command that fetches the rest.
    let single = clone(
        &remote,
        &["--single-branch", "--branch", "main", "--depth", "1"],
    );
    let before = single.state();
    let missing = single.run(&["init"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    assert_eq!(single.state(), before);
    let line = missing.json["error"]["hints"][0]
        .as_str()
        .expect("a command")
        .to_owned();
    assert!(single.shell(&line).status.success(), "{line}");
    single.run(&["init"]).expect(0);
    assert_eq!(single.git(&["rev-parse", "proofline/control"]), tip);
}

#[test]
fn nobody_founds_a_second_root_beside_the_first() {
    if !can_seal() {
        return;
    }
    let (repo, remote) = shared();
    repo.run(&["init", "--remote", "origin"]).expect(0);
    // The file was never committed: a clone has the branch and no pin.
    repo.git(&["commit", "--quiet", "--allow-empty", "-m", "first"]);
    repo.git(&["push", "--quiet", "origin", "main"]);
    for args in [&["init"][..], &["init", "--remote", "origin"]] {
        let other = clone(&remote, &[]);
        let before = other.state();
        let refused = other.run(args);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert_eq!(other.state(), before);
        assert!(!other.dir.join("proofline.toml").exists());
    }
    // Before anything was fetched, the remote itself is asked.
    let unfetched = Repo::new(&[]);
    unfetched.git(&[
        "remote",
        "add",
        "origin",
        remote.dir.to_str().expect("text"),
    ]);
    let refused = unfetched.run(&["init", "--remote", "origin"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let unknown = unfetched.run(&["init", "--remote", "upstream"]);
    assert_eq!(unknown.code, 5, "{}", unknown.stderr);
    assert!(!Path::new(&unfetched.dir).join("proofline.toml").exists());
}
