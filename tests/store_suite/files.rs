//! Segments, shards and spools.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;

use proofline::store::segment::{self, SEGMENT_BYTES_MAX};
use proofline::store::shard::{self, Row, SHARD_BYTES_MAX};
use proofline::store::spool::{Spool, SpoolError};
use proofline::store::{Durability, Edit, Snapshot, Store};
use proptest::prelude::*;

use crate::support::*;

fn snapshot(store: &Store) -> Option<Snapshot> {
    store.snapshot(&reference("t")).expect("read")
}

fn append(store: &Store, lines: &[Vec<u8>]) -> Vec<Edit> {
    let mut made = Vec::new();
    store
        .transact(&step("t"), |snapshot| {
            made = segment::append(snapshot, &path("d/log"), lines).expect("appended");
            Ok::<_, Infallible>(commit(made.clone()))
        })
        .expect("committed");
    made
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no newline", |byte| *byte != b'\n');
    prop_oneof![
        8 => prop::collection::vec(byte, 1..200),
        2 => (1..70_000_usize).prop_map(|length| vec![b'x'; length]),
    ]
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn a_log_reads_back_and_old_segments_never_change(
        batches in prop::collection::vec(prop::collection::vec(any_line(), 1..20), 1..8),
        count in 0..40_usize,
    ) {
        let repo = Repo::new(&[]);
        let store = repo.fast_store();
        let mut all: Vec<Vec<u8>> = Vec::new();
        let mut before: Option<Snapshot> = None;
        for batch in &batches {
            append(&store, batch);
            all.extend(batch.iter().cloned());
            let now = snapshot(&store).unwrap();
            let changes = now.changes_since(before.as_ref()).unwrap();
            let replaced: Vec<_> = changes.iter().filter(|c| c.old.is_some()).collect();
            prop_assert!(replaced.len() <= 1, "only the last segment is touched");
            for change in replaced {
                let old = store.read_blob(change.old.unwrap().object).unwrap();
                let new = store.read_blob(change.new.unwrap().object).unwrap();
                prop_assert!(new.starts_with(&old), "what is appended is never rewritten");
            }
            before = Some(now);
        }
        let now = before.as_ref();
        let read: Vec<Vec<u8>> = segment::lines(now, &path("d/log")).unwrap()
            .collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(&read, &all);
        let tail = segment::tail(now, &path("d/log"), count).unwrap();
        prop_assert_eq!(&tail[..], &all[all.len().saturating_sub(count)..]);
        let last = segment::last_line(now, &path("d/log")).unwrap();
        prop_assert_eq!(last.as_ref(), all.last());
        for (_, entry) in now.unwrap().walk(None).unwrap() {
            let bytes = store.read_blob(entry.object).unwrap();
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(bytes.len() <= SEGMENT_BYTES_MAX || lines == 1);
        }
    }

    #[test]
    fn a_table_reads_back_whatever_happens_to_it(
        seed in any::<u64>(),
        sizes in prop::collection::vec(0..1_000_usize, 1..5),
        length in 10..400_usize,
    ) {
        let repo = Repo::new(&[]);
        let store = repo.fast_store();
        let mut state = seed;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut rows: BTreeMap<String, String> = BTreeMap::new();
        for size in sizes {
            rows = (0..size).map(|_| {
                let key = format!("key-{:05}", random(2_000));
                let line = format!("{{\"id\":\"{key}\",\"x\":\"{}\"}}", "y".repeat(random(length) + 1));
                (key, line)
            }).collect();
            save(&store, &rows);
            let now = snapshot(&store);
            let read = shard::read(now.as_ref(), &path("d/table")).unwrap();
            let expected: Vec<Vec<u8>> = rows.values().map(|line| line.clone().into_bytes()).collect();
            prop_assert_eq!(read, (!rows.is_empty()).then_some(expected));
            if let Some(now) = now {
                for (_, entry) in now.walk(Some(&path("d"))).unwrap() {
                    let bytes = store.read_blob(entry.object).unwrap();
                    prop_assert!(bytes.len() <= SHARD_BYTES_MAX);
                }
            }
        }
        // Writing the same again changes nothing.
        prop_assert_eq!(save(&store, &rows), vec![]);
    }
}

fn save(store: &Store, rows: &BTreeMap<String, String>) -> Vec<Edit> {
    let mut made = Vec::new();
    store
        .transact(&step("t"), |snapshot| {
            let rows = rows.iter().map(|(key, line)| Row {
                key,
                line: line.as_bytes(),
            });
            made = shard::write(snapshot, &path("d/table"), rows).expect("written");
            Ok::<_, Infallible>(commit(made.clone()))
        })
        .expect("committed");
    made
}

#[test]
fn a_new_row_changes_one_or_two_shards() {
    let repo = Repo::new(&[]);
    let store = repo.fast_store();
    let line = |n: usize| format!("{{\"id\":\"row-{n:06}\",\"text\":\"{}\"}}", "z".repeat(170));
    let mut rows: BTreeMap<String, String> = (0..4_000)
        .map(|n| (format!("row-{:06}", n * 10), line(n * 10)))
        .collect();
    save(&store, &rows);
    assert!(shard::read(snapshot(&store).as_ref(), &path("d/table")).is_ok());
    let (mut edits, mut most) = (0, 0);
    for turn in 0..60 {
        let n = ((turn * 7_919) % 40_000) | 1;
        rows.insert(format!("row-{n:06}"), line(n));
        let made = save(&store, &rows).len();
        edits += made;
        most = most.max(made);
    }
    assert!(edits <= 80, "{edits} edits for 60 rows");
    assert!(most <= 4, "{most} edits for one row");
}

#[test]
fn lines_that_would_break_a_file_are_refused() {
    let log = path("log");
    for bad in ["", "a\nb"] {
        let error = segment::append(None, &log, ["good", bad]).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
        let row = Row {
            key: "k",
            line: bad.as_bytes(),
        };
        let error = shard::write(None, &log, [row]).unwrap_err();
        assert!(error.to_string().contains("row 0"), "{error}");
    }
    let row = |key| Row { key, line: b"x" };
    for keys in [["b", "a"], ["a", "a"]] {
        assert!(shard::write(None, &log, keys.map(row)).is_err());
    }
}

#[test]
fn a_foreign_file_in_a_log_is_named() {
    let repo = Repo::new(&[]);
    let store = repo.fast_store();
    for (at, content) in [("log/notes.txt", "x"), ("log2/0000/00.jsonl", "no end")] {
        write(&store, "t", vec![put(at, content)]);
    }
    let now = snapshot(&store);
    for log in ["log", "log2"] {
        let error = segment::append(now.as_ref(), &path(log), ["x"]).unwrap_err();
        assert!(error.to_string().contains(log), "{error}");
    }
}

fn pending(spool: &Spool) -> Vec<(u64, String)> {
    spool
        .pending()
        .iter()
        .map(|line| {
            (
                line.sequence,
                String::from_utf8_lossy(&line.line).into_owned(),
            )
        })
        .collect()
}

fn lines(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected
        .iter()
        .map(|(n, l)| (*n, (*l).to_owned()))
        .collect()
}

#[test]
fn a_spool_keeps_lines_until_they_are_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spool");
    let (mut spool, found) = Spool::open(&file, Durability::Synced).unwrap();
    assert_eq!(found, Default::default());
    assert_eq!(spool.append(b"one").unwrap(), 1);
    assert_eq!(spool.append_all(["two", "three"]).unwrap(), 3);
    assert!(matches!(
        spool.append(b"a\nb"),
        Err(SpoolError::Line { .. })
    ));
    // A second owner is told so.
    let error = Spool::open(&file, Durability::Synced).unwrap_err();
    assert!(matches!(error, SpoolError::Lock(_)), "{error}");
    drop(spool);
    let (mut spool, found) = Spool::open(&file, Durability::Synced).unwrap();
    assert_eq!(found, Default::default());
    assert_eq!(
        pending(&spool),
        lines(&[(1, "one"), (2, "two"), (3, "three")])
    );
    spool.confirm(2).unwrap();
    assert_eq!(spool.append(b"four").unwrap(), 4);
    drop(spool);
    let (mut spool, _) = Spool::open(&file, Durability::Synced).unwrap();
    assert_eq!(pending(&spool), lines(&[(3, "three"), (4, "four")]));
    spool.confirm(4).unwrap();
    drop(spool);
    let (mut spool, _) = Spool::open(&file, Durability::Synced).unwrap();
    assert_eq!(pending(&spool), []);
    assert_eq!(spool.append(b"").unwrap(), 5, "numbers are not used again");
    drop(spool);
    fs::remove_file(&file).unwrap();
    let (mut spool, _) = Spool::open(&file, Durability::Synced).unwrap();
    spool.confirm(5).unwrap();
    assert_eq!(
        spool.append(b"x").unwrap(),
        6,
        "even when the file was lost"
    );
}

#[test]
fn a_spool_cut_anywhere_keeps_every_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spool");
    let (mut spool, _) = Spool::open(&file, Durability::Unsynced).unwrap();
    for line in ["one", "two", "three"] {
        spool.append(line.as_bytes()).unwrap();
    }
    drop(spool);
    let whole = fs::read(&file).unwrap();
    let header = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    for cut in header..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let (mut spool, found) = Spool::open(&file, Durability::Unsynced).unwrap();
        let kept = whole[header..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!(spool.pending().len(), kept);
        assert_eq!(found.torn_bytes > 0, whole[cut - 1] != b'\n');
        assert_eq!(found.set_aside, None);
        let next = spool.append(b"next").unwrap();
        assert_eq!(next as usize, kept + 1);
    }
}

#[test]
fn a_damaged_spool_is_set_aside_and_its_good_lines_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spool");
    let (mut spool, _) = Spool::open(&file, Durability::Unsynced).unwrap();
    for line in ["one", "two", "three"] {
        spool.append(line.as_bytes()).unwrap();
    }
    drop(spool);
    let whole = fs::read_to_string(&file).unwrap();
    let damages = [
        (whole.replace("two", "tWo"), vec![3], vec![1, 3]),
        (
            whole.replace("1 confirmed=0", "1 confirmed=x"),
            vec![1],
            vec![1, 2, 3],
        ),
        (
            whole
                .lines()
                .filter(|l| !l.ends_with("two"))
                .map(|l| format!("{l}\n"))
                .collect(),
            vec![3],
            vec![1, 3],
        ),
    ];
    for (round, (damaged, bad, kept)) in damages.into_iter().enumerate() {
        fs::write(&file, &damaged).unwrap();
        let (spool, found) = Spool::open(&file, Durability::Unsynced).unwrap();
        assert_eq!(found.damaged_lines, bad, "round {round}");
        let numbers: Vec<u64> = spool.pending().iter().map(|line| line.sequence).collect();
        assert_eq!(numbers, kept, "round {round}");
        let aside = found.set_aside.expect("set aside");
        assert!(aside.ends_with(format!("spool.corrupt-{}", round + 1)));
        assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
        drop(spool);
        let (_, found) = Spool::open(&file, Durability::Unsynced).unwrap();
        assert_eq!(found, Default::default(), "said once, then sound again");
    }
}
