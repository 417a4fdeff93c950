#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const GROUP: GroupId = GroupId(3);
const GENERATION: Generation = Generation(1);

fn any_key() -> impl Strategy<Value = RowKey> {
    let number = || (1u64..4).prop_map(ResourceNumber);
    prop_oneof![
        6 => (number(), 0u64..12).prop_map(|(number, seq)| RowKey::event(number, Seq(seq))),
        2 => number().prop_map(RowKey::session),
        // More than are kept near their session.
        2 => (number(), 0u8..8).prop_map(|(number, id)| RowKey::producer(number, &format!("p{id}"))),
        1 => Just(RowKey::group(tl_types::keys::GroupField::NextNumber)),
    ]
}

fn any_slot() -> impl Strategy<Value = Slot> {
    proptest::option::weighted(0.8, any::<u8>().prop_map(|byte| Bytes::from(vec![byte; 3])))
}

proptest! {
    #[test]
    fn a_memtable_is_an_ordered_map(
        writes in proptest::collection::vec((any_key(), any_slot()), 0..60),
        start in any_key(),
        end in any_key(),
        limit in 0usize..20,
    ) {
        let mut memtable = Memtable::default();
        let mut model = BTreeMap::new();
        for (key, slot) in writes {
            memtable.put(GROUP, GENERATION, key.clone(), slot.clone());
            model.insert(key, slot);
        }
        for (key, slot) in &model {
            prop_assert_eq!(memtable.get(GROUP, GENERATION, key), Some(slot));
        }
        let all: Vec<_> = memtable.rows().map(|(_, _, key, slot)| (key, slot)).collect();
        let expected: Vec<_> = model.clone().into_iter().collect();
        prop_assert_eq!(all, expected);
        for from in [Bound::Included(&start), Bound::Excluded(&start)] {
            let chunk = memtable.chunk(GROUP, GENERATION, from, &end, limit);
            let expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| !is_before(key, from) && **key < end)
                .take(limit)
                .map(|(key, slot)| (key.clone(), slot.clone()))
                .collect();
            prop_assert_eq!(chunk, expected);
        }
    }
}

#[test]
fn overwriting_a_header_adds_no_bytes_but_the_difference() {
    let mut memtable = Memtable::default();
    let key = RowKey::session(ResourceNumber(1));
    memtable.put(GROUP, GENERATION, key.clone(), Some(Bytes::from_static(b"1234")));
    let before = memtable.bytes();
    for _ in 0..100 {
        memtable.put(GROUP, GENERATION, key.clone(), Some(Bytes::from_static(b"12345")));
    }
    assert_eq!(memtable.bytes(), before + 1);
}

#[test]
fn in_order_events_never_reach_the_plain_map() {
    let mut memtable = Memtable::default();
    for seq in 1..=100 {
        let key = RowKey::event(ResourceNumber(1), Seq(seq));
        memtable.put(GROUP, GENERATION, key, Some(Bytes::from_static(b"e")));
    }
    assert!(memtable.span(GROUP, GENERATION).unwrap().plain.is_empty());
    let seqs = memtable.event_seqs(GROUP, GENERATION, ResourceNumber(1));
    assert_eq!(seqs, Some((Seq(1), Seq(101))));
}
