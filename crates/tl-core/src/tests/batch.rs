//! Several events in one append, several commands in one entry, and the limits of both.

use tl_types::limits::{
    BATCH_EVENTS_MAX, ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, EVENT_BYTES_MAX, PRODUCER_AGE_LAG_MAX,
    PRODUCERS_PER_SESSION_MAX,
};

use super::script::{entry, say};
use super::{Bench, check};
use crate::entry::{Command, Entry};

#[test]
fn a_batch_gets_contiguous_positions_and_is_retried_as_a_whole() {
    check(
        "create s
         a s p:1 q:1 p:2
         a s p:3
         a s p:1 q:1 p:2
         events s 1",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..3 !publish s 1..3
         4 !publish s 4
         1..3 again of 4
         2 q:1 @1000, 3 p:2 @1000, 4 p:3 @1000",
    );
}

#[test]
fn a_write_that_overlaps_in_part_is_refused() {
    check(
        "create s
         a s p:1 p:2
         a s p:1
         a s p:2
         a s p:2 p:3
         a s p:1..3
         a s p:1=x p:2",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..2 !publish s 1..2
         producer_seq_conflict: Producer p expected seq 3, got 1 expected_producer_seq=3 event=0
         producer_seq_conflict: Producer p expected seq 3, got 2 expected_producer_seq=3 event=0
         producer_seq_conflict: Producer p expected seq 3, got 2 expected_producer_seq=3 event=0
         producer_seq_conflict: Producer p expected seq 3, got 1 expected_producer_seq=3 event=0
         producer_replay_conflict: Producer sequence was already used with different event content event=0",
    );
}

#[test]
fn singles_sent_again_as_one_batch_overlap_in_part() {
    check(
        "create s
         a s p:1
         a s p:2
         a s p:1 p:2",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         2 !publish s 2
         producer_seq_conflict: Producer p expected seq 3, got 1 expected_producer_seq=3 event=0",
    );
}

#[test]
fn half_deduped_half_new_is_refused_naming_the_event() {
    check(
        "create s
         a s p:1
         a s q:1 p:1
         a s p:1 q:1
         events s 0",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         producer_seq_conflict: Producer p expected seq 2, got 1 expected_producer_seq=2 event=1
         producer_seq_conflict: Producer p expected seq 2, got 1 expected_producer_seq=2 event=0
         1 p:1 @1000",
    );
}

#[test]
fn duplicates_that_lie_elsewhere_are_no_duplicate_of_the_batch() {
    check(
        "create s
         a s p:1
         a s r:1
         a s q:1
         a s p:1 q:1
         a s p:1 r:1
         a s r:1 p:1",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         2 !publish s 2
         3 !publish s 3
         producer_seq_conflict: Producer p expected seq 2, got 1 expected_producer_seq=2 event=0
         1..2 again of 3
         producer_seq_conflict: Producer r expected seq 2, got 1 expected_producer_seq=2 event=0",
    );
}

#[test]
fn another_order_of_the_same_events_is_another_write() {
    check(
        "create s
         a s p:1 q:1 p:2 q:2
         a s p:1 q:1 q:2 p:2
         a s p:1 q:1 p:2 q:2",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..4 !publish s 1..4
         producer_replay_conflict: Producer sequence was already used with different event content event=0
         1..4 again of 4",
    );
}

#[test]
fn a_producer_must_count_up_within_a_batch() {
    check(
        "create s
         a s p:1 q:1 p:3
         a s p:1 p:1
         a s p:1 q:7 p:9
         a s p:4 q:1 p:9
         row s",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         producer_seq_conflict: Producer p expected seq 2, got 3 expected_producer_seq=2 event=2
         producer_seq_conflict: Producer p expected seq 2, got 1 expected_producer_seq=2 event=1
         producer_seq_conflict: Producer q expected seq 1, got 7 expected_producer_seq=1 event=1
         producer_seq_conflict: Producer p expected seq 1, got 4 expected_producer_seq=1 event=0
         s v1 active 0/0/0 1000..1000",
    );
}

#[test]
fn a_batch_takes_one_place_among_the_remembered_writes() {
    check(
        "create s
         a s p:1..100
         a s p:101
         a s p:102
         a s p:103
         a s p:104
         a s p:105
         a s p:106
         a s p:107
         a s p:1..100
         a s p:108
         a s p:1..100",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..100 !publish s 1..100
         101 !publish s 101
         102 !publish s 102
         103 !publish s 103
         104 !publish s 104
         105 !publish s 105
         106 !publish s 106
         107 !publish s 107
         1..100 again of 107
         108 !publish s 108
         producer_seq_conflict: Producer p expected seq 109, got 1 expected_producer_seq=109 event=0",
    );
}

#[test]
fn an_entry_of_several_commands_is_all_or_nothing() {
    check(
        "create s & a s p:1 & a s p:2 expect=1
         a s p:3 & create t & a t p:2
         row t
         a s p:3 & a t p:1
         a s p:3",
        "s v1 active 0/0/0 1000..1000 1 2 !created s !activated s !publish s 1 !publish s 2
         producer_seq_conflict: Producer p expected seq 1, got 2 expected_producer_seq=1 event=0 command=2
         none
         session_not_found: Session was not found command=1
         3 !publish s 3",
    );
}

#[test]
fn a_batch_at_the_limit_and_one_past() {
    let max = BATCH_EVENTS_MAX;
    let over = max + 1;
    check(
        &format!("create s\na s p:1..{over}\na s p:1..{max}"),
        &format!(
            "s v1 active 0/0/0 1000..1000 !created s !activated s
             payload_too_large: {over} is over the limit batch_events_max of {max} limit={max}
             1..{max} !publish s 1..{max}"
        ),
    );
}

#[test]
fn an_event_far_past_the_limit_names_itself() {
    let mut bench = Bench::default();
    bench.apply(&entry("create s"));
    let mut big = entry("a s p:1 p:2");
    let Command::Append(append) = &mut big.commands[0] else { unreachable!() };
    append.events[1].envelope = vec![b'x'; EVENT_BYTES_MAX + 8 * 1024].into();
    let fits = big.clone();
    let Command::Append(append) = &mut big.commands[0] else { unreachable!() };
    append.events[1].envelope = vec![b'x'; EVENT_BYTES_MAX + 8 * 1024 + 1].into();
    let refused = say(&bench.apply(&big));
    assert!(refused.starts_with("payload_too_large: ") && refused.ends_with(" event=1"));
    assert_eq!(say(&bench.apply(&fits)), "1..2 !publish s 1..2");
}

#[test]
fn an_entry_at_the_limits_and_one_past() {
    let mut bench = Bench::default();
    let ticks = |count| Entry::new(std::iter::repeat_n(Command::Tick, count));
    assert_eq!(bench.apply(&ticks(ENTRY_COMMANDS_MAX)).replies.len(), ENTRY_COMMANDS_MAX);
    let mut over = ticks(ENTRY_COMMANDS_MAX + 1);
    over.request = None;
    let said = say(&bench.apply(&over));
    assert!(said.starts_with("payload_too_large: 1001 is over the limit entry_commands_max"));

    bench.apply(&entry("create s"));
    let mut heavy = entry("a s p:1..11");
    let Command::Append(append) = &mut heavy.commands[0] else { unreachable!() };
    for event in &mut append.events {
        event.envelope = vec![b'x'; ENTRY_BYTES_MAX / 11].into();
    }
    let said = say(&bench.apply(&heavy));
    assert!(said.contains("over the limit entry_bytes_max"), "{said}");
}

#[test]
fn past_the_producer_limit_the_one_that_wrote_longest_ago_is_forgotten() {
    let mut bench = Bench::default();
    bench.apply(&entry("create s"));
    let max = (PRODUCERS_PER_SESSION_MAX + PRODUCER_AGE_LAG_MAX) as usize;
    let batch = |from: usize| {
        let events = (from..from + BATCH_EVENTS_MAX).map(|n| format!("p{n}:1"));
        entry(&format!("a s {}", events.collect::<Vec<_>>().join(" ")))
    };
    for from in (0..max).step_by(BATCH_EVENTS_MAX) {
        bench.apply(&batch(from));
    }
    // Writing makes p0 young again; a mere retry does not do that for p1.
    assert_eq!(say(&bench.apply(&entry("a s p0:2"))), "11001 !publish s 11001");
    assert_eq!(say(&bench.apply(&batch(0))), "1..1000 again of 11001");
    assert_eq!(say(&bench.apply(&entry("a s new:1"))), "11002 !publish s 11002");
    assert_eq!(
        say(&bench.apply(&entry("a s p1:2"))),
        "producer_seq_conflict: Producer p1 expected seq 1, got 2 expected_producer_seq=1 event=0"
    );
    assert_eq!(say(&bench.apply(&entry("a s p0:3"))), "11003 !publish s 11003");
    assert_eq!(say(&bench.apply(&entry("a s p1:1"))), "11004 !publish s 11004");
    // A batch of new producers drops as many at once.
    bench.apply(&batch(max));
    assert_eq!(say(&bench.apply(&entry("a s p1001:1"))), "12005 !publish s 12005");
    assert_eq!(say(&bench.apply(&entry("a s p0:4"))), "12006 !publish s 12006");
}

#[test]
fn a_producer_whose_age_lags_is_remembered_as_long_as_promised() {
    let mut bench = Bench::default();
    bench.apply(&entry("create s"));
    let others = |from: usize, count: usize| {
        let events = (from..from + count).map(|n| format!("p{n}:1"));
        entry(&format!("a s {}", events.collect::<Vec<_>>().join(" ")))
    };
    let lag = PRODUCER_AGE_LAG_MAX as usize;
    bench.apply(&entry("a s q:1"));
    bench.apply(&others(0, lag - 2));
    // One event less than would write its age anew.
    assert_eq!(say(&bench.apply(&entry("a s q:2"))), "1000 !publish s 1000");
    let promised = PRODUCERS_PER_SESSION_MAX as usize - 1;
    for from in (lag..lag + promised).step_by(BATCH_EVENTS_MAX) {
        bench.apply(&others(from, BATCH_EVENTS_MAX.min(lag + promised - from)));
    }
    assert_eq!(say(&bench.apply(&entry("a s q:3"))), "11000 !publish s 11000");
    crate::invariants::check(&bench.rows).unwrap();
}
