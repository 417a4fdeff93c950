//! Rows that take the place of entries: when Raft goes on from them, and what happens around it.
use raft::eraftpb::MessageType;

use super::*;
use crate::deeds::{Installed, Staged};
use crate::frame;

const LEADER: PeerId = PeerId(2);
const ROWS: Staged = Staged { index: Index(40), term: Term(3), generation: Generation(7) };

fn snapshot(index: u64, of_term: u64, term: u64) -> Inbound {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    message.term = term;
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, of_term);
    Inbound::Frame { from: LEADER, bytes: frame(message) }
}

fn from_leader(message: Message) -> Inbound {
    Inbound::Frame { from: LEADER, bytes: frame(message) }
}

fn staged(driver: &mut Driver) {
    driver.turn(at(0), [Inbound::Staged { group: GROUP, rows: ROWS }]);
}

/// What a follower says to its leader, but for heartbeats.
fn said(deeds: &Deeds) -> Vec<(MessageType, u64, bool)> {
    let mut said = Vec::new();
    for (_, bytes) in &deeds.frames {
        frame::decode(bytes, |_, message| {
            said.push((message.get_msg_type(), message.index, message.reject));
        })
        .unwrap();
    }
    said
}

#[test]
fn only_rows_that_the_leader_means_are_gone_on_from() {
    let mut driver = driver(1, 3);
    for (case, of) in
        [("none are here", (40, 3)), ("a later entry", (41, 3)), ("its term", (40, 2))]
    {
        let refused = driver.turn(at(0), [snapshot(of.0, of.1, 3)]);
        assert_eq!(refused.rejected.len(), 1, "{case}");
        assert!(refused.log.is_none() && refused.installed.is_empty(), "{case}");
        staged(&mut driver);
    }
    driver.turn(at(0), [Inbound::Unstaged { group: GROUP }]);
    assert_eq!(driver.turn(at(0), [snapshot(40, 3, 3)]).rejected.len(), 1, "no longer");
    assert_eq!(driver.status(GROUP).unwrap().committed, Index(0));
}

#[test]
fn rows_are_gone_on_from_once_the_record_that_says_so_is_on_disk() {
    let mut driver = driver(1, 3);
    driver.turn(at(0), [from_leader(append(3, 0, 0, 0, &["a", "b"]))]);
    staged(&mut driver);
    let decided = driver.turn(at(0), [snapshot(40, 3, 3)]);
    let records = &decided.log.as_ref().unwrap().records;
    let Staged { index, term, generation } = ROWS;
    assert_eq!(records.last(), Some(&Record::Installed { group: GROUP, index, term, generation }));
    assert!(driver.is_installing(GROUP) && decided.installed.is_empty());
    assert_eq!(said(&decided), [], "an answer would promise it");
    // Entries that follow may be written at once; the job of the first two is still open.
    let more = driver.turn(at(0), [from_leader(append(3, 40, 3, 41, &["c"]))]);
    assert_eq!(more.log.as_ref().unwrap().records.len(), 1);
    driver.turn(at(0), [Inbound::LogDone { job: JobId(1) }]);
    assert!(driver.is_installing(GROUP));
    let done = driver.turn(at(0), [log_done(&decided)]);
    assert_eq!(done.installed, [Installed { group: GROUP, rows: ROWS }]);
    assert_eq!(said(&done), [(MessageType::MsgAppendResponse, 40, false)]);
    assert_eq!(driver.status(GROUP).unwrap().applied, Index(40));
    let behind = driver.turn(at(0), [log_done(&more)]);
    assert_eq!(behind.apply[0].entries[0].index, Index(41), "the log goes on behind them");
    // Said again, it is answered and changes nothing.
    let again = driver.turn(at(0), [snapshot(40, 3, 3)]);
    assert!(again.log.is_none() && again.rejected.is_empty());
    assert_eq!(said(&again), [(MessageType::MsgAppendResponse, 41, false)]);
}

#[test]
fn a_snapshot_that_contradicts_what_is_committed_is_dropped() {
    let mut driver = driver(1, 3);
    let first = driver.turn(at(0), [from_leader(append(3, 0, 0, 2, &["a", "b"]))]);
    let done = driver.turn(at(0), [log_done(&first)]);
    driver.turn(at(0), done.apply.iter().map(applied));
    assert_eq!(driver.status(GROUP).unwrap().committed, Index(2));
    // Without any rows, and with rows of another position.
    for rows in [None, Some(ROWS)] {
        if let Some(rows) = rows {
            driver.turn(at(0), [Inbound::Staged { group: GROUP, rows }]);
        }
        for (index, of_term) in [(2, 2), (2, 4), (1, 2), (0, 3), (u64::MAX, 3)] {
            let refused = driver.turn(at(0), [snapshot(index, of_term, 3)]);
            let case = format!("{rows:?}: entry {index} of term {of_term}");
            assert_eq!(refused.rejected.len(), 1, "{case}");
            assert!(refused.log.is_none() && refused.installed.is_empty(), "{case}");
            assert!(!driver.is_installing(GROUP) && said(&refused).is_empty(), "{case}");
        }
    }
    // What is committed here, named rightly, is answered.
    let known = driver.turn(at(0), [snapshot(2, 3, 3)]);
    assert!(known.rejected.is_empty() && known.log.is_none());
    assert_eq!(said(&known), [(MessageType::MsgAppendResponse, 2, false)]);
    let status = driver.status(GROUP).unwrap();
    assert_eq!((status.committed, status.last), (Index(2), Index(2)));
}

#[test]
fn nobody_stands_for_election_while_rows_are_put_in_place() {
    let mut driver = driver(1, 3);
    staged(&mut driver);
    let decided = driver.turn(at(0), [snapshot(40, 3, 3)]);
    assert!(driver.is_installing(GROUP));
    let mut now = Message::default();
    now.set_msg_type(MessageType::MsgTimeoutNow);
    now.term = 3;
    driver.turn(at(1), [from_leader(now), Inbound::Campaign { group: GROUP }]);
    for tick in 1..100 {
        driver.turn(at(tick * 50), []);
        assert_eq!(driver.status(GROUP).unwrap().role, Role::Follower);
    }
    driver.turn(at(5_000), [log_done(&decided)]);
    let stands = (101..200).any(|tick| {
        driver.turn(at(tick * 50), []);
        driver.status(GROUP).unwrap().role == Role::Candidate
    });
    assert!(stands, "the clock runs again");
}

#[test]
fn applied_entries_that_are_reported_late_do_not_move_rows_back() {
    let mut driver = driver(1, 3);
    let first = driver.turn(at(0), [from_leader(append(3, 0, 0, 2, &["a", "b"]))]);
    let done = driver.turn(at(0), [log_done(&first)]);
    assert_eq!(done.apply[0].entries.len(), 2);
    staged(&mut driver);
    let decided = driver.turn(at(0), [snapshot(40, 3, 3)]);
    driver.turn(at(0), [Inbound::Applied { group: GROUP, index: Index(1) }]);
    let done = driver.turn(at(0), [log_done(&decided)]);
    assert_eq!(done.installed.len(), 1);
    driver.turn(at(0), [Inbound::Applied { group: GROUP, index: Index(2) }]);
    let status = driver.status(GROUP).unwrap();
    assert_eq!((status.applied, status.last), (Index(40), Index(40)));
}

#[test]
fn a_group_whose_rows_are_damaged_asks_for_others_and_does_not_stand() {
    let mut driver = driver(1, 3);
    let first = driver.turn(at(0), [from_leader(append(3, 0, 0, 1, &["a"]))]);
    driver.turn(at(0), [log_done(&first), Inbound::Damaged { group: GROUP }]);
    let mut now = Message::default();
    now.set_msg_type(MessageType::MsgTimeoutNow);
    now.term = 3;
    driver.turn(at(1), [from_leader(now), Inbound::Campaign { group: GROUP }]);
    let mut asked = Vec::new();
    for tick in 1..100 {
        asked.extend(said(&driver.turn(at(tick * 50), [])));
        assert_eq!(driver.status(GROUP).unwrap().role, Role::Follower);
    }
    assert_eq!(asked, [(MessageType::MsgAppendResponse, 1, true)]);
    let refused = driver.turn(at(5_000), [from_leader(append(3, 1, 3, 1, &["b"]))]);
    assert_eq!(said(&refused), asked, "nothing is acknowledged meanwhile");
    // Rows up to an entry that is here and committed are what it needs.
    assert_eq!(driver.turn(at(5_000), [snapshot(1, 3, 3)]).rejected.len(), 1, "not here yet");
    let rows = Staged { index: Index(1), term: Term(3), generation: Generation(7) };
    driver.turn(at(5_000), [Inbound::Staged { group: GROUP, rows }]);
    let decided = driver.turn(at(5_000), [snapshot(1, 3, 3)]);
    let done = driver.turn(at(5_000), [log_done(&decided)]);
    assert_eq!(done.installed, [Installed { group: GROUP, rows }]);
    let taken = driver.turn(at(5_000), [from_leader(append(3, 1, 3, 1, &["b"]))]);
    assert_eq!(taken.log.unwrap().records.len(), 1, "entries are taken again");
}
