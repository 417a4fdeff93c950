#![allow(clippy::unwrap_used)]
//! The bytes written today must be readable for ever: golden files, and refusals.

use proptest::prelude::*;

use super::*;

/// Compares with a file in `golden/`; run with `GOLDEN=write` to write it anew.
fn golden(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let mut text = String::new();
    for line in bytes.chunks(16) {
        text.push_str(&line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
        text.push('\n');
    }
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
}

fn head() -> SegmentHead {
    SegmentHead {
        life: 0x0102,
        first: Position(0x0304_0506),
        start_life: 0x0101,
        segment_bytes: 32 * 1024 * 1024,
        owner: NodeId(*b"node-of-16-bytes"),
    }
}

fn entry() -> (Content<'static>, Place) {
    let content = Content {
        kind: RecordKind::Entry,
        group: GroupId(0x1234),
        term: Term(7),
        index: Index(0x0a0b_0c0d),
        data: b"seventeen bytes !",
    };
    let place = Place {
        life: 0x0102,
        position: Position(0x0304_0508),
        mark: Position(0x0304_0506),
        flags: FLAG_FIRST | FLAG_LAST,
    };
    (content, place)
}

#[test]
fn a_segment_head_is_written_as_it_always_was() {
    let area = head().encode();
    golden("segment-head.txt", &area[..HEAD_COPY_BYTES]);
    assert_eq!(area[2048..2048 + HEAD_COPY_BYTES], area[..HEAD_COPY_BYTES]);
    assert!(area[64..2048].iter().chain(&area[2112..]).all(|byte| *byte == 0));
    assert_eq!(SegmentHead::read(&area), HeadRead::Known { head: head(), whole: true });
}

#[test]
fn a_record_is_written_as_it_always_was() {
    let (content, place) = entry();
    let mut out = Vec::new();
    put_record(&mut out, &content, &place);
    golden("record.txt", &out);
    let read = RecordHead::read(&out).unwrap();
    assert_eq!(read.record_bytes(), out.len());
    assert_eq!((read.kind, read.flags, read.group), (1, 3, content.group));
    assert_eq!((read.life, read.position, read.mark), (place.life, place.position, place.mark));
    assert_eq!((read.term, read.index, read.data_bytes), (content.term, content.index, 17));
    assert!(read.data_is_intact(&out[RECORD_HEADER_BYTES..]));
}

#[test]
fn record_kinds_keep_their_numbers() {
    let kinds = [
        RecordKind::Entry,
        RecordKind::HardState,
        RecordKind::Membership,
        RecordKind::Installed,
        RecordKind::Mark,
        RecordKind::Start,
        RecordKind::Next,
    ];
    for (kind, number) in kinds.into_iter().zip(1..) {
        assert_eq!((kind as u8, RecordKind::from_u8(number)), (number, Some(kind)));
    }
    assert_eq!((RecordKind::from_u8(0), RecordKind::from_u8(8)), (None, None));
}

#[test]
fn every_turned_bit_of_a_record_is_seen() {
    let (content, place) = entry();
    let mut out = Vec::new();
    put_record(&mut out, &content, &place);
    for bit in 0..out.len() * 8 {
        let mut hurt = out.clone();
        hurt[bit / 8] ^= 1 << (bit % 8);
        let read = RecordHead::read(&hurt);
        let intact = read.is_some_and(|read| read.data_is_intact(&hurt[RECORD_HEADER_BYTES..]));
        assert!(!intact, "bit {bit}");
        // A header that passes is the header that was written.
        assert_eq!(read.is_some(), bit >= RECORD_HEADER_BYTES * 8, "bit {bit}");
    }
}

#[test]
fn one_damaged_copy_of_a_head_is_made_up_for_by_the_other() {
    for at in HEAD_COPIES {
        for bit in 0..HEAD_COPY_BYTES * 8 {
            let mut area = head().encode();
            area[at + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHead::read(&area), HeadRead::Known { head: head(), whole: false });
        }
    }
}

#[test]
fn of_two_different_heads_the_later_life_wins() {
    let (old, new) = (head(), SegmentHead { life: head().life + 5, ..head() });
    for (first, second) in [(old, new), (new, old)] {
        let mut area = first.encode();
        area[2048..].copy_from_slice(&second.encode()[2048..]);
        assert_eq!(SegmentHead::read(&area), HeadRead::Known { head: new, whole: false });
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
        let _ = SegmentHead::read(&bytes);
        let _ = RecordHead::read(&bytes);
        let _ = crate::scan::latest_life(&bytes);
    }
}
