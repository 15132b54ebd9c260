//! A promotion that waits for a person: which one is open, the text for its
//! pull request, and the commands that open it.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use similar::TextDiff;

use crate::domain::improve::artifact::Program;
use crate::domain::prove::promotion::{Kind as Move, Statement};
use crate::domain::prove::verdict::GateResult;
use crate::host::files;
use crate::id::{Digest, SignatureId};
use crate::records::artifacts::Artifacts;
use crate::records::control::Control;
use crate::records::document;
use crate::store::RefName;

use super::land::{self, p_value};
use super::{FlowError, Workspace};

/// Lines of a program's difference that the text shows.
const DIFF_LINES_MAX: usize = 200;

/// Where a proposal that has not landed is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// On this branch here.
    Here(RefName),
    /// On this branch of the remote, and not here.
    OnRemote(String, RefName),
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(branch) => f.write_str(branch.short()),
            Self::OnRemote(remote, branch) => write!(f, "{remote}/{}", branch.short()),
        }
    }
}

/// The proposal that waits to become the signature's next statement, here or on the remote.
pub fn open(
    workspace: &Workspace,
    signature: &SignatureId,
    counter: u64,
) -> Result<Option<Open>, FlowError> {
    let branch = workspace.refs.proposal(signature, counter)?;
    if workspace.store.tip(&branch)?.is_some() {
        return Ok(Some(Open::Here(branch)));
    }
    let Some(remote) = workspace.remote()? else {
        return Ok(None);
    };
    let tips = workspace
        .store
        .remote_tips(&remote, std::slice::from_ref(&branch))?;
    let there = tips.first().is_some_and(|fetched| fetched.tip.is_some());
    Ok(there.then(|| Open::OnRemote(remote.name().to_owned(), branch)))
}

/// The counter of a signature's next statement, by `control` as it is here.
pub fn next_counter(workspace: &Workspace, signature: &SignatureId) -> Result<u64, FlowError> {
    let snapshot = workspace.store.snapshot(&workspace.refs.control)?;
    let pointer = Control::new(&workspace.refs, snapshot.as_ref()).pointer(signature)?;
    Ok(pointer.map_or(0, |pointer| pointer.counter) + 1)
}

/// Write the text for the pull request below the local folder, and say where.
pub fn write_body(
    workspace: &Workspace,
    statement: &Statement,
    digest: &Digest,
    branch: &RefName,
    marks: &[String],
) -> Result<PathBuf, FlowError> {
    let folder = workspace
        .store
        .local_dir()?
        .join("proposals")
        .join(statement.signature.path());
    files::create_dir(&folder)?;
    let path = folder.join(format!("{}.md", statement.counter));
    let snapshot = workspace.store.snapshot(&workspace.refs.artifacts)?;
    let artifacts = Artifacts::new(&workspace.refs, snapshot.as_ref());
    let from = artifacts.program(&statement.signature, &statement.from)?;
    let to = artifacts.program(&statement.signature, &statement.to)?;
    let text = body(&Text {
        statement,
        digest,
        branch,
        control: workspace.refs.control.short(),
        marks,
        from: from.as_ref(),
        to: to.as_ref(),
    })?;
    files::write_atomic(&path, text.as_bytes())?;
    Ok(path)
}

/// The commands that bring the branch to where people review it, in order.
pub fn commands(
    workspace: &Workspace,
    statement: &Statement,
    branch: &RefName,
    body: &Path,
) -> Vec<String> {
    let (branch, control) = (branch.short(), workspace.refs.control.short());
    let Some(remote) = &workspace.project.remote else {
        return vec![
            format!("git show --stat {branch}"),
            format!("git fetch . {branch}:{control}"),
        ];
    };
    let title = land::subject(statement);
    let body = body.display();
    vec![
        format!("git push {remote} {branch}"),
        format!(
            "gh pr create --base {control} --head {branch} --title '{title}' --body-file '{body}'"
        ),
        format!(
            "glab mr create --target-branch {control} --source-branch {branch} --title '{title}' --description \"$(cat '{body}')\""
        ),
    ]
}

struct Text<'a> {
    statement: &'a Statement,
    digest: &'a Digest,
    branch: &'a RefName,
    control: &'a str,
    marks: &'a [String],
    from: Option<&'a Program>,
    to: Option<&'a Program>,
}

/// The text, as Markdown.
fn body(text: &Text<'_>) -> Result<String, FlowError> {
    let statement = text.statement;
    let mut out = format!("# {}\n\n", land::subject(statement));
    // Two pull requests with the same key are one proposal, opened twice.
    let _ = writeln!(out, "<!-- proofline-proposal: {} -->\n", text.digest);
    summary(&mut out, statement);
    out.push_str("## What changes\n\n");
    match (text.from, text.to) {
        (Some(from), Some(to)) => changes(&mut out, from, to)?,
        _ => {
            out.push_str("Not shown: the two programs are not both on the artifacts branch here.\n")
        }
    }
    if !statement.gates.is_empty() {
        out.push_str("\n## What was shown\n\n| gate | answer | figure | value | how it is known |\n|---|---|---|---|---|\n");
        for gate in &statement.gates {
            gate_rows(&mut out, gate);
        }
    }
    not_shown(&mut out, text);
    out.push_str("\n## Evidence\n\n| input | SHA-256 | where |\n|---|---|---|\n");
    for input in &statement.inputs {
        let _ = writeln!(
            out,
            "| {} | `{}` | `{}:{}` |",
            input.name,
            input.digest.hex(),
            input.commit,
            input.path
        );
    }
    let (signature, counter) = (&statement.signature, statement.counter);
    let _ = write!(
        out,
        "\n## Verify\n\n```sh\ngit fetch origin {0}\nproofline promotions show {signature} {counter} --at {0}\n```\n\n\
         Merge it so that the signed commit stays reachable: by a merge commit, or as a fast-forward of `{1}`.\n",
        text.branch.short(),
        text.control,
    );
    let _ = write!(
        out,
        "\n## Roll back\n\n```sh\nproofline rollback {signature} --reason '…'\n```\n\n\
         brings back `{}`.\n",
        statement.from
    );
    Ok(out)
}

fn summary(out: &mut String, statement: &Statement) {
    let (signature, from, to) = (&statement.signature, &statement.from, &statement.to);
    match (statement.kind, &statement.reason) {
        (Move::Rollback, reason) => {
            let _ = writeln!(
                out,
                "Rolls `{signature}` back from `{from}` to `{to}`, which was in force before.\n"
            );
            if let Some(reason) = reason {
                let _ = writeln!(out, "Reason: {reason}\n");
            }
        }
        (Move::Promotion, _) => {
            let _ = writeln!(
                out,
                "Brings `{to}` into force for `{signature}`, instead of `{from}`.\n"
            );
        }
    }
    if let Some((gain, rows, p)) = statement.holdout_gain() {
        let _ = writeln!(
            out,
            "**{:+.1} points** on {rows} holdout rows that the search never saw, one-sided p = {}.\n",
            100.0 * gain,
            p_value(p)
        );
    }
    if statement.self_attested {
        out.push_str("**Self-attested:** who seals this promotion also sealed its evidence.\n\n");
    }
}

fn changes(out: &mut String, from: &Program, to: &Program) -> Result<(), FlowError> {
    for line in words(from, to) {
        let _ = writeln!(out, "- {line}");
    }
    let (old, new) = (document::to_yaml(from)?, document::to_yaml(to)?);
    let (old, new) = (String::from_utf8_lossy(&old), String::from_utf8_lossy(&new));
    let diff = TextDiff::from_lines(&*old, &*new);
    let shown = diff.unified_diff().context_radius(2).to_string();
    let lines: Vec<&str> = shown.lines().collect();
    out.push_str("\n````diff\n");
    for line in lines.iter().take(DIFF_LINES_MAX) {
        // A fence in a prompt must not end ours.
        let _ = writeln!(out, "{}", line.replace("````", "` ` ` `"));
    }
    out.push_str("````\n");
    if let Some(more) = lines
        .len()
        .checked_sub(DIFF_LINES_MAX)
        .filter(|more| *more > 0)
    {
        let _ = writeln!(out, "\n{more} more lines are not shown.");
    }
    Ok(())
}

/// What is different, one phrase each.
fn words(from: &Program, to: &Program) -> Vec<String> {
    let mut words = Vec::new();
    if from.strategy != to.strategy {
        words.push(format!(
            "another strategy: {:?} → {:?}",
            from.strategy, to.strategy
        ));
    }
    if from.model != to.model {
        words.push(format!(
            "another model: {} → {}",
            from.model.model, to.model.model
        ));
    }
    if from.instruction != to.instruction {
        words.push("another instruction".to_owned());
    }
    if from.few_shots != to.few_shots {
        words.push(format!(
            "other few-shots: {} → {}",
            from.few_shots.len(),
            to.few_shots.len()
        ));
    }
    if from.decode != to.decode {
        words.push("another decode policy".to_owned());
    }
    if from.sampling != to.sampling {
        words.push("other sampling".to_owned());
    }
    if from.budgets != to.budgets {
        words.push("other budgets".to_owned());
    }
    if from.interface != to.interface {
        words.push("**another interface**: schemas or prompt frame".to_owned());
    }
    if let (Some(old), Some(new)) = (&from.lexical, &to.lexical)
        && old != new
    {
        words.push(format!(
            "another classifier, fitted to {} rows (before: {})",
            new.rows, old.rows
        ));
    }
    words
}

fn gate_rows(out: &mut String, gate: &GateResult) {
    let skipped = match &gate.skipped {
        Some(why) => format!(", skipped: {why}"),
        None => String::new(),
    };
    let _ = writeln!(
        out,
        "| **{}** | {}{skipped} | | | |",
        gate.gate,
        gate.verdict.word()
    );
    for figure in &gate.figures {
        let _ = writeln!(
            out,
            "| | | {} | `{}` | {} |",
            figure.name, figure.value, figure.label
        );
    }
}

fn not_shown(out: &mut String, text: &Text<'_>) {
    let skipped = text
        .statement
        .gates
        .iter()
        .filter(|gate| gate.skipped.is_some());
    let lines: Vec<String> = skipped
        .map(|gate| format!("`{}` was skipped", gate.gate))
        .chain(text.marks.iter().cloned())
        .collect();
    if lines.is_empty() {
        return;
    }
    out.push_str("\n## What to know before you decide\n\n");
    for line in lines {
        let _ = writeln!(out, "- {line}");
    }
}
