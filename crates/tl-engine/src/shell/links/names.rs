//! Who the members and routers are, what they are called, and which of them have which groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use tl_raft::PeerId;
use tl_types::GroupId;

use super::Links;
use crate::cluster::{MemberList, Placement};
use crate::identity::Member;

/// Who the members are, and who was one.
#[derive(Debug)]
pub(super) struct Names {
    /// In order of their names, which stay while lives change.
    pub(super) members: Vec<PeerId>,
    /// Members and routers, in order of their names.
    pub(super) all: Vec<PeerId>,
    names: BTreeMap<PeerId, Arc<str>>,
}

impl Names {
    pub(super) fn of(list: &MemberList, routers: &[Member]) -> Names {
        let former = list.former.iter().map(|former| (former.peer, &former.name));
        let named = |member: &Member| (PeerId(member.peer), Arc::<str>::from(member.name.as_str()));
        let present = list.members.iter().chain(routers).map(named);
        let former = former.map(|(peer, name)| (PeerId(peer), Arc::<str>::from(name.as_str())));
        let names: BTreeMap<PeerId, Arc<str>> = former.chain(present).collect();
        let members = list.members.iter().map(|member| PeerId(member.peer)).collect();
        let mut all: Vec<&Member> = list.members.iter().chain(routers).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Names { members, all: all.iter().map(|member| PeerId(member.peer)).collect(), names }
    }
}

impl Links {
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read())
    }

    /// All other members and routers, in order of their names.
    pub(crate) fn others(&self) -> Vec<PeerId> {
        let names = self.names();
        names.all.iter().copied().filter(|peer| *peer != self.me).collect()
    }

    /// A member's place among all members' names in order; nothing for routers and former lives.
    pub(crate) fn place(&self, peer: PeerId) -> Option<usize> {
        self.names().members.iter().position(|member| *member == peer)
    }

    /// Which members have which groups.
    pub(crate) fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The members that have a copy of a group, in order of their names.
    pub(crate) fn replicas(&self, group: GroupId) -> Vec<PeerId> {
        self.placement.pick(group, &self.names().members).copied().collect()
    }

    /// Whether this node has a copy of a group.
    pub(crate) fn is_local(&self, group: GroupId) -> bool {
        self.local.get(usize::from(group.0)).copied().unwrap_or(false)
    }

    /// The groups that this node has a copy of, in order.
    pub(crate) fn local_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let groups = (0..).map(GroupId).zip(&self.local);
        groups.filter(|(_, is_local)| **is_local).map(|(group, _)| group)
    }

    /// Whether this node has no groups of its own.
    pub(crate) fn is_router(&self) -> bool {
        self.routers.iter().any(|router| router.peer == self.me.0)
    }

    /// Whether a node is a member, and no router or former life.
    pub(crate) fn is_member(&self, peer: PeerId) -> bool {
        self.names().members.contains(&peer)
    }

    /// A member's name, for people; also that of a life that is over.
    pub(crate) fn name(&self, peer: PeerId) -> Arc<str> {
        self.names().names.get(&peer).map_or_else(|| "?".into(), Arc::clone)
    }

    /// From now on these are the members. Nobody waits any more for what those that are gone say,
    /// and their clocks do not count.
    pub(crate) fn set_members(&self, list: &MemberList) {
        let names = Arc::new(Names::of(list, &self.routers));
        let former = std::mem::replace(&mut *self.names.write(), Arc::clone(&names));
        self.clocks.lock().retain(|peer, _| names.members.contains(peer));
        self.turns.lock().retain(|peer, _| names.all.contains(peer));
        for gone in former.members.iter().filter(|peer| !names.members.contains(peer)) {
            self.lost(*gone);
        }
    }
}
