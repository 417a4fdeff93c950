//! What can be typed: one enum per command family, dispatched to the module of that family.

use clap::{Args, Parser, Subcommand};

use crate::output::Out;
use crate::{bench, completions, debug, demo, dev, doctor, serve, session, settings};

/// The address that client commands use when none is given.
pub const URL_DEFAULT: &str = "http://127.0.0.1:4000";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the node or this computer refused; the message says what to do
  2    the command line or the settings are not right
  3    no node could be reached
  4    a check found a difference (demo, doctor, import, debug)
  130  interrupted";

/// Throughline: durable, ordered sessions. Create one, append to it, tail it.
#[derive(Debug, Parser)]
#[command(name = "tl", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Output for programs: JSON, one object per line, also for errors (on stderr)
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the node that client commands talk to
    #[arg(long, global = true, env = "TL_URL", default_value = URL_DEFAULT, value_name = "URL")]
    pub url: String,
    /// Namespace of the sessions; the server's default when absent
    #[arg(long, global = true, env = "TL_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
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
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Check this computer: clock, disk, limits, port, data directory
    Doctor(doctor::DoctorArgs),
    /// Measure this computer and a node on it
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Look into the files of a data directory
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command that was typed.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let out = Out::new(global.json);
    match command {
        Command::Dev(args) => dev::run(args, &out).await,
        Command::Serve(args) => serve::run(args, &out).await,
        Command::Settings(command) => settings::command::run(command, &out),
        Command::Demo(args) => demo::run(args, &out).await,
        Command::Session(command) => session::run(command, &global, &out).await,
        Command::Doctor(args) => doctor::run(&args, &out),
        Command::Bench(command) => bench::run(command, &out),
        Command::Debug(command) => debug::run(command, &out),
        Command::Completions(args) => completions::run(&args, &out),
    }
}
