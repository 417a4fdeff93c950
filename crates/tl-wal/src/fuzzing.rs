//! What must hold for any bytes given to this crate's decoders, and for a log with any bytes in it.

mod rot;

use bytes::Bytes;
use tl_types::{GroupId, Index, NodeId, Term};

use crate::format::{
    ALIGN, Content, FLAG_FIRST, FLAG_LAST, HEAD_BYTES, HeadRead, Place, RECORD_HEADER_BYTES,
    RecordHead, RecordKind, SegmentHead, put_record, record_bytes,
};
use crate::record::Position;
use crate::scan::{Found, Scan, latest_life};
use crate::states;

pub use rot::log_rot;

/// The file of a segment: its head and its records come back from their own encoding, and no
/// place is looked at twice.
///
/// # Panics
/// When one of these does not hold.
pub fn log_segment(bytes: &[u8]) {
    let latest = latest_life(bytes);
    let HeadRead::Known { head, .. } = SegmentHead::read(bytes) else { return };
    assert_eq!(SegmentHead::read(&head.encode()), HeadRead::Known { head, whole: true });
    let scan = Scan { head, bytes };
    let mut offset = HEAD_BYTES;
    while let Found::Record(record) = scan.at(offset) {
        assert!(latest >= Some(record.life), "the latest life is none of these records'");
        let end = offset + record.record_bytes();
        comes_back(&record, &bytes[offset..end]);
        assert_eq!(scan.next_intact(offset), Some(offset));
        offset = end;
    }
    if let Some(next) = scan.next_intact(offset) {
        assert!(next >= offset && next.is_multiple_of(ALIGN));
    }
}

/// An intact record says what its bytes say.
fn comes_back(record: &RecordHead, bytes: &[u8]) {
    let Some(kind) = RecordKind::from_u8(record.kind) else { return };
    let data = &bytes[RECORD_HEADER_BYTES..][..record.data_bytes as usize];
    let (group, term, index) = (record.group, record.term, record.index);
    let place = Place {
        life: record.life,
        position: record.position,
        mark: record.mark,
        flags: record.flags,
    };
    // Padding is zeros in what we write, and may be anything in what we are given.
    if bytes[RECORD_HEADER_BYTES + data.len()..].iter().all(|byte| *byte == 0) {
        let mut again = Vec::new();
        put_record(&mut again, &Content { kind, group, term, index, data }, &place);
        assert_eq!(again, bytes);
    }
    let data = Bytes::copy_from_slice(data);
    if let Some(known) = states::decode(kind, group, term, index, data.clone()) {
        let mut small = states::Small::default();
        let content = states::content(&known, &mut small);
        assert_eq!((content.kind, content.data), (kind, &data[..]));
        assert_eq!(states::data_bytes(&known), data.len());
    }
}

/// The first eight bytes say what is changed, the rest is a record's data: the record is found
/// as it was written, and is refused, and not looked past, once one of its bits is changed.
///
/// # Panics
/// When one of these does not hold.
pub fn log_record(bytes: &[u8]) {
    let Some((choice, data)) = bytes.split_first_chunk::<8>() else { return };
    let choice = u64::from_be_bytes(*choice);
    let life = 1 + (choice >> 48);
    let first = Position(choice >> 16 & 0xffff);
    let size = HEAD_BYTES + record_bytes(data.len());
    let head = SegmentHead {
        life,
        first,
        start_life: 1,
        segment_bytes: size as u64,
        owner: NodeId::default(),
    };
    let mut segment = head.encode().to_vec();
    let kind = RecordKind::Entry;
    let (group, term, index) = (GroupId(choice as u16), Term(choice), Index(!choice));
    let place = Place { life, position: first, mark: first, flags: FLAG_FIRST | FLAG_LAST };
    put_record(&mut segment, &Content { kind, group, term, index, data }, &place);
    assert_eq!(segment.len(), size);
    let found = Scan { head, bytes: &segment }.at(HEAD_BYTES);
    let Found::Record(record) = found else { panic!("a record that was written is not found") };
    assert_eq!((record.group, record.term, record.index), (group, term, index));
    comes_back(&record, &segment[HEAD_BYTES..]);

    let bit = choice as usize % ((size - HEAD_BYTES) * 8);
    segment[HEAD_BYTES + bit / 8] ^= 1 << (bit % 8);
    let scan = Scan { head, bytes: &segment };
    let refused = match scan.at(HEAD_BYTES) {
        Found::NoHeader => bit / 8 < RECORD_HEADER_BYTES,
        Found::DamagedData(same) => bit / 8 >= RECORD_HEADER_BYTES && same == record,
        Found::Record(_) | Found::Zeros | Found::Full => false,
    };
    assert!(refused, "bit {bit} was changed and the record still counts");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(records: &[(RecordKind, &[u8])]) -> Vec<u8> {
        let head = SegmentHead {
            life: 3,
            first: Position(800),
            start_life: 2,
            segment_bytes: 8_192,
            owner: NodeId([7; 16]),
        };
        let mut out = head.encode().to_vec();
        for (kind, data) in records {
            let place = Place {
                life: 3,
                position: Position(800 + (out.len() - HEAD_BYTES) as u64),
                mark: Position(800),
                flags: FLAG_FIRST | FLAG_LAST,
            };
            let (group, term, index) = (GroupId(1), Term(2), Index(5));
            put_record(&mut out, &Content { kind: *kind, group, term, index, data }, &place);
        }
        out
    }

    #[test]
    fn log_segments_over_the_corpus() {
        let mut damaged = segment(&[(RecordKind::Entry, b"one"), (RecordKind::Entry, b"two")]);
        damaged[HEAD_BYTES + RECORD_HEADER_BYTES] ^= 1;
        let mut half = segment(&[(RecordKind::Entry, b"one")]);
        half[0] = 0;
        let seeds = [
            ("empty", segment(&[])),
            (
                "kinds",
                segment(&[
                    (RecordKind::HardState, &7_u64.to_be_bytes()),
                    (RecordKind::Membership, b"who"),
                    (RecordKind::Installed, &3_u32.to_be_bytes()),
                    (RecordKind::Entry, &[b'x'; 100]),
                    (RecordKind::Mark, b""),
                    (RecordKind::Start, b""),
                    (RecordKind::Next, b""),
                ]),
            ),
            ("damaged", damaged),
            ("one_head", half),
        ];
        tl_fuzz::check("log_segment", &seeds, log_segment);
    }

    #[test]
    fn log_records_over_the_corpus() {
        let of = |choice: u64, data: &[u8]| [&choice.to_be_bytes()[..], data].concat();
        let seeds = [
            ("none", of(0, b"")),
            ("short", of(0x0003_0000_0320_0001, b"entry")),
            ("long", of(u64::MAX, &[0xab; 1_000])),
        ];
        tl_fuzz::check("log_record", &seeds, log_record);
    }
}
