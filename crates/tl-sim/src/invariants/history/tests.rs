//! Histories in a few lines: when each operation began and ended, and what it was told.

#![allow(clippy::unwrap_used)]

use super::*;

const ACTIVE: SessionState = SessionState::Active;

fn seen(last: u64, version: u64) -> Seen {
    Seen { last: Seq(last), version, state: ACTIVE }
}

fn appended(first: u64, last: u64) -> Deed {
    Deed::Appended { first: Seq(first), last: Seq(last) }
}

fn updated(last: u64, version: u64) -> Deed {
    Deed::Updated { seen: seen(last, version) }
}

fn history(ops: &[(u64, u64, Deed)]) -> History {
    let mut history = History::new(1);
    history.answered(0, 0, 1, Deed::Created);
    for (from_us, to_us, deed) in ops {
        history.answered(0, *from_us, *to_us, *deed);
    }
    history
}

fn is_linearizable(ops: &[(u64, u64, Deed)]) -> bool {
    history(ops).check().is_ok()
}

#[test]
fn what_overlaps_may_stand_in_any_order_that_explains_it() {
    let ops = [
        (2, 20, appended(3, 3)),
        (3, 19, appended(1, 2)),
        (4, 18, updated(2, 2)),
        (5, 17, Deed::Saw(seen(2, 1))),
        (6, 16, Deed::Repeated { head: Seq(3) }),
    ];
    assert_eq!(history(&ops).check(), Ok(6));
}

#[test]
fn whatever_is_answered_is_seen_by_all_who_begin_later() {
    assert!(is_linearizable(&[(2, 3, appended(1, 1)), (4, 5, Deed::Saw(seen(1, 1)))]));
    assert!(!is_linearizable(&[(2, 3, appended(1, 1)), (4, 5, Deed::Saw(seen(0, 1)))]));
    assert!(is_linearizable(&[(2, 5, appended(1, 1)), (4, 6, Deed::Saw(seen(0, 1)))]));
    assert!(!is_linearizable(&[(2, 3, Deed::Absent)]));
    assert!(!is_linearizable(&[(2, 3, appended(2, 2)), (4, 5, appended(1, 1))]));
}

#[test]
fn two_who_read_side_by_side_agree_on_the_order_of_two_writes() {
    let writes = [(2, 20, appended(1, 1)), (2, 20, updated(0, 2))];
    let reads = |one, other| {
        let reads = [(3, 19, Deed::Saw(one)), (3, 19, Deed::Saw(other))];
        is_linearizable(&[&writes[..], &reads[..]].concat())
    };
    assert!(reads(seen(0, 2), seen(1, 2)));
    // The row that the update was told has no event.
    assert!(!reads(seen(1, 1), seen(1, 2)));
    assert!(!reads(seen(1, 1), seen(0, 2)));
}

#[test]
fn a_guard_that_failed_was_stale_at_some_time_meanwhile() {
    let ends_at = |last| [(2, 5, appended(1, 4)), (3, 6, Deed::EndsAt(Seq(last)))];
    assert!(is_linearizable(&ends_at(0)) && is_linearizable(&ends_at(4)));
    assert!(!is_linearizable(&ends_at(2)));
    let has = |version| [(2, 5, updated(0, 2)), (6, 7, Deed::HasVersion(version))];
    assert!(is_linearizable(&has(2)) && !is_linearizable(&has(1)));
}

#[test]
fn a_version_that_nobody_made_is_noticed_and_one_that_may_have_been_made_is_not() {
    let skipped = [(2, 3, updated(0, 3))];
    assert!(!is_linearizable(&skipped));
    let mut late = history(&skipped);
    late.may_update(0, 2);
    late.check().unwrap();
    let mut too_late = history(&skipped);
    too_late.may_update(0, 4);
    too_late.check().unwrap_err();
}

#[test]
fn an_append_that_was_refused_stands_where_its_events_do() {
    let ops = [(2, 3, Deed::EndsAt(Seq(0))), (8, 9, appended(3, 3))];
    assert!(!is_linearizable(&ops));
    let mut late = history(&ops);
    late.may_append(0, 2, vec![7, 8]);
    late.landed(0, Seq(1), 7);
    late.landed(0, Seq(2), 8);
    late.check().unwrap();
    let mut nowhere = history(&ops);
    nowhere.may_append(0, 2, vec![7, 8]);
    nowhere.check().unwrap_err();
}

#[test]
fn what_is_closed_or_deleted_stays_so() {
    let closed = Seen { state: SessionState::Closed, ..seen(0, 1) };
    let close = (2, 3, Deed::Closed);
    assert!(is_linearizable(&[close, (4, 5, Deed::IsClosed), (6, 7, Deed::Saw(closed))]));
    assert!(!is_linearizable(&[close, (4, 5, appended(1, 1))]));
    assert!(!is_linearizable(&[close, (4, 5, Deed::IsTombstoned)]));
    let gone = (6, 7, Deed::Tombstoned);
    assert!(is_linearizable(&[close, gone, (8, 9, Deed::IsTombstoned), (8, 9, Deed::Tombstoned)]));
    assert!(!is_linearizable(&[close, gone, (8, 9, Deed::IsClosed)]));
}
