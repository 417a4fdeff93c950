//! Kills a node with SIGKILL under load, again and again, and checks what is left.
//!
//! One round: writers with producer positions append to fresh sessions, alone and in batches;
//! the node is killed at a random moment; now and then it is killed again while it recovers;
//! it starts, the writers send once more what had no answer, and the checker reads every
//! session and holds it against what was acknowledged. After the last round all sessions of all
//! rounds are checked once more.
//!
//! The page cache survives a kill, so this says nothing about syncs: see [`crate::sync_order`].

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tl_client::verify::{Ledger, Via, check_via};
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{Client, Front};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::server::Server;
use crate::tree;

/// Shortest and, by default, longest time under load before a kill, seconds.
const LOAD_SECONDS_MIN: f64 = 0.2;
/// Longest wait for the first acknowledgement after a start.
const FIRST_ACK_MAX: Duration = Duration::from_secs(30);
/// One round in this many kills the node again while it recovers.
const DOUBLE_KILL_EVERY: u32 = 3;
/// Longest life of a node that is killed during recovery, milliseconds.
const RECOVERY_LIFE_MS_MAX: u64 = 60;
/// How long the writers go on after the restart, to repeat what had no answer.
const SETTLE: Duration = Duration::from_millis(300);

/// What a crash run does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often the node is killed.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Concurrent writers.
    #[arg(long, default_value_t = 64)]
    pub writers: usize,
    /// Longest time under load before a kill, seconds.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Start of the random choices; a fresh one is drawn and printed when not given.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// The short run that belongs to the test command.
pub fn gate() -> Result<()> {
    run(&Options { rounds: 3, writers: 64, seconds: 1.0, seed: None })
}

/// Runs all rounds; the first damage ends the run and keeps the data folder.
pub fn run(options: &Options) -> Result<()> {
    tree::built_tl()?;
    ensure!(options.seconds >= LOAD_SECONDS_MIN, "--seconds must be {LOAD_SECONDS_MIN} or more");
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {} writers, {} rounds", options.writers, options.rounds);
    let folder = tempfile::tempdir().context("cannot make a data folder")?;
    let outcome = rounds(options, seed, folder.path());
    if outcome.is_err() {
        println!("the data folder is kept: {}", folder.keep().display());
    }
    outcome
}

fn rounds(options: &Options, seed: u64, data: &Path) -> Result<()> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut everything = Ledger::default();
    let mut server = Server::start(data)?;
    let client = Client::new(&server.url)?;
    for round in 1..=options.rounds {
        let workload_options = WorkloadOptions {
            writers: options.writers,
            seed: random.u64(..),
            ..WorkloadOptions::default()
        };
        let mut workload = runtime.block_on(Workload::prepare(&client, workload_options))?;

        let load_seconds = LOAD_SECONDS_MIN + random.f64() * (options.seconds - LOAD_SECONDS_MIN);
        let (load, stop) = Load::start(&runtime, workload);
        load.first_ack(&runtime)?;
        std::thread::sleep(Duration::from_secs_f64(load_seconds));
        server.kill()?;
        workload = load.end(&runtime, stop)?;

        let double = random.u32(..DOUBLE_KILL_EVERY) == 0;
        if double {
            let life = Duration::from_millis(random.u64(..RECOVERY_LIFE_MS_MAX));
            Server::start_and_kill(data, life)?;
        }
        server = Server::start(data).context("the node does not start after the kill")?;
        client.set_base(&server.url)?;

        let (load, stop) = Load::start(&runtime, workload);
        std::thread::sleep(SETTLE);
        workload = load.end(&runtime, stop)?;

        let ledger = workload.ledger();
        let via = [Via::Pages, Via::Tail(Front::WebSocket), Via::Tail(Front::Sse)];
        let via = via[(round as usize - 1) % via.len()];
        let took = check(&runtime, &client, &ledger, via)?;
        println!(
            "round {round}: {} events acknowledged, killed after {load_seconds:.2} s{}, ready in \
             {:.0} ms, checked in {:.1} s",
            ledger.acknowledged_events(),
            if double { " and again while recovering" } else { "" },
            server.ready_after.as_secs_f64() * 1_000.0,
            took.as_secs_f64()
        );
        everything.merge(ledger);
    }
    check(&runtime, &client, &everything, Via::Pages)?;
    println!("{} kills, {} events, none lost", options.rounds, everything.acknowledged_events());
    Ok(())
}

/// Reads every session of the ledger; anything that is not as it must be is an error.
pub fn check(runtime: &Runtime, client: &Client, ledger: &Ledger, via: Via) -> Result<Duration> {
    let began = Instant::now();
    let report = runtime.block_on(check_via(client, ledger, via))?;
    ensure!(report.is_clean(), "the sessions are damaged: {report:#?}");
    Ok(began.elapsed())
}

/// A workload that is running on the runtime's threads.
pub struct Load {
    running: tokio::task::JoinHandle<(Workload, Result<(), tl_client::ClientError>)>,
    acked: watch::Receiver<u64>,
}

impl Load {
    /// Sets the writers to work; sending `true` stops them.
    pub fn start(runtime: &Runtime, mut workload: Workload) -> (Load, Arc<watch::Sender<bool>>) {
        let (stop, stopped) = watch::channel(false);
        let mut acked = workload.acked();
        acked.mark_unchanged();
        let running = runtime.spawn(async move {
            let outcome = workload.run(stopped).await;
            (workload, outcome)
        });
        (Load { running, acked }, Arc::new(stop))
    }

    /// Waits until one more event has been acknowledged.
    fn first_ack(&self, runtime: &Runtime) -> Result<()> {
        // On its own line: a borrow that lived on would keep the writers from counting.
        let now = *self.acked.borrow();
        self.acked_past(runtime, now, FIRST_ACK_MAX)
    }

    /// Events acknowledged so far.
    pub fn acked_events(&self) -> u64 {
        *self.acked.borrow()
    }

    /// Waits until more than `events` have been acknowledged.
    pub fn acked_past(&self, runtime: &Runtime, events: u64, longest: Duration) -> Result<()> {
        let mut acked = self.acked.clone();
        let wait =
            async { tokio::time::timeout(longest, acked.wait_for(|now| *now > events)).await };
        match runtime.block_on(wait) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the writers have ended"),
            Err(_) => bail!("fewer than {events} events acknowledged in {} s", longest.as_secs()),
        }
    }

    /// Stops the writers and takes the workload back.
    pub fn end(self, runtime: &Runtime, stop: Arc<watch::Sender<bool>>) -> Result<Workload> {
        stop.send_replace(true);
        let (workload, outcome) = runtime.block_on(self.running).context("a writer panicked")?;
        outcome.context("a write was refused for good")?;
        Ok(workload)
    }
}
