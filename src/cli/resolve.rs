//! `proofline resolve`

use std::fmt::Write as _;

use crate::flows::resolve::{self, Resolved, Source};

use super::{Exit, Page, Terminal};

/// Say which artifact serves a key now, with its parameters
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signature: its id, or its last component where that is unique
    signature: String,
    /// Who asks: while a canary is running, this decides the arm
    #[arg(long)]
    key: Option<String>,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let workspace = terminal.workspace()?;
    let resolved = resolve::resolve_named(&workspace, &args.signature, args.key.as_deref())?;
    terminal.show(&resolved)
}

impl Page for Resolved {
    fn page(&self) -> String {
        let mut page = String::new();
        let who = match (self.artifact, self.source) {
            (Some(artifact), Source::Canary) => format!("{artifact} (canary)"),
            (Some(artifact), _) => artifact.to_string(),
            (None, _) => "the signature's defaults; nothing was promoted yet".to_owned(),
        };
        let _ = writeln!(page, "{} → {who}", self.signature);
        if let Some(counter) = self.counter {
            let _ = writeln!(page, "counter {counter}");
        }
        if let Some(arm) = self.arm {
            let _ = writeln!(page, "arm {}", arm.as_str());
        }
        match serde_json::to_value(&self.parameters)
            .map(|value| crate::schema::yaml::to_yaml(&value))
        {
            Ok(Ok(parameters)) => page.push_str(&parameters),
            Ok(Err(error)) | Err(error) => {
                let _ = writeln!(page, "parameters: {error}");
            }
        }
        for message in &self.prompt {
            let _ = writeln!(page, "--- {:?}\n{}", message.role, message.content);
        }
        page
    }
}
