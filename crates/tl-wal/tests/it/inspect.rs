use tl_types::{GroupId, Index, Term};
use tl_wal::inspect::{HeadInfo, RecordKind, Status, records, segments};
use tl_wal::memdisk::MemDisk;

use crate::common::{entry, hard_state, open, prepare};

fn log() -> MemDisk {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    prepare(&wal);
    wal.append(&[hard_state(4, 2), entry(4, 1, 100)]).unwrap();
    wal.idle_mark().unwrap();
    for index in 2..=8 {
        wal.append(&[entry(4, index, 10_000)]).unwrap();
        wal.sync().unwrap();
    }
    disk
}

#[test]
fn an_open_log_can_be_looked_into() {
    let disk = log();
    let segments = segments(&disk).unwrap();
    assert_eq!(segments.len(), 3);
    assert!(matches!(segments[0].head, HeadInfo::Used { life: 1, whole: true, .. }));
    assert!(matches!(segments[1].head, HeadInfo::Used { life: 2, .. }));
    assert_eq!(segments[2].head, HeadInfo::Spare);
    assert_eq!(records(&disk, &segments[2].name).unwrap().count(), 0);

    let first: Vec<_> = records(&disk, &segments[0].name).unwrap().collect();
    let kinds: Vec<_> = first
        .iter()
        .filter_map(|info| match &info.status {
            Status::Intact(facts) => facts.kind,
            _ => None,
        })
        .collect();
    use RecordKind::{Entry, HardState, Mark, Next};
    assert_eq!(
        kinds,
        [Mark, HardState, Entry, Mark, Entry, Entry, Entry, Entry, Entry, Entry, Next]
    );
    let Status::Intact(entry) = &first[2].status else { panic!("{:?}", first[2]) };
    let facts = (entry.group, entry.term, entry.index, entry.data_bytes, entry.repeated);
    assert_eq!(facts, (GroupId(4), Term(1), Index(1), 100, false));
    let Status::Intact(mark) = &first[3].status else { panic!("{:?}", first[3]) };
    assert_eq!(mark.mark, first[3].position, "all before the mark was durable");

    let second: Vec<_> = records(&disk, &segments[1].name).unwrap().collect();
    let Status::Intact(state) = &second[1].status else { panic!("{:?}", second[1]) };
    assert_eq!((state.kind, state.repeated), (Some(HardState), true));
    assert_eq!(second.last().unwrap().status, Status::End { zeros: true });
}

#[test]
fn a_file_that_is_being_made_is_told_from_a_damaged_one() {
    let disk = log();
    let head = |bytes: Vec<u8>| {
        disk.set_contents("segment-00000099.wal", bytes);
        let found = segments(&disk).unwrap();
        assert_eq!(records(&disk, "segment-00000099.wal").unwrap().count(), 0);
        found.into_iter().find(|info| info.name == "segment-00000099.wal").unwrap().head
    };
    for bytes in [0, 1, 64, 4_096, 20_000] {
        assert_eq!(head(vec![0; bytes]), HeadInfo::Unfinished, "{bytes} bytes");
        let mut other = vec![0; bytes];
        if let Some(last) = other.last_mut() {
            *last = 1;
            assert_eq!(head(other), HeadInfo::Unreadable { latest_life: None }, "{bytes} bytes");
        }
    }
}

#[test]
fn damage_is_shown_where_it_is_and_never_panics() {
    let whole = log();
    let name = segments(&whole).unwrap()[0].name.clone();
    let places = records(&whole, &name).unwrap().count();
    let header = whole.copy();
    header.flip(&name, 4096 + 56 + 64 + 20, 1);
    let shown: Vec<_> = records(&header, &name).unwrap().collect();
    assert_eq!(shown[2].status, Status::Unreadable { bytes: 56 + 104 });
    assert_eq!(shown.len(), places);
    let data = whole.copy();
    data.flip(&name, 4096 + 56 + 64 + 60, 1);
    let shown: Vec<_> = records(&data, &name).unwrap().collect();
    assert!(matches!(&shown[2].status, Status::DamagedData(facts) if facts.group == GroupId(4)));

    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let mut bytes = whole.contents(&name).unwrap();
        for _ in 0..rng.usize(..200) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        bytes.truncate(rng.usize(..=bytes.len()));
        let hurt = MemDisk::new();
        hurt.set_contents(&name, bytes);
        for segment in segments(&hurt).unwrap() {
            let seen = records(&hurt, &segment.name).unwrap().count();
            assert!(seen < 10_000);
        }
    }
}
