#![allow(clippy::unwrap_used)]

use std::ops::RangeInclusive;

use tl_store::{MemStore, StoreOptions};
use tl_wal::OnDamage;
use tl_wal::inspect::{self, RecordKind, Status};
use tl_wal::memdisk::MemDisk;

use super::*;

const NOW: Now = Now { boot_ms: 1_000, wall_ms: 1_700_000_000_000 };
/// The group whose log rots, and the one that writes most.
const ROTTEN: GroupId = GroupId(0);
const BUSY: GroupId = GroupId(1);
const ENTRY_BYTES: usize = 5_000;
/// Bytes of a record before its data.
const HEADER_BYTES: usize = 56;

fn log_options() -> WalOptions {
    WalOptions {
        segment_bytes: 64 * 1024,
        entry_bytes_max: 16 * 1024,
        on_damage: OnDamage::GoOn,
        ..WalOptions::default()
    }
}

/// One of three voters starts; its store holds entries of the busy group up to `busy`, and nothing else.
fn start(disk: &MemDisk, busy: u64) -> (Wal, Found) {
    let plan = StartPlan {
        groups: 2,
        voters: [1, 2, 3].map(PeerId).into(),
        log: log_options(),
        driver: DriverConfig::new(PeerId(1), 1),
        level_spoken: tl_core::entry::LEVEL_SPOKEN,
    };
    let store = Arc::new(MemStore::new(StoreOptions::default()));
    let generation = store.applied(BUSY).generation;
    let (index, term, rows) = (Index(busy), Term(u64::from(busy > 0)), Vec::new());
    store.write(GroupWrites { group: BUSY, generation, index, term, rows });
    let (_, wal, found) = recover(store, Arc::new(disk.clone()), plan, NOW).unwrap();
    (wal, found)
}

fn logged(group: GroupId, index: u64, bytes: usize) -> Record {
    let data = vec![7; bytes].into();
    Record::Entry { group, term: Term(1), index: Index(index), data }
}

/// The busy group writes these entries.
fn write(wal: &mut Wal, indexes: RangeInclusive<u64>) {
    for index in indexes {
        wal.append(&[logged(BUSY, index, ENTRY_BYTES)]).unwrap();
    }
    wal.idle_mark().unwrap();
}

/// Lets go of what stands before these entries of the busy group. Of the other nothing was applied.
fn release(wal: &mut Wal, busy: u64) -> usize {
    wal.release(&[(ROTTEN, Index(0)), (BUSY, Index(busy))].into(), 0)
}

/// Turns a bit over in an entry of the group whose log rots.
fn rot(disk: &MemDisk, entry: u64) {
    let at = inspect::confirmed(disk).unwrap().into_iter().find_map(|(name, place)| {
        let Status::Intact(facts) = place.status else { return None };
        let is_it = (facts.kind, facts.group, facts.index)
            == (Some(RecordKind::Entry), ROTTEN, Index(entry));
        is_it.then_some((name, place.at_bytes as usize))
    });
    let (name, at) = at.unwrap();
    assert!(disk.flip(&name, at + HEADER_BYTES, 3));
}

#[test]
fn a_doubted_group_holds_no_log_for_entries_that_it_will_never_apply() {
    let disk = MemDisk::new();
    let (mut wal, _) = start(&disk, 0);
    let hard = |group| Record::HardState { group, term: Term(1), vote: 2 };
    wal.append(&[hard(ROTTEN), hard(BUSY), logged(ROTTEN, 1, 10)]).unwrap();
    write(&mut wal, 1..=40);
    wal.append(&[logged(ROTTEN, 2, 10)]).unwrap();
    write(&mut wal, 41..=60);
    assert_eq!(release(&mut wal, 60), 0, "it waits for the first one to be applied");
    drop(wal);
    rot(&disk, 1);

    let (mut wal, found) = start(&disk, 0);
    assert_eq!((&found.doubted[..], found.damages.len()), (&[ROTTEN][..], 1));
    write(&mut wal, 61..=80);
    assert!(release(&mut wal, 40) > 0, "the damage goes, and an entry behind it stays");
    wal.idle_mark().unwrap();
    drop(wal);

    let (mut wal, found) = start(&disk, 40);
    assert_eq!((&found.doubted[..], found.damages), (&[ROTTEN][..], vec![]));
    let begins = wal.begins();
    assert!(begins[&BUSY] <= Index(41), "{begins:?}");
    write(&mut wal, 81..=100);
    assert!(release(&mut wal, 100) > 0);
    assert_eq!(wal.segments(), 1, "nothing else is held");
    wal.idle_mark().unwrap();
    drop(wal);

    let (_, found) = start(&disk, 100);
    assert_eq!((&found.doubted[..], found.damages), (&[ROTTEN][..], vec![]), "it is on record");
}
