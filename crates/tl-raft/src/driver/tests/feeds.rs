//! Entries that memory has let go: asked of the log, and sent as Raft would have sent them.
use bytes::Bytes;
use raft::eraftpb::MessageType::{
    self, MsgAppend, MsgAppendResponse, MsgHeartbeatResponse, MsgRequestPreVoteResponse,
    MsgRequestVoteResponse,
};

use super::*;
use crate::config::FETCH_SILENT_BEATS;
use crate::deeds::Fetch;
use crate::frame;

const TERM: u64 = 9;
/// The last entry that memory has let go, and the one that the leader began with.
const GONE: u64 = 50;
const FETCHES_MAX: usize = 2;
const BEHIND: PeerId = PeerId(3);

/// The term of an entry that is gone.
fn term_of(index: u64) -> u64 {
    match index {
        1..=20 => 2,
        21..=40 => 5,
        _ => 6,
    }
}

fn said(from: PeerId, group: u16, kind: MessageType, change: impl Fn(&mut Message)) -> Inbound {
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.term = TERM;
    change(&mut message);
    let mut builder = FrameBuilder::default();
    assert!(builder.push(GroupId(group), &message));
    Inbound::Frame { from, bytes: builder.finish().next().unwrap() }
}

/// A driver that leads some groups; peer 2 has everything.
fn leading(groups: u16) -> Driver {
    let recovered = (0..groups).map(GroupId).map(|group| {
        let start = GroupStart {
            group,
            voters: voters(3),
            applied: (Index(GONE), Term(term_of(GONE))),
            generation: Generation(0),
        };
        let mut recovery = Recovery::new(vec![start], 0);
        recovery.record(Position(0), Record::HardState { group, term: Term(TERM - 1), vote: 0 });
        for index in 1..=GONE {
            let (term, index, data) = (Term(term_of(index)), Index(index), Bytes::from("x"));
            recovery.record(Position(index.0), Record::Entry { group, term, index, data });
        }
        recovery.finish(&[]).unwrap().remove(0)
    });
    let config = DriverConfig { fetches_max: FETCHES_MAX, ..DriverConfig::new(ME, 7) };
    let mut driver = Driver::new(config, recovered.collect());
    driver.log_begins(&(0..groups).map(|group| (GroupId(group), Index(1))).collect());
    let all = |kind| (0..groups).map(move |group| said(PeerId(2), group, kind, |_| ()));
    driver.turn(at(0), (0..groups).map(|group| Inbound::Campaign { group: GroupId(group) }));
    let stands = driver.turn(at(0), all(MsgRequestPreVoteResponse));
    driver.turn(at(0), [log_done(&stands)]);
    let leads = driver.turn(at(0), all(MsgRequestVoteResponse));
    driver.turn(at(0), [log_done(&leads)]);
    let has = |group| said(PeerId(2), group, MsgAppendResponse, |it| it.index = GONE + 1);
    driver.turn(at(0), (0..groups).map(has));
    assert_eq!(driver.status(GROUP).unwrap().committed, Index(GONE + 1));
    driver
}

/// The follower says that its log ends at an entry.
fn ends_at(group: u16, index: u64, term: u64) -> Inbound {
    said(BEHIND, group, MsgAppendResponse, |it| {
        (it.index, it.reject, it.reject_hint, it.log_term) = (GONE, true, index, term);
    })
}

fn has(group: u16, index: u64) -> Inbound {
    said(BEHIND, group, MsgAppendResponse, |it| it.index = index)
}

/// What the log has of it.
fn answer(fetch: &Fetch, count: u64) -> Inbound {
    let Fetch { to, want } = fetch;
    let indexes = want.from.0..want.from.0 + count;
    let entries = indexes.map(|index| (Term(term_of(index)), Bytes::from("x"))).collect();
    Inbound::Fetched { group: want.group, to: *to, from: want.from, entries }
}

/// Appends with entries to the follower: the entry before, its term, and how many.
fn sent(deeds: &Deeds) -> Vec<(u64, u64, usize)> {
    let mut sent = Vec::new();
    for (_, bytes) in deeds.frames.iter().filter(|(to, _)| *to == BEHIND) {
        frame::decode(bytes, |_, message| {
            if message.get_msg_type() == MsgAppend && !message.entries.is_empty() {
                assert_eq!(message.term, TERM);
                sent.push((message.index, message.log_term, message.entries.len()));
            }
        })
        .unwrap();
    }
    sent
}

#[test]
fn a_follower_is_sent_from_the_log_until_memory_has_what_follows() {
    let mut driver = leading(1);
    let lacks = driver.turn(at(1), [ends_at(0, 10, 2)]);
    assert_eq!(lacks.lacking, [], "no rows");
    let [fetch] = &lacks.fetches[..] else { panic!("{lacks:?}") };
    assert_eq!((fetch.to, fetch.want.from, fetch.want.upto), (BEHIND, Index(11), Index(GONE)));
    let runs = [(11, 2), (21, 5), (41, 6)].map(|(index, term)| (Index(index), Term(term)));
    assert_eq!(fetch.want.terms, runs);
    assert!(!driver.followers(GROUP).iter().any(|follower| follower.is_cut_off));

    let first = driver.turn(at(2), [answer(fetch, 15)]);
    assert_eq!(sent(&first), [(10, 2, 15)]);
    let again = driver.turn(at(3), [answer(fetch, 15), ends_at(0, 10, 2)]);
    assert_eq!((sent(&again).len(), again.fetches.len()), (0, 0), "once");
    let second = driver.turn(at(4), [has(0, 25)]);
    let [fetch] = &second.fetches[..] else { panic!("{second:?}") };
    assert_eq!(fetch.want.from, Index(26), "at once, not with the next beat");
    let second = driver.turn(at(5), [answer(fetch, GONE - 25)]);
    assert_eq!(sent(&second), [(25, 5, 25)]);
    let last = driver.turn(at(6), [has(0, GONE)]);
    assert_eq!(sent(&last), [(GONE, 6, 1)], "memory has it");
    assert!(last.fetches.is_empty() && last.lacking.is_empty());
    let counts = driver.feed_counts();
    assert_eq!((counts.entries, counts.bytes, counts.missed), (GONE - 10, GONE - 10, 0));
}

#[test]
fn what_the_log_does_not_have_goes_by_rows() {
    let mut driver = leading(1);
    let lacks = driver.turn(at(1), [ends_at(0, 10, 2)]);
    let nothing = driver.turn(at(2), [answer(&lacks.fetches[0], 0)]);
    assert!(sent(&nothing).is_empty());
    let beat = said(BEHIND, 0, MsgHeartbeatResponse, |_| ());
    let rows = driver.turn(at(3), [beat]);
    assert!(rows.fetches.is_empty());
    assert_eq!(rows.lacking, [Lacking { group: GROUP, peer: BEHIND, damaged_at: Index(0) }]);
    assert!(driver.followers(GROUP).iter().any(|follower| follower.is_cut_off));
    assert!(!driver.can_send(GROUP, Index(11)) && driver.can_send(GROUP, Index(12)));
    assert_eq!(driver.feed_counts().missed, 1);
    // The log says where it begins, and that is not asked for in vain.
    let mut driver = leading(1);
    driver.log_begins(&[(GROUP, Index(12))].into());
    let lacks = driver.turn(at(1), [ends_at(0, 10, 2)]);
    assert_eq!((lacks.fetches.len(), lacks.lacking.len()), (0, 1));
    // Nor where nobody knows of which term the entry before is, or the log has none of the group.
    let mut driver = leading(1);
    driver.log_begins(&BTreeMap::new());
    let lacks = driver.turn(at(1), [ends_at(0, 10, 2)]);
    assert_eq!((lacks.fetches.len(), lacks.lacking.len()), (0, 1));
}

#[test]
fn entries_of_another_term_than_was_committed_are_never_sent() {
    let mut driver = leading(1);
    let lacks = driver.turn(at(1), [ends_at(0, 10, 2)]);
    let Inbound::Fetched { group, to, from, mut entries } = answer(&lacks.fetches[0], 15) else {
        unreachable!("it is one")
    };
    entries[12].0 = Term(4);
    let deeds = driver.turn(at(2), [Inbound::Fetched { group, to, from, entries }]);
    assert_eq!(sent(&deeds), [(10, 2, 12)], "those before it");
}

#[test]
fn a_follower_whose_log_differs_is_asked_far_enough_back_at_once() {
    let mut driver = leading(1);
    // Its entries 15 to 30 are of a leader that nobody else followed.
    let lacks = driver.turn(at(1), [ends_at(0, 30, 3)]);
    assert_eq!(lacks.fetches[0].want.from, Index(21), "its 20th may be the same");
    let deeds = driver.turn(at(2), [answer(&lacks.fetches[0], 15)]);
    assert_eq!(sent(&deeds), [(20, 2, 15)]);
    let rejected = said(BEHIND, 0, MsgAppendResponse, |it| {
        (it.index, it.reject, it.reject_hint, it.log_term) = (20, true, 14, 2);
    });
    let deeds = driver.turn(at(3), [rejected]);
    assert_eq!(deeds.fetches[0].want.from, Index(15));
}

#[test]
fn so_many_are_fed_at_a_time_and_whoever_is_silent_makes_room() {
    let mut driver = leading(3);
    let lacks = driver.turn(at(1), (0..3).map(|group| ends_at(group, 10, 2)));
    assert_eq!((lacks.fetches.len(), lacks.lacking.len()), (FETCHES_MAX, 0), "the third waits");
    driver.turn(at(2), lacks.fetches.iter().map(|fetch| answer(fetch, 15)));
    let again = |group| said(BEHIND, group, MsgHeartbeatResponse, |_| ());
    let waits = driver.turn(at(3), [again(2)]);
    assert!(waits.fetches.is_empty() && waits.lacking.is_empty());
    for beat in 1..=u64::from(FETCH_SILENT_BEATS) + 1 {
        // A leader that hears nobody would step down.
        let alive = (0..3).map(|group| said(PeerId(2), group, MsgHeartbeatResponse, |_| ()));
        driver.turn(at(3 + beat * 100), alive);
    }
    let next = driver.turn(at(3_000), [again(2)]);
    assert_eq!(next.fetches.len(), 1);
    assert_eq!(next.fetches[0].want.group, GroupId(2));
}

#[test]
fn without_a_log_to_read_from_everything_goes_by_rows() {
    let config = DriverConfig::new(ME, 7);
    let mut driver = Driver::new(config, vec![RecoveredGroup::new(GROUP, voters(3))]);
    driver.log_begins(&[(GROUP, Index(1))].into());
    assert!(driver.can_send(GROUP, Index(1)) && !driver.can_send(GROUP, Index(0)));
    let late = Fetch {
        to: BEHIND,
        want: tl_wal::Want {
            group: GROUP,
            from: Index(1),
            upto: Index(1),
            terms: Vec::new(),
            bytes_max: 1,
        },
    };
    let deeds = driver.turn(at(1), [answer(&late, 1)]);
    assert!(deeds.frames.is_empty(), "nobody waits for it");
}
