//! What a crash leaves: no event that was confirmed is lost, none stands twice.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use proofline::domain::operate::event::{Event, Level};
use proofline::flows::runs::{Start, recover_spools, start};
use proofline::id::RunId;
use proofline::records::journal::{self, Appender, Entry};

use super::support::{Repo, author, hermetic, run_id};

fn entry(message: &str) -> Entry {
    Entry {
        ts: Timestamp::from_second(1_700_000_000).expect("a time"),
        phase: "test".to_owned(),
        level: Level::Info,
        message: message.to_owned(),
        json: Default::default(),
    }
}

fn begin(repo: &Repo, id: &str) -> RunId {
    let request = Start {
        tool: "test".to_owned(),
        id: Some(run_id(id)),
        ..Start::default()
    };
    start(&repo.workspace(), request).expect("it begins").run.id
}

fn committed(repo: &Repo, run: &RunId) -> Vec<Event> {
    let workspace = repo.workspace();
    let snapshot = workspace
        .store
        .snapshot(&workspace.refs.journal)
        .expect("readable");
    journal::events(&workspace.refs, snapshot.as_ref(), run).expect("readable")
}

fn numbers_are_sound(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
}

/// Appends and commits until it is killed, saying of each event that it is on disk.
#[test]
#[ignore = "the next test runs it and kills it"]
fn appending_until_killed() {
    let dir = std::env::var("RUNS_SUITE_DIR").expect("the parent says where");
    let workspace = proofline::flows::Workspace::open(dir.as_ref()).expect("it opens");
    let mut log =
        Appender::open(&workspace.store, &workspace.refs, &run_id("n")).expect("it opens");
    let before = log.pending().last().map_or(0, |last| last.seq);
    for number in before.. {
        let message = format!("{}-{number}", std::process::id());
        log.append([entry(&message)]).expect("appended");
        println!("on disk: {message}");
        if number % 7 == 6 {
            log.commit(&author(), None, "a batch").expect("committed");
        }
    }
}

#[test]
fn killed_at_any_point_nothing_is_lost_or_doubled() {
    let repo = Repo::new("");
    let run = begin(&repo, "n");
    let mut told: Vec<String> = Vec::new();
    for round in 0..12 {
        let this = std::env::current_exe().expect("a test knows its file");
        let mut child = hermetic(Command::new(this).args([
            "--exact",
            "crashes::appending_until_killed",
            "--ignored",
            "--nocapture",
        ]))
        .env("RUNS_SUITE_DIR", &repo.dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        // Another number of events each time, so that the kill meets appends, commits and confirmations.
        let mut seen = 0;
        while seen < 3 + round * 2 {
            line.clear();
            assert!(
                lines.read_line(&mut line).expect("readable") > 0,
                "the child ended by itself"
            );
            if let Some((_, message)) = line.trim_end().split_once("on disk: ") {
                told.push(message.to_owned());
                seen += 1;
            }
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("readable");
        // A line that the kill cut in half was not told.
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        told.extend(
            whole
                .lines()
                .filter_map(|line| line.strip_prefix("on disk: "))
                .map(str::to_owned),
        );
        if round % 3 == 2 {
            let recovered = recover_spools(&repo.workspace()).expect("taken up");
            assert_eq!(
                (recovered.held.len(), recovered.failed.len()),
                (0, 0),
                "{recovered:?}"
            );
        }
    }
    recover_spools(&repo.workspace()).expect("taken up");
    let events = committed(&repo, &run);
    numbers_are_sound(&events);
    let messages: Vec<&str> = events
        .iter()
        .filter(|event| event.phase == "test")
        .map(|event| event.message.as_str())
        .collect();
    for message in &told {
        assert_eq!(
            messages.iter().filter(|known| *known == message).count(),
            1,
            "{message}"
        );
    }
    // Beyond what was told there is at most the event under way at each kill.
    assert!(
        messages.len() <= told.len() + 12,
        "{} events, {} told",
        messages.len(),
        told.len()
    );
    assert!(
        recover_spools(&repo.workspace())
            .expect("nothing to do")
            .runs
            .is_empty()
    );
}

#[test]
fn a_crash_between_commit_and_confirmation_doubles_nothing() {
    let repo = Repo::new("");
    let run = begin(&repo, "n");
    let workspace = repo.workspace();
    let spool = journal::spool_path(&workspace.store, &run).expect("a path");
    let mut log = Appender::open(&workspace.store, &workspace.refs, &run).expect("it opens");
    log.append([entry("one"), entry("two")]).expect("appended");
    let before = std::fs::read(&spool).expect("read");
    log.commit(&author(), None, "a batch").expect("committed");
    drop(log);
    // As if the process had died before it could confirm.
    std::fs::write(&spool, before).expect("written");
    assert_eq!(
        journal::spooled(&workspace.store).expect("listed"),
        std::slice::from_ref(&run)
    );
    let mut log = Appender::open(&workspace.store, &workspace.refs, &run).expect("it opens");
    assert!(log.pending().is_empty());
    log.append([entry("three")]).expect("appended");
    log.commit(&author(), None, "a batch").expect("committed");
    drop(log);
    let events = committed(&repo, &run);
    numbers_are_sound(&events);
    assert_eq!(
        events
            .iter()
            .map(|event| event.message.as_str())
            .collect::<Vec<_>>(),
        ["one", "two", "three"]
    );
    assert!(
        journal::spooled(&workspace.store)
            .expect("listed")
            .is_empty()
    );
}

#[test]
fn events_under_a_number_that_another_clone_took_get_a_new_one() {
    let repo = Repo::new("");
    let run = begin(&repo, "n");
    let workspace = repo.workspace();
    let mut log = Appender::open(&workspace.store, &workspace.refs, &run).expect("it opens");
    log.append([entry("ours")]).expect("appended");
    // What a fetch of the same run's events from elsewhere comes to.
    let theirs = "{\"run\":\"n\",\"seq\":1,\"ts\":\"2026-01-01T00:00:00Z\",\"phase\":\"x\",\"level\":\"info\",\"message\":\"theirs\"}\n";
    repo.put(
        "proofline/journal",
        "journal/runs/n/events/0000/00.jsonl",
        theirs.as_bytes(),
    );
    let error = log
        .commit(&author(), None, "a batch")
        .expect_err("it is seen")
        .to_string();
    assert!(
        error.contains("somebody else wrote to the log of run `n`"),
        "{error}"
    );
    drop(log);
    recover_spools(&workspace).expect("taken up");
    let events = committed(&repo, &run);
    numbers_are_sound(&events);
    assert_eq!(
        events
            .iter()
            .map(|event| event.message.as_str())
            .collect::<Vec<_>>(),
        ["theirs", "ours"]
    );
}

#[test]
fn a_damaged_spool_is_set_aside_and_said_and_the_sound_lines_count() {
    let repo = Repo::new("");
    let run = begin(&repo, "n");
    let workspace = repo.workspace();
    let spool = journal::spool_path(&workspace.store, &run).expect("a path");
    let mut log = Appender::open(&workspace.store, &workspace.refs, &run).expect("it opens");
    log.append(["one", "two", "three"].map(entry))
        .expect("appended");
    drop(log);
    let text = std::fs::read_to_string(&spool)
        .expect("read")
        .replace("\"two\"", "\"tvo\"");
    std::fs::write(&spool, format!("{text}4 torn")).expect("written");
    let other = begin(&repo, "other");
    let mut log = Appender::open(&workspace.store, &workspace.refs, &other).expect("it opens");
    log.append([entry("held")]).expect("appended");

    let page = repo.run(&["runs", "list"]);
    assert!(page.status.success());
    let said = String::from_utf8_lossy(&page.stderr);
    assert!(
        said.contains("run n: ")
            && said.contains("damaged at line 3")
            && said.contains("n.jsonl.corrupt-1"),
        "{said}"
    );
    let aside = spool.with_file_name("n.jsonl.corrupt-1");
    assert!(
        std::fs::read_to_string(aside)
            .expect("kept")
            .contains("\"tvo\"")
    );
    let events = committed(&repo, &run);
    assert_eq!(
        events
            .iter()
            .map(|event| event.message.as_str())
            .take(2)
            .collect::<Vec<_>>(),
        ["one", "three"]
    );
    assert_eq!(
        events
            .last()
            .map(|event| (event.phase.as_str(), event.level)),
        Some(("recovery", Level::Warn))
    );
    // The gap stays visible: numbers were given out, and verifying says what is gone.
    let verified = repo.run(&["runs", "verify", "n"]);
    assert_eq!(
        verified.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    // The run that this process holds was left to it.
    assert!(committed(&repo, &other).is_empty());
    drop(log);
    let recovered = recover_spools(&workspace).expect("taken up");
    assert_eq!(
        recovered
            .runs
            .iter()
            .map(|run| (run.run.as_str(), run.events))
            .collect::<Vec<_>>(),
        [("other", 1)]
    );
}

#[test]
fn a_spool_that_cannot_be_taken_up_does_not_hold_up_the_others() {
    let repo = Repo::new("");
    let workspace = repo.workspace();
    for id in ["a", "b", "c"] {
        let run = begin(&repo, id);
        let mut log = Appender::open(&workspace.store, &workspace.refs, &run).expect("it opens");
        log.append([entry("left")]).expect("appended");
    }
    let spool = journal::spool_path(&workspace.store, &run_id("b")).expect("a path");
    // Sound lines of a later version, say.
    std::fs::remove_file(&spool).expect("removed");
    let (mut raw, _) = proofline::store::spool::Spool::open(&spool, workspace.store.durability())
        .expect("it opens");
    raw.append(b"{\"unknown\":1}").expect("appended");
    drop(raw);
    let recovered = recover_spools(&workspace).expect("the others are taken up");
    assert_eq!(
        recovered
            .runs
            .iter()
            .map(|run| run.run.as_str())
            .collect::<Vec<_>>(),
        ["a", "c"]
    );
    assert!(
        recovered.failed[0].contains("the spool of run b was left as it is"),
        "{recovered:?}"
    );
    assert!(
        std::fs::read_to_string(&spool)
            .expect("it is there")
            .contains("unknown")
    );
}
