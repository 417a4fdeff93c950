//! What the shell should do next: hints, which a restart may lose.
//!
//! Waking tailers is for every replica; what leads to proposals is the leader's. What must
//! happen can be found again in the rows.

use tl_types::{ResourceNumber, ResourcePath, Seq, UnixMs};

use crate::session::SessionRow;

/// One hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Wake tailers: events up to and including `last_seq` may now be read.
    Publish {
        /// The session's number.
        number: ResourceNumber,
        /// The session's name.
        path: ResourcePath,
        /// First event of this write.
        first_seq: Seq,
        /// Last event of this write, which is the session's head.
        last_seq: Seq,
    },
    /// A session's own row changed; tails of a closed or tombstoned session end at its head.
    SessionChanged {
        /// What happened.
        change: Change,
        /// The session after it.
        row: Box<SessionRow>,
    },
    /// The group has work for a `Tick` at this instant.
    DueAt(UnixMs),
}

/// What happened to a session, in the words of lifecycle events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Created,
    /// It takes events; follows every `Created`.
    Activated,
    /// Title or metadata changed.
    Updated,
    /// Hidden from default lists.
    Archived,
    /// Shown in default lists again.
    Unarchived,
    /// Takes no more events.
    Closed,
    /// Deleted.
    Tombstoned,
}

impl Change {
    /// The word used on the wire, behind `session.`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Activated => "activated",
            Change::Updated => "updated",
            Change::Archived => "archived",
            Change::Unarchived => "unarchived",
            Change::Closed => "closed",
            Change::Tombstoned => "tombstoned",
        }
    }
}
