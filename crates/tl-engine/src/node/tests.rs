#![allow(clippy::unwrap_used)]
use tl_core::{Command, Entry, entry};
use tl_raft::{DriverConfig, PeerId};
use tl_store::{MemStore, StoreOptions};
use tl_types::{Incarnation, Namespace, ResourcePath, RowKey, SessionId, Tenant};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Record, Wal, WalOptions};

use super::recover::{StartPlan, recover};
use super::*;

const GROUP: GroupId = GroupId(0);
const NOW: Now = Now { boot_ms: 1_000, wall_ms: 1_700_000_000_000 };

/// A single node over memory whose log jobs are done at once.
struct Bench {
    node: Node<MemStore>,
    inbox: Vec<Input>,
    tokens: u64,
    /// Entries that were applied beside.
    beside: usize,
}

impl Bench {
    fn new() -> Bench {
        Bench::over(MemDisk::new())
    }

    /// A node whose log holds these entries, and whose store holds nothing.
    fn behind(entries: Vec<Vec<u8>>) -> Bench {
        Bench::over(log_of(entries))
    }

    fn over(disk: MemDisk) -> Bench {
        Bench::speaking(entry::LEVEL_SPOKEN, disk)
    }

    fn speaking(level_spoken: u16, disk: MemDisk) -> Bench {
        let options = StoreOptions { memtable_bytes: 16 << 20, ..StoreOptions::default() };
        let store = Arc::new(MemStore::new(options));
        let plan = StartPlan {
            groups: 1,
            voters: vec![PeerId(1)],
            log: WalOptions::default(),
            driver: DriverConfig::new(PeerId(1), 1),
            level_spoken,
        };
        let (node, _, _) = recover(store, Arc::new(disk), plan, NOW).unwrap();
        let mut bench = Bench { node, inbox: Vec::new(), tokens: 0, beside: 0 };
        bench.settle();
        bench
    }

    fn propose(&mut self, command: Command) {
        self.tokens += 1;
        let (token, entry) = (Token(self.tokens), Entry::new([command]).encode());
        self.inbox.push(Input::Propose { group: GROUP, token, entry });
    }

    /// Turns until nothing is left to do; what they gave, together.
    fn settle(&mut self) -> Turned {
        let mut all = Turned::default();
        loop {
            let turned = self.node.turn(NOW, &mut self.inbox);
            let more = turned.more || turned.log.is_some() || turned.applied > 0;
            self.inbox.extend(turned.log.map(|job| Input::LogDone(job.id)));
            all.done.extend(turned.done);
            all.stopped.extend(turned.stopped);
            all.sealed |= turned.sealed;
            let store = Arc::clone(self.node.store());
            self.beside += turned.beside.len();
            let beside = turned.beside.into_iter().map(|beside| beside.run(&*store));
            self.inbox.extend(beside.map(Input::BesideDone));
            if !more && self.inbox.is_empty() {
                return all;
            }
        }
    }

    fn done(&mut self, command: Command) -> Reply {
        self.propose(command);
        match self.settle().done.pop() {
            Some(Done::Applied { mut replies, .. }) => replies.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn path() -> ResourcePath {
    let tenant = Tenant::new("t").unwrap();
    ResourcePath::session(tenant, Namespace::default_namespace(), SessionId::new("s").unwrap())
}

fn create() -> Command {
    Command::CreateSession(entry::CreateSession {
        path: path(),
        incarnation: Incarnation([1; 16]),
        title: None,
        metadata: tl_core::Metadata::default(),
        creator: "user:u".into(),
    })
}

fn append(producer_seq: u64, bytes: usize) -> Command {
    Command::Append(entry::Append {
        path: path(),
        expected_seq: None,
        events: [tl_core::NewEvent {
            producer_id: "p".into(),
            producer_seq,
            hash: tl_core::ContentHash { algorithm: 1, value: producer_seq.into() },
            envelope: vec![7; bytes].into(),
        }]
        .into(),
    })
}

#[test]
fn entries_that_write_nothing_still_let_the_log_go() {
    let mut bench = Bench::new();
    bench.done(create());
    let mut sealed = 0;
    for _ in 0..70 {
        // Refused: the producer begins at 1.
        bench.propose(append(9, 1024 * 1024));
        sealed += usize::from(bench.settle().sealed);
    }
    assert_eq!(sealed, 1, "70 MiB of log");
    assert!(bench.node.store().flush_one().unwrap());
    let durable = bench.node.store().durable_applied();
    assert!(durable[0].1.index >= Index(60), "{durable:?}");
}

#[test]
fn a_trim_reaches_compaction() {
    let mut bench = Bench::new();
    bench.done(create());
    for n in 1..=3 {
        bench.done(append(n, 10));
    }
    bench.done(Command::AckArchived(entry::AckArchived { path: path(), upto: Seq(3) }));
    bench.done(Command::Trim(entry::Trim { path: path(), upto: Seq(2) }));
    let store = bench.node.store();
    assert!(store.rotate() && store.flush_one().unwrap());
    while store.compact_step().unwrap() {}
    let generation = bench.node.generation(GROUP);
    let number = ResourceNumber(1);
    let event = |seq| store.get(GROUP, generation, &RowKey::event(number, Seq(seq))).unwrap();
    assert!(event(2).is_none(), "below the floor");
    assert!(event(3).is_some(), "above it");
}

#[test]
fn a_stopped_group_answers_reads_that_were_on_their_way() {
    let mut bench = Bench::new();
    let (token, broken) = (Token(1), vec![0xff; 64]);
    bench.inbox.push(Input::Propose { group: GROUP, token, entry: broken });
    // Proposed in this turn, applied in the next one; the read is asked in between.
    let turned = bench.node.turn(NOW, &mut bench.inbox);
    bench.inbox.extend(turned.log.map(|job| Input::LogDone(job.id)));
    bench.inbox.push(Input::Read { group: GROUP, token: Token(2) });
    let all = bench.settle();
    assert_eq!(all.stopped.len(), 1);
    let read = all.done.iter().find_map(|done| match done {
        Done::Failed { token: Token(2), failure } => Some(*failure),
        _ => None,
    });
    assert_eq!(read, Some(Failure::Stopped), "{:?}", all.done);
}

#[test]
fn a_stopped_group_lets_its_entries_go() {
    let mut bench = Bench::new();
    bench.done(create());
    let broken = vec![0xff; 64 * 1024];
    bench.inbox.push(Input::Propose { group: GROUP, token: Token(9), entry: broken });
    (1..=3).for_each(|n| bench.propose(append(n, 64 * 1024)));
    assert_eq!(bench.settle().stopped.len(), 1);
    bench.settle();
    let status = bench.node.driver().status(GROUP).unwrap();
    assert_eq!((status.entry_bytes, bench.node.applied(GROUP) < status.last), (0, true));
}

/// A session whose rows are on disk alone.
fn cold() -> Bench {
    let mut bench = Bench::new();
    bench.done(create());
    bench.done(append(1, 10));
    let store = bench.node.store();
    assert!(store.rotate() && store.flush_one().unwrap());
    store.crash();
    bench.beside = 0;
    bench
}

#[test]
fn an_entry_applied_beside_leaves_its_rows_in_memory() {
    let mut bench = cold();
    bench.done(append(2, 10));
    assert_eq!(bench.beside, 1);
    bench.done(append(3, 10));
    assert_eq!(bench.beside, 1, "the second one finds them");
}

#[test]
fn rows_loaded_ahead_spare_the_way_beside() {
    let mut bench = cold();
    let entry = Entry::new([append(2, 10)]);
    let cold_keys = |bench: &Bench| {
        let generation = bench.node.generation(GROUP);
        rows::cold_keys(&**bench.node.store(), GROUP, generation, &entry)
    };
    assert!(!cold_keys(&bench).is_empty());
    rows::warm(&**bench.node.store(), GROUP, &entry).unwrap();
    assert_eq!(cold_keys(&bench), []);
    bench.done(append(2, 10));
    assert_eq!(bench.beside, 0);
}

/// A disk whose log holds these entries.
fn log_of(entries: Vec<Vec<u8>>) -> MemDisk {
    let disk = MemDisk::new();
    let (group, term) = (GROUP, Term(1));
    let options = WalOptions::default();
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), options, &mut |_, _| ()).unwrap();
    wal.append(&[Record::HardState { group, term, vote: 1 }]).unwrap();
    for (index, data) in (1..).map(Index).zip(entries) {
        wal.append(&[Record::Entry { group, term, index, data: data.into() }]).unwrap();
    }
    wal.sync().unwrap();
    disk
}

/// Entries as they stand in a log.
fn logged(command: Command) -> Vec<u8> {
    let mut entry = Entry::new([command]).encode();
    entry::set_stamp(&mut entry, UnixMs(NOW.wall_ms));
    entry
}

#[test]
fn a_start_applies_the_log_before_the_first_turn() {
    let events = (1..=2 * 64 * 5).map(|n| logged(append(n, 10)));
    let mut bench = Bench::behind([logged(create())].into_iter().chain(events).collect());
    let last = Index(1 + 2 * 64 * 5);
    // One more is what the new leader begins with.
    assert_eq!(bench.node.applied(GROUP), Index(last.0 + 1));
    let Reply::Appended(appended) = bench.done(append(640, 10)) else { panic!("refused") };
    assert!(appended.deduped, "the producer is remembered");
    assert_eq!(appended.last_seq, Seq(640));
}

#[test]
fn what_a_start_cannot_apply_stops_its_group_and_nothing_before_it_is_lost() {
    let entries =
        vec![logged(create()), logged(append(1, 10)), vec![0xff; 64], logged(append(2, 10))];
    let bench = Bench::behind(entries);
    assert_eq!(bench.node.applied(GROUP), Index(2));
    assert!(bench.node.slots[0].stopped);
}

#[test]
fn an_entry_above_the_level_that_is_spoken_stops_its_group_and_a_newer_release_goes_on() {
    let above = || {
        let mut entry = Entry::of_level(2, [append(1, 10)]).encode();
        entry::set_stamp(&mut entry, UnixMs(NOW.wall_ms));
        entry
    };
    let mut old = Bench::speaking(1, log_of(vec![logged(create())]));
    old.inbox.push(Input::Propose { group: GROUP, token: Token(9), entry: above() });
    let (stopped, before) = (old.settle().stopped, old.node.applied(GROUP));
    let why = "entry 3 is of feature level 2 and this release speaks 1 at most: a newer release is \
               needed";
    assert_eq!(stopped, [(GROUP, why.to_owned())]);
    assert_eq!(before, Index(2), "nothing of it is applied");

    let log = || log_of(vec![logged(create()), above(), logged(append(2, 10))]);
    // At a start it is the same, and what stands in the log stays there.
    let old = Bench::speaking(1, log());
    assert!(old.node.slots[0].stopped);
    assert_eq!(old.node.applied(GROUP), Index(1));
    let mut new = Bench::speaking(2, log());
    let Reply::Appended(appended) = new.done(append(2, 10)) else { panic!("refused") };
    assert!(appended.deduped, "both levels were applied");
    assert_eq!(appended.last_seq, Seq(2));
}

#[test]
fn what_a_node_does_beside_its_driver_is_of_the_level_that_it_speaks() {
    let mut bench = cold();
    bench.node.level_spoken = 2;
    let entry = Entry::of_level(2, [append(2, 10)]).encode();
    bench.inbox.push(Input::Propose { group: GROUP, token: Token(9), entry });
    let settled = bench.settle();
    assert_eq!((bench.beside, settled.stopped), (1, Vec::new()));
}
