//! The embedded store: one SQLite file, shared by the processes of one machine.
//!
//! ```text
//!   calls ──> writer thread: one transaction for all that wait ──> sync ──> answers
//!   looks ──> reader thread: its own connection, never in the writer's way
//! ```
//!
//! - Every answered write is synced: write-ahead log with `synchronous = FULL`.
//! - Deadlines are of the machine's clock since its start, with the boot id beside them; the
//!   calendar is for showing, `run_at`, order and retention alone.
//! - Claims of several processes queue at the file's lock, in turns; a transaction lasts
//!   milliseconds.
//! - Never on a network file system: SQLite's locks do not hold there.
//!
//! A process that is stopped in the middle of a transaction holds the file's lock until it goes
//! on or is killed; others then wait, and nothing is lost. A file that is set up already is
//! opened all the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use tokio::sync::{oneshot, watch};

use self::fault::{Fault, io_error, store_error};
use self::finish::Totals;
use self::worker::{Mode, Source, Tx, Weight, Worker};
use crate::checks::{
    check_batch, check_finishes, check_lookup, check_submit, check_sweep, check_token, result_bytes,
};
use crate::claim::{Claim, ClaimRequest, Finish, Finished, Renewal, Renewed, check_lease};
use crate::effects::{EffectNoted, NewEffect};
use crate::error::{InvalidInput, StoreError};
use crate::ids::{Epoch, PodId, PodLife, StepId};
use crate::list::{Counts, Page, PageRequest, StepFilter};
use crate::pods::{
    Beat, DrainAsked, Heartbeat, Leader, LeaderWrite, Leadership, Pod, PodInfo, ReapedPod,
    Registered,
};
use crate::recover::{
    Cancelled, DeadLetter, Forgotten, RecoverRequest, Recovered, Redriven, Retention,
};
use crate::step::{AttemptRecord, NewStep, Step, Submitted};
use crate::store::{Answer, Capabilities, Opening, Store};

mod change;
mod claim;
mod clock;
mod fault;
mod finish;
mod look;
mod open;
mod pods;
mod recover;
mod rows;
mod schema;
mod submit;
mod turn;
mod worker;

pub use clock::{Clock, ManualClock};
pub use schema::SCHEMA_VERSION;

/// Where the file is, and by which clock its deadlines go.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The file; made when it is not there. Beside it SQLite keeps `-wal` and `-shm`, and the
    /// store two empty files, `-next` and `-turn`, by which processes take turns.
    pub path: PathBuf,
    /// The machine's clocks, but for tests.
    pub clock: Clock,
}

impl SqliteOptions {
    /// This file, by the machine's clocks.
    pub fn new(path: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions { path: path.into(), clock: Clock::Machine }
    }
}

/// A store in one file.
#[derive(Debug)]
pub struct SqliteStore {
    options: SqliteOptions,
    writer: Worker,
    /// Opened when first looked through: a heartbeat's store never is.
    reader: OnceLock<Worker>,
    wakes: Arc<watch::Sender<u64>>,
}

impl SqliteStore {
    /// Opens the file, makes or checks its tables. Blocks for some seconds at worst: in async
    /// code use [`SqliteStore::open_aside`].
    ///
    /// # Errors
    /// - [`StoreError::Schema`] when a newer program made the tables.
    /// - [`StoreError::Unavailable`], [`StoreError::Refused`] or [`StoreError::Corrupt`] when
    ///   the file cannot be opened or written, or is not SQLite's.
    pub fn open(options: SqliteOptions) -> Result<SqliteStore, StoreError> {
        let wakes = Arc::new(watch::Sender::new(0));
        SqliteStore::open_with(options, wakes)
    }

    /// As [`SqliteStore::open`], on a thread of its own, so that nothing else of the runtime
    /// waits.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_aside(options: SqliteOptions) -> Result<SqliteStore, StoreError> {
        open_aside(options, Arc::new(watch::Sender::new(0))).await
    }

    fn open_with(
        options: SqliteOptions,
        wakes: Arc<watch::Sender<u64>>,
    ) -> Result<SqliteStore, StoreError> {
        let (conn, turn) = open::writer(&options)?;
        let clock = options.clock.clone();
        let source = Source::Open(conn);
        let writer = Worker::start("fleet-writer", Mode::Write, source, clock, Some(turn))
            .map_err(io_error)?;
        Ok(SqliteStore { options, writer, reader: OnceLock::new(), wakes })
    }

    fn write<T: Send + 'static>(
        &self,
        weight: Weight,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Answer<'static, T> {
        self.writer.call(weight, move |tx| work(tx).map(Ok))
    }

    fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Answer<'static, T> {
        match self.reader() {
            Ok(reader) => reader.call(Weight::of(1), move |tx| work(tx).map(Ok)),
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }

    fn reader(&self) -> Result<&Worker, StoreError> {
        if let Some(reader) = self.reader.get() {
            return Ok(reader);
        }
        let path = self.options.path.clone();
        let source = Source::Later(Box::new(move || open::reader(&path)));
        let clock = self.options.clock.clone();
        let reader =
            Worker::start("fleet-reader", Mode::Read, source, clock, None).map_err(io_error)?;
        // Two may have come at once; the second one's goes.
        Ok(self.reader.get_or_init(|| reader))
    }

    /// Passes an answer on and tells those who wait for work.
    fn waking<T: Send + 'static>(&self, answer: Answer<'static, T>) -> Answer<'static, T> {
        let wakes = Arc::clone(&self.wakes);
        Box::pin(async move {
            let answer = answer.await?;
            wakes.send_modify(|wake| *wake = wake.wrapping_add(1));
            Ok(answer)
        })
    }
}

/// Opens on a thread that nobody has to wait for, not even the end of the process.
async fn open_aside(
    options: SqliteOptions,
    wakes: Arc<watch::Sender<u64>>,
) -> Result<SqliteStore, StoreError> {
    let (reply, opened) = oneshot::channel();
    let open = move || {
        // Who has given up waiting does not need it.
        drop(reply.send(SqliteStore::open_with(options, wakes)));
    };
    let thread = std::thread::Builder::new().name("fleet-open".to_owned());
    thread.spawn(open).map_err(io_error)?;
    let gone = || io_error(std::io::Error::other("the opening of the file has ended"));
    opened.await.unwrap_or_else(|_| Err(gone()))
}

/// Submits inside a transaction of the caller, on any connection to the store's file: the steps
/// are there if and only if the caller commits.
///
/// # Errors
/// As [`Store::submit`]. After an error the caller rolls back.
pub fn submit_in(
    tx: &rusqlite::Transaction<'_>,
    steps: &[NewStep],
) -> Result<Vec<Submitted>, StoreError> {
    check_submit(steps)?;
    let (_, wall) = Clock::Machine.now();
    steps
        .iter()
        .map(|step| submit::submit(tx, wall, step))
        .collect::<Result<_, _>>()
        .map_err(store_error)
}

/// Ends a claim inside a transaction of the caller: a handler's own rows and the completion of
/// its step are there together or not at all. When the answer is
/// [`Finished::Fenced`] the caller rolls back.
///
/// # Errors
/// As [`Store::finish`]. After an error the caller rolls back.
pub fn finish_in(tx: &rusqlite::Transaction<'_>, finish: &Finish) -> Result<Finished, StoreError> {
    finish.check()?;
    let (_, wall) = Clock::Machine.now();
    let work = || {
        let mut totals = Totals::default();
        let finished = finish::finish(tx, wall, finish, &mut totals)?;
        totals.write(tx)?;
        Ok(finished)
    };
    work().map_err(store_error)
}

fn check_page(page: &PageRequest) -> Result<(), InvalidInput> {
    page.check()?;
    check_token(look::is_token(page))
}

fn refused<T: Send + 'static>(error: InvalidInput) -> Answer<'static, T> {
    Box::pin(async move { Err(error.into()) })
}

macro_rules! checked {
    ($check:expr) => {
        if let Err(error) = $check {
            return refused(error);
        }
    };
}

impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            own_transaction: true,
            skip_locked: false,
            notify: false,
            enforced_keys: true,
        }
    }

    fn wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }

    fn apart(&self) -> Opening<'_> {
        let (options, wakes) = (self.options.clone(), Arc::clone(&self.wakes));
        Box::pin(async move {
            let store: Arc<dyn Store> = Arc::new(open_aside(options, wakes).await?);
            Ok(store)
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        // As a write: a database that takes none is not ready.
        self.write(Weight::of(1), |_| Ok(()))
    }

    fn submit(&self, steps: Vec<NewStep>) -> Answer<'_, Vec<Submitted>> {
        checked!(check_submit(&steps));
        let bytes = steps.iter().map(NewStep::payload_bytes).sum();
        let answer = self.write(Weight { items: steps.len(), bytes }, move |tx| {
            steps.iter().map(|step| submit::submit(tx.conn, tx.wall, step)).collect()
        });
        self.waking(answer)
    }

    fn claim(&self, request: ClaimRequest) -> Answer<'_, Vec<Claim>> {
        checked!(request.check());
        self.writer.call(Weight::of(request.steps_max), move |tx| claim::claim(tx, &request))
    }

    fn renew(&self, lease_ms: u64, renewals: Vec<Renewal>) -> Answer<'_, Vec<Renewed>> {
        checked!(check_lease(lease_ms));
        checked!(check_batch("renewals", renewals.len()));
        checked!(renewals.iter().try_for_each(Renewal::check));
        self.write(Weight::of(renewals.len()), move |tx| {
            renewals.iter().map(|renewal| claim::renew(tx, lease_ms, renewal)).collect()
        })
    }

    fn finish(&self, finishes: Vec<Finish>) -> Answer<'_, Vec<Finished>> {
        checked!(check_finishes(&finishes));
        let bytes = result_bytes(&finishes);
        self.write(Weight { items: finishes.len(), bytes }, move |tx| {
            let mut totals = Totals::default();
            let finished = finishes
                .iter()
                .map(|finish| finish::finish(tx.conn, tx.wall, finish, &mut totals))
                .collect::<Result<_, _>>()?;
            totals.write(tx.conn)?;
            Ok(finished)
        })
    }

    fn note_effects(&self, effects: Vec<NewEffect>) -> Answer<'_, Vec<EffectNoted>> {
        checked!(check_batch("effects", effects.len()));
        checked!(effects.iter().try_for_each(NewEffect::check));
        self.write(Weight::of(effects.len()), move |tx| {
            effects.iter().map(|effect| finish::note_effect(tx.conn, tx.wall, effect)).collect()
        })
    }

    fn recover(&self, request: RecoverRequest) -> Answer<'_, Vec<Recovered>> {
        checked!(request.check());
        let answer =
            self.write(Weight::of(request.steps_max), move |tx| recover::recover(tx, &request));
        let wakes = Arc::clone(&self.wakes);
        Box::pin(async move {
            let answer = answer.await?;
            // A look that finds nothing, once a second, is no reason to poll.
            if !answer.value.is_empty() {
                wakes.send_modify(|wake| *wake = wake.wrapping_add(1));
            }
            Ok(answer)
        })
    }

    fn register(&self, info: PodInfo, lease_ms: u64) -> Answer<'_, Registered> {
        checked!(info.check());
        checked!(check_lease(lease_ms));
        self.write(Weight::of(1), move |tx| pods::register(tx, &info, lease_ms))
    }

    fn heartbeat(&self, beat: Heartbeat) -> Answer<'_, Beat> {
        checked!(check_lease(beat.lease_ms));
        self.write(Weight::of(1), move |tx| pods::heartbeat(tx, &beat))
    }

    fn leave(&self, life: PodLife) -> Answer<'_, ()> {
        self.write(Weight::of(1), move |tx| pods::leave(tx, &life))
    }

    fn ask_drain(&self, pods: Vec<PodId>) -> Answer<'_, Vec<DrainAsked>> {
        checked!(check_batch("pods", pods.len()));
        self.write(Weight::of(pods.len()), move |tx| {
            pods.iter().map(|pod| pods::ask_drain(tx, pod)).collect()
        })
    }

    fn pods(&self) -> Answer<'_, Vec<Pod>> {
        self.read(pods::pods)
    }

    fn lead(&self, life: PodLife, lease_ms: u64) -> Answer<'_, Leadership> {
        checked!(check_lease(lease_ms));
        self.writer.call(Weight::of(1), move |tx| pods::lead(tx, &life, lease_ms))
    }

    fn leader(&self) -> Answer<'_, Option<Leader>> {
        self.read(pods::leader)
    }

    fn reap(&self, epoch: Epoch, pods_max: usize) -> Answer<'_, LeaderWrite<Vec<ReapedPod>>> {
        checked!(check_sweep("pods_max", pods_max));
        self.writer.call(Weight::of(pods_max), move |tx| pods::reap(tx, epoch, pods_max))
    }

    fn retain(&self, epoch: Epoch, keep: Retention) -> Answer<'_, LeaderWrite<Forgotten>> {
        checked!(check_sweep("steps_max", keep.steps_max));
        self.writer.call(Weight::of(keep.steps_max), move |tx| recover::retain(tx, epoch, &keep))
    }

    fn steps(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Option<Step>>> {
        checked!(check_lookup(ids.len()));
        self.read(move |tx| ids.iter().map(|id| look::step(tx, id)).collect())
    }

    fn attempts(&self, id: StepId) -> Answer<'_, Vec<AttemptRecord>> {
        self.read(move |tx| look::attempts(tx, &id))
    }

    fn list(&self, filter: StepFilter, page: PageRequest) -> Answer<'_, Page<Step>> {
        checked!(filter.check());
        checked!(check_page(&page));
        self.read(move |tx| look::list(tx, &filter, &page))
    }

    fn counts(&self) -> Answer<'_, Counts> {
        self.read(look::counts)
    }

    fn cancel(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Cancelled>> {
        checked!(check_batch("ids", ids.len()));
        self.write(Weight::of(ids.len()), move |tx| {
            let mut totals = Totals::default();
            let cancelled = ids
                .iter()
                .map(|id| change::cancel(tx, id, &mut totals))
                .collect::<Result<_, _>>()?;
            totals.write(tx.conn)?;
            Ok(cancelled)
        })
    }

    fn redrive(&self, ids: Vec<StepId>) -> Answer<'_, Vec<Redriven>> {
        checked!(check_batch("ids", ids.len()));
        let answer = self.write(Weight::of(ids.len()), move |tx| {
            let mut totals = Totals::default();
            let redriven = ids
                .iter()
                .map(|id| change::redrive(tx, id, &mut totals))
                .collect::<Result<_, _>>()?;
            totals.write(tx.conn)?;
            Ok(redriven)
        });
        self.waking(answer)
    }

    fn dead_letters(&self, redriven: bool, page: PageRequest) -> Answer<'_, Page<DeadLetter>> {
        checked!(check_page(&page));
        self.read(move |tx| look::dead_letters(tx, redriven, &page))
    }
}
