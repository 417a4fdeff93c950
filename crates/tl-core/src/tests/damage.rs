//! Rows that are not in memory, or not what they were: nothing is answered from a guess.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use tl_types::keys::GroupField;
use tl_types::{Index, RowKey, UnixMs};

use super::Bench;
use super::script::entry;
use crate::entry::Entry;
use crate::list::{self, ListQuery, ListingFilter};
use crate::memory::MemoryRows;
use crate::{EventQuery, Poison, Read, ReadError, Reply, Rows, apply, cold_keys, session};

/// Rows of which only some are in memory; a range needs all of its rows.
struct Partly {
    all: MemoryRows,
    warm: BTreeSet<RowKey>,
}

impl Rows for Partly {
    fn get(&self, key: &RowKey) -> Read<Bytes> {
        if self.warm.contains(key) { self.all.get(key) } else { Read::Cold }
    }

    fn range(&self, _: &RowKey, _: &RowKey, _: usize) -> Read<Vec<(RowKey, Bytes)>> {
        Read::Cold
    }
}

fn bench() -> Bench {
    let mut bench = Bench::default();
    bench.apply(&entry("#r1 create s title=A"));
    bench.apply(&entry("a s p:1 q:1"));
    bench
}

fn bytes_of(bench: &Bench, line: &str) -> Bytes {
    Entry { stamp: bench.at, ..entry(line) }.encode().into()
}

#[test]
fn loading_what_is_named_until_nothing_is_makes_an_entry_applicable() {
    let lines = [
        "create t title=B",
        "#r2 create t",
        "a s p:2 q:2 new:1",
        "a s p:1 q:1",
        "patch s title=B",
        "hide s & close s & delete s",
        "ack s 1 & trim s 1",
        "a missing p:1",
    ];
    for line in lines {
        let bench = bench();
        let bytes = bytes_of(&bench, line);
        let mut rows = Partly { all: bench.rows.clone(), warm: BTreeSet::new() };
        let cold = apply(&rows, Index(9), bytes.clone()).unwrap();
        assert_eq!((cold.poison, cold.replies), (Some(Poison::Cold), vec![]), "{line}");
        let mut rounds = 0;
        loop {
            let keys = cold_keys(&entry(line), &rows);
            if keys.is_empty() {
                break;
            }
            rows.warm.extend(keys);
            rounds += 1;
        }
        assert!(rounds <= 3, "{line}: {rounds} rounds");
        assert_eq!(apply(&rows, Index(9), bytes.clone()), apply(&bench.rows, Index(9), bytes));
    }
}

#[test]
fn a_tick_and_reads_of_cold_rows_say_so() {
    let bench = bench();
    let rows = Partly { all: bench.rows.clone(), warm: BTreeSet::new() };
    let outcome = apply(&rows, Index(9), bytes_of(&bench, "tick")).unwrap();
    assert_eq!(outcome.poison, Some(Poison::Cold));
    assert_eq!(session::find(&rows, &super::path("s")), Err(Poison::Cold));
    let page = session::read_events(
        &rows,
        tl_types::ResourceNumber(1),
        EventQuery::page(tl_types::Seq(0), 10),
    );
    assert_eq!(page, Err(ReadError::Rows(Poison::Cold)));
    assert_eq!(list::page(&rows, &everything()), Err(Poison::Cold));
    assert_eq!(crate::due_work(&rows), Err(Poison::Cold));
}

fn everything() -> ListQuery {
    let path = super::path("s");
    ListQuery {
        tenant: path.tenant,
        namespace: path.namespace,
        after: None,
        limit: 10,
        listing: ListingFilter::All,
        metadata: vec![],
    }
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_group_and_an_empty_one_does_nothing() {
    let rows = MemoryRows::default();
    let stop = apply(&rows, Index(7), Bytes::from_static(&[9])).unwrap_err();
    assert!(matches!(stop, crate::Stop::Foreign { index: Index(7), .. }), "{stop}");
    let nothing = apply(&rows, Index(7), Bytes::new()).unwrap();
    assert_eq!(nothing, crate::Outcome::default());
}

#[test]
fn an_entry_of_a_higher_level_stops_the_group_and_says_so_whatever_stands_behind_its_head() {
    use crate::entry::{Command, Entry};
    let rows = MemoryRows::default();
    let of = |level| Entry::of_level(level, [Command::Tick]).encode();
    for level in 1..=2 {
        assert!(crate::apply_up_to(2, &rows, Index(7), of(level).into()).is_ok());
    }
    let mut later = of(3);
    later.truncate(44);
    later.extend_from_slice(b"a form of then");
    let stop = crate::apply_up_to(2, &rows, Index(7), later.into()).unwrap_err();
    assert_eq!(stop, crate::Stop::Level { index: Index(7), level: 3, spoken: 2 });
    let said = "entry 7 is of feature level 3 and this release speaks 2 at most: a newer release is \
                needed";
    assert_eq!(stop.to_string(), said);
    // None was ever founded below the first.
    let none = crate::apply_up_to(2, &rows, Index(7), of(0).into()).unwrap_err();
    assert!(matches!(none, crate::Stop::Foreign { .. }), "{none}");
}

#[test]
fn an_event_row_without_a_stamp_ends_the_page_as_damage() {
    let mut bench = bench();
    let number = tl_types::ResourceNumber(1);
    let key = RowKey::event(number, tl_types::Seq(2));
    bench.rows.write(vec![(key, Some(Bytes::from_static(b"short")))]);
    let query = EventQuery::page(tl_types::Seq(0), 10);
    let page = session::read_events(&bench.rows, number, query);
    assert!(
        matches!(&page, Err(ReadError::Rows(Poison::Damaged(what))) if what.contains("event 2")),
        "{page:?}"
    );
}

#[test]
fn a_row_that_does_not_decode_poisons_and_is_named() {
    let counters = [GroupField::Last, GroupField::NextNumber];
    for field in counters {
        let mut bench = bench();
        bench.rows.write(vec![(RowKey::group(field), Some(Bytes::from_static(b"x")))]);
        let outcome = apply(&bench.rows, Index(9), bytes_of(&bench, "create t")).unwrap();
        assert!(matches!(outcome.poison, Some(Poison::Damaged(_))), "{field:?}");
        assert!(outcome.writes.is_empty() && outcome.replies.is_empty());
    }
    let mut bench = bench();
    let number = tl_types::ResourceNumber(1);
    bench.rows.write(vec![(RowKey::session(number), None)]);
    let found = session::find(&bench.rows, &super::path("s"));
    let Err(Poison::Damaged(what)) = found else { panic!("{found:?}") };
    assert_eq!(what, "session 1 is in the directory but has no header");
}

proptest! {
    #[test]
    fn no_changed_row_makes_an_apply_or_a_read_panic(
        which: prop::sample::Index, at: prop::sample::Index, byte: u8, cut in proptest::option::of(0usize..9),
        line in prop::sample::select(vec![
            "#r1 create s", "a s p:2", "a s p:1 q:1", "patch s title=B meta=a=1", "hide s", "close s",
            "delete s", "ack s 2", "trim s 2", "tick", "create t",
        ]),
    ) {
        let mut bench = bench();
        bench.at = UnixMs(10_000_000);
        let (key, value) = {
            let rows: Vec<_> = bench.rows.iter().collect();
            let (key, value) = rows[which.index(rows.len())];
            (key.clone(), value.to_vec())
        };
        let mut value = value;
        if !value.is_empty() {
            let at = at.index(value.len());
            value[at] = byte;
        }
        if let Some(cut) = cut {
            value.truncate(cut);
        }
        bench.rows.write(vec![(key, Some(value.into()))]);
        let outcome = apply(&bench.rows, Index(9), bytes_of(&bench, line)).unwrap();
        if outcome.poison.is_some() || matches!(outcome.replies[..], [Reply::Refused(_)]) {
            prop_assert!(outcome.writes.is_empty());
        }
        let _ = session::find(&bench.rows, &super::path("s"));
        let _ = list::page(&bench.rows, &everything());
        let _ = crate::due_work(&bench.rows);
        let query = EventQuery::page(tl_types::Seq(0), 10);
        let _ = session::read_events(&bench.rows, tl_types::ResourceNumber(1), query);
    }
}
