//! Request ids: a repeat is answered with the first replies.

use tl_types::limits::{REQUEST_MEMORY_MS, REQUESTS_PER_GROUP_MAX};
use tl_types::{RequestId, UnixMs};

use super::script::{entry, say};
use super::{Bench, check};
use crate::due_work;
use crate::entry::{Command, Entry};

#[test]
fn a_repeat_is_answered_with_the_first_replies_and_writes_nothing() {
    check(
        r#"#r1 create s title=A
           patch s title=B
           #r1 create s title=A
           #r2 patch s title=C & a s p:1
           #r2 patch s title=C & a s p:1
           row s"#,
        r#"s v1 active "A" 0/0/0 1000..1000 !created s !activated s !due 601000
           s v2 active "B" 0/0/0 1000..1000 !updated s
           s v1 active "A" 0/0/0 1000..1000
           s v3 active "C" 0/0/0 1000..1000 1 !updated s !publish s 1 !due 601000
           s v3 active "C" 0/0/0 1000..1000 1
           s v3 active "C" 0/0/1 1000..1000"#,
    );
}

#[test]
fn every_kind_of_reply_is_remembered() {
    check(
        "create s
         #r1 a s p:1 & delete s & tick
         #r1 a s p:1 & delete s & tick",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         1 done ticked !publish s 1 !tombstoned s !due 601000
         1 done ticked",
    );
}

#[test]
fn a_refusal_is_not_remembered() {
    check(
        "#r1 close s
         create s
         #r1 close s
         #r1 close s",
        "session_not_found: Session was not found
         s v1 active 0/0/0 1000..1000 !created s !activated s
         s v1 closed 0/0/0 1000..1000 !closed s !due 601000
         s v1 closed 0/0/0 1000..1000",
    );
}

#[test]
fn the_same_id_of_another_principal_is_another_request() {
    check(
        "#r1/ann create s
         #r1/bob create s
         #r1/bob create t
         #r1/ann create s
         #r1/bob create t",
        "s v1 active 0/0/0 1000..1000 !created s !activated s !due 601000
         session_exists: Session already exists
         t v1 active 0/0/0 1000..1000 !created t !activated t !due 601000
         s v1 active 0/0/0 1000..1000
         t v1 active 0/0/0 1000..1000",
    );
}

#[test]
fn requests_without_an_id_are_not_remembered() {
    check(
        "create s
         create s",
        "s v1 active 0/0/0 1000..1000 !created s !activated s
         session_exists: Session already exists",
    );
}

#[test]
fn a_tick_forgets_what_is_too_old_and_nothing_younger() {
    check(
        "at 0
         #r1 create s
         at 1
         #r2 create t
         at 599999
         tick
         at 600000
         tick
         #r1 create s
         #r2 create t
         at 600001
         tick
         #r2 create t",
        "at 0
         s v1 active 0/0/0 0..0 !created s !activated s !due 600000
         at 1
         t v1 active 0/0/0 1..1 !created t !activated t !due 600001
         at 599999
         ticked
         at 600000
         ticked
         session_exists: Session already exists
         t v1 active 0/0/0 1..1
         at 600001
         ticked
         session_exists: Session already exists",
    );
}

fn numbered(n: u64) -> Entry {
    let mut entry = entry("hide s");
    entry.request = Some(RequestId(u128::from(n).to_be_bytes()));
    entry
}

#[test]
fn a_tick_is_bounded_and_says_when_more_is_due() {
    let mut bench = Bench::default();
    assert_eq!(due_work(&bench.rows), Ok(None));
    bench.apply(&entry("create s"));
    for n in 0..1_001 {
        bench.apply(&numbered(n));
    }
    assert_eq!(due_work(&bench.rows), Ok(Some(UnixMs(1_000 + REQUEST_MEMORY_MS))));
    bench.at = UnixMs(1_000 + REQUEST_MEMORY_MS);
    let tick = Entry::new([Command::Tick]);
    // Two rows for each request, the group's counter, its last stamp and digest besides.
    let outcome = bench.apply(&tick);
    assert_eq!((say(&outcome).as_str(), outcome.writes.len()), ("ticked, more due", 1_002));
    assert_eq!(say(&bench.apply(&tick)), "ticked, more due");
    assert_eq!(say(&bench.apply(&tick)), "ticked");
    assert_eq!(due_work(&bench.rows), Ok(None));
    assert!(bench.apply(&tick).writes.is_empty(), "nothing due, nothing written");
}

#[test]
fn past_the_limit_the_oldest_request_is_forgotten() {
    // Invariants are checked at the end only: reading ten thousand rows each time is slow.
    let mut bench = Bench::default();
    bench.apply(&entry("create s"));
    let mut rows = bench.rows.clone();
    for n in 0..REQUESTS_PER_GROUP_MAX {
        let stamped = Entry { stamp: UnixMs(1_000 + n), ..numbered(n) };
        let outcome = crate::apply(&rows, bench.index, stamped.encode().into()).unwrap();
        rows.write(outcome.writes);
    }
    bench.rows = rows;
    bench.at = UnixMs(50_000);
    assert!(bench.apply(&numbered(0)).writes.is_empty(), "at the limit all are known");
    bench.apply(&numbered(REQUESTS_PER_GROUP_MAX));
    assert!(bench.apply(&numbered(1)).writes.is_empty(), "the second oldest is still known");
    assert!(!bench.apply(&numbered(0)).writes.is_empty(), "the oldest was forgotten");
}
