#![allow(clippy::unwrap_used)]

mod cluster;
mod doubt;
mod feeds;
mod followed;
mod members;
mod quiet;
mod snapshots;
use std::hint::black_box;

use bytes::Bytes;
use tl_types::{Generation, Term};
use tl_wal::{Position, Record};

use super::*;
use crate::deeds::{ApplyBatch, Committed, Outcome, ReadReady, Role, Token};
use crate::frame;
use crate::recovery::{GroupStart, Recovery};

const ME: PeerId = PeerId(1);
const GROUP: GroupId = GroupId(0);

fn voters(count: u64) -> Vec<PeerId> {
    (1..=count).map(PeerId).collect()
}

fn driver(groups: u16, voter_count: u64) -> Driver {
    let groups = (0..groups).map(|group| RecoveredGroup::new(GroupId(group), voters(voter_count)));
    Driver::new(DriverConfig::new(ME, 7), groups.collect())
}

fn at(boot_ms: u64) -> Now {
    Now { boot_ms }
}

fn propose(group: GroupId, token: u64, data: &'static str) -> Inbound {
    Inbound::Propose { group, token: Token(token), data: Bytes::from_static(data.as_bytes()) }
}

fn log_done(deeds: &Deeds) -> Inbound {
    Inbound::LogDone { job: deeds.log.as_ref().unwrap().id }
}

fn applied(batch: &ApplyBatch) -> Inbound {
    Inbound::Applied { group: batch.group, index: batch.entries.last().unwrap().index }
}

/// A one-voter driver whose first votes are on disk and whose first entries are applied.
fn leading(groups: u16) -> (Driver, Vec<Record>) {
    let mut driver = driver(groups, 1);
    let first = driver.turn(at(0), []);
    let records = first.log.clone().unwrap().records;
    let second = driver.turn(at(0), [log_done(&first)]);
    assert_eq!(second.apply.len(), usize::from(groups));
    driver.turn(at(0), second.apply.iter().map(applied));
    (driver, records)
}

fn recover(voter_count: u64, applied: (Index, Term), records: &[Record]) -> Vec<RecoveredGroup> {
    let start = GroupStart {
        group: GROUP,
        voters: voters(voter_count),
        applied,
        generation: Generation(0),
    };
    let mut recovery = Recovery::new(vec![start], 1 << 20);
    read(&mut recovery, records);
    recovery.finish(&[]).unwrap()
}

/// Reads a log in which each record takes one place.
fn read(recovery: &mut Recovery, records: &[Record]) {
    for (position, record) in (0..).map(Position).zip(records) {
        recovery.record(position, record.clone());
    }
}

/// A frame with one message, as another node would send it.
fn frame(message: Message) -> Bytes {
    let mut builder = FrameBuilder::default();
    assert!(builder.push(GROUP, &message));
    builder.finish().next().unwrap()
}

fn vote_request(term: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(raft::eraftpb::MessageType::MsgRequestVote);
    message.term = term;
    message
}

fn append(term: u64, index: u64, log_term: u64, commit: u64, datas: &[&'static str]) -> Message {
    let mut message = Message::default();
    message.set_msg_type(raft::eraftpb::MessageType::MsgAppend);
    (message.term, message.index, message.log_term, message.commit) =
        (term, index, log_term, commit);
    let entries = (index + 1..).zip(datas).map(|(index, data)| {
        let mut entry = raft::eraftpb::Entry::default();
        (entry.index, entry.term, entry.data) = (index, term, Bytes::from_static(data.as_bytes()));
        entry
    });
    message.set_entries(entries.collect::<Vec<_>>().into());
    message
}

#[test]
fn one_voter_commits_what_is_proposed_once_its_log_job_is_done() {
    let (mut driver, _) = leading(1);
    let proposed = driver.turn(at(1), [propose(GROUP, 41, "a"), propose(GROUP, 42, "b")]);
    assert_eq!(proposed.apply, [], "nothing is committed before it is on disk");
    assert_eq!(
        proposed.log.as_ref().unwrap().records.len(),
        2,
        "a hard state that only commits is not written"
    );

    let done = driver.turn(at(2), [log_done(&proposed)]);
    let entry = |index, token, data: &'static str| Committed {
        index: Index(index),
        term: Term(1),
        data: Bytes::from_static(data.as_bytes()),
        token: Some(Token(token)),
    };
    assert_eq!(
        done.apply,
        [ApplyBatch { group: GROUP, entries: vec![entry(2, 41, "a"), entry(3, 42, "b")] }]
    );
    assert!(done.log.is_none() && done.outcomes.is_empty());
    assert_eq!(driver.jobs_open(), 0);
}

#[test]
fn one_ready_carries_what_became_committed_and_what_is_new() {
    let (mut driver, _) = leading(1);
    let first = driver.turn(at(1), [propose(GROUP, 1, "a")]);
    // The proposal comes first in the inbox, the confirmation is still taken first.
    let second = driver.turn(at(1), [propose(GROUP, 2, "b"), log_done(&first)]);
    assert_eq!(second.apply[0].entries[0].token, Some(Token(1)));
    assert_eq!(second.log.unwrap().records.len(), 1);
}

#[test]
fn the_first_votes_of_all_groups_are_one_log_job() {
    let mut driver = driver(256, 1);
    let first = driver.turn(at(0), []);
    let records = first.log.unwrap().records;
    let hard_states =
        records.iter().filter(|record| matches!(record, Record::HardState { vote: 1, .. })).count();
    assert_eq!((hard_states, records.len()), (256, 512));
    assert_eq!(first.roles.iter().filter(|change| change.role == Role::Leader).count(), 256);
}

#[test]
fn a_restart_hands_out_what_was_on_disk_and_not_applied() {
    let (mut driver, mut records) = leading(1);
    let proposed = driver
        .turn(at(1), [propose(GROUP, 1, "a"), propose(GROUP, 2, "b"), propose(GROUP, 3, "c")]);
    records.extend(proposed.log.unwrap().records);

    let recovered = recover(1, (Index(2), Term(1)), &records);
    let mut driver = Driver::new(DriverConfig::new(ME, 8), recovered);
    let first = driver.turn(at(0), []);
    assert!(first.apply.is_empty());
    let second = driver.turn(at(0), [log_done(&first)]);
    let seen: Vec<_> = second.apply[0]
        .entries
        .iter()
        .map(|entry| (entry.index.0, entry.term.0, entry.data.clone()))
        .collect();
    let expected = [(3, 1, "b"), (4, 1, "c"), (5, 2, "")];
    assert_eq!(
        seen,
        expected.map(|(index, term, data)| (index, term, Bytes::from_static(data.as_bytes())))
    );
    assert!(second.apply[0].entries.iter().all(|entry| entry.token.is_none()));
}

#[test]
fn a_vote_leaves_only_after_its_log_job() {
    let mut driver = driver(1, 3);
    let asked =
        driver.turn(at(0), [Inbound::Frame { from: PeerId(2), bytes: frame(vote_request(1)) }]);
    assert!(asked.frames.is_empty(), "the vote is not on disk yet");
    let vote = Record::HardState { group: GROUP, term: Term(1), vote: 2 };
    assert_eq!(asked.log.as_ref().unwrap().records, [vote]);
    let done = driver.turn(at(1), [log_done(&asked)]);
    assert_eq!(done.frames.len(), 1);
    assert_eq!(done.frames[0].0, PeerId(2));
}

#[test]
fn a_second_vote_in_a_term_is_refused_after_a_restart() {
    let mut first = driver(1, 3);
    let asked =
        first.turn(at(0), [Inbound::Frame { from: PeerId(2), bytes: frame(vote_request(1)) }]);
    let recovered = recover(3, (Index(0), Term(0)), &asked.log.unwrap().records);
    let mut second = Driver::new(DriverConfig::new(ME, 9), recovered);
    let answer =
        second.turn(at(0), [Inbound::Frame { from: PeerId(3), bytes: frame(vote_request(1)) }]);
    assert!(answer.log.is_none());
    let mut rejected = None;
    frame::decode(&answer.frames[0].1, |_, message| rejected = Some(message.reject)).unwrap();
    assert_eq!(rejected, Some(true));
}

#[test]
fn an_append_is_answered_after_its_log_job_also_when_it_comes_twice() {
    let mut driver = driver(1, 3);
    let sent = || Inbound::Frame { from: PeerId(2), bytes: frame(append(1, 0, 0, 0, &["x", "y"])) };
    let first = driver.turn(at(0), [sent()]);
    assert_eq!(first.log.as_ref().unwrap().records.len(), 3);
    let again = driver.turn(at(1), [sent()]);
    assert!(first.frames.is_empty() && again.frames.is_empty() && again.log.is_none());
    let done = driver.turn(at(2), [log_done(&first)]);
    let mut answers = Vec::new();
    frame::decode(&done.frames[0].1, |_, message| answers.push((message.index, message.reject)))
        .unwrap();
    assert_eq!(answers, [(2, false), (2, false)]);
}

#[test]
fn a_late_rejection_does_not_send_a_leader_back_behind_what_it_has_let_go() {
    use raft::eraftpb::MessageType::{
        MsgAppend, MsgAppendResponse, MsgRequestPreVoteResponse, MsgRequestVoteResponse,
    };
    let answer = |from, kind, index| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.term, message.index) = (1, index);
        Inbound::Frame { from: PeerId(from), bytes: frame(message) }
    };
    let mut driver = driver(1, 3);
    driver.turn(at(0), [Inbound::Campaign { group: GROUP }]);
    let stands = driver.turn(at(0), [answer(2, MsgRequestPreVoteResponse, 0)]);
    driver.turn(at(0), [log_done(&stands)]);
    let leads = driver.turn(at(0), [answer(2, MsgRequestVoteResponse, 0)]);
    let all_have = |driver: &mut Driver, written: &Deeds, index| {
        driver.turn(at(0), [log_done(written)]);
        let answers = [2, 3].map(|from| answer(from, MsgAppendResponse, index));
        let committed = driver.turn(at(0), answers);
        driver.turn(at(0), committed.apply.iter().map(applied));
    };
    all_have(&mut driver, &leads, 1);
    let proposed = driver.turn(at(0), [propose(GROUP, 1, "a"), propose(GROUP, 2, "b")]);
    all_have(&mut driver, &proposed, 3);
    assert_eq!(driver.first_kept(GROUP), Some(Index(4)), "nobody lacks anything");

    // The connection breaks, and what peer 3 said when it had nothing arrives behind that.
    let mut rejection = Message::default();
    rejection.set_msg_type(MsgAppendResponse);
    (rejection.term, rejection.index, rejection.reject) = (1, 3, true);
    driver.turn(at(0), [Inbound::Unreachable { peer: PeerId(3) }]);
    driver.turn(at(0), [Inbound::Frame { from: PeerId(3), bytes: frame(rejection) }]);
    let next = driver.turn(at(0), [propose(GROUP, 3, "c")]);
    let mut sent = Vec::new();
    for (_, bytes) in next.frames.iter().filter(|(to, _)| *to == PeerId(3)) {
        frame::decode(bytes, |_, message| sent.push((message.get_msg_type(), message.index)))
            .unwrap();
    }
    assert_eq!(sent, [(MsgAppend, 3)], "the next entry goes to peer 3");
}

#[test]
fn a_proposal_to_a_follower_is_answered_with_the_leader() {
    let mut driver = driver(1, 3);
    let early = driver.turn(at(0), [propose(GROUP, 1, "a")]);
    assert_eq!(early.outcomes, [Outcome::NotLeader { token: Token(1), leader: None }]);
    driver.turn(at(1), [Inbound::Frame { from: PeerId(3), bytes: frame(append(1, 0, 0, 0, &[])) }]);
    let hinted = driver.turn(at(2), [propose(GROUP, 2, "a"), propose(GroupId(9), 3, "a")]);
    let expected = [
        Outcome::NotLeader { token: Token(3), leader: None },
        Outcome::NotLeader { token: Token(2), leader: Some(PeerId(3)) },
    ];
    assert_eq!(hinted.outcomes, expected);
}

#[test]
fn a_group_takes_no_more_than_its_uncommitted_budget() {
    let mut config = DriverConfig::new(ME, 7);
    config.uncommitted_bytes_max = config.message_bytes_max;
    let half = Bytes::from(vec![1; config.message_bytes_max / 2]);
    let mut driver = Driver::new(config, vec![RecoveredGroup::new(GROUP, voters(1))]);
    let proposal =
        |token| Inbound::Propose { group: GROUP, token: Token(token), data: half.clone() };
    let first = driver.turn(at(0), [proposal(1), proposal(2)]);
    assert_eq!(first.outcomes, [Outcome::Busy { token: Token(2) }]);
    let done = driver.turn(at(0), [log_done(&first)]);
    assert_eq!(done.apply[0].entries.last().unwrap().token, Some(Token(1)));
    let last = driver.turn(at(0), [proposal(3)]);
    assert_eq!(last.outcomes, [], "committed entries give their room back");
}

#[test]
fn a_read_of_one_voter_is_ready_at_once_and_waits_for_the_first_commit() {
    let mut driver = driver(1, 1);
    let read = |token| Inbound::ReadIndex { group: GROUP, token: Token(token) };
    let early = driver.turn(at(0), [read(1)]);
    assert_eq!(early.reads, []);
    let committed = driver.turn(at(0), [log_done(&early)]);
    let later = driver.turn(at(0), [read(2)]);
    let mut reads = [committed.reads, later.reads].concat();
    reads.sort_by_key(|read| read.token);
    let ready = |token| ReadReady { group: GROUP, token: Token(token), index: Index(1) };
    assert_eq!(reads, [ready(1), ready(2)]);
}

#[test]
fn a_read_without_a_leader_fails_in_the_end() {
    let mut driver = driver(1, 3);
    let mut outcomes =
        driver.turn(at(0), [Inbound::ReadIndex { group: GROUP, token: Token(5) }]).outcomes;
    for tick in 1..=25 {
        outcomes.extend(driver.turn(at(tick * 50), []).outcomes);
    }
    assert_eq!(outcomes, [Outcome::ReadFailed { token: Token(5), leader: None }]);
}

#[test]
fn many_answered_reads_do_not_make_the_next_ones_impatient() {
    let mut driver = driver(1, 1);
    let read = |token| Inbound::ReadIndex { group: GROUP, token: Token(token) };
    let start = driver.turn(at(0), []);
    driver.turn(at(0), [log_done(&start)]);
    for token in 0..100 {
        let turn = driver.turn(at(token * 50), [read(token)]);
        assert_eq!(turn.outcomes, [], "read {token}");
        assert_eq!(turn.reads.len(), 1, "read {token}");
    }
}

#[test]
fn what_a_turn_has_no_budget_for_comes_in_the_next_in_order() {
    let mut config = DriverConfig::new(ME, 7);
    config.turn_items_max = 2;
    let mut driver = Driver::new(config, vec![RecoveredGroup::new(GROUP, voters(1))]);
    let first = driver.turn(at(0), (1..=5).map(|token| propose(GROUP, token, "a")));
    assert!(first.more);
    let second = driver.turn(at(0), []);
    let third = driver.turn(at(0), []);
    assert!(second.more && !third.more);
    // Three jobs may be written as one; they are confirmed one by one.
    let done = driver.turn(at(0), [log_done(&first), log_done(&second), log_done(&third)]);
    let tokens: Vec<_> = done.apply[0].entries.iter().filter_map(|entry| entry.token).collect();
    assert_eq!(tokens, [1, 2, 3, 4, 5].map(Token));
}

#[test]
fn committed_entries_past_the_budget_come_with_the_next_turn() {
    let mut config = DriverConfig::new(ME, 7);
    config.committed_bytes_max = 100;
    let mut driver = Driver::new(config, vec![RecoveredGroup::new(GROUP, voters(1))]);
    let mut deeds =
        driver.turn(at(0), (1..=20).map(|token| propose(GROUP, token, "some bytes of data")));
    deeds = driver.turn(at(0), [log_done(&deeds)]);
    let mut count = deeds.apply[0].entries.len();
    let mut turns = 1;
    while deeds.more {
        deeds = driver.turn(at(0), []);
        count += deeds.apply[0].entries.len();
        turns += 1;
    }
    assert_eq!(count, 21);
    assert!(turns > 3, "{turns} turns");
}

#[test]
#[should_panic(expected = "log jobs are confirmed in order")]
fn a_log_job_confirmed_out_of_order_stops_the_driver() {
    let (mut driver, _) = leading(1);
    driver.turn(at(0), [propose(GROUP, 1, "a")]);
    let second = driver.turn(at(0), [propose(GROUP, 2, "b")]);
    driver.turn(at(0), [log_done(&second)]);
}

#[test]
#[should_panic(expected = "never handed out")]
fn applied_before_it_was_handed_out_stops_the_driver() {
    let (mut driver, _) = leading(1);
    driver.turn(at(0), [Inbound::Applied { group: GROUP, index: Index(9) }]);
}

#[test]
fn frames_that_make_no_sense_are_refused() {
    let mut driver = driver(1, 3);
    let mut ahead = append(1, 0, 0, 0, &[]);
    ahead.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
    ahead.commit = 7;
    let from = |peer, bytes| Inbound::Frame { from: PeerId(peer), bytes };
    let inbox = [
        from(2, Bytes::from_static(b"what?")),
        from(0, frame(vote_request(1))),
        from(1, frame(vote_request(1))),
        from(2, frame(ahead)),
    ];
    let deeds = driver.turn(at(0), inbox);
    assert_eq!(deeds.rejected.len(), 4);
    assert!(deeds.log.is_none() && deeds.frames.is_empty());
}

#[test]
fn an_append_of_other_entries_than_are_committed_is_refused() {
    let mut driver = driver(1, 3);
    let from = |message| Inbound::Frame { from: PeerId(2), bytes: frame(message) };
    let mut take = |message| {
        let deeds = driver.turn(at(0), [from(message)]);
        let reasons: Vec<_> = deeds.rejected.iter().map(|rejected| rejected.reason).collect();
        let done = deeds.log.is_some().then(|| driver.turn(at(0), [log_done(&deeds)]));
        (reasons, deeds.frames.len() + done.map_or(0, |done| done.frames.len()))
    };
    let of = |index, entry_term, log_term, datas: &[&'static str]| {
        let mut message = append(9, index, log_term, 0, datas);
        for entry in message.mut_entries().iter_mut() {
            entry.term = entry_term;
        }
        message
    };
    // The first two entries of three are committed.
    let mut three = of(0, 5, 0, &["a", "b", "c"]);
    three.commit = 2;
    assert_eq!(take(three), (vec![], 1));
    let other = "append of other entries than are committed here";
    for (wrong, reason) in [
        (of(0, 4, 0, &["x"]), other),
        (of(1, 6, 5, &["x", "y"]), other),
        (of(1, 5, 4, &["b"]), other),
        (of(2, 9, 4, &["c"]), other),
        // Nothing before the second entry can stand behind it, wherever the sender's log ends.
        (of(3, 9, 4, &[]), other),
        (of(900, 9, 4, &["z"]), other),
        (of(900, 9, 0, &["z"]), "append behind an entry of no term"),
        (of(900, 9, 0, &[]), "append behind an entry of no term"),
    ] {
        assert_eq!(take(wrong.clone()), (vec![reason], 0), "{wrong:?}");
    }
    for right in [
        of(0, 5, 0, &["a", "b", "c"]),
        of(1, 5, 5, &["b"]),
        of(900, 9, 7, &["z"]),
        // The third is not committed, and another leader may have another one.
        of(2, 7, 5, &["d"]),
        // It came late, from a leader that is none any more, and is told so.
        append(4, 1, 4, 0, &["x"]),
    ] {
        assert_eq!(take(right.clone()), (vec![], 1), "{right:?}");
    }
}

#[test]
fn one_voter_keeps_nothing_in_memory_that_is_applied() {
    let (mut driver, _) = leading(1);
    let proposed = driver.turn(at(1), [propose(GROUP, 1, "a"), propose(GROUP, 2, "b")]);
    let done = driver.turn(at(1), [log_done(&proposed)]);
    assert!(driver.status(GROUP).unwrap().entry_bytes > 0);
    driver.turn(at(1), [applied(&done.apply[0])]);
    assert_eq!(driver.status(GROUP).unwrap().entry_bytes, 0);
    assert_eq!(driver.first_kept(GROUP), Some(Index(4)));
}

#[test]
fn idle_groups_of_one_voter_say_and_write_nothing() {
    let (mut driver, _) = leading(256);
    for tick in 1..1_000 {
        let deeds = black_box(driver.turn(at(tick * 50), []));
        assert!(
            deeds.log.is_none() && deeds.frames.is_empty() && deeds.apply.is_empty() && !deeds.more
        );
        assert!(driver.dirty.list.is_empty(), "idle groups are not even looked at");
    }
}
