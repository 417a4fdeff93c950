//! What the store costs, in one run: `cargo run --release -p tl-store --example measure [dir]`.
//!
//! Figures are for comparing builds on one machine; the directory should be on the disk that
//! is meant, since the flush is made of writes and syncs.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use tl_store::{GroupWrites, LsmStore, OrderedStore, StoreOptions};
use tl_types::keys::GroupField;
use tl_types::{FullKey, Generation, GroupId, Index, ResourceNumber, RowKey, Seq, Table, Term};

const GENERATION: Generation = Generation(1);
const GROUPS: u64 = 256;
const SESSIONS: u64 = 1_024;
const EVENTS: u64 = 32 * 1_024;
const READS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("tl-store"), PathBuf::from);
    let store = LsmStore::open(&dir, StoreOptions::default())?;

    fill(&store, 0);
    time("rotate", 1, || assert!(store.rotate()));
    time("flush 32 MiB of 1 KiB events", 1, || store.flush_one().map(|_| ()))?;

    time("get_cached, header after a flush (cache)", READS, || {
        for nth in 0..READS {
            let (group, number, _) = place(nth % SESSIONS);
            black_box(store.get_cached(group, GENERATION, &RowKey::session(number)));
        }
    });
    time("get, event in a table (block cache warm after first pass)", READS, || read(&store))?;
    time("get, event in a table again", READS, || read(&store))?;
    time("range of 100 events", 1_000, || {
        for nth in 0..1_000 {
            let (group, number, _) = place(nth % SESSIONS);
            let start = RowKey::event(number, Seq(1));
            let end = RowKey::table_end(Table::Event, number);
            black_box(store.range(group, GENERATION, &start, &end, 100, usize::MAX)?);
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    time("prefetch of an absent row", 10_000, || {
        for nth in 0..10_000u64 {
            let (group, number, _) = place(nth % SESSIONS);
            let key = RowKey::producer(number, &format!("absent-{nth}"));
            store.prefetch(&[FullKey::new(group, GENERATION, &key)])?;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;

    fill(&store, EVENTS);
    time("get_cached, header in the memtable", READS, || {
        for nth in 0..READS {
            let (group, number, _) = place(nth % SESSIONS);
            black_box(store.get_cached(group, GENERATION, &RowKey::session(number)));
        }
    });
    store.rotate();
    time("flush 32 MiB, once more", 1, || store.flush_one().map(|_| ()))?;
    time("compact until done", 1, || {
        while store.compact_step()? {}
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!("{:?}", store.stats());
    Ok(())
}

/// Group, session and seq of the nth event.
fn place(nth: u64) -> (GroupId, ResourceNumber, Seq) {
    let session = nth % SESSIONS;
    (GroupId((session % GROUPS) as u16), ResourceNumber(session + 1), Seq(nth / SESSIONS + 1))
}

/// Appends events as a group applies them: an event, its header and two counters each.
fn fill(store: &LsmStore, from: u64) {
    let event = Bytes::from(vec![7; 1_024]);
    let header = Bytes::from(vec![1; 200]);
    let counter = Bytes::from_static(&[0; 16]);
    time("write, one entry of one event, header, two counters", EVENTS, || {
        for nth in from..from + EVENTS {
            let (group, number, seq) = place(nth);
            store.write(GroupWrites {
                group,
                generation: GENERATION,
                index: Index(nth + 1),
                term: Term(1),
                rows: vec![
                    (RowKey::event(number, seq), Some(event.clone())),
                    (RowKey::session(number), Some(header.clone())),
                    (RowKey::group(GroupField::Last), Some(counter.clone())),
                ],
            });
        }
    });
}

fn read(store: &LsmStore) -> Result<(), Box<dyn Error>> {
    for nth in 0..READS {
        let (group, number, seq) = place(nth.wrapping_mul(7_919) % EVENTS);
        black_box(store.get(group, GENERATION, &RowKey::event(number, seq))?);
    }
    Ok(())
}

fn time<T>(what: &str, times: u64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("{:>12.0} ns  {what}", start.elapsed().as_nanos() as f64 / times as f64);
    result
}
