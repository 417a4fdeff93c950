//! One event at a time.

use bytes::Bytes;
use tl_types::{ResourceNumber, RowKey, Seq, UnixMs};

use super::check;
use super::script::{Bench, entry};
use crate::entry::{Command, Entry, set_stamp};
use crate::{Outcome, apply};

#[test]
fn events_get_positions_from_one_without_a_hole() {
    check(
        "create s
         a s p:1
         a s q:1
         a s p:2
         events s 0
         events s 2",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         2 !publish s 2
         3 !publish s 3
         1 p:1 @1000, 2 q:1 @1000, 3 p:2 @1000
         3 p:2 @1000",
    );
}

#[test]
fn an_append_needs_its_session() {
    check("a s p:1", "session_not_found: Session was not found");
}

#[test]
fn an_append_needs_an_event() {
    check(
        "create s
         a s",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         invalid_event: An append needs at least one event",
    );
}

#[test]
fn a_retry_is_answered_with_its_first_position_and_writes_nothing() {
    check(
        "create s
         a s p:1
         a s p:2
         a s p:1
         a s p:2
         events s 0",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         2 !publish s 2
         1 again of 2
         2 again of 2
         1 p:1 @1000, 2 p:2 @1000",
    );
}

#[test]
fn a_retry_is_answered_before_expected_seq_and_on_a_closed_session() {
    check(
        "create s
         a s p:1 expect=0
         a s p:1 expect=0
         close s
         a s p:1 expect=0
         a s p:2 expect=1
         delete s
         a s p:1",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         1 again of 1
         s v1 closed 0/0/1 1000..1000 !closed s
         1 again of 1
         session_closed: The session is closed
         done !tombstoned s
         session_tombstoned: The session was deleted",
    );
}

#[test]
fn expected_seq_must_be_the_head() {
    check(
        "create s
         a s p:1 expect=1
         a s p:1 expect=0
         a s p:2 expect=0
         a s p:2 expect=1",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         expected_seq_conflict: Expected seq 1, current seq is 0 expected_seq=1 current_seq=0
         1 !publish s 1
         expected_seq_conflict: Expected seq 0, current seq is 1 expected_seq=0 current_seq=1
         2 !publish s 2",
    );
}

#[test]
fn a_producer_starts_at_one_and_counts_up() {
    check(
        "create s
         a s p:2
         a s p:0
         a s p:1
         a s p:3
         a s q:18446744073709551615",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         producer_seq_conflict: Producer p expected seq 1, got 2 expected_producer_seq=1 event=0
         producer_seq_conflict: Producer p expected seq 1, got 0 expected_producer_seq=1 event=0
         1 !publish s 1
         producer_seq_conflict: Producer p expected seq 2, got 3 expected_producer_seq=2 event=0
         producer_seq_conflict: Producer q expected seq 1, got 18446744073709551615 expected_producer_seq=1 event=0",
    );
}

#[test]
fn other_content_at_a_remembered_position_is_a_replay_conflict() {
    check(
        "create s
         a s p:1=x
         a s p:2
         a s p:1=y",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         2 !publish s 2
         producer_replay_conflict: Producer sequence was already used with different event content event=0",
    );
}

#[test]
fn the_last_eight_writes_of_a_producer_are_remembered() {
    check(
        "create s
         a s p:1
         a s p:2
         a s p:3
         a s p:4
         a s p:5
         a s p:6
         a s p:7
         a s p:8
         a s p:1
         a s p:9
         a s p:2
         a s p:1",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         2 !publish s 2
         3 !publish s 3
         4 !publish s 4
         5 !publish s 5
         6 !publish s 6
         7 !publish s 7
         8 !publish s 8
         1 again of 8
         9 !publish s 9
         2 again of 9
         producer_seq_conflict: Producer p expected seq 10, got 1 expected_producer_seq=10 event=0",
    );
}

#[test]
fn sessions_do_not_share_producers() {
    check(
        "create s
         create t
         a s p:1
         a t p:1=other",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         t v1 active 0/0/0 1000..1000 !created t !activated t
         1 !publish s 1
         1 !publish t 1",
    );
}

#[test]
fn stamps_never_go_back() {
    check(
        "create s
         at 500
         a s p:1
         at 2000
         a s p:2
         at 1500
         a s p:3
         events s 0",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         at 500
         1 !publish s 1
         at 2000
         2 !publish s 2
         at 1500
         3 !publish s 3
         1 p:1 @1000, 2 p:2 @2000, 3 p:3 @2000",
    );
}

/// Applies an append with one event of this size, stamped as a leader does it.
fn append_stamped(bench: &mut Bench, line: &str, bytes: usize, at: u64) -> (Bytes, Outcome) {
    let mut entry = entry(line);
    let Command::Append(append) = &mut entry.commands[0] else { unreachable!() };
    append.events[0].envelope = vec![b'x'; bytes].into();
    let mut raw = Entry::new(entry.commands).encode();
    set_stamp(&mut raw, UnixMs(at));
    let raw = Bytes::from(raw);
    bench.index.0 += 1;
    let outcome = apply(&bench.rows, bench.index, raw.clone()).unwrap();
    bench.rows.write(outcome.writes.clone());
    (raw, outcome)
}

#[test]
fn a_large_event_row_is_a_slice_of_its_entry_if_it_has_the_stamp_that_counts() {
    let mut bench = Bench::default();
    bench.apply(&entry("create s"));
    let cases = [
        ("a s p:1", 600, 2_000, 2_000, true),
        // A new leader's clock lags: the group's time counts, and the entry has another.
        ("a s p:2", 600, 1_500, 2_000, false),
        // It would keep more of the entry than itself.
        ("a s p:3", 500, 3_000, 3_000, false),
    ];
    for (seq, (line, bytes, stamp, counts, is_slice)) in (1..).zip(cases) {
        let (raw, outcome) = append_stamped(&mut bench, line, bytes, stamp);
        let key = RowKey::event(ResourceNumber(1), Seq(seq));
        let row = outcome.writes.iter().find(|(of, _)| *of == key).unwrap().1.clone().unwrap();
        let expected = [&u64::to_be_bytes(counts)[..], &vec![b'x'; bytes]].concat();
        assert_eq!(row, expected, "{line}");
        assert_eq!(raw.as_ptr_range().contains(&row.as_ptr()), is_slice, "{line}");
    }
}
