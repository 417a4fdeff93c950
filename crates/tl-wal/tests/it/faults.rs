use std::io;

use tl_types::NodeId;
use tl_wal::memdisk::MemDisk;
use tl_wal::{Disk, Fault, Wal, WalError, WalOptions};

use crate::common::{entry, hard_state, membership, open, options, prepare, try_open};

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    wal.append(&[entry(1, 1, 10)]).unwrap();
    disk.fail_sync(0);
    assert!(matches!(wal.sync(), Err(WalError::Failed { deed: "sync", .. })));
    assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
    assert!(matches!(wal.append(&[entry(1, 2, 10)]), Err(WalError::Poisoned)));
    assert!(matches!(wal.idle_mark(), Err(WalError::Poisoned)));
    assert_eq!(disk.counts().sync_errors, 1);
}

#[test]
fn every_sync_of_a_rotation_may_fail_and_nothing_confirmed_is_lost() {
    for failing in 0..12 {
        let disk = MemDisk::new();
        let (mut wal, _, _) = open(&disk);
        let mut confirmed = 0;
        disk.fail_sync(5 + failing);
        for index in 1..=20 {
            if wal.append(&[entry(1, index, 10_000)]).and_then(|_| wal.sync()).is_err() {
                break;
            }
            confirmed = index;
        }
        assert!(confirmed < 20, "the error came");
        drop(wal);
        disk.crash(failing);
        let (_, _, back) = open(&disk);
        assert!(back.len() as u64 >= confirmed, "{} < {confirmed}", back.len());
    }
}

#[test]
fn a_full_disk_refuses_the_next_segment_and_the_log_goes_on_once_there_is_room() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    disk.set_free_bytes(Some(30_000));
    let mut index = 0;
    let source = loop {
        match wal.append(&[entry(1, index + 1, 10_000)]) {
            Ok(_) => index += 1,
            Err(WalError::Full { source }) => break source,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(wal.preparer().work(&mut |_| {}), Err(WalError::Full { .. })));
    assert!(index > 0);
    disk.set_free_bytes(None);
    wal.append(&[entry(1, index + 1, 10_000)]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert_eq!(open(&disk).2.len() as u64, index + 1);
}

#[test]
fn short_writes_are_finished() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    disk.set_short_writes(true);
    wal.append(&[entry(1, 1, 9_000)]).unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert_eq!(open(&disk).2, [entry(1, 1, 9_000)]);
    assert!(disk.counts().short_writes > 0);
}

#[test]
fn too_large_records_are_refused_and_nothing_is_written() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    let end = wal.end();
    let refused = wal.append(&[entry(1, 1, 10), entry(1, 2, 16 * 1024 + 1)]);
    assert!(matches!(refused, Err(WalError::TooLarge { bytes: 16_385, limit_bytes: 16_384 })));
    let long: &'static str = Box::leak("x".repeat(4_097).into_boxed_str());
    assert!(matches!(wal.append(&[membership(1, long)]), Err(WalError::TooLarge { .. })));
    assert_eq!(wal.end(), end);
    // The state of all groups must fit a segment; more groups than that are refused too.
    let states: Vec<_> = (0..1_000).map(|group| hard_state(group, 1)).collect();
    assert!(matches!(wal.append(&states), Err(WalError::TooLarge { .. })));
    wal.append(&states[..300]).unwrap();
}

#[test]
fn options_that_cannot_work_are_refused_by_name() {
    let refused = |options: WalOptions| match Wal::open(
        std::sync::Arc::new(MemDisk::new()),
        options,
        &mut |_, _| {},
    ) {
        Err(WalError::Option { name, .. }) => name,
        _ => "nothing",
    };
    let default = WalOptions::default;
    assert_eq!(refused(WalOptions { segment_bytes: 1, ..default() }), "segment_bytes");
    assert_eq!(refused(WalOptions { segment_bytes: 1 << 40, ..default() }), "segment_bytes");
    assert_eq!(refused(WalOptions { segment_bytes: 16 << 20, ..default() }), "entry_bytes_max");
    assert_eq!(refused(WalOptions { spares: 0, ..default() }), "spares");
    assert_eq!(refused(default()), "nothing");
}

#[test]
fn a_second_owner_is_refused() {
    let disk = MemDisk::new();
    let (wal, _, _) = open(&disk);
    assert!(matches!(try_open(&disk), Err(WalError::Locked { .. })));
    drop(wal);
    open(&disk);
}

#[test]
fn a_log_of_another_node_is_refused() {
    let disk = MemDisk::new();
    drop(open(&disk));
    let other = WalOptions { owner: NodeId([7; 16]), ..options() };
    let refused = Wal::open(std::sync::Arc::new(disk), other, &mut |_, _| {});
    assert!(matches!(refused, Err(WalError::Foreign { .. })));
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let disk = MemDisk::new();
    drop(open(&disk));
    let name = disk.list().unwrap()[0].name.clone();
    let mut bytes = disk.contents(&name).unwrap();
    for copy in [0, 2048] {
        bytes[copy + 11] = 9;
        let crc = crc32fast::hash(&bytes[copy..copy + 60]);
        bytes[copy + 60..copy + 64].copy_from_slice(&crc.to_be_bytes());
    }
    disk.set_contents(&name, bytes);
    match try_open(&disk) {
        Err(WalError::Unsupported { value: 9, segment, .. }) => assert_eq!(segment, name),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// A log of several segments, and the names of their files in log order.
fn several_segments() -> (MemDisk, Vec<String>) {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    prepare(&wal);
    for index in 1..=20 {
        wal.append(&[entry(1, index, 10_000)]).unwrap();
        wal.sync().unwrap();
    }
    let names = disk.list().unwrap().into_iter().map(|file| file.name).collect();
    (disk.copy(), names)
}

#[test]
fn any_missing_segment_is_named() {
    let (disk, names) = several_segments();
    assert_eq!(names.len(), 4);
    for name in names {
        let disk = disk.copy();
        assert!(disk.lose_file(&name));
        match try_open(&disk) {
            Err(WalError::Corrupt(found)) => {
                assert_eq!(found.damages[0].fault, Fault::MissingSegment, "{found}");
            }
            other => panic!("{name}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn a_last_segment_lost_after_a_crash_is_missed() {
    for seed in 0..40 {
        let disk = MemDisk::new();
        let (mut wal, _, _) = open(&disk);
        let mut index = 1;
        while wal.segments() < 3 {
            wal.append(&[entry(1, index, 10_000)]).unwrap();
            index += 1;
        }
        wal.sync().unwrap();
        disk.crash(seed);
        let names = disk.list().unwrap();
        assert!(disk.lose_file(&names.last().unwrap().name));
        match try_open(&disk) {
            Err(WalError::Corrupt(found)) => {
                assert_eq!(found.damages[0].fault, Fault::MissingSegment, "{found}");
            }
            other => panic!("seed {seed}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn a_segment_without_any_readable_head_is_named() {
    let (disk, names) = several_segments();
    for name in names {
        let disk = disk.copy();
        assert!(disk.flip(&name, 3, 1) && disk.flip(&name, 2050, 1));
        match try_open(&disk) {
            Err(WalError::Corrupt(found)) => {
                let damage = &found.damages[0];
                assert_eq!((&damage.segment, damage.fault), (&name, Fault::SegmentHeader));
            }
            other => panic!("{name}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn garbage_in_place_of_a_log_never_panics() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..50 {
        let disk = MemDisk::new();
        let bytes: Vec<u8> = (0..rng.usize(..10_000)).map(|_| rng.u8(..)).collect();
        disk.set_contents("segment-00000000.wal", bytes);
        disk.set_contents("notes.txt", vec![1]);
        assert!(open(&disk).1.fresh, "no record was lost, so a new log begins");
        assert!(disk.contents("notes.txt").is_some(), "other files are left alone");
    }
}
