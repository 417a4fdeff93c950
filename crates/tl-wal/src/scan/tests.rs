//! What counts as a record of a segment, and what does not.

use tl_types::{GroupId, Index, NodeId, Term};

use super::*;
use crate::format::{Content, FLAG_FIRST, FLAG_LAST, Place, RecordKind, put_record};

const LIFE: u64 = 5;

fn head() -> SegmentHead {
    let (first, owner) = (Position(800), NodeId::default());
    SegmentHead { life: LIFE, first, start_life: 1, segment_bytes: 8_192, owner }
}

/// A segment with one record of 56 + 16 bytes at its start.
fn segment(life: u64, position: u64, mark: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    let content = Content {
        kind: RecordKind::Entry,
        group: GroupId(1),
        term: Term(1),
        index: Index(1),
        data: b"thirteen byte",
    };
    let (position, mark) = (Position(position), Position(mark));
    let place = Place { life, position, mark, flags: FLAG_FIRST | FLAG_LAST };
    put_record(&mut bytes, &content, &place);
    bytes.resize(8_192, 0);
    bytes
}

fn found(bytes: &[u8]) -> Found {
    Scan { head: head(), bytes }.at(HEAD_BYTES)
}

#[test]
fn a_record_counts_only_with_its_life_and_at_its_position() {
    assert!(matches!(found(&segment(LIFE, 800, 800)), Found::Record(_)));
    assert_eq!(found(&segment(LIFE - 1, 800, 800)), Found::NoHeader, "an earlier life");
    assert_eq!(found(&segment(LIFE, 872, 800)), Found::NoHeader, "another position");
    assert_eq!(found(&segment(LIFE, 800, 801)), Found::NoHeader, "durable before it was written");
}

#[test]
fn a_short_file_reads_as_damage_and_a_full_one_as_full() {
    let bytes = segment(LIFE, 800, 800);
    assert_eq!(found(&bytes[..HEAD_BYTES + 71]), Found::NoHeader, "data cut off");
    assert_eq!(found(&bytes[..HEAD_BYTES + 55]), Found::NoHeader, "header cut off");
    let scan = Scan { head: head(), bytes: &bytes };
    assert_eq!(scan.at(8_192 - 48), Found::Full);
    assert_eq!(scan.at(HEAD_BYTES + 72), Found::Zeros);
}

#[test]
fn an_intact_record_is_found_again_behind_damage() {
    let mut bytes = segment(LIFE, 800, 800);
    let moved = segment(LIFE, 800 + 2_048, 800);
    bytes[HEAD_BYTES + 2_048..].copy_from_slice(&moved[HEAD_BYTES..8_192 - 2_048]);
    let scan = Scan { head: head(), bytes: &bytes };
    assert_eq!(scan.next_intact(HEAD_BYTES + 1), Some(HEAD_BYTES + 2_048));
    assert_eq!(scan.next_intact(HEAD_BYTES + 2_049), None);
    assert_eq!(latest_life(&bytes), Some(LIFE));
}
