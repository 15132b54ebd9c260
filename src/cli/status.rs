//! `proofline status`

use std::fmt::Write as _;

use crate::flows::status::{self, SignatureStatus, Status};

use super::table::{plural, shortened, table, time};
use super::{Exit, Page, Terminal};

/// One page on where everything stands, and what to do next
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args, terminal: &Terminal) -> Exit {
    terminal.show(&status::status(&terminal.workspace()?)?)
}

impl Page for Status {
    fn page(&self) -> String {
        let mut page = String::new();
        let shared = match &self.remote {
            Some(name) => format!("shared through `{name}`"),
            None => "local only".to_owned(),
        };
        let _ = writeln!(page, "{} ({shared})", self.folder);
        let policy = match (self.policy.epoch, &self.policy.fault) {
            (Some(epoch), _) => format!(
                "epoch {epoch}, root {} as pinned",
                self.policy
                    .pinned
                    .map(|root| root.short())
                    .unwrap_or_default()
            ),
            (None, Some(fault)) => format!("unusable: {fault}"),
            (None, None) => "none".to_owned(),
        };
        let _ = writeln!(page, "policy: {policy}");
        if self.policy.epoch.is_none() && self.policy.pinned != self.policy.found {
            let shown = |root: Option<crate::id::Digest>| {
                root.map_or("nothing".to_owned(), |root| root.short())
            };
            let _ = writeln!(
                page,
                "  pinned {}, found {}",
                shown(self.policy.pinned),
                shown(self.policy.found)
            );
        }
        for note in &self.notes {
            let _ = writeln!(page, "note: {note}");
        }
        if self.signatures.is_empty() {
            page.push_str("\nNo signatures yet: put one into signatures/NAME.v1.yaml.\n");
        }
        for signature in &self.signatures {
            page.push('\n');
            page.push_str(&signature_page(signature));
        }
        if let Some(run) = &self.last_run {
            let _ = writeln!(
                page,
                "\nlast run: {} at {} UTC: {}",
                run.id,
                time(run.started),
                result(&run.result, run.status)
            );
        }
        page
    }
}

fn result(words: &str, status: crate::domain::operate::run::Status) -> String {
    use crate::domain::operate::run::Status;
    match (status, words) {
        (Status::Running, _) => "running".to_owned(),
        (Status::Finished, "") => "finished".to_owned(),
        (Status::Finished, words) => words.to_owned(),
        (Status::Failed, "failed") => "failed".to_owned(),
        (Status::Failed, words) => format!("failed: {}", shortened(words)),
    }
}

fn signature_page(signature: &SignatureStatus) -> String {
    let mut facts: Vec<Vec<String>> = Vec::new();
    let mut fact = |name: &str, value: String| facts.push(vec![format!("  {name}"), value]);
    fact(
        "active",
        match &signature.active {
            Some(active) => {
                let since = active
                    .since
                    .map(|since| format!(", since {} UTC", time(since)));
                format!(
                    "{} (counter {}{})",
                    active.artifact.short(),
                    active.counter,
                    since.unwrap_or_default()
                )
            }
            None => "the signature's defaults; nothing was promoted yet".to_owned(),
        },
    );
    let rows = &signature.rows;
    let mut counts = format!(
        "train {} · dev {} · holdout {} · exercise {}",
        rows.train, rows.dev, rows.holdout, rows.exercise
    );
    if rows.unassigned > 0 {
        let _ = write!(counts, " · no split yet {}", rows.unassigned);
    }
    fact("rows", counts);
    if let Some(holdout) = &signature.holdout {
        let gain = match holdout.smallest_provable_gain {
            Some(gain) => format!("proves +{:.1} points or more", 100.0 * gain),
            None => "proves no gain".to_owned(),
        };
        fact(
            "holdout",
            format!(
                "{}, {:.4} of α = {} spent; the next has α_t = {:.4} and {gain}",
                plural(holdout.attempts, "attempt"),
                holdout.alpha_spent,
                holdout.alpha,
                holdout.next_alpha_t
            ),
        );
    }
    if let Some(canary) = &signature.canary {
        fact("canary", format!("{canary} is running"));
    }
    if let Some(branch) = &signature.proposal {
        fact("proposal", branch.clone());
    }
    if let Some(run) = &signature.last_run {
        fact(
            "last run",
            format!("{}: {}", run.id, result(&run.result, run.status)),
        );
    }
    for fault in &signature.faults {
        fact("!", fault.clone());
    }
    fact("next", signature.next.clone());
    format!("{}\n{}", signature.id, table(&["", ""], &facts))
}
