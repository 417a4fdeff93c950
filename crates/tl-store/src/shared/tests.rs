//! Interleavings that threads would meet once in a blue moon, played by hand.

#![allow(clippy::unwrap_used)]

use std::sync::Weak;

use tl_types::{Index, Term};

use super::*;
use crate::runs::{PinnedRows, RunRows};

const GROUP: GroupId = GroupId(0);
const GENERATION: Generation = Generation(1);
const NUMBER: ResourceNumber = ResourceNumber(1);

/// Runs that let something happen between a read and its answer, once.
struct Interrupted {
    runs: MemRuns,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Interrupted {
    fn interrupt(&self) {
        let meanwhile = self.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

impl Runs for Interrupted {
    fn ingest(&self, rows: &mut dyn Iterator<Item = (FullKey, Slot)>) -> Result<(), StoreError> {
        self.runs.ingest(rows)
    }

    fn get(&self, key: &FullKey) -> Result<Option<Bytes>, StoreError> {
        let found = self.runs.get(key);
        self.interrupt();
        found
    }

    fn range(&self, start: Bound<&FullKey>, end: Bound<&FullKey>) -> RunRows<'_> {
        let found: Vec<_> = self.runs.range(start, end).collect();
        self.interrupt();
        Box::new(found.into_iter())
    }

    fn last_key(&self, start: &FullKey, end: &FullKey) -> Result<Option<FullKey>, StoreError> {
        self.runs.last_key(start, end)
    }

    fn pinned(&self, start: &FullKey, end: &FullKey) -> PinnedRows {
        self.runs.pinned(start, end)
    }

    fn compact_step(&self) -> Result<bool, StoreError> {
        self.runs.compact_step()
    }

    fn scrub(
        &self,
        pace: &mut dyn FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, StoreError> {
        self.runs.scrub(pace)
    }

    fn flush_failed(&self) -> StoreError {
        self.runs.flush_failed()
    }

    fn bad_row(&self, key: &FullKey) -> StoreError {
        self.runs.bad_row(key)
    }

    fn stats(&self, stats: &mut StoreStats) {
        self.runs.stats(stats);
    }
}

/// A store whose next read of the runs is overtaken by a write and a flush of `value`.
fn overtaken(key: &RowKey, value: &'static str) -> Arc<Store<Interrupted>> {
    let options = StoreOptions::default();
    let floors = Arc::new(Floors::default());
    let runs = Interrupted { runs: MemRuns::new(Arc::clone(&floors)), meanwhile: Mutex::new(None) };
    let store = Arc::new(Store::over(runs, floors, options).unwrap());
    write_and_flush(&store, 1, key, "old");
    // Forget what the flush put into the cache.
    store.cache.clear();
    let weak: Weak<_> = Arc::downgrade(&store);
    let key = key.clone();
    *store.runs.meanwhile.lock() =
        Some(Box::new(move || write_and_flush(&weak.upgrade().unwrap(), 2, &key, value)));
    store
}

fn write_and_flush(store: &Store<Interrupted>, index: u64, key: &RowKey, value: &'static str) {
    store.write(GroupWrites {
        group: GROUP,
        generation: GENERATION,
        index: Index(index),
        term: Term(1),
        rows: vec![(key.clone(), Some(Bytes::from_static(value.as_bytes())))],
    });
    assert!(store.rotate());
    assert!(store.flush_one().unwrap());
}

#[test]
fn a_prefetch_that_a_flush_overtook_does_not_install_what_it_read_before() {
    for key in [RowKey::session(NUMBER), RowKey::producer_age(NUMBER, Seq(1), "p")] {
        let store = overtaken(&key, "new");
        store.prefetch(&[FullKey::new(GROUP, GENERATION, &key)]).unwrap();
        let read = store.get_cached(GROUP, GENERATION, &key);
        assert_eq!(read, Read::Found(Bytes::from_static(b"new")));
    }
}

#[test]
fn a_range_that_a_flush_overtook_is_read_again() {
    let key = RowKey::producer_age(NUMBER, Seq(1), "p");
    let (start, end) = (key.clone(), RowKey::table_end(Table::ProducerAge, NUMBER));
    let store = overtaken(&key, "new");
    store.prefetch_range(GROUP, GENERATION, &start, &end, 8).unwrap();
    let read = store.range_cached(GROUP, GENERATION, &start, &end, 8);
    assert_eq!(read, Read::Found(vec![(key, Bytes::from_static(b"new"))]));
}

#[test]
fn a_blocking_read_that_a_flush_overtook_misses_nothing() {
    let key = RowKey::session(NUMBER);
    let store = overtaken(&key, "new");
    let value = store.get(GROUP, GENERATION, &key).unwrap().unwrap();
    assert!(value == "old" || value == "new", "either moment of the call will do");

    let store = overtaken(&key, "new");
    let end = RowKey::table_end(Table::Session, NUMBER);
    let rows = store.range(GROUP, GENERATION, &key, &end, 8, usize::MAX).unwrap();
    assert_eq!(rows.len(), 1);
}

#[test]
fn hot_rows_of_a_flushed_memtable_need_no_prefetch() {
    let store = MemStore::new(StoreOptions::default());
    let key = RowKey::session(NUMBER);
    let event = RowKey::event(NUMBER, Seq(1));
    let value = Some(Bytes::from_static(b"v"));
    let rows = vec![(key.clone(), value.clone()), (event.clone(), value)];
    let (index, term) = (Index(1), Term(1));
    store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
    store.rotate();
    store.flush_one().unwrap();
    assert!(matches!(store.get_cached(GROUP, GENERATION, &key), Read::Found(_)));
    assert_eq!(store.get_cached(GROUP, GENERATION, &event), Read::Cold);
}

#[test]
fn rows_of_a_session_without_events_stay_in_memory_only_if_they_were_there() {
    let store = MemStore::new(StoreOptions::default());
    let (made, known) = (RowKey::session(NUMBER), RowKey::session(ResourceNumber(2)));
    store.prefetch(&[FullKey::new(GROUP, GENERATION, &known)]).unwrap();
    let value = Some(Bytes::from_static(b"v"));
    let rows = vec![(made.clone(), value.clone()), (known.clone(), value)];
    let (index, term) = (Index(1), Term(1));
    store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
    store.rotate();
    store.flush_one().unwrap();
    assert_eq!(store.get_cached(GROUP, GENERATION, &made), Read::Cold);
    assert!(matches!(store.get_cached(GROUP, GENERATION, &known), Read::Found(_)));
}

#[test]
fn a_row_that_rots_is_damaged_for_all_who_read_it_until_it_is_written_anew() {
    let store = MemStore::new(StoreOptions::default());
    let (rotten, sound) = (RowKey::session(NUMBER), RowKey::event(NUMBER, Seq(1)));
    let mut index = 0;
    let mut flush = |value: &'static [u8]| {
        let rows = [&rotten, &sound].map(|key| (key.clone(), Some(Bytes::from_static(value))));
        index += 1;
        let (index, term, rows) = (Index(index), Term(1), rows.to_vec());
        store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
        assert!(store.rotate() && store.flush_one().unwrap());
    };
    flush(b"old");
    let session = |key: &RowKey| key.table() == Table::Session;
    assert_eq!(store.rot(GROUP, Generation(9), 7, session), None);
    assert_eq!(store.rot(GROUP, GENERATION, 7, session), Some(rotten.clone()));
    let damaged = |error: StoreError| assert!(matches!(error, StoreError::Damaged { .. }));
    damaged(store.get(GROUP, GENERATION, &rotten).unwrap_err());
    damaged(store.prefetch(&[FullKey::new(GROUP, GENERATION, &rotten)]).unwrap_err());
    let end = RowKey::table_end(Table::Event, NUMBER);
    damaged(store.range(GROUP, GENERATION, &rotten, &end, 8, usize::MAX).unwrap_err());
    assert!(store.export(GROUP).unwrap().rows.any(|row| row.is_err()));
    assert!(store.get(GROUP, GENERATION, &sound).unwrap().is_some());
    store.crash();
    damaged(store.get(GROUP, GENERATION, &rotten).unwrap_err());
    flush(b"new");
    assert_eq!(store.get(GROUP, GENERATION, &rotten).unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn back_pressure_rises_with_sealed_memtables_and_falls_with_flushes() {
    let options = StoreOptions { sealed_max: 2, memtable_bytes: 1, ..StoreOptions::default() };
    let store = MemStore::new(options);
    for index in 1..=2 {
        assert!(!store.is_full());
        let rows = vec![(RowKey::session(NUMBER), Some(Bytes::from_static(b"v")))];
        let (index, term) = (Index(index), Term(1));
        store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
        assert!(store.needs_rotation(0));
        assert!(store.rotate());
        assert!(!store.rotate(), "an empty memtable is not sealed");
    }
    assert!(store.is_full());
    assert!(store.flush_one().unwrap());
    assert!(!store.is_full());
}

#[test]
fn a_small_memtable_behind_much_log_is_due() {
    let with =
        |memtable_bytes| MemStore::new(StoreOptions { memtable_bytes, ..StoreOptions::default() });
    let small = with(1);
    assert!(!small.needs_rotation(LOG_BYTES_MIN - 1) && small.needs_rotation(LOG_BYTES_MIN));
    let large = with(LOG_BYTES_MIN);
    let log_max = LOG_BYTES_MIN * LOG_PER_MEMTABLE;
    assert!(!large.needs_rotation(log_max - 1) && large.needs_rotation(log_max));
}
