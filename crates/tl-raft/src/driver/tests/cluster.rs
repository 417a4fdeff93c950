//! Three drivers over a network that loses, doubles, delays and cuts, with disks that lose what
//! was not synced. Everything comes from one seed.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use tl_types::Generation;

use super::*;
use crate::deeds::{Fetch, Outcome};

const PEERS: u64 = 3;
const GROUPS: u16 = 4;
const RUN_MS: u64 = 30_000;
const HEAL_MS: u64 = 8_000;

#[derive(Default)]
struct Disk {
    synced: Vec<Record>,
    /// Jobs not yet written, with the time at which they will be.
    writing: VecDeque<(u64, LogJob)>,
    /// How many entries of each group the store has flushed.
    flushed: BTreeMap<GroupId, usize>,
}

struct Machine {
    peer: PeerId,
    driver: Option<Driver>,
    disk: Disk,
    inbox: Vec<Inbound>,
    applied: BTreeMap<GroupId, Vec<Committed>>,
    up_at_ms: u64,
}

struct Proposal {
    group: GroupId,
    by: PeerId,
    life: u64,
    answer: Option<&'static str>,
}

struct Sim {
    rng: fastrand::Rng,
    now_ms: u64,
    machines: Vec<Machine>,
    /// Arrival, sender, receiver, frame.
    wire: Vec<(u64, PeerId, PeerId, Bytes)>,
    cut: BTreeSet<(PeerId, PeerId)>,
    proposals: BTreeMap<Token, Proposal>,
    /// Reads with the index that they must reach.
    reads: BTreeMap<Token, Index>,
    reads_done: usize,
    lives: BTreeMap<PeerId, u64>,
    /// What was applied at an index anywhere.
    history: BTreeMap<(GroupId, Index), (Term, Bytes)>,
    leaders: BTreeMap<(GroupId, Term), PeerId>,
    next_token: u64,
    crashes: usize,
    lost_records: usize,
    /// Memory holds next to nothing for followers: they are sent from the log.
    is_forgetful: bool,
    fed: u64,
    digest: DefaultHasher,
}

/// Bytes of applied entries that a forgetful driver keeps.
const LITTLE_BYTES: usize = 300;

/// The first entry of each group in a log.
fn begins(records: &[Record]) -> BTreeMap<GroupId, Index> {
    let mut begins = BTreeMap::new();
    for record in records {
        if let Record::Entry { group, index, .. } = record {
            let first = begins.entry(*group).or_insert(*index);
            *first = *index.min(first);
        }
    }
    begins
}

/// What a log has of what a follower lacks, at most a few entries.
fn read(records: &[Record], fetch: &Fetch) -> Inbound {
    let Fetch { to, want } = fetch;
    let mut entries = Vec::new();
    for record in records {
        let Record::Entry { group, term, index, data } = record else { continue };
        let next = Index(want.from.0 + entries.len() as u64);
        let known = want.terms.iter().rfind(|(first, _)| *first <= next).map(|(_, term)| term);
        let is_wanted = next <= want.upto && entries.len() < 8;
        if is_wanted && (group, index, Some(term)) == (&want.group, &next, known) {
            entries.push((*term, data.clone()));
        }
    }
    Inbound::Fetched { group: want.group, to: *to, from: want.from, entries }
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut sim = Sim {
            rng: fastrand::Rng::with_seed(seed),
            now_ms: 0,
            machines: Vec::new(),
            wire: Vec::new(),
            cut: BTreeSet::new(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_done: 0,
            lives: BTreeMap::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            next_token: 0,
            crashes: 0,
            lost_records: 0,
            is_forgetful: false,
            fed: 0,
            digest: DefaultHasher::new(),
        };
        for peer in voters(PEERS) {
            sim.machines.push(Machine {
                peer,
                driver: None,
                disk: Disk::default(),
                inbox: Vec::new(),
                applied: BTreeMap::new(),
                up_at_ms: 0,
            });
        }
        sim
    }

    fn start(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let starts = (0..GROUPS).map(GroupId).map(|group| {
            let applied = machine.applied.get(&group).and_then(|applied| applied.last());
            let applied = applied.map_or((Index(0), Term(0)), |last| (last.index, last.term));
            GroupStart { group, voters: voters(PEERS), applied, generation: Generation(0) }
        });
        let keep_bytes = if self.is_forgetful { LITTLE_BYTES } else { 64 << 20 };
        let mut recovery = Recovery::new(starts.collect(), keep_bytes);
        super::read(&mut recovery, &machine.disk.synced);
        let mut config = DriverConfig::new(machine.peer, self.rng.u64(..));
        if self.is_forgetful {
            (config.entry_cache_bytes, config.follower_lag_bytes) = (LITTLE_BYTES, LITTLE_BYTES);
            config.fetches_max = 2;
        }
        let mut driver = Driver::new(config, recovery.finish(&[]).unwrap());
        driver.log_begins(&begins(&machine.disk.synced));
        machine.driver = Some(driver);
        *self.lives.entry(machine.peer).or_default() += 1;
    }

    fn crash(&mut self, at: usize) {
        self.crashes += 1;
        let machine = &mut self.machines[at];
        self.fed += machine.driver.take().map_or(0, |driver| driver.feed_counts().entries);
        machine.inbox.clear();
        // Of what was being written, any first part may have reached the disk.
        let unsynced: Vec<_> =
            machine.disk.writing.drain(..).flat_map(|(_, job)| job.records).collect();
        let kept = self.rng.usize(0..=unsynced.len());
        self.lost_records += unsynced.len() - kept;
        machine.disk.synced.extend(unsynced.into_iter().take(kept));
        for (group, applied) in &mut machine.applied {
            applied.truncate(machine.disk.flushed.get(group).copied().unwrap_or(0));
        }
        machine.up_at_ms = self.now_ms + self.rng.u64(10..3_000);
    }

    /// Lets go of the log's first part that every store has flushed, but for one entry: a log read
    /// back starts with the position of its first entry, not with that entry.
    fn release_log(&mut self, at: usize) {
        let flushed: BTreeMap<_, _> = (0..GROUPS)
            .map(GroupId)
            .map(|group| {
                let everywhere =
                    self.machines.iter().map(|machine| machine.disk.flushed.get(&group).copied());
                (group, everywhere.map(Option::unwrap_or_default).min().unwrap() as u64)
            })
            .collect();
        let disk = &mut self.machines[at].disk;
        let needed = |record: &Record| match record {
            Record::Entry { group, index, .. } => index.0 >= flushed[group],
            _ => false,
        };
        let end = disk.synced.iter().position(needed).unwrap_or(disk.synced.len());
        let mut hard_states = BTreeMap::new();
        for record in disk.synced.drain(..end) {
            if let Record::HardState { group, .. } = record {
                hard_states.insert(group, record);
            }
        }
        disk.synced.splice(0..0, hard_states.into_values());
        let machine = &mut self.machines[at];
        if let Some(driver) = &mut machine.driver {
            driver.log_begins(&begins(&machine.disk.synced));
        }
    }

    fn step(&mut self) {
        self.now_ms += self.rng.u64(1..8);
        self.deliver();
        for at in 0..self.machines.len() {
            if self.machines[at].driver.is_none() {
                if self.machines[at].up_at_ms > self.now_ms {
                    continue;
                }
                self.start(at);
            }
            let machine = &mut self.machines[at];
            while machine.disk.writing.front().is_some_and(|(done_ms, _)| *done_ms <= self.now_ms) {
                let (_, job) = machine.disk.writing.pop_front().unwrap();
                machine.disk.synced.extend(job.records);
                machine.inbox.push(Inbound::LogDone { job: job.id });
            }
            if self.rng.u8(..) < 200 {
                let inbox = std::mem::take(&mut machine.inbox);
                let deeds = machine.driver.as_mut().unwrap().turn(at_ms(self.now_ms), inbox);
                format!("{deeds:?}").hash(&mut self.digest);
                self.perform(at, deeds);
            }
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<_> = self.wire.extract_if(.., |(due_ms, ..)| *due_ms <= now_ms).collect();
        for (_, from, to, bytes) in due {
            let machine = &mut self.machines[to.0 as usize - 1];
            if machine.driver.is_some() && !self.cut.contains(&(from, to)) {
                machine.inbox.push(Inbound::Frame { from, bytes });
            }
        }
    }

    fn perform(&mut self, at: usize, deeds: Deeds) {
        let peer = self.machines[at].peer;
        assert!(deeds.rejected.is_empty(), "{:?}", deeds.rejected);
        if let Some(job) = deeds.log {
            let writing = &mut self.machines[at].disk.writing;
            let earliest_ms = writing.back().map_or(self.now_ms, |(done_ms, _)| *done_ms);
            let slow_ms = if self.rng.u8(0..40) == 0 { 250 } else { 12 };
            writing.push_back((earliest_ms + self.rng.u64(0..slow_ms), job));
        }
        for (to, frame) in deeds.frames {
            let copies = match self.rng.u8(0..100) {
                0..6 => 0,
                6..9 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let delay_ms = if self.rng.u8(0..20) == 0 {
                    self.rng.u64(0..400)
                } else {
                    self.rng.u64(0..10)
                };
                self.wire.push((self.now_ms + delay_ms, peer, to, frame.clone()));
            }
        }
        for change in deeds.roles {
            if change.role == Role::Leader {
                let leader = *self.leaders.entry((change.group, change.term)).or_insert(peer);
                assert_eq!(leader, peer, "{:?} has two leaders", (change.group, change.term));
            }
        }
        for outcome in deeds.outcomes {
            match outcome {
                Outcome::NotLeader { token, .. } => self.answer(token, "not leader"),
                Outcome::Busy { token } => self.answer(token, "busy"),
                Outcome::Lost { token } => self.answer(token, "lost"),
                Outcome::Unknown { .. } => panic!("nothing takes the place of entries here"),
                Outcome::ChangeRefused { .. } => panic!("members do not change here"),
                Outcome::ReadFailed { token, .. } => assert!(self.reads.remove(&token).is_some()),
            }
        }
        for read in deeds.reads {
            let least = self.reads.remove(&read.token).expect("a read is answered once");
            assert!(
                read.index >= least,
                "a read at {} misses what was acknowledged at {least}",
                read.index
            );
            self.reads_done += 1;
        }
        for batch in deeds.apply {
            self.apply(at, batch);
        }
        let machine = &mut self.machines[at];
        machine.inbox.extend(deeds.fetches.iter().map(|fetch| read(&machine.disk.synced, fetch)));
    }

    fn apply(&mut self, at: usize, batch: ApplyBatch) {
        let group = batch.group;
        for entry in &batch.entries {
            let place = self
                .history
                .entry((group, entry.index))
                .or_insert_with(|| (entry.term, entry.data.clone()));
            assert_eq!(
                *place,
                (entry.term, entry.data.clone()),
                "{group} differs at {}",
                entry.index
            );
            if let Some(token) = entry.token {
                assert_eq!(entry.data, token.0.to_le_bytes().as_slice());
                self.answer(token, "committed");
            }
        }
        let machine = &mut self.machines[at];
        machine.inbox.push(applied(&batch));
        let all = machine.applied.entry(group).or_default();
        assert_eq!(batch.entries[0].index.0, all.len() as u64 + 1);
        all.extend(batch.entries);
    }

    fn answer(&mut self, token: Token, answer: &'static str) {
        let proposal = self.proposals.get_mut(&token).unwrap();
        assert_eq!(proposal.answer.replace(answer), None, "{token:?} is answered once");
    }

    fn client(&mut self) {
        let at = self.rng.usize(0..self.machines.len());
        let group = GroupId(self.rng.u16(0..GROUPS));
        if self.machines[at].driver.is_none() {
            return;
        }
        self.next_token += 1;
        let token = Token(self.next_token);
        let machine = &mut self.machines[at];
        if self.rng.u8(0..4) == 0 {
            let acknowledged = self.history.range((group, Index(0))..=(group, Index(u64::MAX)));
            self.reads
                .insert(token, acknowledged.last().map_or(Index(0), |((_, index), _)| *index));
            machine.inbox.push(Inbound::ReadIndex { group, token });
        } else {
            let (by, life) = (machine.peer, self.lives[&machine.peer]);
            self.proposals.insert(token, Proposal { group, by, life, answer: None });
            let data = Bytes::copy_from_slice(&token.0.to_le_bytes());
            machine.inbox.push(Inbound::Propose { group, token, data });
        }
    }

    fn trouble(&mut self) {
        let at = self.rng.usize(0..self.machines.len());
        let (one, other) = (PeerId(at as u64 + 1), PeerId((at as u64 + 1) % PEERS + 1));
        match self.rng.u8(0..8) {
            0 | 1 => self.cut.clear(),
            2 => self.cut.extend([(one, other)]),
            3 => self
                .cut
                .extend(voters(PEERS).into_iter().flat_map(|peer| [(one, peer), (peer, one)])),
            4 if self.machines[at].driver.is_some() => {
                self.crash(at);
            }
            5 => {
                let group = GroupId(self.rng.u16(0..GROUPS));
                self.machines[at].inbox.push(Inbound::Transfer { group, to: other });
            }
            6 => self.machines[at].inbox.push(Inbound::Unreachable { peer: other }),
            _ => {
                let machine = &mut self.machines[at];
                machine.disk.flushed =
                    machine.applied.iter().map(|(group, all)| (*group, all.len())).collect();
                self.release_log(at);
            }
        }
        if self.machines[at].driver.is_none() {
            self.machines[at].inbox.clear();
        }
    }

    /// Log matching: where two logs have an entry of the same index and term, they are alike up
    /// to there, as far as both are in memory.
    fn check_logs(&self) {
        let logs: Vec<Vec<BTreeMap<Index, (Term, Bytes)>>> = self
            .machines
            .iter()
            .filter_map(|machine| machine.driver.as_ref())
            .map(|driver| {
                let held = |group: &Group| {
                    group
                        .log()
                        .held()
                        .map(|(index, entry)| (index, (entry.term, entry.data.clone())))
                        .collect()
                };
                (0..GROUPS).map(|group| held(driver.group(GroupId(group)).unwrap())).collect()
            })
            .collect();
        for (one, other) in
            logs.iter().zip(logs.iter().skip(1)).chain(logs.first().zip(logs.last()))
        {
            for (one, other) in one.iter().zip(other) {
                let mut same = false;
                for (index, entry) in one.iter().rev() {
                    let Some(theirs) = other.get(index) else { continue };
                    same |= theirs.0 == entry.0;
                    assert!(
                        !same || theirs == entry,
                        "logs differ at {index} below an entry that they share"
                    );
                }
            }
        }
    }

    fn run(mut self) -> (Sim, u64) {
        let mut trouble_at_ms = 2_000;
        while self.now_ms < RUN_MS {
            self.step();
            if self.rng.u8(0..3) == 0 {
                self.client();
            }
            if self.now_ms >= trouble_at_ms {
                trouble_at_ms += self.rng.u64(50..900);
                self.trouble();
                self.check_logs();
            }
        }
        self.cut.clear();
        while self.now_ms < RUN_MS + HEAL_MS {
            self.step();
        }
        // A last entry per group settles everything before it.
        for group in (0..GROUPS).map(GroupId) {
            let leads = |machine: &&mut Machine| {
                machine.driver.as_ref().unwrap().status(group).unwrap().role == Role::Leader
            };
            let leader = self.machines.iter_mut().find(leads).expect("a healed group has a leader");
            self.next_token += 1;
            let token = Token(self.next_token);
            let proposal =
                Proposal { group, by: leader.peer, life: self.lives[&leader.peer], answer: None };
            self.proposals.insert(token, proposal);
            let data = Bytes::copy_from_slice(&token.0.to_le_bytes());
            leader.inbox.push(Inbound::Propose { group, token, data });
        }
        while self.now_ms < RUN_MS + 2 * HEAL_MS {
            self.step();
        }
        self.check_logs();
        let digest = self.digest.finish();
        (self, digest)
    }
}

fn at_ms(boot_ms: u64) -> Now {
    Now { boot_ms }
}

/// A leader knows in the end that everybody has everything, and followers know of nobody.
fn check_followers(sim: &Sim) {
    for group in (0..GROUPS).map(GroupId) {
        let drivers = sim.machines.iter().map(|machine| machine.driver.as_ref().unwrap());
        let known: Vec<_> = drivers
            .map(|driver| (driver.status(group).unwrap(), driver.followers(group)))
            .filter(|(_, followers)| !followers.is_empty())
            .collect();
        let [(status, followers)] = &known[..] else { panic!("one leader: {known:?}") };
        assert_eq!((status.role, followers.len() as u64), (Role::Leader, PEERS - 1));
        for follower in followers {
            assert_eq!(follower.matched, Some(status.last), "{follower:?}");
            assert!(!follower.is_cut_off, "{follower:?}");
        }
    }
}

fn check_end(sim: &Sim) {
    check_followers(sim);
    let applied = &sim.machines[0].applied;
    for machine in &sim.machines {
        for (group, all) in applied {
            assert_eq!(machine.applied[group].len(), all.len(), "replicas of {group} end alike");
        }
    }
    let effective: BTreeSet<_> = sim.history.values().map(|(_, data)| data.clone()).collect();
    for (token, proposal) in &sim.proposals {
        let took_effect = effective.contains(token.0.to_le_bytes().as_slice());
        match proposal.answer {
            Some("committed") => assert!(took_effect),
            Some(_) => assert!(!took_effect, "{token:?} was refused or lost and took effect"),
            None => {
                let group = proposal.group;
                assert!(
                    proposal.life < sim.lives[&proposal.by],
                    "{token:?} of {group} was never answered"
                );
            }
        }
    }
}

#[test]
fn replicas_agree_and_every_token_has_one_true_answer_whatever_breaks() {
    let (mut committed, mut lost, mut refused, mut crashes, mut lost_records, mut reads) =
        (0, 0, 0, 0, 0, 0);
    let mut terms = 0;
    for seed in 1..=40 {
        let (sim, _) = Sim::new(seed).run();
        check_end(&sim);
        let answered = |answer| {
            sim.proposals.values().filter(|proposal| proposal.answer == Some(answer)).count()
        };
        committed += answered("committed");
        lost += answered("lost");
        refused += answered("not leader");
        crashes += sim.crashes;
        lost_records += sim.lost_records;
        reads += sim.reads_done;
        terms += sim.leaders.len();
    }
    // What was to be tried did happen.
    assert!(
        committed > 3_000 && lost > 24 && refused > 0 && reads > 100,
        "{committed} {lost} {refused} {reads}"
    );
    assert!(crashes > 24 && lost_records > 24 && terms > 192, "{crashes} {lost_records} {terms}");
}

#[test]
fn replicas_that_hold_little_in_memory_are_fed_from_the_log_and_agree() {
    // Nobody has rows here: what a log cannot give is never had.
    let mut fed = 0;
    for seed in 1..=20 {
        let mut sim = Sim::new(seed);
        sim.is_forgetful = true;
        let (sim, _) = sim.run();
        check_end(&sim);
        let drivers = sim.machines.iter().filter_map(|machine| machine.driver.as_ref());
        fed += sim.fed + drivers.map(|driver| driver.feed_counts().entries).sum::<u64>();
    }
    assert!(fed > 500, "{fed} entries");
}

#[test]
fn the_same_seed_gives_the_same_deeds() {
    assert_eq!(Sim::new(99).run().1, Sim::new(99).run().1);
    assert_ne!(Sim::new(99).run().1, Sim::new(100).run().1);
}

#[test]
fn a_new_leader_sees_that_a_follower_is_cut_off_before_it_confirms_anything() {
    use raft::eraftpb::MessageType::{
        MsgAppendResponse, MsgRequestPreVoteResponse, MsgRequestVoteResponse,
    };
    let said = |from, kind, index| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.term, message.index) = (2, index);
        Inbound::Frame { from: PeerId(from), bytes: frame(message) }
    };
    // Its entries up to the 50th are gone: its rows hold them.
    let voted = Record::HardState { group: GROUP, term: Term(1), vote: 0 };
    for (has, next) in [(49, 50), (7, 8)] {
        let recovered = recover(3, (Index(50), Term(1)), std::slice::from_ref(&voted));
        let mut driver = Driver::new(DriverConfig::new(ME, 7), recovered);
        driver.turn(at(0), [Inbound::Campaign { group: GROUP }]);
        let stands = driver.turn(at(0), [said(2, MsgRequestPreVoteResponse, 0)]);
        driver.turn(at(0), [log_done(&stands)]);
        let leads = driver.turn(at(0), [said(2, MsgRequestVoteResponse, 0)]);
        driver.turn(at(0), [log_done(&leads), said(2, MsgAppendResponse, 51)]);
        assert_eq!(driver.status(GROUP).unwrap().role, Role::Leader);
        let peer_3 = |driver: &Driver| {
            let followers = driver.followers(GROUP);
            let of = followers.into_iter().find(|follower| follower.peer == PeerId(3)).unwrap();
            (of.matched, of.next, of.is_cut_off)
        };
        assert_eq!(peer_3(&driver), (None, Index(51), false), "nothing is known of it");

        let mut rejection = Message::default();
        rejection.set_msg_type(MsgAppendResponse);
        (rejection.term, rejection.index) = (2, 50);
        (rejection.reject, rejection.reject_hint) = (true, has);
        let rejection = Inbound::Frame { from: PeerId(3), bytes: frame(rejection) };
        driver.turn(at(0), [rejection]);
        assert_eq!(peer_3(&driver), (None, Index(next), true));
    }
}
