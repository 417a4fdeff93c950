//! New directories: of a cluster's first members, and of the new life of a lost one.
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tl_types::UnixMs;

use super::{MemberList, MembersFile, ROUTER_PEER_MIN, placement};
use crate::identity::{Founding, Identity, IdentityError, Member, hex_bytes};

/// A life that takes the place of a lost one, as the cluster agreed to it: all that its directory
/// is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLife {
    /// The member.
    pub name: String,
    /// The cluster, 16 bytes as hex.
    pub cluster_id: String,
    /// Groups of the cluster.
    pub groups: u16,
    /// When the cluster was founded.
    pub founded_at_ms: u64,
    /// The list in which it is a member.
    pub list: MemberList,
    /// Copies of each group; without a number every member has all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u8>,
    /// Routers of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<Member>,
}

impl NewLife {
    /// Makes the life's data directory, which must be new or empty. It has an identity when
    /// everything else is there.
    ///
    /// # Errors
    /// [`IdentityError`]; such a directory starts nowhere.
    pub fn make_directory(&self, dir: &Path) -> Result<Identity, IdentityError> {
        Identity::check_empty(dir)?;
        let foreign = |reason: &str| IdentityError::Foreign {
            path: dir.to_owned(),
            reason: reason.to_owned(),
        };
        // It came over the wire; what is written here is read again at the start.
        let list =
            MemberList::decode(&self.list.encode()).map_err(|error| foreign(&error.to_string()))?;
        let own = list.members.iter().find(|member| member.name == self.name);
        let own = own.ok_or_else(|| foreign("the new life is not on its list"))?;
        let cluster_id =
            hex_bytes(&self.cluster_id).ok_or_else(|| foreign("no id of a cluster"))?;
        MembersFile::in_dir(dir).write(&list)?;
        let founding = Founding {
            cluster_id,
            members: list.members.clone(),
            routers: self.routers.clone(),
            groups: self.groups,
            copies: self.copies,
            founded_at: UnixMs(self.founded_at_ms),
        };
        Identity::begin_new_life(dir, own, &founding)
    }
}

/// Founds a cluster without routers; see [`found_with`].
///
/// # Errors
/// [`IdentityError`]; directories that were done before it stay.
pub fn found(
    members: &[(String, PathBuf)],
    groups: u16,
    founded_at: UnixMs,
    fresh_id: impl Fn() -> [u8; 16],
) -> Result<(), IdentityError> {
    found_with(members, &[], groups, founded_at, fresh_id)
}

/// Founds a cluster: gives each member's directory, which must be new or empty, an identity that
/// names all members and routers, and so each router's. Nothing but the members' directories can
/// ever vote. With more members than copies of a group, each group is on some of them.
///
/// # Errors
/// [`IdentityError`]; directories that were done before it stay.
pub fn found_with(
    members: &[(String, PathBuf)],
    routers: &[(String, PathBuf)],
    groups: u16,
    founded_at: UnixMs,
    fresh_id: impl Fn() -> [u8; 16],
) -> Result<(), IdentityError> {
    let in_order = |all: &[(String, PathBuf)]| {
        let mut all = all.to_vec();
        all.sort_unstable();
        all
    };
    let (members, routers) = (in_order(members), in_order(routers));
    let cluster_id = fresh_id();
    let numbered = |first: u64, all: &[(String, PathBuf)]| -> Vec<Member> {
        let named = (first..).zip(all);
        named.map(|(peer, (name, _))| Member::new(name.clone(), fresh_id(), peer)).collect()
    };
    let founding = Founding {
        cluster_id,
        members: numbered(1, &members),
        routers: numbered(ROUTER_PEER_MIN, &routers),
        groups,
        copies: (members.len() > usize::from(placement::COPIES)).then_some(placement::COPIES),
        founded_at,
    };
    let all = founding.members.iter().chain(&founding.routers);
    for (own, (_, dir)) in all.zip(members.iter().chain(&routers)) {
        Identity::found(dir, own, &founding)?;
    }
    Ok(())
}
