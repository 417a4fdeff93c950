#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn sample() -> SessionHeader {
    SessionHeader {
        incarnation: Incarnation([7; 16]),
        title: Some("Trip".into()),
        metadata: Metadata::new(&[(r#""a""#.into(), "1".into())]),
        creator: "user:ann".into(),
        created_at: UnixMs(1_000),
        updated_at: UnixMs(2_000),
        version: 3,
        listing: Listing::Archived,
        state: SessionState::Closed,
        last_seq: Seq(9),
        archived_seq: Seq(5),
        floor_seq: Seq(2),
        producers: 4,
    }
}

#[test]
fn header_bytes_are_a_promise_golden() {
    let hex: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("../../../golden/header.txt").trim());
}

#[test]
fn unknown_fields_are_skipped_and_unknown_versions_refused() {
    let mut bytes = sample().encode().to_vec();
    put_field(&mut bytes, 200, b"from a later release");
    assert_eq!(SessionHeader::decode(bytes.clone().into()), Ok(sample()));
    bytes[0] = 2;
    assert!(matches!(SessionHeader::decode(bytes.into()), Err(DecodeError::Unknown { .. })));
}

#[test]
fn positions_out_of_order_are_damage() {
    let header = SessionHeader { floor_seq: Seq(6), ..sample() };
    assert!(SessionHeader::decode(header.encode()).is_err());
    let header = SessionHeader { archived_seq: Seq(10), ..sample() };
    assert!(SessionHeader::decode(header.encode()).is_err());
}

proptest! {
    #[test]
    fn headers_come_back(
        title in proptest::option::of(".{0,9}"), state in 0u8..3, listing in 0u8..2,
        version: u64, at: u64, floor in 0u64..9, archived in 0u64..9, last in 0u64..9,
    ) {
        let header = SessionHeader {
            title: title.map(Text::from),
            state: SessionState::from_number(state).unwrap(),
            listing: Listing::from_number(listing).unwrap(),
            version,
            updated_at: UnixMs(at),
            floor_seq: Seq(floor),
            archived_seq: Seq(floor + archived),
            last_seq: Seq(floor + archived + last),
            ..sample()
        };
        prop_assert_eq!(SessionHeader::decode(header.encode()), Ok(header));
    }

    #[test]
    fn no_bytes_make_header_reading_panic(bytes: Vec<u8>) {
        let _ = SessionHeader::decode(bytes.into());
    }

    #[test]
    fn no_changed_byte_makes_header_reading_panic(at in 0usize..120, byte: u8) {
        let mut bytes = sample().encode().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(header) = SessionHeader::decode(bytes.into()) {
            let _ = header.metadata.to_json();
        }
    }
}
