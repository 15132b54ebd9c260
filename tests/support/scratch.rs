//! A scratch repository for tests of the binary: fixed identity, dates and zone,
//! no global git configuration, nothing outside its own folder.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The moment that every clock in a test shows.
pub const NOW: &str = "2026-03-01T02:00:00Z";

/// A repository in a temporary folder.
pub struct Scratch {
    _folder: Option<TempDir>,
    root: PathBuf,
}

impl Scratch {
    /// An empty repository on branch `main`.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("repo");
        std::fs::create_dir(&root).expect("a folder");
        let scratch = Self {
            _folder: Some(folder),
            root,
        };
        scratch.git(&["init", "--quiet", "--initial-branch=main"]);
        scratch.git(&["config", "user.name", "Tester"]);
        scratch.git(&["config", "user.email", "tester@example.com"]);
        scratch
    }

    /// A copy of this one, keys and caches included.
    pub fn copy(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("repo");
        let done = Command::new("cp")
            .arg("-a")
            .arg(&self.root)
            .arg(&root)
            .status()
            .expect("cp runs");
        assert!(done.success());
        Self {
            _folder: Some(folder),
            root,
        }
    }

    /// Its work tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Write a file of the work tree.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }

    /// Read a file of the work tree.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).expect(path)
    }

    fn hermetic(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.parent().expect("a parent"))
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", NOW)
            .env("GIT_COMMITTER_DATE", NOW)
            .env("PROOFLINE_NOW", NOW)
            .stdin(Stdio::null());
        command
    }

    /// The binary, in the repository.
    pub fn proofline(&self, args: &[&str]) -> Command {
        let mut command = self.hermetic(env!("CARGO_BIN_EXE_proofline"));
        command.args(args);
        command
    }

    /// Run the binary.
    pub fn run(&self, args: &[&str]) -> Output {
        self.proofline(args).output().expect("the binary runs")
    }

    /// Run the binary; it must exit 0. Its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "`proofline {}` ended with {}\n{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("standard output is text")
    }

    /// Run the binary with `--json`; it must exit 0. Its document.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        serde_json::from_str(&self.ok(&args)).expect("one JSON document")
    }

    /// Run the binary; it must exit with this code. Its standard error.
    pub fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "`proofline {}`\n{stderr}",
            args.join(" ")
        );
        stderr
    }

    /// Run git; it must exit 0. Its standard output, trimmed.
    pub fn git(&self, args: &[&str]) -> String {
        let output = self.hermetic("git").args(args).output().expect("git runs");
        assert!(
            output.status.success(),
            "`git {}`: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Every ref with its object.
    pub fn refs(&self) -> String {
        self.git(&["for-each-ref", "--format=%(refname) %(objectname)"])
    }

    /// Git finds nothing wrong, and the user's work tree and index are as they were.
    pub fn fsck(&self) {
        let output = self
            .hermetic("git")
            .args(["fsck", "--strict"])
            .output()
            .expect("git runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
