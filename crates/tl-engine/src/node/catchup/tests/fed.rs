//! Three nodes over memory, of which one lacks entries that the others have in their logs alone.

use std::collections::BTreeMap;

use super::damage::{Trio, append};
use super::refusal::{MISSED, behind};
use super::*;

fn comes_back(trio: &mut Trio, taker: usize) {
    trio.away = None;
    trio.propose(append(MISSED + 1));
    trio.until("all are even", |trio| {
        let leader = trio.leader().unwrap();
        let last = trio.nodes[leader].driver().status(GROUP).unwrap().last;
        trio.are_even(last) && last.0 > MISSED
    });
    assert_eq!(trio.rows(taker), trio.rows(trio.leader().unwrap()));
}

/// Entries sent from logs, and groups of rows given.
fn given(trio: &Trio) -> (u64, u64) {
    let fed = trio.nodes.iter().map(|node| node.driver().feed_counts().entries).sum();
    (fed, trio.nodes.iter().map(|node| node.catch_up_counts().given).sum())
}

#[test]
fn a_follower_that_was_away_is_sent_what_the_log_has_and_no_rows() {
    let (mut trio, taker, _) = behind(2);
    comes_back(&mut trio, taker);
    let (fed, rows) = given(&trio);
    assert!(fed > MISSED / 2 && rows == 0, "{fed} entries, {rows} groups");
    assert_eq!(trio.troubles, []);
}

#[test]
fn where_the_log_is_damaged_rows_are_given() {
    let (mut trio, taker, _) = behind(2);
    let leader = trio.leader().unwrap();
    // The first segment is full, and the follower lacks the end of it.
    let disk = &trio.disks[leader];
    assert!(disk.contents("segment-00000000.wal").is_some());
    for byte in (32 * 1024..60 * 1024).step_by(512) {
        assert!(disk.flip("segment-00000000.wal", byte, 1));
    }
    comes_back(&mut trio, taker);
    assert_eq!(given(&trio).1, 1);
    assert!(trio.troubles[0].1.contains("damaged record"), "{:?}", trio.troubles);
    assert_eq!(trio.nodes[taker].catch_up_counts().taken, 1);
}

#[test]
fn where_the_log_has_let_go_rows_are_given_and_entries_behind_them() {
    let (mut trio, taker, _) = behind(2);
    let leader = trio.leader().unwrap();
    let all: BTreeMap<GroupId, Index> = [(GROUP, Index(MISSED * 3 / 4))].into();
    let released = trio.wals[leader].release(&all, 0);
    assert!(released > 0);
    let begins = trio.wals[leader].begins();
    trio.inboxes[leader].push(Input::LogBegins(begins));
    comes_back(&mut trio, taker);
    assert_eq!(given(&trio).1, 1);
    assert_eq!(trio.nodes[leader].driver().feed_counts().missed, 0, "it is not looked for");
    assert_eq!(trio.troubles, []);
}
