//! Where the members listen, by name.
use std::collections::BTreeMap;

use tl_raft::PeerId;
use tl_raft::transport::{Peer, Peers};
use tl_types::NodeId;

use super::{ClusterError, ClusterSettings, MemberList, by_name};
use crate::identity::{Identity, Member};

/// Where members are found, by name, and routers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    members: BTreeMap<String, String>,
    routers: Vec<Peer>,
}

impl Addresses {
    /// As the settings say, if they name those that are members and routers.
    pub(super) fn of(
        identity: &Identity,
        settings: &ClusterSettings,
        list: &MemberList,
    ) -> Result<Addresses, ClusterError> {
        let joined = |names: &mut dyn Iterator<Item = &String>| {
            names.map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        let members = by_name(&settings.members);
        let names = || list.members.iter().map(|member| &member.name);
        if !members.keys().eq(names()) {
            let (founded, listed) = (joined(&mut names()), joined(&mut members.keys()));
            return Err(ClusterError::OtherMembers { founded, listed });
        }
        let listed = by_name(&settings.routers);
        let mut founded: Vec<&Member> = identity.routers.iter().collect();
        founded.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if !listed.keys().eq(founded.iter().map(|router| &router.name)) {
            let founded = joined(&mut founded.iter().map(|router| &router.name));
            return Err(ClusterError::OtherRouters { founded, listed: joined(&mut listed.keys()) });
        }
        let routers = founded.iter().zip(listed.into_values()).map(|(router, address)| Peer {
            peer: PeerId(router.peer),
            node: NodeId(router.node_id_bytes()),
            address,
        });
        Ok(Addresses { members, routers: routers.collect() })
    }

    /// The members of a list and the routers but for one node, as the transport takes them; members
    /// without an address are left out.
    #[must_use]
    pub fn peers(&self, me: NodeId, list: &MemberList) -> Peers {
        let others = list.members.iter().filter_map(|member| {
            let node = NodeId(member.node_id_bytes());
            let address = self.members.get(&member.name).filter(|_| node != me)?.clone();
            Some(Peer { peer: PeerId(member.peer), node, address })
        });
        let routers = self.routers.iter().filter(|router| router.node != me).cloned();
        Peers { members: others.chain(routers).collect(), removed: list.removed() }
    }
}
