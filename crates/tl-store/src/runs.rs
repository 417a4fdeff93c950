//! Sorted runs: what lies beneath the memtables.
//!
//! Two of them: the tree on disk (`tree`) and a map in memory (`runs::mem`). What stands above,
//! memtables, cache, merging and rotation, is one code for both, so that the simulation runs
//! what the product runs.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use tl_types::FullKey;

use crate::error::StoreError;
use crate::memtable::Slot;
use crate::store::{ScrubProgress, ScrubReport, StoreStats};

pub(crate) mod mem;

/// Rows of a range of the runs, in order, as of one moment.
pub(crate) type RunRows<'a> = Box<dyn Iterator<Item = Result<(FullKey, Bytes), StoreError>> + 'a>;

/// The same for whoever keeps them for long: they borrow nothing, and hold the files they are in.
pub(crate) type PinnedRows = Box<dyn Iterator<Item = Result<(FullKey, Bytes), StoreError>> + Send>;

/// Durable rows that change only by whole memtables and by compaction.
pub trait Runs: Send + Sync {
    /// Adds the rows of one memtable, ascending, in one atomic and durable step.
    #[doc(hidden)]
    fn ingest(&self, rows: &mut dyn Iterator<Item = (FullKey, Slot)>) -> Result<(), StoreError>;

    #[doc(hidden)]
    fn get(&self, key: &FullKey) -> Result<Option<Bytes>, StoreError>;

    #[doc(hidden)]
    fn range(&self, start: Bound<&FullKey>, end: Bound<&FullKey>) -> RunRows<'_>;

    /// The key of the last row from `start` to `end` (exclusive).
    #[doc(hidden)]
    fn last_key(&self, start: &FullKey, end: &FullKey) -> Result<Option<FullKey>, StoreError>;

    /// Rows from `start` to `end` (exclusive) as of now, whatever changes while they are read.
    #[doc(hidden)]
    fn pinned(&self, start: &FullKey, end: &FullKey) -> PinnedRows;

    #[doc(hidden)]
    fn compact_step(&self) -> Result<bool, StoreError>;

    #[doc(hidden)]
    fn scrub(
        &self,
        pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, StoreError>;

    /// What to say to a flush after one that failed.
    #[doc(hidden)]
    fn flush_failed(&self) -> StoreError;

    /// What to say of a row whose value makes no sense although its checksum was right.
    #[doc(hidden)]
    fn bad_row(&self, key: &FullKey) -> StoreError;

    /// Fills in what the runs know of the numbers.
    #[doc(hidden)]
    fn stats(&self, stats: &mut StoreStats);
}
