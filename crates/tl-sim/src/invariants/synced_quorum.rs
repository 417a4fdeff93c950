//! P1: nothing is applied anywhere, and so nothing is acknowledged, before a majority of the
//! group's members has its log record on disk, synced; and of both majorities while members change.

use tl_raft::{Members, PeerId};
use tl_types::{GroupId, Index, Term};

use super::{Checked, Violation};

/// Judges an entry at the moment when the first machine applies it: `confirmed` says of each
/// number whether its disk has confirmed the entry. `committed` are the members of the group in the
/// order in which they came. The leader that committed the entry went by the last of those from
/// before the entry, or by the ones before these if it had not taken up the last change yet.
///
/// # Errors
/// Too few have.
pub fn check(
    group: GroupId,
    index: Index,
    term: Term,
    committed: &[Members],
    confirmed: impl Fn(PeerId) -> bool,
) -> Checked {
    let majority = |list: &[PeerId]| {
        list.is_empty() || list.iter().filter(|peer| confirmed(**peer)).count() * 2 > list.len()
    };
    let agreed =
        |members: &&Members| majority(&members.voters) && majority(&members.voters_outgoing);
    let mut before = committed.iter().rev().filter(|members| members.at < index).peekable();
    // A change itself is committed by the members before it: the leader had taken those up.
    let is_change = committed.iter().any(|members| members.at == index);
    let last = before.next();
    let earlier = before.next().filter(|_| !is_change);
    if last.iter().chain(&earlier).any(agreed) {
        return Ok(());
    }
    Err(Violation::new(
        "applied means synced on a majority",
        format!(
            "group {group}: entry {index} of term {term} was applied before the disks of a \
             majority of {last:?} had confirmed it"
        ),
    ))
}
