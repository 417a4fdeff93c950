//! Log matching: entries of the same group, index and term are the same bytes in every log. A
//! follower relies on it when it compares only the term of the entry before an append.

use std::collections::HashMap;

use tl_types::{GroupId, Index, Term};

use super::{Checked, Violation};

/// A hash of every entry that was given to a log.
#[derive(Debug, Default)]
pub struct LogMatching {
    seen: HashMap<(GroupId, Index, Term), u64>,
}

impl LogMatching {
    /// A machine writes an entry to its log.
    ///
    /// # Errors
    /// The same place and term held other bytes in some log.
    pub fn wrote(&mut self, group: GroupId, index: Index, term: Term, hash: u64) -> Checked {
        match self.seen.insert((group, index, term), hash) {
            Some(other) if other != hash => Err(Violation::new(
                "same index and term, same entry",
                format!("group {group}: entry {index} of term {term} has two contents"),
            )),
            Some(_) | None => Ok(()),
        }
    }
}
