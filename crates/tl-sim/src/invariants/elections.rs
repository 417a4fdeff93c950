//! Election safety: a machine votes once in a term, and a group has at most one leader in it. Two would each take writes that
//! the other has not, so this holds up everything else (P1, P2).

use std::collections::BTreeMap;

use tl_types::{GroupId, Term};

use super::{Checked, Violation};

/// A machine whose newest term and vote in a group are `before` writes that it now has `after`.
///
/// # Errors
/// The term falls, or the vote of a term changes: both votes could make a majority.
pub fn votes(machine: usize, group: GroupId, before: (Term, u64), after: (Term, u64)) -> Checked {
    if after.0 < before.0 || (after.0 == before.0 && before.1 != 0 && after.1 != before.1) {
        return Err(Violation::new(
            "one vote per term",
            format!(
                "group {group}, machine {machine}: in term {} it voted for {}, and then in term {} \
                 for {}",
                before.0, before.1, after.0, after.1
            ),
        ));
    }
    Ok(())
}

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
