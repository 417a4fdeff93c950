//! What replicas say to one another when one of them has lost records of its log that were durable.
//!
//! Such a replica is *doubted*: it may have forgotten votes that it gave and entries that it
//! acknowledged. It asks every other voter how far that is ([`Note::Asked`]), and goes on only from rows
//! that hold whatever it can have acknowledged, given by a leader whose term is not below any in which
//! it can have voted. Why the answers say so stands in `group::doubt`.
//!
//! That a group is doubted is itself on record: the vote in its hard state is [`DOUBTED`] until it
//! goes on. So it stays doubted when the damaged part of the log has been let go, and damage before
//! such a record is known to be behind it.

use tl_types::{Index, Term};

/// Stands for the vote in the hard state of a group whose log was damaged, until it goes on from
/// rows of its leader. No replica has this number.
pub const DOUBTED: u64 = u64::MAX;

/// Ticks after which a doubted replica asks again.
pub(crate) const ASK_TICKS: u32 = 4;

/// What is said between two replicas of one group beside Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// The sender is doubted. Of a leader it wants rows.
    Asked {
        /// Another one at each start of the sender.
        number: u64,
    },
    /// Where the sender stands.
    Told {
        /// As it was asked.
        number: u64,
        /// The sender's term.
        term: Term,
        /// Of a leader: the rows that it gives hold this entry at least, which was its last one when it
        /// was first asked under this number. Of others, their last entry.
        last: Index,
        /// The change that made the members that the sender has on disk.
        members_at: Index,
    },
}
