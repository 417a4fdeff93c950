#![allow(clippy::unwrap_used)]

use crate::memdisk::MemDisk;
use crate::options::WalOptions;
use crate::record::Record;
use crate::wal::Wal;

use super::*;

const GROUP: GroupId = GroupId(3);
const OTHER: GroupId = GroupId(4);
const SEGMENT_BYTES: u64 = 64 * 1024;
const DATA_BYTES: usize = 1_000;

fn open(disk: &MemDisk) -> Wal {
    let options = WalOptions {
        segment_bytes: SEGMENT_BYTES,
        entry_bytes_max: 16 * 1024,
        ..WalOptions::default()
    };
    Wal::open(Arc::new(disk.clone()), options, &mut |_, _| {}).unwrap().0
}

fn data(group: GroupId, index: u64, term: u64) -> Bytes {
    let byte = (group.0 as u8) ^ (index as u8) ^ (term as u8).rotate_left(4);
    vec![byte; DATA_BYTES].into()
}

fn entry(group: GroupId, index: u64, term: u64) -> Record {
    let data = data(group, index, term);
    Record::Entry { group, term: Term(term), index: Index(index), data }
}

fn append(wal: &mut Wal, records: &[Record]) {
    wal.append(records).unwrap();
    wal.sync().unwrap();
}

/// Both groups in turn.
fn write(wal: &mut Wal, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    for index in indexes {
        append(wal, &[entry(GROUP, index, term), entry(OTHER, index, term)]);
    }
}

fn want(group: GroupId, from: u64, upto: u64, terms: &[(u64, u64)]) -> Want {
    let terms = terms.iter().map(|(index, term)| (Index(*index), Term(*term))).collect();
    Want { group, from: Index(from), upto: Index(upto), terms, bytes_max: usize::MAX }
}

fn read(reader: &mut Reader, wal: &Wal, wants: &[Want]) -> Vec<ReadBack> {
    reader.read(wal.segments_with(wants), wants)
}

fn expected(group: GroupId, all: impl IntoIterator<Item = (u64, u64)>) -> Vec<(Term, Bytes)> {
    all.into_iter().map(|(index, term)| (Term(term), data(group, index, term))).collect()
}

#[test]
fn entries_of_several_groups_come_back_from_full_segments_and_the_last_one() {
    let disk = MemDisk::new();
    let mut wal = open(&disk);
    write(&mut wal, 1..=200, 1);
    assert!(wal.segments() > 4);
    let check = |wal: &Wal| {
        let wants = [want(GROUP, 1, 200, &[(1, 1)]), want(OTHER, 50, 120, &[(1, 1)])];
        let found = read(&mut Reader::default(), wal, &wants);
        assert_eq!(found[0].entries, expected(GROUP, (1..=200).map(|index| (index, 1))));
        assert_eq!(found[1].entries, expected(OTHER, (50..=120).map(|index| (index, 1))));
        assert!(found.iter().all(|found| found.trouble.is_none()));
    };
    check(&wal);
    drop(wal);
    check(&open(&disk));
}

#[test]
fn a_copy_that_was_overwritten_is_never_given() {
    let mut wal = open(&MemDisk::new());
    write(&mut wal, 1..=40, 1);
    // Twice, once within a segment; the last one took.
    write(&mut wal, 31..=60, 2);
    write(&mut wal, 58..=60, 4);
    write(&mut wal, 20..=80, 5);
    let terms = [(1, 1), (20, 5)];
    let found = read(&mut Reader::default(), &wal, &[want(GROUP, 1, 80, &terms)]);
    let committed = (1..=80).map(|index| (index, if index < 20 { 1 } else { 5 }));
    assert_eq!(found[0].entries, expected(GROUP, committed));
    // Who knows of another history finds what both have, and no mixture.
    let found = read(&mut Reader::default(), &wal, &[want(GROUP, 1, 80, &[(1, 1), (31, 2)])]);
    assert_eq!(found[0].entries, expected(GROUP, (1..=19).map(|index| (index, 1))));
    let found = read(&mut Reader::default(), &wal, &[want(GROUP, 1, 80, &[(1, 9)])]);
    assert_eq!(found[0].entries, []);
}

#[test]
fn a_reading_ends_at_its_bytes_and_the_next_goes_on_where_it_ended() {
    let mut wal = open(&MemDisk::new());
    write(&mut wal, 1..=150, 1);
    let (mut reader, mut next, mut all, mut rounds) = (Reader::default(), 1, Vec::new(), 0);
    while next <= 150 {
        let bytes_max = 10 * DATA_BYTES;
        let want = Want { bytes_max, ..want(GROUP, next, 150, &[(1, 1)]) };
        let before = reader.places.get(&(GROUP, Index(next))).copied();
        assert_eq!(before.is_some(), next > 1, "the place is remembered");
        let found = read(&mut reader, &wal, &[want]).remove(0);
        next += found.entries.len() as u64;
        all.extend(found.entries);
        rounds += 1;
    }
    assert_eq!((rounds, all), (15, expected(GROUP, (1..=150).map(|index| (index, 1)))));
    let one = Want { bytes_max: 1, ..want(GROUP, 7, 150, &[(1, 1)]) };
    assert_eq!(read(&mut reader, &wal, &[one])[0].entries, expected(GROUP, [(7, 1)]), "one goes");
    for group in 0..2 * PLACES_MAX as u64 {
        reader.places.insert((GROUP, Index(1_000 + group)), (1, 1));
    }
    read(&mut reader, &wal, &[want(GROUP, 1, 2, &[(1, 1)])]);
    assert_eq!(reader.places.len(), 1, "places are bounded");
}

#[test]
fn damage_ends_a_reading_with_what_was_before_it() {
    let disk = MemDisk::new();
    let mut wal = open(&disk);
    write(&mut wal, 1..=100, 1);
    let segments = wal.segments_with(&[want(GROUP, 40, 41, &[(1, 1)])]).0;
    let name = segments[0].name.clone();
    drop(segments);
    let bytes = disk.contents(&name).unwrap();
    let is_40 = |at: &usize| {
        let head = RecordHead::read(&bytes[*at..]);
        head.is_some_and(|head| (head.group, head.index) == (GROUP, Index(40)))
    };
    let at = (HEAD_BYTES..bytes.len() - 64).step_by(8).find(is_40).unwrap();
    for (byte, what) in [(at + 60, "record data"), (at + 20, "record header")] {
        assert!(disk.flip(&name, byte, 3));
        let wants = [want(GROUP, 1, 100, &[(1, 1)]), want(GROUP, 40, 100, &[(1, 1)])];
        let found = read(&mut Reader::default(), &wal, &wants);
        assert_eq!(found[0].entries, expected(GROUP, (1..=39).map(|index| (index, 1))));
        assert_eq!(found[1].entries, []);
        for found in found {
            let trouble = found.trouble.unwrap();
            assert!(trouble.contains(what) && trouble.contains(&name), "{trouble}");
        }
        // Only the group whose data it is, where the header still says how far it goes.
        let other = read(&mut Reader::default(), &wal, &[want(OTHER, 1, 100, &[(1, 1)])]);
        assert_eq!(other[0].entries.len() == 100, what == "record data");
        assert!(disk.flip(&name, byte, 3));
    }
    disk.kill();
    let found = read(&mut Reader::default(), &wal, &[want(GROUP, 1, 100, &[(1, 1)])]);
    assert_eq!(found[0].entries, []);
    assert!(found[0].trouble.as_ref().unwrap().contains("could not be read"));
}

#[test]
fn a_segment_that_is_being_read_is_not_used_again() {
    let mut wal = open(&MemDisk::new());
    write(&mut wal, 1..=200, 1);
    while wal.preparer().remove_one().unwrap() {}
    let wants = [want(GROUP, 1, 20, &[(1, 1)])];
    let held = wal.segments_with(&wants);
    let all: BTreeMap<GroupId, Index> = [(GROUP, Index(200)), (OTHER, Index(200))].into();
    let (ready, segments) = (wal.spares_ready(), wal.segments());
    assert_eq!(wal.begins()[&GROUP], Index(1));
    let released = wal.release(&all, 0);
    assert_eq!(released, segments - 1);
    assert!(wal.begins()[&GROUP] > Index(100), "{:?}", wal.begins());
    wal.idle_mark().unwrap();
    let kept = held.0.len();
    assert_eq!(wal.retiring.len(), kept, "those that are held wait");
    assert!(wal.spares_ready() > ready);
    write(&mut wal, 201..=260, 1);
    assert_eq!(wal.retiring.len(), kept);
    let found = Reader::default().read(held, &wants);
    assert_eq!(found[0].entries, expected(GROUP, (1..=20).map(|index| (index, 1))));
    wal.sync().unwrap();
    assert_eq!(wal.retiring.len(), 0);
    // Nobody finds them any more.
    assert_eq!(read(&mut Reader::default(), &wal, &wants)[0].entries, []);
}
