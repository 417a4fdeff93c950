//! Calls of one sort that wait at the same time share a statement.
//!
//! ```text
//!   callers ──> queue ──> a task takes all that wait: one statement, one commit ──> their answers
//! ```
//!
//! A round trip and a commit cost nearly the same for one step and for a thousand, and statements
//! that run side by side meet on the same rows. So of each sort only a few are under way at once,
//! and what gathers meanwhile shares the next one. Who is alone waits for nobody. When a shared
//! statement fails, its calls are run again one by one, so that one that cannot succeed does not
//! take others with it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::fault::{Call, timed_out};
use super::pool::{CALL, Pool, Shared};
use crate::error::StoreError;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MAX};
use crate::time::Timed;

/// Calls that may wait in one lane. One past: [`StoreError::Busy`].
const WAITING_MAX: usize = 4_096;
/// Bytes of payloads and results that one lane holds, of calls that wait and of those that are
/// under way, for a database that hangs holds many of these. One past: the same.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a statement keeps those behind it waiting: ten times what a slow disk takes to sync.
const PATIENCE: Duration = Duration::from_millis(100);

/// One sort of call.
pub(super) trait Freight: 'static {
    /// What a caller brings.
    type Ask: Send + Sync + 'static;
    /// What it takes away.
    type Reply: Send + 'static;

    /// What a call weighs.
    fn weight(ask: &Self::Ask) -> Weight;

    /// Whether a call may be done together with those that are to be.
    fn may_join(group: &[Self::Ask], next: &Self::Ask) -> bool;

    /// Runs one transaction; answers in the order of the calls.
    fn run(
        pool: &Pool,
        asks: &[Self::Ask],
    ) -> impl Future<Output = Result<Timed<Vec<Self::Reply>>, StoreError>> + Send;

    /// Undoes what was done for a caller who has gone meanwhile, where that is of use.
    fn undo(pool: &Pool, reply: Self::Reply) -> impl Future<Output = ()> + Send;
}

/// What a call weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// Rows that it writes.
    pub(super) items: usize,
    /// Bytes that it brings along.
    pub(super) bytes: usize,
}

type Outcome<T> = Result<Timed<T>, StoreError>;

struct Waiting<F: Freight> {
    ask: F::Ask,
    weight: Weight,
    load: Load,
    reply: oneshot::Sender<Outcome<F::Reply>>,
}

/// The bytes of one call, which count until its answer is there, wherever that is waited for.
struct Load {
    bytes: usize,
    held: Arc<AtomicUsize>,
}

impl Load {
    /// Nothing when there is no room for them. Calls without bytes always find room.
    fn new(held: &Arc<AtomicUsize>, bytes: usize) -> Option<Load> {
        let fits = |held: usize| {
            let after = held + bytes;
            (bytes == 0 || after <= BYTES_MAX).then_some(after)
        };
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Load { bytes, held: Arc::clone(held) })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct State<F: Freight> {
    queue: VecDeque<Waiting<F>>,
    under_way: usize,
}

struct Road<F: Freight> {
    pool: Shared,
    abreast: usize,
    state: Mutex<State<F>>,
    bytes: Arc<AtomicUsize>,
}

/// The way of one sort of call to the database.
pub(super) struct Lane<F: Freight>(Arc<Road<F>>);

impl<F: Freight> fmt::Debug for Lane<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Lane")
            .field("waiting", &state.queue.len())
            .field("under_way", &state.under_way)
            .finish_non_exhaustive()
    }
}

/// One statement's worth of calls.
struct Group<F: Freight> {
    asks: Vec<F::Ask>,
    replies: Vec<Reply<F>>,
}

/// Where the answer of a call goes, and what it has brought.
struct Reply<F: Freight> {
    to: oneshot::Sender<Outcome<F::Reply>>,
    _load: Load,
}

impl<F: Freight> Lane<F> {
    /// At most `abreast` statements are under way at once.
    pub(super) fn new(pool: Shared, abreast: usize) -> Lane<F> {
        let state = Mutex::new(State { queue: VecDeque::new(), under_way: 0 });
        Lane(Arc::new(Road { pool, abreast, state, bytes: Arc::default() }))
    }

    /// Has one call done, together with those that wait beside it.
    pub(super) async fn call(&self, ask: F::Ask) -> Outcome<F::Reply> {
        let (reply, answer) = oneshot::channel();
        let weight = F::weight(&ask);
        let is_first = {
            let mut state = self.0.state.lock();
            let waiting = state.queue.len();
            if waiting >= WAITING_MAX {
                return Err(StoreError::Busy { waiting });
            }
            let Some(load) = Load::new(&self.0.bytes, weight.bytes) else {
                return Err(StoreError::Busy { waiting });
            };
            state.queue.push_back(Waiting { ask, weight, load, reply });
            let has_room = state.under_way < self.0.abreast;
            state.under_way += usize::from(has_room);
            has_room
        };
        if is_first {
            let turn = Turn { road: Arc::clone(&self.0), is_over: false };
            tokio::spawn(drive(turn));
        }
        match tokio::time::timeout(CALL, answer).await {
            Ok(Ok(outcome)) => outcome,
            // The runtime that was to do it is going down.
            Ok(Err(_)) => {
                let source = io::Error::other("the task that was to do it has ended");
                Err(StoreError::OutcomeUnknown { source: Arc::new(source) })
            }
            Err(_) => Err(timed_out(Call::Write)),
        }
    }
}

/// One of those that may be under way at once; given back however its task ends.
struct Turn<F: Freight> {
    road: Arc<Road<F>>,
    is_over: bool,
}

impl<F: Freight> Turn<F> {
    /// The calls of the next statement. With none the turn is over, and whoever comes next begins
    /// another: both under one lock, so that nobody is left waiting.
    fn take(&mut self) -> Option<Group<F>> {
        let mut state = self.road.state.lock();
        let group = state.take();
        if group.is_none() {
            state.under_way -= 1;
            self.is_over = true;
        }
        group
    }
}

impl<F: Freight> Drop for Turn<F> {
    fn drop(&mut self) {
        if !self.is_over {
            self.road.state.lock().under_way -= 1;
        }
    }
}

impl<F: Freight> State<F> {
    fn take(&mut self) -> Option<Group<F>> {
        let mut group: Group<F> = Group { asks: Vec::new(), replies: Vec::new() };
        let (mut items, mut bytes) = (0, 0);
        while let Some(next) = self.queue.front() {
            // Who has given up waiting must not find its steps claimed later.
            let is_wanted = !next.reply.is_closed();
            if is_wanted && !group.asks.is_empty() {
                let fits = items + next.weight.items <= BATCH_MAX
                    && bytes + next.weight.bytes <= BATCH_BYTES_MAX;
                if !fits || !F::may_join(&group.asks, &next.ask) {
                    break;
                }
            }
            let next = self.queue.pop_front().expect("it was just looked at");
            if is_wanted {
                items += next.weight.items;
                bytes += next.weight.bytes;
                group.asks.push(next.ask);
                group.replies.push(Reply { to: next.reply, _load: next.load });
            }
        }
        (!group.asks.is_empty()).then_some(group)
    }
}

/// Drives until nobody waits.
async fn drive<F: Freight>(mut turn: Turn<F>) {
    loop {
        // Those who were answered together come again together.
        tokio::task::yield_now().await;
        let Some(group) = turn.take() else { return };
        let mut served = tokio::spawn(serve(Arc::clone(&turn.road.pool), group));
        // What hangs goes on by itself, and others go past it.
        drop(tokio::time::timeout(PATIENCE, &mut served).await);
    }
}

async fn serve<F: Freight>(pool: Shared, group: Group<F>) {
    let Group { asks, replies } = group;
    match F::run(&pool, &asks).await {
        Ok(Timed { value, at, wall }) => {
            // Whoever waits hears of it before anything is undone for those who have gone.
            let mut unheard = Vec::new();
            for (value, reply) in value.into_iter().zip(replies) {
                unheard.extend(answer::<F>(reply, Ok(Timed { value, at, wall })));
            }
            for reply in unheard {
                F::undo(&pool, reply).await;
            }
        }
        Err(error) if asks.len() == 1 || is_everybodys(&error) => {
            for reply in replies {
                answer::<F>(reply, Err(error.clone()));
            }
        }
        // Beside each other, for one of them may be what the others would have to wait for.
        Err(_) => {
            for (ask, reply) in asks.into_iter().zip(replies) {
                tokio::spawn(serve_alone::<F>(Arc::clone(&pool), ask, reply));
            }
        }
    }
}

async fn serve_alone<F: Freight>(pool: Shared, ask: F::Ask, reply: Reply<F>) {
    let outcome = F::run(&pool, std::slice::from_ref(&ask)).await;
    let outcome = outcome.map(|Timed { mut value, at, wall }| {
        let value = value.pop().expect("one call has one answer");
        Timed { value, at, wall }
    });
    if let Some(unheard) = answer::<F>(reply, outcome) {
        F::undo(&pool, unheard).await;
    }
}

/// Gives back what was done for a caller who has gone.
fn answer<F: Freight>(reply: Reply<F>, outcome: Outcome<F::Reply>) -> Option<F::Reply> {
    let unheard = reply.to.send(outcome).err()?.ok()?;
    Some(unheard.value)
}

/// Whether each call alone would meet the same error, after the same wait.
fn is_everybodys(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { .. }
        | StoreError::OutcomeUnknown { .. }
        | StoreError::Refused { .. }
        | StoreError::Schema { .. }
        | StoreError::Busy { .. } => true,
        StoreError::Invalid(_) | StoreError::Reaped | StoreError::Corrupt { .. } => false,
    }
}
