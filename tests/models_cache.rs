//! The prediction cache under damage, crashes and company.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use proofline::id::Digest;
use proofline::models::cache::Cache;
use proofline::models::pool::run_bounded;
use proofline::models::{Completion, FinishReason, ModelIdentity, Usage};
use proptest::prelude::*;

fn key(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn answer(text: &str) -> Completion {
    Completion {
        text: text.into(),
        answered_by: ModelIdentity {
            provider: "test".into(),
            model: "m".into(),
            revision: None,
        },
        usage: Usage {
            input_tokens: 3,
            output_tokens: 1,
        },
        finish: FinishReason::Stop,
        latency_ms: 12,
        attempts: 1,
        cost_micro_usd: 5,
        cached: false,
        fallback: Some("why\nnot".into()),
        server_request_id: None,
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn cache(dir: &Path) -> Cache {
    Cache::open(dir).expect("it opens")
}

#[test]
fn what_is_put_is_got_now_and_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache_dir = dir.path().join("deep/cache");
    let first = cache(&cache_dir);
    assert!(first.is_empty() && first.get(&key(1)).is_none());
    first.put(&key(1), &answer("one\nline")).expect("room");
    first.put(&key(1), &answer("another")).expect("room");
    let expected = Completion {
        cached: true,
        ..answer("one\nline")
    };
    assert_eq!(first.get(&key(1)), Some(expected.clone()));
    drop(first);
    let second = cache(&cache_dir);
    assert_eq!(second.get(&key(1)), Some(expected));
    assert_eq!(second.len(), 1);
    second.put(&key(2), &answer("two")).expect("room");
    // A free segment is taken over, a held one isn't.
    assert_eq!(segments(&cache_dir).len(), 1);
    let third = cache(&cache_dir);
    third.put(&key(3), &answer("three")).expect("room");
    assert_eq!(segments(&cache_dir).len(), 2);
    drop((second, third));
    let all = cache(&cache_dir);
    assert!((1..=3).all(|n| all.get(&key(n)).is_some()));
}

#[test]
fn one_flight_for_equal_requests() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = cache(dir.path());
    let asked = AtomicU64::new(0);
    let items: Vec<u64> = (0..400).map(|n| n % 20).collect();
    let answers = run_bounded(
        &items,
        16,
        || false,
        |_, n| {
            cache.get_or_ask(&key(*n), || {
                asked.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(2));
                Ok::<_, String>(answer(&n.to_string()))
            })
        },
    );
    assert_eq!(asked.load(Ordering::SeqCst), 20);
    let mut paid = 0;
    for (item, outcome) in items.iter().zip(answers) {
        let found = outcome.expect("begun").expect("answered");
        assert_eq!(found.text, item.to_string());
        paid += u64::from(!found.cached);
    }
    assert_eq!(paid, 20, "the others are marked as cached");
}

#[test]
fn a_failed_flight_lets_the_next_one_ask() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = cache(dir.path());
    let asked = AtomicU64::new(0);
    let outcomes = run_bounded(
        &[(); 8],
        8,
        || false,
        |_, ()| {
            cache.get_or_ask(&key(1), || {
                let n = asked.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(2));
                if n < 3 { Err(n) } else { Ok(answer("at last")) }
            })
        },
    );
    let failed = outcomes.iter().flatten().filter(|o| o.is_err()).count();
    assert_eq!((failed, asked.load(Ordering::SeqCst)), (3, 4));
    // A panic is a failure too.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.get_or_ask::<()>(&key(2), || panic!("planted"))
    }));
    assert!(panicked.is_err());
    assert!(cache.get_or_ask::<()>(&key(2), || Ok(answer("x"))).is_ok());
}

#[test]
fn a_read_only_folder_loses_no_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = cache(dir.path());
    // Stands for a full disk: nothing can be made in a folder that is gone.
    std::fs::remove_dir(dir.path()).expect("it is empty");
    let found = cache.get_or_ask::<()>(&key(1), || Ok(answer("paid for")));
    assert_eq!(found.expect("answered").text, "paid for");
    let (count, reason) = cache.write_trouble().expect("it is told");
    assert_eq!(count, 1);
    assert!(reason.contains("cannot"), "{reason}");
}

#[test]
fn pruning_spares_what_is_in_use() {
    let dir = tempfile::tempdir().expect("a folder");
    let held = cache(dir.path());
    held.put(&key(1), &answer("held")).expect("room");
    {
        let free = cache(dir.path());
        free.put(&key(2), &answer("free")).expect("room");
    }
    assert_eq!(segments(dir.path()).len(), 2);
    assert!(Cache::prune(dir.path(), 0).expect("it prunes") > 0);
    assert_eq!(segments(dir.path()).len(), 1);
    let again = cache(dir.path());
    assert!(again.get(&key(1)).is_some() && again.get(&key(2)).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens to the bytes: an answer is the one that was put, or missing,
    /// and putting it again repairs it for good.
    #[test]
    fn damage_is_a_miss(
        texts in prop::collection::vec(".{0,60}", 1..12),
        cut in any::<prop::sample::Index>(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        {
            let cache = cache(dir.path());
            for (n, text) in texts.iter().enumerate() {
                cache.put(&key(n as u64), &answer(text)).expect("room");
            }
        }
        let path = segments(dir.path()).remove(0);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes.truncate(cut.index(bytes.len() + 1));
        for (at, byte) in hits {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        std::fs::write(&path, &bytes).expect("write");
        for round in 0..2 {
            let cache = cache(dir.path());
            for (n, text) in texts.iter().enumerate() {
                let found = cache.get(&key(n as u64));
                if let Some(found) = &found {
                    prop_assert_eq!(&found.text, text);
                } else {
                    prop_assert_eq!(round, 0, "it was repaired");
                    cache.put(&key(n as u64), &answer(text)).expect("room");
                }
                prop_assert_eq!(&cache.get(&key(n as u64)).expect("put just now").text, text);
            }
        }
    }
}

/// Run by the tests below as other processes: put answers for ever, or count to a limit.
#[test]
fn child() {
    let Ok(job) = std::env::var("PROOFLINE_TEST_CACHE_CHILD") else {
        return;
    };
    let (dir, from) = job.rsplit_once(':').expect("folder:number");
    let from: u64 = from.parse().expect("a number");
    let cache = cache(Path::new(dir));
    for number in from..from + 1_000_000 {
        cache
            .put(&key(number), &answer(&number.to_string()))
            .expect("room");
        // Said only once it is kept.
        println!("put {number}");
    }
}

fn start(dir: &Path, from: u64) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["child", "--exact", "--nocapture"])
        .env(
            "PROOFLINE_TEST_CACHE_CHILD",
            format!("{}:{from}", dir.display()),
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts")
}

#[test]
fn killed_processes_side_by_side_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut kept = BTreeMap::new();
    for round in 0..4_u64 {
        let children: Vec<_> = (0..3)
            .map(|n| start(dir.path(), (round * 3 + n) * 10_000_000))
            .collect();
        for mut child in children {
            use std::io::BufRead;
            let stdout = child.stdout.take().expect("piped");
            let mut lines = std::io::BufReader::new(stdout).lines();
            let mut seen = 0;
            // Kill it in the middle of its work, then read what it still said.
            for line in lines.by_ref() {
                let line = line.expect("UTF-8");
                if let Some(number) = line.strip_prefix("put ") {
                    if let Ok(number) = number.parse::<u64>() {
                        kept.insert(number, ());
                    }
                    seen += 1;
                    if seen == 200 + 77 * round {
                        child.kill().expect("SIGKILL");
                    }
                }
            }
            let status = child.wait().expect("it ended");
            assert_eq!(status.code(), None, "killed, not failed");
        }
    }
    assert!(kept.len() > 2400, "{}", kept.len());
    let cache = cache(dir.path());
    for number in kept.keys() {
        let found = cache.get(&key(*number)).expect("it was said to be kept");
        assert_eq!(found.text, number.to_string());
    }
    assert!(segments(dir.path()).len() <= 3, "segments are taken over");
}
