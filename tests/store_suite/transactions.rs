//! What a transaction does to a tree, to a ref, and when it is stopped.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::process::Command;
use std::time::Duration;

use proofline::store::{
    Decision, Edit, EntryKind, Outcome, SignCommit, SignError, TransactError, WriteError,
};

use crate::support::*;

#[test]
fn edits_do_what_they_say() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    let tree = |edits: Vec<Edit>| {
        write(&store, "t", edits);
        repo.git(&["ls-tree", "-r", "--name-only", "t"])
            .replace('\n', " ")
    };
    let remove = |at: &str| Edit::Remove { path: path(at) };
    assert_eq!(
        tree(vec![
            put("a", "1"),
            put("d/x", "2"),
            put("d/e/y", "3"),
            put("d.x", "4")
        ]),
        "a d.x d/e/y d/x"
    );
    assert_eq!(tree(vec![put("a", "5"), put("a", "6")]), "a d.x d/e/y d/x");
    assert_eq!(repo.git(&["show", "t:a"]), "6");
    assert_eq!(tree(vec![remove("d/e/y")]), "a d.x d/x");
    assert_eq!(tree(vec![remove("d"), put("d", "a file now")]), "a d d.x");
    assert_eq!(
        tree(vec![remove("d"), put("d/z", "a folder again")]),
        "a d.x d/z"
    );
    assert_eq!(
        tree(vec![remove("none"), remove("a/none"), remove("a")]),
        "d.x d/z"
    );
    let blob = repo.git(&["rev-parse", "t:d/z"]);
    assert_eq!(
        tree(vec![Edit::PutBlob {
            path: path("copy"),
            blob: name(&blob)
        }]),
        "copy d.x d/z"
    );
    assert_eq!(
        tree(vec![remove("copy"), remove("d.x"), remove("d/z")]),
        "",
        "an empty tree is a tree"
    );
    assert_eq!(tree(vec![put("again", "x")]), "again");
}

#[test]
fn nothing_is_nothing() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    let nothing = |edits: Option<Vec<Edit>>| {
        store
            .transact(&step("t"), |_| {
                Ok::<_, Infallible>(match &edits {
                    Some(edits) => commit(edits.clone()),
                    None => Decision::Nothing,
                })
            })
            .unwrap()
    };
    assert_eq!(nothing(None), Outcome::Nothing { tip: None });
    assert_eq!(nothing(Some(vec![])), Outcome::Nothing { tip: None });
    let tip = write(&store, "t", vec![put("a/b", "1")]).tip();
    assert_eq!(
        nothing(Some(vec![put("a/b", "1")])),
        Outcome::Nothing { tip }
    );
    assert_eq!(nothing(None), Outcome::Nothing { tip });
    assert_eq!(repo.git(&["rev-list", "--count", "t"]), "1");
}

#[test]
fn impossible_edits_are_refused_and_change_nothing() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    write(&store, "t", vec![put("file", "1"), put("folder/x", "2")]);
    let tip = store.tip(&reference("t")).unwrap();
    let missing = name(&"12".repeat(20));
    let tree = name(&repo.git(&["rev-parse", "t^{tree}"]));
    for (edits, word) in [
        (vec![put("file/below", "x")], "remove it first"),
        (vec![put("folder", "x")], "remove it first"),
        (vec![put("n", "x"), put("n/m", "y")], "another edit"),
        (vec![put("n/m", "x"), put("n", "y")], "another edit"),
        (
            vec![Edit::PutBlob {
                path: path("n"),
                blob: missing,
            }],
            "no blob",
        ),
        (
            vec![Edit::PutBlob {
                path: path("n"),
                blob: tree,
            }],
            "not a blob",
        ),
    ] {
        let error = store
            .transact(&step("t"), |_| Ok::<_, Infallible>(commit(edits.clone())))
            .expect_err("refused");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(store.tip(&reference("t")).unwrap(), tip);
}

#[test]
fn a_failing_decision_is_handed_back() {
    let repo = Repo::new(&[]);
    let error = repo
        .store()
        .transact(&step("t"), |_| Err::<Decision, _>("no"))
        .expect_err("refused");
    assert!(matches!(error, TransactError::Decide("no")));
    assert_eq!(repo.git(&["for-each-ref"]), "");
}

#[test]
fn a_moved_tip_is_decided_on_again() {
    let repo = Repo::with_commit();
    let store = repo.store();
    let turns = Cell::new(0);
    let outcome = store
        .transact(&step("t"), |snapshot| {
            turns.set(turns.get() + 1);
            assert_eq!(snapshot.is_some(), turns.get() > 1);
            if turns.get() == 1 {
                // Somebody creates the ref between our look and our write.
                repo.git(&["update-ref", "refs/heads/t", "main"]);
            }
            Ok::<_, Infallible>(commit(vec![put("mine", "x")]))
        })
        .unwrap();
    assert_eq!(outcome.committed().unwrap().attempts, 2);
    assert_eq!(
        repo.git(&["ls-tree", "-r", "--name-only", "t"]),
        "a.txt\nmine"
    );
}

#[test]
fn a_deleted_ref_is_not_brought_back() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    write(&store, "t", vec![put("old", "x")]);
    let turns = Cell::new(0);
    write(&store, "other", vec![put("x", "x")]);
    store
        .transact(&step("t"), |_| {
            turns.set(turns.get() + 1);
            if turns.get() == 1 {
                repo.git(&["update-ref", "-d", "refs/heads/t"]);
            }
            Ok::<_, Infallible>(commit(vec![put("new", "x")]))
        })
        .unwrap();
    assert_eq!(turns.get(), 2);
    assert_eq!(repo.git(&["ls-tree", "-r", "--name-only", "t"]), "new");
    assert_eq!(repo.git(&["rev-list", "--count", "t"]), "1");
}

#[test]
fn the_very_same_commit_by_two_is_a_lost_race_for_one() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    let turns = Cell::new(0);
    let outcome = store
        .transact(&step("t"), |snapshot| {
            turns.set(turns.get() + 1);
            if turns.get() == 1 {
                write(&store, "t", vec![put("same", "x")]);
            }
            Ok::<_, Infallible>(match snapshot {
                None => commit(vec![put("same", "x")]),
                Some(_) => Decision::Nothing,
            })
        })
        .unwrap();
    assert_eq!(turns.get(), 2, "the other's identical commit is not ours");
    assert!(matches!(outcome, Outcome::Nothing { tip: Some(_) }));
}

#[test]
fn endless_contention_ends() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    let mut transaction = step("t");
    transaction.patience = Duration::from_millis(200);
    let turns = Cell::new(0);
    let error = store
        .transact(&transaction, |_| {
            turns.set(turns.get() + 1);
            write(&store, "t", vec![put("n", &turns.get().to_string())]);
            Ok::<_, Infallible>(commit(vec![put("mine", "x")]))
        })
        .expect_err("contended");
    assert!(
        matches!(error, TransactError::Write(WriteError::Contended { .. })),
        "{error}"
    );
    assert_eq!(repo.git(&["ls-tree", "-r", "--name-only", "t"]), "n");
}

#[test]
fn a_held_lock_is_explained() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    write(&store, "t", vec![put("a", "1")]);
    let before = repo.git(&["for-each-ref"]);
    let lock = repo.path(".git/refs/heads/t.lock");
    fs::write(&lock, "").unwrap();
    let error = store
        .transact(&step("t"), |_| {
            Ok::<_, Infallible>(commit(vec![put("a", "2")]))
        })
        .expect_err("locked");
    let TransactError::Write(WriteError::Locked { age_ms, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(*age_ms >= 1_000);
    let text = error.to_string();
    assert!(text.contains("t.lock") && text.contains("remove"), "{text}");
    assert!(lock.exists(), "not ours to remove");
    fs::remove_file(&lock).unwrap();
    assert_eq!(repo.git(&["for-each-ref"]), before);
    // A lock that goes away in time is waited for.
    fs::write(&lock, "").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            fs::remove_file(&lock).unwrap();
        });
        write(&store, "t", vec![put("a", "3")]);
    });
    assert_eq!(repo.git(&["show", "t:a"]), "3");
}

#[test]
fn an_object_that_a_power_cut_emptied_is_written_again() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    write(&store, "t", vec![put("a", "content\n")]);
    let blob = repo.git(&["rev-parse", "t:a"]);
    let file = repo.path(&format!(".git/objects/{}/{}", &blob[..2], &blob[2..]));
    for broken in [b"".as_slice(), b"\x78\x01 no deflate stream"] {
        fs::remove_file(&file).unwrap();
        fs::write(&file, broken).unwrap();
        write(
            &store,
            "u",
            vec![put("b", "content\n"), put("c", &broken.len().to_string())],
        );
        assert_eq!(repo.git(&["cat-file", "-p", &blob]), "content");
    }
}

#[test]
fn a_symbolic_ref_is_refused() {
    let repo = Repo::with_commit();
    repo.git(&["symbolic-ref", "refs/heads/t", "refs/heads/elsewhere"]);
    let error = repo
        .store()
        .transact(&step("t"), |_| {
            Ok::<_, Infallible>(commit(vec![put("a", "2")]))
        })
        .expect_err("refused");
    assert!(
        matches!(error, TransactError::Write(WriteError::Symbolic { .. })),
        "{error}"
    );
    repo.git(&["symbolic-ref", "-d", "refs/heads/t"]);
}

#[test]
fn differences_and_lists() {
    let repo = Repo::new(&[]);
    let store = repo.store();
    write(
        &store,
        "t",
        vec![put("a", "1"), put("d/x", "2"), put("d/y", "3")],
    );
    let old = store.snapshot(&reference("t")).unwrap().unwrap();
    write(
        &store,
        "t",
        vec![
            put("d/x", "4"),
            Edit::Remove { path: path("a") },
            put("a/b", "5"),
            put("e", "6"),
        ],
    )
    .tip();
    // The old snapshot still reads what it read.
    assert_eq!(old.read(&path("d/x")).unwrap().unwrap(), b"2");
    let new = store.snapshot(&reference("t")).unwrap().unwrap();
    let changes = new.changes_since(Some(&old)).unwrap();
    let shown: Vec<String> = changes
        .iter()
        .map(|change| {
            let sign = match (change.old, change.new) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            format!("{sign}{}", change.path)
        })
        .collect();
    assert_eq!(shown, ["-a", "+a/b", "~d/x", "+e"]);
    assert_eq!(new.changes_since(None).unwrap().len(), 4);
    let listed: Vec<_> = new
        .list(None)
        .unwrap()
        .into_iter()
        .map(|(name, entry)| (name, entry.kind))
        .collect();
    assert_eq!(
        listed,
        [
            ("a".to_owned(), EntryKind::Folder),
            ("d".to_owned(), EntryKind::Folder),
            ("e".to_owned(), EntryKind::File)
        ]
    );
    let walked: Vec<String> = new
        .walk(Some(&path("d")))
        .unwrap()
        .into_iter()
        .map(|(path, _)| path.to_string())
        .collect();
    assert_eq!(walked, ["d/x", "d/y"]);
    assert_eq!(new.walk(Some(&path("none"))).unwrap(), []);
}

struct SshKeygen {
    key: std::path::PathBuf,
}

impl SignCommit for SshKeygen {
    fn sign(&self, payload: &[u8]) -> Result<String, SignError> {
        let file = self.key.with_extension("payload");
        fs::write(&file, payload).expect("written");
        let status = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", "git", "-f"])
            .arg(&self.key)
            .arg(&file)
            .output()
            .expect("ssh-keygen runs");
        if !status.status.success() {
            return Err(SignError {
                reason: String::from_utf8_lossy(&status.stderr).into_owned(),
            });
        }
        let signature = self.key.with_extension("payload.sig");
        let armored = fs::read_to_string(&signature).expect("a signature");
        fs::remove_file(signature).expect("removed");
        Ok(armored)
    }
}

#[test]
fn git_accepts_signed_commits_and_refuses_tampered_ones() {
    for format in ["sha1", "sha256"] {
        let repo = Repo::new(&[&format!("--object-format={format}")]);
        let keys = tempfile::tempdir().unwrap();
        let key = keys.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&key)
            .status()
            .expect("ssh-keygen runs");
        assert!(made.success());
        let public = fs::read_to_string(keys.path().join("key.pub")).unwrap();
        let allowed = keys.path().join("allowed");
        fs::write(&allowed, format!("author@example.com {public}")).unwrap();
        repo.git(&["config", "gpg.format", "ssh"]);
        repo.git(&[
            "config",
            "gpg.ssh.allowedSignersFile",
            allowed.to_str().unwrap(),
        ]);
        let store = repo.store();
        let signer = SshKeygen { key: key.clone() };
        let transaction = step("t").signed_by(Some(&signer));
        append_line(&store, &transaction, "one");
        let tip = append_line(&store, &transaction, "two").tip().unwrap();
        for commit in ["t", "t~1"] {
            repo.git(&["verify-commit", commit]);
        }
        let record = store.commit(tip).unwrap();
        assert!(record.signature.unwrap().starts_with("-----BEGIN SSH SIG"));
        assert_eq!(record.message, "test: a step\n");
        // The payload is the commit without its signature.
        let raw = repo.git(&["cat-file", "commit", "t"]);
        let header = if format == "sha1" {
            "\ngpgsig "
        } else {
            "\ngpgsig-sha256 "
        };
        assert!(raw.contains(header), "{raw}");
        assert!(
            !String::from_utf8(record.payload)
                .unwrap()
                .contains("gpgsig")
        );
        let tampered = raw.replace("a step", "a trap") + "\n";
        let file = keys.path().join("tampered");
        fs::write(&file, tampered).unwrap();
        let forged = repo.git(&["hash-object", "-t", "commit", "-w", file.to_str().unwrap()]);
        let verdict = hermetic(
            Command::new("git")
                .args(["verify-commit", &forged])
                .current_dir(&repo.dir),
        )
        .output()
        .unwrap();
        assert!(!verdict.status.success());
        // A signer that fails leaves the ref as it was.
        fs::remove_file(&key).unwrap();
        let error = store
            .transact(&transaction, |_| {
                Ok::<_, Infallible>(commit(vec![put("x", "x")]))
            })
            .expect_err("no key");
        assert!(matches!(error, TransactError::Write(WriteError::Sign(_))));
        assert_eq!(store.tip(&reference("t")).unwrap(), Some(tip));
    }
}
