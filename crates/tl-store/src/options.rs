//! What a store is opened with.

use std::fmt;
use std::sync::Arc;

/// Bytes of rows between two calls of [`Pacing`].
const PACING_STEP_BYTES: u64 = 256 * 1024;

/// Sizes and limits of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Bytes of rows in the active memtable at which it wants to be rotated. Default 24 MiB;
    /// smaller makes flushes shorter and more frequent.
    pub memtable_bytes: usize,
    /// Bytes of rows of the runs that the row cache may hold. Default 32 MiB.
    pub cache_bytes: usize,
    /// Bytes of table and blob blocks kept in memory. Default 32 MiB.
    pub block_cache_bytes: usize,
    /// Sealed memtables at which [`crate::OrderedStore::is_full`] says yes. Default 4.
    pub sealed_max: usize,
    /// Values from this many bytes on live in blob files, out of compaction's way. Default 512.
    pub blob_threshold: u32,
    /// Size at which a blob file is finished and the next one begun. Default 64 MiB.
    pub blob_file_bytes: u64,
    /// Size at which compaction finishes a table and begins the next. Default 2 MiB: a
    /// compaction rewrites what its tables overlap, about ten times their size, and no flush begins
    /// meanwhile, so larger tables make the writer wait.
    pub table_file_bytes: u64,
    /// Forgotten rows (events below a floor, rows of earlier generations) from which on
    /// compaction goes over all tables to drop them, if they are also a quarter of all rows.
    /// Default 100,000.
    pub purge_rows_min: u64,
    /// Called between steps of a flush and of a compaction; may wait.
    pub pacing: Pacing,
    /// Called at named points of a flush and of a compaction, so that a test can stop there.
    pub kill_points: KillPoints,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            memtable_bytes: 24 * 1024 * 1024,
            cache_bytes: 32 * 1024 * 1024,
            block_cache_bytes: 32 * 1024 * 1024,
            sealed_max: 4,
            blob_threshold: 512,
            blob_file_bytes: 64 * 1024 * 1024,
            table_file_bytes: 2 * 1024 * 1024,
            purge_rows_min: 100_000,
            pacing: Pacing::none(),
            kill_points: KillPoints::none(),
        }
    }
}

/// Work that runs in the background and can be made to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Writing a memtable to the runs: making it wait fills memory.
    Flush,
    /// Rewriting runs: making it wait leaves more of them to read.
    Compaction,
}

/// What is called between steps, with the bytes of the step.
type Step = Arc<dyn Fn(Work, u64) + Send + Sync>;

/// A callback between steps of background work, called by the thread that does it with about
/// how many bytes of rows it went through since the last call. It slows the work by not
/// returning: to a bandwidth, or while the log's syncs take long.
#[derive(Clone, Default)]
pub struct Pacing(Option<Step>);

impl Pacing {
    /// Never waits.
    #[must_use]
    pub fn none() -> Pacing {
        Pacing(None)
    }

    /// Calls `step` between steps.
    #[must_use]
    pub fn new(step: impl Fn(Work, u64) + Send + Sync + 'static) -> Pacing {
        Pacing(Some(Arc::new(step)))
    }

    /// Counts the bytes of a row; after enough of them it is a step.
    pub(crate) fn count(&self, work: Work, counted: &mut u64, bytes: usize) {
        *counted += bytes as u64;
        if *counted >= PACING_STEP_BYTES
            && let Some(step) = &self.0
        {
            step(work, std::mem::take(counted));
        }
    }
}

impl fmt::Debug for Pacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Pacing(set)" } else { "Pacing(none)" })
    }
}

/// What a kill point calls, with its name.
type Reached = Arc<dyn Fn(&'static str) + Send + Sync>;

/// A callback at the named points where a crash is interesting.
#[derive(Clone, Default)]
pub struct KillPoints(Option<Reached>);

impl KillPoints {
    /// Calls nothing.
    #[must_use]
    pub fn none() -> KillPoints {
        KillPoints(None)
    }

    /// Calls `reached` at each point.
    #[must_use]
    pub fn new(reached: impl Fn(&'static str) + Send + Sync + 'static) -> KillPoints {
        KillPoints(Some(Arc::new(reached)))
    }

    pub(crate) fn reach(&self, point: &'static str) {
        if let Some(reached) = &self.0 {
            reached(point);
        }
    }
}

impl fmt::Debug for KillPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "KillPoints(set)" } else { "KillPoints(none)" })
    }
}
