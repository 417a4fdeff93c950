//! `tl debug …`: looking into the files of a data directory, without a node.

mod log;
mod run;

use clap::Subcommand;

use crate::output::Out;

/// The words of `tl debug`.
#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// The write-ahead log: its segments, or every record. Also while a node runs
    Log(log::LogArgs),
    /// The sorted runs of the store: files, groups, and a check of every byte. Not while a node
    /// runs
    Run(run::RunArgs),
}

/// Runs one word.
pub fn run(command: DebugCommand, out: &Out) -> anyhow::Result<()> {
    match command {
        DebugCommand::Log(args) => log::run(&args, out),
        DebugCommand::Run(args) => run::run(&args, out),
    }
}
