//! Programs that speak JSON lines, good and bad ones, written in sh.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proofline::host::clock::SystemClock;
use proofline::host::signal::Interrupt;
use proofline::models::config::ExecConfig;
use proofline::models::error::Phase;
use proofline::models::exec::Exec;
use proofline::models::pool::run_bounded;
use proofline::models::{
    Completion, Decoding, Failure, FinishReason, Message, Model, ModelConfigs, ModelError, Request,
    ResponseFormat, Surroundings, connect,
};

fn surroundings() -> Surroundings {
    Surroundings::new(
        Arc::new(SystemClock::default()),
        Interrupt::default(),
        |name| match name {
            "PATH" => std::env::var("PATH").ok(),
            "PLANTED_KEY" => Some("sk-planted-77aa".into()),
            "NOT_LISTED" => Some("must not be seen".into()),
            _ => None,
        },
    )
}

fn config(script: &str) -> ExecConfig {
    ExecConfig {
        command: vec!["sh".into(), "-c".into(), script.into()],
        env: Vec::new(),
        timeout_ms: 20_000,
        concurrency: 1,
        retries: 0,
        price: Default::default(),
        breaker: None,
        fallback: None,
    }
}

fn request(text: &str) -> Request {
    Request {
        messages: vec![Message::user(text)],
        decoding: Decoding {
            temperature: Some(0.0),
            ..Decoding::default()
        },
        response: ResponseFormat::Text,
        repetition: 0,
        correlation_id: "run-1/1".into(),
    }
}

fn ask(exec: &Exec) -> Result<Completion, ModelError> {
    exec.complete(&request("hi"))
}

/// Answers every line with its own process id.
const GOOD: &str = r#"while read -r line; do
    id=${line#*\"id\":\"}; id=${id%%\"*}
    echo "{\"id\":\"$id\",\"text\":\"$$\",\"model\":\"sh-1\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1},\"extra\":0}"
done"#;

fn is_running(pid: &str) -> bool {
    // A zombie nobody waited for yet isn't running.
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn soon(what: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn it_is_kept_alive_and_ended_with_us() {
    let exec = Exec::new(&config(GOOD), &surroundings());
    let first = ask(&exec).expect("it answers");
    assert_eq!(first.answered_by.provider, "exec");
    assert_eq!(first.answered_by.model, "sh-1");
    assert_eq!(
        (first.usage.input_tokens, first.finish),
        (3, FinishReason::Stop)
    );
    for _ in 0..20 {
        assert_eq!(ask(&exec).expect("it answers").text, first.text);
    }
    assert!(is_running(&first.text));
    drop(exec);
    assert!(!is_running(&first.text));
}

#[test]
fn killed_between_and_during_requests() {
    let exec = Exec::new(&config(GOOD), &surroundings());
    let first = ask(&exec).expect("it answers").text;
    let kill = |pid: &str| {
        let status = std::process::Command::new("kill")
            .args(["-9", pid])
            .status();
        assert!(status.expect("kill runs").success());
    };
    kill(&first);
    assert!(soon(|| !is_running(&first)));
    let second = ask(&exec).expect("another was started").text;
    assert_ne!(first, second);

    // One that kills itself at its second request, once.
    let dir = tempfile::tempdir().expect("a folder");
    let script = format!(
        "cd {}; read -r line; [ -e once ] || {{ touch once; echo dying >&2; kill -9 $$; }}\n\
         id=${{line#*\\\"id\\\":\\\"}}; id=${{id%%\\\"*}}; echo \"{{\\\"id\\\":\\\"$id\\\",\\\"text\\\":\\\"ok\\\"}}\"; read -r line",
        dir.path().display()
    );
    let exec = Exec::new(&config(&script), &surroundings());
    let error = ask(&exec).expect_err("it died");
    let Failure::Process {
        reason,
        stderr,
        restarts,
    } = &error.failure
    else {
        panic!("{error}");
    };
    assert!(reason.contains("signal: 9"), "{reason}");
    assert_eq!(stderr, "dying");
    assert!(restarts);
    assert_eq!(ask(&exec).expect("it was started again").text, "ok");
}

#[test]
fn a_retry_hides_one_death() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = "[main]\nkind = \"exec\"\ncommand = [\"sh\", \"answer.sh\"]\nretries = 1\ntimeout_ms = 20000\n";
    std::fs::write(
        dir.path().join("answer.sh"),
        format!("[ -e once ] || {{ touch once; exit 3; }}\n{GOOD}\n"),
    )
    .expect("written");
    let configs: ModelConfigs = toml::from_str(text).expect("good");
    let mut surroundings = surroundings();
    surroundings.directory = Some(dir.path().to_owned());
    let model = connect(&configs, "main", &surroundings).expect("good");
    assert_eq!(
        model
            .complete(&request("hi"))
            .expect("the second time")
            .attempts,
        2
    );
}

#[test]
fn five_deaths_are_enough() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("starts");
    let script = format!("echo x >> {}; exit 3", log.display());
    let exec = Exec::new(&config(&script), &surroundings());
    for n in 1..=7 {
        let error = ask(&exec).expect_err("it dies");
        let Failure::Process { restarts, .. } = error.failure else {
            panic!("{error}");
        };
        assert_eq!(restarts, n < 5, "{n}");
    }
    let starts = std::fs::read_to_string(log).expect("it was started");
    assert_eq!(starts.lines().count(), 5);
}

#[test]
fn too_late_ends_the_whole_group() {
    let dir = tempfile::tempdir().expect("a folder");
    let pids = dir.path().join("pids");
    let script = format!(
        "sleep 1000 & echo $! > {0}.tmp; echo $$ >> {0}.tmp; mv {0}.tmp {0}; read -r line; wait",
        pids.display()
    );
    let exec = Exec::new(
        &ExecConfig {
            timeout_ms: 300,
            ..config(&script)
        },
        &surroundings(),
    );
    let began = Instant::now();
    let error = ask(&exec).expect_err("it never answers");
    assert_eq!(
        error.failure,
        Failure::Timeout {
            phase: Phase::Answer,
            limit_ms: 300
        }
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    let pids = std::fs::read_to_string(pids).expect("it began");
    for pid in pids.lines() {
        assert!(soon(|| !is_running(pid)), "{pid} lives on");
    }
}

#[test]
fn bad_answers() {
    let cases = [
        ("echo hello", "malformed", "expected value"),
        (
            "echo '{\"id\":\"other\",\"text\":\"x\"}'",
            "malformed",
            "the answer's id is `other`",
        ),
        (
            "echo '{\"id\":\"1\"}'",
            "malformed",
            "neither `text` nor `error`",
        ),
        (
            "echo '{\"id\":\"1\",\"error\":{\"message\":\"no GPU\"}}'",
            "reported",
            "no GPU",
        ),
        (
            "printf '{\"id\":\"1\",\"te'; exit 0",
            "process",
            "ended without answering",
        ),
        ("exec >&-; sleep 1000", "process", "standard output closed"),
        (
            "head -c 17000000 /dev/zero | tr '\\0' x",
            "too_large",
            "larger than",
        ),
        ("echo oh no >&2; exit 4", "process", "oh no"),
    ];
    for (script, code, words) in cases {
        let exec = Exec::new(
            &config(&format!("read -r line; {script}; read -r l")),
            &surroundings(),
        );
        let error = ask(&exec).expect_err(script);
        assert_eq!(error.failure.code(), code, "{script}: {error}");
        let text = error.to_string();
        assert!(text.contains(words), "{script}: {text}");
        assert!(
            text.contains("program `sh`") && text.contains("run-1/1"),
            "{text}"
        );
    }
    let exec = Exec::new(
        &ExecConfig {
            command: vec!["no-such-program-here".into()],
            ..config("")
        },
        &surroundings(),
    );
    assert!(
        ask(&exec)
            .expect_err("missing")
            .to_string()
            .contains("no-such-program-here")
    );
}

#[test]
fn a_program_that_reads_nothing_does_not_block_us() {
    let exec = Exec::new(
        &ExecConfig {
            timeout_ms: 300,
            ..config("sleep 1000")
        },
        &surroundings(),
    );
    // More than any pipe holds.
    let error = exec
        .complete(&request(&"x".repeat(4 << 20)))
        .expect_err("late");
    assert_eq!(error.failure.code(), "timeout");
}

#[test]
fn it_sees_the_environment_it_was_given() {
    let script =
        r#"read -r line; echo "{\"id\":\"1\",\"text\":\"$PLANTED_KEY/$NOT_LISTED\"}"; read -r l"#;
    let listed = ExecConfig {
        env: vec!["PLANTED_KEY".into()],
        ..config(script)
    };
    let exec = Exec::new(&listed, &surroundings());
    assert_eq!(ask(&exec).expect("it answers").text, "sk-planted-77aa/");
    // And doesn't get it quoted.
    let script = "read -r line; echo \"bad $PLANTED_KEY\" >&2; exit 1";
    let exec = Exec::new(
        &ExecConfig {
            command: config(script).command,
            ..listed
        },
        &surroundings(),
    );
    let error = ask(&exec).expect_err("it fails");
    assert!(
        !format!("{error} {error:?} {exec:?}").contains("sk-planted"),
        "{error:?}"
    );
    assert!(error.to_string().contains("bad [redacted]"), "{error}");
}

#[test]
fn several_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = format!("echo x >> {}/starts; {GOOD}", dir.path().display());
    let exec = Exec::new(
        &ExecConfig {
            concurrency: 3,
            ..config(&script)
        },
        &surroundings(),
    );
    let answers = run_bounded(&[(); 200], 8, || false, |_, ()| ask(&exec).map(|a| a.text));
    assert!(answers.iter().all(|answer| matches!(answer, Some(Ok(_)))));
    let starts = std::fs::read_to_string(dir.path().join("starts")).expect("started");
    assert!((1..=3).contains(&starts.lines().count()), "{starts}");
}

#[test]
fn an_interrupt_is_noticed() {
    let surroundings = surroundings();
    let exec = Exec::new(&config("sleep 1000"), &surroundings);
    let began = Instant::now();
    let error = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&exec));
        surroundings.interrupt.set();
        asking.join().expect("no panic").expect_err("interrupted")
    });
    assert_eq!(error.failure, Failure::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(10));
}
