//! What must hold for any bytes given to this crate's decoders.

use bytes::Bytes;
use smallvec::smallvec;
use tl_types::bytes_codec::Reader;
use tl_types::{Incarnation, Index, Namespace, ResourcePath, RowKey, Seq, SessionId, Tenant};

use crate::entry::{Append, Command, ContentHash, CreateSession, Entry, NewEvent};
use crate::memory::MemoryRows;
use crate::metadata::Metadata;
use crate::reply::Reply;
use crate::session::SessionHeader;
use crate::session::directory::DirectoryRow;
use crate::session::producer::{self, ProducerRow};
use crate::{group, invariants};

/// An entry of the log: it comes back from its own encoding, and applying it, also again on top
/// of what it made, is deterministic and keeps every invariant of the rows.
///
/// # Panics
/// When one of these does not hold.
pub fn entry(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(entry) = Entry::decode(bytes.clone()) else {
        assert!(bytes.is_empty() || group::apply(&MemoryRows::default(), Index(1), bytes).is_err());
        return;
    };
    assert_eq!(Entry::decode(entry.encode().into()), Ok(entry));
    let mut rows = a_session();
    for index in 3..=5 {
        let outcome = group::apply(&rows, Index(index), bytes.clone()).expect("it decodes");
        assert_eq!(group::apply(&rows, Index(index), bytes.clone()).as_ref(), Ok(&outcome));
        assert_eq!(outcome.poison, None, "rows that the rules wrote can be read by them");
        if let [Reply::Refused(_)] = outcome.replies[..] {
            assert!(outcome.writes.is_empty() && outcome.effects.is_empty(), "no trace");
        }
        rows.write(outcome.writes);
        invariants::check(&rows).expect("the rows keep their promises");
    }
}

/// The values of rows, and rows that say anything under the rules.
///
/// # Panics
/// When a row that was read does not come back from its own encoding.
pub fn row(bytes: &[u8]) {
    let row = Bytes::copy_from_slice(bytes);
    if let Ok(header) = SessionHeader::decode(row.clone()) {
        assert_eq!(SessionHeader::decode(header.encode()), Ok(header));
    }
    if let Ok(producer) = ProducerRow::decode(&row) {
        let before: Vec<_> = producer.writes().collect();
        let first = ProducerRow::expected(Some(&producer));
        let hash = ContentHash { algorithm: 1, value: 7 };
        let write = producer::Write { first, last: first, first_seq: Seq(1), hash };
        let more = ProducerRow::encode_with(Some(&producer), Seq(9), write);
        let more = ProducerRow::decode(&more).expect("what was encoded can be read");
        let after: Vec<_> = more.writes().collect();
        let kept = after.len() - 1;
        assert_eq!((&after[..kept], after[kept]), (&before[before.len() - kept..], write));
    }
    if let Ok(directory) = DirectoryRow::decode(&row) {
        assert_eq!(directory.encode(), row.slice(..directory.encode().len()));
    }
    if let Ok(replies) = crate::reply::codec::read_replies(&mut Reader::new(row.clone())) {
        let mut out = Vec::new();
        crate::reply::codec::put_replies(&mut out, &replies);
        assert_eq!(crate::reply::codec::read_replies(&mut Reader::new(out.into())), Ok(replies));
    }
    damaged_rows(&row);
}

/// Every row of a session in turn says this instead: the rules poison or go on, the same way
/// each time.
fn damaged_rows(value: &Bytes) {
    let rows = a_session();
    let append: Bytes = append(2).encode().into();
    let keys: Vec<RowKey> = rows.iter().map(|(key, _)| key.clone()).collect();
    for key in keys {
        let mut damaged = rows.clone();
        damaged.write(vec![(key, Some(value.clone()))]);
        let one = group::apply(&damaged, Index(3), append.clone()).expect("an entry");
        assert_eq!(group::apply(&damaged, Index(3), append.clone()).as_ref(), Ok(&one));
        assert!(one.poison.is_none() || one.writes.is_empty(), "poison writes nothing");
    }
}

/// A group with one session that has one event.
fn a_session() -> MemoryRows {
    let mut rows = MemoryRows::default();
    for (index, entry) in [(1, create()), (2, append(1))] {
        let done = group::apply(&rows, Index(index), entry.encode().into()).expect("an entry");
        rows.write(done.writes);
    }
    rows
}

fn path() -> ResourcePath {
    ResourcePath::session(
        Tenant::new("acme").expect("a tenant"),
        Namespace::default_namespace(),
        SessionId::new("ses_1").expect("an id"),
    )
}

fn create() -> Entry {
    Entry::new([Command::CreateSession(CreateSession {
        path: path(),
        incarnation: Incarnation([9; 16]),
        title: Some("Trip".into()),
        metadata: Metadata::new(&[(r#""a""#.into(), "1".into())]),
        creator: "user:ann".into(),
    })])
}

fn append(producer_seq: u64) -> Entry {
    let event = NewEvent {
        producer_id: "w1".into(),
        producer_seq,
        hash: ContentHash { algorithm: 1, value: u128::from(producer_seq) << 64 },
        envelope: Bytes::from_static(b"envelope"),
    };
    let events = smallvec![event];
    Entry::new([Command::Append(Append { path: path(), expected_seq: None, events })])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Close, SetListing, SetMembers, Tombstone, Trim, UpdateHeader};
    use crate::session::Listing;
    use tl_types::RequestId;

    #[test]
    fn entries_over_the_corpus() {
        let of = |command| Entry::new([command]).encode();
        let many = Entry {
            request: Some(RequestId([7; 16])),
            stamp: tl_types::UnixMs(5_000),
            ..Entry::new([append(2), append(3)].into_iter().flat_map(|entry| entry.commands))
        };
        let update = UpdateHeader {
            path: path(),
            expected_version: Some(1),
            title: Some(None),
            metadata: Some(Metadata::new(&[(r#""b""#.into(), "null".into())])),
        };
        let hide = SetListing { path: path(), listing: Listing::Archived };
        let members = SetMembers { expected: 0, list: Bytes::from_static(b"list") };
        let seeds = [
            ("create", create().encode()),
            ("append", append(2).encode()),
            ("retry", append(1).encode()),
            ("many", many.encode()),
            ("update", of(Command::UpdateHeader(update))),
            ("hide", of(Command::SetListing(hide))),
            ("close", of(Command::Close(Close { path: path() }))),
            ("tombstone", of(Command::Tombstone(Tombstone { path: path() }))),
            ("trim", of(Command::Trim(Trim { path: path(), upto: Seq(1) }))),
            ("tick", of(Command::Tick)),
            ("members", of(Command::SetMembers(members))),
        ];
        tl_fuzz::check("entry", &seeds, entry);
    }

    #[test]
    fn rows_over_the_corpus() {
        let mut seeds: Vec<tl_fuzz::Seed> = Vec::new();
        let rows = a_session();
        for (key, value) in rows.iter() {
            let name = format!("{:?}-{:02x}", key.table(), key.rest().first().unwrap_or(&0))
                .to_lowercase();
            seeds.push((name.leak(), value.to_vec()));
        }
        let mut replies = Vec::new();
        let done = group::apply(&rows, Index(3), append(2).encode().into()).expect("an entry");
        crate::reply::codec::put_replies(&mut replies, &done.replies);
        seeds.push(("replies", replies));
        tl_fuzz::check("row", &seeds, row);
    }
}
