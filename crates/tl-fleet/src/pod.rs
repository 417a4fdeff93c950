//! A pod: one process's share of the fleet's work.
//!
//! ```text
//!   fetcher ──claim──> held ready ──> running ──> reports ──finish──> store
//!   keeper (own thread, own connection): heartbeat, renew, fence, lead
//!     while it leads (a third connection): recover, reap, retain
//!   journal: reports that the store did not answer
//! ```
//!
//! Invariants:
//!  - D1 what is in hand is never more than capacity and prefetch together.
//!  - D2 work under a lease that may have run out, or under a life that has ended, is dropped.
//!    The process's own clock decides, from before each renewal was sent.
//!  - D3 a pod that goes down gives back what it has not started at once, and what it has not
//!    ended after its grace; nothing waits for a lease to run out. What the store has not
//!    answered by then is in the journal.
//!
//! Absent on purpose: what a step means, HTTP, signals, and any talk with other pods.

use std::sync::Arc;
use std::time::Duration;

use tl_core::fleet::BreakerState;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::shared::Shared;
use crate::error::{InvalidInput, StoreError};
use crate::ids::{Epoch, PodLife};
use crate::run::{Handlers, Stop};
use crate::step::Kind;
use crate::store::Store;

mod clock;
mod counters;
mod duties;
mod execute;
mod fetch;
mod guard;
mod held;
mod keep;
mod local;
mod pressure;
mod report;
mod settings;
mod shared;

pub use counters::Counted;
pub use duties::{Cycle, RecoveryAsked};
pub use guard::{Guard, LeftAlone};
pub use held::HeldCounts;
pub use local::{
    JOURNAL_BYTES_MAX, JOURNAL_REPORTS_MAX, LEDGER_ROWS_MAX, LedgerRow, Local, LocalError,
};
pub use settings::PodSettings;
pub use shared::Stage;

/// Reports that may wait for the store; handlers that end past it wait with theirs.
const REPORTS_WAITING_MAX: usize = 1_024;
/// How long a pod that goes down tries to deliver its last reports, and how long its goodbye
/// may take.
const FLUSH: Duration = Duration::from_secs(5);
/// Longest wait between two looks at what is still in hand.
const LOOK: Duration = Duration::from_millis(100);

/// Why a pod cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The settings are wrong.
    #[error("invalid settings: {0}")]
    Settings(#[from] InvalidInput),
    /// Its own folder cannot be used.
    #[error("the pod's folder cannot be used")]
    Local(#[from] LocalError),
    /// Its keeper cannot be started.
    #[error("the keeper's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// How a pod is doing.
#[derive(Debug, Clone)]
pub struct PodStatus {
    /// Its present life; absent until it has registered.
    pub life: Option<PodLife>,
    /// Where it is between start and end.
    pub stage: Stage,
    /// Steps that may run at once now.
    pub capacity: u32,
    /// What it has in hand.
    pub held: HeldCounts,
    /// Under which epoch it leads, if it does.
    pub epoch: Option<Epoch>,
    /// Whether calls to the database pass.
    pub breaker: BreakerState,
    /// Reports that wait for the database in its journal.
    pub journal: u64,
    /// What it has counted.
    pub counted: Counted,
}

/// Looks at a running pod, from wherever a copy of it is.
#[derive(Debug, Clone)]
pub struct PodHandle(Arc<Shared>);

impl PodHandle {
    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> PodStatus {
        let shared = &self.0;
        PodStatus {
            life: shared.life(),
            stage: shared.stage(),
            capacity: shared.capacity(),
            held: shared.held.counts(),
            epoch: shared.epoch(),
            breaker: shared.guard.state(),
            journal: shared.local.journal_len().unwrap_or(0),
            counted: shared.counters.read(),
        }
    }

    /// Tells of each new life, and of the time between two.
    #[must_use]
    pub fn lives(&self) -> watch::Receiver<Option<PodLife>> {
        self.0.lives.subscribe()
    }

    /// Tells when somebody asked, through the database, that the pod go down. Whoever owns it
    /// then calls [`RunningPod::drain`]; by itself it goes on.
    #[must_use]
    pub fn drain_asked(&self) -> watch::Receiver<bool> {
        self.0.drain_asked.subscribe()
    }

    /// The guarded store that it works with.
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.0.guard
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &PodSettings {
        &self.0.settings
    }

    /// What it can run.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        self.0.handlers.kinds()
    }

    /// Makes a recovery cycle now, when this pod leads and nobody else has asked for one that
    /// still runs.
    ///
    /// # Errors
    /// [`StoreError`], with part of the cycle done at most.
    pub async fn recover_now(&self) -> Result<RecoveryAsked, StoreError> {
        duties::asked(&self.0).await
    }

    /// The newest rows of its recovery ledger.
    ///
    /// # Errors
    /// [`LocalError`] when the file cannot be read.
    pub fn ledger(&self, rows_max: usize) -> Result<Vec<LedgerRow>, LocalError> {
        Ok(self.0.local.ledger_rows(rows_max)?)
    }
}

/// A running pod. Dropping it ends it without a word, as a crash would;
/// [`RunningPod::drain`] is the good end.
#[derive(Debug)]
pub struct RunningPod {
    shared: Arc<Shared>,
    fetcher: JoinHandle<()>,
    reporter: JoinHandle<()>,
    replayer: JoinHandle<()>,
}

impl RunningPod {
    /// Starts a pod. It registers by itself as soon as the database answers.
    ///
    /// # Errors
    /// [`PodError`]: nothing has been started.
    pub fn start(
        settings: PodSettings,
        store: Arc<dyn Store>,
        handlers: Handlers,
    ) -> Result<RunningPod, PodError> {
        settings.check()?;
        let local = Local::open(&settings.local_dir)?;
        let guard = Arc::new(Guard::new(store, settings.breaker, settings.call_ms));
        let (reports, reported) = mpsc::channel(REPORTS_WAITING_MAX);
        let (asked, asks) = mpsc::channel(1);
        let shared = Arc::new(Shared::new(settings, guard, handlers, local, reports, asked));
        keep::start(Arc::clone(&shared), asks).map_err(PodError::Thread)?;
        let fetcher = tokio::spawn(fetch::run(Arc::clone(&shared)));
        let reporter = tokio::spawn(report::run(Arc::clone(&shared), reported));
        let replayer = tokio::spawn(report::replay(Arc::clone(&shared)));
        Ok(RunningPod { shared, fetcher, reporter, replayer })
    }

    /// For looking at it, also while it drains.
    #[must_use]
    pub fn handle(&self) -> PodHandle {
        PodHandle(Arc::clone(&self.shared))
    }

    /// Goes down in good order: claims no more, gives back what has not started, lets run what
    /// runs for the grace, gives back the rest, delivers the last reports, and says goodbye.
    /// Gives the status at the end; reports that could not be delivered are in the journal.
    pub async fn drain(mut self) -> PodStatus {
        let shared = Arc::clone(&self.shared);
        shared.stage.send_replace(Stage::Draining);
        // A claim may be under way: the fetcher gives back by itself what it still gets.
        let ready = Arc::clone(&shared);
        let giving = tokio::spawn(async move { report::give_back(&ready).await });
        let grace = Duration::from_millis(shared.settings.grace_ms);
        if tokio::time::timeout(grace, nothing_runs(&shared)).await.is_err() {
            shared.held.stop_all(Stop::Drained);
            // They end at their next await; one that never does keeps its lease until then.
            drop(tokio::time::timeout(FLUSH, nothing_runs(&shared)).await);
        }
        let last_words = async {
            drop((&mut self.fetcher).await);
            all_reported(&shared).await;
        };
        drop(tokio::time::timeout(FLUSH, last_words).await);
        // First the keeper ends, so that nothing is said after the goodbye.
        shared.stage.send_replace(Stage::Stopped);
        // What has not been answered goes into the journal now.
        let kept = async {
            drop(giving.await);
            drop((&mut self.reporter).await);
        };
        drop(tokio::time::timeout(FLUSH, kept).await);
        if let Some(life) = shared.life() {
            let goodbye = shared.guard.call(|store| store.leave(life));
            drop(tokio::time::timeout(FLUSH, goodbye).await);
        }
        self.handle().status()
    }
}

async fn nothing_runs(shared: &Shared) {
    while shared.held.counts().running > 0 {
        drop(tokio::time::timeout(LOOK, shared.room.notified()).await);
    }
}

/// Nothing is in hand, but for what waits in the journal of a database that is away.
async fn all_reported(shared: &Shared) {
    while !shared.held.is_empty() {
        drop(tokio::time::timeout(LOOK, shared.room.notified()).await);
    }
}

impl Drop for RunningPod {
    fn drop(&mut self) {
        self.shared.stage.send_replace(Stage::Stopped);
        self.shared.held.stop_all(Stop::Lost);
        for task in [&self.fetcher, &self.reporter, &self.replayer] {
            task.abort();
        }
    }
}
