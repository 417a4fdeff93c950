//! Single turned bits at rest, anywhere: harmless, named, or a reported cut of what was never
//! confirmed on disk. Never a wrong record, never a silent loss.

use std::collections::BTreeMap;

use tl_types::{GroupId, Index};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Disk, Doubt, Fault, Record, WalError};

use crate::common::{entry, hard_state, membership, open, prepare, try_open};

#[derive(Debug, Default)]
struct Seen {
    harmless: usize,
    healed: usize,
    refused: usize,
    refused_with_group: usize,
    cut: usize,
}

/// A log with recycled segments, unused spares and a last job that no mark confirms.
fn log(seed: u64) -> MemDisk {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    wal.append(&[hard_state(1, 1), membership(1, "a"), hard_state(2, 1)]).unwrap();
    for index in 1..=60 {
        if index % 10 == 0 {
            prepare(&wal);
            let applied = Index(index - 9);
            let applied: BTreeMap<_, _> = (1..=2).map(|g| (GroupId(g), applied)).collect();
            wal.release(&applied, 0);
        }
        let job: Vec<Record> =
            (1..=2).map(|group| entry(group, index, rng.usize(..6_000))).collect();
        wal.append(&job).unwrap();
        wal.sync().unwrap();
    }
    wal.append(&[entry(1, 61, 1_000), entry(2, 61, 10)]).unwrap();
    wal.sync().unwrap();
    disk.copy()
}

/// Turns one bit and judges what opening makes of it.
fn flip(disk: &MemDisk, name: &str, byte: usize, bit: u8, whole: &[Record], seen: &mut Seen) {
    let hurt = disk.copy();
    assert!(hurt.flip(name, byte, bit));
    let place = format!("{name} byte {byte} bit {bit}");
    match try_open(&hurt) {
        Ok((wal, opened, back)) => {
            match &opened.cut {
                Some(cut) => {
                    assert!(back == whole || back == whole[..whole.len() - 2], "{place}");
                    assert_eq!(cut.segment, name, "{place}");
                    seen.cut += 1;
                }
                None => {
                    assert_eq!(back, whole, "{place}");
                    seen.harmless += 1;
                    seen.healed += opened.healed;
                }
            }
            // What opening repaired or cut stays so.
            drop(wal);
            hurt.crash(byte as u64);
            let (_, opened, again) = open(&hurt);
            assert_eq!((opened.cut, opened.healed), (None, 0), "{place}");
            assert_eq!(again, back, "{place}");
        }
        Err(WalError::Corrupt(found)) => {
            let damage = &found.damages[0];
            assert_eq!(damage.segment, name, "{place}: {found}");
            assert!(damage.at_bytes <= byte as u64, "{place}: {found}");
            match damage.fault {
                Fault::Data => {
                    let groups = [damage.group.unwrap()].into();
                    assert_eq!(found.doubt, Doubt::Groups(groups), "{place}");
                    seen.refused_with_group += 1;
                }
                _ => assert_eq!(found.doubt, Doubt::All, "{place}"),
            }
            seen.refused += 1;
        }
        Err(other) => panic!("{place}: {other}"),
    }
}

#[test]
fn a_turned_bit_is_harmless_or_named_or_cuts_only_the_unconfirmed_end() {
    let mut seen = Seen::default();
    let mut rng = fastrand::Rng::with_seed(7);
    for seed in 0..4 {
        let disk = log(seed);
        let (_, _, whole) = open(&disk.copy());
        assert_eq!(whole.last(), Some(&entry(2, 61, 10)));
        let files = disk.list().unwrap();
        assert!(files.len() >= 3);
        for _ in 0..250 {
            let file = &files[rng.usize(..files.len())];
            let byte = rng.usize(..file.bytes as usize);
            flip(&disk, &file.name, byte, rng.u8(..8), &whole, &mut seen);
        }
        // The head area and the last job are small, so they get flips of their own.
        let last = {
            let copy = disk.copy();
            let (wal, opened, _) = open(&copy);
            let name =
                files.iter().find(|file| disk.contents(&file.name) != copy.contents(&file.name));
            let first_of_last_job = 1_056 + 56 + 16;
            let _ = wal;
            (name.unwrap().name.clone(), opened.end, first_of_last_job)
        };
        let (name, _, job_bytes) = last;
        let end = end_of_log(&disk, &name);
        for _ in 0..60 {
            let byte = end - rng.usize(1..=job_bytes);
            let before = seen.cut;
            flip(&disk, &name, byte, rng.u8(..8), &whole, &mut seen);
            assert_eq!(seen.cut, before + 1, "nothing confirms the last job");
        }
        for file in &files {
            for byte in (0..64).chain(2048..2112) {
                flip(&disk, &file.name, byte, rng.u8(..8), &whole, &mut seen);
            }
        }
    }
    assert!(seen.harmless > 300, "{seen:?}");
    assert!(seen.healed > 300, "{seen:?}");
    assert!(seen.refused > 200, "{seen:?}");
    assert!(seen.refused_with_group > 200, "{seen:?}");
    assert!(seen.refused > seen.refused_with_group, "{seen:?}");
    assert!(seen.cut >= 240, "{seen:?}");
}

/// Where the mark that opening writes goes, which is right behind the last job.
fn end_of_log(disk: &MemDisk, name: &str) -> usize {
    let copy = disk.copy();
    drop(open(&copy));
    let (before, after) = (disk.contents(name).unwrap(), copy.contents(name).unwrap());
    let differs = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
    differs / 8 * 8
}

#[test]
fn once_confirmed_by_a_mark_the_last_job_is_never_cut() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    wal.append(&[entry(1, 1, 500)]).unwrap();
    wal.idle_mark().unwrap();
    drop(wal);
    let name = disk.list().unwrap()[0].name.clone();
    let start = 4096 + 56;
    for byte in start..start + 56 + 504 {
        let hurt = disk.copy();
        hurt.flip(&name, byte, (byte % 8) as u8);
        match try_open(&hurt) {
            Err(WalError::Corrupt(found)) => {
                assert_eq!(found.damages[0].at_bytes, start as u64, "{found}");
                let data = byte >= start + 56;
                // The header holds the data's checksum, so it is intact or nobody's.
                assert_eq!(found.damages[0].group, data.then_some(GroupId(1)), "{found}");
            }
            other => panic!("byte {byte}: {:?}", other.map(|_| ())),
        }
    }
}
