//! Hermetic git: fixed identity, dates and zone, no configuration but the repository's own.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use proofline::store::{
    Author, Decision, Durability, Edit, ObjectName, Outcome, RefName, Snapshot, Store, Transaction,
    TreePath,
};

/// A repository that real git made, checked by real git when it goes.
pub struct Repo {
    pub dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Repo {
    pub fn new(init: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().join("repo");
        let mut args = vec!["init", "--quiet", "--initial-branch=main"];
        args.extend(init);
        args.push("repo");
        git_in(temporary.path(), &args);
        Self {
            dir,
            _temporary: Some(temporary),
        }
    }

    /// A repository with one commit on `main`.
    pub fn with_commit() -> Self {
        let repo = Self::new(&[]);
        std::fs::write(repo.dir.join("a.txt"), "a\n").expect("written");
        repo.git(&["add", "a.txt"]);
        repo.git(&["commit", "--quiet", "-m", "first"]);
        repo
    }

    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            _temporary: None,
        }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git_in(&self.dir, args)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.dir).expect("the repository opens")
    }

    pub fn fast_store(&self) -> Store {
        self.store().with_durability(Durability::Unsynced)
    }
}

impl Drop for Repo {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.dir.exists() {
            let said = self.git(&["fsck", "--strict", "--full", "--no-dangling"]);
            // An empty repository is worth a notice to git, not a complaint.
            let said: Vec<&str> = said.lines().filter(|l| !l.starts_with("notice:")).collect();
            let said = said.join("\n");
            assert_eq!(said, "", "git fsck is not clean");
        }
    }
}

pub fn hermetic(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "A U Thor")
        .env("GIT_AUTHOR_EMAIL", "author@example.com")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_NAME", "C O Mitter")
        .env("GIT_COMMITTER_EMAIL", "committer@example.com")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
}

pub fn git_in(dir: &Path, args: &[&str]) -> String {
    let output = hermetic(Command::new("git").args(args).current_dir(dir))
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    // `git fsck` reports on standard error; other commands chat there.
    let errors = match args[0] {
        "fsck" => String::from_utf8_lossy(&output.stderr),
        _ => "".into(),
    };
    format!("{text}{errors}").trim_end().to_owned()
}

pub fn time() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}

pub fn author() -> Author {
    Author::new("A U Thor", "author@example.com", time()).expect("an author")
}

pub fn reference(name: &str) -> RefName {
    RefName::branch(name).expect("a branch name")
}

pub fn path(text: &str) -> TreePath {
    text.parse().expect("a path")
}

pub fn step(name: &str) -> Transaction<'static> {
    Transaction::new(reference(name), author())
}

pub fn put(at: &str, content: &str) -> Edit {
    Edit::put(path(at), content)
}

pub fn commit(edits: Vec<Edit>) -> Decision {
    Decision::Commit {
        edits,
        message: "test: a step".to_owned(),
    }
}

/// One transaction whose decision is the same whatever it finds.
pub fn write(store: &Store, branch: &str, edits: Vec<Edit>) -> Outcome {
    store
        .transact(&step(branch), |_| {
            Ok::<_, Infallible>(commit(edits.clone()))
        })
        .expect("committed")
}

/// Append a line to a file, reading what is there: a lost update would lose a line.
pub fn append_line(store: &Store, transaction: &Transaction<'_>, line: &str) -> Outcome {
    store
        .transact(transaction, |snapshot: Option<&Snapshot>| {
            let mut bytes = match snapshot {
                Some(snapshot) => snapshot.read(&path("log.txt")).expect("read"),
                None => None,
            }
            .unwrap_or_default();
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            Ok::<_, Infallible>(commit(vec![Edit::put(path("log.txt"), bytes)]))
        })
        .expect("appended")
}

pub fn name(text: &str) -> ObjectName {
    text.parse().expect("an object name")
}

/// Everything in the repository that must not change: refs, HEAD, index, work tree.
pub fn untouched(repo: &Repo) -> Vec<String> {
    vec![
        repo.git(&["for-each-ref"]),
        std::fs::read_to_string(repo.path(".git/HEAD")).unwrap_or_default(),
        repo.git(&["status", "--porcelain"]),
        format!("{:?}", std::fs::read(repo.path(".git/index")).ok()),
    ]
}
