//! A repository with keys, programs and proofs; git, ssh-keygen and the program
//! run with nobody's configuration but the repository's own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use jiff::Timestamp;
use proofline::domain::improve::artifact::{Program, ProgramModel, Sampling};
use proofline::domain::improve::signature::{
    Budgets, Decode, Instruction, Interface, PromptFrame, Strategy,
};
use proofline::domain::prove::gate::{HoldoutReport, Test};
use proofline::domain::prove::holdout::{Attempt, Closing, Entry};
use proofline::id::{Digest, RunId, SignatureId};
use proofline::records::artifacts::Artifacts;
use proofline::records::refs::path as refs_path;
use proofline::records::sealed::Sealed;
use proofline::records::{Refs, ledger};
use proofline::seal::{Namespace, SealSigner};
use proofline::store::{Author, Decision, Durability, Edit, Snapshot, Store, Transaction};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const SIGNATURE: &str = "@acme/support/SelectTool.v1";

/// Whether ssh-keygen is here; says so when it is not.
pub fn can_seal() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| Command::new("ssh-keygen").arg("-?").output().is_ok());
    if !there {
        println!("skipped: ssh-keygen is not installed");
    }
    there
}

/// A folder with a repository in it, checked by `git fsck --strict` when it goes.
pub struct Repo {
    pub home: TempDir,
    pub dir: PathBuf,
}

/// What a command left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub json: Value,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The document, where the exit code is as expected.
    #[track_caller]
    pub fn expect(self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self.json
    }
}

impl Repo {
    /// An empty repository whose user is Ada.
    pub fn new(args: &[&str]) -> Self {
        // Short, because gpg's sockets have a limit.
        let home = tempfile::Builder::new()
            .prefix("pl")
            .tempdir_in("/tmp")
            .expect("a temporary folder");
        let dir = home.path().join("repo");
        let mut init = vec!["init", "--quiet", "--initial-branch=main"];
        init.extend(args);
        init.push("repo");
        let mut repo = Self {
            dir: home.path().to_owned(),
            home,
        };
        repo.git(&init);
        repo.dir = dir;
        repo.identify("Ada", "ada@example.com");
        repo
    }

    pub fn identify(&self, name: &str, email: &str) {
        self.git(&["config", "user.name", name]);
        self.git(&["config", "user.email", email]);
    }

    /// The same, set up, with a policy that promotes directly.
    pub fn direct() -> Self {
        let repo = Self::new(&[]);
        repo.run(&["init", "--direct"]).expect(0);
        repo
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("GIT_")
                || name.starts_with("PROOFLINE_")
                || name.starts_with("SSH_")
            {
                command.env_remove(&*name);
            }
        }
        command
            .current_dir(&self.dir)
            .env("HOME", self.home.path())
            .env("GNUPGHOME", self.home.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("TZ", "UTC")
            .env("LC_ALL", "C");
        command
    }

    pub fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program)
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        let output = self.output("git", args);
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// The program, here, with `--json`.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &Path)]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_proofline"));
        command.arg("--json").args(args).envs(env.iter().copied());
        ran(command.output().expect("the program runs"))
    }

    /// What the program prints for people.
    pub fn page(&self, args: &[&str]) -> String {
        let output = self.output(env!("CARGO_BIN_EXE_proofline"), args);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A shell command that the program printed.
    pub fn shell(&self, line: &str) -> Output {
        self.output("sh", &["-c", line])
    }

    /// Everything that must not change when nothing is done.
    pub fn state(&self) -> String {
        let work = |args| self.output("git", args).stdout;
        format!(
            "{}\n{:?}\n{:?}\n{:?}",
            self.git(&["for-each-ref"]),
            work(&["status", "--porcelain"]),
            std::fs::read(self.dir.join(".git/HEAD")).ok(),
            std::fs::read(self.dir.join(".git/index")).ok(),
        )
    }

    pub fn store(&self) -> Store {
        Store::open(&self.dir)
            .expect("the repository opens")
            .with_durability(Durability::Unsynced)
    }

    pub fn common(&self, below: &str) -> PathBuf {
        self.store().common_dir().join("proofline").join(below)
    }

    /// Commit edits to one of our branches, unsigned, as nobody of ours would.
    pub fn write(&self, branch: &str, edits: Vec<Edit>) {
        let decide = |_: Option<&Snapshot>| {
            Ok::<_, Infallible>(Decision::Commit {
                edits: edits.clone(),
                message: "test: by hand\n".to_owned(),
            })
        };
        let reference = format!("refs/heads/proofline/{branch}")
            .parse()
            .expect("a ref");
        self.store()
            .transact(&Transaction::new(reference, author()), decide)
            .expect("committed");
    }

    pub fn read(&self, branch: &str, path: &str) -> String {
        self.git(&["show", &format!("proofline/{branch}:{path}")]) + "\n"
    }

    /// Keep a program on the artifacts branch; its artifact id.
    pub fn program(&self, instruction: &str) -> Digest {
        let program = program(instruction);
        let edits = Artifacts::keep(&signature(), &program, None).expect("edits");
        self.write("artifacts", edits);
        program.artifact_id().expect("an id")
    }

    /// Write a holdout attempt and its closing to the ledger, sealed by the runner's key.
    pub fn attempt(&self, run: &str, from: &Digest, to: &Digest, passed: bool) {
        let key = self.common("keys/runner");
        self.attempt_sealed(run, from, to, passed, &key);
    }

    pub fn attempt_sealed(&self, run: &str, from: &Digest, to: &Digest, passed: bool, key: &Path) {
        let signer = SealSigner::from_file(key).expect("a key");
        let attempt = Attempt {
            schema: Attempt::SCHEMA.to_owned(),
            signature: signature(),
            run: run.parse().expect("a run id"),
            t: 1,
            control: *from,
            candidate: *to,
            holdout: Digest::of(b"holdout"),
            groups: Digest::of(b"groups"),
            rows: 260,
            alpha: 0.05,
            alpha_t: 0.03,
            at: time(),
        };
        let digest = attempt.digest().expect("canonical");
        let report = holdout_report(&digest);
        let path = refs_path::report("holdout", &signature(), &digest, "report.yaml");
        let bytes = serde_json::to_vec(&report).expect("JSON");
        let closing = Closing {
            schema: Closing::SCHEMA.to_owned(),
            attempt: digest,
            passed,
            report: passed.then(|| Digest::of(&bytes)),
        };
        if passed {
            self.write("artifacts", vec![Edit::put(path, bytes)]);
        }
        for entry in [Entry::Reserved(attempt), Entry::Closed(closing)] {
            let sealed = Sealed::seal(entry, &signer, Namespace::Ledger).expect("sealed");
            let refs = Refs::new("proofline").expect("refs");
            let snapshot = self.store().snapshot(&refs.ledger).expect("readable");
            let edits =
                ledger::append(snapshot.as_ref(), &signature(), &sealed, None).expect("edits");
            self.write("ledger", edits);
        }
    }

    /// Keep the record of a finished run that proved something.
    pub fn finished(&self, run: &str, from: &Digest, to: &Digest, gates: Value) {
        let id: RunId = run.parse().expect("a run id");
        let record = json!({
            "schema": "proofline/run/v1",
            "id": id,
            "tool": "proofline overnight",
            "status": "finished",
            "started": "2026-11-20T22:00:00Z",
            "finished": "2026-11-20T23:00:00Z",
            "signatures": [SIGNATURE],
            "result": {SIGNATURE: {"promotion": {
                "signature": SIGNATURE,
                "from": from,
                "to": to,
                "job": Digest::of(b"job"),
                "run": id,
                "gates": gates,
                "inputs": [],
                "mode": "direct",
                "re_executed": false,
            }}},
        });
        // YAML is a superset of JSON.
        let path = format!("journal/runs/{id}/run.yaml")
            .parse()
            .expect("a path");
        self.write("journal", vec![Edit::put(path, record.to_string())]);
    }

    /// A night that proved `to` better than `from`.
    pub fn night(&self, run: &str, from: &Digest, to: &Digest) {
        self.attempt(run, from, to, true);
        self.finished(run, from, to, gates());
    }

    pub fn promote(&self, run: &str) -> Ran {
        self.run(&["promote", SIGNATURE, "--run", run])
    }

    pub fn show(&self, args: &[&str]) -> Ran {
        let mut all = vec!["promotions", "show", SIGNATURE];
        all.extend(args);
        self.run(&all)
    }
}

impl Drop for Repo {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.dir.exists() {
            return;
        }
        let output = self.output("git", &["fsck", "--strict", "--full", "--no-dangling"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with("notice:"))
            .collect();
        assert!(said.is_empty(), "git fsck is not clean: {said:?}");
    }
}

pub fn ran(output: Output) -> Ran {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Ran {
        code: output.status.code().unwrap_or(-1),
        json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
        stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn time() -> Timestamp {
    "2026-11-20T22:30:00Z".parse().expect("a time")
}

fn author() -> Author {
    Author::new("T", "t@example.com", time()).expect("an author")
}

pub fn signature() -> SignatureId {
    SIGNATURE.parse().expect("an id")
}

fn program(instruction: &str) -> Program {
    Program {
        schema: Program::SCHEMA.to_owned(),
        interface: Interface {
            signature: signature(),
            input: json!({"type": "object"}),
            output: json!({"type": "object"}),
            prompt: PromptFrame::default(),
        },
        strategy: Strategy::Direct,
        model: ProgramModel {
            name: "main".to_owned(),
            provider: "openai".to_owned(),
            model: "small-2".to_owned(),
        },
        instruction: Instruction {
            text: instruction.to_owned(),
        },
        few_shots: Vec::new(),
        decode: Decode::default(),
        sampling: Sampling {
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: 256,
        },
        budgets: Budgets::default(),
        lexical: None,
    }
}

fn holdout_report(attempt: &Digest) -> HoldoutReport {
    HoldoutReport {
        schema: HoldoutReport::SCHEMA.to_owned(),
        attempt: *attempt,
        test: Test::Mcnemar,
        rows: 260,
        control_mean: 0.8,
        candidate_mean: 0.872,
        wins: 25,
        losses: 6,
        p: 0.0004,
        alpha_t: 0.03,
        interval: None,
        control_answered_by: BTreeSet::from(["lexical/v1".to_owned()]),
        candidate_answered_by: BTreeSet::from(["lexical/v1".to_owned()]),
        examples: Digest::of(b"examples"),
    }
}

/// Every gate passes.
pub fn gates() -> Value {
    let label = json!({"attested_by": "runner@repo"});
    let figure = |name: &str, value: f64| json!({"name": name, "value": value, "label": label});
    json!([
        {"gate": "verify", "verdict": "pass"},
        {"gate": "holdout", "verdict": "pass", "figures": [
            {"name": "rows", "value": 260, "label": "recomputed"},
            figure("control mean", 0.8),
            figure("candidate mean", 0.872),
            figure("p", 0.0004),
        ]},
        {"gate": "canary", "verdict": "pass"},
        {"gate": "e2e", "verdict": "pass"},
    ])
}

/// The reasons of what was withheld.
pub fn reasons(document: &Value) -> String {
    let verdict = document.get("verdict");
    let inner = match verdict {
        Some(Value::Object(verdict)) => verdict.get("reasons"),
        _ => document.get("reasons"),
    };
    inner.map(Value::to_string).unwrap_or_default()
}
