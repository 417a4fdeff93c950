use std::collections::BTreeMap;

use tl_types::{GroupId, Index};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Record, Wal};

use crate::common::{entry, hard_state, installed, membership, open, prepare};

fn fill(wal: &mut Wal, group: u16, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        wal.append(&[entry(group, index, 10_000)]).unwrap();
        wal.sync().unwrap();
    }
}

#[test]
fn every_kind_of_record_comes_back_in_order() {
    let disk = MemDisk::new();
    let records = vec![
        hard_state(3, 1),
        membership(3, "a b c"),
        entry(3, 1, 0),
        entry(3, 2, 1),
        entry(9, 1, 16 * 1024),
        installed(9, 40),
        entry(9, 41, 77),
        hard_state(3, 2),
    ];
    let (mut wal, opened, none) = open(&disk);
    assert!(opened.fresh);
    assert_eq!(none, []);
    wal.append(&records[..5]).unwrap();
    let end = wal.append(&records[5..]).unwrap();
    assert!(wal.durable() < end);
    assert_eq!(wal.sync().unwrap(), end);
    drop(wal);
    for _ in 0..3 {
        let (_, opened, back) = open(&disk);
        assert_eq!(back, records);
        assert_eq!((opened.fresh, opened.cut, opened.healed), (false, None, 0));
    }
}

#[test]
fn records_run_on_over_many_segments() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    let records: Vec<Record> = (1..=100).map(|index| entry(1, index, 5_000)).collect();
    for pair in records.chunks(2) {
        wal.append(pair).unwrap();
        wal.sync().unwrap();
    }
    assert!(wal.segments() > 7, "{}", wal.segments());
    drop(wal);
    assert_eq!(open(&disk).2, records);
}

#[test]
fn a_job_larger_than_a_segment_comes_back_whole() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    let records: Vec<Record> = (1..=30).map(|index| entry(1, index, 9_000)).collect();
    wal.append(&records).unwrap();
    wal.sync().unwrap();
    assert!(wal.segments() > 4);
    drop(wal);
    assert_eq!(open(&disk).2, records);
}

#[test]
fn released_segments_are_used_again_and_their_old_bytes_never_come_back() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    wal.append(&[hard_state(1, 4), membership(1, "x"), installed(1, 0)]).unwrap();
    let mut kept = 1;
    for round in 0..30_u64 {
        fill(&mut wal, 1, round * 8 + 1..=round * 8 + 8);
        let applied = BTreeMap::from([(GroupId(1), Index(round * 8 + 2))]);
        wal.release(&applied, 0);
        wal.idle_mark().unwrap();
        let held = wal.segments();
        drop(wal);
        let (again, opened, back) = open(&disk);
        assert_eq!((opened.segments, opened.cut), (held, None));
        let state = [installed(1, 0), membership(1, "x"), hard_state(1, 4)];
        if round > 1 {
            assert_eq!(back[..3], state, "state stands at the head of what is left");
        }
        let indexes: Vec<u64> = back
            .iter()
            .filter_map(|record| match record {
                Record::Entry { index, .. } => Some(index.0),
                _ => None,
            })
            .collect();
        kept = indexes[0];
        assert!(kept <= round * 8 + 3, "nothing unapplied was released");
        assert!(indexes.iter().copied().eq(kept..=round * 8 + 8));
        wal = again;
    }
    assert!(kept > 200, "old entries went");
    let files = tl_wal::Disk::list(&disk).unwrap().len();
    assert!(files < 10, "files were used again: {files}");
}

#[test]
fn the_byte_budget_for_slow_followers_is_kept() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    fill(&mut wal, 1, 1..=60);
    let applied = BTreeMap::from([(GroupId(1), Index(u64::MAX))]);
    wal.release(&applied, 200_000);
    let held = wal.end().0 - wal.first().0;
    assert!((200_000..300_000).contains(&held), "{held}");
    assert_eq!(wal.release(&applied, 200_000), 0);
    assert_eq!(wal.release(&BTreeMap::new(), 0), 0, "a group that is not named is kept");
}

#[test]
fn a_prepared_segment_saves_the_owner_the_work() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    assert_eq!((wal.spares_missing(), wal.spares_ready()), (2, 0));
    prepare(&wal);
    assert_eq!((wal.spares_missing(), wal.spares_ready()), (0, 2));
    assert!(!wal.preparer().needed());
    fill(&mut wal, 1, 1..=18);
    assert_eq!((wal.counts().rotations, wal.counts().inline_preparations), (2, 0));
    fill(&mut wal, 1, 19..=20);
    assert!(wal.counts().inline_preparations > 0);
    drop(wal);
    assert_eq!(open(&disk).2.len(), 20);
}

#[test]
fn an_idle_log_confirms_its_last_records_once() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    assert!(!wal.wants_idle_mark());
    wal.append(&[entry(1, 1, 10)]).unwrap();
    assert!(wal.wants_idle_mark());
    let durable = wal.idle_mark().unwrap();
    assert!(!wal.wants_idle_mark());
    assert_eq!(wal.idle_mark().unwrap(), durable, "a mark needs no mark");
    assert_eq!(wal.counts().marks, 1);
}

#[test]
fn counters_count_jobs_records_and_syncs() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    let before = wal.counts();
    wal.append(&[entry(1, 1, 100), entry(1, 2, 100)]).unwrap();
    wal.sync().unwrap();
    wal.sync().unwrap();
    let after = wal.counters().read();
    assert_eq!((after.jobs - before.jobs, after.records - before.records), (1, 2));
    assert_eq!(after.syncs - before.syncs, 1, "nothing new needs no sync");
    assert_eq!(after.written_bytes - before.written_bytes, 2 * (56 + 104) + 56);
}
