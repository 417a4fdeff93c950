//! Chores of the workspace, one subcommand each, and the tidy tests.
//!
//! `cargo xtask test` is the one command that says whether the tree is good; it only looks.
//! `cargo xtask fix` is the one that writes. Everything that would be more than five lines of
//! shell lives here instead.
//!
//! The rules of the repository itself (floors, licences, error pages, links, leftovers) are
//! ordinary `#[test]`s under [`tidy`], so "tests pass" means "tidy" too.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line tool speaks on stdout

mod accept;
mod cage;
mod cgroup;
mod chaos;
mod command;
mod compare;
mod crash;
mod dataset;
mod docs_run;
mod faces;
mod figures;
mod fuzz;
mod lengths;
mod needs;
mod planted;
mod server;
mod soak;
mod step;
mod sync_order;
mod test;
#[cfg(test)]
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the Throughline workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Check everything: format, lints, tests, then the release binary.
    Test {
        /// Print the steps and stop.
        #[arg(long)]
        list: bool,
        /// Run only the steps of these names.
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
    },
    /// Format the code and apply what clippy can repair.
    Fix,
    /// Run the acceptance lines of one capability and print `line · figure · ok|missed|void`.
    Accept {
        /// The capability: `node` is the single node, `limits` what it does at its limits, `three-nodes` a cluster,
        /// `fleet` shared work over a database.
        name: String,
        #[command(flatten)]
        options: accept::Options,
    },
    /// Run the same appends against a node, redis-server and Postgres, and print the ratios.
    Compare {
        #[command(flatten)]
        options: compare::Options,
    },
    /// Fetch the chat data set and convert it to the import format.
    Dataset,
    /// Kill a node under writers again and again, and check every acknowledged event.
    Crash {
        #[command(flatten)]
        options: crash::Options,
    },
    /// Kill, freeze and end the members of a `tl dev` cluster, and check every acknowledged event.
    Chaos {
        #[command(flatten)]
        options: chaos::Options,
    },
    /// Kill, freeze, cut off and slow members of a cluster for minutes, under writers and tails.
    Soak {
        #[command(flatten)]
        options: soak::Options,
    },
    /// Apply every planted bug to a scratch copy and demand that its finder fails.
    Planted {
        /// Names of planted bugs; all when none is given.
        names: Vec<String>,
    },
    /// Try every decoder with bytes that nobody would send, and print executions and minutes.
    Fuzz {
        #[command(flatten)]
        options: fuzz::Options,
    },
    /// Run the shell blocks marked `run` in the documents against the release binary.
    DocsRun,
    /// Watch one append under strace: its reply must follow the finished sync.
    SyncOrder,
}

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Test { list, only } => test::run(list, &only),
        Chore::Fix => {
            command::cargo(["fmt", "--all"]).run()?;
            let clippy = "clippy --fix --allow-dirty --allow-staged --workspace --all-targets";
            command::cargo(clippy.split(' ')).run()?;
            Ok(ExitCode::SUCCESS)
        }
        Chore::Accept { name, options } => accept::run(&name, &options),
        Chore::Compare { options } => compare::run(&options),
        Chore::Dataset => dataset::run().map(|_| ExitCode::SUCCESS),
        Chore::Chaos { options } => chaos::run(&options).map(|_| ExitCode::SUCCESS),
        Chore::Crash { options } => crash::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::Soak { options } => soak::run(&options),
        Chore::Planted { names } => planted::run(&names),
        Chore::Fuzz { options } => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
        Chore::DocsRun => docs_run::run().map(|()| ExitCode::SUCCESS),
        Chore::SyncOrder => sync_order::run().map(|()| ExitCode::SUCCESS),
    }
}
