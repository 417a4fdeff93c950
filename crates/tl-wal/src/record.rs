//! What the log holds: records of Raft groups, and positions.

use std::fmt;

use bytes::Bytes;
use tl_types::{Generation, GroupId, Index, Term};

/// A place in the log, counted in bytes of records since the log began.
///
/// Positions run on across segments without a hole, whatever the segments' sizes, and never
/// name another place after a segment is recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The position `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One record of one group.
///
/// The log keeps order and bytes and gives them no meaning, with one exception: the last
/// [`HardState`](Record::HardState), [`Membership`](Record::Membership) and
/// [`Installed`](Record::Installed) of every group are repeated at the head of each segment,
/// so that older segments can go. On replay a repeated record is handed over only at the very
/// start of the log; everything after it arrives once, in the order in which it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// One Raft entry. A later entry with the same or a lower index replaces what it overlaps.
    Entry {
        /// The group.
        group: GroupId,
        /// Term of the entry.
        term: Term,
        /// Index of the entry.
        index: Index,
        /// The entry's bytes; at most `entry_bytes_max` of the log's options.
        data: Bytes,
    },
    /// What a replica promised: its term and its vote in it. The commit index is not kept.
    HardState {
        /// The group.
        group: GroupId,
        /// Current term.
        term: Term,
        /// Raft id voted for in this term; 0 = nobody.
        vote: u64,
    },
    /// Who belongs to the group, encoded by the caller.
    Membership {
        /// The group.
        group: GroupId,
        /// Encoded membership; at most [`MEMBERSHIP_BYTES_MAX`](crate::MEMBERSHIP_BYTES_MAX).
        bytes: Bytes,
    },
    /// A snapshot of the group's rows is in place under this generation; the group's log
    /// starts again right after `index`.
    Installed {
        /// The group.
        group: GroupId,
        /// Last index that the rows contain.
        index: Index,
        /// Term of the entry at that index.
        term: Term,
        /// Generation of the rows.
        generation: Generation,
    },
}

impl Record {
    /// The group that the record belongs to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            Record::Entry { group, .. }
            | Record::HardState { group, .. }
            | Record::Membership { group, .. }
            | Record::Installed { group, .. } => *group,
        }
    }
}
