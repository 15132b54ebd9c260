//! `proofline completions`

use clap::CommandFactory;

use super::{Cli, Exit, Terminal};

/// Print a completion script for a shell
///
/// For bash: `proofline completions bash > ~/.local/share/bash-completion/completions/proofline`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: Args, terminal: &Terminal) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "proofline", &mut script);
    terminal.print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
