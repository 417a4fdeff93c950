#![allow(clippy::unwrap_used)]

mod crowded;
mod damage;
mod doubt;
mod fed;
mod refusal;
mod resume;

use std::sync::Arc;

use tl_raft::{DriverConfig, Staged};
use tl_store::{MemStore, Row, StoreOptions};
use tl_types::keys::GroupField;
use tl_types::{Generation, ResourceNumber, RowKey, Seq, Term};
use tl_wal::WalOptions;
use tl_wal::memdisk::MemDisk;

use super::message::{Sum, put_row};
use super::sources::CUT_OFF_STAYS_MS;
use super::*;
use crate::node::Input;
use crate::node::recover::{StartPlan, recover};

const GROUP: GroupId = GroupId(0);
const GIVER: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(3);
const OFFER: What = What::Offer { index: Index(40), term: Term(3), chunk: 0 };

/// A node that follows nobody yet, and what the others say to it.
struct Taker {
    node: Node<MemStore>,
    disk: MemDisk,
    groups: u16,
    inbox: Vec<Input>,
    now_ms: u64,
}

impl Taker {
    fn new(groups: u16) -> Taker {
        let store = Arc::new(MemStore::new(StoreOptions::default()));
        Taker::start(groups, store, MemDisk::new(), 1_000)
    }

    fn start(groups: u16, store: Arc<MemStore>, disk: MemDisk, now_ms: u64) -> Taker {
        let plan = StartPlan {
            groups,
            voters: [1, 2, 3].map(PeerId).to_vec(),
            log: WalOptions::default(),
            driver: DriverConfig::new(PeerId(1), 1),
            level_spoken: tl_core::entry::LEVEL_SPOKEN,
        };
        let now = Now { boot_ms: now_ms, wall_ms: 1 };
        let (node, _, _) = recover(store, Arc::new(disk.clone()), plan, now).unwrap();
        Taker { node, disk, groups, inbox: Vec::new(), now_ms }
    }

    /// Its process ends, and another one starts: what its memtables had is gone.
    fn restart(&mut self) {
        let store = Arc::clone(self.node.store());
        store.crash();
        *self = Taker::start(self.groups, store, self.disk.clone(), self.now_ms);
    }

    fn turn(&mut self) -> (Vec<(PeerId, Message)>, Turned) {
        let now = Now { boot_ms: self.now_ms, wall_ms: 1 };
        let mut said = Vec::new();
        loop {
            let mut turned = self.node.turn(now, &mut self.inbox);
            let bulk = std::mem::take(&mut turned.bulk).into_iter();
            said.extend(bulk.map(|(to, bytes)| (to, Message::decode(&bytes).unwrap())));
            let store = Arc::clone(self.node.store());
            let done = std::mem::take(&mut turned.asides).into_iter().map(|it| it.run(&*store));
            self.inbox.extend(done.map(Input::AsideDone));
            if self.inbox.is_empty() {
                return (said, turned);
            }
        }
    }

    fn hear(&mut self, from: PeerId, group: GroupId, transfer: u64, what: What) -> Vec<What> {
        let bytes = Message { group, transfer, what }.encode();
        self.inbox.push(Input::Bulk { from, bytes });
        let (said, _) = self.turn();
        let to_it = said.into_iter().filter(|(to, of)| (*to, of.transfer) == (from, transfer));
        to_it.map(|(_, message)| message.what).collect()
    }

    fn later(&mut self, ms: u64) -> Vec<What> {
        self.now_ms += ms;
        self.turn().0.into_iter().map(|(_, message)| message.what).collect()
    }
}

fn rows() -> Vec<Row> {
    let number = ResourceNumber(1);
    let mut rows = vec![(RowKey::session(number), Bytes::from_static(b"header"))];
    rows.extend((1..=9).map(|seq| (RowKey::event(number, Seq(seq)), Bytes::from(vec![7; 100]))));
    rows
}

fn encoded(rows: &[Row]) -> Bytes {
    let mut out = Vec::new();
    rows.iter().for_each(|row| put_row(&mut out, row));
    out.into()
}

fn last(chunk: u64, rows: &[Row], of: &[Row]) -> What {
    let sum = Sum { rows: of.len() as u64, crc: crc32fast::hash(&encoded(of)) };
    What::Chunk { chunk, rows: encoded(rows), last: Some(sum) }
}

#[test]
fn rows_are_ready_once_they_are_all_there_and_durable() {
    let (mut taker, rows) = (Taker::new(1), rows());
    assert_eq!(taker.hear(GIVER, GROUP, 7, OFFER), [What::Ask { chunk: 0 }]);
    let first = What::Chunk { chunk: 0, rows: encoded(&rows[..4]), last: None };
    assert_eq!(taker.hear(GIVER, GROUP, 7, first.clone()), [What::Ask { chunk: 1 }]);
    assert_eq!(taker.hear(GIVER, GROUP, 7, first), [], "again");
    assert_eq!(taker.hear(GIVER, GROUP, 7, last(2, &rows[4..], &rows)), [], "too early");
    assert_eq!(taker.hear(GIVER, GROUP, 7, last(1, &rows[4..], &rows)), []);
    assert_eq!(taker.later(10), [], "not durable yet");
    assert!(taker.node.store().flush_one().unwrap());
    assert_eq!(taker.later(10), [What::Ready]);
    assert_eq!(taker.later(AGAIN_MS), [What::Ready], "until somebody has heard");
    let store = taker.node.store();
    assert_eq!(store.applied(GROUP).generation, Generation(0), "nothing reads them yet");
    assert_eq!(store.generations_above(GROUP, Generation(0)).unwrap(), [Generation(1)]);
    assert_eq!(taker.node.catch_up_counts().rows_taken, 10);
}

#[test]
fn what_is_not_what_was_sent_is_let_go() {
    let rows = rows();
    let lost = What::Chunk { chunk: 0, rows: encoded(&rows[..4]), last: None };
    let cases: [(&str, Vec<What>); 3] = [
        ("a row is missing", vec![last(0, &rows[..9], &rows)]),
        ("a chunk is missing", vec![lost, last(1, &rows[5..], &rows)]),
        ("out of order", vec![last(0, &[rows[1].clone(), rows[0].clone()], &rows)]),
    ];
    for (case, chunks) in cases {
        let mut taker = Taker::new(1);
        taker.hear(GIVER, GROUP, 7, OFFER);
        let mut said = Vec::new();
        for chunk in chunks {
            said = taker.hear(GIVER, GROUP, 7, chunk);
        }
        assert_eq!(said, [What::Gone], "{case}");
        assert_eq!(taker.node.taking().next(), None, "{case}");
        let counts = taker.node.catch_up_counts();
        assert_eq!((counts.refused, counts.let_go), (1, 1), "{case}");
    }
}

#[test]
fn a_generation_is_used_once() {
    let (mut taker, rows) = (Taker::new(1), rows());
    taker.hear(GIVER, GROUP, 7, OFFER);
    taker.hear(GIVER, GROUP, 7, What::Chunk { chunk: 0, rows: encoded(&rows), last: None });
    assert!(taker.node.store().rotate() && taker.node.store().flush_one().unwrap());
    taker.hear(GIVER, GROUP, 7, What::Gone);
    assert_eq!(taker.hear(GIVER, GROUP, 8, OFFER), [What::AskFingerprint { chunk: 0 }]);
    taker.hear(GIVER, GROUP, 8, last(0, &rows[..1], &rows[..1]));
    let store = Arc::clone(taker.node.store());
    let loads = store.generations_above(GROUP, Generation(0)).unwrap();
    assert_eq!(loads, [Generation(1), Generation(2)]);
    let event = RowKey::event(ResourceNumber(1), Seq(1));
    assert_eq!(store.get(GROUP, Generation(2), &event).unwrap(), None, "no row of the first");
}

#[test]
fn transfers_are_bounded_and_silence_ends_them() {
    let mut taker = Taker::new(4);
    for group in 0..2 {
        let said = taker.hear(GIVER, GroupId(group), 7 + u64::from(group), OFFER);
        assert_eq!(said, [What::Ask { chunk: 0 }]);
    }
    assert_eq!(taker.hear(GIVER, GroupId(2), 9, OFFER), [What::Gone], "one past");
    assert_eq!(taker.hear(OTHER, GROUP, 20, OFFER), [What::Gone], "the first giver is at it");
    let asked = taker.later(AGAIN_MS);
    assert_eq!(asked, [What::Ask { chunk: 0 }, What::Ask { chunk: 0 }], "the first may be lost");
    taker.later(AGAIN_MS);
    let said = taker.hear(OTHER, GROUP, 21, OFFER);
    assert_eq!(said, [What::Ask { chunk: 0 }], "nothing was heard of the first giver");
    taker.later(PATIENCE_MS);
    assert_eq!(taker.node.taking().count(), 0);
    assert_eq!(taker.node.catch_up_counts().let_go, 3);
}

#[test]
fn what_is_of_no_use_or_unknown_is_said_to_be_gone() {
    let mut taker = Taker::new(1);
    let nothing = What::Offer { index: Index(0), term: Term(0), chunk: 0 };
    assert_eq!(taker.hear(GIVER, GROUP, 7, nothing), [What::Ready], "all of it is here");
    let middle = What::Offer { index: Index(40), term: Term(3), chunk: 2 };
    assert_eq!(taker.hear(GIVER, GROUP, 7, middle), [What::Gone], "the start is missing");
    for what in [What::Ask { chunk: 0 }, What::Ready, last(0, &[], &[])] {
        assert_eq!(taker.hear(GIVER, GROUP, 7, what), [What::Gone]);
    }
    assert_eq!(taker.hear(GIVER, GROUP, 7, What::Gone), [], "that is not answered");
    let bytes = Message { group: GroupId(1), transfer: 7, what: What::Ready }.encode();
    taker.inbox.push(Input::Bulk { from: GIVER, bytes });
    taker.inbox.push(Input::Bulk { from: GIVER, bytes: Bytes::from_static(b"noise") });
    assert_eq!(taker.turn().1.rejected.len(), 2);
}

#[test]
fn a_group_without_rows_has_a_stamp_and_can_be_given() {
    let mut taker = Taker::new(1);
    taker.hear(GIVER, GROUP, 7, OFFER);
    assert_eq!(taker.hear(GIVER, GROUP, 7, last(0, &[], &[])), []);
    taker.node.store().flush_one().unwrap();
    assert_eq!(taker.later(1), [What::Ready]);
    let clock = (RowKey::group(GroupField::Last), Bytes::from_static(b"no stamp"));
    let mut taker = Taker::new(1);
    taker.hear(GIVER, GROUP, 7, OFFER);
    let broken = [clock];
    assert_eq!(taker.hear(GIVER, GROUP, 7, last(0, &broken, &broken)), [What::Gone]);
}

/// A taker that has gone on from rows of the generation `of` names.
fn gone_on(taker: &mut Taker, transfer: u64, of: Installed) {
    let Staged { index, term, .. } = of.rows;
    let rows = rows();
    taker.hear(GIVER, GROUP, transfer, What::Offer { index, term, chunk: 0 });
    taker.hear(GIVER, GROUP, transfer, last(0, &rows, &rows));
    while taker.node.store().flush_one().unwrap() {}
    assert_eq!(taker.later(10), [What::Ready]);
    let now = Now { boot_ms: taker.now_ms, wall_ms: 1 };
    taker.node.install(now, of, &mut Turned::default());
}

fn installed(index: u64, generation: u32) -> Installed {
    let (index, term, generation) = (Index(index), Term(3), Generation(generation));
    Installed { group: GROUP, rows: Staged { index, term, generation } }
}

#[test]
fn former_rows_stay_for_reads_that_began_on_them_whatever_is_taken_meanwhile() {
    let mut taker = Taker::new(1);
    // No row that a flush leaves in the cache.
    let first = RowKey::event(ResourceNumber(1), Seq(1));
    let kept = |taker: &Taker| {
        let store = taker.node.store();
        while store.compact_step().unwrap() {}
        [0, 1, 2, 3].map(|of| store.get(GROUP, Generation(of), &first).unwrap().is_some())
    };
    let row = (first.clone(), Some(Bytes::from_static(b"event")));
    taker.node.store().load(GROUP, Generation(0), vec![row]);
    assert!(taker.node.store().rotate() && taker.node.store().flush_one().unwrap());
    gone_on(&mut taker, 7, installed(40, 1));
    let since_ms = taker.now_ms;
    assert_eq!(kept(&taker), [true, true, false, false]);
    gone_on(&mut taker, 8, installed(50, 2));
    assert_eq!(kept(&taker), [true, true, true, false], "two former ones");
    // A third one would need room as well.
    let further = What::Offer { index: Index(60), term: Term(3), chunk: 0 };
    assert_eq!(taker.hear(GIVER, GROUP, 9, further.clone()), [What::Gone]);
    taker.later(since_ms + RETIRE_AFTER_MS - taker.now_ms);
    assert_eq!(kept(&taker), [false, true, true, false], "the time of the first is over");
    assert_eq!(taker.hear(GIVER, GROUP, 10, further), [What::AskFingerprint { chunk: 0 }]);
    taker.hear(GIVER, GROUP, 10, What::Chunk { chunk: 0, rows: encoded(&rows()), last: None });
    assert!(taker.node.store().rotate() && taker.node.store().flush_one().unwrap());
    assert_eq!(kept(&taker), [false, true, true, true]);
    taker.hear(GIVER, GROUP, 10, What::Gone);
    taker.later(RETIRE_AFTER_MS);
    assert_eq!(kept(&taker), [false, false, true, true], "what is let go may be copied from");
    taker.later(CUT_OFF_STAYS_MS - RETIRE_AFTER_MS);
    assert_eq!(kept(&taker), [false, false, true, false], "for so long");
}
