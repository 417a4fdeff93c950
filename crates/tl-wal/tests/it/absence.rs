//! No segment at all: a beginning or a loss?

use std::sync::Arc;

use tl_wal::memdisk::MemDisk;
use tl_wal::{Disk, Opened, Wal, WalError, WalOptions};

use crate::common::{entry, open, options, prepare, try_open};

/// Opens as an owner does who remembers an earlier opening.
fn open_again(disk: &MemDisk) -> Result<Opened, WalError> {
    let options = WalOptions { must_exist: true, ..options() };
    Wal::open(Arc::new(disk.clone()), options, &mut |_, _| {}).map(|(_, opened)| opened)
}

fn names(disk: &MemDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().map(|file| file.name).collect()
}

#[test]
fn spare_files_without_a_segment_are_a_loss() {
    let disk = MemDisk::new();
    let (mut wal, _, _) = open(&disk);
    prepare(&wal);
    wal.append(&[entry(1, 1, 10)]).unwrap();
    wal.idle_mark().unwrap();
    let (disk, before) = (disk.copy(), names(&disk));
    assert!(disk.lose_file(&before[0]));
    for _ in 0..2 {
        assert!(matches!(try_open(&disk), Err(WalError::Gone { .. })));
        assert_eq!(names(&disk), before[1..], "nothing was touched");
    }
}

#[test]
fn an_owner_who_remembers_a_log_is_not_given_a_new_one() {
    let disk = MemDisk::new();
    assert!(matches!(open_again(&disk), Err(WalError::Gone { .. })));
    disk.set_contents("segment-00000000.wal", vec![0; 10_000]);
    assert!(matches!(open_again(&disk), Err(WalError::Gone { .. })));
    assert_eq!(names(&disk).len(), 1, "nothing was touched");
    assert!(open(&disk).1.fresh);
    assert!(!open_again(&disk).unwrap().fresh);
}

#[test]
fn a_first_start_may_be_cut_anywhere_and_repeated() {
    let (mut cut_opening, mut cut_preparing) = (0, 0);
    for (syncs, seed) in (0..20).flat_map(|syncs| (0..30).map(move |seed| (syncs, seed))) {
        let disk = MemDisk::new();
        disk.fail_sync(syncs);
        let first = try_open(&disk);
        let opened = first.is_ok();
        if let Ok((wal, _, _)) = first {
            let preparer = wal.preparer();
            while let Ok(true) = preparer.work(&mut |_| {}) {}
            cut_preparing += disk.counts().sync_errors;
        } else {
            cut_opening += 1;
        }
        disk.crash(seed);
        if opened {
            assert!(!open_again(&disk).unwrap().fresh, "{syncs} syncs, seed {seed}");
        } else {
            open(&disk);
        }
    }
    assert!(cut_opening > 100 && cut_preparing > 100, "{cut_opening}, {cut_preparing}");
}
