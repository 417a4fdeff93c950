//! `tl completions SHELL`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::Out;

/// Arguments of `tl completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Whose script: source it, or put it where the shell looks for completions
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs, out: &Out) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tl", &mut script);
    out.bytes(&script)
}
