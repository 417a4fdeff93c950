//! What a node reads of another one's rows, and what it is answered.
//!
//! ```text
//!   read   = kind (1) body      row:   confirm (1) min_index (8; 0 for none) path
//!                               lines: group (2) number (8) after (8) upto (8) limit (2) bytes (4) tenant
//!                               watch: after (8) path
//!                               list:  consistent (1) listing (1) limit (2) tenant namespace after
//!                                      members: count (2) (name value)*  groups: count (2) group (2)*
//!   found  = kind (1) body      row:   index (8) replies
//!                               lines: line*
//!                               gone:  from (8) next (8) committed (8) earliest (8)
//!                               head:  last_seq (8) ended (1) line*
//!                               list:  (group (2) resume_after replies)*
//!   path   = tenant namespace name
//! ```
//!
//! Texts, lines and replies are a length and the bytes. Lines are the events right behind the place
//! that was asked about, without holes, so that whoever asked numbers them. A text that may be absent
//! is empty then. Reads change nothing: they may be put to one member after the other.

use bytes::Bytes;
use tl_core::list::{ListPage, ListQuery, ListingFilter};
use tl_core::reply::{decode_replies, encode_replies};
use tl_core::{Reply, SessionRow};
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_types::limits::{PAGE_BYTES_MAX, PAGE_MAX};
use tl_types::{GroupId, Index, Namespace, ResourceNumber, ResourcePath, Seq, SessionId, Tenant};
use tl_wire::reply::{Gap, GapReason};

use crate::api::{EventLine, TailEnd};

/// Most members of metadata that a list is filtered by: more than a request's target can name.
const FILTERS_MAX: usize = 8 * 1024;
/// Bytes of rows that a node is given of its parts of a list at once; one row always goes.
pub(crate) const PARTS_BYTES_MAX: usize = 2 * PAGE_BYTES_MAX;
/// Most groups that a list is asked for at once: all that a cluster may have.
const GROUPS_MAX: usize = 4_096;

mod kind {
    pub const ROW: u8 = 1;
    pub const LINES: u8 = 2;
    pub const WATCH: u8 = 3;
    pub const LIST: u8 = 4;
    pub const GONE: u8 = 5;
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A session's row; that there is none is confirmed before it is said.
    Row {
        /// The session.
        path: ResourcePath,
        /// Whether the row must be as new as every acknowledged write.
        confirm: bool,
        /// It must be as new as this entry.
        min_index: Option<Index>,
    },
    /// Events of a session.
    Lines {
        /// The session's group.
        group: GroupId,
        /// Its number there.
        number: ResourceNumber,
        /// Whose it is.
        tenant: Tenant,
        /// Events behind this one.
        after: Seq,
        /// Events up to this one.
        upto: Seq,
        /// So many at most.
        limit: u16,
        /// None further once there are so many bytes.
        bytes_max: u32,
    },
    /// Where a session ends, once that is behind `after`.
    Watch {
        /// The session.
        path: ResourcePath,
        /// Where whoever asks knows it to end.
        after: Seq,
    },
    /// Some groups' parts of a list.
    List {
        /// Whether each must be as new as every acknowledged write.
        consistent: bool,
        /// What to list.
        query: ListQuery,
        /// Of which groups.
        groups: Vec<GroupId>,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A session's row.
    Row {
        /// How far the group is applied there.
        index: Index,
        /// The row; that there is none is confirmed.
        row: Option<Box<SessionRow>>,
    },
    /// The events right behind the place that was asked about, as JSON; none when that member has
    /// none yet.
    Lines(Vec<Bytes>),
    /// Events behind that place are gone from this tier.
    Gone(Gap),
    /// Where a session ends.
    Head {
        /// The last event that may be shown.
        last_seq: Seq,
        /// Set when none will follow.
        ended: Option<TailEnd>,
        /// The events right behind the place that was asked about, if they are few.
        lines: Vec<Bytes>,
    },
    /// Parts of a list; a group whose part is missing is to be asked for again.
    List(Vec<(GroupId, ListPage)>),
}

impl Found {
    /// Whether nobody else needs to be asked.
    #[must_use]
    pub fn is_something(&self) -> bool {
        match self {
            Found::Row { .. } | Found::Gone(_) | Found::Head { .. } => true,
            Found::Lines(lines) => !lines.is_empty(),
            Found::List(parts) => !parts.is_empty(),
        }
    }
}

/// Numbers events that lie right behind `after`.
#[must_use]
pub fn numbered(after: Seq, lines: Vec<Bytes>) -> Vec<EventLine> {
    let seqs = (after.0.saturating_add(1)..).map(Seq);
    seqs.zip(lines).map(|(seq, json)| EventLine { seq, json }).collect()
}

/// Bytes of events that are given where so many were asked for: a page at most.
#[must_use]
pub(crate) fn page_bytes(asked_bytes: u32) -> usize {
    usize::try_from(asked_bytes).unwrap_or(usize::MAX).clamp(1, PAGE_BYTES_MAX)
}

impl Read {
    /// Bytes of a page that may be found, about: one event or row always goes, whatever it takes. What
    /// is small anyway has none.
    #[must_use]
    pub(crate) fn found_bytes_max(&self) -> usize {
        match self {
            Read::Row { .. } | Read::Watch { .. } => 0,
            Read::Lines { bytes_max, .. } => page_bytes(*bytes_max),
            Read::List { .. } => PARTS_BYTES_MAX,
        }
    }

    /// Appends the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Read::Row { path, confirm, min_index } => {
                out.extend_from_slice(&[kind::ROW, u8::from(*confirm)]);
                put_u64(out, min_index.map_or(0, |index| index.0));
                put_path(out, path);
            }
            Read::Lines { group, number, tenant, after, upto, limit, bytes_max } => {
                out.push(kind::LINES);
                out.extend_from_slice(&group.0.to_be_bytes());
                for number in [number.0, after.0, upto.0] {
                    put_u64(out, number);
                }
                out.extend_from_slice(&limit.to_be_bytes());
                out.extend_from_slice(&bytes_max.to_be_bytes());
                put_bytes(out, tenant.as_str().as_bytes());
            }
            Read::Watch { path, after } => {
                out.push(kind::WATCH);
                put_u64(out, after.0);
                put_path(out, path);
            }
            Read::List { consistent, query, groups } => {
                let listing = match query.listing {
                    ListingFilter::Active => 0,
                    ListingFilter::Archived => 1,
                    ListingFilter::All => 2,
                };
                out.extend_from_slice(&[kind::LIST, u8::from(*consistent), listing]);
                put_count(out, query.limit);
                put_bytes(out, query.tenant.as_str().as_bytes());
                put_bytes(out, query.namespace.as_str().as_bytes());
                put_optional(out, query.after.as_ref());
                put_count(out, query.metadata.len());
                for (name, value) in &query.metadata {
                    put_bytes(out, name);
                    put_bytes(out, value);
                }
                put_count(out, groups.len());
                for group in groups {
                    out.extend_from_slice(&group.0.to_be_bytes());
                }
            }
        }
    }

    /// Reads what [`Read::encode`] wrote, to its end.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn decode(reader: &mut Reader) -> Result<Read, DecodeError> {
        let read = match reader.u8()? {
            kind::ROW => {
                let (confirm, min_index) = (flag(reader)?, Index(reader.u64()?));
                let min_index = Some(min_index).filter(|index| index.0 > 0);
                Read::Row { confirm, min_index, path: path(reader)? }
            }
            kind::LINES => Read::Lines {
                group: GroupId(reader.u16()?),
                number: ResourceNumber(reader.u64()?),
                after: Seq(reader.u64()?),
                upto: Seq(reader.u64()?),
                limit: page_limit(reader)?,
                bytes_max: reader.u32()?,
                tenant: tenant(reader)?,
            },
            kind::WATCH => Read::Watch { after: Seq(reader.u64()?), path: path(reader)? },
            kind::LIST => list(reader)?,
            other => return Err(DecodeError::Unknown { what: "read", value: other.into() }),
        };
        match reader.is_empty() {
            true => Ok(read),
            false => Err(DecodeError::Malformed("bytes behind a read")),
        }
    }
}

fn list(reader: &mut Reader) -> Result<Read, DecodeError> {
    let consistent = flag(reader)?;
    let listing = match reader.u8()? {
        0 => ListingFilter::Active,
        1 => ListingFilter::Archived,
        2 => ListingFilter::All,
        other => return Err(DecodeError::Unknown { what: "listing", value: other.into() }),
    };
    let limit = usize::from(page_limit(reader)?);
    let (tenant, namespace, after) = (tenant(reader)?, namespace(reader)?, optional(reader)?);
    let count = at_most(reader, FILTERS_MAX, "number of filters")?;
    let mut metadata = Vec::new();
    for _ in 0..count {
        metadata.push((reader.bytes()?, reader.bytes()?));
    }
    let count = at_most(reader, GROUPS_MAX, "number of groups")?;
    let groups = (0..count).map(|_| reader.u16().map(GroupId)).collect::<Result<_, _>>()?;
    let query = ListQuery { tenant, namespace, after, limit, listing, metadata };
    Ok(Read::List { consistent, query, groups })
}

impl Found {
    /// Appends the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Found::Row { index, row } => {
                out.push(kind::ROW);
                put_u64(out, index.0);
                let row = row.iter().map(|row| Reply::Session(row.clone()));
                out.extend_from_slice(&rows_as_replies(row.collect()));
            }
            Found::Lines(lines) => {
                out.push(kind::LINES);
                lines.iter().for_each(|line| put_bytes(out, line));
            }
            Found::Gone(gap) => {
                out.push(kind::GONE);
                for seq in [
                    gap.from_cursor,
                    gap.next_cursor,
                    gap.committed_cursor,
                    gap.earliest_available_cursor,
                ] {
                    put_u64(out, seq.0);
                }
            }
            Found::Head { last_seq, ended, lines } => {
                out.push(kind::WATCH);
                put_u64(out, last_seq.0);
                out.push(match ended {
                    None => 0,
                    Some(TailEnd::Closed) => 1,
                    Some(TailEnd::Tombstoned) => 2,
                    // Of the session alone: that this node stops is nothing to a reader elsewhere.
                    Some(TailEnd::Shutdown) => 0,
                });
                lines.iter().for_each(|line| put_bytes(out, line));
            }
            Found::List(parts) => {
                out.push(kind::LIST);
                for (group, ListPage { sessions, resume_after }) in parts {
                    out.extend_from_slice(&group.0.to_be_bytes());
                    put_optional(out, resume_after.as_ref());
                    let rows = sessions.iter().map(|row| Reply::Session(Box::new(row.clone())));
                    put_bytes(out, &rows_as_replies(rows.collect()));
                }
            }
        }
    }

    /// Reads what [`Found::encode`] wrote, to its end.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn decode(mut reader: Reader) -> Result<Found, DecodeError> {
        let found = match reader.u8()? {
            kind::ROW => {
                let index = Index(reader.u64()?);
                let mut rows = rows(reader.rest())?.into_iter();
                let row = rows.next().map(Box::new);
                if rows.next().is_some() {
                    return Err(DecodeError::Malformed("number of rows"));
                }
                return Ok(Found::Row { index, row });
            }
            kind::LINES => Found::Lines(lines(&mut reader)?),
            kind::GONE => Found::Gone(Gap {
                reason: GapReason::CursorExpired,
                from_cursor: Seq(reader.u64()?),
                next_cursor: Seq(reader.u64()?),
                committed_cursor: Seq(reader.u64()?),
                earliest_available_cursor: Seq(reader.u64()?),
            }),
            kind::WATCH => Found::Head {
                last_seq: Seq(reader.u64()?),
                ended: match reader.u8()? {
                    0 => None,
                    1 => Some(TailEnd::Closed),
                    2 => Some(TailEnd::Tombstoned),
                    other => return Err(DecodeError::Unknown { what: "end", value: other.into() }),
                },
                lines: lines(&mut reader)?,
            },
            kind::LIST => {
                let mut parts = Vec::new();
                while !reader.is_empty() {
                    let group = GroupId(reader.u16()?);
                    let resume_after = optional(&mut reader)?;
                    let sessions = rows(reader.bytes()?)?;
                    parts.push((group, ListPage { sessions, resume_after }));
                }
                Found::List(parts)
            }
            other => return Err(DecodeError::Unknown { what: "finding", value: other.into() }),
        };
        match reader.is_empty() {
            true => Ok(found),
            false => Err(DecodeError::Malformed("bytes behind what was found")),
        }
    }
}

fn rows_as_replies(rows: Vec<Reply>) -> Vec<u8> {
    encode_replies(&rows).expect("rows are no refusals")
}

fn rows(bytes: Bytes) -> Result<Vec<SessionRow>, DecodeError> {
    let row = |reply| match reply {
        Reply::Session(row) => Ok(*row),
        Reply::Appended(_) | Reply::Done | Reply::Ticked { .. } | Reply::Refused(_) => {
            Err(DecodeError::Malformed("a row"))
        }
    };
    decode_replies(bytes)?.into_iter().map(row).collect()
}

fn lines(reader: &mut Reader) -> Result<Vec<Bytes>, DecodeError> {
    let mut lines = Vec::new();
    while !reader.is_empty() {
        if lines.len() == PAGE_MAX {
            return Err(DecodeError::Malformed("number of lines"));
        }
        lines.push(reader.bytes()?);
    }
    Ok(lines)
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Counts are of things whose limits are far below; what is more is refused by whoever reads it.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

fn at_most(reader: &mut Reader, max: usize, what: &'static str) -> Result<usize, DecodeError> {
    match usize::from(reader.u16()?) {
        count if count <= max => Ok(count),
        _ => Err(DecodeError::Malformed(what)),
    }
}

fn page_limit(reader: &mut Reader) -> Result<u16, DecodeError> {
    match reader.u16()? {
        limit if (1..=PAGE_MAX).contains(&usize::from(limit)) => Ok(limit),
        _ => Err(DecodeError::Malformed("limit of a page")),
    }
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("flag")),
    }
}

fn put_path(out: &mut Vec<u8>, path: &ResourcePath) {
    put_bytes(out, path.tenant.as_str().as_bytes());
    put_bytes(out, path.namespace.as_str().as_bytes());
    put_bytes(out, path.name.as_str().as_bytes());
}

fn path(reader: &mut Reader) -> Result<ResourcePath, DecodeError> {
    let (tenant, namespace) = (tenant(reader)?, namespace(reader)?);
    let name = SessionId::new(&reader.text()?).ok_or(DecodeError::Malformed("a session's id"))?;
    Ok(ResourcePath::session(tenant, namespace, name))
}

fn tenant(reader: &mut Reader) -> Result<Tenant, DecodeError> {
    Tenant::new(&reader.text()?).ok_or(DecodeError::Malformed("a tenant"))
}

fn namespace(reader: &mut Reader) -> Result<Namespace, DecodeError> {
    Namespace::new(&reader.text()?).ok_or(DecodeError::Malformed("a namespace"))
}

fn put_optional(out: &mut Vec<u8>, id: Option<&SessionId>) {
    put_bytes(out, id.map_or("", SessionId::as_str).as_bytes());
}

fn optional(reader: &mut Reader) -> Result<Option<SessionId>, DecodeError> {
    match reader.text()? {
        text if text.is_empty() => Ok(None),
        text => SessionId::new(&text).map(Some).ok_or(DecodeError::Malformed("a session's id")),
    }
}

#[cfg(test)]
mod tests {
    use tl_core::{Metadata, SessionHeader};

    use super::*;

    fn place() -> ResourcePath {
        ResourcePath::session(
            Tenant::new("acme").expect("tenant"),
            Namespace::new("default").expect("namespace"),
            SessionId::new("chat/ü").expect("id"),
        )
    }

    fn row() -> SessionRow {
        let metadata = Metadata::new(&[("\"k\"".into(), "\"v\"".into())]);
        let header =
            SessionHeader { metadata, creator: "user:ann".into(), ..SessionHeader::default() };
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
        let groups = (0..=GROUPS_MAX as u16).map(GroupId).collect();
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
        for read in reads().iter().take(5) {
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
        assert_eq!(bytes, [0, 0, page, page, 0, parts, parts, parts]);
    }

    #[test]
    fn lines_are_numbered_from_the_place_that_was_asked_about() {
        let lines = numbered(Seq(4), vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        let seqs: Vec<u64> = lines.iter().map(|line| line.seq.0).collect();
        assert_eq!(seqs, [5, 6]);
    }
}
