//! P1: nothing is committed, and so nothing is applied or acknowledged, before a majority of the
//! group's members has its log record on disk, synced; and of both majorities while members change.
//! It is judged at the moment when a leader says that an entry is committed, by the members that
//! this leader goes by. Whether it may go by these is for [`super::members`] to say.

use tl_raft::{Members, PeerId};
use tl_types::{GroupId, Index, Term};

use super::{Checked, Violation};

/// A leader has committed an entry in a turn: `by` are the members that it went by before and behind
/// that turn, and `confirmed` says of each number whether its disk has confirmed the entry.
///
/// # Errors
/// Too few have.
pub fn check<'a>(
    group: GroupId,
    index: Index,
    term: Term,
    by: impl IntoIterator<Item = &'a Members>,
    confirmed: impl Fn(PeerId) -> bool,
) -> Checked {
    let majority = |list: &[PeerId]| {
        list.is_empty() || list.iter().filter(|peer| confirmed(**peer)).count() * 2 > list.len()
    };
    let mut last = None;
    for members in by {
        if majority(&members.voters) && majority(&members.voters_outgoing) {
            return Ok(());
        }
        last = Some(members);
    }
    Err(Violation::new(
        "committed means synced on a majority",
        format!(
            "group {group}: entry {index} of term {term} was committed before the disks of a \
             majority of {last:?} had confirmed it"
        ),
    ))
}

/// A machine has applied an entry; leaders have committed all up to `committed`.
///
/// # Errors
/// No leader has committed it.
pub fn applied(machine: usize, group: GroupId, index: Index, committed: Index) -> Checked {
    if index <= committed {
        return Ok(());
    }
    Err(Violation::new(
        "applied means committed by a leader",
        format!(
            "group {group}: machine {machine} applied entry {index}, and leaders have committed \
             up to {committed}"
        ),
    ))
}
