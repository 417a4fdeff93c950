//! `tl bench`: what this machine can do at all (the ceiling), and how much of it the product
//! reaches, measured in the same seconds.
//!
//! ```text
//!   repetition:  ceiling 1 s │ workload 1 s      order swapped each time; median of the ratios
//!   this process: one load thread (epoll)        servers: child processes of this executable
//! ```
//!
//! The ceiling is raw group commit: a bare TCP server that appends what has arrived to a
//! zero-filled file, syncs once, and answers all. No HTTP, no JSON, no rules, no store.

use std::io;

use clap::{Args, Subcommand, ValueEnum};

use crate::output::Out;

mod append;
mod ceiling;
mod cells;
mod child;
mod load;
mod protocol;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Raw group commit: append and fdatasync behind a bare TCP server
    Ceiling(CellArgs),
    /// Appends over HTTP to a node in a process of its own
    Append(AppendArgs),
    /// The server behind `ceiling`
    #[command(hide = true)]
    CeilingServer(ceiling::ServerArgs),
}

/// Which cells to measure, and for how long.
#[derive(Debug, Clone, Args)]
pub struct CellArgs {
    /// Connections; several cells, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256],
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub conns: Vec<u16>,
    /// Bytes of one request's body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..=1_048_576))]
    pub size: u32,
    /// Repetitions per cell; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repetitions: u16,
    /// Length of one slice
    #[arg(long, default_value_t = 1000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub slice_ms: u64,
    /// Where the servers keep their data; a temporary directory when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<std::path::PathBuf>,
}

/// What an append run is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// Raw group commit in alternating slices
    Ceiling,
}

/// `tl bench append`.
#[derive(Debug, Clone, Args)]
pub struct AppendArgs {
    #[command(flatten)]
    pub cells: CellArgs,
    /// Alternate with this and print the ratio
    #[arg(long, value_enum)]
    pub against: Option<Against>,
    /// Sessions that the appends are spread over
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
}

/// Runs a measurement.
///
/// # Errors
/// What could not be started or answered wrongly.
pub fn run(command: BenchCommand, out: &Out) -> anyhow::Result<()> {
    match command {
        BenchCommand::Ceiling(args) => append::ceiling(&args, out),
        BenchCommand::Append(args) => append::append(&args, out),
        BenchCommand::CeilingServer(args) => ceiling::serve(&args).map_err(Into::into),
    }
}

/// Raises the limit of open files as far as it goes: a cell of 4,096 connections needs twice
/// that many.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
