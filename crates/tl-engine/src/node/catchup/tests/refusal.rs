//! Three nodes over memory, of which one lacks entries and wants no rows for a while.

use super::damage::{NODES, Trio, append, create};
use super::*;

/// Entries of which a node keeps so many bytes are soon gone.
const KEPT_BYTES: usize = 16 * 1024;
/// Appends of which more are missed than are kept.
pub(super) const MISSED: u64 = 400;

/// A follower that was away until nobody has what it lacks in memory; so many are sent from logs.
pub(super) fn behind(fetches_max: usize) -> (Trio, usize, u64) {
    let mut trio = Trio::with(|driver| {
        driver.entry_cache_bytes = KEPT_BYTES;
        driver.follower_lag_bytes = KEPT_BYTES;
        driver.fetches_max = fetches_max;
    });
    trio.until("somebody leads", |trio| trio.leader().is_some());
    trio.propose(create());
    let taker = (trio.leader().unwrap() + 1) % NODES;
    trio.away = Some(taker);
    for n in 1..=MISSED {
        trio.propose(append(n));
    }
    let last =
        |trio: &Trio| trio.nodes[trio.leader().unwrap()].driver().status(GROUP).unwrap().last;
    trio.until("the others have it", |trio| {
        let others = (0..NODES).filter(|no| *no != taker);
        others.map(|no| trio.nodes[no].applied(GROUP)).all(|applied| applied == last(trio))
    });
    (trio, taker, MISSED)
}

#[test]
fn a_follower_that_wants_no_rows_costs_few_flushes_and_is_given_them_in_the_end() {
    let (mut trio, taker, mut written) = behind(0);
    trio.sated = Some(taker);
    trio.away = None;
    let giver = trio.leader().unwrap();
    let flushes = |trio: &Trio| trio.nodes[giver].store().flushes();
    let (begun_ms, before) = (trio.now_ms, flushes(&trio));
    while trio.now_ms < begun_ms + 50_000 {
        // Writes go on, so what the last flush has is soon too old again.
        for _ in 0..100 {
            written += 1;
            trio.propose(append(written));
        }
        let now_ms = trio.now_ms;
        trio.until("a moment later", |trio| trio.now_ms >= now_ms + 250);
    }
    assert_eq!(trio.leader(), Some(giver));
    let (offers, flushed) = (trio.offered_ms.len(), flushes(&trio) - before);
    assert!((3..=8).contains(&offers), "{:?}", trio.offered_ms);
    assert!(flushed <= 8, "{flushed} flushes for {offers} offers");
    let counts = trio.nodes[giver].catch_up_counts();
    assert_eq!((counts.not_wanted, counts.given_up), (offers as u64, 0));
    trio.sated = None;
    trio.until("it has all", |trio| trio.nodes[taker].catch_up_counts().taken == 1);
    let last = trio.nodes[giver].driver().status(GROUP).unwrap().last;
    trio.until("all are even", |trio| trio.are_even(last));
    assert_eq!(trio.rows(taker), trio.rows(giver));
}
