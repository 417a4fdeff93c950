//! Three nodes over memory, of which one finds that its rows are damaged.

use tl_core::{Command, Entry, entry};
use tl_raft::{MemberChange, Role, Token};
use tl_types::{Incarnation, Namespace, ResourcePath, SessionId, Tenant};
use tl_wal::{OnDamage, Reader, Wal};

use super::super::aside::Work;
use super::*;
use crate::node::fetch;
use crate::node::recover::Found;

pub(super) const NODES: usize = 3;
const TICK_MS: u64 = 50;

/// Disks and network do at once what they are told.
pub(super) struct Trio {
    pub(super) nodes: Vec<Node<MemStore>>,
    pub(super) disks: Vec<MemDisk>,
    pub(super) wals: Vec<Wal>,
    reader: Reader,
    pub(super) inboxes: Vec<Vec<Input>>,
    pub(super) now_ms: u64,
    tokens: u64,
    configs: Vec<DriverConfig>,
    /// Damaged places found in logs, at each start that found some.
    pub(super) damages: Vec<usize>,
    pub(super) stopped: Vec<usize>,
    pub(super) troubles: Vec<(GroupId, String)>,
    /// Nothing goes to this one or comes from it.
    pub(super) away: Option<usize>,
    /// This one wants no rows.
    pub(super) sated: Option<usize>,
    /// When rows were offered to it.
    pub(super) offered_ms: Vec<u64>,
    /// The disk of this one takes no rows.
    pub(super) stalled: Option<usize>,
    /// Appends that each passed over.
    pub(super) passed_over: [u64; NODES],
    /// This one gets to no comparing of rows.
    pub(super) busy: Option<usize>,
    /// What waits for it.
    pub(super) waiting: Vec<Aside>,
}

impl Trio {
    fn new() -> Trio {
        Trio::with(|_| ())
    }

    pub(super) fn with(change: impl Fn(&mut DriverConfig)) -> Trio {
        Trio::of(&StoreOptions::default(), change)
    }

    pub(super) fn of(options: &StoreOptions, change: impl Fn(&mut DriverConfig)) -> Trio {
        let disks: Vec<MemDisk> = (0..NODES).map(|_| MemDisk::new()).collect();
        let config = |no: usize| {
            let mut driver = DriverConfig::new(PeerId(no as u64 + 1), no as u64);
            change(&mut driver);
            driver
        };
        let configs: Vec<DriverConfig> = (0..NODES).map(config).collect();
        let node = |no: usize| {
            let store = Arc::new(MemStore::new(options.clone()));
            let (node, wal, _) = start(store, &disks[no], configs[no].clone(), 1_000);
            (node, wal)
        };
        let (nodes, wals) = (0..NODES).map(node).unzip();
        Trio {
            nodes,
            disks,
            wals,
            reader: Reader::default(),
            inboxes: vec![(); NODES].into_iter().map(|()| Vec::new()).collect(),
            now_ms: 1_000,
            tokens: 0,
            configs,
            damages: Vec::new(),
            stopped: Vec::new(),
            troubles: Vec::new(),
            away: None,
            sated: None,
            offered_ms: Vec::new(),
            stalled: None,
            passed_over: [0; NODES],
            busy: None,
            waiting: Vec::new(),
        }
    }

    /// Another machine, under the next number, which is no member of the group yet.
    pub(super) fn add(&mut self) -> usize {
        let no = self.nodes.len();
        let config = DriverConfig::new(PeerId(no as u64 + 1), no as u64);
        let (store, disk) = (MemStore::new(StoreOptions::default()), MemDisk::new());
        let (node, wal, _) = start(Arc::new(store), &disk, config.clone(), self.now_ms);
        self.nodes.push(node);
        self.wals.push(wal);
        self.disks.push(disk);
        self.configs.push(config);
        self.inboxes.push(Vec::new());
        no
    }

    /// Has the leader change the members, and waits until that is committed.
    pub(super) fn change(&mut self, change: MemberChange) {
        self.tokens += 1;
        let (token, leader) = (Token(self.tokens), self.leader().unwrap());
        let members = |trio: &Trio| trio.nodes[leader].driver().status(GROUP).unwrap().members;
        let before = members(self);
        self.inboxes[leader].push(Input::ChangeMembers { group: GROUP, token, change });
        self.until("the members change", |trio| members(trio) != before);
    }

    /// Starts a node whose process has ended: what its memtables had is gone.
    pub(super) fn restart(&mut self, no: usize) {
        let store = Arc::clone(self.nodes[no].store());
        store.crash();
        self.configs[no].seed += NODES as u64;
        let config = self.configs[no].clone();
        let (node, wal, found) = start(store, &self.disks[no], config, self.now_ms);
        (self.nodes[no], self.wals[no]) = (node, wal);
        self.inboxes[no].clear();
        self.damages.extend(Some(found.damages.len()).filter(|found| *found > 0));
    }

    fn turn(&mut self, no: usize) {
        let now = Now { boot_ms: self.now_ms, wall_ms: 1_000_000 };
        let turned = self.nodes[no].turn(now, &mut self.inboxes[no]);
        let store = Arc::clone(self.nodes[no].store());
        let mut inbox: Vec<Input> = Vec::new();
        if let Some(job) = turned.log {
            self.wals[no].append(&job.records).unwrap();
            self.wals[no].sync().unwrap();
            inbox.push(Input::LogDone(job.id));
        }
        let fetched =
            fetch(turned.fetches, &mut self.reader, |wants| self.wals[no].segments_with(wants));
        inbox.extend(fetched.into_iter().map(Input::Fetched));
        self.troubles.extend(turned.troubles);
        inbox.extend(turned.beside.into_iter().map(|it| Input::BesideDone(it.run(&*store))));
        if let Some(count) = self.passed_over.get_mut(no) {
            *count += turned.appends_passed_over;
        }
        if self.stalled != Some(no) {
            while store.flush_one().unwrap() {}
        }
        let is_late = |it: &Aside| self.busy == Some(no) && matches!(it.work, Work::Compare(_));
        let (late, asides): (Vec<Aside>, Vec<Aside>) = turned.asides.into_iter().partition(is_late);
        self.waiting.extend(late);
        inbox.extend(asides.into_iter().map(|it| Input::AsideDone(it.run(&*store))));
        self.inboxes[no].extend(inbox);
        let from = PeerId(no as u64 + 1);
        let at = |peer: PeerId| peer.0 as usize - 1;
        let is_cut = |to: PeerId| self.away.is_some_and(|away| away == no || away == at(to));
        for (to, bytes) in turned.frames.into_iter().filter(|(to, _)| !is_cut(*to)) {
            self.inboxes[at(to)].push(Input::Frame { from, bytes });
        }
        for (to, bytes) in turned.bulk.into_iter().filter(|(to, _)| !is_cut(*to)) {
            let mut message = Message::decode(&bytes).unwrap();
            if self.sated == Some(at(to)) && matches!(message.what, What::Offer { .. }) {
                self.offered_ms.push(self.now_ms);
                message.what = What::Gone;
                self.inboxes[no].push(Input::Bulk { from: to, bytes: message.encode() });
            } else {
                self.inboxes[at(to)].push(Input::Bulk { from, bytes });
            }
        }
        self.stopped.extend(turned.stopped.iter().map(|_| no));
    }

    /// The busy one gets to what has waited.
    pub(super) fn get_to_it(&mut self) {
        let no = self.busy.take().unwrap();
        let store = Arc::clone(self.nodes[no].store());
        let done = self.waiting.drain(..).map(|it| Input::AsideDone(it.run(&*store)));
        self.inboxes[no].extend(done);
    }

    /// Goes on until something is so, for a minute at most.
    pub(super) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Trio) -> bool) {
        for _ in 0..60_000 / TICK_MS {
            for _ in 0..8 {
                (0..self.nodes.len()).for_each(|no| self.turn(no));
            }
            if is_so(self) {
                return;
            }
            self.now_ms += TICK_MS;
        }
        panic!("never: {what}");
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node<MemStore>| node.driver().status(GROUP).unwrap().role;
        self.nodes.iter().position(|node| leads(node) == Role::Leader)
    }

    pub(super) fn propose(&mut self, command: Command) {
        self.tokens += 1;
        let (token, entry) = (Token(self.tokens), Entry::new([command]).encode());
        let leader = self.leader().unwrap();
        self.inboxes[leader].push(Input::Propose { group: GROUP, token, entry });
    }

    /// All have applied the same, and it is so much.
    pub(super) fn are_even(&self, at: Index) -> bool {
        self.nodes.iter().all(|node| node.applied(GROUP) == at)
    }

    pub(super) fn rows(&self, no: usize) -> Vec<Row> {
        let (store, generation) = (self.nodes[no].store(), self.nodes[no].generation(GROUP));
        let start = RowKey::table_start(tl_types::Table::Group, ResourceNumber(0));
        let end = RowKey::table_end(tl_types::Table::RequestAge, ResourceNumber(u64::MAX));
        store.range(GROUP, generation, &start, &end, usize::MAX, usize::MAX).unwrap()
    }
}

fn start(
    store: Arc<MemStore>,
    disk: &MemDisk,
    driver: DriverConfig,
    boot_ms: u64,
) -> (Node<MemStore>, Wal, Found) {
    let plan = StartPlan {
        groups: 1,
        voters: [1, 2, 3].map(PeerId).to_vec(),
        log: WalOptions {
            segment_bytes: 64 * 1024,
            entry_bytes_max: 16 * 1024,
            on_damage: OnDamage::GoOn,
            ..WalOptions::default()
        },
        driver,
        level_spoken: entry::LEVEL_SPOKEN,
    };
    let now = Now { boot_ms, wall_ms: 1_000_000 };
    recover(store, Arc::new(disk.clone()), plan, now).unwrap()
}

fn path() -> ResourcePath {
    let tenant = Tenant::new("t").unwrap();
    ResourcePath::session(tenant, Namespace::default_namespace(), SessionId::new("s").unwrap())
}

pub(super) fn create() -> Command {
    Command::CreateSession(entry::CreateSession {
        path: path(),
        incarnation: Incarnation([1; 16]),
        title: None,
        metadata: tl_core::Metadata::default(),
        creator: "user:u".into(),
    })
}

pub(super) fn append(producer_seq: u64) -> Command {
    let event = tl_core::NewEvent {
        producer_id: "p".into(),
        producer_seq,
        hash: tl_core::ContentHash { algorithm: 1, value: producer_seq.into() },
        envelope: vec![7; 100].into(),
    };
    Command::Append(entry::Append { path: path(), expected_seq: None, events: [event].into() })
}

/// A trio with some events, in which the rows of one node become noise.
fn damaged(who: impl Fn(&Trio) -> usize) -> (Trio, usize) {
    let mut trio = Trio::new();
    trio.until("somebody leads", |trio| trio.leader().is_some());
    trio.propose(create());
    trio.propose(append(1));
    trio.until("all have it", |trio| trio.are_even(Index(3)));
    let victim = who(&trio);
    let session = trio.rows(victim).into_iter().map(|(key, _)| key);
    let session = session.filter(|key| key.table() == tl_types::Table::Session).collect::<Vec<_>>();
    let noise = vec![(session[0].clone(), Some(Bytes::from_static(b"noise")))];
    trio.nodes[victim].store().load(GROUP, Generation(0), noise);
    trio.propose(append(2));
    trio.until("it is found", |trio| trio.stopped == [victim]);
    (trio, victim)
}

fn is_mended(mut trio: Trio, victim: usize) {
    trio.until("it has other rows", |trio| {
        trio.nodes[victim].catch_up_counts().taken == 1
            && trio.leader().is_some_and(|leader| leader != victim)
    });
    trio.propose(append(3));
    trio.until("all go on", |trio| {
        let at = trio.nodes[trio.leader().unwrap()].driver().status(GROUP).unwrap().last;
        trio.are_even(at)
    });
    assert_eq!(trio.rows(victim), trio.rows((victim + 1) % NODES));
    assert_eq!(trio.stopped, [victim], "once");
    let leader = trio.leader().unwrap();
    let to = PeerId(victim as u64 + 1);
    trio.inboxes[leader].push(Input::Transfer { group: GROUP, to });
    trio.until("it may lead again", |trio| trio.leader() == Some(victim));
    trio.propose(append(4));
    let before = trio.nodes[victim].applied(GROUP);
    trio.until("and does", |trio| trio.are_even(Index(before.0 + 1)));
    // The giver has let go of everything that it kept for this.
    trio.until("nothing is left", |trio| {
        trio.nodes.iter().all(|node| node.catch_up.giving.is_empty() && node.taking().count() == 0)
    });
}

#[test]
fn a_follower_with_damaged_rows_is_mended_by_its_leader() {
    let (trio, victim) = damaged(|trio| (trio.leader().unwrap() + 1) % NODES);
    is_mended(trio, victim);
}

#[test]
fn a_leader_with_damaged_rows_hands_over_and_is_mended() {
    let (trio, victim) = damaged(|trio| trio.leader().unwrap());
    is_mended(trio, victim);
}

#[test]
fn an_operator_has_the_rows_of_a_replica_given_anew() {
    let mut trio = Trio::new();
    trio.until("somebody leads", |trio| trio.leader().is_some());
    trio.propose(create());
    trio.propose(append(1));
    trio.until("all have it", |trio| trio.are_even(Index(3)));
    let victim = (trio.leader().unwrap() + 1) % NODES;
    trio.propose(append(2));
    // The second wish changes nothing.
    trio.inboxes[victim].extend([Input::Repair(GROUP), Input::Repair(GROUP)]);
    trio.until("it begins", |trio| trio.stopped == [victim]);
    is_mended(trio, victim);
}
