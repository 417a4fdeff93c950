//! What the log did, for metrics and measurements.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the log was opened. Readable from any thread while the log works.
#[derive(Debug, Default)]
pub struct Counters {
    jobs: AtomicU64,
    records: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    marks: AtomicU64,
    rotations: AtomicU64,
    inline_preparations: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Jobs written for the owner.
    pub jobs: u64,
    /// Records of groups in those jobs.
    pub records: u64,
    /// Bytes written, with headers, marks and repeated state.
    pub written_bytes: u64,
    /// Files synced.
    pub syncs: u64,
    /// Marks written while idle.
    pub marks: u64,
    /// Segments begun after the first.
    pub rotations: u64,
    /// Segments that the owner had to prepare itself because no spare was ready.
    pub inline_preparations: u64,
}

impl Counters {
    /// All totals. Each is exact; together they may straddle a job.
    #[must_use]
    pub fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            jobs: get(&self.jobs),
            records: get(&self.records),
            written_bytes: get(&self.written_bytes),
            syncs: get(&self.syncs),
            marks: get(&self.marks),
            rotations: get(&self.rotations),
            inline_preparations: get(&self.inline_preparations),
        }
    }

    pub(crate) fn job(&self, records: usize) {
        add(&self.jobs, 1);
        add(&self.records, records as u64);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        add(&self.written_bytes, bytes as u64);
    }

    pub(crate) fn synced(&self) {
        add(&self.syncs, 1);
    }

    pub(crate) fn marked(&self) {
        add(&self.marks, 1);
    }

    pub(crate) fn rotated(&self) {
        add(&self.rotations, 1);
    }

    pub(crate) fn prepared_inline(&self) {
        add(&self.inline_preparations, 1);
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
