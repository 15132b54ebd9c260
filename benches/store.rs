//! The store's figures: event appends from a thousand to a million entries, a
//! synced transaction against the same commit by git subprocesses, a large table.
//!
//! `cargo bench --bench store`; prints, judges nothing.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proofline::store::segment;
use proofline::store::shard::{self, Row};
use proofline::store::spool::Spool;
use proofline::store::{
    Author, Decision, Durability, Edit, RefName, Snapshot, Store, Transaction, TreePath,
};

fn main() {
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("a current folder"))
        .expect("a temporary folder beside the sources, on a real disk");
    appends(&folder.path().join("appends"));
    against_git(&folder.path().join("git"));
    table(&folder.path().join("table"));
}

fn repository(dir: &Path) -> Store {
    std::fs::create_dir_all(dir).expect("made");
    git(dir, &["init", "--quiet", "--bare", "."], b"");
    Store::open(dir).expect("opened")
}

fn step(name: &str) -> Transaction<'static> {
    let time = Timestamp::from_second(1_700_000_000).expect("a time");
    let author = Author::new("Bench", "bench@example.com", time).expect("an author");
    Transaction::new(RefName::branch(name).expect("a name"), author)
}

fn path(text: &str) -> TreePath {
    text.parse().expect("a path")
}

fn event(n: usize) -> String {
    format!(
        "{{\"schema\":\"event.v1\",\"run\":\"night-2026-11-21\",\"seq\":{n:08},\"at\":\"2026-11-21T04:00:00Z\",\"kind\":\"candidate.evaluated\",\"candidate\":\"{:016x}\",\"score\":0.{:04}}}",
        (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        n % 10_000
    )
}

fn commit(store: &Store, name: &str, decide: impl Fn(Option<&Snapshot>) -> Vec<Edit>) {
    store
        .transact(&step(name), |snapshot| {
            Ok::<_, Infallible>(Decision::Commit {
                edits: decide(snapshot),
                message: "bench: events".to_owned(),
            })
        })
        .expect("committed");
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn timed(turns: usize, mut work: impl FnMut(usize)) -> Vec<Duration> {
    (0..turns)
        .map(|turn| {
            let began = Instant::now();
            work(turn);
            began.elapsed()
        })
        .collect()
}

/// One event spooled and synced, and one transaction that commits a batch of ten.
fn appends(dir: &Path) {
    let store = repository(dir);
    let fast = store.clone().with_durability(Durability::Unsynced);
    let (mut spool, _) = Spool::open(&dir.join("spool"), Durability::Synced).expect("opened");
    let log = path("journal/runs/night/events");
    println!("event append: spooled and synced; transaction: 10 events, synced (median ms of 40)");
    let mut have = 0;
    for size in [1_000, 10_000, 100_000, 1_000_000] {
        while have < size {
            let until = size.min(have + 50_000);
            let lines: Vec<String> = (have..until).map(event).collect();
            commit(&fast, "t", |snapshot| {
                segment::append(snapshot, &log, &lines).expect("appended")
            });
            have = until;
        }
        let appended = timed(40, |turn| {
            spool
                .append(event(have + turn).as_bytes())
                .expect("spooled");
        });
        spool.confirm(spool.last_sequence()).expect("confirmed");
        let mut next = have;
        let committed = timed(40, |_| {
            let lines: Vec<String> = (next..next + 10).map(event).collect();
            next += 10;
            commit(&store, "t", |snapshot| {
                segment::append(snapshot, &log, &lines).expect("appended")
            });
        });
        let reference = RefName::branch("t").expect("a name");
        let tailed = timed(40, |_| {
            let snapshot = store.snapshot(&reference).expect("read");
            let lines = segment::tail(snapshot.as_ref(), &log, 20).expect("read");
            assert_eq!(lines.len(), 20);
        });
        println!(
            "  {size:>9} entries: append {:.3}, transaction {:.3}, read the last 20 lines {:.3}",
            median(appended),
            median(committed),
            median(tailed)
        );
        have = next;
    }
}

/// The same small commit by us and by git's plumbing with the same durability.
fn against_git(dir: &Path) {
    let store = repository(dir);
    let content = |turn: usize| format!("{}\n", event(turn));
    let at = |turn: usize| format!("journal/runs/night/{turn:04}.json");
    let transact = |store: &Store, name: &str, turn: usize| {
        commit(store, name, |_| {
            vec![Edit::put(path(&at(turn)), content(turn))]
        });
    };
    let turns = 60;
    let unsynced = store.clone().with_durability(Durability::Unsynced);
    let synced = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync"];
    let (mut ours, mut fast, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that a busy disk is equally busy for all.
    for turn in 0..turns {
        ours.extend(timed(1, |_| transact(&store, "ours", turn)));
        fast.extend(timed(1, |_| transact(&unsynced, "fast", turn)));
        theirs.extend(timed(1, |_| {
            by_git(dir, &synced, &at(turn), &content(turn));
        }));
    }
    let (ours, fast, theirs) = (median(ours), median(fast), median(theirs));
    println!("one commit of one small file (median ms of {turns})");
    println!("  ours, synced                        {ours:.3}");
    println!("  ours, not synced                    {fast:.3}");
    println!("  git plumbing, core.fsync=all        {theirs:.3}");
    println!("  ratio, both synced                  {:.1}", theirs / ours);
}

/// hash-object, read-tree and update-index on an index of its own, write-tree, commit-tree, update-ref.
fn by_git(dir: &Path, options: &[&str], at: &str, content: &str) {
    let run = |args: &[&str], input: &[u8]| git(dir, &[options, args].concat(), input);
    let index = dir.join("bench-index");
    let tip = Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", "refs/heads/git"])
        .current_dir(dir)
        .output()
        .expect("git runs");
    let tip = String::from_utf8_lossy(&tip.stdout).trim().to_owned();
    let blob = run(&["hash-object", "-w", "--stdin"], content.as_bytes());
    let _ = std::fs::remove_file(&index);
    if !tip.is_empty() {
        run(&["read-tree", &tip], b"");
    }
    let entry = format!("100644,{blob},{at}");
    run(&["update-index", "--add", "--cacheinfo", &entry], b"");
    let tree = run(&["write-tree"], b"");
    let mut args = vec!["commit-tree", &tree, "-m", "bench: events"];
    if !tip.is_empty() {
        args.extend(["-p", &tip]);
    }
    let commit = run(&args, b"");
    let null = "0".repeat(40);
    let old = if tip.is_empty() { &null } else { &tip };
    run(&["update-ref", "refs/heads/git", &commit, old], b"");
}

fn git(dir: &Path, args: &[&str], input: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_INDEX_FILE", dir.join("bench-index"))
        .env("GIT_AUTHOR_NAME", "Bench")
        .env("GIT_AUTHOR_EMAIL", "bench@example.com")
        .env("GIT_COMMITTER_NAME", "Bench")
        .env("GIT_COMMITTER_EMAIL", "bench@example.com")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input)
        .expect("written");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A hundred thousand rows of 200 bytes at once, then one row more.
fn table(dir: &Path) {
    let store = repository(dir);
    let mut rows: Vec<(String, String)> = (0..100_000)
        .map(|n| {
            let key = format!("row-{:08}", n * 2);
            let noise = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let line =
                format!("{{\"id\":\"{key}\",\"input\":\"{noise:0150x}\",\"x\":\"{noise:x}\"}}");
            (key, line)
        })
        .collect();
    let name = path("datasets/x/train");
    let save = |rows: &[(String, String)]| {
        let began = Instant::now();
        commit(&store, "t", |snapshot| {
            let rows = rows.iter().map(|(key, line)| Row {
                key,
                line: line.as_bytes(),
            });
            shard::write(snapshot, &name, rows).expect("written")
        });
        began.elapsed().as_secs_f64() * 1e3
    };
    let bytes: usize = rows.iter().map(|(_, line)| line.len() + 1).sum();
    let first = save(&rows);
    rows.insert(
        50_001,
        ("row-00100001".to_owned(), "{\"id\":\"new\"}".to_owned()),
    );
    let second = save(&rows);
    let began = Instant::now();
    let snapshot = store
        .snapshot(&RefName::branch("t").expect("a name"))
        .expect("read");
    let read = shard::read(snapshot.as_ref(), &name).expect("read");
    assert_eq!(read.expect("there").len(), rows.len());
    println!(
        "a table of 100,000 rows, {:.1} MB, synced (ms)",
        bytes as f64 / 1e6
    );
    println!("  written at once                     {first:.0}");
    println!("  one row more                        {second:.0}");
    println!(
        "  read                                {:.0}",
        began.elapsed().as_secs_f64() * 1e3
    );
}
