//! What can be typed: one enum per command family, dispatched to the module of that family.

use clap::{Parser, Subcommand};

use crate::output::Out;
use crate::{
    bench, completions, debug, demo, dev, doctor, fleet, ops, serve, session, settings, sim,
};

/// The address that client commands use when none is given.
pub const URL_DEFAULT: &str = "http://127.0.0.1:4000";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the node or this computer refused; the message says what to do
  2    the command line or the settings are not right
  3    no node, or no database of a fleet, could be reached
  4    a check found a difference (demo, doctor, import, debug)
  130  interrupted";

/// Throughline: durable, ordered sessions. Create one, append to it, tail it.
#[derive(Debug, Parser)]
#[command(name = "tl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Output for programs: JSON, one object per line, also for errors (on stderr)
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node for trying things out: no configuration, no access control, this computer only
    Dev(dev::DevArgs),
    /// Run a node from settings
    Serve(serve::ServeArgs),
    /// Look at settings
    #[command(subcommand)]
    Settings(settings::command::SettingsCommand),
    /// Watch a node being killed in the middle of a replay and lose nothing
    Demo(demo::DemoArgs),
    /// Create, append to, read and follow sessions
    Session(session::SessionArgs),
    /// Share work over a database alone: run pods, submit steps, look at them
    Fleet(Box<fleet::FleetArgs>),
    /// Check this computer: clock, disk, limits, port, data directory
    Doctor(doctor::DoctorArgs),
    /// Measure this computer and a node on it
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Simulate three to five nodes in trouble, from a seed, and hold them to what is promised
    Sim(sim::SimArgs),
    /// Operate clusters: found them, look at their members, drain and restart them
    #[command(subcommand)]
    Ops(ops::OpsCommand),
    /// Look into the files of a data directory
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command that was typed.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { json, command } = cli;
    let out = Out::new(json);
    match command {
        Command::Dev(args) => dev::run(args, &out).await,
        Command::Serve(args) => serve::run(args, &out).await,
        Command::Settings(command) => settings::command::run(command, &out),
        Command::Demo(args) => demo::run(args, &out).await,
        Command::Session(args) => session::run(args, &out).await,
        Command::Fleet(args) => fleet::run(*args, &out).await,
        Command::Ops(command) => ops::run(command, &out).await,
        Command::Doctor(args) => doctor::run(&args, &out),
        Command::Bench(command) => bench::run(command, &out),
        Command::Sim(args) => sim::run(&args, &out),
        Command::Debug(command) => debug::run(command, &out),
        Command::Completions(args) => completions::run(&args, &out),
    }
}
