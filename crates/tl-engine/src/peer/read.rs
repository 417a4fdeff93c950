//! What a node reads of another one's rows, and what it is answered.
//!
//! ```text
//!   read   = kind (1) body      row:   confirm (1) min_index (8; 0 for none) path
//!                               lines: group (2) number (8) after (8) upto (8) limit (2) bytes (4) tenant
//!                               watch: after (8) path
//!                               list:  consistent (1) listing (1) limit (2) tenant namespace after
//!                                      members: count (2) (name value)*  groups: count (2) group (2)*
//!                               applied: count (2) group (2)*
//!   found  = kind (1) body      row:   index (8) replies
//!                               lines: line*
//!                               gone:  from (8) next (8) committed (8) earliest (8)
//!                               head:  last_seq (8) ended (1) line*
//!                               list:  (group (2) resume_after replies)*
//!                               applied: count (2) (group (2) index (8))*
//!   path   = tenant namespace name
//! ```
//!
//! Texts, lines and replies are a length and the bytes. Lines are the events right behind the place
//! that was asked about, without holes, so that whoever asked numbers them. A text that may be absent
//! is empty then. Reads change nothing: they may be put to one member after the other.

use tl_core::list::{ListQuery, ListingFilter};
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_types::limits::PAGE_BYTES_MAX;
use tl_types::{GroupId, Index, ResourceNumber, ResourcePath, Seq, Tenant};

use self::parts::{
    at_most, flag, namespace, optional, page_limit, path, put_count, put_optional, put_path,
    put_u64, tenant,
};

mod found;
mod parts;

pub use self::found::{Found, numbered};

/// Most members of metadata that a list is filtered by: more than a request's target can name.
const FILTERS_MAX: usize = 8 * 1024;
/// Bytes of rows that a node is given of its parts of a list at once; one row always goes.
pub(crate) const PARTS_BYTES_MAX: usize = 2 * PAGE_BYTES_MAX;
/// Most groups that are asked about at once: all that a cluster may have.
const GROUPS_MAX: usize = 4_096;

mod kind {
    pub const ROW: u8 = 1;
    pub const LINES: u8 = 2;
    pub const WATCH: u8 = 3;
    pub const LIST: u8 = 4;
    pub const GONE: u8 = 5;
    pub const APPLIED: u8 = 6;
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
    /// How far groups are applied where they are led.
    Applied {
        /// Which groups.
        groups: Vec<GroupId>,
    },
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
            Read::Row { .. } | Read::Watch { .. } | Read::Applied { .. } => 0,
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
                put_groups(out, groups);
            }
            Read::Applied { groups } => {
                out.push(kind::APPLIED);
                put_groups(out, groups);
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
            kind::APPLIED => Read::Applied { groups: groups(reader)? },
            other => return Err(DecodeError::Unknown { what: "read", value: other.into() }),
        };
        match reader.is_empty() {
            true => Ok(read),
            false => Err(DecodeError::Malformed("bytes behind a read")),
        }
    }
}

fn put_groups(out: &mut Vec<u8>, groups: &[GroupId]) {
    put_count(out, groups.len());
    for group in groups {
        out.extend_from_slice(&group.0.to_be_bytes());
    }
}

fn groups(reader: &mut Reader) -> Result<Vec<GroupId>, DecodeError> {
    let count = at_most(reader, GROUPS_MAX, "number of groups")?;
    (0..count).map(|_| reader.u16().map(GroupId)).collect()
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
    let groups = groups(reader)?;
    let query = ListQuery { tenant, namespace, after, limit, listing, metadata };
    Ok(Read::List { consistent, query, groups })
}

#[cfg(test)]
mod tests;
