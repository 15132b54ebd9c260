//! `proofline signature`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;

use crate::flows::FlowError;
use crate::flows::signatures::{self, Listed, Shown};
use crate::schema::yaml;

use super::{Exit, Page, Terminal};

/// Look at and check the signatures of this project
///
/// A signature is the typed interface of an LLM program: input and output schema, prompt
/// frame, default parameters, metric and job. proofline.toml says where the files are
/// (`signatures/*.yaml` unless it says otherwise).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the signatures
    List,
    /// Show one signature with every default filled in
    Show {
        /// Its id, or its last component where that is unique
        signature: String,
    },
    /// Check signature files: schema, templates, knobs, models, duplicate ids
    Check {
        /// Files to check instead of those that proofline.toml names
        files: Vec<PathBuf>,
    },
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    match args.verb {
        Verb::List => {
            let listed = signatures::list(&terminal.unconfigured()?)?;
            if listed.faults > 0 {
                terminal.note(&format!(
                    "{} in other files; `proofline signature check` shows them",
                    counted(listed.faults, "fault")
                ));
            }
            terminal.show(&listed)
        }
        Verb::Show { signature } => {
            terminal.show(&signatures::show(&terminal.unconfigured()?, &signature)?)
        }
        Verb::Check { files } => {
            let listed = signatures::check(&terminal.unconfigured()?, &files)?;
            if listed.signatures.is_empty() {
                return Err(FlowError::input("there is no signature file to check")
                    .hint("`signatures` in proofline.toml says where they are; `signatures/*.yaml` when it doesn't"));
            }
            terminal.note(&format!(
                "{} checked, no fault found",
                counted(listed.signatures.len(), "file")
            ));
            terminal.show(&listed)
        }
    }
}

impl Page for Listed {
    fn page(&self) -> String {
        let width = self
            .signatures
            .iter()
            .map(|line| line.id.as_str().len())
            .max()
            .unwrap_or(0);
        let mut page = String::new();
        for line in &self.signatures {
            let first = line.description.lines().next().unwrap_or("");
            let text = format!("{:width$}  {}  {first}", line.id, line.file);
            let _ = writeln!(page, "{}", text.trim_end());
        }
        page
    }
}

impl Page for Shown {
    fn page(&self) -> String {
        format!(
            "# {}\n# digest    {}\n# interface {}\n# metric    {}\n{}",
            self.file,
            self.digest,
            self.interface,
            self.metric,
            yaml::to_yaml(&self.signature).expect("because a value is JSON")
        )
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}
