//! State machine safety: what one machine applies at an index, every machine applies there, in
//! every life. It follows a machine's applied index and looks into its log for what was applied.

use tl_types::{GroupId, Index, Term};

use super::Violation;

/// What was applied, by group and index.
#[derive(Debug, Default)]
pub struct AppliedAlike {
    groups: Vec<Vec<Option<(Term, u64)>>>,
}

impl AppliedAlike {
    /// A machine has applied an entry of this term and content hash. Returns whether it is the
    /// first machine to do so.
    ///
    /// # Errors
    /// Another entry was applied there.
    pub fn applied(
        &mut self,
        machine: usize,
        group: GroupId,
        index: Index,
        entry: (Term, u64),
    ) -> Result<bool, Violation> {
        let (group_at, index_at) = (usize::from(group.0), index.0 as usize);
        if self.groups.len() <= group_at {
            self.groups.resize(group_at + 1, Vec::new());
        }
        let applied = &mut self.groups[group_at];
        if applied.len() <= index_at {
            applied.resize(index_at + 1, None);
        }
        match applied[index_at].replace(entry) {
            None => Ok(true),
            Some(other) if other == entry => Ok(false),
            Some(other) => Err(Violation::new(
                "all replicas apply the same",
                format!(
                    "group {group}, index {index}: machine {machine} applied an entry of term {}, \
                     another one of term {} with other content was applied there before",
                    entry.0, other.0
                ),
            )),
        }
    }
}
