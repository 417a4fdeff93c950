//! The key space: one ordered space per node, and the only place where its layout is written.
//!
//! ```text
//! full key = group u16 ‖ generation u32 ‖ row key
//! row key  = table u8 ‖ resource number u64 ‖ rest          (integers big-endian)
//! ```
//!
//! Rules see row keys only; the group and the generation of its rows are put in front by
//! whoever owns the store, so that a snapshot install is a switch of one row.
//!
//! | table | number | rest | value |
//! |---|---|---|---|
//! | `Applied` | 0 | – | generation 0 only: last applied index, term, live generation |
//! | `Group` | 0 | field u8 | the group's counters: next number, last stamp and digest; the list of members |
//! | `Directory` | 0 | kind u8, tenant, 0, namespace, 0, name | resource number, listing flags |
//! | `Session` | session | – | header |
//! | `Event` | session | seq u64 | stamp u64 ‖ envelope |
//! | `Producer` | session | producer id | last accepted writes |
//! | `ProducerAge` | session | seq u64 of about the last write, producer id | – |
//! | `Request` | 0 | request id 16 | stamp u64, first reply |
//! | `RequestAge` | 0 | stamp u64, request id 16 | – |
//!
//! Table numbers are never reused. In directory keys tenant and namespace end with a zero
//! byte, which neither may contain, so that byte order is order by (tenant, namespace, name).

use smallvec::SmallVec;

use crate::ids::{Generation, GroupId, RequestId, ResourceNumber, Seq};
use crate::path::{Kind, ResourcePath};

/// Tables of the key space. Numbers once given out are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// The store's own: applied index of a group.
    Applied = 0,
    /// Counters of the group.
    Group = 1,
    /// Name → number.
    Directory = 2,
    /// Session headers.
    Session = 3,
    /// Session events.
    Event = 4,
    /// Producer state.
    Producer = 5,
    /// Producers of a session by last write.
    ProducerAge = 6,
    /// First replies by request id.
    Request = 7,
    /// Request ids by age.
    RequestAge = 8,
}

impl Table {
    /// All tables, in key order.
    pub const ALL: [Table; 9] = [
        Table::Applied,
        Table::Group,
        Table::Directory,
        Table::Session,
        Table::Event,
        Table::Producer,
        Table::ProducerAge,
        Table::Request,
        Table::RequestAge,
    ];

    /// The table with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Table> {
        Table::ALL.get(usize::from(number)).copied()
    }
}

/// Fields of the `Group` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GroupField {
    /// Next resource number to give out, u64.
    NextNumber = 1,
    /// Of the last entry that wrote rows: its stamp, u64 ms, and the running digest, u128.
    Last = 2,
    /// Requests remembered, u64.
    RequestCount = 4,
    /// In one group only: the number of the cluster's list of members, u64, and the list.
    Members = 5,
}

/// Bytes of the table and number in front of every row key's rest.
pub const ROW_HEAD_BYTES: usize = 9;
/// Bytes of group and generation in front of a row key.
pub const FULL_HEAD_BYTES: usize = 6;

/// A key within one group: table, resource number, rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(SmallVec<[u8; 40]>);

impl RowKey {
    fn new(table: Table, number: ResourceNumber, rest: &[&[u8]]) -> RowKey {
        let mut head = [0; ROW_HEAD_BYTES];
        head[0] = table as u8;
        head[1..].copy_from_slice(&number.0.to_be_bytes());
        let mut key = SmallVec::from_slice(&head);
        for part in rest {
            key.extend_from_slice(part);
        }
        RowKey(key)
    }

    /// A row key read back from bytes, if it names a known table.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<RowKey> {
        let known = bytes.len() >= ROW_HEAD_BYTES && Table::from_number(bytes[0]).is_some();
        known.then(|| RowKey(SmallVec::from_slice(bytes)))
    }

    /// A counter of the group.
    #[must_use]
    pub fn group(field: GroupField) -> RowKey {
        RowKey::new(Table::Group, ResourceNumber(0), &[&[field as u8]])
    }

    /// The directory row of a resource.
    #[must_use]
    pub fn directory(path: &ResourcePath) -> RowKey {
        RowKey::new(
            Table::Directory,
            ResourceNumber(0),
            &[
                &[path.kind as u8],
                path.tenant.as_str().as_bytes(),
                &[0],
                path.namespace.as_str().as_bytes(),
                &[0],
                path.name.as_str().as_bytes(),
            ],
        )
    }

    /// Where the directory rows of one kind, tenant and namespace begin; names follow directly.
    #[must_use]
    pub fn directory_prefix(kind: Kind, tenant: &str, namespace: &str) -> RowKey {
        RowKey::new(
            Table::Directory,
            ResourceNumber(0),
            &[&[kind as u8], tenant.as_bytes(), &[0], namespace.as_bytes(), &[0]],
        )
    }

    /// A session's header.
    #[must_use]
    pub fn session(number: ResourceNumber) -> RowKey {
        RowKey::new(Table::Session, number, &[])
    }

    /// One event of a session.
    #[must_use]
    pub fn event(number: ResourceNumber, seq: Seq) -> RowKey {
        RowKey::new(Table::Event, number, &[&seq.0.to_be_bytes()])
    }

    /// A producer's state in a session.
    #[must_use]
    pub fn producer(number: ResourceNumber, producer_id: &str) -> RowKey {
        RowKey::new(Table::Producer, number, &[producer_id.as_bytes()])
    }

    /// A producer's place in its session's order of last writes.
    #[must_use]
    pub fn producer_age(number: ResourceNumber, age_seq: Seq, producer_id: &str) -> RowKey {
        RowKey::new(Table::ProducerAge, number, &[&age_seq.0.to_be_bytes(), producer_id.as_bytes()])
    }

    /// The remembered reply of a request.
    #[must_use]
    pub fn request(id: RequestId) -> RowKey {
        RowKey::new(Table::Request, ResourceNumber(0), &[&id.0])
    }

    /// A request's place in the group's order of age.
    #[must_use]
    pub fn request_age(stamp_ms: u64, id: RequestId) -> RowKey {
        RowKey::new(Table::RequestAge, ResourceNumber(0), &[&stamp_ms.to_be_bytes(), &id.0])
    }

    /// First key of a table's rows for one number; with [`RowKey::table_end`] it bounds a range.
    #[must_use]
    pub fn table_start(table: Table, number: ResourceNumber) -> RowKey {
        RowKey::new(table, number, &[])
    }

    /// First key behind all of a table's rows for one number.
    #[must_use]
    pub fn table_end(table: Table, number: ResourceNumber) -> RowKey {
        RowKey::table_start(table, number).prefix_end()
    }

    /// First key behind all keys that begin with this one.
    #[must_use]
    pub fn prefix_end(&self) -> RowKey {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        RowKey(end)
    }

    /// This key with more bytes behind it.
    #[must_use]
    pub fn with(&self, rest: &[u8]) -> RowKey {
        let mut key = self.0.clone();
        key.extend_from_slice(rest);
        RowKey(key)
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The table this row is in.
    ///
    /// # Panics
    /// Never for keys that this module made, but for ends of ranges, which are no rows.
    #[must_use]
    pub fn table(&self) -> Table {
        Table::from_number(self.0[0]).expect("row keys are made with a known table")
    }

    /// The resource number.
    #[must_use]
    pub fn number(&self) -> ResourceNumber {
        let bytes = self.0[1..ROW_HEAD_BYTES].try_into().expect("row keys have a full head");
        ResourceNumber(u64::from_be_bytes(bytes))
    }

    /// What follows table and number.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.0[ROW_HEAD_BYTES..]
    }

    /// The seq of an event row, else `None`.
    #[must_use]
    pub fn event_seq(&self) -> Option<Seq> {
        if self.0[0] != Table::Event as u8 {
            return None;
        }
        Some(Seq(u64::from_be_bytes(self.rest().try_into().ok()?)))
    }
}

/// A key of the node's whole key space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FullKey(SmallVec<[u8; 48]>);

impl FullKey {
    /// A row of one generation of a group.
    #[must_use]
    pub fn new(group: GroupId, generation: Generation, row: &RowKey) -> FullKey {
        let mut key = SmallVec::new();
        key.extend_from_slice(&group.0.to_be_bytes());
        key.extend_from_slice(&generation.0.to_be_bytes());
        key.extend_from_slice(row.as_bytes());
        FullKey(key)
    }

    /// Where the store keeps a group's applied index (always generation 0).
    #[must_use]
    pub fn applied(group: GroupId) -> FullKey {
        let row = RowKey::table_start(Table::Applied, ResourceNumber(0));
        FullKey::new(group, Generation(0), &row)
    }

    /// A full key read back from bytes, if it is one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<FullKey> {
        RowKey::from_bytes(bytes.get(FULL_HEAD_BYTES..)?)?;
        Some(FullKey(SmallVec::from_slice(bytes)))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Group, generation and row key.
    ///
    /// # Panics
    /// Never for keys made here or read by [`FullKey::from_bytes`].
    #[must_use]
    pub fn parts(&self) -> (GroupId, Generation, RowKey) {
        let group = u16::from_be_bytes(self.0[..2].try_into().expect("full head"));
        let generation = u32::from_be_bytes(self.0[2..6].try_into().expect("full head"));
        let row = RowKey(SmallVec::from_slice(&self.0[FULL_HEAD_BYTES..]));
        (GroupId(group), Generation(generation), row)
    }
}

#[cfg(test)]
mod tests;
