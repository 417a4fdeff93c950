#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use proptest::prelude::*;
use tl_types::{ResourceNumber, Seq};

use super::*;
use crate::memory::MemoryRows;

fn key(n: u64) -> RowKey {
    RowKey::event(ResourceNumber(1), Seq(n))
}

struct Unreadable(Read<Bytes>);

impl Rows for Unreadable {
    fn get(&self, _: &RowKey) -> Read<Bytes> {
        self.0.clone()
    }

    fn range(&self, _: &RowKey, _: &RowKey, _: usize) -> Read<Vec<(RowKey, Bytes)>> {
        match &self.0 {
            Read::Damaged(what) => Read::Damaged(what.clone()),
            Read::Found(_) | Read::Absent | Read::Cold => Read::Cold,
        }
    }
}

#[test]
fn a_cold_row_reads_as_absent_and_poisons() {
    let rows = Unreadable(Read::Cold);
    let mut view = View::new(&rows);
    view.put(key(1), Bytes::from_static(b"x"));
    assert_eq!(view.get(&key(1)), Some(Bytes::from_static(b"x")));
    assert_eq!(view.poison(), None);
    assert_eq!(view.get(&key(2)), None);
    assert_eq!(view.into_writes(), Err(Poison::Cold));
}

#[test]
fn the_first_poison_stays() {
    let rows = Unreadable(Read::Damaged("block 7".into()));
    let mut view = View::new(&rows);
    assert!(view.range(&key(0), &key(9), 5).is_empty());
    view.damaged("what followed".into());
    assert_eq!(view.into_writes(), Err(Poison::Damaged("block 7".into())));
}

proptest! {
    #[test]
    fn a_view_is_a_map_with_the_writes_put_in(
        below in proptest::collection::btree_map(0u64..200, 0u8..9, 0..150),
        writes in proptest::collection::vec((0u64..200, proptest::option::of(0u8..9)), 0..150),
        from in 0u64..200, len in 0u64..200, limit in 0usize..40,
    ) {
        let mut rows = MemoryRows::default();
        let value = |v: u8| Bytes::from(vec![v]);
        rows.write(below.iter().map(|(k, v)| (key(*k), Some(value(*v)))).collect());
        let mut model: BTreeMap<u64, u8> = below;
        let mut view = View::new(&rows);
        for (k, v) in writes {
            match v {
                Some(v) => { model.insert(k, v); view.put(key(k), value(v)); }
                None => { model.remove(&k); view.delete(key(k)); }
            }
        }
        for k in 0..200 {
            prop_assert_eq!(view.get(&key(k)), model.get(&k).map(|v| value(*v)));
        }
        let seen = view.range(&key(from), &key(from + len), limit);
        let expected: Vec<_> = model.range(from..from + len).take(limit)
            .map(|(k, v)| (key(*k), value(*v))).collect();
        prop_assert_eq!(seen, expected);
        let writes = view.into_writes().unwrap();
        prop_assert!(writes.windows(2).all(|pair| pair[0].0 < pair[1].0));
        rows.write(writes);
        prop_assert_eq!(rows.len(), model.len());
    }
}
