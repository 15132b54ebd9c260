//! Steps that count only once the remote has them.

use std::convert::Infallible;
use std::time::Duration;

use proofline::store::{
    Outcome, PushRef, PushStatus, RemoteError, Store, TransactError, WriteError,
};

use crate::support::*;

/// A bare remote and clones of it.
fn shared(clones: usize) -> (Repo, Vec<Repo>) {
    let remote = Repo::new(&["--bare"]);
    let clones = (0..clones)
        .map(|n| {
            let folder = format!("../clone{n}");
            let url = remote.dir.display().to_string();
            // Cloning an empty repository chats on standard error only.
            remote.git(&["clone", "--quiet", &url, &folder]);
            Repo::at(&remote.path(&folder))
        })
        .collect();
    (remote, clones)
}

fn append_shared(store: &Store, line: &str) -> Result<Outcome, TransactError<Infallible>> {
    let remote = store.remote("origin").expect("configured");
    let mut transaction = step("t").shared_with(Some(&remote));
    transaction.patience = Duration::from_secs(120);
    store.transact(&transaction, |snapshot| {
        let mut text = snapshot
            .and_then(|snapshot| snapshot.read(&path("log.txt")).expect("read"))
            .unwrap_or_default();
        text.extend_from_slice(format!("{line}\n").as_bytes());
        Ok(commit(vec![proofline::store::Edit::put(
            path("log.txt"),
            text,
        )]))
    })
}

#[test]
fn two_clones_and_nothing_is_lost() {
    let (remote, clones) = shared(2);
    std::thread::scope(|scope| {
        for (n, clone) in clones.iter().enumerate() {
            scope.spawn(move || {
                let store = clone.fast_store();
                for turn in 0..50 {
                    append_shared(&store, &format!("clone{n}-{turn}")).expect("shared");
                }
            });
        }
    });
    let text = remote.git(&["show", "t:log.txt"]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 100);
    assert_eq!(remote.git(&["rev-list", "--count", "t"]), "100");
    for clone in &clones {
        let tip = clone.git(&["rev-parse", "t"]);
        remote.git(&["merge-base", "--is-ancestor", &tip, "t"]);
    }
}

#[test]
fn what_was_only_here_goes_along_and_what_is_only_there_comes_first() {
    let (remote, clones) = shared(2);
    let (a, b) = (clones[0].fast_store(), clones[1].fast_store());
    append_line(&a, &step("t"), "before there was a remote");
    append_shared(&a, "shared by a").unwrap();
    assert_eq!(remote.git(&["rev-list", "--count", "t"]), "2");
    let outcome = append_shared(&b, "shared by b").unwrap();
    assert!(outcome.committed().unwrap().local_updated);
    assert_eq!(
        remote.git(&["show", "t:log.txt"]),
        "before there was a remote\nshared by a\nshared by b"
    );
    append_line(&a, &step("t"), "only here, while the other went on");
    let error = append_shared(&a, "more").expect_err("diverged");
    assert!(
        matches!(error, TransactError::Write(WriteError::Diverged { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("git update-ref"), "{error}");
    assert_eq!(remote.git(&["rev-list", "--count", "t"]), "3");
}

#[test]
fn a_remote_that_declines_or_is_gone_changes_nothing_here() {
    let (remote, clones) = shared(1);
    let store = clones[0].fast_store();
    append_shared(&store, "one").unwrap();
    let before = clones[0].git(&["for-each-ref", "refs/heads"]);
    let hook = remote.path("hooks/pre-receive");
    std::fs::write(
        &hook,
        "#!/bin/sh\necho 'protected: ask a maintainer'\nexit 1\n",
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = append_shared(&store, "two").expect_err("declined");
    assert!(
        matches!(
            error,
            TransactError::Write(WriteError::Remote(RemoteError::Declined { .. }))
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("ask a maintainer"), "{error}");
    assert_eq!(clones[0].git(&["for-each-ref", "refs/heads"]), before);
    std::fs::remove_file(hook).unwrap();

    clones[0].git(&[
        "remote",
        "set-url",
        "origin",
        "https://user:hunter2@127.0.0.1:1/x.git",
    ]);
    let error = append_shared(&store, "three").expect_err("unreachable");
    assert!(
        matches!(
            error,
            TransactError::Write(WriteError::Remote(RemoteError::Unreachable { .. }))
        ),
        "{error:?}"
    );
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(clones[0].git(&["for-each-ref", "refs/heads"]), before);
    assert!(matches!(
        store.remote("nowhere"),
        Err(RemoteError::Unknown { .. })
    ));
}

#[test]
fn pushes_are_classified() {
    let (remote, clones) = shared(2);
    let (a, b) = (clones[0].fast_store(), clones[1].fast_store());
    let one = write(&a, "x", vec![put("f", "1")]).tip().unwrap();
    let other = write(&b, "x", vec![put("f", "2")]).tip().unwrap();
    let push = |branch: &str, commit| PushRef {
        reference: reference(branch),
        commit,
    };
    let (to_a, to_b) = (a.remote("origin").unwrap(), b.remote("origin").unwrap());
    let accepted = a
        .push(&to_a, &[push("x", one), push("y", one)], true)
        .unwrap();
    assert_eq!(accepted, [PushStatus::Accepted, PushStatus::Accepted]);
    assert_eq!(
        a.push(&to_a, &[push("x", one)], false).unwrap(),
        [PushStatus::UpToDate]
    );
    let refused = b
        .push(&to_b, &[push("z", other), push("x", other)], true)
        .unwrap();
    assert!(
        refused
            .iter()
            .all(|status| matches!(status, PushStatus::Moved { .. })),
        "{refused:?}"
    );
    assert_eq!(
        remote.git(&["for-each-ref", "--format=%(refname:short)"]),
        "x\ny"
    );
    let fetched = b
        .fetch(&to_b, &[reference("x"), reference("none")])
        .unwrap();
    assert_eq!((fetched[0].tip, fetched[1].tip), (Some(one), None));
    assert!(b.has_object(one));
    assert_eq!(b.tip(&reference("x")).unwrap(), Some(other));
}

#[test]
fn a_push_whose_answer_is_lost_is_settled_by_asking() {
    let (remote, clones) = shared(1);
    let store = clones[0].fast_store();
    append_shared(&store, "one").unwrap();
    // The remote takes the commit and then says nothing for longer than we wait.
    let hook = remote.path("hooks/post-receive");
    std::fs::write(&hook, "#!/bin/sh\nsleep 60\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut origin = store.remote("origin").unwrap();
    origin.timeout = Duration::from_secs(2);
    let transaction = step("t").shared_with(Some(&origin));
    let outcome = append_line(&store, &transaction, "two");
    assert!(outcome.committed().unwrap().local_updated);
    assert_eq!(remote.git(&["show", "t:log.txt"]), "one\ntwo");
    assert_eq!(remote.git(&["rev-list", "--count", "t"]), "2");
}
