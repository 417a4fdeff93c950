//! `tl fleet …`: shared work over a database alone.
//!
//! ```text
//!   run ──> pod + HTTP face ──┐
//!                             ├──> the database: a file, or Postgres
//!   submit, status, list … ───┘
//! ```
//!
//! Every word goes to the database itself: whoever reaches it can submit and look, also while
//! no pod runs.

mod bench;
mod change;
mod look;
mod migrate;
mod place;
mod run;
mod settings;
mod submit;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use self::settings::read::Given;
use crate::output::Out;

/// Arguments of `tl fleet`.
#[derive(Debug, Args)]
pub struct FleetArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    command: FleetCommand,
}

/// Where the shared database is.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Which database; sqlite unless said otherwise
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<StoreWord>,
    /// The file of the store sqlite; tl-fleet/fleet.db unless said otherwise
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "url")]
    db: Option<PathBuf>,
    /// Address of the store postgres. A password is better kept in TL_FLEET_POSTGRES_URL, where
    /// other users of this computer do not see it
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Schema of the tables in Postgres; public unless said otherwise
    #[arg(long, global = true, value_name = "NAME")]
    schema: Option<String>,
}

/// The stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreWord {
    /// A file of this computer
    Sqlite,
    /// A Postgres server
    Postgres,
}

/// The words of `tl fleet`.
#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Run a pod: it takes steps, runs programs for them, and answers over HTTP
    Run(run::RunArgs),
    /// Submit a step, or one per line of a file
    Submit(submit::SubmitArgs),
    /// Show a step and its attempts; without an id, how the fleet stands
    Status(look::StatusArgs),
    /// List steps, newest first
    List(look::ListArgs),
    /// Call steps off; who works on one is told to stop
    Cancel(change::IdsArgs),
    /// Put failed and cancelled steps back, and run scheduled ones at once
    Retry(change::IdsArgs),
    /// List steps that were given up, newest first
    DeadLetters(look::DeadLettersArgs),
    /// List pods, eldest first
    Pods(watch::WatchArgs),
    /// Show who leads, and who may
    Leader(watch::WatchArgs),
    /// Have pods go down in good order, wherever they run
    Drain(change::DrainArgs),
    /// Make the tables or bring them up to date, and print what a worker's role needs
    Migrate(migrate::MigrateArgs),
    /// Measure a fleet over a database; Postgres by --url, in a schema of its own
    Bench(bench::BenchArgs),
}

/// Runs one word.
pub async fn run(args: FleetArgs, out: &Out) -> anyhow::Result<()> {
    let FleetArgs { place, command } = args;
    match command {
        FleetCommand::Run(args) => run::run(place.flags(), args, out).await,
        FleetCommand::Submit(args) => submit::run(&place::open(place).await?, args, out).await,
        FleetCommand::Status(args) => look::status(&place::open(place).await?, args, out).await,
        FleetCommand::List(args) => look::list(&place::open(place).await?, args, out).await,
        FleetCommand::Cancel(args) => change::cancel(&place::open(place).await?, args, out).await,
        FleetCommand::Retry(args) => change::retry(&place::open(place).await?, args, out).await,
        FleetCommand::DeadLetters(args) => {
            look::dead_letters(&place::open(place).await?, args, out).await
        }
        FleetCommand::Pods(args) => look::pods(&place::open(place).await?, args, out).await,
        FleetCommand::Leader(args) => look::leader(&place::open(place).await?, args, out).await,
        FleetCommand::Drain(args) => change::drain(&place::open(place).await?, args, out).await,
        FleetCommand::Bench(args) => bench::run(place.flags(), args, out).await,
        FleetCommand::Migrate(args) => migrate::run(place.flags(), &args, out).await,
    }
}

impl PlaceArgs {
    /// The flags that are settings.
    fn flags(self) -> Vec<(&'static str, Given)> {
        let mut flags = Vec::new();
        let mut flag = |key: &'static str, name: &str, text: Option<String>| {
            flags.extend(text.map(|text| (key, Given { name: name.to_owned(), text })));
        };
        let store = match (self.store, &self.db, &self.url) {
            (Some(StoreWord::Sqlite), ..) | (None, Some(_), _) => Some("sqlite"),
            (Some(StoreWord::Postgres), ..) | (None, None, Some(_)) => Some("postgres"),
            (None, None, None) => None,
        };
        flag("store", "--store", store.map(str::to_owned));
        // A name that is not Unicode cannot be a setting; it is shown as far as it can be.
        flag("sqlite_path", "--db", self.db.map(|db| db.to_string_lossy().into_owned()));
        flag("postgres_url", "--url", self.url);
        flag("postgres_schema", "--schema", self.schema);
        flags
    }
}
