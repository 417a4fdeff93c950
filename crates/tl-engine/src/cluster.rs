//! The cluster that a node belongs to: who its members are, and where they are found.
//!
//! ```text
//!   founded once: node.json of every member names all members      (lasting: names, ids, lives)
//!     └─ replaced: a new list, committed in one group, members.json in every directory
//!   settings: members = ["node-1=host:port", …]                    (addresses, may change)
//!                      └──────── must name the same nodes ────────┘
//! ```
//!
//! Invariants:
//!  - C1 a node votes only with a directory that the founding or a replacement gave it: one that
//!    is empty or somebody else's does not start as a member, so a wiped disk cannot vote twice;
//!  - C2 a directory of a single node never becomes a member's by a change of settings, nor the
//!    other way round;
//!  - C3 a life that was replaced never starts again once its directory knows of it, and is
//!    refused by every member that does;
//!  - C4 a node that speaks less than the feature level on its list does not start, and ends when it
//!    hears of such a list.
//!
//! Which members have a copy of a group follows from the names, see [`placement`]. Routers have
//! none: they are named by the founding and the settings, and are on no list of members.
//!
//! Absent: names that join or leave. Those are of the founding.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tl_raft::PeerId;
use tl_raft::transport::{Birth, Peers, Seat, Security};
use tl_types::ids::ClusterId;
use tl_types::{GroupId, NodeId, UnixMs};

use crate::identity::{Identity, IdentityError, Member};

pub use self::file::MembersFile;
pub use self::list::{Former, ListError, MemberList};
pub use self::placement::Placement;

mod addresses;
mod births;
mod file;
mod founding;
mod list;
mod settings;

pub use self::addresses::Addresses;
use self::births::BirthsFile;
pub use self::founding::{NewLife, found, found_with};
pub use self::settings::ClusterSettings;
use self::settings::by_name;
pub mod placement;

/// Fewest members of a cluster: with two, the loss of one would stop all writes.
pub const MEMBERS_MIN: usize = 3;
/// Most members of a cluster.
pub const MEMBERS_MAX: usize = 5;
/// Most routers of a cluster.
pub const ROUTERS_MAX: usize = 16;
/// Routers have numbers from here on, which no life of a member is ever given.
const ROUTER_PEER_MIN: u64 = 1 << 32;

/// Whether a number is that of a router.
pub(crate) fn is_router(peer: PeerId) -> bool {
    peer.0 >= ROUTER_PEER_MIN
}

/// Why a node cannot be the member that its settings say.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The directory was not given by a founding.
    #[error(
        "{} is not a member's data directory: found the cluster first, or if this node was a \
         member before, its data is gone and it must not vote again: see `tl ops replace`",
        dir.display()
    )]
    NotFounded {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is a member's, and the settings name no cluster.
    #[error("{} belongs to a member of a cluster, and cluster.members is not set", dir.display())]
    NoSettings {
        /// The directory.
        dir: PathBuf,
    },
    /// Settings and founding name different nodes.
    #[error("the cluster was founded by {founded}, and cluster.members names {listed}")]
    OtherMembers {
        /// Names in the directory.
        founded: String,
        /// Names in the settings.
        listed: String,
    },
    /// Settings and founding name different routers.
    #[error(
        "the cluster was founded with the routers {founded}, and cluster.routers names {listed}"
    )]
    OtherRouters {
        /// Names in the directory.
        founded: String,
        /// Names in the settings.
        listed: String,
    },
    /// The directory belongs to another member.
    #[error("this directory is that of member {found}, and engine.node_name is {expected}")]
    OtherNode {
        /// The member that it belongs to.
        found: String,
        /// The name in the settings.
        expected: String,
    },
    /// Another life has taken the place of this directory's.
    #[error("{}", replaced(name))]
    Replaced {
        /// The member whose life it was.
        name: String,
    },
    /// The cluster's entries follow rules that this release does not speak.
    #[error(
        "the cluster has committed feature level {level} and this release speaks {spoken} at most: \
         start this node with a newer release"
    )]
    Level {
        /// The level of the cluster.
        level: u16,
        /// The highest one here.
        spoken: u16,
    },
    /// The list of members in the directory cannot be used.
    #[error(transparent)]
    List(#[from] IdentityError),
}

/// What a directory is told that the others know another one for.
pub(crate) fn born_elsewhere(name: &str) -> String {
    format!(
        "the others know {name} by another directory than this one, which may have been copied before \
         that one's first start: {name} must not go on with it, or what was acknowledged may be \
         lost; start it with its own directory, or if that is lost give it a new life with \
         `tl ops replace`; if this one is its own after all, the log of the member that refused it \
         says how it is known again"
    )
}

/// What a life that is over is told.
pub(crate) fn replaced(name: &str) -> String {
    format!(
        "this directory is a former life of {name}, which was replaced: it must not be used again; \
         start {name} with the directory that `tl ops replace` made"
    )
}

/// A node's place in its cluster.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub seat: Seat,
    /// What its directory drew when its log was made; `None` before. A router does not say it: its
    /// directory may be any copy of what the founding made.
    pub birth: Option<Birth>,
    /// By which directories it knows the others.
    pub(crate) births: Arc<BirthsFile>,
    /// Voters that the cluster began with.
    pub voters: Vec<PeerId>,
    /// The same in order of their names.
    pub founders: Vec<PeerId>,
    /// Which members have which groups.
    pub placement: Arc<Placement>,
    /// This node's place among all names in order; `None` for a router.
    pub place: Option<usize>,
    /// Copies of each group as founded; `None` for one on every member.
    pub copies: Option<u8>,
    /// All routers.
    pub routers: Vec<Member>,
    /// The members in their present lives, this one among them, as far as this directory knows.
    pub list: Arc<MemberList>,
    /// Where members are found, by name.
    pub addresses: Addresses,
    /// Where this node listens for them.
    pub listen: SocketAddr,
    /// How connections are protected.
    pub security: Security,
    /// When the cluster was founded: no event of it is older.
    pub founded_at: UnixMs,
}

impl Membership {
    /// Holds a directory's identity against the settings; `None` for a node of its own.
    ///
    /// # Errors
    /// [`ClusterError`]: they do not fit together.
    ///
    /// # Panics
    /// If the settings were not checked.
    pub fn of(
        dir: &Path,
        identity: &Identity,
        settings: &ClusterSettings,
        node_name: &str,
    ) -> Result<Option<Membership>, ClusterError> {
        let dir = dir.to_owned();
        match (settings.is_set(), identity.members.is_empty()) {
            (false, true) => return Ok(None),
            (false, false) => return Err(ClusterError::NoSettings { dir }),
            (true, true) => return Err(ClusterError::NotFounded { dir }),
            (true, false) => {}
        }
        let births = Arc::new(BirthsFile::open(&dir)?);
        let founding = MemberList::of_founding(identity);
        let seen = MembersFile::in_dir(&dir).read()?;
        let list = match seen {
            Some(seen) if seen.number > founding.number => seen,
            // It never began: half of its directory is missing.
            None if identity.is_new_life => return Err(ClusterError::NotFounded { dir }),
            Some(_) | None => founding,
        };
        let addresses = Addresses::of(identity, settings, &list)?;
        let node = NodeId(identity.node_id_bytes());
        let mut founders = identity.members.iter().chain(&identity.routers);
        let founder = founders.find(|member| member.node_id == identity.node_id);
        let founder = founder.ok_or(ClusterError::NotFounded { dir })?;
        if founder.name != node_name {
            let (found, expected) = (founder.name.clone(), node_name.to_owned());
            return Err(ClusterError::OtherNode { found, expected });
        }
        let own = identity.router().or_else(|| list.member_of(node));
        let own = own.ok_or_else(|| ClusterError::Replaced { name: node_name.to_owned() })?;
        let names = list.members.iter().map(|member| member.name.as_str());
        let placement = Placement::new(names, identity.copies, identity.groups);
        let founders = founders_in_order(identity);
        let mut voters = founders.clone();
        voters.sort_unstable();
        Ok(Some(Membership {
            cluster: ClusterId(identity.cluster_id_bytes()),
            seat: Seat { node, peer: PeerId(own.peer) },
            birth: identity.birth_bytes(),
            births,
            voters,
            founders,
            placement: Arc::new(placement),
            place: list.members.iter().position(|member| member.peer == own.peer),
            copies: identity.copies,
            routers: identity.routers.clone(),
            addresses,
            list: Arc::new(list),
            listen: settings.listens_on(node_name).expect("checked settings"),
            security: settings.security(),
            founded_at: UnixMs(identity.founded_at_ms),
        }))
    }

    /// The birth that the node says when it calls another one.
    #[must_use]
    pub fn said_birth(&self) -> Option<Birth> {
        self.birth.filter(|_| !is_router(self.seat.peer))
    }

    /// Who voted in a group when the cluster was founded, if this node has a copy of it.
    #[must_use]
    pub fn voters_of(&self, group: GroupId) -> Option<Vec<PeerId>> {
        self.place.filter(|place| self.placement.has(group, *place))?;
        let mut voters: Vec<PeerId> = self.placement.pick(group, &self.founders).copied().collect();
        voters.sort_unstable();
        Some(voters)
    }

    /// The other members of a list, and all lives that are over.
    #[must_use]
    pub fn peers(&self, list: &MemberList) -> Peers {
        self.addresses.peers(self.seat.node, list)
    }
}

/// The numbers of the founding, in order of the members' names. A founding gives out those from 1, by
/// name where places matter. A new life names the members of its beginning instead, and must never
/// take itself for one of the first voters.
fn founders_in_order(identity: &Identity) -> Vec<PeerId> {
    if identity.is_new_life {
        return (1..).map(PeerId).take(identity.members.len()).collect();
    }
    let founding = MemberList::of_founding(identity);
    founding.members.iter().map(|member| PeerId(member.peer)).collect()
}

#[cfg(test)]
mod tests;
