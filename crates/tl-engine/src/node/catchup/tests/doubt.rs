//! Three nodes over memory, of which one starts with a log that has lost durable records.

use tl_raft::MemberChange;
use tl_wal::Disk;

use super::damage::{NODES, Trio, append, create};
use super::*;

/// What events of these tests are full of.
const FILL: [u8; 16] = [7; 16];

/// A trio of which a follower is down, with a log that it has confirmed and none of it in its store.
fn trio() -> (Trio, usize) {
    let mut trio = Trio::with(|_| ());
    trio.until("somebody leads", |trio| trio.leader().is_some());
    trio.propose(create());
    (1..=7).for_each(|event| trio.propose(append(event)));
    trio.until("all have it", |trio| trio.are_even(Index(9)));
    // What is written behind them says that they were durable.
    trio.propose(append(8));
    trio.until("all have that", |trio| trio.are_even(Index(10)));
    let victim = (trio.leader().unwrap() + 1) % NODES;
    trio.away = Some(victim);
    trio.disks[victim].kill();
    (trio, victim)
}

/// Where a segment's records begin, and how long a record's header is.
const HEAD_BYTES: usize = 4096;
const HEADER_BYTES: usize = 56;
/// A record of members, as its header says.
const MEMBERSHIP: u8 = 3;

/// Turns a bit over in the first record with an event, so far behind its beginning.
fn flip(disk: &MemDisk, behind: usize) {
    let is_event = |_: &[u8], data: &[u8]| data.windows(FILL.len()).any(|part| part == FILL);
    let (name, at) = find(disk, is_event).into_iter().next().expect("a segment holds an event");
    assert!(disk.flip(&name, at + behind, 3));
}

/// Where records begin whose headers and data are such, in which file.
fn find(disk: &MemDisk, is_one: impl Fn(&[u8], &[u8]) -> bool) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for file in disk.list().unwrap() {
        let bytes = disk.contents(&file.name).unwrap();
        let mut at = HEAD_BYTES;
        while let Some(header) = bytes.get(at..at + HEADER_BYTES).filter(|header| header[12] > 0) {
            let len = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
            let data = &bytes[at + HEADER_BYTES..at + HEADER_BYTES + len];
            found.extend(is_one(header, data).then(|| (file.name.clone(), at)));
            at += HEADER_BYTES + len.next_multiple_of(8);
        }
    }
    found
}

/// Starts the victim, lets the others go on meanwhile, and sees it mended for good.
fn is_mended(mut trio: Trio, victim: usize) {
    let leader = trio.leader().unwrap();
    trio.restart(victim);
    assert!(trio.nodes[victim].driver().is_doubted(GROUP));
    assert!(trio.nodes[victim].slots[0].stopped);
    trio.away = None;
    trio.propose(append(9));
    trio.until("the others go on, and it is told of", |trio| {
        trio.nodes[leader].applied(GROUP) == Index(11) && trio.stopped == [victim]
    });
    trio.until("it has other rows", |trio| trio.nodes[victim].catch_up_counts().taken == 1);
    assert!(!trio.nodes[victim].driver().is_doubted(GROUP));
    trio.propose(append(10));
    trio.until("all go on", |trio| trio.are_even(Index(12)));
    assert_eq!(trio.rows(victim), trio.rows(leader));
    // The damage is still there, and behind it.
    trio.disks[victim].kill();
    trio.restart(victim);
    assert_eq!(trio.damages, [1, 1], "it was found at both starts");
    assert!(!trio.nodes[victim].driver().is_doubted(GROUP) && !trio.nodes[victim].slots[0].stopped);
    let to = PeerId(victim as u64 + 1);
    trio.inboxes[leader].push(Input::Transfer { group: GROUP, to });
    trio.until("it may lead again", |trio| trio.leader() == Some(victim));
    trio.propose(append(11));
    trio.until("all follow it", |trio| trio.are_even(Index(14)));
}

#[test]
fn a_member_whose_log_lost_an_entry_is_brought_past_that_and_stays_past_it() {
    let (trio, victim) = trio();
    flip(&trio.disks[victim], HEADER_BYTES);
    is_mended(trio, victim);
}

#[test]
fn a_member_whose_log_lost_a_record_of_no_name_is_brought_past_that_too() {
    let (trio, victim) = trio();
    // Its kind, so that its header is none.
    flip(&trio.disks[victim], 12);
    is_mended(trio, victim);
}

#[test]
fn no_rows_are_taken_before_everybody_has_answered() {
    let (mut trio, victim) = trio();
    flip(&trio.disks[victim], HEADER_BYTES);
    let leader = trio.leader().unwrap();
    trio.restart(victim);
    trio.away = (0..NODES).find(|no| *no != victim && *no != leader);
    let begun_ms = trio.now_ms;
    trio.until("a while later", |trio| trio.now_ms >= begun_ms + 30_000);
    let counts = trio.nodes[victim].catch_up_counts();
    assert_eq!((counts.rows_taken, counts.let_go), (0, 0), "none would help it");
    assert!(trio.nodes[leader].catch_up_counts().not_wanted > 0, "some were offered");
    trio.away = None;
    trio.until("it has other rows", |trio| trio.nodes[victim].catch_up_counts().taken == 1);
    let last = |trio: &Trio| trio.nodes.iter().map(|node| node.applied(GROUP)).max().unwrap();
    trio.until("all go on", |trio| trio.leader().is_some() && trio.are_even(last(trio)));
}

#[test]
fn a_member_that_lost_its_record_of_newer_members_is_mended_without_the_one_that_they_replaced() {
    let mut trio = Trio::with(|_| ());
    trio.until("somebody leads", |trio| trio.leader().is_some());
    trio.propose(create());
    (1..=7).for_each(|event| trio.propose(append(event)));
    trio.until("all have it", |trio| trio.are_even(Index(9)));
    let leader = trio.leader().unwrap();
    let (victim, gone) = ((leader + 1) % NODES, (leader + 2) % NODES);
    // It never comes back.
    trio.away = Some(gone);
    let new = trio.add();
    let [new_in, old_out] = [new, gone].map(|no| PeerId(no as u64 + 1));
    trio.change(MemberChange::AddLearner(new_in));
    let last = |trio: &Trio| trio.nodes[leader].applied(GROUP);
    trio.until("it has all", |trio| trio.nodes[new].applied(GROUP) == last(trio));
    trio.change(MemberChange::Swap { new_in, old_out });
    trio.change(MemberChange::LeaveJoint);
    trio.propose(append(8));
    let are_even =
        |trio: &Trio| [victim, new].iter().all(|no| trio.nodes[*no].applied(GROUP) == last(trio));
    trio.until("all members go on", |trio| last(trio) == Index(13) && are_even(trio));
    let members = |trio: &Trio, no: usize| trio.nodes[no].driver().status(GROUP).unwrap().members;
    assert!(!members(&trio, victim).contains(old_out));

    trio.disks[victim].kill();
    let records = find(&trio.disks[victim], |header, _| header[12] == MEMBERSHIP);
    assert_eq!(records.len(), 3, "one of each change");
    for (name, at) in records {
        assert!(trio.disks[victim].flip(&name, at + HEADER_BYTES, 3));
    }
    trio.restart(victim);
    assert!(trio.nodes[victim].driver().is_doubted(GROUP));
    assert_eq!(members(&trio, victim).at, Index(0), "it knows those of the founding");
    trio.until("it has other rows", |trio| trio.nodes[victim].catch_up_counts().taken == 1);
    assert!(!trio.nodes[victim].driver().is_doubted(GROUP));
    assert_eq!(members(&trio, victim), members(&trio, leader));
    trio.propose(append(9));
    trio.until("all members go on again", |trio| last(trio) == Index(14) && are_even(trio));
    assert_eq!(trio.nodes[victim].catch_up_counts().let_go, 0, "rows travelled once");
}
