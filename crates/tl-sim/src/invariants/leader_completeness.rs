//! Leader completeness: whoever leads a term has every entry in its log that was committed in an
//! earlier term. So no leader ever asks a follower to forget what a client was told (P2).

use std::collections::BTreeMap;

use tl_types::{GroupId, Index, Term};

use super::{Checked, Violation};

/// Committed entries of a group, and when that was known.
#[derive(Debug, Default)]
struct Committed {
    /// By index: the entry's term and hash, and the term of the machine that applied it first.
    /// It was committed in that term or before.
    entries: BTreeMap<Index, (Term, u64, Term)>,
}

/// What was committed, by group.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    groups: BTreeMap<GroupId, Committed>,
}

impl LeaderCompleteness {
    /// The first machine has applied an entry, in its own term `known_in`.
    pub fn committed(&mut self, group: GroupId, index: Index, entry: (Term, u64), known_in: Term) {
        let committed = self.groups.entry(group).or_default();
        committed.entries.insert(index, (entry.0, entry.1, known_in));
    }

    /// A machine leads `term`. `has` gives term and hash of an entry of its log; entries before
    /// `first` have left its memory of the log, applied and durable.
    ///
    /// # Errors
    /// It lacks what was committed in an earlier term.
    pub fn led(
        &self,
        machine: usize,
        (group, term): (GroupId, Term),
        first: Index,
        has: impl Fn(Index) -> Option<(Term, u64)>,
    ) -> Checked {
        let Some(committed) = self.groups.get(&group) else { return Ok(()) };
        for (index, (entry_term, hash, known_in)) in committed.entries.range(first..) {
            if *known_in < term && has(*index) != Some((*entry_term, *hash)) {
                return Err(Violation::new(
                    "a leader has all that was committed",
                    format!(
                        "group {group}: machine {machine} leads term {term} without entry {index} \
                         of term {entry_term}, known to be committed in term {known_in}"
                    ),
                ));
            }
        }
        Ok(())
    }
}
