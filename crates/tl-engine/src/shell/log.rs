//! Writing the log: drain the queue, one write, one sync, complete in order. Nobody waits to fill
//! a batch; what arrives during a sync is the next batch.
//!
//! The log has one owner at a time, by its lock: the log thread, or the driver itself. With a
//! front on its thread the driver has nothing to do until its job is on disk, so it writes the
//! job on the spot, which spares two hand-overs. It does so only when no earlier job is on its
//! way and the disk is quick; a disk that is slow or full is the log thread's to wait for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tl_raft::{JobId, LogJob};
use tl_store::OrderedStore;
use tl_types::{GroupId, Index};
use tl_wal::{Record, Segments, Wal, WalError, Want};

use super::flush::Background;
use super::mailbox::Mailbox;
use super::pulse::Pulse;
use super::{Mail, Shared};
use crate::node::Input;

/// The node's log on a real disk.
pub type NodeLog = Wal;

/// An idle log confirms its end within this time, so that damage there cannot be taken for a
/// torn write.
const IDLE_MARK_AFTER: Duration = Duration::from_millis(50);
/// Wait before a write is tried again on a disk without room.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// So much log may stay beyond what is kept anyway, for whoever is given rows of a group.
const HELD_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Syncs that usually take longer than this leave the driver alone.
const QUICK_SYNC: Duration = Duration::from_millis(1);

/// The log, and jobs on their way to it; bounded by admission. Jobs come from one thread, the
/// driver's.
#[derive(Debug)]
pub(crate) struct LogBox {
    wal: Mutex<NodeLog>,
    jobs: Mailbox<Option<LogJob>>,
    /// Jobs handed to the log thread and not on disk yet.
    unwritten: AtomicUsize,
    /// Indexes up to which rows are durable, since the log thread last looked.
    durable: Mutex<Option<BTreeMap<GroupId, Index>>>,
    /// Entries behind these are needed by somebody who is given rows.
    held: Mutex<BTreeMap<GroupId, Index>>,
    limits: LogLimits,
    stopped: AtomicBool,
}

/// Sizes that the log thread minds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// Applied log kept for followers that lag, bytes.
    pub(crate) keep_bytes: u64,
    /// Records written by one call, bytes (one always goes). Less than a segment: a disk that is
    /// full in the middle of a call would leave half of it written, and the node would have to
    /// stop.
    pub(crate) piece_bytes: u64,
    /// Whether followers are sent entries from the log.
    pub(crate) feeds: bool,
}

impl LogBox {
    pub(crate) fn new(wal: NodeLog, limits: LogLimits) -> LogBox {
        LogBox {
            wal: Mutex::new(wal),
            jobs: Mailbox::default(),
            unwritten: AtomicUsize::new(0),
            durable: Mutex::new(None),
            held: Mutex::default(),
            limits,
            stopped: AtomicBool::new(false),
        }
    }

    /// Hands a job to the log thread.
    pub(crate) fn push(&self, job: LogJob) {
        self.unwritten.fetch_add(1, Ordering::AcqRel);
        self.jobs.push(Some(job));
    }

    /// Writes a job on the spot if nothing speaks against it, and says its number when it is on
    /// disk; else hands it to the log thread.
    pub(crate) fn write_now<S: OrderedStore>(
        &self,
        job: LogJob,
        shared: &Shared<S>,
        background: &Background,
        pulse: &Pulse,
    ) -> Option<JobId> {
        let is_behind = self.unwritten.load(Ordering::Acquire) > 0;
        let wal = if is_behind || !pulse.is_quick(QUICK_SYNC) { None } else { self.wal.try_lock() };
        let Some(mut wal) = wal else {
            self.push(job);
            return None;
        };
        self.let_go(shared, &mut wal);
        let started = Instant::now();
        let LogJob { id, records } = job;
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(piece_of(rest, self.limits.piece_bytes));
            match wal.append(piece) {
                Ok(_) => rest = later,
                // Nothing of this piece was taken; the log thread goes on with it.
                Err(WalError::Full { .. }) => {
                    self.push(LogJob { id, records: rest.to_vec() });
                    return None;
                }
                Err(error) => {
                    shared.fail(crate::chain(&error));
                    return None;
                }
            }
        }
        if let Err(error) = synced(shared, pulse, &mut wal, started, records.len()) {
            shared.fail(crate::chain(&error));
            return None;
        }
        if wal.spares_missing() > 0 {
            background.wake();
        }
        Some(id)
    }

    /// The log thread looks whether the log is idle and its end not confirmed.
    pub(crate) fn nudge(&self) {
        self.jobs.push(None);
    }

    /// Entries behind these stay, as long as that makes the log no longer than it may be and there is
    /// plenty of room on the disk.
    pub(crate) fn hold(&self, held: BTreeMap<GroupId, Index>) {
        *self.held.lock() = held;
    }

    /// Lets go of segments, if rows have become durable since the last look.
    fn let_go<S>(&self, shared: &Shared<S>, wal: &mut NodeLog) -> bool {
        let Some(mut durable) = self.durable.lock().take() else { return false };
        let keep_bytes = self.limits.keep_bytes;
        let is_short = wal.end().0 - wal.first().0 < keep_bytes.saturating_add(HELD_BYTES_MAX);
        let space = &shared.space;
        if is_short && space.free_bytes() > 2 * space.reserve_bytes() {
            for (group, index) in &*self.held.lock() {
                if let Some(upto) = durable.get_mut(group) {
                    *upto = *index.min(upto);
                }
            }
        }
        let released = wal.release(&durable, keep_bytes) > 0;
        if released && self.limits.feeds {
            shared.mail.push(Mail::Input(Input::LogBegins(wal.begins())));
        }
        released
    }

    /// The segments that have entries; waits for a write and sync that is under way.
    pub(crate) fn segments_with(&self, wants: &[Want]) -> Segments {
        self.wal.lock().segments_with(wants)
    }

    /// Rows up to these indexes are durable: log segments behind them may be used again.
    pub(crate) fn release(&self, durable: BTreeMap<GroupId, Index>) {
        *self.durable.lock() = Some(durable);
        self.jobs.push(None);
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.jobs.push(None);
    }
}

pub(crate) fn run<S: OrderedStore>(
    shared: &Shared<S>,
    inbox: &LogBox,
    background: &Background,
    pulse: &Pulse,
) {
    let (mut jobs, mut records, mut done) = (Vec::new(), Vec::new(), Vec::new());
    let mut patience = Duration::from_secs(60);
    while !inbox.stopped.load(Ordering::Relaxed) {
        inbox.jobs.take(&mut jobs, patience);
        let mut wal = inbox.wal.lock();
        inbox.let_go(shared, &mut wal);
        for job in jobs.drain(..).flatten() {
            done.push(job.id);
            records.extend(job.records);
        }
        if done.is_empty() {
            match wal.idle_mark() {
                Ok(_) => {}
                // The mark is late; what it would confirm is on disk.
                Err(WalError::Full { .. }) => std::thread::sleep(FULL_DISK_PAUSE),
                Err(error) => return shared.fail(crate::chain(&error)),
            }
        } else {
            match write(shared, inbox, pulse, &mut wal, &records) {
                Ok(true) => {}
                // Stopped while the disk was full: nothing of this batch was acknowledged.
                Ok(false) => return,
                Err(error) => return shared.fail(crate::chain(&error)),
            }
            records.clear();
            let written = done.len();
            for job in done.drain(..) {
                shared.mail.push(Mail::Input(Input::LogDone(job)));
            }
            // Behind the mail: whoever sees that nothing is under way finds all of it there.
            inbox.unwritten.fetch_sub(written, Ordering::AcqRel);
            if wal.spares_missing() > 0 {
                background.wake();
            }
        }
        let wants_mark = wal.wants_idle_mark();
        patience = if wants_mark { IDLE_MARK_AFTER } else { Duration::from_secs(60) };
    }
    // The node may stay down for long: damage to its last records must not pass for a torn write.
    let mut wal = inbox.wal.lock();
    if wal.wants_idle_mark()
        && let Err(error) = wal.idle_mark()
    {
        let error = crate::chain(&error);
        tracing::warn!(error, "the end of the log could not be confirmed at the stop");
    }
}

/// Writes and syncs everything that waited. False when the node stopped meanwhile.
fn write<S: OrderedStore>(
    shared: &Shared<S>,
    inbox: &LogBox,
    pulse: &Pulse,
    wal: &mut NodeLog,
    records: &[Record],
) -> Result<bool, WalError> {
    let started = Instant::now();
    let mut rest = records;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(piece_of(rest, inbox.limits.piece_bytes));
        if !append(shared, inbox, wal, piece)? {
            return Ok(false);
        }
        rest = later;
    }
    synced(shared, pulse, wal, started, records.len())?;
    Ok(true)
}

/// Syncs, and tells how long it took since `started`.
fn synced<S: OrderedStore>(
    shared: &Shared<S>,
    pulse: &Pulse,
    wal: &mut NodeLog,
    started: Instant,
    records: usize,
) -> Result<(), WalError> {
    wal.sync()?;
    let took = started.elapsed();
    pulse.synced(took);
    shared.metrics.log_sync_seconds.observe(took.as_secs_f64());
    shared.metrics.log_batch_entries.observe(records as f64);
    Ok(())
}

/// How many of the records go into one call; at least one, and never one without what must be found
/// with it after a crash.
fn piece_of(records: &[Record], bytes_max: u64) -> usize {
    /// Counted for a record on top of its data, bytes.
    const OVERHEAD: u64 = 64;
    let mut bytes = 0;
    let fit = records.iter().take_while(|record| {
        let data = if let Record::Entry { data, .. } = record { data.len() as u64 } else { 0 };
        bytes += data + OVERHEAD;
        bytes <= bytes_max
    });
    let fits = fit.count().max(1);
    match records.get(fits) {
        Some(next) if !LogJob::may_part(&records[fits - 1], next) => {
            // The first of the two opens the next call, or both go although they are more.
            if fits > 1 { fits - 1 } else { 2 }
        }
        Some(_) | None => fits,
    }
}

/// Appends one piece, and waits for room when the disk is full. False when the node stopped
/// meanwhile.
fn append<S: OrderedStore>(
    shared: &Shared<S>,
    inbox: &LogBox,
    wal: &mut NodeLog,
    piece: &[Record],
) -> Result<bool, WalError> {
    while let Err(error) = wal.append(piece) {
        if !matches!(error, WalError::Full { .. }) {
            return Err(error);
        }
        if !shared.space.log_waits(true) {
            tracing::warn!("the disk of the log is full; writes wait until there is room");
        }
        if inbox.stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        // Room comes before whoever is given rows.
        inbox.hold(BTreeMap::new());
        // A flush may have freed segments meanwhile. They can be used again once the log says on
        // disk that it does without them, which the mark does.
        if inbox.let_go(shared, wal) {
            match wal.idle_mark() {
                Ok(_) => continue,
                Err(WalError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        std::thread::sleep(FULL_DISK_PAUSE);
    }
    if shared.space.log_waits(false) {
        tracing::info!("the disk of the log has room again");
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
