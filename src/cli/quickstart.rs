//! `proofline quickstart`

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::domain::improve::search::Progress;
use crate::domain::operate::event::Event;
use crate::flows::night::Watcher;
use crate::flows::quickstart::{self, Guide, Quickstart};
use crate::id::SignatureId;

use super::overnight::Display;
use super::{Exit, Page, Terminal};

/// Run the real loop in a scratch repository: two nights, no account, no network
///
/// Makes a repository with a signature, its rows, a runner's and a promoter's key, and improves
/// the signature with the embedded model. Needs git and ssh-keygen.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to make it; a temporary folder when absent
    path: Option<PathBuf>,
}

struct Narrator<'a> {
    terminal: &'a Terminal,
    display: Display<'a>,
}

impl Watcher for Narrator<'_> {
    fn event(&mut self, event: &Event) {
        self.display.event(event);
    }

    fn progress(&mut self, signature: &SignatureId, progress: &Progress<'_>) {
        self.display.progress(signature, progress);
    }
}

impl Guide for Narrator<'_> {
    fn chapter(&mut self, title: &str) {
        self.terminal.note(&format!("\n== {title}"));
    }
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let mut narrator = Narrator {
        terminal,
        display: Display::new(terminal),
    };
    let made = quickstart::run(args.path.as_deref(), &mut narrator);
    narrator.display.clear();
    terminal.show(&made?)
}

impl Page for Quickstart {
    fn page(&self) -> String {
        let mut page = String::new();
        for night in &self.nights {
            page.push_str(&night.page());
            page.push('\n');
        }
        if let Some(verified) = &self.verified {
            let _ = writeln!(page, "git verify-commit says: {verified}\n");
        }
        let _ = write!(
            page,
            "Look around:\n  cd {}\n  git log --stat proofline/control\n  proofline status\n  proofline promotions show SelectTool.v1\n  proofline predict SelectTool.v1 --input '{{\"message\": \"from now on call me Noor\"}}'\n",
            self.repository.display()
        );
        page
    }

    fn exit_code(&self) -> u8 {
        self.nights
            .iter()
            .map(|night| night.exit_code())
            .max()
            .unwrap_or(0)
    }
}
