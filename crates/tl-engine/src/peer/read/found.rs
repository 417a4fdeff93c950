//! What was found where somebody read for another node.

use bytes::Bytes;
use tl_core::list::ListPage;
use tl_core::reply::{decode_replies, encode_replies};
use tl_core::{Reply, SessionRow};
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_types::limits::PAGE_MAX;
use tl_types::{GroupId, Index, Seq};
use tl_wire::reply::{Gap, GapReason};

use super::parts::{at_most, optional, put_count, put_optional, put_u64};
use super::{GROUPS_MAX, kind};
use crate::api::{EventLine, TailEnd};

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
    /// How far groups are applied where they are led; those that are not led there are left out.
    Applied(Vec<(GroupId, Index)>),
}

impl Found {
    /// Whether nobody else needs to be asked.
    #[must_use]
    pub fn is_something(&self) -> bool {
        match self {
            Found::Row { .. } | Found::Gone(_) | Found::Head { .. } | Found::Applied(_) => true,
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
            Found::Applied(groups) => {
                out.push(kind::APPLIED);
                put_count(out, groups.len());
                for (group, index) in groups {
                    out.extend_from_slice(&group.0.to_be_bytes());
                    put_u64(out, index.0);
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
            kind::APPLIED => {
                let count = at_most(&mut reader, GROUPS_MAX, "number of groups")?;
                let mut group = || Ok((GroupId(reader.u16()?), Index(reader.u64()?)));
                Found::Applied((0..count).map(|_| group()).collect::<Result<_, DecodeError>>()?)
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
