//! Three nodes over memory, of which one has no place for what the others write.

use super::damage::{NODES, Trio, append, create};
use super::*;

const MEMTABLE_BYTES: usize = 16 * 1024;
/// Many times what all memtables hold.
const WRITTEN: u64 = 4_000;
/// Proposed at a time.
const AT_ONCE: u64 = 50;

fn held_bytes(trio: &Trio, no: usize) -> usize {
    let stats = trio.nodes[no].store().stats();
    stats.active_bytes + stats.sealed_bytes
}

#[test]
fn a_follower_whose_disk_takes_no_rows_holds_no_more_than_its_memtables_and_has_all_in_the_end() {
    let options = StoreOptions { memtable_bytes: MEMTABLE_BYTES, ..StoreOptions::default() };
    let memtables = options.sealed_max + 1;
    let mut trio = Trio::of(&options, |_| ());
    trio.until("somebody leads", |trio| trio.leader().is_some());
    trio.propose(create());
    let (leader, slow) = (trio.leader().unwrap(), (trio.leader().unwrap() + 1) % NODES);
    trio.stalled = Some(slow);
    let mut most = 0;
    let mut largest_step = 0;
    for n in 1..=WRITTEN {
        trio.propose(append(n));
        if n % AT_ONCE == 0 {
            let before = held_bytes(&trio, slow);
            trio.until("the others have it", |trio| {
                let last = trio.nodes[leader].driver().status(GROUP).unwrap().last;
                let others = (0..NODES).filter(|no| *no != slow);
                others.map(|no| trio.nodes[no].applied(GROUP)).all(|applied| applied == last)
            });
            let now = held_bytes(&trio, slow);
            (most, largest_step) = (most.max(now), largest_step.max(now.saturating_sub(before)));
        }
    }
    assert_eq!(trio.leader(), Some(leader), "nobody is taken for dead");
    assert!(trio.passed_over[slow] > 0 && trio.nodes[slow].store().is_full());
    let bound = memtables * MEMTABLE_BYTES + largest_step;
    assert!((memtables * MEMTABLE_BYTES..=bound).contains(&most), "{most} of {bound}");
    let others: u64 = (0..NODES).filter(|no| *no != slow).map(|no| trio.passed_over[no]).sum();
    assert_eq!(others, 0, "there was room");

    trio.stalled = None;
    trio.until("all have it", |trio| {
        trio.are_even(trio.nodes[leader].driver().status(GROUP).unwrap().last)
    });
    assert_eq!(trio.rows(slow), trio.rows(leader));
}
