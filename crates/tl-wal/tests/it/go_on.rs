//! An owner who goes on behind damage: what it is given, what it is told, and what stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use tl_types::{GroupId, Index};
use tl_wal::error::DAMAGES_MAX;
use tl_wal::inspect::{self, RecordKind, Status};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Damage, Disk, Fault, OnDamage, Opened, Position, Record, Wal, WalError, WalOptions};

use crate::common::{entry, hard_state, installed, membership, options, prepare};

type Handed = Vec<(Position, Record)>;

fn try_go_on(disk: &MemDisk) -> Result<(Wal, Opened, Handed), WalError> {
    let options = WalOptions { on_damage: OnDamage::GoOn, ..options() };
    let mut handed = Vec::new();
    let (wal, opened) = Wal::open(Arc::new(disk.clone()), options, &mut |position, record| {
        handed.push((position, record));
    })?;
    Ok((wal, opened, handed))
}

fn go_on(disk: &MemDisk) -> (Wal, Opened, Vec<Record>) {
    let (wal, opened, handed) = try_go_on(disk).unwrap();
    (wal, opened, handed.into_iter().map(|(_, record)| record).collect())
}

/// Where a record is: the first of this kind and index, repeated or not.
fn find(disk: &MemDisk, kind: RecordKind, group: u16, index: u64) -> (String, usize, Position) {
    let places = inspect::confirmed(disk).unwrap();
    let here = |(name, place): (String, inspect::RecordInfo)| match place.status {
        Status::Intact(facts)
            if (facts.kind, facts.group, facts.index)
                == (Some(kind), GroupId(group), Index(index)) =>
        {
            Some((name, place.at_bytes as usize, place.position))
        }
        _ => None,
    };
    places.into_iter().find_map(here).unwrap()
}

fn rot_data(disk: &MemDisk, group: u16, index: u64) -> Position {
    let (name, at, position) = find(disk, RecordKind::Entry, group, index);
    assert!(disk.flip(&name, at + 56, 3));
    position
}

fn rot_header(disk: &MemDisk, group: u16, index: u64) -> Position {
    let (name, at, position) = find(disk, RecordKind::Entry, group, index);
    assert!(disk.flip(&name, at + 20, 3));
    position
}

/// Entries 1 to 8 of two groups, a job for each index.
fn log() -> MemDisk {
    let disk = MemDisk::new();
    let (mut wal, ..) = go_on(&disk);
    wal.append(&[hard_state(1, 1), membership(1, "a"), hard_state(2, 1)]).unwrap();
    for index in 1..=8 {
        wal.append(&[entry(1, index, 3_000), entry(2, index, 3_000)]).unwrap();
        wal.sync().unwrap();
    }
    wal.idle_mark().unwrap();
    disk.copy()
}

fn entries_of(group: u16, records: &[Record]) -> Vec<u64> {
    let index = |record: &Record| match record {
        Record::Entry { group: of, index, .. } if *of == GroupId(group) => Some(index.0),
        _ => None,
    };
    records.iter().filter_map(index).collect()
}

#[test]
fn a_damaged_entry_is_named_and_all_others_are_handed_over() {
    let disk = log();
    let position = rot_data(&disk, 1, 5);
    let damage = |opened: Opened| {
        let [damage] = &opened.damages[..] else { panic!("{:?}", opened.damages) };
        damage.clone()
    };
    for _ in 0..3 {
        let (_, opened, records) = go_on(&disk);
        assert_eq!(entries_of(1, &records), [1, 2, 3, 4, 6, 7, 8]);
        assert_eq!(entries_of(2, &records), [1, 2, 3, 4, 5, 6, 7, 8], "of the same job too");
        assert_eq!(opened.cut, None);
        let Damage { position: at, group, kind, entry, fault, .. } = damage(opened);
        assert_eq!((at, group, entry), (position, Some(GroupId(1)), Some(Index(5))));
        assert_eq!((kind, fault), (Some(RecordKind::Entry), Fault::Data));
    }
    assert!(matches!(crate::common::try_open(&disk), Err(WalError::Corrupt(_))));
    let said = damage(go_on(&disk).1).to_string();
    assert!(said.starts_with("damaged record data in segment ") && said.ends_with(", entry 5"));
}

#[test]
fn where_a_header_is_damaged_no_group_is_named() {
    let disk = log();
    let position = rot_header(&disk, 2, 3);
    let (_, opened, records) = go_on(&disk);
    assert_eq!(entries_of(1, &records), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(entries_of(2, &records), [1, 2, 4, 5, 6, 7, 8]);
    let [damage] = &opened.damages[..] else { panic!("{:?}", opened.damages) };
    assert_eq!((damage.position, damage.group, damage.entry), (position, None, None));
    assert_eq!(damage.fault, Fault::Header);
}

#[test]
fn the_log_is_written_on_behind_the_damage_and_finds_it_again() {
    let disk = log();
    let position = rot_header(&disk, 1, 8);
    for round in 9..30 {
        let (mut wal, opened, records) = go_on(&disk);
        assert_eq!(opened.damages.len(), 1);
        assert_eq!(opened.damages[0].position, position);
        let expected: Vec<u64> = (1..round).filter(|index| *index != 8).collect();
        assert_eq!(entries_of(1, &records), expected);
        wal.append(&[entry(1, round, 5_000)]).unwrap();
        wal.sync().unwrap();
        drop(wal);
        disk.crash(round);
    }
}

#[test]
fn damage_up_to_the_end_of_what_is_confirmed_is_not_taken_for_a_torn_write() {
    let disk = log();
    let (name, at, position) = find(&disk, RecordKind::Entry, 1, 7);
    // All but the mark that follows, which is what confirms them.
    let places = inspect::records(&disk, &name).unwrap();
    let intact = places.filter(|place| matches!(place.status, Status::Intact(_)));
    let mark_at = intact.last().unwrap().at_bytes as usize;
    assert!(disk.rot(&name, at..mark_at, 1) > 10_000);
    for _ in 0..2 {
        let (mut wal, opened, records) = go_on(&disk);
        assert_eq!(opened.cut, None);
        assert_eq!(entries_of(2, &records)[..6], [1, 2, 3, 4, 5, 6]);
        assert_eq!(opened.damages.len(), 1);
        assert_eq!((opened.damages[0].position, opened.damages[0].group), (position, None));
        wal.append(&[entry(2, 9, 10)]).unwrap();
        wal.idle_mark().unwrap();
    }
}

#[test]
fn the_header_of_a_torn_record_proves_what_was_durable_before_it() {
    let disk = MemDisk::new();
    let (mut wal, ..) = go_on(&disk);
    for index in 1..=2 {
        wal.append(&[entry(1, index, 600)]).unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let (name, at, _) = find(&disk, RecordKind::Entry, 1, 1);
    assert!(disk.flip(&name, at + 56 + 600 + 56 + 9, 1), "the data of the second");
    let position = rot_header(&disk, 1, 1);
    let refused = crate::common::try_open(&disk.copy());
    assert!(matches!(refused, Err(WalError::Corrupt(_))), "not taken for a torn write");
    for is_cut in [true, false] {
        let (_, opened, records) = go_on(&disk);
        assert_eq!((opened.cut.is_some(), records), (is_cut, vec![]));
        assert_eq!(opened.damages.len(), 1);
        assert_eq!(opened.damages[0].position, position);
    }
}

#[test]
fn a_torn_end_behind_damage_is_cut_as_ever() {
    let disk = log();
    let (mut wal, ..) = go_on(&disk);
    let end = wal.append(&[entry(1, 9, 400), entry(2, 9, 400)]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (name, ..) = find(&disk, RecordKind::Entry, 1, 8);
    let used = disk.contents(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    assert!(disk.flip(&name, used - 10, 1), "nothing confirms these yet");
    rot_data(&disk, 1, 2);
    let (wal, opened, records) = go_on(&disk);
    assert_eq!(entries_of(2, &records).last(), Some(&8));
    assert_eq!(opened.cut.as_ref().unwrap().records, 1);
    assert!(opened.end < end && opened.damages.len() == 1);
    drop(wal);
    let (_, opened, records) = go_on(&disk);
    assert_eq!((opened.cut, opened.damages.len()), (None, 1));
    assert_eq!(entries_of(2, &records).last(), Some(&8), "what was cut stays so");
}

#[test]
fn state_that_was_lost_comes_from_the_next_segment() {
    let disk = MemDisk::new();
    let (mut wal, ..) = go_on(&disk);
    wal.append(&[hard_state(1, 1), membership(1, "a"), installed(1, 3)]).unwrap();
    wal.append(&[hard_state(1, 2), membership(1, "b"), installed(1, 4)]).unwrap();
    for index in 5..=20 {
        wal.append(&[entry(1, index, 5_000)]).unwrap();
        wal.sync().unwrap();
    }
    wal.idle_mark().unwrap();
    drop(wal);
    let (name, at, position) = find(&disk, RecordKind::Installed, 1, 4);
    // The whole second job: what is repeated at the next segment's head is news.
    let job = at - (56 + 8) - (56 + 8)..at + 56 + 8;
    assert!(disk.rot(&name, job, 1) > 100);
    let (_, opened, handed) = try_go_on(&disk).unwrap();
    let states: Vec<&Record> = handed
        .iter()
        .map(|(_, record)| record)
        .filter(|record| !matches!(record, Record::Entry { .. }))
        .collect();
    let [h1, a, i3] = [hard_state(1, 1), membership(1, "a"), installed(1, 3)];
    let [h2, b] = [hard_state(1, 2), membership(1, "b")];
    // Where in the damage rows were put in place is not known, so nobody is told that they were:
    // what is lost may lie behind it.
    assert_eq!(states, [&h1, &a, &i3, &b, &h2]);
    assert_eq!(opened.damages.len(), 1);
    assert!(opened.damages[0].position <= position && opened.damages[0].group.is_none());
    let last_place = handed.iter().rev().find(|(_, record)| *record == h2).unwrap().0;
    assert!(last_place > position);
}

#[test]
fn nothing_is_released_until_the_doubt_about_each_group_is_on_record() {
    let disk = log();
    rot_header(&disk, 1, 5);
    let (mut wal, ..) = go_on(&disk);
    prepare(&wal);
    for index in 9..=40 {
        wal.append(&[entry(3, index, 5_000)]).unwrap();
    }
    wal.sync().unwrap();
    let all: BTreeMap<_, _> = (1..=3).map(|group| (GroupId(group), Index(u64::MAX))).collect();
    assert_eq!(wal.release(&all, 0), 0, "nobody said yet who is in doubt");
    wal.doubt([GroupId(1), GroupId(2)]);
    assert_eq!(wal.release(&all, 0), 0);
    wal.append(&[hard_state(1, 3), hard_state(3, 3)]).unwrap();
    wal.append(&[installed(2, 50), membership(2, "a"), entry(2, 51, 10)]).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.release(&all, 0), 0, "of one of them nothing is said");
    wal.append(&[hard_state(2, 3)]).unwrap();
    assert_eq!(wal.release(&all, 0), 0, "it could be lost yet");
    wal.sync().unwrap();
    assert!(wal.release(&all, 0) > 0);
    wal.idle_mark().unwrap();
    drop(wal);
    let (mut wal, opened, _) = go_on(&disk);
    assert_eq!(opened.damages, [], "the damage went with its segment");
    for index in 41..=80 {
        wal.append(&[entry(1, index, 5_000)]).unwrap();
    }
    wal.sync().unwrap();
    assert!(wal.release(&all, 0) > 0, "without damage nobody has to be asked");
}

#[test]
fn no_segment_is_kept_for_what_a_group_wrote_before_it_was_in_doubt() {
    let disk = log();
    rot_header(&disk, 1, 5);
    let (mut wal, ..) = go_on(&disk);
    prepare(&wal);
    wal.doubt([GroupId(1)]);
    wal.append(&[hard_state(1, 3)]).unwrap();
    wal.append(&[installed(1, 4), entry(1, 5, 10)]).unwrap();
    assert_eq!(wal.begins()[&GroupId(1)], Index(5), "what it writes from then on counts again");
    for index in 9..=40 {
        wal.append(&[entry(2, index, 5_000)]).unwrap();
    }
    wal.sync().unwrap();
    let mut applied: BTreeMap<_, _> = [(GroupId(2), Index(40))].into();
    let old = wal.segments();
    let released = wal.release(&applied, 0);
    assert!(released > 0 && wal.segments() > 1, "{released} of {old}");
    assert_eq!(wal.begins()[&GroupId(1)], Index(5));
    applied.insert(GroupId(1), Index(5));
    assert!(wal.release(&applied, 0) > 0 && wal.segments() == 1);
    wal.idle_mark().unwrap();
    drop(wal);
    let (_, opened, records) = go_on(&disk);
    assert_eq!((opened.damages, entries_of(1, &records)), (vec![], vec![]));
    assert_eq!(records[..2], [installed(1, 4), membership(1, "a")]);
}

#[test]
fn a_group_is_forgotten_by_its_owners_word() {
    let disk = log();
    let (mut wal, ..) = go_on(&disk);
    prepare(&wal);
    wal.append(&[hard_state(1, 3)]).unwrap();
    for index in 9..=40 {
        wal.append(&[entry(2, index, 5_000)]).unwrap();
    }
    wal.sync().unwrap();
    let applied: BTreeMap<_, _> = [(GroupId(2), Index(40))].into();
    assert_eq!(wal.release(&applied, 0), 0, "nobody doubts it");
    wal.forget(GroupId(1));
    assert_eq!(wal.begins().get(&GroupId(1)), None);
    assert!(wal.release(&applied, 0) > 0 && wal.segments() == 1);
}

#[test]
fn a_segment_is_kept_for_a_damaged_entry_that_is_not_applied() {
    let disk = MemDisk::new();
    let (mut wal, ..) = go_on(&disk);
    wal.append(&[entry(2, 1, 100), entry(1, 1, 100)]).unwrap();
    for index in 2..=20 {
        wal.append(&[entry(2, index, 5_000)]).unwrap();
    }
    wal.idle_mark().unwrap();
    drop(wal);
    rot_data(&disk, 1, 1);
    let (mut wal, opened, records) = go_on(&disk);
    assert_eq!((opened.damages.len(), entries_of(1, &records)), (1, vec![]));
    wal.doubt([]);
    let mut applied: BTreeMap<_, _> = [(GroupId(2), Index(20))].into();
    assert_eq!(wal.release(&applied, 0), 0);
    applied.insert(GroupId(1), Index(1));
    assert!(wal.release(&applied, 0) > 0);
}

/// A log of several segments, and the names of their files in log order.
fn several_segments() -> (MemDisk, Vec<String>) {
    let disk = MemDisk::new();
    let (mut wal, ..) = go_on(&disk);
    prepare(&wal);
    for index in 1..=20 {
        wal.append(&[entry(1, index, 10_000)]).unwrap();
        wal.sync().unwrap();
    }
    wal.idle_mark().unwrap();
    let names = inspect::confirmed(&disk).unwrap().into_iter().map(|(name, _)| name);
    let mut names: Vec<String> = names.collect();
    names.dedup();
    (disk.copy(), names)
}

#[test]
fn a_head_that_is_gone_is_written_again_from_the_records_behind_it() {
    let (disk, names) = several_segments();
    assert!(names.len() > 3, "{names:?}");
    let whole = go_on(&disk.copy()).2;
    for name in &names {
        let disk = disk.copy();
        assert!(disk.rot(name, 0..4_096, 5) > 4_000);
        let (_, opened, records) = go_on(&disk);
        assert_eq!((opened.healed, &opened.damages[..]), (1, &[][..]), "{name}");
        assert_eq!(records, whole, "{name}");
        let (_, opened, records) = go_on(&disk);
        assert_eq!((opened.healed, records == whole), (0, true), "{name}");
    }
}

#[test]
fn where_the_order_of_the_log_is_lost_it_is_refused_all_the_same() {
    let (disk, names) = several_segments();
    for name in &names {
        let gone = disk.copy();
        assert!(gone.lose_file(name));
        match try_go_on(&gone) {
            Err(WalError::Corrupt(found)) => {
                assert_eq!(found.damages[0].fault, Fault::MissingSegment, "{found}");
            }
            other => panic!("{name}: {:?}", other.map(|_| ())),
        }
        let noise = disk.copy();
        noise.rot(name, 0..70_000, 3);
        match try_go_on(&noise) {
            Err(WalError::Corrupt(found)) => {
                assert_eq!(found.damages[0].fault, Fault::MissingSegment, "{found}");
            }
            other => panic!("{name}: {:?}", other.map(|_| ())),
        }
    }
    let names = |disk: &MemDisk| disk.list().unwrap().len();
    let before = names(&disk);
    let copy = disk.copy();
    assert!(copy.lose_file("segment-00000000.wal") && try_go_on(&copy).is_err());
    assert_eq!(names(&copy), before - 1, "nothing was touched");
}

#[test]
fn beyond_the_limit_the_last_place_stands_for_all_that_are_not_named() {
    let disk = MemDisk::new();
    let (mut wal, ..) = go_on(&disk);
    let many = DAMAGES_MAX as u64;
    for index in 1..=2 * many {
        wal.append(&[entry(1, index, 100)]).unwrap();
    }
    wal.idle_mark().unwrap();
    drop(wal);
    let mut position = Position(0);
    for index in 1..=many {
        position = rot_data(&disk, 1, 2 * index - 1);
    }
    let (_, opened, _) = go_on(&disk);
    assert_eq!(opened.damages.len(), DAMAGES_MAX);
    assert!(opened.damages.iter().all(|damage| damage.group == Some(GroupId(1))));
    assert_eq!(opened.damages[DAMAGES_MAX - 1].position, position, "as many as are named");
    for index in [1, 2] {
        position = rot_data(&disk, 1, 2 * many - 2 * (2 - index));
        let (_, opened, records) = go_on(&disk);
        assert_eq!(opened.damages.len(), DAMAGES_MAX);
        assert_eq!(records.len() as u64, many - index);
        let last = &opened.damages[DAMAGES_MAX - 1];
        assert!(last.position >= position && last.group.is_none() && last.entry.is_none());
    }
}
