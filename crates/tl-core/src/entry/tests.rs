#![allow(clippy::unwrap_used)]
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use smallvec::smallvec;
use tl_types::{Incarnation, Namespace, ResourcePath, Seq, SessionId, Tenant};

use super::*;
use crate::metadata::Metadata;
use crate::session::Listing;
use crate::text::Text;

fn path(id: &str) -> ResourcePath {
    ResourcePath::session(
        Tenant::new("acme").unwrap(),
        Namespace::default_namespace(),
        SessionId::new(id).unwrap(),
    )
}

fn event(n: u64) -> NewEvent {
    NewEvent {
        producer_id: "w1".into(),
        producer_seq: n,
        hash: ContentHash { algorithm: 1, value: u128::from(n) << 64 },
        envelope: Bytes::from_static(b"envelope"),
    }
}

/// One of each kind, with every field set somewhere.
fn one_of_each() -> Vec<(&'static str, Command)> {
    let path = path("ses_1");
    let metadata = Metadata::new(&[(r#""a""#.into(), "1".into())]);
    vec![
        (
            "create",
            Command::CreateSession(CreateSession {
                path: path.clone(),
                incarnation: Incarnation([9; 16]),
                title: Some("Trip".into()),
                metadata: metadata.clone(),
                creator: "user:ann".into(),
            }),
        ),
        (
            "append",
            Command::Append(Append {
                path: path.clone(),
                expected_seq: Some(Seq(258)),
                events: smallvec![event(1), event(2)],
            }),
        ),
        (
            "update",
            Command::UpdateHeader(UpdateHeader {
                path: path.clone(),
                expected_version: Some(3),
                title: Some(Some("Next".into())),
                metadata: Some(metadata),
            }),
        ),
        (
            "untitle",
            Command::UpdateHeader(UpdateHeader {
                path: path.clone(),
                expected_version: None,
                title: Some(None),
                metadata: None,
            }),
        ),
        (
            "hide",
            Command::SetListing(SetListing { path: path.clone(), listing: Listing::Archived }),
        ),
        ("close", Command::Close(Close { path: path.clone() })),
        ("tombstone", Command::Tombstone(Tombstone { path: path.clone() })),
        ("ack", Command::AckArchived(AckArchived { path: path.clone(), upto: Seq(7) })),
        ("trim", Command::Trim(Trim { path, upto: Seq(6) })),
        ("tick", Command::Tick),
        (
            "members",
            Command::SetMembers(SetMembers { expected: 4, list: Bytes::from_static(b"list") }),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn entry_bytes_are_a_promise_golden() {
    let mut seen = String::new();
    for (name, command) in one_of_each() {
        let entry = Entry {
            stamp: UnixMs(0x0102_0304),
            request: Some(RequestId([5; 16])),
            principal: [6; 16],
            ..Entry::new([command])
        };
        let bytes = entry.encode();
        seen.push_str(&format!("{name} {}\n", hex(&bytes)));
        assert_eq!(Entry::decode(bytes.into()), Ok(entry));
    }
    assert_eq!(seen, include_str!("../../golden/entries.txt"));
}

#[test]
fn the_stamp_is_set_in_place_and_changes_nothing_else() {
    let entry = Entry::new(one_of_each().into_iter().map(|(_, command)| command));
    let mut bytes = entry.encode();
    set_stamp(&mut bytes, UnixMs(0xfeed));
    assert_eq!(peek_stamp(&bytes), Some(UnixMs(0xfeed)));
    assert_eq!(Entry::decode(bytes.into()), Ok(Entry { stamp: UnixMs(0xfeed), ..entry }));
    assert_eq!(peek_stamp(&[1; 10]), None);
}

/// An entry with one command of this kind and body.
fn raw(kind: u16, body: &[u8]) -> Bytes {
    let mut bytes = Entry::new([]).encode();
    bytes.pop();
    bytes.push(1);
    bytes.extend_from_slice(&kind.to_be_bytes());
    tl_types::bytes_codec::put_bytes(&mut bytes, body);
    bytes.into()
}

#[test]
fn what_this_release_does_not_know_is_refused() {
    let unknown = |bytes: Bytes| matches!(Entry::decode(bytes), Err(DecodeError::Unknown { .. }));
    assert!(unknown(raw(11, &[1])), "kind");
    assert!(unknown(raw(0, &[1])), "kind");
    assert!(unknown(raw(9, &[2])), "command version");
    let with = |at: usize, byte: u8| {
        let mut bytes = Entry::new([Command::Tick]).encode();
        bytes[at] = byte;
        Bytes::from(bytes)
    };
    assert!(unknown(with(0, 2)), "entry version");
    assert!(unknown(with(2, 0)), "rules level");
    assert!(unknown(with(2, 2)), "rules level");
    assert!(Entry::decode(with(11, 2)).is_err(), "request flag");
    assert_eq!(Entry::decode(raw(9, &[1])).unwrap().commands[..], [Command::Tick]);
}

#[test]
fn unknown_optional_fields_are_skipped() {
    let mut body = vec![1];
    tl_types::bytes_codec::put_field(&mut body, 200, b"from a later release");
    assert_eq!(Entry::decode(raw(9, &body)).unwrap().commands[..], [Command::Tick]);
}

#[test]
fn a_command_without_what_it_needs_is_malformed() {
    for kind in (1..=8).chain([10]) {
        assert!(matches!(Entry::decode(raw(kind, &[1])), Err(DecodeError::Malformed(_))), "{kind}");
    }
    let mut bytes = Entry::new([Command::Tick]).encode();
    bytes.push(0);
    assert!(Entry::decode(bytes.into()).is_err(), "bytes behind the end");
}

fn any_command() -> impl Strategy<Value = Command> {
    let events = vec(
        (".{0,9}", any::<u64>(), any::<u128>(), vec(any::<u8>(), 0..300)).prop_map(
            |(producer, producer_seq, value, envelope)| NewEvent {
                producer_id: producer.into(),
                producer_seq,
                hash: ContentHash { algorithm: 1, value },
                envelope: envelope.into(),
            },
        ),
        0..5,
    );
    prop_oneof![
        ("[^\\pC]{1,9}", option::of(any::<u64>()), events).prop_map(|(id, expected, events)| {
            Command::Append(Append {
                path: path(&id),
                expected_seq: expected.map(Seq),
                events: events.into(),
            })
        }),
        ("[a-z{}]{1,9}", option::of(option::of(".{0,9}")), option::of(any::<u64>())).prop_map(
            |(id, title, expected_version)| Command::UpdateHeader(UpdateHeader {
                path: path(&id),
                expected_version,
                title: title.map(|title| title.map(Text::from)),
                metadata: None,
            })
        ),
        (0usize..11).prop_map(|at| one_of_each().swap_remove(at).1),
    ]
}

proptest! {
    #[test]
    fn entries_come_back(
        commands in vec(any_command(), 0..5), stamp: u64,
        request in option::of(any::<[u8; 16]>()), principal: [u8; 16],
    ) {
        let entry = Entry {
            stamp: UnixMs(stamp),
            request: request.map(RequestId),
            principal,
            ..Entry::new(commands)
        };
        prop_assert_eq!(Entry::decode(entry.encode().into()), Ok(entry));
    }

    #[test]
    fn no_bytes_make_entry_reading_panic(bytes: Vec<u8>) {
        let _ = peek_stamp(&bytes);
        let _ = Entry::decode(bytes.into());
    }

    #[test]
    fn no_changed_byte_makes_entry_reading_panic(
        which in 0usize..11, at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut bytes = Entry::new([one_of_each().swap_remove(which).1]).encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Entry::decode(bytes.clone().into());
        bytes.truncate(cut.index(bytes.len()));
        let _ = Entry::decode(bytes.into());
    }
}
