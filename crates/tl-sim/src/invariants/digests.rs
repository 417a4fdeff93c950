//! Determinism of the rules: replicas that have applied the same entries hold the same digest
//! over all rows that these wrote.

use std::collections::HashMap;

use tl_types::{GroupId, Index};

use super::Violation;

/// The digest of each group at each index at which somebody was looked at.
#[derive(Debug, Default)]
pub struct Digests {
    seen: HashMap<(GroupId, Index), u128>,
}

impl Digests {
    /// A machine stands at `index` with this digest. Returns whether it could be compared.
    ///
    /// # Errors
    /// Another machine, or an earlier life of this one, stood there with another digest.
    pub fn stands(
        &mut self,
        machine: usize,
        group: GroupId,
        index: Index,
        digest: u128,
    ) -> Result<bool, Violation> {
        match self.seen.insert((group, index), digest) {
            None => Ok(false),
            Some(other) if other == digest => Ok(true),
            Some(other) => Err(Violation::new(
                "equal digests at equal indexes",
                format!(
                    "group {group}, index {index}: machine {machine} has digest {digest:032x}, \
                     another replica had {other:032x}"
                ),
            )),
        }
    }
}
