//! The row cache: what the runs say about single rows, their absence included.
//!
//! Entries speak of the runs alone. A memtable that has the row is asked first, so an entry may
//! lag behind the memtables; it must never lag behind the runs once they are all that is left.
//! Whoever installs or corrects entries keeps that order; see `shared`.
//!
//! The hasher is fixed and there is one shard, so that a simulation with one seed evicts the
//! same rows in every run.

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use rustc_hash::FxBuildHasher;
use tl_types::FullKey;

/// Bytes counted for an entry beyond its key and value.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// Bytes that an entry has on average, from which the cache sizes its table.
const ENTRY_BYTES_GUESS: usize = 256;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<FullKey, Option<Bytes>> for ByBytes {
    fn weight(&self, key: &FullKey, value: &Option<Bytes>) -> u64 {
        let value = value.as_ref().map_or(0, Bytes::len);
        (key.as_bytes().len() + value) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// Rows of the runs, bounded in bytes.
pub(crate) struct RowCache {
    rows: Cache<
        FullKey,
        Option<Bytes>,
        ByBytes,
        FxBuildHasher,
        DefaultLifecycle<FullKey, Option<Bytes>>,
    >,
}

impl RowCache {
    pub(crate) fn new(bytes_max: usize) -> RowCache {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity((bytes_max / ENTRY_BYTES_GUESS).max(1))
            .weight_capacity(bytes_max as u64)
            .build()
            .expect("every option the cache needs is given");
        let rows =
            Cache::with_options(options, ByBytes, FxBuildHasher, DefaultLifecycle::default());
        RowCache { rows }
    }

    /// `Some(None)` means that the runs are known not to have the row.
    pub(crate) fn get(&self, key: &FullKey) -> Option<Option<Bytes>> {
        self.rows.get(key)
    }

    /// Whether the row is here, without counting as a use of it.
    pub(crate) fn has(&self, key: &FullKey) -> bool {
        self.rows.peek(key).is_some()
    }

    /// Installs a row, or its absence. The value is copied: as a slice of a log entry or of a
    /// block it would keep much more than itself in memory.
    pub(crate) fn put(&self, key: FullKey, value: Option<&[u8]>) {
        self.rows.insert(key, value.map(Bytes::copy_from_slice));
    }

    pub(crate) fn remove(&self, key: &FullKey) {
        self.rows.remove(key);
    }

    pub(crate) fn clear(&self) {
        self.rows.clear();
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.weight()
    }
}
