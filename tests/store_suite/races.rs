//! Many writers, git among them, and nothing is lost.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proofline::store::Store;

use crate::support::*;

const WORKER: &str = "PROOFLINE_TEST_WORKER";

/// Not a test: what [`spawn_worker`] runs in another process.
#[test]
#[ignore = "the other process of the race tests"]
fn worker() {
    let Ok(job) = std::env::var(WORKER) else {
        return;
    };
    let fields: Vec<&str> = job.split('|').collect();
    let store = Store::open(fields[0].as_ref()).expect("opens");
    let count: usize = fields[2].parse().expect("a count");
    let mut transaction = step("t");
    transaction.patience = Duration::from_secs(60);
    for turn in 0..count {
        append_line(&store, &transaction, &format!("{}-{turn}", fields[1]));
    }
}

fn spawn_worker(repo: &Repo, name: &str, count: usize) -> Child {
    let exe = std::env::current_exe().expect("this test's program");
    hermetic(&mut Command::new(exe))
        .args(["--exact", "races::worker", "--ignored", "--quiet"])
        .env(WORKER, format!("{}|{name}|{count}", repo.dir.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("another process")
}

fn lines(repo: &Repo) -> BTreeSet<String> {
    let text = repo.git(&["show", "t:log.txt"]);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let set: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(lines.len(), set.len(), "a line is there twice");
    set
}

#[test]
fn threads_processes_update_ref_and_pack_refs() {
    let repo = Repo::with_commit();
    let store = repo.store();
    append_line(&store, &step("t"), "start");
    let done = AtomicBool::new(false);
    let by_git = std::thread::scope(|scope| {
        let packer = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Git gives up at once when a ref is locked; that is its right.
                let _ = hermetic(
                    Command::new("git")
                        .args(["pack-refs", "--all", "--prune"])
                        .current_dir(&repo.dir),
                )
                .output();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let by_git = scope.spawn(|| commits_by_git(&repo, 30));
        let mut others: Vec<Child> = (0..3)
            .map(|n| spawn_worker(&repo, &format!("process{n}"), 40))
            .collect();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let store = store.clone();
                scope.spawn(move || {
                    let mut transaction = step("t");
                    transaction.patience = Duration::from_secs(60);
                    for turn in 0..40 {
                        append_line(&store, &transaction, &format!("thread{n}-{turn}"));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no thread failed");
        }
        for other in &mut others {
            assert!(other.wait().expect("waited").success());
        }
        let by_git = by_git.join().expect("git's part");
        done.store(true, Ordering::Relaxed);
        packer.join().expect("packing");
        by_git
    });
    assert_eq!(lines(&repo).len(), 1 + 3 * 40 + 3 * 40);
    let count: usize = repo
        .git(&["rev-list", "--count", "--first-parent", "t"])
        .parse()
        .unwrap();
    assert_eq!(
        count,
        1 + 3 * 40 + 3 * 40 + by_git,
        "every commit that anybody was told of is in the history"
    );
}

/// Empty commits by git's own compare-and-swap. How many it was told succeeded.
fn commits_by_git(repo: &Repo, attempts: usize) -> usize {
    let mut succeeded = 0;
    for _ in 0..attempts {
        let tip = repo.git(&["rev-parse", "t"]);
        let tree = format!("{tip}^{{tree}}");
        let next = repo.git(&["commit-tree", &tree, "-p", &tip, "-m", "by git"]);
        let moved = hermetic(
            Command::new("git")
                .args(["update-ref", "refs/heads/t", &next, &tip])
                .current_dir(&repo.dir),
        )
        .output()
        .expect("git runs");
        succeeded += usize::from(moved.status.success());
    }
    succeeded
}

#[test]
fn a_killed_writer_leaves_a_sound_repository() {
    let repo = Repo::with_commit();
    let store = repo.store();
    append_line(&store, &step("t"), "start");
    for round in 0..6 {
        let mut child = spawn_worker(&repo, &format!("killed{round}"), 10_000);
        std::thread::sleep(Duration::from_millis(60 + 23 * round));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        // A lock that it left is ours and nobody's any more: the next writer takes it away.
        let before = lines(&repo).len();
        append_line(&store, &step("t"), &format!("after{round}"));
        assert_eq!(lines(&repo).len(), before + 1);
    }
}

#[test]
fn a_full_disk_leaves_every_ref_as_it_was() {
    let repo = Repo::with_commit();
    let store = repo.store();
    append_line(&store, &step("t"), "start");
    let before = repo.git(&["for-each-ref"]);
    let log = std::fs::read(repo.path(".git/logs/refs/heads/t")).unwrap();
    // No file may grow beyond 0 bytes; the signal that tells of it is ignored, so writes fail.
    let exe = std::env::current_exe().unwrap();
    for limit in ["0", "1"] {
        let script = format!(
            "trap '' XFSZ; ulimit -f {limit}; exec '{}' --exact races::big_worker --ignored --quiet",
            exe.display()
        );
        let output = hermetic(&mut Command::new("sh"))
            .args(["-c", &script])
            .env(WORKER, repo.dir.display().to_string())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert_eq!(repo.git(&["for-each-ref"]), before);
        let now = std::fs::read(repo.path(".git/logs/refs/heads/t")).unwrap();
        assert_eq!(now, log, "not even the reflog");
        assert!(!repo.path(".git/refs/heads/t.lock").exists());
    }
    append_line(&store, &step("t"), "space again");
}

/// Not a test: a writer for whom the disk is full.
#[test]
#[ignore = "the other process of the full-disk test"]
fn big_worker() {
    let Ok(dir) = std::env::var(WORKER) else {
        return;
    };
    let store = Store::open(dir.as_ref()).expect("opens");
    // Bytes that don't compress, more than the limit allows.
    let mut state = 1_u64;
    let noise: String = (0..20_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'!' + (state >> 58) as u8)
        })
        .collect();
    append_line(&store, &step("t"), &noise);
}
