//! A scratch repository in which the real loop runs: two nights with the embedded
//! model, no account and no network.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::domain::improve::signature::PromotionMode;
use crate::domain::prove::policy::{CanaryRules, PromotionRules, Rules, SkippedGate};
use crate::host::files;
use crate::host::process::Program;

use super::dataset::import::{self, From, Options as ImportOptions};
use super::night::{self, Night, Watcher};
use super::{FlowError, Workspace, init};

/// The signature that the quickstart improves.
const SIGNATURE: &str = include_str!("../../templates/quickstart/signatures/SelectTool.v1.yaml");
/// Its rows, written for this project.
const ROWS: &[u8] = include_bytes!("../../datasets/select-tool/rows.jsonl");

/// What the quickstart made and saw.
#[derive(Debug, Clone, Serialize)]
pub struct Quickstart {
    /// The scratch repository.
    pub repository: PathBuf,
    /// Rows imported.
    pub rows: u64,
    /// The nights, in order.
    pub nights: Vec<Night>,
    /// What `git verify-commit` says about the commit that moved the pointer; absent when nothing was promoted.
    pub verified: Option<String>,
}

/// Told how a quickstart goes.
pub trait Guide: Watcher {
    /// A new chapter begins.
    fn chapter(&mut self, title: &str);
}

/// Make the repository and run two nights in it.
pub fn run(path: Option<&Path>, guide: &mut dyn Guide) -> Result<Quickstart, FlowError> {
    let repository = scratch(path)?;
    guide.chapter(&format!("A scratch repository in {}", repository.display()));
    make(&repository)?;

    guide.chapter("Keys, policy, branches");
    init::init(
        &repository,
        &init::Options {
            rules: Some(Rules {
                canary: CanaryRules {
                    // There is no traffic here, only the exercise rows.
                    rehearsal_is_enough: true,
                    ..CanaryRules::default()
                },
                promotion: PromotionRules {
                    mode: PromotionMode::Direct,
                    // Nor are there e2e commands: that they were skipped is marked in the statement.
                    skipped_gate: SkippedGate::Pass,
                    ..PromotionRules::default()
                },
                ..Rules::default()
            }),
            ..init::Options::default()
        },
    )?;
    git(&repository, &["add", "--all"])?;
    git(
        &repository,
        &["commit", "--quiet", "--message", "A signature and its rows"],
    )?;
    let workspace = Workspace::open(&repository)?;

    guide.chapter("Rows");
    let signature = super::signatures::find(&workspace, "SelectTool.v1")?.signature;
    let imported = import::import(
        &workspace,
        &signature,
        &[From::Bytes("rows.jsonl", ROWS)],
        &ImportOptions::default(),
    )?;

    let mut nights = Vec::new();
    for (number, title) in [
        "The first night: room to improve",
        "The second night: does anything beat the winner?",
    ]
    .iter()
    .enumerate()
    {
        guide.chapter(title);
        let options = night::Options {
            run: Some(format!("night-{}", number + 1).parse()?),
            ..night::Options::default()
        };
        let engine = workspace.engine()?;
        nights.push(night::run(&workspace, &engine, &options, guide)?);
    }
    Ok(Quickstart {
        verified: verified(&workspace)?,
        repository,
        rows: imported.rows(),
        nights,
    })
}

fn scratch(path: Option<&Path>) -> Result<PathBuf, FlowError> {
    let Some(path) = path else {
        let folder = tempfile::Builder::new()
            .prefix("proofline-quickstart-")
            .tempdir()
            .map_err(|error| {
                FlowError::outside(format!("no temporary folder can be made: {error}"))
            })?;
        return Ok(folder.keep());
    };
    let is_empty = path.read_dir().map(|mut entries| entries.next().is_none());
    match is_empty {
        Ok(true) => {}
        Ok(false) => {
            return Err(FlowError::usage(format!("{} is not empty", path.display()))
                .hint("name a folder that is empty or does not exist yet"));
        }
        Err(_) => files::create_dir(path)?,
    }
    path.canonicalize()
        .map_err(|error| FlowError::outside(format!("{}: {error}", path.display())))
}

fn make(repository: &Path) -> Result<(), FlowError> {
    git(
        repository,
        &[
            "init",
            "--quiet",
            "--initial-branch=main",
            "--ref-format=files",
        ],
    )?;
    // The scratch repository is its own world: whatever the user's git is set
    // to (signing by default, hooks, templates) does not reach into it.
    for (key, value) in [
        ("user.name", "Quickstart"),
        ("user.email", "quickstart@localhost"),
        ("commit.gpgSign", "false"),
        ("core.hooksPath", "/dev/null"),
    ] {
        git(repository, &["config", key, value])?;
    }
    files::create_dir(&repository.join("signatures"))?;
    files::write_new(
        &repository.join("signatures/SelectTool.v1.yaml"),
        SIGNATURE.as_bytes(),
    )?;
    Ok(())
}

fn git(repository: &Path, args: &[&str]) -> Result<String, FlowError> {
    let done = Program::new("git").args(args).dir(repository).run()?;
    if !done.status.success() {
        return Err(FlowError::outside(format!(
            "`git {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&done.stderr).trim()
        )));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Ask git itself about the newest commit on `control`.
fn verified(workspace: &Workspace) -> Result<Option<String>, FlowError> {
    let Some(tip) = workspace.store.tip(&workspace.refs.control)? else {
        return Ok(None);
    };
    let signers = workspace.store.local_dir()?.join("allowed_signers");
    let setting = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let done = Program::new("git")
        .args(["-c", &setting, "verify-commit", &tip.to_string()])
        .dir(&workspace.root)
        .run()?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() {
        Ok(Some(said))
    } else {
        Err(FlowError::outside(format!(
            "git does not verify {tip}: {said}"
        )))
    }
}
