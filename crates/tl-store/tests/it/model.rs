//! One suite for both stores: random writes, rotations, flushes, compactions and crashes
//! against a plain ordered map.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tl_store::{Applied, GroupWrites, LsmStore, MemStore, OrderedStore, Read, Row, StoreOptions};
use tl_types::keys::GroupField;
use tl_types::{
    FullKey, Generation, GroupId, Index, RequestId, ResourceNumber, RowKey, Seq, Table, Term,
};

/// What differs between the stores: how they come back from a crash.
trait Subject {
    fn store(&self) -> &dyn OrderedStore;
    fn crash(&mut self);
}

struct OnDisk {
    dir: TempDir,
    store: Option<LsmStore>,
    options: StoreOptions,
}

impl OnDisk {
    fn new(options: StoreOptions) -> OnDisk {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(LsmStore::open(dir.path(), options.clone()).unwrap());
        OnDisk { dir, store, options }
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &dyn OrderedStore {
        self.store.as_ref().unwrap()
    }

    fn crash(&mut self) {
        self.store = None;
        self.store = Some(LsmStore::open(self.dir.path(), self.options.clone()).unwrap());
    }
}

impl Subject for MemStore {
    fn store(&self) -> &dyn OrderedStore {
        self
    }

    fn crash(&mut self) {
        MemStore::crash(self);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append { group: u16, number: u64, count: usize, bytes: usize },
    Put { group: u16, key: RowKey, value: Option<Bytes> },
    Load { group: u16, key: RowKey, value: Option<Bytes> },
    SwitchGeneration { group: u16 },
    Floor { group: u16, number: u64, back: u64 },
    Rotate,
    Flush,
    Compact,
    Crash,
    Prefetch { group: u16, key: RowKey },
    PrefetchTable { group: u16, key: RowKey, limit: usize },
    Look { group: u16, key: RowKey, limit: usize, bytes_max: usize },
}

fn any_number() -> impl Strategy<Value = u64> {
    1u64..4
}

fn any_key() -> impl Strategy<Value = RowKey> {
    let number = || any_number().prop_map(ResourceNumber);
    prop_oneof![
        3 => number().prop_map(RowKey::session),
        3 => (number(), 0u8..4).prop_map(|(number, id)| RowKey::producer(number, &format!("p{id}"))),
        2 => (number(), 0u64..4).prop_map(|(number, seq)| RowKey::producer_age(number, Seq(seq), "p")),
        1 => Just(RowKey::group(GroupField::NextNumber)),
        1 => (0u8..4).prop_map(|id| RowKey::request(RequestId([id; 16]))),
    ]
}

fn any_row_or_event() -> impl Strategy<Value = RowKey> {
    let event = (any_number(), 1u64..40);
    prop_oneof![
        any_key(),
        event.prop_map(|(number, seq)| RowKey::event(ResourceNumber(number), Seq(seq))),
    ]
}

fn any_value() -> impl Strategy<Value = Option<Bytes>> {
    let value = (any::<u8>(), 0usize..100).prop_map(|(byte, bytes)| vec![byte; bytes].into());
    proptest::option::weighted(0.75, value)
}

fn any_op() -> impl Strategy<Value = Op> {
    let group = || 0u16..3;
    prop_oneof![
        8 => (group(), any_number(), 1usize..5, 1usize..100)
            .prop_map(|(group, number, count, bytes)| Op::Append { group, number, count, bytes }),
        6 => (group(), any_key(), any_value())
            .prop_map(|(group, key, value)| Op::Put { group, key, value }),
        2 => (group(), any_row_or_event(), any_value())
            .prop_map(|(group, key, value)| Op::Load { group, key, value }),
        1 => group().prop_map(|group| Op::SwitchGeneration { group }),
        2 => (group(), any_number(), 0u64..6)
            .prop_map(|(group, number, back)| Op::Floor { group, number, back }),
        4 => Just(Op::Rotate),
        4 => Just(Op::Flush),
        2 => Just(Op::Compact),
        1 => Just(Op::Crash),
        4 => (group(), any_row_or_event()).prop_map(|(group, key)| Op::Prefetch { group, key }),
        3 => (group(), any_row_or_event(), 1usize..5)
            .prop_map(|(group, key, limit)| Op::PrefetchTable { group, key, limit }),
        8 => (group(), any_row_or_event(), 1usize..8, 1usize..300)
            .prop_map(|(group, key, limit, bytes_max)| Op::Look { group, key, limit, bytes_max }),
    ]
}

type ModelRows = BTreeMap<(u16, u32, RowKey), Bytes>;

/// All that a crash takes back.
#[derive(Debug, Clone, Default)]
struct Image {
    rows: ModelRows,
    applied: BTreeMap<u16, Applied>,
}

#[derive(Debug, Default)]
struct Model {
    now: Image,
    sealed: VecDeque<Image>,
    durable: Image,
    floors: BTreeMap<(u16, u32, u64), u64>,
    is_dirty: bool,
    touched: BTreeSet<(u16, RowKey)>,
    spans: BTreeSet<(u16, RowKey, RowKey, usize)>,
}

impl Model {
    fn generation(&self, group: u16) -> u32 {
        self.now.applied.get(&group).map_or(1, |applied| applied.generation.0)
    }

    fn last_seq(&self, group: u16, number: u64) -> u64 {
        let generation = self.generation(group);
        let end = RowKey::table_end(Table::Event, ResourceNumber(number));
        let start = RowKey::table_start(Table::Event, ResourceNumber(number));
        let range = (group, generation, start)..(group, generation, end);
        self.now
            .rows
            .range(range)
            .next_back()
            .map_or(0, |((_, _, key), _)| key.event_seq().unwrap().0)
    }

    fn is_forgotten(&self, group: u16, generation: u32, key: &RowKey) -> bool {
        let Some(seq) = key.event_seq() else { return false };
        let floor = self.floors.get(&(group, generation, key.number().0));
        floor.is_some_and(|floor| seq.0 <= *floor)
    }

    /// Rows from `start` to `end` that reads may count on.
    fn range(&self, group: u16, start: &RowKey, end: &RowKey) -> Vec<Row> {
        let generation = self.generation(group);
        let range = (group, generation, start.clone())..(group, generation, end.clone());
        let rows = self.now.rows.range(range);
        rows.filter(|((_, _, key), _)| !self.is_forgotten(group, generation, key))
            .map(|((_, _, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn get(&self, group: u16, key: &RowKey) -> Option<Bytes> {
        self.now.rows.get(&(group, self.generation(group), key.clone())).cloned()
    }
}

struct Run<'a> {
    subject: &'a mut dyn Subject,
    model: Model,
}

impl Run<'_> {
    fn write(&mut self, group: u16, generation: u32, rows: Vec<(RowKey, Option<Bytes>)>) {
        let last = self.model.now.applied.get(&group).copied().unwrap_or_default();
        let (index, term) = (Index(last.index.0 + 1), Term(1));
        let generation = Generation(generation);
        self.put(group, generation.0, &rows);
        self.model.now.applied.insert(group, Applied { index, term, generation });
        self.subject.store().write(GroupWrites {
            group: GroupId(group),
            generation,
            index,
            term,
            rows,
        });
    }

    fn put(&mut self, group: u16, generation: u32, rows: &[(RowKey, Option<Bytes>)]) {
        self.model.is_dirty = true;
        for (key, value) in rows {
            self.model.touched.insert((group, key.clone()));
            let key = (group, generation, key.clone());
            match value {
                Some(value) => self.model.now.rows.insert(key, value.clone()),
                None => self.model.now.rows.remove(&key),
            };
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Append { group, number, count, bytes } => {
                let last = self.model.last_seq(group, number).max(self.floor(group, number));
                let rows = (1..=count as u64).map(|at| {
                    let key = RowKey::event(ResourceNumber(number), Seq(last + at));
                    (key, Some(Bytes::from(vec![(last + at) as u8; bytes])))
                });
                self.write(group, self.model.generation(group), rows.collect());
            }
            Op::Put { group, key, value } => {
                self.write(group, self.model.generation(group), vec![(key, value)]);
            }
            Op::Load { group, key, value } => {
                let next = self.model.generation(group) + 1;
                let rows = vec![(key, value)];
                self.put(group, next, &rows);
                self.subject.store().set_loading(GroupId(group), &[Generation(next)]);
                self.subject.store().load(GroupId(group), Generation(next), rows);
            }
            Op::SwitchGeneration { group } => self.switch_generation(group),
            Op::Floor { group, number, back } => {
                let generation = self.model.generation(group);
                let floor = self.model.last_seq(group, number).saturating_sub(back);
                let floors = self.model.floors.entry((group, generation, number)).or_default();
                *floors = floor.max(*floors);
                self.subject.store().set_floor(
                    GroupId(group),
                    Generation(generation),
                    ResourceNumber(number),
                    Seq(floor),
                );
            }
            Op::Rotate => {
                assert_eq!(self.subject.store().rotate(), self.model.is_dirty);
                if self.model.is_dirty {
                    self.model.sealed.push_back(self.model.now.clone());
                    self.model.is_dirty = false;
                }
            }
            Op::Flush => {
                let flushed = self.subject.store().flush_one().unwrap();
                let image = self.model.sealed.pop_front();
                assert_eq!(flushed, image.is_some());
                self.model.durable = image.unwrap_or_else(|| self.model.durable.clone());
                self.check_cached();
            }
            Op::Compact => {
                for _ in 0..8 {
                    self.subject.store().compact_step().unwrap();
                }
            }
            Op::Crash => {
                self.subject.crash();
                self.model.now = self.model.durable.clone();
                self.model.sealed.clear();
                self.model.is_dirty = false;
            }
            Op::Prefetch { group, key } => self.prefetch(group, &key),
            Op::PrefetchTable { group, key, limit } => {
                let (start, end) = self.span_from(group, &key);
                let generation = Generation(self.model.generation(group));
                let store = self.subject.store();
                store.prefetch_range(GroupId(group), generation, &start, &end, limit).unwrap();
                self.model.spans.insert((group, start.clone(), end.clone(), limit));
                self.check_range_cached(group, &start, &end, limit);
            }
            Op::Look { group, key, limit, bytes_max } => self.look(group, &key, limit, bytes_max),
        }
        self.check_applied();
    }

    fn floor(&self, group: u16, number: u64) -> u64 {
        let of = (group, self.model.generation(group), number);
        self.model.floors.get(&of).copied().unwrap_or(0)
    }

    /// As an install does it: the switch is an entry, made durable, and only then told.
    fn switch_generation(&mut self, group: u16) {
        let old = self.model.generation(group);
        self.write(group, old + 1, Vec::new());
        self.step(Op::Rotate);
        while !self.model.sealed.is_empty() {
            self.step(Op::Flush);
        }
        self.subject.store().set_generation(GroupId(group), Generation(old + 1));
        let is_live = |of: &(u16, u32, RowKey)| of.0 != group || of.1 > old;
        for image in [&mut self.model.now, &mut self.model.durable] {
            image.rows.retain(|of, _| is_live(of));
        }
    }

    fn prefetch(&mut self, group: u16, key: &RowKey) {
        let generation = Generation(self.model.generation(group));
        self.model.touched.insert((group, key.clone()));
        let full = FullKey::new(GroupId(group), generation, key);
        self.subject.store().prefetch(&[full]).unwrap();
        let read = self.subject.store().get_cached(GroupId(group), generation, key);
        assert_ne!(read, Read::Cold, "{key:?} was just prefetched");
        self.check_read(group, key, read);
    }

    /// A range within the key's table and number that readers could ask for: above the floor.
    fn span_from(&self, group: u16, key: &RowKey) -> (RowKey, RowKey) {
        let end = RowKey::table_end(key.table(), key.number());
        let floor = Seq(self.floor(group, key.number().0) + 1);
        let start = match key.event_seq() {
            Some(seq) => RowKey::event(key.number(), seq.max(floor)),
            None => key.clone(),
        };
        (start, end)
    }

    fn look(&self, group: u16, key: &RowKey, limit: usize, bytes_max: usize) {
        let generation = Generation(self.model.generation(group));
        let store = self.subject.store();
        let read = store.get_cached(GroupId(group), generation, key);
        self.check_read(group, key, read);
        let got = store.get(GroupId(group), generation, key).unwrap();
        self.check_read(group, key, got.map_or(Read::Absent, Read::Found));

        let (start, end) = self.span_from(group, key);
        let range = |limit, bytes_max| {
            let group = GroupId(group);
            store.range(group, generation, &start, &end, limit, bytes_max).unwrap()
        };
        let expected = self.model.range(group, &start, &end);
        assert_eq!(range(usize::MAX, usize::MAX), expected);
        assert_eq!(range(limit, usize::MAX), expected[..limit.min(expected.len())]);
        let page = range(usize::MAX, bytes_max);
        assert_eq!(page, expected[..page.len()]);
        let bytes_of = |rows: &[Row]| -> usize {
            rows.iter().map(|(key, value)| key.as_bytes().len() + value.len()).sum()
        };
        assert!(page.len() <= 1 || bytes_of(&page) <= bytes_max);
        if let Some(next) = expected.get(page.len()) {
            assert!(bytes_of(&page) + bytes_of(std::slice::from_ref(next)) > bytes_max);
        }
        self.check_range_cached(group, &start, &end, limit);
    }

    fn check_range_cached(&self, group: u16, start: &RowKey, end: &RowKey, limit: usize) {
        let generation = Generation(self.model.generation(group));
        let store = self.subject.store();
        match store.range_cached(GroupId(group), generation, start, end, limit) {
            Read::Found(rows) => {
                let mut expected = self.model.range(group, start, end);
                expected.truncate(limit);
                assert_eq!(rows, expected);
            }
            Read::Cold => {}
            Read::Absent => panic!("a range is never absent"),
        }
    }

    fn check_read(&self, group: u16, key: &RowKey, read: Read<Bytes>) {
        let expected = self.model.get(group, key);
        let is_forgotten = self.model.is_forgotten(group, self.model.generation(group), key);
        match read {
            Read::Found(value) => assert!(is_forgotten || expected == Some(value), "{key:?}"),
            Read::Absent => assert!(is_forgotten || expected.is_none(), "{key:?}"),
            Read::Cold => {}
        }
    }

    /// Every row and range that anyone ever wrote or asked for, as memory sees it.
    fn check_cached(&self) {
        for (group, key) in &self.model.touched {
            let generation = Generation(self.model.generation(*group));
            let read = self.subject.store().get_cached(GroupId(*group), generation, key);
            self.check_read(*group, key, read);
        }
        for (group, start, end, limit) in &self.model.spans {
            if !self.model.is_forgotten(*group, self.model.generation(*group), start) {
                self.check_range_cached(*group, start, end, *limit);
            }
        }
    }

    fn check_applied(&self) {
        let store = self.subject.store();
        for group in 0..3 {
            let expected = self.model.now.applied.get(&group).copied().unwrap_or_default();
            assert_eq!(store.applied(GroupId(group)), expected);
        }
        let expected = self.model.durable.applied.iter();
        let expected: Vec<_> =
            expected.map(|(group, applied)| (GroupId(*group), *applied)).collect();
        assert_eq!(store.durable_applied(), expected);
    }

    /// Everything, group by group, and once more after a last crash.
    fn check_all(&mut self) {
        for _ in 0..2 {
            for group in 0..3 {
                let first = RowKey::group(GroupField::NextNumber);
                let end = RowKey::table_end(Table::RequestAge, ResourceNumber(u64::MAX));
                let generation = Generation(self.model.generation(group));
                let store = self.subject.store();
                let group_id = GroupId(group);
                let mut rows = store
                    .range(group_id, generation, &first, &end, usize::MAX, usize::MAX)
                    .unwrap();
                rows.retain(|(key, _)| !self.model.is_forgotten(group, generation.0, key));
                assert_eq!(rows, self.model.range(group, &first, &end));
            }
            self.step(Op::Crash);
        }
        let report = self.subject.store().scrub(&mut |_| std::ops::ControlFlow::Continue(()));
        let report = report.unwrap();
        assert!(report.complete && report.damage.is_empty(), "{report:?}");
    }
}

fn check(subject: &mut dyn Subject, ops: Vec<Op>) {
    let mut run = Run { subject, model: Model::default() };
    for op in ops {
        run.step(op);
    }
    run.check_all();
}

fn small() -> StoreOptions {
    StoreOptions {
        blob_threshold: 48,
        blob_file_bytes: 512,
        table_file_bytes: 4096,
        purge_rows_min: 1,
        ..StoreOptions::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_on_disk_is_an_ordered_map_that_falls_back_to_its_last_flush(
        ops in proptest::collection::vec(any_op(), 1..80),
    ) {
        check(&mut OnDisk::new(small()), ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_store_in_memory_is_an_ordered_map_that_falls_back_to_its_last_flush(
        ops in proptest::collection::vec(any_op(), 1..80),
    ) {
        check(&mut MemStore::new(small()), ops);
    }
}
