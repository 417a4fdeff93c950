//! The log thread: drain the queue, one write, one sync, complete in order. It never waits to
//! fill a batch; what arrives during a sync is the next batch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tl_raft::LogJob;
use tl_store::OrderedStore;
use tl_types::{GroupId, Index};
use tl_wal::{Record, Wal, WalError};

use super::mailbox::Mailbox;
use super::{Mail, Shared};
use crate::node::Input;

/// The node's log on a real disk.
pub type NodeLog = Wal;

/// An idle log confirms its end within this time, so that damage there cannot be taken for a
/// torn write.
const IDLE_MARK_AFTER: Duration = Duration::from_millis(50);
/// Wait before a write is tried again on a disk without room.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);

/// Jobs on their way to the log thread; bounded by admission.
#[derive(Debug)]
pub(crate) struct LogBox {
    jobs: Mailbox<Option<LogJob>>,
    /// Indexes up to which rows are durable, since the log thread last looked.
    durable: Mutex<Option<BTreeMap<GroupId, Index>>>,
    keep_bytes: u64,
    stopped: AtomicBool,
}

impl LogBox {
    pub(crate) fn new(keep_bytes: u64) -> LogBox {
        LogBox {
            jobs: Mailbox::default(),
            durable: Mutex::new(None),
            keep_bytes,
            stopped: AtomicBool::new(false),
        }
    }

    pub(crate) fn push(&self, job: LogJob) {
        self.jobs.push(Some(job));
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

pub(crate) fn run<S: OrderedStore>(shared: &Shared<S>, inbox: &LogBox, mut wal: NodeLog) {
    let (mut jobs, mut records, mut done) = (Vec::new(), Vec::new(), Vec::new());
    while !inbox.stopped.load(Ordering::Relaxed) {
        let patience =
            if wal.wants_idle_mark() { IDLE_MARK_AFTER } else { Duration::from_secs(60) };
        inbox.jobs.take(&mut jobs, patience);
        if let Some(durable) = inbox.durable.lock().take() {
            wal.release(&durable, inbox.keep_bytes);
        }
        if jobs.is_empty() {
            if let Err(error) = wal.idle_mark() {
                return shared.fail(crate::chain(&error));
            }
            continue;
        }
        for job in jobs.drain(..).flatten() {
            done.push(job.id);
            records.extend(job.records);
        }
        if done.is_empty() {
            continue;
        }
        match write(shared, inbox, &mut wal, &records) {
            Ok(true) => {}
            // Stopped while the disk was full: nothing of this batch was acknowledged.
            Ok(false) => return,
            Err(error) => return shared.fail(crate::chain(&error)),
        }
        records.clear();
        for job in done.drain(..) {
            shared.mail.push(Mail::Input(Input::LogDone(job)));
        }
    }
}

/// One write and one sync of everything that waited. False when the node stopped meanwhile.
fn write<S: OrderedStore>(
    shared: &Shared<S>,
    inbox: &LogBox,
    wal: &mut NodeLog,
    records: &[Record],
) -> Result<bool, WalError> {
    let (started, before) = (Instant::now(), wal.end());
    let mut told = false;
    while let Err(error) = wal.append(records) {
        if !matches!(error, WalError::Full { .. }) {
            return Err(error);
        }
        if !told {
            tracing::warn!("the disk of the log is full; writes wait until there is room");
            told = true;
        }
        if inbox.stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        std::thread::sleep(FULL_DISK_PAUSE);
    }
    wal.sync()?;
    let metrics = &shared.metrics;
    metrics.log_syncs.inc();
    metrics.log_bytes.inc_by(wal.end().0 - before.0);
    metrics.log_sync_seconds.observe(started.elapsed().as_secs_f64());
    metrics.log_batch_entries.observe(records.len() as f64);
    Ok(true)
}
