//! What the leader of a group does next when the group's members are not those of the list.
//!
//! ```text
//!   old votes ─ add learner ─► new one is given rows ─ swap ─► both majorities ─ leave ─► new votes
//! ```
//!
//! Everything is found by looking at the group, so whoever leads it next goes on where the last
//! one stopped. A step that Raft refuses is taken again later.
//!
//! Invariants:
//!  - P1 one number comes in for one that goes out, so a group has as many voters as before; the one that
//!    goes is a former life of the same name, so outside of a joint change no two lives of a name count;
//!  - P2 a number that is not on the list never comes in, and one that is on it never goes out;
//!    a list is not followed by groups that know a number it has not given out: it is an old one;
//!  - P3 a node begins no further group while [`AT_ONCE`] of those that it leads are under way.

use std::collections::{BTreeMap, BTreeSet};

use tl_raft::{MemberChange, Members, PeerId, Role};
use tl_types::GroupId;

use super::look::GroupLook;
use crate::cluster::{MemberList, Placement};

/// Groups under way at a time on a node that leads them.
pub const AT_ONCE: usize = 2;
/// A learner that lacks no more entries than this may be swapped in; Raft judges for itself, more
/// strictly, and what it refuses is asked for again.
const CAUGHT_UP_ENTRIES: u64 = 1_024;

/// What a list of members asks of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Who is to vote.
    pub peers: BTreeSet<PeerId>,
    /// The lowest number that this list does not know of.
    pub next_peer: PeerId,
    /// Of lives that are over, who has their name now, as far as it is remembered.
    pub heirs: BTreeMap<PeerId, PeerId>,
}

impl Wanted {
    /// As a list says of the members that have the group.
    #[must_use]
    pub fn by(list: &MemberList, placement: &Placement, group: GroupId) -> Wanted {
        let peers = placement.peers(group, list).into_iter().collect();
        Wanted { peers, next_peer: PeerId(list.next_peer), heirs: list.heirs() }
    }

    /// Who goes out for a number that comes in: the life before it of the same name. Where that is not
    /// among those that are to go, one whose own heir does not wait for its place, or finds it in
    /// another life of that name: there are no more heirs than places, so one of the two is there.
    fn goes_for(&self, new_in: PeerId, members: &Members) -> Option<PeerId> {
        let heir = |old: PeerId| self.heirs.get(&old).copied();
        let leave = || members.voters.iter().copied().filter(|peer| !self.peers.contains(peer));
        let waits = |heir: &PeerId| {
            *heir != new_in && self.peers.contains(heir) && !members.is_voter(*heir)
        };
        let is_kept = |old: PeerId| {
            let waiting = heir(old).filter(waits);
            waiting.is_some_and(|it| !leave().any(|twin| twin != old && heir(twin) == Some(it)))
        };
        leave().min_by_key(|old| (heir(*old) != Some(new_in), is_kept(*old)))
    }
}

/// What is to be done next in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: its members are those of the list.
    Done,
    /// Nothing now: the learner is given rows or entries.
    Wait,
    /// This, by its leader.
    Change(MemberChange),
}

/// The next step of a group with these members.
#[must_use]
pub fn next_step(
    members: &Members,
    wanted: &Wanted,
    is_caught_up: impl Fn(PeerId) -> bool,
) -> Step {
    if members.is_joint() {
        return Step::Change(MemberChange::LeaveJoint);
    }
    if members.highest >= wanted.next_peer {
        // This node has not heard of the list that the group follows already. A learner that it took
        // out could never come again.
        return Step::Wait;
    }
    // The lowest one first: a number comes in only above all that ever were.
    let comes = wanted.peers.iter().copied().find(|peer| !members.is_voter(*peer));
    // A learner that is not the one to come in was a life that was lost before it had a vote.
    let stale = members.learners.iter().copied().find(|peer| Some(*peer) != comes);
    if let Some(stale) = stale {
        return Step::Change(MemberChange::RemoveLearner(stale));
    }
    let goes = comes.and_then(|new_in| wanted.goes_for(new_in, members));
    let (Some(new_in), Some(old_out)) = (comes, goes) else { return Step::Done };
    if !members.is_learner(new_in) {
        return Step::Change(MemberChange::AddLearner(new_in));
    }
    match is_caught_up(new_in) {
        true => Step::Change(MemberChange::Swap { new_in, old_out }),
        false => Step::Wait,
    }
}

fn is_under_way(members: &Members) -> bool {
    members.is_joint() || !members.learners.is_empty()
}

fn step_of(look: &GroupLook, wanted: &Wanted) -> Step {
    next_step(&look.members, wanted, |peer| {
        let replica = look.followers.iter().find(|replica| replica.peer == peer);
        replica.is_some_and(|replica| {
            let has_some = replica.matched.is_some() && !replica.is_cut_off;
            has_some && replica.lag_entries <= CAUGHT_UP_ENTRIES
        })
    })
}

/// What this node proposes now, of the groups that it leads.
#[must_use]
pub fn due(
    looks: &[GroupLook],
    wanted: impl Fn(GroupId) -> Wanted,
) -> Vec<(GroupId, MemberChange)> {
    let led = || looks.iter().filter(|look| look.role == Role::Leader);
    let under_way = led().filter(|look| is_under_way(&look.members)).count();
    let mut room = AT_ONCE.saturating_sub(under_way);
    let mut due = Vec::new();
    for look in led() {
        let Step::Change(change) = step_of(look, &wanted(look.group)) else { continue };
        if !is_under_way(&look.members) {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        due.push((look.group, change));
    }
    due
}

/// How far a node's groups follow the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of the list.
    pub number: u64,
    /// Groups that were looked at.
    pub groups: usize,
    /// Those of them whose members are those of the list.
    pub done: usize,
    /// Members whose present life does not vote in every group yet, in order of their names.
    pub replacing: Vec<String>,
}

impl Progress {
    /// Whether every one of the node's groups was looked at and follows the list.
    #[must_use]
    pub fn is_complete(&self, groups: usize) -> bool {
        self.done == groups
    }
}

/// Counts the groups that follow the list.
#[must_use]
pub fn progress(looks: &[GroupLook], list: &MemberList, placement: &Placement) -> Progress {
    let is_done =
        |look: &&GroupLook| step_of(look, &Wanted::by(list, placement, look.group)) == Step::Done;
    let votes_everywhere = |place: usize, peer: PeerId| {
        let mut its_groups = looks.iter().filter(|look| placement.has(look.group, place));
        its_groups.all(|look| look.members.is_voter(peer))
    };
    let replacing = list.members.iter().enumerate();
    let replacing = replacing
        .filter(|(place, member)| !votes_everywhere(*place, PeerId(member.peer)))
        .map(|(_, member)| member);
    Progress {
        number: list.number,
        groups: looks.len(),
        done: looks.iter().filter(is_done).count(),
        replacing: replacing.map(|member| member.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests;
