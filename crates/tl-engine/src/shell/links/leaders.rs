//! Who leads which group, as far as this node knows: of its own groups what its replicas say, of the others
//! what their answers show.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tl_raft::{PeerId, Role, RoleChange};
use tl_types::GroupId;

use super::Links;

/// How often this node came to lead a group, and which of these times it learnt by a round that
/// everything from before is applied here.
#[derive(Debug, Default)]
pub(super) struct Reign {
    number: AtomicU64,
    settled: AtomicU64,
}

impl Links {
    /// Who leads a group, if this node knows of anybody.
    pub(crate) fn leader(&self, group: GroupId) -> Option<PeerId> {
        let leader = self.leaders.get(usize::from(group.0))?.load(Ordering::Acquire);
        (leader != 0).then_some(PeerId(leader))
    }

    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.leader(group) == Some(self.me)
    }

    /// Which leadership of a group is this node's last one; 0 before the first.
    pub(crate) fn reign(&self, group: GroupId) -> u64 {
        let reign = self.reigns.get(usize::from(group.0));
        reign.map_or(0, |reign| reign.number.load(Ordering::Acquire))
    }

    /// A round that began in this leadership has ended, and what it confirmed is applied here.
    pub(crate) fn confirmed(&self, group: GroupId, number: u64) {
        if let Some(reign) = self.reigns.get(usize::from(group.0)) {
            reign.settled.fetch_max(number, Ordering::AcqRel);
        }
    }

    /// Whether this node leads a group and has applied what was acknowledged before it did.
    pub(crate) fn is_settled(&self, group: GroupId) -> bool {
        let Some(reign) = self.reigns.get(usize::from(group.0)) else { return false };
        self.leads(group)
            && reign.settled.load(Ordering::Acquire) == reign.number.load(Ordering::Acquire)
    }

    /// The first group with a copy here of which this node knows no leader.
    pub(crate) fn leaderless(&self) -> Option<GroupId> {
        self.local_groups().find(|group| self.leader(*group).is_none())
    }

    /// A member has shown that it leads a group that is elsewhere.
    pub(crate) fn leads_elsewhere(&self, group: GroupId, leader: PeerId) {
        self.note_elsewhere(group, leader.0);
    }

    /// Whoever was thought to lead a group that is elsewhere may not.
    pub(crate) fn forget_elsewhere(&self, group: GroupId) {
        self.note_elsewhere(group, 0);
    }

    fn note_elsewhere(&self, group: GroupId, leader: u64) {
        if self.is_local(group) {
            return; // Its replica here knows better.
        }
        if let Some(slot) = self.leaders.get(usize::from(group.0)) {
            slot.store(leader, Ordering::Release);
        }
    }

    /// Groups that this node leads and others should: each group's turn goes to one member.
    pub(crate) fn led_for_others(&self) -> Vec<(GroupId, PeerId)> {
        let present = self.present();
        let groups = (0..).map(GroupId).zip(&self.leaders);
        groups
            .filter(|(_, leader)| leader.load(Ordering::Acquire) == self.me.0)
            .filter_map(|(group, _)| {
                let replicas = self.replicas(group);
                let turn = usize::from(group.0).checked_rem(replicas.len())?;
                Some((group, replicas[turn])).filter(|(_, turn)| present.contains(turn))
            })
            .collect()
    }

    /// How many groups this node leads.
    pub(crate) fn led(&self) -> usize {
        self.leaders.iter().filter(|leader| leader.load(Ordering::Acquire) == self.me.0).count()
    }

    /// The driver says that roles changed. A node that no longer leads, and is well, still answers
    /// what it was asked before: its entries are committed or overwritten. One that hangs does not,
    /// and is not waited for much longer.
    pub(crate) fn roles_changed(&self, changes: &[RoleChange]) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            let leader = if change.role == Role::Leader { Some(self.me) } else { change.leader };
            let Some(slot) = self.leaders.get(usize::from(change.group.0)) else { continue };
            if change.role == Role::Leader
                && let Some(reign) = self.reigns.get(usize::from(change.group.0))
            {
                // Before it is seen to lead.
                reign.number.fetch_add(1, Ordering::AcqRel);
            }
            slot.store(leader.map_or(0, |leader| leader.0), Ordering::Release);
            if let Some(leader) = leader {
                self.give_up(change.group, leader);
            }
        }
        self.changed.notify_waiters();
    }

    /// Waits until some group's leader changes, or for so long.
    pub(crate) async fn wait_for_change(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.changed.notified()).await;
    }

    /// A member did not take a write of a group, or does not say so: of one that is elsewhere it may not be
    /// the leader, and the next write looks for that.
    pub(super) fn doubt(&self, group: GroupId, peer: PeerId) {
        if let Some(leader) =
            self.leaders.get(usize::from(group.0)).filter(|_| !self.is_local(group))
        {
            // Whoever was found to lead meanwhile stays.
            let _ = leader.compare_exchange(peer.0, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
