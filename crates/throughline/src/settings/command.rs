//! `tl settings …`

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::sources::Sources;
use crate::output::Out;

/// The words of `tl settings`.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Print the settings in force, as a file that `tl serve --config` takes
    Print(PrintArgs),
}

/// Arguments of `tl settings print`.
#[derive(Debug, Args)]
pub struct PrintArgs {
    /// Settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one word.
pub fn run(command: SettingsCommand, out: &Out) -> anyhow::Result<()> {
    let SettingsCommand::Print(args) = command;
    let settings = Sources::of_process(args.config, Vec::new()).load()?;
    if out.is_json() {
        return out.json(&settings);
    }
    let text = toml::to_string_pretty(&settings).context("writing the settings down")?;
    out.bytes(text.as_bytes())
}
