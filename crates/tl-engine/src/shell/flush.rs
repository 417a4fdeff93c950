//! Background work on disk: memtables into sorted runs, the log released behind them,
//! compaction, and log segments prepared ahead.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tl_store::{OrderedStore, StoreError};
use tl_types::{GroupId, Index, UnixMs};
use tl_wal::{Preparer, WalError};
use tokio::sync::Notify;

use super::log::LogBox;
use super::pulse::Pulse;
use super::space::Space;
use super::{Mail, Shared};
use crate::node::Input;

/// Longest rest between two looks for work.
const REST: Duration = Duration::from_secs(1);
/// Rest on a disk without room, after which its room is compared.
const FULL_DISK_REST: Duration = Duration::from_millis(200);
/// A compaction that found no room is not tried again before.
const COMPACTION_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// So many rests, and what found no room is tried again in any case.
const FULL_DISK_RESTS: usize = 50;

/// What the background threads are told.
#[derive(Debug, Default)]
pub struct Background {
    state: Mutex<State>,
    bell: Condvar,
    stopped: AtomicBool,
    flushed: Notify,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    due: BTreeMap<GroupId, UnixMs>,
    stopped_groups: HashMap<GroupId, Arc<str>>,
}

impl Background {
    /// There may be work now.
    pub(crate) fn ring(&self) {
        self.state.lock().rung = true;
        self.bell.notify_all();
    }

    /// A group has work for a tick at `at`; the earliest instant is kept.
    pub(crate) fn due(&self, group: GroupId, at: UnixMs) {
        let mut state = self.state.lock();
        let kept = state.due.entry(group).or_insert(at);
        *kept = at.min(*kept);
    }

    /// Groups whose work is due at `now`; they are forgotten here until they say so again.
    #[must_use]
    pub fn take_due(&self, now: UnixMs) -> Vec<GroupId> {
        let mut state = self.state.lock();
        let due: Vec<GroupId> =
            state.due.iter().filter(|(_, at)| **at <= now).map(|(group, _)| *group).collect();
        for group in &due {
            state.due.remove(group);
        }
        due
    }

    /// A group stopped because of damage.
    pub(crate) fn group_stopped(&self, group: GroupId, why: String) {
        self.state.lock().stopped_groups.insert(group, why.into());
    }

    /// A group goes on from other rows; whether it had stopped.
    pub(crate) fn group_goes_on(&self, group: GroupId) -> bool {
        self.state.lock().stopped_groups.remove(&group).is_some()
    }

    /// The stopped groups and why, for readiness and status.
    #[must_use]
    pub fn stopped_groups(&self) -> Vec<(GroupId, Arc<str>)> {
        let state = self.state.lock();
        let mut groups: Vec<_> =
            state.stopped_groups.iter().map(|(group, why)| (*group, Arc::clone(why))).collect();
        groups.sort_by_key(|(group, _)| *group);
        groups
    }

    pub(crate) fn stop(&self) {
        // Under the lock, or a thread between its look and its wait would sleep on.
        let _state = self.state.lock();
        self.stopped.store(true, Ordering::Relaxed);
        self.bell.notify_all();
    }

    /// Completes with the next flush; to be created before the look that it follows.
    pub fn next_flush(&self) -> tokio::sync::futures::Notified<'_> {
        self.flushed.notified()
    }

    /// A log segment is missing: the thread that prepares them looks now.
    pub(crate) fn wake(&self) {
        self.bell.notify_all();
    }

    /// Waits for so long, whatever rings; false when the node ends.
    pub(crate) fn rest_for(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !self.stopped.load(Ordering::Relaxed) {
            if self.bell.wait_until(&mut state, until).timed_out() {
                return !self.stopped.load(Ordering::Relaxed);
            }
        }
        false
    }

    /// Waits until somebody wakes the thread, whatever for, or the end of the rest.
    fn rest_until_woken(&self) {
        let mut state = self.state.lock();
        if !self.stopped.load(Ordering::Relaxed) {
            self.bell.wait_for(&mut state, REST);
        }
    }

    /// Waits for the bell or the end of the rest.
    fn rest(&self) {
        let mut state = self.state.lock();
        if !state.rung && !self.stopped.load(Ordering::Relaxed) {
            self.bell.wait_for(&mut state, REST);
        }
        state.rung = false;
    }
}

/// Flushes sealed memtables and compacts when none waits.
pub(crate) fn run<S: OrderedStore>(
    shared: &Shared<S>,
    log: &LogBox,
    background: &Background,
    pulse: &Pulse,
    is_alone: bool,
) {
    let mut compaction = Compaction::default();
    while !background.stopped.load(Ordering::Relaxed) && !shared.failed() {
        pulse.flush_waits(false);
        let stepped = step(shared, log, background, &mut compaction, is_alone);
        pulse.press(shared.store.is_full());
        match stepped {
            Ok(true) => {}
            Ok(false) => background.rest(),
            Err(error) if error.is_no_room() => wait_for_room(shared, background, &error),
            Err(error) => return shared.fail(crate::chain(&error)),
        }
    }
}

/// One flush, or else one piece of compaction; false when there was neither.
fn step<S: OrderedStore>(
    shared: &Shared<S>,
    log: &LogBox,
    background: &Background,
    compaction: &mut Compaction,
    is_alone: bool,
) -> Result<bool, StoreError> {
    match flush(shared, log, background, is_alone) {
        Ok(false) => compaction.step(shared),
        // Compaction may give room back, if it finds enough to begin with.
        Err(error) if error.is_no_room() => match compaction.step(shared) {
            Ok(true) => Ok(true),
            Ok(false) => Err(error),
            Err(other) => Err(other),
        },
        flushed => flushed,
    }
}

/// Writes one sealed memtable out and lets the log behind it go.
fn flush<S: OrderedStore>(
    shared: &Shared<S>,
    log: &LogBox,
    background: &Background,
    is_alone: bool,
) -> Result<bool, StoreError> {
    let started = Instant::now();
    let is_due = shared.store.flush_mark() > shared.store.flushes();
    shared.metrics.flushes_open.set(is_due.into());
    let flushed = shared.store.flush_one();
    shared.metrics.flushes_open.set(0);
    if flushed.as_ref().is_err_and(StoreError::is_no_room) {
        shared.metrics.no_room.inc();
        // From now on writes are told that the disk is full, and wait for no flush.
        if !shared.space.flush_waits(true) {
            tracing::warn!("no room on disk for rows that are in memory; trying again until it is");
        }
        background.flushed.notify_waiters();
    }
    if !flushed? {
        return Ok(false);
    }
    if shared.space.flush_waits(false) {
        tracing::info!("there was room on disk for rows that were in memory");
    }
    shared.metrics.flushes.inc();
    shared.metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
    let durable: BTreeMap<GroupId, Index> = shared
        .store
        .durable_applied()
        .into_iter()
        .map(|(group, applied)| (group, applied.index))
        .collect();
    let indexes = durable.iter().map(|(group, index)| (*group, *index)).collect();
    log.release(durable);
    // With others to feed, the driver's budgets decide what stays in memory for them.
    if is_alone {
        shared.mail.push(Mail::Input(Input::Flushed(indexes)));
    }
    background.flushed.notify_waiters();
    Ok(true)
}

/// Compaction, which may need more room than flushes do and must not hold them up.
#[derive(Debug, Default)]
struct Compaction {
    /// Set when it found no room.
    not_before: Option<Instant>,
}

impl Compaction {
    /// Does one piece; false when there is nothing to do, or was no room lately.
    fn step<S: OrderedStore>(&mut self, shared: &Shared<S>) -> Result<bool, StoreError> {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(false);
        }
        self.not_before = None;
        match shared.store.compact_step() {
            Ok(true) => {
                shared.metrics.compactions.inc();
                Ok(true)
            }
            Err(error) if error.is_no_room() => {
                shared.metrics.no_room.inc();
                tracing::debug!(error = %crate::chain(&error), "no room to compact");
                self.not_before = Some(Instant::now() + COMPACTION_AGAIN_AFTER);
                Ok(false)
            }
            other => other,
        }
    }
}

/// Rests until there is more room than there was, or long enough to try all the same: an attempt
/// writes much, and takes room for a while that the log may need more.
fn wait_for_room<S>(shared: &Shared<S>, background: &Background, error: &StoreError) {
    tracing::debug!(error = %crate::chain(error), "waiting for room");
    // The look of the watching thread may have met the half-written files.
    drop(shared.space.look());
    let free_bytes = shared.space.free_bytes();
    for _ in 0..FULL_DISK_RESTS {
        if !background.rest_for(FULL_DISK_REST) || shared.space.free_bytes() > free_bytes {
            return;
        }
    }
}

/// Prepares log segments ahead of the log thread, in pieces, so that zeroing does not compete
/// with its syncs.
pub(crate) fn prepare<S>(shared: &Shared<S>, background: &Background, preparer: &Preparer) {
    let space = &shared.space;
    while !background.stopped.load(Ordering::Relaxed) {
        let worked = prepare_one(space, preparer);
        let ready = preparer.ready();
        shared.metrics.log_segments_ready.set(ready as i64);
        match worked {
            Ok(worked) => {
                space.no_spares(false);
                if !worked {
                    background.rest_until_woken();
                }
            }
            Err(WalError::Full { .. }) => {
                if !space.no_spares(ready == 0) && ready == 0 {
                    tracing::warn!("no log segment is ready, and there is no room for one");
                }
                if !background.rest_for(FULL_DISK_REST) {
                    return;
                }
            }
            Err(error) => {
                // The log makes its own segments when none is ready, and fails there if it must.
                let error = crate::chain(&error);
                tracing::warn!(error, "could not prepare a log segment; trying again");
                if !background.rest_for(REST) {
                    return;
                }
            }
        }
    }
}

/// Removes or makes one file; false when there was nothing to do. The first file may be made out
/// of the disk's reserve, since it is one: clients write into it no more by then. Others may not.
fn prepare_one(space: &Space, preparer: &Preparer) -> Result<bool, WalError> {
    /// Between two pieces of zeros.
    const PAUSE: Duration = Duration::from_millis(1);
    if preparer.remove_one()? {
        return Ok(true);
    }
    if preparer.missing() == 0 {
        return Ok(false);
    }
    let is_first = preparer.ready() == 0;
    if space.has(preparer.segment_bytes(), is_first) {
        return preparer.make_one(&mut |_written| std::thread::sleep(PAUSE));
    }
    // Zeros up to the last free byte would take room from others, and no segment comes of them.
    let source = std::io::ErrorKind::StorageFull.into();
    if is_first { Err(WalError::Full { source }) } else { Ok(false) }
}
