//! Many writers with producer positions, and a ledger of what they were told.
//!
//! Made to survive the death of the server: a write without an answer is kept and sent again, at
//! the same position with the same bytes, when [`Workload::run`] goes on.

mod writer;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use writer::Writer;

use crate::client::Client;
use crate::error::ClientError;
use crate::retry::{Backoff, RetryPolicy};
use crate::session::CreateSession;
use crate::verify::Ledger;

/// Most writers of one workload.
pub const WRITERS_MAX: usize = 4_096;

/// What a workload does.
#[derive(Debug, Clone)]
pub struct WorkloadOptions {
    /// Concurrent writers, each with one write in flight. Default 16; at most [`WRITERS_MAX`].
    pub writers: usize,
    /// Sessions written to; every writer writes to all of them. Default 32.
    pub sessions: usize,
    /// Start of the random choices, and part of every session and producer name. Two workloads
    /// on the same data directory need two seeds.
    pub seed: u64,
    /// Part of the writes that are batches, 0 to 1. Default 0.25.
    pub batch_ratio: f64,
    /// Most events in one batch. Default 20.
    pub batch_events_max: usize,
    /// Length of the filling in each payload, bytes. Default 100.
    pub payload_bytes: usize,
    /// Writes per writer, acknowledged or not; the workload ends behind them. Default 100,000.
    pub writes_max: usize,
    /// Waits between attempts; short by default, so that a restarted server is noticed soon.
    pub backoff: Backoff,
}

impl Default for WorkloadOptions {
    fn default() -> Self {
        WorkloadOptions {
            writers: 16,
            sessions: 32,
            seed: 1,
            batch_ratio: 0.25,
            batch_events_max: 20,
            payload_bytes: 100,
            writes_max: 100_000,
            backoff: Backoff {
                first: std::time::Duration::from_millis(20),
                max: std::time::Duration::from_millis(250),
                jitter_ratio: 0.2,
            },
        }
    }
}

/// Writers over sessions that exist.
#[derive(Debug)]
pub struct Workload {
    writers: Vec<Writer>,
    sessions: Vec<Arc<str>>,
    acked: watch::Sender<u64>,
}

/// Makes the sessions, writes until `stop` turns true or all writes are done, and answers the
/// ledger.
///
/// # Errors
/// [`ClientError`] when a session cannot be made or a write is refused for good.
pub async fn run(
    url: &str,
    options: WorkloadOptions,
    stop: watch::Receiver<bool>,
) -> Result<Ledger, ClientError> {
    let mut workload = Workload::prepare(&Client::new(url)?, options).await?;
    workload.run(stop).await?;
    Ok(workload.ledger())
}

impl Workload {
    /// Makes the sessions; nothing is written yet.
    ///
    /// # Errors
    /// [`ClientError`] when a session cannot be made.
    pub async fn prepare(
        client: &Client,
        options: WorkloadOptions,
    ) -> Result<Workload, ClientError> {
        if !(1..=WRITERS_MAX).contains(&options.writers) || options.sessions == 0 {
            let what = format!("a workload has 1 to {WRITERS_MAX} writers and some sessions");
            return Err(ClientError::BadArgument(what));
        }
        let mut sessions: Vec<Arc<str>> = Vec::with_capacity(options.sessions);
        for number in 0..options.sessions {
            let id = format!("load-{:x}-{number}", options.seed);
            let mut attempts = RetryPolicy::default().start();
            while let Err(failure) = client.create_or_bind(&CreateSession::with_id(&id)).await {
                attempts.again(failure).await?;
            }
            sessions.push(id.into());
        }
        let (acked, _) = watch::channel(0);
        let writers = (0..options.writers)
            .map(|number| Writer::new(client, number, &sessions, &options, acked.clone()))
            .collect();
        Ok(Workload { writers, sessions, acked })
    }

    /// The sessions written to.
    #[must_use]
    pub fn sessions(&self) -> &[Arc<str>] {
        &self.sessions
    }

    /// The number of acknowledged events, as it grows.
    #[must_use]
    pub fn acked(&self) -> watch::Receiver<u64> {
        self.acked.subscribe()
    }

    /// Writes until `stop` turns true (or its sender is gone), or all writes are done. Writes
    /// without an answer are kept; the next run sends them again before anything else.
    ///
    /// # Errors
    /// The first refusal that no retry will change. The other writers are stopped too.
    pub async fn run(&mut self, stop: watch::Receiver<bool>) -> Result<(), ClientError> {
        let (failed, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for mut writer in self.writers.drain(..) {
            let (stop, failed) = (stop.clone(), failed.clone());
            tasks.spawn(async move {
                let outcome = writer.run(stop, failed.subscribe()).await;
                if outcome.is_err() {
                    failed.send_replace(true);
                }
                (writer, outcome)
            });
        }
        let mut first_failure = Ok(());
        while let Some(joined) = tasks.join_next().await {
            let (writer, outcome) = match joined {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            self.writers.push(writer);
            first_failure = first_failure.and(outcome);
        }
        self.writers.sort_by_key(Writer::number);
        first_failure
    }

    /// Everything attempted so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for writer in &self.writers {
            ledger.merge(writer.ledger().clone());
        }
        ledger
    }
}
