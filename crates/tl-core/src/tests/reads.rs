//! Pages of events, and the bytes of every row that a group writes.

use tl_types::{ResourceNumber, RowKey, Seq};

use super::script::entry;
use super::{Bench, check};
use crate::{EventQuery, ReadError, session};

#[test]
fn a_page_starts_behind_its_cursor_and_ends_at_its_limit() {
    check(
        "create s
         events s 0
         a s p:1..5
         events s 0 2
         events s 2 2
         events s 4
         events s 5
         events s 99",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         nothing
         1..5 !publish s 1..5
         1 p:1 @1000, 2 p:2 @1000
         3 p:3 @1000, 4 p:4 @1000
         5 p:5 @1000
         nothing
         nothing",
    );
}

#[test]
fn a_cursor_below_the_floor_is_told_where_events_begin() {
    check(
        "create s
         a s p:1..5
         ack s 5
         trim s 3
         events s 0
         events s 2
         events s 3
         events s 5",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..5 !publish s 1..5
         done
         done
         events before 4 are gone from this tier
         events before 4 are gone from this tier
         4 p:4 @1000, 5 p:5 @1000
         nothing",
    );
}

const ONE: ResourceNumber = ResourceNumber(1);

fn hundred() -> Bench {
    let mut bench = Bench::default();
    bench.apply(&entry("create s"));
    bench.apply(&entry("a s p:1..100"));
    bench
}

fn seqs(bench: &Bench, query: EventQuery) -> Result<Vec<u64>, ReadError> {
    let page = session::read_events(&bench.rows, ONE, query)?;
    Ok(page.events.iter().map(|event| event.seq.0).collect())
}

#[test]
fn a_page_keeps_to_its_bytes_but_has_at_least_one_event() {
    let bench = hundred();
    let query = |bytes| EventQuery { after: Seq(0), limit: 1_000, bytes };
    // A stamp and an envelope of three bytes make eleven.
    assert_eq!(seqs(&bench, query(0)), Ok(vec![1]));
    assert_eq!(seqs(&bench, query(33)), Ok(vec![1, 2, 3]));
    assert_eq!(seqs(&bench, query(43)), Ok(vec![1, 2, 3]));
    assert_eq!(seqs(&bench, query(1 << 20)), Ok((1..=100).collect()));
    let none = EventQuery { after: Seq(0), limit: 0, bytes: 9 };
    assert_eq!(seqs(&bench, none), Ok(vec![]));
}

#[test]
fn a_missing_event_is_a_hole_and_never_skipped() {
    for missing in [1, 2, 17, 99, 100] {
        let mut bench = hundred();
        bench.rows.write(vec![(RowKey::event(ONE, Seq(missing)), None)]);
        let read = seqs(&bench, EventQuery::page(Seq(0), 1_000));
        assert_eq!(read, Err(ReadError::Hole { missing: Seq(missing) }));
        let behind = EventQuery::page(Seq(missing), 1_000);
        assert_eq!(seqs(&bench, behind), Ok((missing + 1..=100).collect()));
    }
}

#[test]
fn a_number_without_a_session_is_not_found() {
    let read = session::read_events(&Bench::default().rows, ONE, EventQuery::page(Seq(0), 1));
    assert_eq!(read, Err(ReadError::NotFound));
}

#[test]
fn the_rows_of_a_group_are_a_promise_golden() {
    let mut bench = Bench::default();
    for line in [
        "#r1 create s title=Trip meta=a=1",
        "#r2 a s p:1 q:1",
        "hide s",
        "#r3 close s & delete s & tick",
    ] {
        bench.apply(&entry(line));
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut seen = String::new();
    for (key, value) in bench.rows.iter() {
        let row = format!("{:?} {} {}", key.table(), hex(key.as_bytes()), hex(value));
        seen.push_str(&format!("{}\n", row.trim_end()));
    }
    assert_eq!(seen, include_str!("../../golden/rows.txt"));
}
