//! A machine whose disk was lost has another number, and only one of its numbers ever counts: what
//! the lost one had promised nobody remembers (P1).

use tl_raft::{Members, PeerId};
use tl_types::GroupId;

use super::{Checked, Violation};

/// Looks at members that were committed; `machine_of` says where a number lives or lived.
///
/// # Errors
/// Two numbers of a machine are in one majority.
pub fn counts_once(
    group: GroupId,
    members: &Members,
    machine_of: impl Fn(PeerId) -> usize,
) -> Checked {
    for list in [&members.voters, &members.voters_outgoing] {
        let mut machines: Vec<usize> = list.iter().map(|peer| machine_of(*peer)).collect();
        machines.sort_unstable();
        machines.dedup();
        if machines.len() < list.len() {
            return Err(Violation::new(
                "a machine counts once",
                format!("group {group}: two numbers of one machine are in {members:?}"),
            ));
        }
    }
    Ok(())
}

/// A machine votes for itself; `may_vote` are all members that were ever proposed.
///
/// # Errors
/// It has no vote by any of them.
pub fn stands<'a>(
    group: GroupId,
    peer: PeerId,
    mut may_vote: impl Iterator<Item = &'a Members>,
) -> Checked {
    if may_vote.any(|members| members.is_voter(peer)) {
        return Ok(());
    }
    Err(Violation::new(
        "who stands has a vote",
        format!("group {group}: {peer} votes for itself and was never given a vote"),
    ))
}
