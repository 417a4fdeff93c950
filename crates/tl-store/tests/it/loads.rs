//! Loads that came to nothing give their disk back.

use std::ops::Range;

use bytes::Bytes;
use tl_store::{GroupWrites, LsmStore, OrderedStore, StoreOptions};
use tl_types::{Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Term};

const GROUPS: u16 = 3;
const GROUP: GroupId = GroupId(1);
const LIVE: Generation = Generation(1);
const LOAD: Generation = Generation(2);
const ROUNDS: u64 = 12;
const WRITTEN_PER_ROUND: u64 = 10;
const LOADED_PER_ROUND: u64 = 200;

fn events(seqs: Range<u64>) -> Vec<(RowKey, Option<Bytes>)> {
    let event = |seq| (RowKey::event(ResourceNumber(1), Seq(seq)), Some(value(seq)));
    seqs.map(event).collect()
}

/// Long and short ones: some go to blob files, some stay in tables.
fn value(seq: u64) -> Bytes {
    Bytes::from(vec![seq as u8; if seq.is_multiple_of(2) { 1_000 } else { 50 }])
}

fn of_round(round: u64, rows: u64) -> Range<u64> {
    1 + round * rows..1 + (round + 1) * rows
}

fn count(store: &LsmStore, group: GroupId, generation: Generation, seqs: u64) -> usize {
    let held = |seq: &u64| {
        let found = store.get(group, generation, &RowKey::event(ResourceNumber(1), Seq(*seq)));
        found.unwrap().is_some_and(|found| found == value(*seq))
    };
    (1..=seqs).filter(held).count()
}

fn open(dir: &std::path::Path) -> LsmStore {
    let options = StoreOptions { table_file_bytes: 4 * 1024, ..StoreOptions::default() };
    let store = LsmStore::open(dir, options).unwrap();
    (0..GROUPS).for_each(|group| store.set_generation(GroupId(group), LIVE));
    store
}

fn compact(store: &LsmStore) {
    while store.compact_step().unwrap() {}
}

#[test]
fn a_load_that_an_earlier_process_left_behind_gives_its_disk_back_once_it_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..ROUNDS {
        // The groups are written to meanwhile: no flush has rows of the load alone.
        for group in (0..GROUPS).map(GroupId) {
            let (index, term) = (Index(round + 1), Term(1));
            let rows = events(of_round(round, WRITTEN_PER_ROUND));
            store.write(GroupWrites { group, generation: LIVE, index, term, rows });
        }
        store.load(GROUP, LOAD, events(of_round(round, LOADED_PER_ROUND)));
        assert!(store.rotate() && store.flush_one().unwrap());
        compact(&store);
    }
    drop(store);

    let store = open(dir.path());
    compact(&store);
    let loaded = (ROUNDS * LOADED_PER_ROUND) as usize;
    assert_eq!(count(&store, GROUP, LOAD, loaded as u64), loaded, "it may be copied from");
    let before = store.stats().disk_bytes;
    store.set_loading(GROUP, &[]);
    compact(&store);
    let after = store.stats().disk_bytes;
    assert!(after < before / 4, "{after} of {before} bytes are left");
    let written = ROUNDS * WRITTEN_PER_ROUND;
    for group in (0..GROUPS).map(GroupId) {
        assert_eq!(count(&store, group, LIVE, written), written as usize);
        assert_eq!(store.applied(group).index, Index(ROUNDS));
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!(count(&store, GROUP, LIVE, written), written as usize, "after a start too");
}
