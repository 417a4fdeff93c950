//! Entries taken from leaders that the disk or the caller is not done with, and when there are too many.
//!
//! A leader's window says how much of one group may be under way. With many groups, and a disk that
//! stalls here alone, all windows together hold far more than a node has memory for, and what is
//! committed by the others goes on coming. So past a limit appends are passed over as if they were
//! lost. What the limit counts goes down without any peer's help: entries on their way to the disk,
//! and committed ones on their way to the rows. Those that are on disk and not committed do not count;
//! it takes an append to commit them, or to put others in their place.
//!
//! Beats, votes and answers are taken in any case: a node without room follows, and is counted as there.

use raft::eraftpb::{Message, MessageType};
use tl_wal::Record;

use crate::deeds::Committed;

/// Counted for an entry on top of its data, bytes.
const ENTRY_OVERHEAD: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// In log jobs that are not confirmed.
    unwritten_bytes: usize,
    /// Committed and not applied; the caller says so.
    unapplied_bytes: usize,
    /// The caller has no place for what would be applied.
    has_no_place: bool,
    /// Taken since the turn began: not yet in a job.
    taken_bytes: usize,
    passed_over: u64,
}

impl Followed {
    pub(super) fn set_waiting(&mut self, bytes: usize, has_no_place: bool) {
        (self.unapplied_bytes, self.has_no_place) = (bytes, has_no_place);
    }

    /// Whether there is room for a message. One append is always taken when nothing waits.
    pub(super) fn takes(&mut self, message: &Message, bytes_max: usize) -> bool {
        if message.get_msg_type() != MessageType::MsgAppend || message.entries.is_empty() {
            return true;
        }
        let waiting = self.unwritten_bytes + self.unapplied_bytes + self.taken_bytes;
        if self.has_no_place || waiting >= bytes_max {
            self.passed_over += 1;
            return false;
        }
        self.taken_bytes += message.entries.iter().map(|it| counted(&it.data)).sum::<usize>();
        true
    }

    /// A log job has so much of it.
    pub(super) fn hand_out(&mut self, bytes: usize) {
        self.unwritten_bytes += bytes;
    }

    /// A log job that had so much is on disk.
    pub(super) fn confirmed(&mut self, bytes: usize) {
        self.unwritten_bytes -= bytes;
    }

    /// Appends passed over in this turn.
    pub(super) fn end_turn(&mut self) -> u64 {
        self.taken_bytes = 0;
        std::mem::take(&mut self.passed_over)
    }
}

/// What an entry counts for.
fn counted(data: &[u8]) -> usize {
    data.len() + ENTRY_OVERHEAD
}

impl Committed {
    /// What it counts for among entries that came from a leader; nothing if it was proposed here, where
    /// it was let in under a limit of its own.
    #[must_use]
    pub fn followed_bytes(&self) -> usize {
        if self.token.is_some() { 0 } else { counted(&self.data) }
    }
}

/// The entries among records.
pub(super) fn followed_bytes(records: &[Record]) -> usize {
    let of_one = |record: &Record| match record {
        Record::Entry { data, .. } => counted(data),
        _ => 0,
    };
    records.iter().map(of_one).sum()
}
