//! The `git` program, for what the library can't do: push, fetch, and asking git's opinion.

use std::ffi::OsString;
use std::time::Duration;

use super::open::Store;
use crate::host::process::{Finished, ProcessError, Program};

/// Why a call of `git` gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It did not run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It ended with an error.
    #[error("`git {verb}` failed: {stderr}")]
    Failed {
        /// The git command.
        verb: String,
        /// Its exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// The end of its standard error, credentials in URLs removed.
        stderr: String,
    },
}

impl Store {
    /// `git` on this repository: no prompts, no pager, no file-system monitor,
    /// no `ext::` transport, no automatic garbage collection, messages in
    /// English; add arguments and run it. Credentials, proxies and ssh settings
    /// of the environment stay as they are.
    pub fn git(&self) -> Program {
        let mut git_dir = OsString::from("--git-dir=");
        git_dir.push(&self.inner.git_dir);
        let mut program = Program::new("git").arg(git_dir).arg("--no-pager");
        for setting in [
            "core.fsmonitor=false",
            "protocol.ext.allow=never",
            "gc.auto=0",
            "maintenance.auto=false",
            "advice.detachedHead=false",
            "color.ui=false",
        ] {
            program = program.args(["-c", setting]);
        }
        if self.config_string("core.sshCommand").is_none() {
            // The environment's GIT_SSH_COMMAND comes before this one.
            program = program.args(["-c", "core.sshCommand=ssh -oBatchMode=yes"]);
        }
        // What a hook was told about its own repository is said by `--git-dir`.
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_COMMON_DIR",
            "GIT_INDEX_FILE",
            "GIT_PREFIX",
            "GIT_NAMESPACE",
        ] {
            program = program.env_remove(name);
        }
        program
            .dir(self.work_dir().unwrap_or(&self.inner.git_dir))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("LC_ALL", "C")
    }

    /// Run `git` with these arguments; an exit code other than 0 is an error.
    pub fn run_git(&self, args: &[&str]) -> Result<Finished, GitError> {
        let finished = self.git().args(args).run()?;
        if finished.status.success() {
            return Ok(finished);
        }
        Err(GitError::Failed {
            verb: args.first().copied().unwrap_or_default().to_owned(),
            code: finished.status.code(),
            stderr: shown(&finished.stderr),
        })
    }

    /// Let git pack loose objects if there are many (`git gc --auto`). Worth a
    /// call at the end of long work; nothing depends on it.
    pub fn tidy(&self) -> Result<(), GitError> {
        let args = ["-c", "gc.auto=6700", "-c", "gc.autoDetach=false"];
        let finished = self
            .git()
            .args(args)
            .args(["gc", "--auto", "--quiet"])
            .timeout(Duration::from_secs(600))
            .run()?;
        if finished.status.success() {
            return Ok(());
        }
        Err(GitError::Failed {
            verb: "gc".to_owned(),
            code: finished.status.code(),
            stderr: shown(&finished.stderr),
        })
    }
}

/// What a program said, for an error message: credentials in URLs removed, on one line.
pub(super) fn shown(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    redacted(&lines.join("; "))
}

/// `https://user:secret@host` is `https://***@host`; query strings, which may hold tokens, go.
pub(super) fn redacted(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        safe.push_str(before);
        let end = url
            .find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | ';'))
            .unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        let authority = url.find('/').unwrap_or(url.len());
        let url = match url[..authority].rfind('@') {
            Some(at) => format!("***{}", &url[at..]),
            None => url.to_owned(),
        };
        match url.find('?') {
            Some(query) => safe.push_str(&format!("{}?***", &url[..query])),
            None => safe.push_str(&url),
        }
        rest = after;
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (text, safe) in [
            (
                "fatal: unable to access 'https://me:s3cret@host/x.git/': no",
                "fatal: unable to access 'https://***@host/x.git/': no",
            ),
            (
                "https://token@host https://a@b",
                "https://***@host https://***@b",
            ),
            ("http://h/p?access_token=abc end", "http://h/p?*** end"),
            ("https://u:p@ss@host/", "https://***@host/"),
            ("git@host:x and /a/b", "git@host:x and /a/b"),
        ] {
            assert_eq!(redacted(text), safe);
        }
    }
}
