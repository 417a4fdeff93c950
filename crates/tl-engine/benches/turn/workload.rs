//! A node without threads over a store on disk, and appends for it: 1,024 sessions over 256 groups,
//! one producer each, events of about 1 KiB.
//!
//! Log jobs count as written by the next turn, so the turns here are those of a node whose disk
//! takes no time: each confirms, applies and answers the appends of the turn before and proposes
//! its own.

use std::sync::Arc;

use tl_core::{Command, ContentHash, Entry, Metadata, NewEvent, entry};
use tl_engine::node::recover::{StartPlan, recover};
use tl_engine::node::{Done, Input, Node, Now, Turned};
use tl_raft::{DriverConfig, PeerId, Token};
use tl_store::{LsmStore, OrderedStore, StoreOptions};
use tl_types::{Incarnation, Namespace, ResourcePath, SessionId, Tenant};
use tl_wal::WalOptions;
use tl_wal::memdisk::MemDisk;

pub const GROUPS: u16 = 256;
pub const SESSIONS: u64 = 1_024;
/// Appends of one turn, as 256 busy clients would send them.
pub const PER_TURN: usize = 256;
const ENVELOPE_BYTES: usize = 1_024;
const START: Now = Now { boot_ms: 1_000, wall_ms: 1_700_000_000_000 };

pub struct Workload {
    node: Node<LsmStore>,
    inbox: Vec<Input>,
    paths: Vec<ResourcePath>,
    /// Appends made so far; gives session, producer position and token.
    made: u64,
    answered: u64,
    now: Now,
    _dir: tempfile::TempDir,
}

impl Workload {
    /// A node whose sessions exist and have a few events.
    pub fn new() -> Workload {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = LsmStore::open(dir.path(), StoreOptions::default()).expect("a new store");
        let plan = StartPlan {
            groups: GROUPS,
            voters: vec![PeerId(1)],
            log: WalOptions::default(),
            driver: DriverConfig::new(PeerId(1), 1),
            level_spoken: entry::LEVEL_SPOKEN,
        };
        let (node, _, _) = recover(Arc::new(store), Arc::new(MemDisk::new()), plan, START)
            .expect("an empty log is read");
        let paths = (0..SESSIONS).map(path).collect();
        let (inbox, now) = (Vec::new(), START);
        let mut workload = Workload { node, inbox, paths, made: 0, answered: 0, now, _dir: dir };
        for session in 0..SESSIONS {
            let create = Command::CreateSession(create(&workload.paths[session as usize]));
            workload.propose(session, Token(u64::MAX - session), create);
        }
        while !workload.inbox.is_empty() {
            let turned = workload.turn();
            workload.finish(turned);
        }
        for _ in 0..32 {
            workload.gather(PER_TURN);
            let turned = workload.turn();
            workload.finish(turned);
        }
        workload
    }

    /// Puts `count` appends into the inbox, session after session.
    pub fn gather(&mut self, count: usize) {
        for _ in 0..count {
            let session = self.made % SESSIONS;
            let append = append(&self.paths[session as usize], self.made / SESSIONS + 1);
            self.propose(session, Token(self.made), Command::Append(append));
            self.made += 1;
        }
    }

    /// What is measured.
    #[inline(never)]
    pub fn turn(&mut self) -> Turned {
        self.now.boot_ms += 1;
        self.now.wall_ms += 1;
        self.node.turn(self.now, &mut self.inbox)
    }

    /// Plays the other threads: the log job is done, answers are looked at and dropped.
    pub fn finish(&mut self, turned: Turned) {
        assert!(turned.stopped.is_empty(), "{:?}", turned.stopped);
        self.inbox.extend(turned.log.as_ref().map(|job| Input::LogDone(job.id)));
        let store = Arc::clone(self.node.store());
        for beside in turned.beside {
            self.inbox.push(Input::BesideDone(beside.run(&*store)));
        }
        for done in &turned.done {
            let Done::Applied { replies, .. } = done else { panic!("{done:?}") };
            assert!(!matches!(replies[0], tl_core::Reply::Refused(_)), "{done:?}");
        }
        self.answered += turned.applied as u64;
        if turned.sealed {
            self.flush();
        }
    }

    /// Writes the sealed memtable to the runs, as the flush thread does.
    #[inline(never)]
    pub fn flush(&mut self) {
        self.node.store().flush_one().expect("the disk takes it");
        let durable = self.node.store().durable_applied();
        let indexes = durable.into_iter().map(|(group, applied)| (group, applied.index));
        self.inbox.push(Input::Flushed(indexes.collect()));
    }

    /// Entries applied so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    pub fn store(&self) -> &Arc<LsmStore> {
        self.node.store()
    }

    fn propose(&mut self, session: u64, token: Token, command: Command) {
        let group = self.paths[session as usize].group(GROUPS);
        let entry = Entry::new([command]).encode();
        self.inbox.push(Input::Propose { group, token, entry });
    }
}

fn path(session: u64) -> ResourcePath {
    let id = SessionId::new(&format!("bench-session-{session:06}")).expect("a valid id");
    let tenant = Tenant::new("default").expect("a valid tenant");
    ResourcePath::session(tenant, Namespace::default_namespace(), id)
}

fn create(path: &ResourcePath) -> entry::CreateSession {
    entry::CreateSession {
        path: path.clone(),
        incarnation: Incarnation([7; 16]),
        title: Some("A session of the benchmark".into()),
        metadata: Metadata::new(&[(b"\"origin\""[..].into(), b"\"bench\""[..].into())]),
        creator: "user:bench".into(),
    }
}

fn append(path: &ResourcePath, producer_seq: u64) -> entry::Append {
    entry::Append {
        path: path.clone(),
        expected_seq: None,
        events: [NewEvent {
            producer_id: "bench-producer".into(),
            producer_seq,
            hash: ContentHash { algorithm: 1, value: u128::from(producer_seq) << 64 },
            envelope: vec![b'x'; ENVELOPE_BYTES].into(),
        }]
        .into(),
    }
}
