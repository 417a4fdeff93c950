//! A replica whose log lost durable records, and the leader that brings it past that.
use bytes::Bytes;
use raft::eraftpb::MessageType;

use super::*;
use crate::deeds::{Installed, Lacking, Staged};
use crate::doubt::{ASK_TICKS, DOUBTED, Note};
use crate::frame;
use crate::frame::Said;
use crate::members::Members;
use crate::recovery::LogDamage;

const LEADER: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(3);
const TICK_MS: u64 = 50;

/// Replica 1 of three. It was in term 3, and something behind its first entries was lost.
fn doubted() -> Driver {
    let data = Bytes::from_static(b"one");
    let records = [
        Record::HardState { group: GROUP, term: Term(3), vote: 0 },
        Record::Entry { group: GROUP, term: Term(3), index: Index(1), data },
    ];
    let start = GroupStart {
        group: GROUP,
        voters: voters(3),
        applied: (Index(1), Term(3)),
        generation: Generation(0),
    };
    let mut recovery = Recovery::new(vec![start], 1 << 20);
    read(&mut recovery, &records);
    let damage = LogDamage { position: Position(2), group: None, entry: None };
    Driver::new(DriverConfig::new(ME, 7), recovery.finish(&[damage]).unwrap())
}

fn from(peer: PeerId, message: Message) -> Inbound {
    Inbound::Frame { from: peer, bytes: frame(message) }
}

fn note(peer: PeerId, note: Note) -> Inbound {
    let mut builder = FrameBuilder::default();
    builder.push_note(GROUP, &note);
    Inbound::Frame { from: peer, bytes: builder.finish().next().unwrap() }
}

fn told(number: u64, term: u64, last: u64, members_at: u64) -> Note {
    Note::Told { number, term: Term(term), last: Index(last), members_at: Index(members_at) }
}

fn plain(kind: MessageType, term: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.term = term;
    message
}

fn said(deeds: &Deeds) -> Vec<(PeerId, Said)> {
    let mut all = Vec::new();
    for (to, bytes) in &deeds.frames {
        frame::decode_said(bytes, |_, said| all.push((*to, said))).unwrap();
    }
    all
}

fn notes(deeds: &Deeds) -> Vec<(PeerId, Note)> {
    let all = said(deeds).into_iter().map(|(to, said)| match said {
        Said::Doubt(note) => (to, note),
        Said::Raft(message) => panic!("{message:?} to {to}"),
    });
    all.collect()
}

/// The number under which it asks. Its first turn writes that it is doubted.
fn begun(driver: &mut Driver) -> u64 {
    let first = driver.turn(at(0), []);
    let hard = Record::HardState { group: GROUP, term: Term(3), vote: DOUBTED };
    assert_eq!(first.log.as_ref().unwrap().records, [hard]);
    assert!(driver.turn(at(0), [log_done(&first)]).log.is_none());
    let asked = notes(&driver.turn(at(TICK_MS), []));
    let Note::Asked { number } = asked[0].1 else { panic!("{asked:?}") };
    assert_eq!(asked, [LEADER, OTHER].map(|peer| (peer, Note::Asked { number })));
    number
}

fn snapshot(term: u64, index: u64, members: Option<&Members>) -> Inbound {
    let mut message = plain(MessageType::MsgSnapshot, term);
    let snapshot = message.mut_snapshot();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (index, term);
    if let Some(members) = members {
        snapshot.data = members.encode();
    }
    from(LEADER, message)
}

fn rows(index: u64, term: u64) -> Staged {
    Staged { index: Index(index), term: Term(term), generation: Generation(7) }
}

#[test]
fn a_doubted_replica_says_nothing_of_rafts_and_takes_nothing() {
    let mut driver = doubted();
    begun(&mut driver);
    assert!(driver.is_doubted(GROUP));
    let mut request = vote_request(4);
    (request.index, request.log_term) = (900, 3);
    request.context = Bytes::from_static(raft::CAMPAIGN_TRANSFER);
    let mut asks = request.clone();
    asks.set_msg_type(MessageType::MsgRequestPreVote);
    let mut beat = plain(MessageType::MsgHeartbeat, 3);
    (beat.commit, beat.context) = (700, Bytes::from_static(b"a read round"));
    let inbox = [
        from(LEADER, beat),
        from(LEADER, append(3, 1, 3, 2, &["two"])),
        from(OTHER, request),
        from(OTHER, asks),
        from(LEADER, plain(MessageType::MsgTimeoutNow, 3)),
        Inbound::Campaign { group: GROUP },
        note(OTHER, Note::Asked { number: 5 }),
    ];
    let deeds = driver.turn(at(TICK_MS), inbox);
    assert_eq!((said(&deeds), deeds.rejected), (vec![], vec![]));
    assert!(deeds.log.is_none() && deeds.apply.is_empty());
    let status = driver.status(GROUP).unwrap();
    assert_eq!((status.leader, status.term), (Some(LEADER), Term(3)), "it hears who leads");
    assert_eq!((status.last, status.committed), (Index(1), Index(1)));
    // A later leader is heard too, and that it is doubted stands in the new term as well.
    let later = driver.turn(at(TICK_MS), [from(OTHER, plain(MessageType::MsgHeartbeat, 6))]);
    let hard = Record::HardState { group: GROUP, term: Term(6), vote: DOUBTED };
    assert_eq!(later.log.as_ref().unwrap().records, [hard]);
    let mut asked = 0;
    for tick in 2..42 {
        let deeds = driver.turn(at(tick * TICK_MS), []);
        asked += notes(&deeds).len();
        assert_eq!(driver.status(GROUP).unwrap().role, Role::Follower);
    }
    assert_eq!(asked, 2 * 40 / ASK_TICKS as usize, "now and then");
}

#[test]
fn a_doubt_ends_with_rows_of_a_leader_whom_all_others_allow() {
    let mut driver = doubted();
    let number = begun(&mut driver);
    driver.turn(at(TICK_MS), [Inbound::Staged { group: GROUP, rows: rows(40, 5) }]);
    let waits = |driver: &mut Driver, why: &str, inbox: Vec<Inbound>| {
        let deeds = driver.turn(at(TICK_MS), inbox.into_iter().chain([snapshot(5, 40, None)]));
        assert!(
            deeds.log.is_none() && said(&deeds).is_empty() && deeds.rejected.is_empty(),
            "{why}"
        );
        assert!(!driver.is_installing(GROUP) && driver.is_doubted(GROUP), "{why}");
    };
    waits(&mut driver, "nobody has answered", vec![]);
    waits(&mut driver, "the leader alone has", vec![note(LEADER, told(number, 5, 40, 0))]);
    waits(&mut driver, "a later term", vec![note(OTHER, told(number, 6, 9, 0))]);
    waits(&mut driver, "another start was answered", vec![note(OTHER, told(number ^ 1, 5, 9, 0))]);
    let other = note(OTHER, told(number, 4, 9, 0));
    let early = note(LEADER, told(number, 4, 30, 0));
    waits(&mut driver, "the leader spoke before it led", vec![other, early]);
    let more = note(LEADER, told(number, 5, 41, 0));
    waits(&mut driver, "the leader has more than is in the rows", vec![more]);

    let inbox = [note(LEADER, told(number, 5, 40, 0)), snapshot(5, 40, None)];
    let decided = driver.turn(at(TICK_MS), inbox);
    let Staged { index, term, generation } = rows(40, 5);
    let ends = [
        Record::Installed { group: GROUP, index, term, generation },
        Record::Membership { group: GROUP, bytes: Members::founding(&voters(3)).encode() },
        Record::HardState { group: GROUP, term: Term(5), vote: LEADER.0 },
    ];
    assert_eq!(decided.log.as_ref().unwrap().records, ends);
    assert!(driver.is_doubted(GROUP) && said(&decided).is_empty(), "it is not on disk yet");
    let beat = plain(MessageType::MsgHeartbeat, 5);
    assert_eq!(said(&driver.turn(at(TICK_MS), [from(LEADER, beat)])), []);
    let done = driver.turn(at(TICK_MS), [log_done(&decided)]);
    assert_eq!(done.installed, [Installed { group: GROUP, rows: rows(40, 5) }]);
    assert!(!driver.is_doubted(GROUP));
    let [(LEADER, Said::Raft(answer))] = &said(&done)[..] else { panic!("{:?}", said(&done)) };
    assert_eq!((answer.get_msg_type(), answer.index), (MessageType::MsgAppendResponse, 40));
    let mut request = vote_request(5);
    (request.index, request.log_term) = (900, 5);
    let asked = driver.turn(at(TICK_MS), [from(OTHER, request)]);
    let [(_, Said::Raft(answer))] = &said(&asked)[..] else { panic!("{:?}", said(&asked)) };
    assert!(answer.reject, "the vote of this term is the leader's");
    let taken = driver.turn(at(TICK_MS), [from(LEADER, append(5, 40, 5, 40, &["more"]))]);
    assert_eq!(taken.log.unwrap().records.len(), 1, "entries are taken again");
}

#[test]
fn members_that_others_have_newer_ones_than_are_not_waited_for() {
    let mut driver = doubted();
    let number = begun(&mut driver);
    assert!(driver.lacks_answers(GROUP), "nobody has answered");
    driver.turn(at(TICK_MS), [note(LEADER, told(number, 5, 40, 0))]);
    assert!(driver.lacks_answers(GROUP), "of those known here one has not");
    // That one was replaced: with rows the leader tells who is to be asked.
    driver.turn(at(TICK_MS), [note(LEADER, told(number, 5, 40, 20))]);
    assert!(!driver.lacks_answers(GROUP));
    let staged = Inbound::Staged { group: GROUP, rows: rows(40, 5) };
    let members = replaced();
    assert!(driver.turn(at(TICK_MS), [staged, snapshot(5, 40, Some(&members))]).log.is_none());
    assert!(driver.lacks_answers(GROUP), "the new voter has not answered");
    driver.turn(at(TICK_MS), [note(PeerId(4), told(number, 5, 40, 19))]);
    assert!(!driver.lacks_answers(GROUP), "it has, and gets there");
    assert!(driver.turn(at(TICK_MS), [snapshot(5, 40, Some(&members))]).log.is_none());
    let inbox = [note(PeerId(4), told(number, 5, 40, 20)), snapshot(5, 40, Some(&members))];
    assert!(driver.turn(at(TICK_MS), inbox).log.is_some());
}

/// Of the founding three, the last was replaced.
fn replaced() -> Members {
    Members {
        at: Index(20),
        voters: [1, 2, 4].map(PeerId).to_vec(),
        voters_outgoing: Vec::new(),
        learners: Vec::new(),
        highest: PeerId(4),
    }
}

#[test]
fn all_voters_that_the_leader_names_are_asked_and_have_these_members_on_disk() {
    let peers = |numbers: &[u64]| numbers.iter().copied().map(PeerId).collect::<Vec<_>>();
    let members = Members {
        at: Index(20),
        voters: peers(&[1, 2, 4]),
        voters_outgoing: peers(&[1, 2, 3]),
        learners: Vec::new(),
        highest: PeerId(4),
    };
    let mut driver = doubted();
    let number = begun(&mut driver);
    let ready = [
        Inbound::Staged { group: GROUP, rows: rows(40, 5) },
        note(LEADER, told(number, 5, 40, 20)),
        note(OTHER, told(number, 5, 40, 20)),
        snapshot(5, 40, Some(&members)),
    ];
    assert!(driver.turn(at(TICK_MS), ready).log.is_none(), "the new voter is not asked yet");
    let asked = (2..=1 + u64::from(ASK_TICKS))
        .flat_map(|tick| notes(&driver.turn(at(tick * TICK_MS), [])).into_iter().map(|(to, _)| to));
    assert_eq!(asked.collect::<Vec<_>>(), peers(&[2, 3, 4]));
    for (members_at, goes_on) in [(19, false), (20, true)] {
        let inbox =
            [note(PeerId(4), told(number, 5, 40, members_at)), snapshot(5, 40, Some(&members))];
        let deeds = driver.turn(at(300), inbox);
        assert_eq!(deeds.log.is_some(), goes_on, "members of entry {members_at}");
    }
}

/// Replica 1 of three, leading in term 2 with an entry of its own.
fn leader() -> Driver {
    let mut driver = driver(1, 3);
    let stands = driver.turn(at(0), [from(OTHER, plain(MessageType::MsgTimeoutNow, 1))]);
    driver.turn(at(0), [log_done(&stands)]);
    let elected = driver.turn(at(0), [from(LEADER, plain(MessageType::MsgRequestVoteResponse, 2))]);
    driver.turn(at(0), [log_done(&elected)]);
    assert_eq!(driver.status(GROUP).unwrap().role, Role::Leader);
    driver
}

fn confirms(peer: PeerId, index: u64) -> Inbound {
    let mut message = plain(MessageType::MsgAppendResponse, 2);
    message.index = index;
    from(peer, message)
}

#[test]
fn a_leader_demands_rows_up_to_its_last_entry_for_a_follower_that_had_confirmed_more_than_it_has() {
    let mut driver = leader();
    let proposed = driver.turn(at(1), [confirms(OTHER, 1), propose(GROUP, 1, "a")]);
    let done = driver.turn(at(1), [log_done(&proposed), confirms(OTHER, 2)]);
    assert_eq!(done.apply.last().unwrap().entries.last().unwrap().index, Index(2));
    driver.turn(at(1), done.apply.iter().map(applied));
    let asked = driver.turn(at(1), [note(OTHER, Note::Asked { number: 77 })]);
    assert!(said(&asked).contains(&(OTHER, Said::Doubt(told(77, 2, 2, 0)))));
    let lacking = |upto| Lacking { group: GROUP, peer: OTHER, damaged_at: Index(upto) };
    assert_eq!(asked.lacking, [lacking(2)]);
    // What is proposed since is not demanded under the same number, and is under another.
    let more = driver.turn(at(2), [propose(GROUP, 2, "b")]);
    driver.turn(at(2), [log_done(&more)]);
    for (number, upto) in [(77, 2), (78, 3)] {
        let asked = driver.turn(at(2), [note(OTHER, Note::Asked { number })]);
        assert!(said(&asked).contains(&(OTHER, Said::Doubt(told(number, 2, upto, 0)))));
        assert_eq!(asked.lacking, [lacking(upto)]);
    }
    // Rows that hold less are not offered.
    let give =
        |index| Inbound::Giving { group: GROUP, to: OTHER, rows: Some((Index(index), Term(2))) };
    let kinds = |deeds: &Deeds| {
        let raft = said(deeds).into_iter().filter_map(|(to, said)| match said {
            Said::Raft(message) if to == OTHER => Some(message.get_msg_type()),
            Said::Raft(_) | Said::Doubt(_) => None,
        });
        raft.collect::<Vec<_>>()
    };
    let asks = || note(OTHER, Note::Asked { number: 78 });
    assert_eq!(kinds(&driver.turn(at(3), [give(2), asks()])), []);
    let offered = driver.turn(at(3), [give(3), asks()]);
    assert_eq!(kinds(&offered), [MessageType::MsgSnapshot]);
    // It may have been lost.
    let again = driver.turn(at(3), [asks()]);
    assert_eq!(kinds(&again), [MessageType::MsgSnapshot]);
    // Before it acknowledges that, nothing is handed to it.
    driver.turn(at(4), [Inbound::Transfer { group: GROUP, to: OTHER }]);
    let over = driver.turn(at(4), [confirms(OTHER, 3)]);
    assert!(!kinds(&over).contains(&MessageType::MsgTimeoutNow));
    let given = driver.turn(at(5), [Inbound::Given { group: GROUP, to: OTHER }]);
    assert!(given.lacking.is_empty());
    let handed = driver.turn(at(5), [Inbound::Transfer { group: GROUP, to: OTHER }]);
    assert_eq!(kinds(&handed), [MessageType::MsgTimeoutNow]);
}

#[test]
fn a_doubted_follower_keeps_no_leader_in_its_place() {
    let mut driver = leader();
    // All that is heard for longer than two looks for a majority.
    let first = driver.turn(at(0), [note(OTHER, Note::Asked { number: 77 })]);
    assert_eq!(first.lacking.len(), 1, "rows are demanded all the same");
    for tick in 1..100 {
        let inbox = (tick % 4 == 0).then(|| note(OTHER, Note::Asked { number: 77 }));
        driver.turn(at(tick * TICK_MS), inbox);
    }
    assert_ne!(driver.status(GROUP).unwrap().role, Role::Leader);
}

#[test]
fn a_doubt_that_has_not_ended_on_disk_is_found_again() {
    let mut driver = doubted();
    let number = begun(&mut driver);
    driver.turn(at(TICK_MS), [Inbound::Staged { group: GROUP, rows: rows(40, 5) }]);
    let allows = |number| [LEADER, OTHER].map(|peer| note(peer, told(number, 5, 40, 0)));
    let inbox = allows(number).into_iter().chain([snapshot(5, 40, None)]);
    let ends = driver.turn(at(TICK_MS), inbox).log.unwrap().records;
    let doubt = Record::HardState { group: GROUP, term: Term(3), vote: DOUBTED };
    // A crash leaves any first part of them.
    for written in 0..=ends.len() {
        let is_doubted = written < ends.len();
        let records = [std::slice::from_ref(&doubt), &ends[..written]].concat();
        let recovered = recover(3, (Index(1), Term(3)), &records).remove(0);
        assert_eq!(recovered.is_doubted(), is_doubted, "{written} records");
        assert_eq!(recovered.installed(), (written > 0).then_some(rows(40, 5)));
        let mut again = Driver::new(DriverConfig::new(ME, 8), vec![recovered]);
        assert_eq!(again.is_doubted(GROUP), is_doubted);
        let said_anew = again.turn(at(0), []);
        assert_eq!(said_anew.log.is_some(), is_doubted, "said anew at each start");
        if !is_doubted {
            continue;
        }
        // What it has of these rows is no end, and keeps it from none.
        again.turn(at(0), [log_done(&said_anew)]);
        let Note::Asked { number } = notes(&again.turn(at(TICK_MS), []))[0].1 else { panic!() };
        let other = Staged { generation: Generation(8), ..rows(40, 5) };
        let staged = Inbound::Staged { group: GROUP, rows: other };
        let inbox = allows(number).into_iter().chain([staged, snapshot(5, 40, None)]);
        let decided = again.turn(at(TICK_MS), inbox);
        assert_eq!(decided.log.as_ref().unwrap().records.last(), ends.last());
        again.turn(at(TICK_MS), [log_done(&decided)]);
        assert!(!again.is_doubted(GROUP), "from {written} records on");
    }
}
