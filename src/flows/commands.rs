//! The verify and e2e commands of `proofline.toml`, run as evidence.
//!
//! Each command runs without a shell, with a cleared environment, in the
//! project's folder, within its time limit. What it showed is made plain,
//! cleaned of secrets, cut, sealed with the runner's key and committed on the
//! evidence branch; the gate's figures are attested by that runner, because
//! nobody can recompute what a test printed. A step that is repeated after a
//! crash finds its evidence and does not run the commands again.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::domain::improve::artifact::Program as Artifact;
use crate::domain::operate::command::{
    CORRELATION_IDS_MAX, CommandEvidence, CommandExit, CommandResult, OutputMatch, TAIL_BYTES_MAX,
};
use crate::domain::operate::junit;
use crate::domain::operate::output;
use crate::domain::operate::redact::{Redactor, is_secret_name};
use crate::domain::prove::policy::{Policy, Role};
use crate::domain::prove::promotion::Bound;
use crate::domain::prove::verdict::{GateResult, Label, Verdict};
use crate::host::process::{Finished, ProcessError};
use crate::host::{environment, files};
use crate::id::{Digest, PrincipalId, RunId, SignatureId};
use crate::models::ModelConfig;
use crate::models::config::HeaderValue;
use crate::records::sealed::Sealed;
use crate::records::{document, evidence};
use crate::seal::{Namespace, SealSigner};
use crate::store::{Decision, Transaction};

use super::canary::policy;
use super::holdout::principal;
use super::project::CommandConfig;
use super::workspace::KeyRole;
use super::{FlowError, Workspace};

pub use crate::domain::operate::command::CommandKind;

/// Variables that every command gets.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// How commands are run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run nothing, for this reason.
    pub skip: Option<String>,
    /// A regular expression that some line of the output must match.
    pub grep: Option<String>,
}

/// The program that e2e commands are to try.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Whose it is.
    pub signature: &'a SignatureId,
    /// Its id.
    pub artifact: Digest,
    /// The program.
    pub program: &'a Artifact,
}

/// What the commands of one kind came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandsOutcome {
    /// The gate's answer, `verify` or `e2e`.
    pub gate: GateResult,
    /// Where the sealed evidence is; `None` when no commands are configured, so that there is nothing to seal.
    pub bound: Option<Bound>,
    /// What the commands showed; empty when none are configured.
    pub commands: Vec<CommandResult>,
    /// How long each took, in milliseconds, in the same order; not in any digest. Empty when reused.
    pub durations_ms: Vec<u64>,
    /// Whether this run had shown it before.
    pub reused: bool,
}

impl CommandsOutcome {
    /// One line per command: how it ended, after how long, and where to look.
    pub fn lines(&self) -> Vec<String> {
        let took = |index: usize| match self.durations_ms.get(index) {
            Some(ms) => format!(" after {ms} ms"),
            None => " (shown before)".to_owned(),
        };
        self.commands
            .iter()
            .enumerate()
            .map(|(index, command)| match command.failure() {
                Some(reason) => format!("{reason}{}", took(index)),
                None => {
                    let tests = command
                        .tests
                        .map(|tests| format!(", {} tests", tests.total));
                    format!(
                        "`{}` {}{}{}",
                        command.name,
                        command.exit,
                        tests.unwrap_or_default(),
                        took(index)
                    )
                }
            })
            .collect()
    }
}

/// Whether `--e2e-grep` is a regular expression; a night asks before it begins.
pub fn check_pattern(pattern: &str) -> Result<Regex, FlowError> {
    RegexBuilder::new(pattern)
        .multi_line(true)
        .build()
        .map_err(|error| {
            FlowError::usage(format!("`{pattern}` is not a regular expression: {error}"))
        })
}

/// Run every command of a kind, and seal and commit what they showed.
pub fn run_all(
    workspace: &Workspace,
    run: &RunId,
    kind: CommandKind,
    options: &Options,
    candidate: Option<Candidate<'_>>,
) -> Result<CommandsOutcome, FlowError> {
    let pattern = options.grep.as_deref().map(check_pattern).transpose()?;
    let configured = match kind {
        CommandKind::Verify => &workspace.project.commands.verify,
        CommandKind::E2e => &workspace.project.commands.e2e,
    };
    if configured.is_empty() && pattern.is_none() && options.skip.is_none() {
        let mut gate = GateResult::new(kind.as_str(), Verdict::Pass);
        gate.skipped = Some(format!("no {kind} commands are configured"));
        return Ok(CommandsOutcome {
            gate,
            bound: None,
            commands: Vec::new(),
            durations_ms: Vec::new(),
            reused: false,
        });
    }
    if workspace.store.is_bare() && options.skip.is_none() {
        return Err(FlowError::input(format!(
            "{kind} commands need a work tree, and this repository is bare"
        ))
        .hint("run the night in a clone"));
    }
    let policy = policy(workspace)?;
    let sealer = workspace.sealer(KeyRole::Runner)?;
    let step = Step {
        workspace,
        run,
        kind,
        options,
        configured,
        candidate,
        redactor: redactor(workspace, configured),
        runner: principal(&policy, &sealer)?,
    };
    if let Some(known) = step.shown_before(&policy)? {
        return Ok(known);
    }
    let (shown, durations_ms) = step.show(pattern.as_ref())?;
    step.keep(shown, durations_ms, &sealer)
}

/// Everything that may not appear in what is kept: the values of variables whose
/// names look secret, those that models' keys are in, and those set for a command.
pub fn redactor(workspace: &Workspace, commands: &[CommandConfig]) -> Redactor {
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for model in workspace.project.models.values() {
        let ModelConfig::Openai(config) = model else {
            continue;
        };
        named.extend(config.api_key_env.as_deref());
        named.extend(config.headers.values().filter_map(|header| match header {
            HeaderValue::Environment(header) => Some(header.env.as_str()),
            HeaderValue::Literal(_) => None,
        }));
    }
    let own = environment::variables();
    let inherited = own
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| named.contains(name) || is_secret_name(name));
    let set = commands
        .iter()
        .flat_map(|command| &command.set)
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| is_secret_name(name));
    Redactor::new(inherited.chain(set).map(|(_, value)| value.to_owned()))
}

/// One kind of commands in one run.
struct Step<'a> {
    workspace: &'a Workspace,
    run: &'a RunId,
    kind: CommandKind,
    options: &'a Options,
    configured: &'a [CommandConfig],
    candidate: Option<Candidate<'a>>,
    redactor: Redactor,
    runner: PrincipalId,
}

impl Step<'_> {
    fn path(&self) -> crate::store::TreePath {
        evidence::command_path(
            self.run,
            self.kind,
            self.candidate.map(|candidate| candidate.signature),
        )
    }

    /// The evidence without what commands would show.
    fn blank(&self) -> CommandEvidence {
        CommandEvidence {
            schema: CommandEvidence::SCHEMA.to_owned(),
            run: self.run.clone(),
            kind: self.kind,
            commit: self.workspace.code_commit(),
            signature: self.candidate.map(|candidate| candidate.signature.clone()),
            artifact: self.candidate.map(|candidate| candidate.artifact),
            skipped: self
                .options
                .skip
                .as_ref()
                .map(|reason| self.redactor.redact(reason)),
            output_match: None,
            commands: Vec::new(),
        }
    }

    /// What an earlier attempt of the same run showed about the same code, candidate and commands.
    fn shown_before(&self, policy: &Policy) -> Result<Option<CommandsOutcome>, FlowError> {
        let (store, refs) = (&self.workspace.store, &self.workspace.refs);
        let snapshot = store.snapshot(&refs.evidence)?;
        let path = self.path();
        let Some(known) = evidence::commands(&refs.evidence, snapshot.as_ref(), &path)? else {
            return Ok(None);
        };
        let blank = CommandEvidence {
            commands: known.body.commands.clone(),
            output_match: known.body.output_match.clone(),
            ..self.blank()
        };
        let argv: Vec<Vec<String>> = match self.options.skip {
            Some(_) => Vec::new(),
            None => self
                .configured
                .iter()
                .map(|command| self.argv(command))
                .collect(),
        };
        let pattern = self
            .options
            .grep
            .as_ref()
            .filter(|_| self.options.skip.is_none());
        let is_same = blank == known.body
            && known
                .body
                .commands
                .iter()
                .map(|command| &command.argv)
                .eq(&argv)
            && known
                .body
                .output_match
                .as_ref()
                .map(|wanted| wanted.pattern.clone())
                == pattern.map(|pattern| self.redactor.redact(pattern));
        let sealed_by = known.sealed_by(policy, Role::Runner, Namespace::Evidence)?;
        let (Some(runner), Some(snapshot), true) = (sealed_by.first(), snapshot, is_same) else {
            return Ok(None);
        };
        let bytes = snapshot.read(&path)?.unwrap_or_default();
        Ok(Some(CommandsOutcome {
            gate: gate(&known.body, runner),
            bound: Some(self.bound(snapshot.commit().to_string(), &bytes)),
            commands: known.body.commands,
            durations_ms: Vec::new(),
            reused: true,
        }))
    }

    /// Run the commands.
    fn show(&self, pattern: Option<&Regex>) -> Result<(CommandEvidence, Vec<u64>), FlowError> {
        let mut shown = self.blank();
        let mut durations_ms = Vec::new();
        if shown.skipped.is_some() {
            return Ok((shown, durations_ms));
        }
        // Dropped, and so removed, when all commands have ended.
        let file = self.candidate.map(artifact_file).transpose()?;
        let mut matched = false;
        for command in self.configured {
            let began_ms = self.workspace.clock.elapsed_ms();
            let done = self.one(
                command,
                file.as_ref().map(tempfile::NamedTempFile::path),
                pattern,
            )?;
            durations_ms.push(self.workspace.clock.elapsed_ms() - began_ms);
            matched |= done.matched;
            shown.commands.push(done.result);
        }
        shown.output_match = self.options.grep.as_ref().map(|pattern| OutputMatch {
            pattern: self.redactor.redact(pattern),
            matched,
        });
        Ok((shown, durations_ms))
    }

    fn argv(&self, command: &CommandConfig) -> Vec<String> {
        command
            .argv
            .iter()
            .map(|arg| self.redactor.redact(arg))
            .collect()
    }

    fn one(
        &self,
        command: &CommandConfig,
        artifact: Option<&Path>,
        pattern: Option<&Regex>,
    ) -> Result<Done, FlowError> {
        let Some((name, args)) = command.argv.split_first() else {
            return Err(
                FlowError::input(format!("the command `{}` has no program", command.name))
                    .hint("give it an `argv` in proofline.toml"),
            );
        };
        let junit = command
            .junit
            .as_ref()
            .map(|path| Junit::before(path, &self.workspace.root));
        let mut program = self.workspace.program(name).args(args).env_clear();
        let listed = command.env.iter().map(String::as_str);
        for variable in INHERITED.into_iter().chain(listed) {
            if let Some(value) = environment::path(variable) {
                program = program.env(variable, value);
            }
        }
        for (variable, value) in &command.set {
            program = program.env(variable, value);
        }
        program = program.env("PROOFLINE_RUN", self.run.as_str());
        if let Some(candidate) = self.candidate {
            program = program
                .env("PROOFLINE_SIGNATURE", candidate.signature.as_str())
                .env("PROOFLINE_ARTIFACT", candidate.artifact.to_string());
        }
        if let Some(file) = artifact {
            program = program.env("PROOFLINE_ARTIFACT_FILE", file);
        }
        let ended = program
            .timeout(Duration::from_millis(command.timeout_ms))
            .run();
        let (exit, stdout, stderr) = match ended {
            Ok(Finished {
                status,
                stdout,
                stderr,
                ..
            }) => (exit_of(status), stdout, stderr),
            Err(ProcessError::TimedOut {
                limit,
                stdout,
                stderr,
                ..
            }) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                (CommandExit::TimedOut { limit_ms }, stdout, stderr)
            }
            Err(ProcessError::Start { source, .. }) => {
                let reason = self.redactor.redact(&source.to_string());
                (CommandExit::NotStarted { reason }, Vec::new(), Vec::new())
            }
            Err(ProcessError::Interrupted { .. }) => return Err(FlowError::interrupted()),
            Err(error @ ProcessError::Io { .. }) => {
                return Err(FlowError::outside(format!(
                    "the {} command `{}`: {error}",
                    self.kind, command.name
                )));
            }
        };
        let texts = [output::plain(&stdout), output::plain(&stderr)];
        let matched =
            pattern.is_some_and(|pattern| texts.iter().any(|text| pattern.is_match(text)));
        let [stdout, stderr] = texts.map(|text| self.redactor.redact(&text));
        let mut result = CommandResult {
            name: command.name.clone(),
            argv: self.argv(command),
            exit,
            tests: None,
            failing_tests: Vec::new(),
            correlation_ids: output::correlation_ids(
                &format!("{stdout}\n{stderr}"),
                CORRELATION_IDS_MAX,
            ),
            stdout_tail: output::tail(&stdout, TAIL_BYTES_MAX).to_owned(),
            stderr_tail: output::tail(&stderr, TAIL_BYTES_MAX).to_owned(),
            fault: None,
        };
        match junit.map(|junit| junit.after()) {
            Some(Ok(report)) => {
                result.tests = Some(report.counts);
                result.failing_tests = report
                    .failing
                    .iter()
                    .map(|id| self.redactor.redact(id))
                    .collect();
            }
            Some(Err(reason)) => result.fault = Some(self.redactor.redact(&reason)),
            None => {}
        }
        Ok(Done { result, matched })
    }

    /// Seal and commit what was shown.
    fn keep(
        &self,
        shown: CommandEvidence,
        durations_ms: Vec<u64>,
        sealer: &SealSigner,
    ) -> Result<CommandsOutcome, FlowError> {
        let gate = gate(&shown, &self.runner);
        let sealed =
            Sealed::seal(shown, sealer, Namespace::Evidence).map_err(FlowError::outside)?;
        let (edit, bytes) = evidence::keep(self.path(), &sealed)?;
        let transaction = Transaction::new(
            self.workspace.refs.evidence.clone(),
            self.workspace.author()?,
        );
        let outcome =
            self.workspace
                .store
                .transact(&transaction, |_| -> Result<Decision, FlowError> {
                    Ok(Decision::Commit {
                        edits: vec![edit.clone()],
                        message: self.message(&gate),
                    })
                })?;
        let commit = outcome
            .tip()
            .ok_or_else(|| FlowError::bug("evidence was committed, and its ref has no tip"))?;
        Ok(CommandsOutcome {
            gate,
            bound: Some(self.bound(commit.to_string(), &bytes)),
            commands: sealed.body.commands,
            durations_ms,
            reused: false,
        })
    }

    fn message(&self, gate: &GateResult) -> String {
        let word = match gate.skipped {
            Some(_) => "skipped",
            None => gate.verdict.word(),
        };
        let mut message = format!("{} {}: {word}\n\nRun: {}\n", self.kind, self.run, self.run);
        if let Some(candidate) = self.candidate {
            message.push_str(&format!(
                "Signature: {}\nArtifact: {}\n",
                candidate.signature, candidate.artifact
            ));
        }
        message
    }

    fn bound(&self, commit: String, bytes: &[u8]) -> Bound {
        Bound {
            name: format!("{}_evidence", self.kind),
            reference: self.workspace.refs.evidence.to_string(),
            commit,
            path: self.path().to_string(),
            digest: Digest::of(bytes),
        }
    }
}

/// What one command showed, and whether its output matched the pattern.
struct Done {
    result: CommandResult,
    matched: bool,
}

/// The gate's answer to evidence that a runner sealed.
pub fn gate(shown: &CommandEvidence, runner: &PrincipalId) -> GateResult {
    let attested = Label::AttestedBy(runner.clone());
    let mut gate = GateResult::new(shown.kind.as_str(), shown.verdict());
    gate.skipped.clone_from(&shown.skipped);
    for command in &shown.commands {
        gate = gate.with(&command.name, command.exit.to_string(), &attested);
        if let Some(tests) = command.tests {
            gate = gate
                .with(&format!("{} tests", command.name), tests.total, &attested)
                .with(
                    &format!("{} failed tests", command.name),
                    tests.failed,
                    &attested,
                );
        }
    }
    if let Some(wanted) = &shown.output_match {
        gate = gate.with(
            &format!("output matches `{}`", wanted.pattern),
            wanted.matched,
            &attested,
        );
    }
    gate
}

fn exit_of(status: ExitStatus) -> CommandExit {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
    match (code, signal) {
        (Some(code), _) => CommandExit::Exited { code },
        (None, signal) => CommandExit::Signalled {
            signal: signal.unwrap_or(0),
        },
    }
}

/// The candidate as a file that commands can read.
fn artifact_file(candidate: Candidate<'_>) -> Result<tempfile::NamedTempFile, FlowError> {
    let fail = |error: std::io::Error| {
        FlowError::outside(format!("a temporary file for the candidate: {error}"))
    };
    let file = tempfile::Builder::new()
        .prefix("proofline-artifact-")
        .suffix(".yaml")
        .tempfile()
        .map_err(fail)?;
    std::fs::write(file.path(), document::to_yaml(candidate.program)?).map_err(fail)?;
    Ok(file)
}

/// A report that a command is to leave. One that was there before and was not
/// written anew says nothing about this run.
struct Junit<'a> {
    /// As it is configured: a full path would tell whose machine it was.
    shown: std::path::Display<'a>,
    path: PathBuf,
    before: Option<Stamp>,
}

#[derive(PartialEq)]
struct Stamp {
    modified: Option<std::time::SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            inode: metadata.ino(),
        }
    }
}

impl<'a> Junit<'a> {
    fn before(configured: &'a Path, root: &Path) -> Self {
        let path = root.join(configured);
        let before = std::fs::metadata(&path)
            .ok()
            .map(|metadata| Stamp::of(&metadata));
        Self {
            shown: configured.display(),
            path,
            before,
        }
    }

    fn after(self) -> Result<junit::Report, String> {
        let shown = self.shown;
        let metadata = std::fs::metadata(&self.path)
            .map_err(|error| format!("its report {shown}: {error}"))?;
        // Opening a pipe would wait for whoever writes to it.
        if !metadata.is_file() {
            return Err(format!("its report {shown} is not a file"));
        }
        if self.before == Some(Stamp::of(&metadata)) {
            return Err(format!(
                "its report {shown} was there before and was not written anew"
            ));
        }
        if metadata.len() > junit::REPORT_BYTES_MAX as u64 {
            return Err(format!(
                "its report {shown} has {} bytes; at most {} are read",
                metadata.len(),
                junit::REPORT_BYTES_MAX
            ));
        }
        let bytes = files::read(&self.path)
            .map_err(|error| format!("its report {shown}: {}", error.source))?;
        junit::parse(&bytes).map_err(|error| format!("its report {shown}: {error}"))
    }
}
