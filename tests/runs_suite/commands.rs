//! Commands as evidence: what a command can do wrong, and what is kept of it.

use std::process::Command;
use std::time::{Duration, Instant};

use proofline::domain::operate::command::{
    CommandEvidence, CommandExit, TAIL_BYTES_MAX, TestCounts,
};
use proofline::domain::prove::policy::Role;
use proofline::domain::prove::verdict::{Label, Verdict};
use proofline::flows::commands::{Candidate, CommandKind, CommandsOutcome, Options, run_all};
use proofline::flows::{FlowError, Kind};
use proofline::id::Digest;
use proofline::records::evidence;
use proofline::records::sealed::Sealed;
use proofline::seal::Namespace;

use super::support::{Repo, hermetic, program, run_id, signature};

fn verify(repo: &Repo, run: &str) -> Result<CommandsOutcome, FlowError> {
    run_all(
        &repo.workspace(),
        &run_id(run),
        CommandKind::Verify,
        &Options::default(),
        None,
    )
}

/// The evidence as it is committed, with its seal checked.
fn committed(repo: &Repo, outcome: &CommandsOutcome) -> Sealed<CommandEvidence> {
    let workspace = repo.workspace();
    let bound = outcome.bound.as_ref().expect("it is committed");
    let snapshot = workspace
        .store
        .snapshot_at(bound.commit.parse().expect("a commit"))
        .expect("it is here");
    let path = bound.path.parse().expect("a path");
    let bytes = snapshot.read(&path).expect("readable").expect("there");
    assert_eq!(Digest::of(&bytes), bound.digest);
    let sealed = evidence::commands(&workspace.refs.evidence, Some(&snapshot), &path)
        .expect("valid")
        .expect("there");
    let policy = proofline::flows::canary::policy(&workspace).expect("a policy");
    let by = sealed
        .sealed_by(&policy, Role::Runner, Namespace::Evidence)
        .expect("a seal");
    assert_eq!(
        by.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["the-runner"]
    );
    sealed
}

#[test]
fn a_pass_is_sealed_and_attested() {
    let repo = Repo::new(
        r#"
[[commands.verify]]
name = "unit"
argv = ["./unit.sh"]
junit = "junit.xml"
"#,
    );
    repo.script("unit.sh", "echo 'x-request-id: abc-123'; printf '<testsuite><testcase classname=\"a\" name=\"b\"/></testsuite>' > junit.xml");
    let outcome = verify(&repo, "night-1").expect("it runs");
    assert_eq!(outcome.gate.verdict, Verdict::Pass);
    assert_eq!(outcome.gate.gate, "verify");
    assert_eq!(outcome.gate.skipped, None);
    let attested = Label::AttestedBy("the-runner".parse().expect("a principal"));
    assert!(!outcome.gate.figures.is_empty());
    assert!(
        outcome
            .gate
            .figures
            .iter()
            .all(|figure| figure.label == attested)
    );
    let shown = committed(&repo, &outcome).body;
    assert_eq!(
        outcome.bound.as_ref().expect("there").path,
        "evidence/runs/night-1/verify.yaml"
    );
    assert_eq!(
        shown.commit.as_deref(),
        Some(repo.git(&["rev-parse", "HEAD"]).as_str())
    );
    assert_eq!(shown.commands[0].exit, CommandExit::Exited { code: 0 });
    assert_eq!(
        shown.commands[0].tests,
        Some(TestCounts {
            total: 1,
            failed: 0,
            skipped: 0
        })
    );
    assert_eq!(shown.commands[0].correlation_ids, ["abc-123"]);
    assert_eq!(
        repo.git(&["status", "--porcelain", "--untracked-files=no"]),
        ""
    );
}

#[test]
fn every_way_to_fail_is_told_apart_and_all_commands_run() {
    let repo = Repo::new(
        r#"
[[commands.verify]]
name = "exit"
argv = ["sh", "-c", "echo to-stdout; echo to-stderr >&2; echo '{\"requestId\":\"req_77aa\"}'; exit 3"]
[[commands.verify]]
name = "signal"
argv = ["sh", "-c", "kill -9 $$"]
[[commands.verify]]
name = "slow"
argv = ["sh", "-c", "echo began; sleep 100 & wait"]
timeout_ms = 300
[[commands.verify]]
name = "gone"
argv = ["./no-such-program"]
[[commands.verify]]
name = "tests"
argv = ["sh", "-c", "printf '<testsuite name=\"s\"><testcase name=\"ok\"/><testcase name=\"bad\"><failure/></testcase></testsuite>' > j.xml"]
junit = "j.xml"
[[commands.verify]]
name = "no-report"
argv = ["true"]
junit = "never.xml"
[[commands.verify]]
name = "hostile-report"
argv = ["sh", "-c", "printf '<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><testsuite name=\"&e;\"/>' > h.xml"]
junit = "h.xml"
[[commands.verify]]
name = "pipe-report"
argv = ["sh", "-c", "mkfifo p.xml"]
junit = "p.xml"
[[commands.verify]]
name = "stale-report"
argv = ["true"]
junit = "stale.xml"
[[commands.verify]]
name = "good"
argv = ["true"]
"#,
    );
    repo.write("stale.xml", "<testsuite/>");
    let began = Instant::now();
    let outcome = verify(&repo, "night-1").expect("a refusal is a value");
    assert!(began.elapsed() < Duration::from_secs(60));
    let Verdict::Refuse { reasons } = &outcome.gate.verdict else {
        panic!("{:?}", outcome.gate);
    };
    let expected = [
        "`exit` exited with 3; look for req_77aa",
        "`signal` was ended by signal 9",
        "`slow` was killed after its limit of 300 ms",
        "`gone` could not be started: No such file or directory (os error 2)",
        "`tests` exited with 0, but its report has failures; 1 failing test(s): s::bad",
        "`no-report`: its report never.xml: No such file or directory (os error 2)",
        "`hostile-report`: its report h.xml: it has a document type, at byte 0, which is refused",
        "`pipe-report`: its report p.xml is not a file",
        "`stale-report`: its report stale.xml was there before and was not written anew",
    ];
    assert_eq!(
        reasons.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    let shown = committed(&repo, &outcome).body;
    assert_eq!(shown.commands.len(), 10);
    assert_eq!(
        shown.commands[0].stdout_tail,
        "to-stdout\n{\"requestId\":\"req_77aa\"}\n"
    );
    assert_eq!(shown.commands[0].stderr_tail, "to-stderr\n");
    assert_eq!(shown.commands[2].stdout_tail, "began\n");
    assert_eq!(outcome.durations_ms.len(), 10);
    assert!(outcome.durations_ms[2] >= 300, "{:?}", outcome.durations_ms);
    let lines = outcome.lines();
    assert!(
        lines[2].starts_with("`slow` was killed after its limit of 300 ms after "),
        "{}",
        lines[2]
    );
    assert!(
        !repo.everything().contains("root:x:0"),
        "an external entity was read"
    );
}

#[test]
fn e2e_commands_get_the_candidate_and_nothing_else() {
    let repo = Repo::new(
        r#"
[[commands.e2e]]
name = "shop"
argv = ["./e2e.sh"]
env = ["PROOFLINE_TEST_LISTED"]
set = { STAGE = "night" }
"#,
    );
    repo.script("e2e.sh", "env | cut -d= -f1 | sort | tr '\\n' ' '; echo; echo \"$PROOFLINE_SIGNATURE $PROOFLINE_RUN $STAGE\"; cat \"$PROOFLINE_ARTIFACT_FILE\"; echo \"$PROOFLINE_ARTIFACT\"");
    let (signature, program) = (signature(), program());
    let candidate = Candidate {
        signature: &signature,
        artifact: program.artifact_id().expect("an id"),
        program: &program,
    };
    let outcome = run_all(
        &repo.workspace(),
        &run_id("n"),
        CommandKind::E2e,
        &Options::default(),
        Some(candidate),
    )
    .expect("it runs");
    assert_eq!(outcome.gate.verdict, Verdict::Pass, "{outcome:?}");
    let shown = committed(&repo, &outcome).body;
    assert_eq!(
        (shown.signature.as_ref(), shown.artifact),
        (Some(&signature), Some(candidate.artifact))
    );
    assert_eq!(
        outcome.bound.as_ref().expect("there").path,
        "evidence/runs/n/e2e/acme/support/SelectTool.v1.yaml"
    );
    let text = &shown.commands[0].stdout_tail;
    let names: Vec<&str> = text
        .lines()
        .next()
        .expect("a line")
        .split_whitespace()
        .collect();
    let known = [
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "STAGE",
        "_",
        "PROOFLINE_ARTIFACT",
        "PROOFLINE_ARTIFACT_FILE",
        "PROOFLINE_RUN",
        "PROOFLINE_SIGNATURE",
        "PROOFLINE_TEST_LISTED",
    ];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    assert!(
        text.contains("@acme/support/SelectTool.v1 n night\n"),
        "{text}"
    );
    assert!(text.contains("schema: proofline/artifact/v1"), "{text}");
    assert!(
        text.trim_end().ends_with(&candidate.artifact.to_string()),
        "{text}"
    );
}

#[test]
fn a_pattern_must_match_and_must_be_one() {
    let repo = Repo::new(
        "[[commands.e2e]]\nname = \"a\"\nargv = [\"echo\", \"checkout ok\"]\n[[commands.e2e]]\nname = \"b\"\nargv = [\"true\"]\n",
    );
    let workspace = repo.workspace();
    let run = |id: &str, pattern: &str| {
        let options = Options {
            grep: Some(pattern.to_owned()),
            skip: None,
        };
        run_all(&workspace, &run_id(id), CommandKind::E2e, &options, None)
    };
    assert_eq!(
        run("one", "^checkout ok$").expect("it runs").gate.verdict,
        Verdict::Pass
    );
    let refused = run("two", "checkout failed").expect("it runs");
    assert_eq!(
        refused.gate.verdict,
        Verdict::Refuse {
            reasons: vec!["no command's output matches `checkout failed`".to_owned()]
        }
    );
    assert_eq!(
        committed(&repo, &refused)
            .body
            .output_match
            .map(|wanted| wanted.matched),
        Some(false)
    );
    let error = run("three", "(").expect_err("it is no pattern");
    assert_eq!(error.kind, Kind::Usage, "{error}");
}

#[test]
fn a_skip_is_recorded_with_its_reason() {
    let repo = Repo::new("[[commands.e2e]]\nname = \"a\"\nargv = [\"false\"]\n");
    let options = Options {
        skip: Some("--no-e2e: the shop is down".to_owned()),
        grep: None,
    };
    let skipped = run_all(
        &repo.workspace(),
        &run_id("n"),
        CommandKind::E2e,
        &options,
        None,
    )
    .expect("it is skipped");
    assert_eq!(skipped.gate.verdict, Verdict::Pass);
    assert_eq!(
        skipped.gate.skipped.as_deref(),
        Some("--no-e2e: the shop is down")
    );
    let shown = committed(&repo, &skipped).body;
    assert_eq!(
        (shown.skipped, shown.commands.len()),
        (skipped.gate.skipped.clone(), 0)
    );

    let none = verify(&repo, "n").expect("there is nothing to run");
    assert_eq!(
        none.gate.skipped.as_deref(),
        Some("no verify commands are configured")
    );
    assert!(none.bound.is_none());
}

#[test]
fn a_repeated_step_finds_its_evidence() {
    let repo = Repo::new(
        "[[commands.verify]]\nname = \"a\"\nargv = [\"sh\", \"-c\", \"echo x >> ran.txt; exit 1\"]\n",
    );
    let ran = || {
        std::fs::read_to_string(repo.dir.join("ran.txt"))
            .unwrap_or_default()
            .len()
            / 2
    };
    let first = verify(&repo, "n").expect("it runs");
    let again = verify(&repo, "n").expect("it is found");
    assert_eq!((first.reused, again.reused, ran()), (false, true, 1));
    assert_eq!((&first.gate, &first.bound), (&again.gate, &again.bound));
    let other = verify(&repo, "m").expect("another run runs again");
    assert_eq!((other.reused, ran()), (false, 2));
    repo.git(&["commit", "--quiet", "--allow-empty", "-m", "other code"]);
    let newer = verify(&repo, "n").expect("other code runs again");
    assert_eq!((newer.reused, ran()), (false, 3));
    // Evidence that no runner of the policy sealed counts for nothing.
    let text = repo.git(&["show", "proofline/evidence:evidence/runs/n/verify.yaml"]);
    repo.put(
        "proofline/evidence",
        "evidence/runs/n/verify.yaml",
        text.replace("code: 1", "code: 0").as_bytes(),
    );
    let forged = verify(&repo, "n").expect("it runs again");
    assert_eq!((forged.reused, ran()), (false, 4));
    assert!(!forged.gate.verdict.is_pass());
}

#[test]
fn much_output_is_cut_and_terminals_are_safe() {
    let repo = Repo::new(
        "[[commands.verify]]\nname = \"a\"\nargv = [\"sh\", \"-c\", \"seq 1 200000; printf '\\\\033[31mred\\\\033[0m \\\\377\\\\n'\"]\n",
    );
    let outcome = verify(&repo, "n").expect("it runs");
    let tail = committed(&repo, &outcome).body.commands[0]
        .stdout_tail
        .clone();
    assert!(tail.len() <= TAIL_BYTES_MAX);
    assert!(
        tail.ends_with("200000\nred \u{fffd}\n"),
        "{:?}",
        &tail[tail.len() - 40..]
    );
}

#[test]
fn a_key_that_is_not_a_runners_seals_nothing() {
    let repo = Repo::new("[[commands.verify]]\nname = \"a\"\nargv = [\"touch\", \"ran\"]\n");
    for name in ["runner", "runner.pub"] {
        let keys = repo.dir.join(".git/proofline/keys");
        std::fs::copy(
            keys.join(name.replace("runner", "promoter")),
            keys.join(name),
        )
        .expect("copied");
    }
    let error = verify(&repo, "n").expect_err("the key is another's");
    assert!(error.message.contains("role `runner`"), "{error}");
    assert!(
        !repo.dir.join("ran").exists(),
        "nothing runs that could not be sealed"
    );
    assert_eq!(
        repo.git(&["for-each-ref", "refs/heads/proofline/evidence"]),
        ""
    );
}

const PLANTED: &str = "pl4nted-v4lue-0f-a-variable";

/// Runs in a process of its own, whose environment holds the planted secret.
#[test]
#[ignore = "the next test runs it"]
fn with_a_planted_secret() {
    assert_eq!(std::env::var("DEPLOY_TOKEN").as_deref(), Ok(PLANTED));
    let repo = Repo::new(
        r#"
[[commands.verify]]
name = "leaky"
argv = ["./leaky.sh", "--key=sk-planted0123456789abcdef"]
env = ["DEPLOY_TOKEN", "MODEL_ACCESS"]
set = { DB_PASSWORD = "pl4nted-in-the-file" }
junit = "j.xml"
[models.remote]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
api_key_env = "MODEL_ACCESS"
"#,
    );
    repo.script(
        "leaky.sh",
        "env; env >&2; echo \"x-request-id: $DEPLOY_TOKEN\"; printf \"\\033[1m$DEPLOY_TOKEN\\033[0m\\n\"; echo \"$1\";\
         head -c 9000 /dev/zero | tr '\\0' x; echo \"$DEPLOY_TOKEN\";\
         printf \"<testsuite><testcase name='$DEPLOY_TOKEN'><failure/></testcase></testsuite>\" > j.xml; exit 1",
    );
    let outcome = verify(&repo, "n").expect("it runs");
    let shown = committed(&repo, &outcome).body;
    assert!(
        shown.commands[0]
            .stderr_tail
            .contains("DEPLOY_TOKEN=[redacted]"),
        "{shown:?}"
    );
    let told = format!(
        "{outcome:?}{}{:?}",
        serde_json::to_string(&outcome).expect("JSON"),
        outcome.lines()
    );
    // `proofline.toml` itself, which the user committed, holds what the user wrote into it.
    repo.git(&["update-ref", "-d", "refs/heads/main"]);
    for place in [told, repo.everything()] {
        for secret in [
            PLANTED,
            "pl4nted-model-key",
            "pl4nted-in-the-file",
            "sk-planted0123456789abcdef",
        ] {
            assert!(!place.contains(secret), "{secret} leaked");
        }
    }
}

#[test]
fn planted_secrets_never_reach_a_branch() {
    let this = std::env::current_exe().expect("a test knows its file");
    let output = hermetic(Command::new(this).args([
        "--exact",
        "commands::with_a_planted_secret",
        "--ignored",
    ]))
    .env("DEPLOY_TOKEN", PLANTED)
    .env("MODEL_ACCESS", "pl4nted-model-key")
    .output()
    .expect("the test runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
