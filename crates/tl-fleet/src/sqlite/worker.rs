//! One thread with one connection, and calls that share its transactions.
//!
//! ```text
//!   callers ──> bounded queue ──> thread: begin, run every call that waits, commit ──> answers
//! ```
//!
//! A sync costs the same for one step and for a thousand. So whatever has gathered while the
//! last transaction was syncing shares the next one. When a shared transaction fails, its calls
//! are run again one by one, so that one that cannot succeed does not take others with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tl_types::UnixMs;
use tokio::sync::oneshot;

use super::clock::Clock;
use super::fault::{Fault, commit_error, store_error};
use super::turn::Turn;
use crate::error::StoreError;
use crate::store::Answer;
use crate::time::{StoreTime, Timed};

/// Calls that may wait for the thread. One past: [`StoreError::Busy`].
pub(super) const WAITING_MAX: usize = 4_096;
/// Bytes of payloads and results that may wait for the thread. One past: the same.
pub(super) const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the end of a store waits for the calls that are under way.
const LAST_CALLS: Duration = Duration::from_secs(5);
/// Items that share a transaction at most: it is to last milliseconds, for others wait for it.
const GROUP_ITEMS_MAX: usize = 8_192;

/// A transaction as the calls in it see it.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    /// The store's clock, read once for the whole transaction.
    pub(super) at: StoreTime,
    /// The calendar, likewise.
    pub(super) wall: UnixMs,
}

/// What a call gives: the outer error ends the transaction, the inner one is its answer and it
/// has written nothing.
pub(super) type Done<T> = Result<Result<T, StoreError>, Fault>;

trait Job: Send {
    fn items(&self) -> usize;
    fn is_wanted(&self) -> bool;
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Fault>;
    fn answer(self: Box<Self>, outcome: Result<(StoreTime, UnixMs), StoreError>);
}

/// What a call weighs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    /// Rows that it writes, about.
    pub(super) items: usize,
    /// Bytes that it brings along.
    pub(super) bytes: usize,
}

impl Weight {
    pub(super) fn of(items: usize) -> Weight {
        Weight { items, bytes: 0 }
    }
}

/// Bytes that wait, given back when the call is done with.
struct Room {
    waiting_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    fn take(waiting_bytes: &Arc<AtomicUsize>, bytes: usize) -> Option<Room> {
        let room = Room { waiting_bytes: Arc::clone(waiting_bytes), bytes };
        // Given back by the drop when there is none.
        let before = waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        (bytes == 0 || before + bytes <= WAITING_BYTES_MAX).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Call<F, T> {
    items: usize,
    _room: Room,
    work: F,
    value: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<Timed<T>, StoreError>>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnMut(&Tx<'_>) -> Done<T> + Send,
    T: Send,
{
    fn items(&self) -> usize {
        self.items
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Fault> {
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(StoreTime, UnixMs), StoreError>) {
        let answer = match (outcome, self.value) {
            (Ok((at, wall)), Some(Ok(value))) => Ok(Timed { value, at, wall }),
            (Ok(_), Some(Err(error))) | (Err(error), _) => Err(error),
            (Ok(_), None) => Err(stopped()),
        };
        // A caller that has gone does not need it.
        drop(self.reply.send(answer));
    }
}

/// Whether the thread writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Calls share write transactions.
    Write,
    /// Each call reads one consistent state.
    Read,
}

/// Where a thread has its connection from.
pub(super) enum Source {
    /// It is there.
    Open(Connection),
    /// The thread makes it for its first call, and again while that fails.
    Later(Box<dyn Fn() -> Result<Connection, StoreError> + Send>),
}

/// The thread and the way to it.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    /// Ends when the thread does.
    ended: Mutex<Receiver<()>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Worker {
    pub(super) fn start(
        name: &str,
        mode: Mode,
        source: Source,
        clock: Clock,
        turn: Option<Turn>,
    ) -> std::io::Result<Worker> {
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let (ends, ended) = sync_channel(0);
        let engine = Engine { mode, source, clock, turn };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            engine.run(&queue);
            drop(ends);
        })?;
        let (jobs, thread, ended) = (Some(jobs), Some(thread), Mutex::new(ended));
        Ok(Worker { jobs, thread, ended, waiting_bytes: Arc::default() })
    }

    /// Has `work` done in a transaction. It may be run twice, the first time in vain.
    pub(super) fn call<T: Send + 'static>(
        &self,
        weight: Weight,
        work: impl FnMut(&Tx<'_>) -> Done<T> + Send + 'static,
    ) -> Answer<'static, T> {
        let (reply, answer) = oneshot::channel();
        let Some(room) = Room::take(&self.waiting_bytes, weight.bytes) else {
            return Box::pin(async { Err(StoreError::Busy { waiting: WAITING_MAX }) });
        };
        let items = weight.items.max(1);
        let call = Call { items, _room: room, work, value: None, reply };
        let sent = match &self.jobs {
            Some(jobs) => jobs.try_send(Box::new(call)).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Busy { waiting: WAITING_MAX },
                TrySendError::Disconnected(_) => stopped(),
            }),
            None => Err(stopped()),
        };
        Box::pin(async move {
            sent?;
            answer.await.unwrap_or_else(|_| Err(stopped()))
        })
    }
}

impl Drop for Worker {
    /// Finishes what waits and closes the file. A thread that waits for a process that was
    /// stopped in the middle of a transaction is left to itself: nobody waits for its answers.
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().recv_timeout(LAST_CALLS);
        let has_ended = ended == Err(RecvTimeoutError::Disconnected);
        if let (Some(thread), true) = (self.thread.take(), has_ended) {
            // A panic in it was reported where it happened.
            drop(thread.join());
        }
    }
}

fn stopped() -> StoreError {
    let source = std::io::Error::other("the thread of the store has stopped");
    StoreError::Unavailable { source: Arc::new(source) }
}

struct Engine {
    mode: Mode,
    source: Source,
    clock: Clock,
    turn: Option<Turn>,
}

impl Engine {
    fn run(mut self, queue: &Receiver<Box<dyn Job>>) {
        let mut left_over: Option<Box<dyn Job>> = None;
        loop {
            let Some(first) = left_over.take().or_else(|| queue.recv().ok()) else { return };
            let mut items = first.items();
            let mut group = vec![first];
            if self.mode == Mode::Write {
                while let Ok(next) = queue.try_recv() {
                    items += next.items();
                    if items > GROUP_ITEMS_MAX {
                        left_over = Some(next);
                        break;
                    }
                    group.push(next);
                }
            }
            // Who has given up waiting must not find its steps claimed later.
            group.retain(|job| job.is_wanted());
            if group.is_empty() {
                continue;
            }
            match self.connect() {
                Ok(()) => self.serve(group),
                Err(error) => group.into_iter().for_each(|job| job.answer(Err(error.clone()))),
            }
        }
    }

    /// Makes the connection that was put off.
    fn connect(&mut self) -> Result<(), StoreError> {
        if let Source::Later(connect) = &self.source {
            self.source = Source::Open(connect()?);
        }
        Ok(())
    }

    fn conn(&self) -> Result<&Connection, StoreError> {
        match &self.source {
            Source::Open(conn) => Ok(conn),
            Source::Later(_) => Err(stopped()),
        }
    }

    fn serve(&self, mut group: Vec<Box<dyn Job>>) {
        match self.transact(&mut group) {
            Ok(at) => group.into_iter().for_each(|job| job.answer(Ok(at))),
            Err(error) if group.len() == 1 || error_is_everybodys(&error) => {
                group.into_iter().for_each(|job| job.answer(Err(error.clone())));
            }
            Err(_) => group.into_iter().for_each(|job| self.serve(vec![job])),
        }
    }

    fn transact(&self, group: &mut [Box<dyn Job>]) -> Result<(StoreTime, UnixMs), StoreError> {
        let conn = self.conn()?;
        let _turn = match &self.turn {
            Some(turn) => Some(turn.wait()?),
            None => None,
        };
        let begin = match self.mode {
            Mode::Write => "BEGIN IMMEDIATE",
            Mode::Read => "BEGIN",
        };
        conn.execute_batch(begin).map_err(|error| store_error(error.into()))?;
        // After the lock was granted: a wait for it must not make leases shorter.
        let (at, wall) = self.clock.now();
        let tx = Tx { conn, at, wall };
        let ran = group.iter_mut().try_for_each(|job| job.run(&tx)).map_err(store_error);
        let ended = ran.and_then(|()| conn.execute_batch("COMMIT").map_err(commit_error));
        if ended.is_err() && !conn.is_autocommit() {
            // Cannot do worse than fail: the next BEGIN then fails too and is reported.
            drop(conn.execute_batch("ROLLBACK"));
        }
        ended.map(|()| (at, wall))
    }
}

/// Whether each call alone would meet the same error, after the same wait.
fn error_is_everybodys(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { .. }
        | StoreError::OutcomeUnknown { .. }
        | StoreError::Refused { .. }
        | StoreError::Schema { .. }
        | StoreError::Busy { .. } => true,
        StoreError::Invalid(_) | StoreError::Reaped | StoreError::Corrupt { .. } => false,
    }
}
