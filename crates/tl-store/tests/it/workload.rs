//! A workload in rounds whose every state is known from the round's number alone, so that a
//! test can tell from what it finds after a crash which flush it fell back to.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tl_store::{GroupWrites, KillPoints, LsmStore, OrderedStore, StoreError, StoreOptions};
use tl_types::keys::GroupField;
use tl_types::{Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Table, Term};

pub const GROUPS: u16 = 3;
pub const GENERATION: Generation = Generation(1);
/// Entries per group and round, one event each.
const ENTRIES: u64 = 6;
/// Sessions per group.
const SESSIONS: u64 = 3;
/// The one session that is never trimmed, so that blob files are forgotten in part.
const KEPT: ResourceNumber = ResourceNumber(3);

pub fn options(kill_points: KillPoints) -> StoreOptions {
    StoreOptions {
        blob_threshold: 64,
        blob_file_bytes: 64 * 1024,
        table_file_bytes: 512,
        purge_rows_min: 8,
        kill_points,
        ..StoreOptions::default()
    }
}

/// The writes of one entry: an event, its session's header, a counter, and a row that only
/// every other round has.
fn entry(group: u16, index: u64) -> GroupWrites {
    let number = ResourceNumber(1 + index % SESSIONS);
    let seq = Seq(1 + (index - 1) / SESSIONS);
    // Long and short ones: some go to blob files, some stay in tables.
    let bytes = if index.is_multiple_of(3) { 10 } else { 200 };
    let event = Bytes::from(vec![index as u8; bytes]);
    let odd_row = RowKey::producer(number, "odd");
    let is_odd = round_of(index) % 2 == 1;
    GroupWrites {
        group: GroupId(group),
        generation: GENERATION,
        index: Index(index),
        term: Term(1),
        rows: vec![
            (RowKey::event(number, seq), Some(event)),
            (RowKey::session(number), Some(Bytes::from(format!("header at {index}")))),
            (RowKey::group(GroupField::Last), Some(Bytes::from(index.to_be_bytes().to_vec()))),
            (odd_row, is_odd.then(|| Bytes::from_static(b"odd"))),
        ],
    }
}

fn round_of(index: u64) -> u64 {
    1 + (index - 1) / ENTRIES
}

/// The floor of every session but one, once `round` was flushed: events of the last two rounds stay.
fn floor(number: ResourceNumber, round: u64) -> Seq {
    if number == KEPT {
        return Seq(0);
    }
    Seq((round.saturating_sub(2) * ENTRIES) / SESSIONS)
}

/// Runs rounds `from..=to`; `flushed` is told of each one once it is durable.
///
/// When there is no room, `no_room` is called and the same is tried again.
pub fn run(
    store: &LsmStore,
    from: u64,
    to: u64,
    mut flushed: impl FnMut(u64),
    mut no_room: impl FnMut(),
) {
    let mut until_done = |call: &dyn Fn() -> Result<bool, StoreError>| loop {
        match call() {
            Err(error) if error.is_no_room() => no_room(),
            done => break done.unwrap(),
        }
    };
    for round in from..=to {
        for index in (round - 1) * ENTRIES + 1..=round * ENTRIES {
            for group in 0..GROUPS {
                store.write(entry(group, index));
            }
        }
        assert!(store.rotate());
        assert!(until_done(&|| store.flush_one()));
        flushed(round);
        for group in 0..GROUPS {
            for number in 1..=SESSIONS {
                let number = ResourceNumber(number);
                store.set_floor(GroupId(group), GENERATION, number, floor(number, round));
            }
        }
        if round % 2 == 0 {
            while until_done(&|| store.compact_step()) {}
        }
    }
}

/// Opens what a run left behind and checks that it is, to the row, the state after some round;
/// returns that round, 0 for none.
pub fn check(dir: &Path) -> u64 {
    let store = LsmStore::open(dir, options(KillPoints::none())).unwrap();
    let applied = store.durable_applied();
    if applied.is_empty() {
        assert!(rows(&store, 0).is_empty());
        return 0;
    }
    let index = applied[0].1.index;
    assert_eq!(applied.len(), usize::from(GROUPS));
    assert!(applied.iter().all(|(_, applied)| applied.index == index), "{applied:?}");
    assert_eq!(index.0 % ENTRIES, 0, "a flush holds whole rounds");
    let round = index.0 / ENTRIES;
    for group in 0..GROUPS {
        assert_eq!(above_floor(rows(&store, group), round), expected(group, round), "{round}");
    }
    let report = store.scrub(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(report.complete && report.damage.is_empty(), "{report:?}");
    round
}

fn rows(store: &LsmStore, group: u16) -> BTreeMap<RowKey, Bytes> {
    let start = RowKey::group(GroupField::NextNumber);
    let end = RowKey::table_end(Table::RequestAge, ResourceNumber(u64::MAX));
    let all = store.range(GroupId(group), GENERATION, &start, &end, usize::MAX, usize::MAX);
    all.unwrap().into_iter().collect()
}

fn expected(group: u16, round: u64) -> BTreeMap<RowKey, Bytes> {
    let mut rows = BTreeMap::new();
    for index in 1..=round * ENTRIES {
        for (key, value) in entry(group, index).rows {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }
    above_floor(rows, round)
}

/// Without the events that a compaction after `round` may or may not have dropped.
fn above_floor(mut rows: BTreeMap<RowKey, Bytes>, round: u64) -> BTreeMap<RowKey, Bytes> {
    rows.retain(|key, _| key.event_seq().is_none_or(|seq| seq > floor(key.number(), round)));
    rows
}

/// The last round whose rows are durable.
pub fn durable_round(store: &LsmStore) -> u64 {
    store.durable_applied().first().map_or(0, |(_, applied)| applied.index.0 / ENTRIES)
}
