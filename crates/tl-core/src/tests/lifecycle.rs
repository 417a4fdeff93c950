//! Making, changing, hiding, closing, deleting, archiving.

use tl_types::limits::{METADATA_BYTES_MAX, TITLE_BYTES_MAX};

use super::script::{entry, say};
use super::{Bench, check};

#[test]
fn a_name_is_taken_once_also_by_a_deleted_session() {
    check(
        r#"create s title=Hello meta=a=1
           create s
           delete s
           create s
           create t"#,
        r#"s v1 active "Hello" {"a":1} 0/0/0 1000..1000 !created s !activated s
           session_exists: Session already exists
           done !tombstoned s
           session_exists: Session already exists
           t v1 active 0/0/0 1000..1000 !created t !activated t"#,
    );
}

#[test]
fn metadata_is_merged_shallowly_in_place_and_null_is_a_value() {
    check(
        r#"create s meta=a={"x":1};b=2
           at 2000
           patch s meta=b=null;c=[1,"}"];a={"y":2}
           patch s meta=a=1.50
           patch s meta="#,
        r#"s v1 active {"a":{"x":1},"b":2} 0/0/0 1000..1000 !created s !activated s
           at 2000
           s v2 active {"a":{"y":2},"b":null,"c":[1,"}"]} 0/0/0 1000..2000 !updated s
           s v3 active {"a":1.50,"b":null,"c":[1,"}"]} 0/0/0 1000..2000 !updated s
           s v4 active {"a":1.50,"b":null,"c":[1,"}"]} 0/0/0 1000..2000 !updated s"#,
    );
}

#[test]
fn a_title_is_set_kept_and_removed() {
    check(
        r#"create s title=One
           patch s meta=a=1
           patch s title=Two
           patch s title=
           patch s notitle"#,
        r#"s v1 active "One" 0/0/0 1000..1000 !created s !activated s
           s v2 active "One" {"a":1} 0/0/0 1000..1000 !updated s
           s v3 active "Two" {"a":1} 0/0/0 1000..1000 !updated s
           s v4 active "" {"a":1} 0/0/0 1000..1000 !updated s
           s v5 active {"a":1} 0/0/0 1000..1000 !updated s"#,
    );
}

#[test]
fn an_update_may_name_the_version_it_saw() {
    check(
        "create s
         patch s title=A version=1
         patch s title=B version=1
         patch s title=B version=2
         patch t title=B
         a s p:1
         patch s title=C version=3",
        r#"s v1 active 0/0/0 1000..1000 !created s !activated s
         s v2 active "A" 0/0/0 1000..1000 !updated s
         expected_version_conflict: Expected version 1, current version is 2 expected_version=1 current_version=2
         s v3 active "B" 0/0/0 1000..1000 !updated s
         session_not_found: Session was not found
         1 !publish s 1
         s v4 active "C" 0/0/1 1000..1000 !updated s"#,
    );
}

#[test]
fn merged_metadata_at_the_limit_and_one_past() {
    let mut bench = Bench::default();
    // {"a":"…","b":1} is the text and 14 bytes.
    let text = "x".repeat(METADATA_BYTES_MAX - 14);
    bench.apply(&entry(&format!(r#"create s meta=a="{text}""#)));
    let over = say(&bench.apply(&entry(r#"patch s meta=b=12"#)));
    assert_eq!(
        over,
        "payload_too_large: 65537 is over the limit metadata_bytes_max of 65536 limit=65536"
    );
    assert!(say(&bench.apply(&entry(r#"patch s meta=b=1"#))).starts_with("s v2 "));
    let whole = "x".repeat(METADATA_BYTES_MAX - 8);
    let over = format!(r#"create t meta=a="{whole}x""#);
    assert!(say(&bench.apply(&entry(&over))).starts_with("payload_too_large: "));
    let fits = format!(r#"create t meta=a="{whole}""#);
    assert!(say(&bench.apply(&entry(&fits))).starts_with("t v1 "));
}

#[test]
fn a_title_at_the_limit_and_one_past() {
    let title = "x".repeat(TITLE_BYTES_MAX);
    let mut bench = Bench::default();
    let over = say(&bench.apply(&entry(&format!("create s title={title}x"))));
    assert_eq!(over, "invalid_session: The title is longer than 1024 bytes");
    assert!(say(&bench.apply(&entry(&format!("create s title={title}")))).starts_with("s v1 "));
    let over = say(&bench.apply(&entry(&format!("patch s title={title}x"))));
    assert_eq!(over, "invalid_session: The title is longer than 1024 bytes");
}

#[test]
fn hiding_and_showing_are_idempotent_and_the_session_stays_writable() {
    check(
        "create s
         at 2000
         hide s
         at 3000
         hide s
         a s p:1
         show s
         show s
         hide t",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         at 2000
         s v1 active hidden 0/0/0 1000..2000 !archived s
         at 3000
         s v1 active hidden 0/0/0 1000..2000
         1 !publish s 1
         s v1 active 0/0/1 1000..3000 !unarchived s
         s v1 active 0/0/1 1000..3000
         session_not_found: Session was not found",
    );
}

#[test]
fn a_closed_session_takes_no_events_but_changes_and_reads_go_on() {
    check(
        "create s
         a s p:1
         close s
         close s
         a s p:2
         patch s title=T
         hide s
         events s 0
         close t",
        r#"s v1 active 0/0/0 1000..1000 !created s !activated s
         1 !publish s 1
         s v1 closed 0/0/1 1000..1000 !closed s
         s v1 closed 0/0/1 1000..1000
         session_closed: The session is closed
         s v2 closed "T" 0/0/1 1000..1000 !updated s
         s v2 closed hidden "T" 0/0/1 1000..1000 !archived s
         1 p:1 @1000
         session_not_found: Session was not found"#,
    );
}

#[test]
fn a_deleted_session_refuses_everything_but_deletion_and_archiving() {
    check(
        "create s
         a s p:1 p:2
         delete s
         delete s
         a s p:3
         patch s title=T
         hide s
         close s
         events s 0
         ack s 2
         trim s 1
         row s
         delete t",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..2 !publish s 1..2
         done !tombstoned s
         done
         session_tombstoned: The session was deleted
         session_tombstoned: The session was deleted
         session_tombstoned: The session was deleted
         session_tombstoned: The session was deleted
         1 p:1 @1000, 2 p:2 @1000
         done
         done
         s v1 tombstoned 1/2/2 1000..1000
         session_not_found: Session was not found",
    );
}

#[test]
fn archive_positions_are_clamped_and_never_go_back() {
    check(
        "create s
         a s p:1..5
         ack s 3
         ack s 2
         trim s 9
         trim s 1
         ack s 99
         row s
         a s p:6
         a s p:6",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1..5 !publish s 1..5
         done
         done
         done
         done
         done
         s v1 active 3/5/5 1000..1000
         6 archived 5 !publish s 6
         6 again of 6 archived 5",
    );
}
