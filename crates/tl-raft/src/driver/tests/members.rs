//! Who belongs to a group: changes of it, restarts in between, and who is listened to.
use std::collections::BTreeSet;

use bytes::Bytes;
use raft::eraftpb::MessageType;

use super::*;
use crate::deeds::Outcome;
use crate::frame;
use crate::members::{ChangeRefused, MemberChange, Members};

const TICK_MS: u64 = 50;
const NEW: PeerId = PeerId(4);
const LOST: PeerId = PeerId(3);
const SWAP: MemberChange = MemberChange::Swap { new_in: NEW, old_out: LOST };

/// Replicas of one group; disks and network do at once what they are told.
struct Bench {
    drivers: BTreeMap<PeerId, Driver>,
    inboxes: BTreeMap<PeerId, Vec<Inbound>>,
    logs: BTreeMap<PeerId, Vec<Record>>,
    applied: BTreeMap<PeerId, Vec<Committed>>,
    /// Nothing goes to these, or comes from them.
    away: BTreeSet<PeerId>,
    outcomes: Vec<Outcome>,
    reads: Vec<ReadReady>,
    rejected: Vec<&'static str>,
    /// Who ever led.
    led: BTreeSet<PeerId>,
    now_ms: u64,
    tokens: u64,
}

impl Bench {
    /// The founding three, one of them leading and one away from the start: what it lacks stays
    /// in the leader's memory, and whoever comes later is given all of it.
    fn new() -> Bench {
        let mut bench = Bench {
            drivers: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            logs: BTreeMap::new(),
            applied: BTreeMap::new(),
            away: BTreeSet::new(),
            outcomes: Vec::new(),
            reads: Vec::new(),
            rejected: Vec::new(),
            led: BTreeSet::new(),
            now_ms: 0,
            tokens: 0,
        };
        voters(3).into_iter().for_each(|peer| bench.start(peer));
        bench.away.insert(LOST);
        bench.inboxes.entry(ME).or_default().push(Inbound::Campaign { group: GROUP });
        bench.pass(4);
        assert_eq!(bench.leader(), Some(ME));
        bench
    }

    /// Starts a replica from its log, whose rows were never flushed.
    fn start(&mut self, peer: PeerId) {
        let start = GroupStart {
            group: GROUP,
            voters: voters(3),
            applied: (Index(0), Term(0)),
            generation: Generation(0),
        };
        let mut recovery = Recovery::new(vec![start], 1 << 20);
        let log = self.logs.entry(peer).or_default();
        super::read(&mut recovery, log);
        let config = DriverConfig::new(peer, self.now_ms);
        self.drivers.insert(peer, Driver::new(config, recovery.finish(&[]).unwrap()));
        self.inboxes.insert(peer, Vec::new());
        self.applied.insert(peer, Vec::new());
    }

    fn turn(&mut self, peer: PeerId) {
        let inbox = std::mem::take(self.inboxes.get_mut(&peer).unwrap());
        let now = at(self.now_ms);
        let deeds = self.drivers.get_mut(&peer).unwrap().turn(now, inbox);
        let inbox = self.inboxes.get_mut(&peer).unwrap();
        if let Some(job) = deeds.log {
            self.logs.get_mut(&peer).unwrap().extend(job.records);
            inbox.push(Inbound::LogDone { job: job.id });
        }
        for batch in deeds.apply {
            inbox.push(applied(&batch));
            self.applied.get_mut(&peer).unwrap().extend(batch.entries);
        }
        let leads = deeds.roles.iter().any(|change| change.role == Role::Leader);
        self.led.extend(leads.then_some(peer));
        self.outcomes.extend(deeds.outcomes);
        self.reads.extend(deeds.reads);
        self.rejected.extend(deeds.rejected.iter().map(|rejected| rejected.reason));
        for (to, bytes) in deeds.frames {
            if !self.away.contains(&peer)
                && !self.away.contains(&to)
                && let Some(inbox) = self.inboxes.get_mut(&to)
            {
                inbox.push(Inbound::Frame { from: peer, bytes });
            }
        }
    }

    fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            let peers: Vec<_> = self.drivers.keys().copied().collect();
            for _ in 0..12 {
                peers.iter().for_each(|peer| self.turn(*peer));
            }
            self.now_ms += TICK_MS;
        }
    }

    /// Who leads, of those that are not away.
    fn leader(&self) -> Option<PeerId> {
        let leads = |peer: &&PeerId| self.status(**peer).role == Role::Leader;
        self.drivers.keys().filter(|peer| !self.away.contains(peer)).find(leads).copied()
    }

    fn status(&self, peer: PeerId) -> crate::deeds::GroupStatus {
        self.drivers[&peer].status(GROUP).unwrap()
    }

    fn members(&self, peer: PeerId) -> Members {
        self.status(peer).members
    }

    fn ask(&mut self, peer: PeerId, inbound: impl FnOnce(Token) -> Inbound) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.inboxes.get_mut(&peer).unwrap().push(inbound(token));
        token
    }

    fn answered(&self, token: Token) -> bool {
        let is_it = |entry: &Committed| entry.token == Some(token);
        self.applied.values().flatten().any(is_it)
    }

    /// Whether a write through the leader is committed within a few seconds.
    fn writes(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let data = Bytes::from_static(b"write");
        let token = self.ask(leader, |token| Inbound::Propose { group: GROUP, token, data });
        self.pass(4);
        self.answered(token)
    }

    fn change(&mut self, change: MemberChange) -> Result<(), ChangeRefused> {
        let leader = self.leader().unwrap();
        self.change_by(leader, change)
    }

    fn change_by(&mut self, by: PeerId, change: MemberChange) -> Result<(), ChangeRefused> {
        self.outcomes.clear();
        let token = self.ask(by, |token| Inbound::ChangeMembers { group: GROUP, change, token });
        self.pass(4);
        match self.outcomes[..] {
            [] => {
                assert!(self.answered(token), "{change:?} is committed");
                Ok(())
            }
            [Outcome::ChangeRefused { token: of, reason }] if of == token => Err(reason),
            ref other => panic!("{other:?}"),
        }
    }

    /// The disk of the replica that is away is gone, and its machine comes back under a number of
    /// its own.
    fn lose_a_disk(&mut self) {
        self.start(NEW);
        self.pass(4);
    }

    /// Everybody starts again from what is on disk.
    fn restart_all(&mut self) {
        let peers: Vec<_> = self.drivers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.start(peer));
        self.pass(60);
    }
}

#[test]
fn a_new_number_learns_then_votes_and_the_lost_one_no_longer_counts() {
    let mut bench = Bench::new();
    assert!(bench.writes());
    bench.lose_a_disk();
    bench.change(MemberChange::AddLearner(NEW)).unwrap();
    assert!(bench.members(ME).is_learner(NEW) && bench.members(NEW).is_learner(NEW));
    let has = |bench: &Bench| bench.applied[&NEW].iter().filter(|it| it.data == "write").count();
    assert_eq!(has(&bench), 1, "it was given what was there before it");

    // One voter and one learner are no majority of three.
    bench.away.insert(PeerId(2));
    assert!(!bench.writes());
    bench.away.remove(&PeerId(2));
    bench.pass(40);
    assert!(bench.writes());

    bench.change(SWAP).unwrap();
    for peer in [ME, PeerId(2), NEW] {
        let members = bench.members(peer);
        assert_eq!(
            (members.voters, members.voters_outgoing),
            (vec![ME, PeerId(2), NEW], voters(3))
        );
    }
    // Of both majorities the old one is not there.
    bench.away.insert(PeerId(2));
    assert!(!bench.writes());
    bench.away.remove(&PeerId(2));
    bench.pass(40);

    bench.change(MemberChange::LeaveJoint).unwrap();
    assert!(bench.members(ME).is_gone(LOST));
    bench.away.insert(PeerId(2));
    assert!(bench.writes(), "the new number counts");
    bench.away.remove(&PeerId(2));
    bench.pass(40);
    let leader = bench.leader().unwrap();
    bench.away.insert(leader);
    bench.pass(60);
    assert!(bench.writes(), "it votes");
    assert_eq!(bench.rejected, [""; 0]);
}

#[test]
fn members_outlive_restarts_at_every_step() {
    let mut bench = Bench::new();
    bench.lose_a_disk();
    for change in [MemberChange::AddLearner(NEW), SWAP, MemberChange::LeaveJoint] {
        bench.change(change).unwrap();
        let leader = bench.leader().unwrap();
        let (members, new) = (bench.members(leader), bench.members(NEW));
        assert_eq!(members, new);
        bench.restart_all();
        let leader = bench.leader().unwrap();
        assert_eq!((bench.members(leader), bench.members(NEW)), (members, new));
        assert!(bench.writes());
    }
    for entries in bench.applied.values() {
        assert!(entries.iter().all(|entry| entry.data.is_empty() || entry.data == "write"));
        let indexes = entries.iter().map(|entry| entry.index.0);
        assert!(indexes.eq(1..=entries.len() as u64), "a change counts as an entry");
    }
}

#[test]
fn a_change_that_may_not_be_made_now_is_refused_by_name() {
    let mut bench = Bench::new();
    let add = MemberChange::AddLearner(NEW);
    let not_here = ChangeRefused::NotLeader { leader: Some(ME) };
    assert_eq!(bench.change_by(PeerId(2), add), Err(not_here));
    bench.lose_a_disk();
    bench.away.insert(NEW);
    bench.change(add).unwrap();
    assert_eq!(bench.change(SWAP), Err(ChangeRefused::NotCaughtUp));
    bench.away.remove(&NEW);
    bench.pass(40);
    let own = MemberChange::Swap { new_in: NEW, old_out: ME };
    assert_eq!(bench.change(own), Err(ChangeRefused::LeaderLeaves));

    // One at a time.
    bench.outcomes.clear();
    let first = bench.ask(ME, |token| Inbound::ChangeMembers { group: GROUP, change: SWAP, token });
    let second =
        bench.ask(ME, |token| Inbound::ChangeMembers { group: GROUP, change: SWAP, token });
    bench.turn(ME);
    let refused = Outcome::ChangeRefused { token: second, reason: ChangeRefused::Pending };
    assert_eq!(bench.outcomes, [refused]);
    bench.pass(4);
    assert!(bench.answered(first));
    assert_eq!(bench.change(SWAP), Err(ChangeRefused::Joint));
    bench.change(MemberChange::LeaveJoint).unwrap();
    assert_eq!(bench.change(MemberChange::LeaveJoint), Err(ChangeRefused::NotJoint));
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    let mut bench = Bench::new();
    bench.start(NEW);
    bench.change(MemberChange::AddLearner(NEW)).unwrap();
    bench.change(SWAP).unwrap();
    bench.away.clear();
    bench.pass(10);
    // The number that goes is alive, still has a vote, and wins an election in the end.
    for _ in 0..40 {
        bench.away = bench.leader().into_iter().collect();
        bench.pass(40);
        if bench.led.contains(&LOST) {
            break;
        }
    }
    assert!(bench.led.contains(&LOST));
    bench.away.clear();
    bench.pass(60);
    let leader = bench.leader().unwrap();
    assert_ne!(leader, LOST, "it has handed over");
    bench.change(MemberChange::LeaveJoint).unwrap();
    // What it still says is not listened to, and it does not stand.
    for _ in 0..3 {
        bench.inboxes.get_mut(&LOST).unwrap().push(Inbound::Campaign { group: GROUP });
        bench.pass(20);
    }
    assert_eq!(bench.leader(), Some(leader));
    assert_ne!(bench.status(LOST).role, Role::Leader);
    assert!(bench.writes());
}

#[test]
fn a_learner_reads_and_its_word_is_no_majority() {
    let mut bench = Bench::new();
    bench.lose_a_disk();
    bench.change(MemberChange::AddLearner(NEW)).unwrap();
    let read = bench.ask(NEW, |token| Inbound::ReadIndex { group: GROUP, token });
    bench.pass(4);
    assert!(bench.reads.iter().any(|ready| ready.token == read));

    bench.away.insert(PeerId(2));
    bench.reads.clear();
    for peer in [ME, NEW] {
        bench.ask(peer, |token| Inbound::ReadIndex { group: GROUP, token });
    }
    bench.pass(40);
    assert_eq!(bench.reads, [], "nobody but the leader has a vote");
    assert_eq!(bench.leader(), None, "and it noticed");
}

#[test]
fn a_learner_that_was_lost_too_goes_and_another_comes() {
    let mut bench = Bench::new();
    bench.lose_a_disk();
    bench.change(MemberChange::AddLearner(NEW)).unwrap();
    bench.away.insert(NEW);
    bench.change(MemberChange::RemoveLearner(NEW)).unwrap();
    bench.start(PeerId(5));
    bench.change(MemberChange::AddLearner(PeerId(5))).unwrap();
    bench.change(MemberChange::Swap { new_in: PeerId(5), old_out: LOST }).unwrap();
    bench.change(MemberChange::LeaveJoint).unwrap();
    bench.away.insert(PeerId(2));
    assert!(bench.writes());
}

/// A replica that came later, and nothing of the group is here yet.
fn newcomer() -> Driver {
    let group = RecoveredGroup::new(GROUP, voters(3));
    Driver::new(DriverConfig::new(NEW, 7), vec![group])
}

fn from(peer: u64, message: Message) -> Inbound {
    Inbound::Frame { from: PeerId(peer), bytes: frame(message) }
}

fn said(deeds: &Deeds) -> Vec<(MessageType, bool)> {
    let mut said = Vec::new();
    for (_, bytes) in &deeds.frames {
        let each = |_, message: Message| said.push((message.get_msg_type(), message.reject));
        frame::decode(bytes, each).unwrap();
    }
    said
}

/// Lets a turn's log job be done, until there is nothing left to do.
fn settled(driver: &mut Driver, inbox: Vec<Inbound>) -> (Vec<(MessageType, bool)>, Vec<Record>) {
    let (mut heard, mut records) = (Vec::new(), Vec::new());
    let mut inbox = inbox;
    loop {
        let deeds = driver.turn(at(0), std::mem::take(&mut inbox));
        heard.extend(said(&deeds));
        inbox.extend(deeds.apply.iter().map(applied));
        if let Some(job) = deeds.log {
            records.extend(job.records);
            inbox.push(Inbound::LogDone { job: job.id });
        }
        if inbox.is_empty() && !deeds.more {
            return (heard, records);
        }
    }
}

#[test]
fn whoever_has_nothing_of_a_group_neither_stands_nor_votes() {
    let mut driver = newcomer();
    driver.turn(at(0), [Inbound::Campaign { group: GROUP }]);
    for second in 1..20 {
        let deeds = driver.turn(at(second * 1_000), []);
        assert!(deeds.frames.is_empty() && deeds.log.is_none(), "it waits");
    }
    assert_eq!(driver.status(GROUP).unwrap().role, Role::Follower);

    let mut driver = newcomer();
    let (heard, records) = settled(&mut driver, vec![from(1, vote_request(5))]);
    assert!(heard.is_empty() && records.is_empty(), "as if nothing had come");
    let mut ask = vote_request(6);
    ask.set_msg_type(MessageType::MsgRequestPreVote);
    assert_eq!(settled(&mut driver, vec![from(1, ask)]).0, []);

    // Entries of the group are here: who is asked answers, and keeps to it.
    let (heard, _) = settled(&mut driver, vec![from(1, append(5, 0, 0, 0, &["one"]))]);
    assert_eq!(heard, [(MessageType::MsgAppendResponse, false)]);
    let mut request = vote_request(7);
    (request.index, request.log_term) = (1, 5);
    request.context = Bytes::from_static(raft::CAMPAIGN_TRANSFER);
    let (heard, records) = settled(&mut driver, vec![from(2, request)]);
    assert_eq!(heard, [(MessageType::MsgRequestVoteResponse, false)]);
    let hard = Record::HardState { group: GROUP, term: Term(7), vote: 2 };
    assert_eq!(records, [hard]);
}

fn members_of(at: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Members {
    let peers = |numbers: &[u64]| numbers.iter().copied().map(PeerId).collect::<Vec<_>>();
    Members {
        at: Index(at),
        voters: peers(voters),
        voters_outgoing: peers(outgoing),
        learners: peers(learners),
        highest: NEW,
    }
}

/// An append of entries with these data behind `index`, all of one term.
fn append_data(term: u64, index: u64, commit: u64, datas: Vec<Bytes>) -> Message {
    let mut message = append(term, index, if index == 0 { 0 } else { term }, commit, &[]);
    let entries = (index + 1..).zip(datas).map(|(index, data)| {
        let mut entry = raft::eraftpb::Entry::default();
        (entry.index, entry.term, entry.data) = (index, term, data);
        entry
    });
    message.set_entries(entries.collect::<Vec<_>>().into());
    message
}

#[test]
fn a_change_is_applied_once_it_is_recorded() {
    let mut driver = driver(1, 3);
    let learning = members_of(2, &[1, 2, 3], &[], &[4]);
    let datas = vec!["a".into(), learning.encode_entry(), "b".into()];
    let first = driver.turn(at(0), [from(2, append_data(5, 0, 3, datas))]);
    let second = driver.turn(at(0), [log_done(&first)]);
    let index = |batch: &ApplyBatch| batch.entries.iter().map(|it| it.index.0).collect::<Vec<_>>();
    assert_eq!(second.apply.iter().map(index).collect::<Vec<_>>(), [[1]]);
    let record = Record::Membership { group: GROUP, bytes: learning.encode() };
    assert_eq!(second.log.as_ref().unwrap().records, [record]);
    assert_eq!(driver.status(GROUP).unwrap().members, learning, "Raft goes by them at once");

    let idle = driver.turn(at(0), second.apply.iter().map(applied));
    assert!(idle.apply.is_empty() && idle.log.is_none());
    let third = driver.turn(at(0), [log_done(&second)]);
    assert_eq!(third.apply.iter().map(index).collect::<Vec<_>>(), [[2, 3]]);
    assert!(third.apply[0].entries[0].data.is_empty(), "the rules do not see it");
    assert!(third.log.is_none());
}

#[test]
fn whoever_has_not_applied_a_committed_change_does_not_stand() {
    // Raft looks for one among all entries that are not applied.
    const BEFORE: u64 = 300;
    let mut driver = driver(1, 3);
    let learning = members_of(BEFORE + 1, &[1, 2, 3], &[], &[4]);
    let datas = (0..BEFORE).map(|_| "a".into()).chain([learning.encode_entry()]);
    let mut inbox = vec![from(2, append_data(5, 0, BEFORE + 1, datas.collect()))];
    let mut batches: Vec<ApplyBatch> = Vec::new();
    loop {
        let deeds = driver.turn(at(0), std::mem::take(&mut inbox));
        inbox.extend(deeds.log.map(|job| Inbound::LogDone { job: job.id }));
        batches.extend(deeds.apply);
        if inbox.is_empty() && !deeds.more {
            break;
        }
    }
    let (change, others) = batches.split_last().unwrap();
    let index = |batch: &ApplyBatch| batch.entries.last().unwrap().index;
    assert_eq!((index(change), index(others.last().unwrap())), (Index(BEFORE + 1), Index(BEFORE)));
    let stands = |driver: &mut Driver| {
        let deeds = driver.turn(at(0), [Inbound::Campaign { group: GROUP }]);
        said(&deeds).iter().any(|(kind, _)| *kind == MessageType::MsgRequestPreVote)
    };
    assert!(!stands(&mut driver), "nothing of it is applied");
    driver.turn(at(0), others.iter().map(applied));
    assert!(!stands(&mut driver), "all but the change is");
    driver.turn(at(0), [applied(change)]);
    assert!(stands(&mut driver));
}

#[test]
fn of_the_changes_in_a_log_all_but_the_last_are_in_force_after_a_restart() {
    let learning = members_of(2, &[1, 2, 3], &[], &[4]);
    let joint = members_of(3, &[1, 2, 4], &[1, 2, 3], &[]);
    let left = members_of(4, &[1, 2, 4], &[], &[]);
    let all = [&learning, &joint, &left];
    let hard = Record::HardState { group: GROUP, term: Term(1), vote: 1 };
    let entry = |index: u64, data: Bytes| Record::Entry {
        group: GROUP,
        term: Term(1),
        index: Index(index),
        data,
    };
    let recovered = |records: &[Record], applied: u64| {
        let applied = (Index(applied), Term(applied.min(1)));
        recover(3, applied, records).pop().unwrap().members
    };
    let mut records = vec![hard, entry(1, "a".into())];
    let mut expected = Members::founding(&voters(3));
    for members in all {
        records.push(entry(members.at.0, members.encode_entry()));
        assert_eq!(recovered(&records, 0), expected);
        assert_eq!(&recovered(&records, members.at.0), members, "what is applied was committed");
        expected = members.clone();
    }
    // The last one is cut off by another leader's entry; that it was there says as much as before.
    records.push(entry(4, "b".into()));
    assert_eq!(recovered(&records, 0), joint);
    // A record may say more than the log, and an older one takes nothing back.
    let mut later = left.clone();
    later.at = Index(5);
    for members in [&later, &learning] {
        records.push(Record::Membership { group: GROUP, bytes: members.encode() });
        assert_eq!(recovered(&records, 0), later);
    }
}

#[test]
fn members_that_only_a_later_change_vouches_for_are_committed_and_get_a_record() {
    let joint = members_of(2, &[1, 2, 4], &[1, 2, 3], &[]);
    let left = members_of(3, &[1, 2, 4], &[], &[]);
    let entry = |index: u64, data: Bytes| Record::Entry {
        group: GROUP,
        term: Term(1),
        index: Index(index),
        data,
    };
    let records = [
        Record::HardState { group: GROUP, term: Term(1), vote: 2 },
        entry(1, "a".into()),
        entry(2, joint.encode_entry()),
        entry(3, left.encode_entry()),
    ];
    let recovered = recover(3, (Index(0), Term(0)), &records);
    let mut driver = Driver::new(DriverConfig::new(ME, 7), recovered);
    let status = driver.status(GROUP).unwrap();
    assert_eq!((status.members, status.committed), (joint.clone(), Index(2)));

    let index = |batch: &ApplyBatch| batch.entries.iter().map(|it| it.index.0).collect::<Vec<_>>();
    let first = driver.turn(at(0), []);
    assert_eq!(first.apply.iter().map(index).collect::<Vec<_>>(), [[1]]);
    let record = Record::Membership { group: GROUP, bytes: joint.encode() };
    assert_eq!(first.log.as_ref().unwrap().records, std::slice::from_ref(&record));
    let second = driver.turn(at(0), [log_done(&first), applied(&first.apply[0])]);
    assert_eq!(second.apply.iter().map(index).collect::<Vec<_>>(), [[2]]);
    assert!(second.log.is_none(), "once is enough");

    // With the record in the log none is made again.
    let records: Vec<Record> = records.into_iter().chain([record]).collect();
    let mut driver =
        Driver::new(DriverConfig::new(ME, 7), recover(3, (Index(0), Term(0)), &records));
    let first = driver.turn(at(0), []);
    assert_eq!(first.apply.iter().map(index).collect::<Vec<_>>(), [[1, 2]]);
    assert!(first.log.is_none());
}

#[test]
fn members_that_cannot_be_read_keep_a_group_from_starting() {
    let damaged = [
        Record::Membership { group: GROUP, bytes: Bytes::from_static(&[2, 0, 0]) },
        Record::Entry {
            group: GROUP,
            term: Term(0),
            index: Index(1),
            data: Bytes::from_static(b"\0TLM\x09"),
        },
    ];
    for record in damaged {
        let start = GroupStart {
            group: GROUP,
            voters: voters(3),
            applied: (Index(0), Term(0)),
            generation: Generation(0),
        };
        let mut recovery = Recovery::new(vec![start], 0);
        recovery.record(Position(0), record);
        let error = recovery.finish(&[]).unwrap_err();
        assert!(matches!(error, crate::RecoverError::Members { group: GROUP, .. }), "{error}");
    }
}

#[test]
fn who_is_gone_is_not_listened_to_and_who_is_not_known_yet_is() {
    let left = members_of(2, &[1, 2, 4], &[], &[]);
    let mut driver = driver(1, 3);
    let datas = vec!["a".into(), left.encode_entry()];
    // From the founding members there is no such step: it is a replica that knows nothing better.
    settled(&mut driver, vec![from(2, append_data(5, 0, 2, datas))]);
    assert_eq!(driver.status(GROUP).unwrap().members, left);
    let refused = driver.turn(at(0), [from(3, append(9, 2, 5, 2, &["c"]))]);
    assert_eq!(refused.rejected.len(), 1);
    assert_eq!(driver.status(GROUP).unwrap().term, Term(5), "nothing of it was taken");
    let (heard, _) = settled(&mut driver, vec![from(5, append(6, 2, 5, 2, &["c"]))]);
    assert_eq!(heard, [(MessageType::MsgAppendResponse, false)]);
    assert_eq!(driver.status(GROUP).unwrap().leader, Some(PeerId(5)));
}

fn snapshot(members: Option<&Members>) -> Inbound {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    message.term = 5;
    let snapshot = message.mut_snapshot();
    snapshot.data = members.map(Members::encode).unwrap_or_default();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (40, 3);
    from(2, message)
}

#[test]
fn rows_bring_the_members_to_whoever_has_nothing() {
    let rows = crate::deeds::Staged { index: Index(40), term: Term(3), generation: Generation(7) };
    let mut driver = newcomer();
    driver.turn(at(0), [Inbound::Staged { group: GROUP, rows }]);
    // Rows alone do not make it a member, nor do members that it is none of.
    let others = members_of(41, &[1, 2, 3], &[], &[]);
    for told in [None, Some(&others)] {
        let refused = driver.turn(at(0), [snapshot(told)]);
        assert_eq!(refused.rejected[0].reason, "snapshot for one that is no member");
    }
    // As of an entry behind the rows: it is committed, and true here too.
    let learning = members_of(45, &[1, 2, 3], &[], &[4]);
    let deeds = driver.turn(at(0), [snapshot(Some(&learning))]);
    let record = |record: &Record| match record {
        Record::Installed { .. } => "installed",
        Record::Membership { .. } => "members",
        Record::HardState { .. } => "hard",
        Record::Entry { .. } => "entry",
    };
    let records = &deeds.log.as_ref().unwrap().records;
    assert_eq!(records.iter().map(record).collect::<Vec<_>>(), ["hard", "installed", "members"]);
    assert_eq!(driver.status(GROUP).unwrap().members, learning);
    let done = driver.turn(at(0), [log_done(&deeds)]);
    assert_eq!(done.installed.len(), 1);

    // The change itself comes by entries and says nothing new.
    let mut datas: Vec<Bytes> = (41..45).map(|_| "x".into()).collect();
    datas.push(learning.encode_entry());
    let mut entries = append_data(5, 40, 45, datas);
    entries.log_term = 3;
    let (_, records) = settled(&mut driver, vec![from(2, entries)]);
    assert!(!records.iter().any(|it| record(it) == "members"));
    assert_eq!(driver.status(GROUP).unwrap().applied, Index(45));
    let group = recover(3, (Index(40), Term(3)), &[deeds.log.unwrap().records, records].concat());
    assert_eq!(group[0].members, learning, "and after a restart");
}

#[test]
fn wherever_a_crash_cuts_rows_are_in_place_only_with_the_members_that_came_with_them() {
    let rows = crate::deeds::Staged { index: Index(40), term: Term(3), generation: Generation(7) };
    let mut driver = driver(1, 3);
    let hard = Record::HardState { group: GROUP, term: Term(2), vote: 0 };
    let (_, mut log) = settled(&mut driver, vec![from(2, append(2, 0, 0, 0, &["a", "b"]))]);
    assert_eq!(log.first(), Some(&hard));
    let swapped = members_of(30, &[1, 2, 4], &[], &[]);
    let staged = Inbound::Staged { group: GROUP, rows };
    let deeds = driver.turn(at(0), [staged, snapshot(Some(&swapped))]);
    let more = append_data(5, 40, 40, vec!["c".into()]);
    let more = raft::eraftpb::Message { log_term: 3, ..more };
    let records =
        [deeds.log.unwrap().records, driver.turn(at(0), [from(2, more)]).log.unwrap().records];
    let records = records.concat();
    assert_eq!(records.len(), 4, "a term, rows, members and an entry");
    let founding = Members::founding(&voters(3));
    let mut parted = 0;
    for (at, record) in records.iter().enumerate() {
        let may_part = at == 0 || LogJob::may_part(&records[at - 1], record);
        let recovered = recover(3, (Index(0), Term(0)), &log).remove(0);
        log.push(record.clone());
        if !may_part {
            assert_eq!((&recovered.members, recovered.applied), (&founding, rows.index));
            continue;
        }
        parted += 1;
        let has_rows = recovered.installed().is_some();
        assert_eq!(&recovered.members, if has_rows { &swapped } else { &founding });
        assert_eq!(recovered.last(), if has_rows { rows.index } else { Index(2) });
        assert!(!recovered.is_doubted());
    }
    assert_eq!(parted, 3, "nowhere but between rows and members may it not be parted");
}

#[test]
fn a_damaged_change_never_enters_a_log() {
    let mut driver = driver(1, 3);
    let elsewhere = members_of(9, &[1, 2, 3], &[], &[4]).encode_entry();
    for data in [elsewhere, Bytes::from_static(b"\0TLM\x01\x00")] {
        let mut builder = FrameBuilder::default();
        builder.push(GROUP, &append_data(5, 0, 0, vec![data]));
        let bytes = builder.finish().next().unwrap();
        let deeds = driver.turn(at(0), [Inbound::Frame { from: PeerId(2), bytes }]);
        assert_eq!(deeds.rejected.len(), 1);
    }
    assert_eq!(driver.status(GROUP).unwrap().last, Index(0));
}

#[test]
fn a_learner_that_has_everything_may_vote_although_nothing_is_sent_to_it() {
    let mut bench = Bench::new();
    bench.lose_a_disk();
    bench.change(MemberChange::AddLearner(NEW)).unwrap();
    // The connection broke, and since then there was nothing new by which it could show that it
    // is there.
    bench.inboxes.get_mut(&ME).unwrap().push(Inbound::Unreachable { peer: NEW });
    bench.pass(40);
    bench.change(SWAP).unwrap();
}
