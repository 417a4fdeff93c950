//! Pods over the embedded store: what they run, give back, drop and repeat.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tl_core::fleet::Backoff;
use tl_fleet::sqlite::{Clock, ManualClock, SqliteOptions, SqliteStore};
use tl_fleet::{
    Counted, FleetService, HandlerError, Handlers, PodHandle, PodSettings, RunningPod, Step,
    StepId, Store,
};
use tokio::sync::Semaphore;

use crate::conformance::{kind, pod};

mod drain;
mod exec;
mod hangs;
mod life;
mod outage;
mod process;
mod work;

/// Longest wait for something that must happen; reached only when it does not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a store and room for pods.
struct Fleet {
    folder: TempDir,
    clock: Clock,
    store: Arc<dyn Store>,
}

impl Fleet {
    /// By the machine's clocks.
    fn new() -> Fleet {
        Fleet::with(Clock::Machine)
    }

    /// By a clock that is moved by hand: leases run out when the test says so.
    fn by_hand() -> (Fleet, ManualClock) {
        let clock = ManualClock::default();
        (Fleet::with(Clock::Manual(clock.clone())), clock)
    }

    fn with(clock: Clock) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.db");
        let options = SqliteOptions { path, clock: clock.clone() };
        let store = Arc::new(SqliteStore::open(options).unwrap());
        Fleet { folder, clock, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fleet.db")
    }

    /// Settings of a quick pod.
    fn settings(&self, name: &str) -> PodSettings {
        PodSettings {
            heartbeat_ms: 50,
            recovery_ms: 20,
            // Other tests press on the same machine.
            heed_pressure: false,
            backoff: Backoff { base_ms: 1, max_ms: 10 },
            ..PodSettings::new(pod(name), self.folder.path().join(name))
        }
    }

    /// A pod with a connection of its own, as another process would have.
    fn start(&self, settings: PodSettings, handlers: Handlers) -> RunningPod {
        let options = SqliteOptions { path: self.path(), clock: self.clock.clone() };
        let store = Arc::new(SqliteStore::open(options).unwrap());
        RunningPod::start(settings, store, handlers).unwrap()
    }

    async fn submit(&self, steps: usize) -> Vec<StepId> {
        let steps = (0..steps).map(crate::conformance::numbered).collect();
        let submitted = self.store.submit(steps).await.unwrap().value;
        submitted.iter().map(|submitted| submitted.id).collect()
    }

    async fn step(&self, id: StepId) -> Step {
        crate::conformance::step(&self.store, id).await
    }
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn counted(pod: &PodHandle, what: &str, is_so: impl Fn(Counted) -> bool) {
    until(what, async || is_so(pod.status().counted)).await;
}

async fn finished(pod: &RunningPod, id: StepId) -> Step {
    let service = FleetService::beside(pod.handle());
    let step = service.wait(id, PATIENCE).await.unwrap().value.expect("the step is there");
    assert!(step.state.is_finished(), "never finished: {step:?}");
    step
}

/// Handlers of kind `work`.
fn handlers<W>(
    work: impl Fn(serde_json::Value, tl_fleet::Run) -> W + Send + Sync + 'static,
) -> Handlers
where
    W: Future<Output = Result<serde_json::Value, HandlerError>> + Send + 'static,
{
    let mut handlers = Handlers::new();
    handlers.typed(kind("work"), work).unwrap();
    handlers
}

/// Gives its arguments back.
fn echo() -> Handlers {
    handlers(|args, _| std::future::ready(Ok(args)))
}

/// Handlers that wait for a permit each, and count how many run and how many were dropped.
#[derive(Clone)]
struct Gate {
    permits: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Gate {
    fn shut() -> Gate {
        Gate {
            permits: Arc::new(Semaphore::new(0)),
            running: Arc::default(),
            dropped: Arc::default(),
        }
    }

    fn open(&self, permits: usize) {
        self.permits.add_permits(permits);
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    fn handlers(&self) -> Handlers {
        let gate = self.clone();
        handlers(move |args, _| {
            let gate = gate.clone();
            async move {
                let _inside = Inside::enter(&gate);
                gate.permits.acquire().await.unwrap().forget();
                Ok(args)
            }
        })
    }
}

struct Inside(Gate);

impl Inside {
    fn enter(gate: &Gate) -> Inside {
        gate.running.fetch_add(1, Ordering::SeqCst);
        Inside(gate.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}
