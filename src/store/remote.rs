//! Remotes: fetch and plain, non-forced push, by the `git` program.

use std::collections::HashMap;
use std::time::Duration;

use super::git::{redacted, shown};
use super::name::{NameError, ObjectName, RefName};
use super::open::{Durability, Store};
use crate::host::process::{Finished, ProcessError, Program};
use crate::host::signal::Interrupt;

/// A configured remote, by name.
#[derive(Debug, Clone)]
pub struct Remote {
    name: String,
    /// How long one fetch or push may take. Two minutes by default.
    pub timeout: Duration,
    /// Stops a fetch or push when it is set.
    pub interrupt: Option<Interrupt>,
}

/// One ref to push: `commit` to `reference`, fast-forward only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRef {
    /// The ref on the remote.
    pub reference: RefName,
    /// The commit it shall be at.
    pub commit: ObjectName,
}

/// What became of a pushed ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStatus {
    /// The remote's ref is at the commit now.
    Accepted,
    /// It was there before.
    UpToDate,
    /// The remote's ref has commits that ours doesn't contain, or moved at that moment: fetch and decide again.
    Moved {
        /// What git said.
        reason: String,
    },
    /// The remote does not want it: a hook or a protection rule. Trying again is no use.
    Declined {
        /// What git said, the server's messages included.
        reason: String,
    },
}

/// What a fetch brought for one ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The ref on the remote.
    pub reference: RefName,
    /// Where it is there; `None` when the remote has no such ref.
    pub tip: Option<ObjectName>,
}

/// Why a remote could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No remote of that name is configured.
    #[error("no remote `{name}` is configured; `git remote -v` lists those that are")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It could not be reached, or did not let us in.
    #[error("remote `{name}` can't be used: {stderr}")]
    Unreachable {
        /// The remote.
        name: String,
        /// What git said, credentials in URLs removed.
        stderr: String,
    },
    /// It refused a ref for good.
    #[error("remote `{name}` refused `{reference}`: {reason}")]
    Declined {
        /// The remote.
        name: String,
        /// The ref.
        reference: RefName,
        /// What it said.
        reason: String,
    },
    /// It is not known whether the remote has the step: the answer was lost, and so was the question about it.
    #[error(
        "remote `{name}` was lost while `{reference}` was pushed: {stderr}; it may or may not have commit {commit}; run the command again when the remote answers"
    )]
    Unsettled {
        /// The remote.
        name: String,
        /// The ref.
        reference: RefName,
        /// The commit that was pushed.
        commit: ObjectName,
        /// What git said, credentials in URLs removed.
        stderr: String,
    },
    /// Git could not be run, or took too long.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It has a ref whose name is not acceptable.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Remote {
    /// The remote's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn unreachable(&self, finished: &Finished) -> RemoteError {
        RemoteError::Unreachable {
            name: self.name.clone(),
            stderr: shown(&finished.stderr),
        }
    }
}

impl Store {
    /// The configured remotes, sorted by name.
    pub fn remotes(&self) -> Vec<Remote> {
        let repo = self.inner.local();
        let names = repo.remote_names();
        names
            .iter()
            // A name like an option can't be given to git safely.
            .filter(|name| !name.starts_with(b"-"))
            .filter_map(|name| std::str::from_utf8(name).ok())
            .map(|name| Remote {
                name: name.to_owned(),
                timeout: Duration::from_secs(120),
                interrupt: None,
            })
            .collect()
    }

    /// The remote of this name.
    pub fn remote(&self, name: &str) -> Result<Remote, RemoteError> {
        self.remotes()
            .into_iter()
            .find(|remote| remote.name == name)
            .ok_or_else(|| RemoteError::Unknown {
                name: name.to_owned(),
            })
    }

    /// Bring the objects of the remote's refs here and say where those refs are.
    /// No ref of ours moves, not even those that track the remote.
    pub fn fetch(
        &self,
        remote: &Remote,
        references: &[RefName],
    ) -> Result<Vec<Fetched>, RemoteError> {
        // A ref that is replaced between the question and the fetch may bring
        // other objects than those we were told of; then the question is asked again.
        for _ in 0..5 {
            let tips = self.remote_tips(remote, references)?;
            let missing = |fetched: &&Fetched| fetched.tip.is_some_and(|t| !self.has_object(t));
            let wanted: Vec<&RefName> = tips.iter().filter(missing).map(|f| &f.reference).collect();
            if !wanted.is_empty() {
                self.fetch_objects(remote, &wanted)?;
            }
            // What moved forward meanwhile contains what we were told of.
            if !tips.iter().any(|fetched| missing(&fetched)) {
                return Ok(tips);
            }
        }
        Err(RemoteError::Unreachable {
            name: remote.name.clone(),
            stderr: "its refs are replaced faster than they can be fetched".to_owned(),
        })
    }

    fn fetch_objects(&self, remote: &Remote, wanted: &[&RefName]) -> Result<(), RemoteError> {
        let mut program = self.remote_git(remote);
        if self.durability() == Durability::Synced {
            program = program.args(["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync"]);
        }
        let finished = program
            .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"])
            .args(["--no-recurse-submodules", "--refmap=", "--", &remote.name])
            .args(wanted.iter().map(|reference| reference.as_str()))
            .run()?;
        // A ref that was deleted meanwhile fails the fetch; the next question tells.
        if finished.status.success() || says(&finished, "couldn't find remote ref") {
            return Ok(());
        }
        Err(remote.unreachable(&finished))
    }

    /// Where refs are on the remote, without fetching anything.
    pub fn remote_tips(
        &self,
        remote: &Remote,
        references: &[RefName],
    ) -> Result<Vec<Fetched>, RemoteError> {
        let finished = self
            .remote_git(remote)
            .args(["ls-remote", "--refs", "--", &remote.name])
            .args(references.iter().map(RefName::as_str))
            .output_bytes_max(64 << 20)
            .run()?;
        if !finished.status.success() {
            return Err(remote.unreachable(&finished));
        }
        let text = String::from_utf8_lossy(&finished.stdout);
        let listed: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(object, name)| (name, object))
            .collect();
        references
            .iter()
            .map(|reference| {
                let tip = listed.get(reference.as_str()).map(|tip| tip.parse());
                Ok(Fetched {
                    reference: reference.clone(),
                    tip: tip.transpose()?,
                })
            })
            .collect()
    }

    /// Push commits to refs, plain and non-forced; with `atomic`, all or none.
    /// One status per ref, in order. The user's `pre-push` hook is not run: what
    /// is pushed here was checked before it was committed.
    pub fn push(
        &self,
        remote: &Remote,
        refs: &[PushRef],
        atomic: bool,
    ) -> Result<Vec<PushStatus>, RemoteError> {
        let mirror = format!("remote.{}.mirror=false", remote.name);
        let mut program = self
            .remote_git(remote)
            .args(["-c", &mirror, "push", "--porcelain", "--no-verify"])
            .args(["--no-follow-tags", "--recurse-submodules=no"]);
        if atomic {
            program = program.arg("--atomic");
        }
        let specs = refs
            .iter()
            .map(|push| format!("{}:{}", push.commit, push.reference));
        let finished = program.args(["--", &remote.name]).args(specs).run()?;
        let text = String::from_utf8_lossy(&finished.stdout);
        let mut statuses: HashMap<&str, PushStatus> = HashMap::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, '\t');
            let (Some(flag), Some(spec), Some(summary)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let Some((_, reference)) = spec.rsplit_once(':') else {
                continue;
            };
            if let Some(status) = status(flag, summary, &finished) {
                statuses.insert(reference, status);
            }
        }
        refs.iter()
            .map(|push| {
                statuses
                    .remove(push.reference.as_str())
                    .ok_or_else(|| remote.unreachable(&finished))
            })
            .collect()
    }

    fn remote_git(&self, remote: &Remote) -> Program {
        let program = self.git().timeout(remote.timeout);
        match &remote.interrupt {
            Some(interrupt) => program.interrupt(interrupt.clone()),
            None => program,
        }
    }
}

/// One line of `git push --porcelain`; `None` when it leaves open what happened.
fn status(flag: &str, summary: &str, finished: &Finished) -> Option<PushStatus> {
    // How git and its servers word a lost race, as of 2.47.
    const RACES: [&str; 9] = [
        "fetch first",
        "non-fast-forward",
        "needs force",
        "stale info",
        "failed to update ref",
        "failed to lock",
        "cannot lock ref",
        "reference already exists",
        "atomic",
    ];
    match flag {
        " " | "*" => Some(PushStatus::Accepted),
        "=" => Some(PushStatus::UpToDate),
        "!" if summary.starts_with("[remote failure]") => None,
        "!" if RACES.iter().any(|race| summary.contains(race)) => Some(PushStatus::Moved {
            reason: redacted(summary),
        }),
        "!" => {
            let said = shown(&finished.stderr);
            Some(PushStatus::Declined {
                reason: redacted(&format!("{summary}; {said}")),
            })
        }
        _ => None,
    }
}

fn says(finished: &Finished, text: &str) -> bool {
    String::from_utf8_lossy(&finished.stderr).contains(text)
}
