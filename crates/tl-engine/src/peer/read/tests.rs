use bytes::Bytes;
use tl_core::list::ListPage;
use tl_core::{Metadata, SessionHeader, SessionRow};
use tl_types::limits::PAGE_MAX;
use tl_types::{Namespace, SessionId};
use tl_wire::reply::{Gap, GapReason};

use super::*;
use crate::api::TailEnd;

fn place() -> ResourcePath {
    ResourcePath::session(
        Tenant::new("acme").expect("tenant"),
        Namespace::new("default").expect("namespace"),
        SessionId::new("chat/ü").expect("id"),
    )
}

fn row() -> SessionRow {
    let metadata = Metadata::new(&[("\"k\"".into(), "\"v\"".into())]);
    let header = SessionHeader { metadata, creator: "user:ann".into(), ..SessionHeader::default() };
    SessionRow { path: place(), number: ResourceNumber(7), header }
}

fn query(limit: usize) -> ListQuery {
    ListQuery {
        tenant: place().tenant,
        namespace: place().namespace,
        after: Some(place().name),
        limit,
        listing: ListingFilter::All,
        metadata: vec![("\"k\"".into(), "\"v\"".into())],
    }
}

fn reads() -> Vec<Read> {
    let lines = |limit| Read::Lines {
        group: GroupId(9),
        number: ResourceNumber(u64::MAX),
        tenant: place().tenant,
        after: Seq(4),
        upto: Seq(400),
        limit,
        bytes_max: 1 << 20,
    };
    let list = |groups: u16| Read::List {
        consistent: true,
        query: query(PAGE_MAX),
        groups: (0..groups).map(GroupId).collect(),
    };
    let bare = ListQuery { after: None, metadata: Vec::new(), ..query(1) };
    vec![
        Read::Row { path: place(), confirm: true, min_index: None },
        Read::Row { path: place(), confirm: false, min_index: Some(Index(3)) },
        lines(1),
        lines(PAGE_MAX as u16),
        Read::Watch { path: place(), after: Seq(u64::MAX) },
        list(0),
        list(GROUPS_MAX as u16),
        Read::List { consistent: false, query: bare, groups: vec![GroupId(1)] },
        Read::Applied { groups: Vec::new() },
        Read::Applied { groups: (0..GROUPS_MAX as u16).map(GroupId).collect() },
    ]
}

fn findings() -> Vec<Found> {
    let gap = Gap {
        reason: GapReason::CursorExpired,
        from_cursor: Seq(1),
        next_cursor: Seq(2),
        committed_cursor: Seq(3),
        earliest_available_cursor: Seq(4),
    };
    let some = |count: usize| vec![Bytes::from_static(b"{\"seq\":1}"); count];
    let part = ListPage { sessions: vec![row(), row()], resume_after: Some(place().name) };
    vec![
        Found::Row { index: Index(8), row: Some(Box::new(row())) },
        Found::Row { index: Index(8), row: None },
        Found::Lines(some(0)),
        Found::Lines(some(PAGE_MAX)),
        Found::Gone(gap),
        Found::Head { last_seq: Seq(9), ended: None, lines: some(2) },
        Found::Head { last_seq: Seq(9), ended: Some(TailEnd::Tombstoned), lines: some(0) },
        Found::Head { last_seq: Seq(0), ended: Some(TailEnd::Closed), lines: some(1) },
        Found::List(Vec::new()),
        Found::List(vec![(GroupId(3), part), (GroupId(4), ListPage::default())]),
        Found::Applied(Vec::new()),
        Found::Applied((0..GROUPS_MAX as u16).map(|group| (GroupId(group), Index(8))).collect()),
    ]
}

fn read_again(read: &Read) -> Result<Read, DecodeError> {
    let mut out = Vec::new();
    read.encode(&mut out);
    Read::decode(&mut Reader::new(out.into()))
}

fn found_again(found: &Found) -> Result<Found, DecodeError> {
    let mut out = Vec::new();
    found.encode(&mut out);
    Found::decode(Reader::new(out.into()))
}

#[test]
fn reads_and_what_is_found_come_back_as_they_were() {
    for read in reads() {
        assert_eq!(read_again(&read).as_ref(), Ok(&read));
    }
    for found in findings() {
        assert_eq!(found_again(&found).as_ref(), Ok(&found));
    }
}

#[test]
fn limits_hold_and_one_past_them_is_refused() {
    let groups: Vec<GroupId> = (0..=GROUPS_MAX as u16).map(GroupId).collect();
    let applied = groups.iter().map(|group| (*group, Index(8))).collect();
    assert!(found_again(&Found::Applied(applied)).is_err());
    assert!(read_again(&Read::Applied { groups: groups.clone() }).is_err());
    let read = Read::List { consistent: false, query: query(1), groups };
    assert!(read_again(&read).is_err());
    for limit in [0, PAGE_MAX + 1] {
        let read = Read::List { consistent: false, query: query(limit), groups: Vec::new() };
        assert!(read_again(&read).is_err(), "{limit}");
    }
    let lines = vec![Bytes::from_static(b"{}"); PAGE_MAX + 1];
    assert!(found_again(&Found::Lines(lines)).is_err());
}

#[test]
fn whatever_bytes_come_are_read_or_refused() {
    for read in reads().iter().take(5).chain([&Read::Applied { groups: vec![GroupId(1); 3] }]) {
        let mut whole = Vec::new();
        read.encode(&mut whole);
        for end in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..end]);
            assert!(Read::decode(&mut Reader::new(cut)).is_err(), "{read:?} cut at {end}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            // Some other read, or an error; never a panic.
            drop(Read::decode(&mut Reader::new(bent.into())));
        }
    }
    for found in findings() {
        let mut whole = Vec::new();
        found.encode(&mut whole);
        for at in 0..whole.len().min(256) {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            drop(Found::decode(Reader::new(bent.into())));
        }
    }
}

#[test]
fn an_answer_holds_a_page_at_most() {
    assert_eq!(page_bytes(0), 1);
    assert_eq!(page_bytes(u32::MAX), PAGE_BYTES_MAX);
    let bytes: Vec<usize> = reads().iter().map(Read::found_bytes_max).collect();
    let (page, parts) = (1 << 20, PARTS_BYTES_MAX);
    assert_eq!(bytes, [0, 0, page, page, 0, parts, parts, parts, 0, 0]);
}

#[test]
fn lines_are_numbered_from_the_place_that_was_asked_about() {
    let lines = numbered(Seq(4), vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
    let seqs: Vec<u64> = lines.iter().map(|line| line.seq.0).collect();
    assert_eq!(seqs, [5, 6]);
}
