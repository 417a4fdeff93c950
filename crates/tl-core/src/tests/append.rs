//! One event at a time.

use super::check;

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
