//! `proofline init`

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::domain::improve::signature::PromotionMode;
use crate::flows::init::{self, Initialised, Options, State};
use crate::host::files;
use crate::id::PrincipalId;
use crate::schema::yaml;

use super::{Exit, Page, Terminal};

/// Set this repository up: keys, the policy on `proofline/control`, the pin in proofline.toml
///
/// Safe to run again: what is there stays as it is, what is missing is made. Your index, HEAD
/// and branches are not touched; in the work tree only proofline.toml is written. In a fresh
/// clone it makes our branches from what was fetched.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key that seals evidence: a private key, or the .pub of one in ssh-agent
    #[arg(long, value_name = "PATH")]
    runner_key: Option<PathBuf>,
    /// The key that seals promotions; the SSH key git signs with, or a new one, when absent
    #[arg(long, value_name = "PATH")]
    promoter_key: Option<PathBuf>,
    /// How the policy calls you; your e-mail address when absent
    #[arg(long, value_name = "PRINCIPAL")]
    name: Option<PrincipalId>,
    /// First part of every branch, when it shall not be `proofline`
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// The git remote that policy, promotions and the holdout ledger are shared through
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// Let the loop promote what is proven
    #[arg(long, conflicts_with = "propose")]
    direct: bool,
    /// Let the loop propose what is proven, for a person to decide; the default
    #[arg(long)]
    propose: bool,
    /// Rules of the first policy as YAML: `gates`, `canary`, `promotion`, each as in a policy epoch;
    /// what is absent keeps its default
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let rules = match &args.policy {
        Some(path) => {
            let document = yaml::parse(&path.display().to_string(), files::read(path)?)?;
            Some(document.read()?)
        }
        None => None,
    };
    let options = Options {
        rules,
        runner_key: args.runner_key,
        promoter_key: args.promoter_key,
        name: args.name,
        prefix: args.prefix,
        remote: args.remote,
        mode: match (args.direct, args.propose) {
            (true, _) => Some(PromotionMode::Direct),
            (_, true) => Some(PromotionMode::Propose),
            _ => None,
        },
        dry_run: args.dry_run,
    };
    let done = init::init(&terminal.dir()?, &options)?;
    terminal.show(&done)
}

impl Page for Initialised {
    fn page(&self) -> String {
        let mut page = String::new();
        for step in &self.steps {
            let state = match step.state {
                State::Present => "there ",
                State::Made => "made  ",
                State::WouldMake => "would make ",
            };
            let _ = writeln!(page, "{state} {}", step.what);
        }
        if let Some(root) = &self.root {
            let _ = writeln!(page, "\nRoot of trust: {root}");
        }
        for here in &self.here {
            let owner = match &here.principal {
                Some(name) => format!("{name}: {}", here.roles.join(", ")),
                None => "nobody in the policy".to_owned(),
            };
            let _ = writeln!(
                page,
                "The {} key {} is of {owner}.",
                here.key, here.fingerprint
            );
        }
        for note in &self.notes {
            let _ = writeln!(page, "Note: {note}.");
        }
        if let Some(verify) = &self.verify {
            let _ = writeln!(page, "\nAnyone can verify it with git alone:\n  {verify}");
        }
        if let Some(file) = &self.commit_this {
            let _ = write!(page, "\n--- proofline.toml\n{file}");
        }
        if !self.dry_run && !self.changed() {
            page.push_str("\nEverything was there already; nothing was changed.\n");
        }
        page
    }
}
