//! Who counts for a leader (P1, P2): it goes by the newest members that it has applied, and never by
//! members of which two changes are over. Majorities of neighbours meet; those of members two changes
//! apart need not.

use tl_raft::Members;
use tl_types::{GroupId, Index};

use super::{Checked, Violation};

/// A machine leads and goes by `in_force`; it has applied up to `applied`. `committed` are all members
/// of the group that were ever committed, in order.
///
/// # Errors
/// They are too old.
pub fn in_force(
    machine: usize,
    group: GroupId,
    in_force: &Members,
    applied: Index,
    committed: &[Members],
) -> Checked {
    let broken = |why: &str, newest: &Members| {
        Err(Violation::new(
            "a leader goes by the newest members",
            format!("group {group}: machine {machine} leads by {in_force:?}, {why} {newest:?}"),
        ))
    };
    let mut newest = committed.iter().rev();
    let (last, earlier) = (newest.next(), newest.next());
    if let Some(earlier) = earlier.filter(|earlier| in_force.at < earlier.at) {
        return broken("and two changes are over since:", earlier);
    }
    match last {
        Some(last) if last.at <= applied && in_force.at < last.at => {
            broken("although it has applied", last)
        }
        Some(_) | None => Ok(()),
    }
}
