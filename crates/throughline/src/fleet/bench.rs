//! `tl fleet bench`: how fast a fleet is over a database, with every answer as durable as ever.
//!
//! | cell | measures |
//! |---|---|
//! | `batch`, `one` | submit, claim and finish by callers of the store: batches, then one step per call |
//! | `pod` | a pod whose handler does nothing, fed by batches |
//! | `start` | from a submission to the start of its handler, at half of the speed of `pod` |
//! | `claim` | a claim with no finished steps in the database, and with many |
//! | `orphans` | steps whose holder is gone, until all are taken back |
//! | `scaling` | 1, 2, 4 and 8 pods whose handler sleeps 50 ms |
//! | `idle` | memory of a pod that has nothing to do |
//! | `cached` | HTTP endpoints that are answered from what was looked up within the second |

mod child;
mod claim;
mod cycles;
mod pods;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tl_fleet::postgres::{PostgresOptions, PostgresStore};
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{Kind, NewStep, Store};

use super::settings::read::Given;
use super::settings::{FleetSettings, Place};
use crate::output::Out;

/// Schema of the run in Postgres; it is dropped before and after. So is a second one, for what is
/// compared with it.
const SCHEMA: &str = "throughline_fleet_bench";
const SCHEMA_PAST: &str = "throughline_fleet_bench_past";

/// Arguments of `tl fleet bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure; everything when absent
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CELL")]
    only: Vec<Cell>,
    /// Callers, each with a connection of its own in Postgres
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Steps in one call of `batch`
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batch: u16,
    /// Length of each timed cell, seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Finished steps that are loaded before the second half of `claim`
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    finished: u64,
    /// Steps of `orphans`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    orphans: u64,
    /// Folder of the SQLite file; a temporary one when absent. The disk below it is what is
    /// measured
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Cell {
    /// Batches
    Batch,
    /// One step per call
    One,
    /// A pod that does nothing
    Pod,
    /// From submission to start
    Start,
    /// Claims beside many finished steps
    Claim,
    /// Steps whose holder is gone
    Orphans,
    /// 1 to 8 pods
    Scaling,
    /// Memory of an idle pod
    Idle,
    /// Cached endpoints
    Cached,
}

/// The database of a run; gone when dropped, but for a schema that is dropped by the next run
/// when this one is killed.
struct Bench {
    args: BenchArgs,
    /// SQLite: the folder of the file.
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    /// Postgres.
    postgres: Option<PostgresOptions>,
    /// The flags that lead a child to the same database.
    child_flags: Vec<String>,
    url: Option<String>,
}

/// Runs the word.
pub async fn run(
    flags: Vec<(&'static str, Given)>,
    args: BenchArgs,
    out: &Out,
) -> anyhow::Result<()> {
    let url = flags.iter().find(|(key, _)| *key == "postgres_url").map(|(_, it)| it.text.clone());
    let url = url.or_else(|| std::env::var("TL_FLEET_POSTGRES_URL").ok());
    let settings = FleetSettings::of_process(flags)?;
    let bench = Bench::new(&settings.place, url, args)?;
    let mut report = Map::new();
    report.insert("store".to_owned(), bench.store_name().into());
    report.insert("durability".to_owned(), bench.durability().await?.into());
    report.insert("connections".to_owned(), bench.args.connections.into());
    let mut cells = bench.args.only.clone();
    if cells.is_empty() {
        cells = Cell::value_variants().to_vec();
    }
    cells.sort_unstable();
    cells.dedup();
    for cell in cells {
        bench.clear().await?;
        let name = cell.to_possible_value().map(|value| value.get_name().to_owned());
        out.note(&format!("{} …", name.unwrap_or_default()));
        let figures = match cell {
            Cell::Batch => cycles::run(&bench, bench.args.batch.into(), "batch").await,
            Cell::One => cycles::run(&bench, 1, "one").await,
            Cell::Pod => pods::throughput(&bench).await,
            Cell::Start => pods::start(&bench).await,
            Cell::Claim => claim::run(&bench).await,
            Cell::Orphans => pods::orphans(&bench).await,
            Cell::Scaling => pods::scaling(&bench).await,
            Cell::Idle => child::idle(&bench).await,
            Cell::Cached => child::cached(&bench).await,
        };
        let Value::Object(figures) = figures.with_context(|| format!("measuring {cell:?}"))? else {
            bail!("{cell:?} gave no figures");
        };
        report.extend(figures);
    }
    bench.drop_all().await?;
    if out.is_json() {
        return out.json(&report);
    }
    let width = report.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &report {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.line(&format!("{name:<width$}  {text}"))?;
    }
    Ok(())
}

impl Bench {
    fn new(place: &Place, url: Option<String>, args: BenchArgs) -> anyhow::Result<Bench> {
        let (folder, temporary) = match &args.folder {
            Some(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("making {}", folder.display()))?;
                (folder.clone(), None)
            }
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let (postgres, child_flags) = match place {
            Place::Sqlite(_) => {
                let db = folder.join("bench.db").to_string_lossy().into_owned();
                (None, vec!["--db".to_owned(), db])
            }
            Place::Postgres(options) => {
                let options = (**options).clone().schema(SCHEMA)?;
                let options = options.connections(usize::from(args.connections))?;
                let flags = ["--store", "postgres", "--schema", SCHEMA].map(str::to_owned);
                (Some(options), flags.to_vec())
            }
        };
        Ok(Bench { args, folder, _temporary: temporary, postgres, child_flags, url })
    }

    fn store_name(&self) -> &'static str {
        if self.postgres.is_some() { "postgres" } else { "sqlite" }
    }

    async fn client(&self) -> anyhow::Result<tokio_postgres::Client> {
        let options = self.postgres.as_ref().context("the address of Postgres")?;
        Ok(PostgresStore::connection(options).await?)
    }

    /// What an answered write has been through.
    async fn durability(&self) -> anyhow::Result<String> {
        if self.postgres.is_none() {
            return Ok("synchronous=FULL".to_owned());
        }
        let client = self.client().await?;
        let mut said = Vec::new();
        for name in ["synchronous_commit", "fsync", "full_page_writes"] {
            let row = client.query_one("SELECT current_setting($1)", &[&name]).await?;
            said.push(format!("{name}={}", row.try_get::<_, String>(0)?));
        }
        Ok(said.join(", "))
    }

    /// Back to an empty database.
    async fn clear(&self) -> anyhow::Result<()> {
        self.drop_all().await?;
        self.store().await.map(|_| ())
    }

    async fn drop_all(&self) -> anyhow::Result<()> {
        if self.postgres.is_some() {
            let client = self.client().await?;
            let schemas = format!("DROP SCHEMA IF EXISTS {SCHEMA}, {SCHEMA_PAST} CASCADE");
            client.batch_execute(&schemas).await?;
        }
        // With the pods' own folders: one that was dropped in a call holds its lock a little longer.
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("bench.db") {
                std::fs::remove_file(&path)?;
            } else if name == "pods" {
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    fn past_path(&self) -> PathBuf {
        self.folder.join("bench.db-past.db")
    }

    /// The store, with its connections, as one process has it.
    async fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        Ok(match &self.postgres {
            Some(options) => Arc::new(PostgresStore::open(options.clone()).await?),
            None => Arc::new(SqliteStore::open(SqliteOptions::new(self.folder.join("bench.db")))?),
        })
    }

    /// A second database, for rows that are loaded by hand.
    async fn store_with_a_past(&self) -> anyhow::Result<Arc<dyn Store>> {
        Ok(match &self.postgres {
            Some(options) => {
                Arc::new(PostgresStore::open(options.clone().schema(SCHEMA_PAST)?).await?)
            }
            None => Arc::new(SqliteStore::open(SqliteOptions::new(self.past_path()))?),
        })
    }

    /// Loads rows into the second database.
    async fn load(&self, postgres: &str, sqlite: &str) -> anyhow::Result<()> {
        if self.postgres.is_some() {
            let client = self.client().await?;
            client.batch_execute(&format!("SET search_path = {SCHEMA_PAST}")).await?;
            client.batch_execute(postgres).await?;
            client.batch_execute("VACUUM ANALYZE fleet_finished").await?;
            return Ok(());
        }
        let (path, sql) = (self.past_path(), sqlite.to_owned());
        tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let conn = rusqlite::Connection::open(path)?;
            conn.busy_timeout(std::time::Duration::from_secs(60))?;
            conn.execute_batch(&sql)?;
            Ok(())
        })
        .await?
    }
}

/// The kind of every step here.
fn kind() -> Kind {
    Kind::new("bench").expect("a plain word")
}

fn steps(count: usize) -> Vec<NewStep> {
    (0..count).map(|_| NewStep::new(kind())).collect()
}

/// Times in microseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("plain bounds")
}

/// Percentiles in milliseconds.
fn percentiles(name: &str, times: &Histogram<u64>) -> Map<String, Value> {
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    let mut map = Map::new();
    for (word, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        map.insert(format!("{name}_{word}_ms"), json!(ms(quantile)));
    }
    map
}
