use std::sync::Arc;

use tl_wal::{Record, StdDisk, Wal, WalError};

use crate::common::{entry, options};

fn open(dir: &std::path::Path) -> Result<(Wal, Vec<Record>), WalError> {
    let mut back = Vec::new();
    let disk = Arc::new(StdDisk::create(dir).unwrap());
    let (wal, _) = Wal::open(disk, options(), &mut |_, record| back.push(record))?;
    Ok((wal, back))
}

#[test]
fn a_log_on_a_real_disk_comes_back_and_has_one_owner() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("node").join("wal");
    let mut written = Vec::new();
    for round in 0..3_u64 {
        let (mut wal, back) = open(&dir).unwrap();
        assert_eq!(back, written);
        match open(&dir) {
            Err(WalError::Locked { place }) => assert!(place.ends_with("wal"), "{place}"),
            other => panic!("{:?}", other.map(|_| ())),
        }
        for index in round * 10 + 1..=round * 10 + 10 {
            let record = entry(2, index, 9_000);
            wal.append(std::slice::from_ref(&record)).unwrap();
            assert_eq!(wal.sync().unwrap(), wal.end());
            written.push(record);
        }
        let preparer = wal.preparer();
        let thread = std::thread::spawn(move || while preparer.work(&mut |_| {}).unwrap() {});
        thread.join().unwrap();
        assert!(wal.spares_ready() > 0);
    }
    assert_eq!(open(&dir).unwrap().1, written);
}
