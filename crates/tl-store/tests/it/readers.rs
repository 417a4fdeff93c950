//! Readers beside the driver, a flusher and prefetches: memory never answers with yesterday.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tl_store::{GroupWrites, LsmStore, MemStore, OrderedStore, Pacing, Read, StoreOptions, Work};
use tl_types::{FullKey, Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Table, Term};

const GROUP: GroupId = GroupId(0);
const GENERATION: Generation = Generation(1);

fn number(value: &Bytes) -> u64 {
    u64::from_be_bytes(value[..8].try_into().unwrap())
}

/// One row that is overwritten, another that is not hot, and an event for each entry, while all
/// else happens at once.
fn check(store: &dyn OrderedStore, entries: u64) {
    let session = ResourceNumber(1);
    let rows = [RowKey::session(session), RowKey::producer_age(session, Seq(1), "p")];
    let written = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                store.flush_one().unwrap();
                store.compact_step().unwrap();
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                for row in &rows {
                    store.prefetch(&[FullKey::new(GROUP, GENERATION, row)]).unwrap();
                }
                let start = RowKey::table_start(Table::ProducerAge, session);
                let end = RowKey::table_end(Table::ProducerAge, session);
                store.prefetch_range(GROUP, GENERATION, &start, &end, 4).unwrap();
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                look(store, &rows, &written);
            }
        });
        for index in 1..=entries {
            let value = Bytes::from(index.to_be_bytes().to_vec());
            let mut puts: Vec<_> =
                rows.iter().map(|row| (row.clone(), Some(value.clone()))).collect();
            puts.push((RowKey::event(session, Seq(index)), Some(value)));
            store.write(GroupWrites {
                group: GROUP,
                generation: GENERATION,
                index: Index(index),
                term: Term(1),
                rows: puts,
            });
            written.store(index, Ordering::Release);
            if index % 50 == 0 {
                store.rotate();
                while store.is_full() {
                    std::thread::yield_now();
                }
            }
        }
        is_over.store(true, Ordering::Release);
    });
}

fn look(store: &dyn OrderedStore, rows: &[RowKey], written: &AtomicU64) {
    let least = written.load(Ordering::Acquire);
    for row in rows {
        match store.get_cached(GROUP, GENERATION, row) {
            Read::Found(value) => assert!(number(&value) >= least, "{row:?} is stale"),
            Read::Absent => assert_eq!(least, 0, "{row:?} is gone"),
            Read::Cold => {}
        }
        let value = store.get(GROUP, GENERATION, row).unwrap();
        assert!(value.map_or(0, |value| number(&value)) >= least, "{row:?} is stale");
    }
    let session = ResourceNumber(1);
    let start = RowKey::table_start(Table::ProducerAge, session);
    let end = RowKey::table_end(Table::ProducerAge, session);
    if let Read::Found(found) = store.range_cached(GROUP, GENERATION, &start, &end, 4) {
        assert!(found.first().map_or(0, |(_, value)| number(value)) >= least, "a stale range");
    }
    let start = RowKey::event(session, Seq(least.saturating_sub(400) + 1));
    let end = RowKey::table_end(Table::Event, session);
    let events = store.range(GROUP, GENERATION, &start, &end, usize::MAX, usize::MAX).unwrap();
    let first = start.event_seq().unwrap().0;
    assert!(first + events.len() as u64 > least, "events written before are missing");
    for (seq, (_, value)) in (first..).zip(&events) {
        assert_eq!(number(value), seq, "events have a hole");
    }
}

fn options() -> StoreOptions {
    StoreOptions { blob_threshold: 8, ..StoreOptions::default() }
}

#[test]
fn readers_of_the_store_on_disk_never_see_less_than_was_written() {
    let dir = tempfile::tempdir().unwrap();
    check(&LsmStore::open(dir.path(), options()).unwrap(), 5_000);
}

#[test]
fn readers_of_the_store_in_memory_never_see_less_than_was_written() {
    check(&MemStore::new(options()), 20_000);
}

#[test]
fn background_work_asks_its_pacing_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counts = Arc::clone(&asked);
    let pacing = Pacing::new(move |work, bytes| {
        let count = match work {
            Work::Flush => &counts[0],
            Work::Compaction => &counts[1],
        };
        count.fetch_add(bytes, Ordering::Relaxed);
    });
    let options = StoreOptions { pacing, purge_rows_min: 1, ..StoreOptions::default() };
    let store = LsmStore::open(dir.path(), options).unwrap();
    let rows = (1..=8_000).map(|seq| {
        (RowKey::event(ResourceNumber(1), Seq(seq)), Some(Bytes::from_static(&[7; 600])))
    });
    let (index, term, rows) = (Index(1), Term(1), rows.collect());
    store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
    store.rotate();
    store.flush_one().unwrap();
    store.set_floor(GROUP, GENERATION, ResourceNumber(1), Seq(4_000));
    while store.compact_step().unwrap() {}
    assert!(asked[0].load(Ordering::Relaxed) > 4_000_000);
    assert!(asked[1].load(Ordering::Relaxed) > 256 * 1024);
}

#[test]
fn trimmed_events_and_dead_generations_give_their_disk_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { purge_rows_min: 100, ..StoreOptions::default() };
    let store = LsmStore::open(dir.path(), options).unwrap();
    store.set_generation(GROUP, GENERATION);
    for session in 1..=10u64 {
        let rows = (1..=100).map(|seq| {
            let key = RowKey::event(ResourceNumber(session), Seq(seq));
            (key, Some(Bytes::from(vec![session as u8; 1_000])))
        });
        store.write(GroupWrites {
            group: GROUP,
            generation: GENERATION,
            index: Index(session),
            term: Term(1),
            rows: rows.collect(),
        });
        store.rotate();
        store.flush_one().unwrap();
    }
    while store.compact_step().unwrap() {}
    let full = store.stats().disk_bytes;
    assert!(full > 1_000_000);
    for session in 1..=10 {
        store.set_floor(GROUP, GENERATION, ResourceNumber(session), Seq(90));
    }
    while store.compact_step().unwrap() {}
    let trimmed = store.stats().disk_bytes;
    assert!(trimmed < full / 4, "{trimmed} of {full} bytes are left");
    for session in 1..=10 {
        let key = RowKey::event(ResourceNumber(session), Seq(91));
        assert!(store.get(GROUP, GENERATION, &key).unwrap().is_some());
    }
    store.set_generation(GROUP, Generation(2));
    while store.compact_step().unwrap() {}
    assert!(store.stats().disk_bytes < 50_000, "{:?}", store.stats());
    assert_eq!(store.durable_applied().len(), 1);
    drop(store);
    let store = LsmStore::open(dir.path(), StoreOptions::default()).unwrap();
    assert_eq!(store.applied(GROUP).index, Index(10), "applied rows outlive their generation");
}

#[test]
fn a_floor_reaches_compaction_once_the_rows_that_moved_it_are_durable() {
    let store = MemStore::new(StoreOptions::default());
    let number = ResourceNumber(1);
    let write = |index, rows| {
        let (index, term) = (Index(index), Term(1));
        store.write(GroupWrites { group: GROUP, generation: GENERATION, index, term, rows });
    };
    let event = |seq| RowKey::event(number, Seq(seq));
    let put = |seq| (event(seq), Some(Bytes::from_static(b"event")));
    write(1, vec![put(1), put(2)]);
    assert!(store.rotate() && store.flush_one().unwrap());

    write(2, vec![(RowKey::session(number), Some(Bytes::from_static(b"floor 1")))]);
    store.set_floor(GROUP, GENERATION, number, Seq(1));
    while store.compact_step().unwrap() {}
    store.crash();
    let held = |seq| store.get(GROUP, GENERATION, &event(seq)).unwrap().is_some();
    assert!(held(1), "the header that came back knows of no floor");

    write(2, vec![(RowKey::session(number), Some(Bytes::from_static(b"floor 1")))]);
    store.set_floor(GROUP, GENERATION, number, Seq(1));
    assert!(store.rotate() && store.flush_one().unwrap());
    while store.compact_step().unwrap() {}
    assert!(!held(1) && held(2));
}
