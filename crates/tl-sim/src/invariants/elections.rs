//! Election safety: a group has at most one leader in a term. Two would each take writes that
//! the other has not, so this holds up everything else (P1, P2).

use std::collections::BTreeMap;

use tl_types::{GroupId, Term};

use super::{Checked, Violation};

/// Who led which term.
#[derive(Debug, Default)]
pub struct Elections {
    leaders: BTreeMap<(GroupId, Term), (usize, u64)>,
}

impl Elections {
    /// A process (the `life`th of a machine) says that it leads.
    ///
    /// # Errors
    /// Another process said so for the same term.
    pub fn led(&mut self, group: GroupId, term: Term, machine: usize, life: u64) -> Checked {
        match self.leaders.insert((group, term), (machine, life)) {
            Some(other) if other != (machine, life) => Err(Violation::new(
                "one leader per term",
                format!(
                    "group {group}, term {term}: machine {machine} leads, and machine {} did",
                    other.0
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }
}
