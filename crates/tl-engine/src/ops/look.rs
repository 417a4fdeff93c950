//! One look at all groups of a node, taken by the driver's thread.

use tl_raft::{Driver, FollowerStatus, GroupStatus, Members, PeerId, Role};
use tl_types::{GroupId, Index, Term};

/// How a group stands on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLook {
    /// The group.
    pub group: GroupId,
    /// What this node is in it.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<PeerId>,
    /// Last entry of the log here.
    pub last: Index,
    /// Last entry known here to be committed.
    pub committed: Index,
    /// Last entry applied here.
    pub applied: Index,
    /// Its members, as of the last entry applied to them here.
    pub members: Members,
    /// The other replicas, as long as this node leads.
    pub followers: Vec<Replica>,
}

/// Another replica, as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// Where it is.
    pub peer: PeerId,
    /// The last entry that it has on disk, if it said so.
    pub matched: Option<Index>,
    /// Entries that it lacks; at least so many before it said what it has.
    pub lag_entries: u64,
    /// Whether the leader no longer has in memory what it lacks.
    pub is_cut_off: bool,
}

/// Looks at every group that lives on this node; `applied` says how far each is.
#[must_use]
pub fn look(driver: &Driver, groups: u16, applied: impl Fn(GroupId) -> Index) -> Vec<GroupLook> {
    let groups = (0..groups).map(GroupId);
    groups
        .filter_map(|group| Some((group, driver.status(group)?)))
        .map(|(group, status)| {
            let GroupStatus { role, term, leader, last, committed, members, .. } = status;
            let followers = driver.followers(group);
            let followers = followers.into_iter().map(|follower| replica(follower, last));
            GroupLook {
                group,
                role,
                term,
                leader,
                last,
                committed,
                applied: applied(group),
                members,
                followers: followers.collect(),
            }
        })
        .collect()
}

fn replica(follower: FollowerStatus, last: Index) -> Replica {
    let FollowerStatus { peer, matched, next, is_cut_off } = follower;
    let has = matched.map_or(next.0.saturating_sub(1), |matched| matched.0);
    let lag_entries = last.0.saturating_sub(has);
    Replica { peer, matched, lag_entries, is_cut_off }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_confirmed_nothing_yet_lacks_what_it_is_sent_next() {
        let next = Index(9);
        let follower =
            FollowerStatus { peer: PeerId(2), matched: Some(Index(7)), next, is_cut_off: false };
        assert_eq!(replica(follower, Index(10)).lag_entries, 3);
        assert_eq!(replica(follower, Index(7)).lag_entries, 0);
        let unknown = FollowerStatus { matched: None, ..follower };
        assert_eq!(replica(unknown, Index(10)).lag_entries, 2);
        assert_eq!(replica(unknown, Index(8)).lag_entries, 0);
    }
}
