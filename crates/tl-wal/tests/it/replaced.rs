//! Entries that later ones or rows have replaced keep no segment.

use std::collections::BTreeMap;

use tl_types::{GroupId, Index};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Record, Wal};

use crate::common::{entry, hard_state, installed, membership, open};

const GROUP: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);

fn fill(wal: &mut Wal, group: GroupId, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        wal.append(&[entry(group.0, index, 10_000)]).unwrap();
    }
    wal.sync().unwrap();
}

/// A group's entries 1 to 30 over several segments, with what is known of it before them.
fn log() -> (MemDisk, Wal) {
    let disk = MemDisk::new();
    let (mut wal, ..) = open(&disk);
    wal.append(&[membership(1, "a"), hard_state(1, 4)]).unwrap();
    fill(&mut wal, GROUP, 1..=30);
    assert!(wal.segments() > 4);
    (disk, wal)
}

fn again(disk: &MemDisk, wal: Wal) -> (Wal, Vec<Record>) {
    drop(wal);
    let (wal, _, records) = open(disk);
    (wal, records)
}

fn applied(all: &[(GroupId, u64)]) -> BTreeMap<GroupId, Index> {
    all.iter().map(|(group, index)| (*group, Index(*index))).collect()
}

fn indexes(records: &[Record]) -> Vec<u64> {
    let entries = records.iter().filter_map(|record| match record {
        Record::Entry { group: GROUP, index, .. } => Some(index.0),
        _ => None,
    });
    entries.collect()
}

#[test]
fn an_idle_group_whose_tail_was_overwritten_holds_back_no_log() {
    for starts in [false, true] {
        let (disk, mut wal) = log();
        // A later leader has none of what is behind the tenth.
        wal.append(&[hard_state(1, 5), entry(1, 11, 10)]).unwrap();
        fill(&mut wal, OTHER, 1..=30);
        if starts {
            wal = again(&disk, wal).0;
        }
        assert_eq!(wal.begins()[&GROUP], Index(1));
        // Entries that count and are not applied keep their segments, and all behind them.
        wal.release(&applied(&[(GROUP, 9), (OTHER, 30)]), 0);
        let (mut wal, records) = again(&disk, wal);
        assert_eq!(records.last(), Some(&entry(2, 30, 10_000)));
        assert!(indexes(&records).contains(&10) && indexes(&records).ends_with(&[30, 11]));
        // The twelfth and all behind it will never be applied.
        assert!(wal.release(&applied(&[(GROUP, 10), (OTHER, 30)]), 0) > 2);
        assert_eq!(wal.begins()[&GROUP], Index(11));
        assert!(wal.release(&applied(&[(GROUP, 11), (OTHER, 30)]), 0) > 0);
        assert_eq!(wal.segments(), 1);
        wal.idle_mark().unwrap();
        let (_, records) = again(&disk, wal);
        assert_eq!(records[..2], [membership(1, "a"), hard_state(1, 5)], "what it is stays");
    }
}

#[test]
fn entries_that_were_overwritten_within_one_segment_keep_it_no_longer() {
    for starts in [false, true] {
        let disk = MemDisk::new();
        let (mut wal, ..) = open(&disk);
        wal.append(&[entry(1, 1, 10), entry(1, 2, 10), entry(1, 3, 10), entry(1, 2, 11)]).unwrap();
        fill(&mut wal, OTHER, 1..=10);
        if starts {
            wal = again(&disk, wal).0;
        }
        assert_eq!(wal.release(&applied(&[(GROUP, 1), (OTHER, 10)]), 0), 0);
        assert!(wal.release(&applied(&[(GROUP, 2), (OTHER, 10)]), 0) > 0);
    }
}

#[test]
fn rows_in_place_let_go_of_all_entries_before_them_and_of_none_behind() {
    for starts in [false, true] {
        let (disk, mut wal) = log();
        wal.append(&[installed(1, 20), hard_state(1, 6)]).unwrap();
        fill(&mut wal, OTHER, 1..=30);
        fill(&mut wal, GROUP, 21..=30);
        // The heads of these segments repeat that rows are in place, which replaces nothing anew.
        fill(&mut wal, OTHER, 31..=60);
        if starts {
            wal = again(&disk, wal).0;
        }
        assert_eq!(wal.begins()[&GROUP], Index(21), "what is before the rows counts no more");
        assert!(wal.release(&applied(&[(GROUP, 20), (OTHER, 60)]), 0) > 4);
        wal.idle_mark().unwrap();
        let (mut wal, records) = again(&disk, wal);
        assert!((21..=30).all(|index| indexes(&records).contains(&index)));
        assert_eq!(wal.begins()[&GROUP], Index(21));
        assert!(wal.release(&applied(&[(GROUP, 30), (OTHER, 60)]), 0) > 0);
        assert_eq!(wal.segments(), 1);
    }
}

#[test]
fn nothing_goes_before_what_has_replaced_it_is_durable() {
    for replacing in [entry(1, 1, 10), installed(1, 40)] {
        let (disk, mut wal) = log();
        let applied = applied(&[(GROUP, 0)]);
        assert_eq!(wal.release(&applied, 0), 0);
        wal.append(&[replacing]).unwrap();
        assert_eq!(wal.release(&applied, 0), 0);
        // It is gone with the power, and what it would have replaced is there.
        drop(wal);
        disk.crash(1);
        let (mut wal, _, records) = open(&disk);
        assert_eq!(indexes(&records), (1..=30).collect::<Vec<_>>());
        assert_eq!(records.len(), 32, "the crash took what was not synced");
        assert_eq!(wal.begins()[&GROUP], Index(1));
        assert_eq!(wal.release(&applied, 0), 0);
        wal.append(&[installed(1, 40)]).unwrap();
        wal.sync().unwrap();
        assert!(wal.release(&applied, 0) > 3);
    }
}
