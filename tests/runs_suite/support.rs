//! A repository with a root policy and keys, made by real git and ssh-keygen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use jiff::Timestamp;
use proofline::domain::improve::artifact::Program;
use proofline::domain::prove::policy::{Policy, Principal, Roles};
use proofline::flows::Workspace;
use proofline::flows::workspace::KeyRole;
use proofline::id::{PrincipalId, RunId, SignatureId};
use proofline::records::document;
use proofline::schema::yaml;
use proofline::store::{Author, Decision, Edit, RefName, Store, Transaction};

/// A repository, checked by git when it goes.
pub struct Repo {
    pub dir: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Repo {
    /// One commit on `main`, a root policy with a runner and a promoter, and a `proofline.toml` that pins it.
    pub fn new(commands: &str) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().join("repo");
        std::fs::create_dir(&dir).expect("made");
        let repo = Self {
            dir,
            _temporary: temporary,
        };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        for (key, value) in [
            ("user.name", "A U Thor"),
            ("user.email", "author@example.com"),
        ] {
            repo.git(&["config", key, value]);
        }
        let mut policy = Policy {
            schema: Policy::SCHEMA.to_owned(),
            epoch: 1,
            repository: "7f0c8d1e-4b52-4d6a-9c3e-0a1b2c3d4e5f".to_owned(),
            previous: None,
            principals: BTreeMap::new(),
            roles: Roles::default(),
            gates: Default::default(),
            canary: Default::default(),
            promotion: Default::default(),
            last_counters: BTreeMap::new(),
        };
        for role in [KeyRole::Runner, KeyRole::Promoter] {
            let path = repo.dir.join(".git/proofline/keys").join(role.as_str());
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            let key =
                proofline::seal::keys::generate(&path, "test").expect("ssh-keygen makes a key");
            let name: PrincipalId = format!("the-{}", role.as_str())
                .parse()
                .expect("a principal");
            policy.principals.insert(
                name.clone(),
                Principal {
                    keys: vec![key.to_string()],
                },
            );
            match role {
                KeyRole::Runner => policy.roles.runner.push(name),
                KeyRole::Promoter => {
                    policy.roles.promoter.push(name.clone());
                    policy.roles.maintainer.push(name);
                }
            }
        }
        repo.put(
            "proofline/control",
            "policy/1.yaml",
            &document::to_yaml(&policy).expect("a policy is YAML"),
        );
        let root = policy.digest().expect("a policy has a digest");
        repo.write(
            "proofline.toml",
            &format!(
                "schema = \"proofline/project/v1\"\n{commands}\n[control]\nroot = \"{root}\"\n"
            ),
        );
        repo.git(&["add", "."]);
        repo.git(&["commit", "--quiet", "-m", "first"]);
        repo
    }

    pub fn workspace(&self) -> Workspace {
        Workspace::open(&self.dir).expect("the repository is set up")
    }

    pub fn store(&self) -> Store {
        Store::open(&self.dir).expect("the repository opens")
    }

    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.dir.join(path), text).expect("written");
    }

    /// A program in the work tree.
    pub fn script(&self, path: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(path, &format!("#!/bin/sh\n{text}"));
        std::fs::set_permissions(self.dir.join(path), std::fs::Permissions::from_mode(0o755))
            .expect("made executable");
    }

    /// Commit one file on a branch of ours.
    pub fn put(&self, branch: &str, path: &str, bytes: &[u8]) -> String {
        let edit = Edit::put(path.parse().expect("a path"), bytes);
        let transaction = Transaction::new(RefName::branch(branch).expect("a branch"), author());
        self.store()
            .transact(&transaction, |_| {
                Ok::<_, std::convert::Infallible>(Decision::Commit {
                    edits: vec![edit.clone()],
                    message: "test: a file\n".to_owned(),
                })
            })
            .expect("committed")
            .tip()
            .expect("the branch is there")
            .to_string()
    }

    pub fn git(&self, args: &[&str]) -> String {
        let output = hermetic(Command::new("git").args(args).current_dir(&self.dir))
            .output()
            .expect("git runs");
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Everything that all branches hold, in all commits: where a secret must never be.
    pub fn everything(&self) -> String {
        self.git(&["log", "--all", "-p", "--text", "--format=raw"])
    }

    /// The command line, in the repository.
    pub fn proofline(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proofline"));
        hermetic(command.args(args).current_dir(&self.dir));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.proofline(args).output().expect("proofline runs")
    }

    /// Standard output of a command that must succeed.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Repo {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.git(&["fsck", "--strict", "--full", "--no-dangling"]);
            assert_eq!(self.git(&["symbolic-ref", "HEAD"]), "refs/heads/main");
        }
    }
}

pub fn hermetic(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_")
            || name.to_string_lossy().starts_with("PROOFLINE_")
        {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
}

pub fn author() -> Author {
    let time = Timestamp::from_second(1_700_000_000).expect("a time");
    Author::new("A U Thor", "author@example.com", time).expect("an author")
}

pub fn run_id(text: &str) -> RunId {
    text.parse().expect("a run id")
}

pub fn signature() -> SignatureId {
    "@acme/support/SelectTool.v1"
        .parse()
        .expect("a signature id")
}

/// The program of the sample.
pub fn program() -> Program {
    let text = include_bytes!("../samples/artifact/valid/direct.yaml");
    yaml::parse("direct.yaml", text.to_vec())
        .expect("it is YAML")
        .read()
        .expect("it is a program")
}
