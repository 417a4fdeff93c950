//! Background work on disk: memtables into sorted runs, the log released behind them,
//! compaction, and log segments prepared ahead.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tl_store::{OrderedStore, StoreError};
use tl_types::{GroupId, Index, UnixMs};
use tl_wal::Preparer;
use tokio::sync::Notify;

use super::log::LogBox;
use super::pulse::Pulse;
use super::{Mail, Shared};
use crate::node::Input;

/// Longest rest between two looks for work.
const REST: Duration = Duration::from_secs(1);

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
) {
    while !background.stopped.load(Ordering::Relaxed) && !shared.failed() {
        let stepped = step(shared, log);
        if matches!(stepped, Ok(true)) {
            background.flushed.notify_waiters();
        }
        pulse.press(shared.store.is_full());
        match stepped {
            Ok(true) => {}
            Ok(false) => background.rest(),
            Err(error) => return shared.fail(crate::chain(&error)),
        }
    }
}

/// One flush, or else one piece of compaction; false when there was neither.
fn step<S: OrderedStore>(shared: &Shared<S>, log: &LogBox) -> Result<bool, StoreError> {
    let started = Instant::now();
    if shared.store.flush_one()? {
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
        shared.mail.push(Mail::Input(Input::Flushed(indexes)));
        return Ok(true);
    }
    let compacted = shared.store.compact_step()?;
    if compacted {
        shared.metrics.compactions.inc();
    }
    Ok(compacted)
}

/// Prepares log segments ahead of the log thread, in pieces, so that zeroing does not compete
/// with its syncs.
pub(crate) fn prepare(background: &Background, preparer: &Preparer) {
    /// Between two pieces of zeros.
    const PAUSE: Duration = Duration::from_millis(1);
    while !background.stopped.load(Ordering::Relaxed) {
        match preparer.work(&mut |_written| std::thread::sleep(PAUSE)) {
            Ok(true) => {}
            Ok(false) => {
                let mut state = background.state.lock();
                if !background.stopped.load(Ordering::Relaxed) {
                    background.bell.wait_for(&mut state, REST);
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
