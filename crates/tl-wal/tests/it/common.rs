//! Short ways to say what a test does.

use std::sync::Arc;

use bytes::Bytes;
use tl_types::{Generation, GroupId, Index, Term};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Opened, Record, Wal, WalError, WalOptions};

pub const SMALL: u64 = 64 * 1024;

pub fn options() -> WalOptions {
    WalOptions { segment_bytes: SMALL, entry_bytes_max: 16 * 1024, ..WalOptions::default() }
}

pub fn try_open(disk: &MemDisk) -> Result<(Wal, Opened, Vec<Record>), WalError> {
    let mut records = Vec::new();
    let mut last = None;
    let (wal, opened) = Wal::open(Arc::new(disk.clone()), options(), &mut |position, record| {
        assert!(last < Some(position), "positions rise");
        last = Some(position);
        records.push(record);
    })?;
    assert_eq!(opened.records, records.len() as u64);
    Ok((wal, opened, records))
}

pub fn open(disk: &MemDisk) -> (Wal, Opened, Vec<Record>) {
    try_open(disk).unwrap()
}

pub fn entry(group: u16, index: u64, bytes: usize) -> Record {
    let data = vec![(index as u8) ^ (group as u8); bytes];
    Record::Entry { group: GroupId(group), term: Term(1), index: Index(index), data: data.into() }
}

pub fn hard_state(group: u16, term: u64) -> Record {
    Record::HardState { group: GroupId(group), term: Term(term), vote: term * 7 }
}

pub fn membership(group: u16, text: &'static str) -> Record {
    Record::Membership { group: GroupId(group), bytes: Bytes::from_static(text.as_bytes()) }
}

pub fn installed(group: u16, index: u64) -> Record {
    let (index, term, generation) = (Index(index), Term(2), Generation(3));
    Record::Installed { group: GroupId(group), index, term, generation }
}

/// Prepares all spares that are wanted.
pub fn prepare(wal: &Wal) {
    while wal.preparer().work(&mut |_| {}).unwrap() {}
}
