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
//!    refused by every member that does.
//!
//! Which members have a copy of a group follows from the names, see [`placement`]. Routers have
//! none: they are named by the founding and the settings, and are on no list of members.
//!
//! Absent: names that join or leave. Those are of the founding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tl_raft::PeerId;
use tl_raft::transport::{CertificateFiles, Peer, Peers, Seat, Security};
use tl_types::ids::ClusterId;
use tl_types::{GroupId, NodeId, UnixMs};

use crate::identity::{Founding, Identity, IdentityError, Member, hex_bytes};
use crate::ops::Patience;

pub use self::file::MembersFile;
pub use self::list::{Former, ListError, MemberList};
pub use self::placement::Placement;

mod file;
mod list;
pub mod placement;

/// Fewest members of a cluster: with two, the loss of one would stop all writes.
pub const MEMBERS_MIN: usize = 3;
/// Most members of a cluster.
pub const MEMBERS_MAX: usize = 5;
/// Most routers of a cluster.
pub const ROUTERS_MAX: usize = 16;
/// Routers have numbers from here on, which no life of a member is ever given.
const ROUTER_PEER_MIN: u64 = 1 << 32;

/// Settings of a member as written. A node without members is a cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct ClusterSettings {
    /// All members, this node among them, each as `name=host:port`. Default none, which is a node
    /// of its own; else from 3 to 5.
    pub members: Vec<String>,
    /// All routers, each as `name=host:port`; as the cluster was founded. Default none; at most 16.
    pub routers: Vec<String>,
    /// Address to listen on for the other members. Default empty: this node's own address in
    /// `members` or `routers`.
    pub listen: String,
    /// File with the certificates of the cluster's authority, PEM. Default empty: no encryption,
    /// which is allowed between loopback addresses only.
    pub authority: PathBuf,
    /// File with this node's certificate, PEM.
    pub certificate: PathBuf,
    /// File with the certificate's private key, PEM.
    pub key: PathBuf,
    /// A member of which nothing was heard for longer is suspect, milliseconds. Default 500; from
    /// 300 to 60000.
    pub suspect_after_ms: u64,
    /// A member that is suspect for longer is lost, milliseconds. Default 120000; from 1000 to
    /// 86400000.
    pub lost_after_ms: u64,
    /// How long a member that is told to stop may take to hand over what it leads, milliseconds.
    /// Default 10000; from 0 to 600000.
    pub drain_ms: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings {
            members: Vec::new(),
            routers: Vec::new(),
            listen: String::new(),
            authority: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            suspect_after_ms: 500,
            lost_after_ms: 120_000,
            drain_ms: 10_000,
        }
    }
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
    /// The list of members in the directory cannot be used.
    #[error(transparent)]
    List(#[from] IdentityError),
}

/// What a life that is over is told.
pub(crate) fn replaced(name: &str) -> String {
    format!(
        "this directory is a former life of {name}, which was replaced: it must not be used again; \
         start {name} with the directory that `tl ops replace` made"
    )
}

impl ClusterSettings {
    /// Whether the node is a member of a cluster of several.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.members.is_empty()
    }

    /// Checks every value; `node_name` is this node's.
    ///
    /// # Errors
    /// A sentence per bad value, naming the key.
    pub fn check(&self, node_name: &str) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let files = [&self.authority, &self.certificate, &self.key];
        let set = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        if set != 0 && set != files.len() {
            errors.push("authority, certificate and key must be set together".to_owned());
        }
        for (name, value, range) in [
            ("suspect_after_ms", self.suspect_after_ms, 300..=60_000),
            ("lost_after_ms", self.lost_after_ms, 1_000..=86_400_000),
            ("drain_ms", self.drain_ms, 0..=600_000),
        ] {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                errors.push(format!("{name} is {value}; it must be from {low} to {high}"));
            }
        }
        if !self.is_set() {
            return if errors.is_empty() { Ok(()) } else { Err(errors) };
        }
        if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&self.members.len()) {
            errors.push(format!(
                "members names {} nodes; it must name from {MEMBERS_MIN} to {MEMBERS_MAX}",
                self.members.len()
            ));
        }
        if self.routers.len() > ROUTERS_MAX {
            let count = self.routers.len();
            errors.push(format!("routers names {count} nodes; it may name {ROUTERS_MAX} at most"));
        }
        let mut names = BTreeSet::new();
        let routers = self.routers.iter().map(|router| ("router", router));
        for (what, member) in self.members.iter().map(|member| ("member", member)).chain(routers) {
            match named(member) {
                Some((name, _)) if !names.insert(name) => {
                    errors.push(format!("{what}s names {name:?} twice"));
                }
                Some(_) => {}
                None => errors.push(format!("{what} {member:?} must be name=host:port")),
            }
        }
        if errors.is_empty() && !names.contains(node_name) {
            errors.push(match self.routers.is_empty() {
                true => format!("members does not name this node, {node_name:?}"),
                false => format!("neither members nor routers name this node, {node_name:?}"),
            });
        }
        if errors.is_empty()
            && let Err(error) = self.listens_on(node_name)
        {
            errors.push(error);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn listens_on(&self, node_name: &str) -> Result<SocketAddr, String> {
        let own = || {
            let all = self.members.iter().chain(&self.routers);
            let mut members = all.filter_map(|member| named(member));
            members.find(|(name, _)| *name == node_name).map(|(_, address)| address)
        };
        let text = if self.listen.is_empty() { own().unwrap_or_default() } else { &self.listen };
        text.parse()
            .map_err(|_| format!("listen must be set to an IP address and port: {text:?} is none"))
    }

    /// When a silent member is suspect, and when lost.
    #[must_use]
    pub fn patience(&self) -> Patience {
        let (suspect_after_ms, lost_after_ms) = (self.suspect_after_ms, self.lost_after_ms);
        Patience { suspect_after_ms, lost_after_ms }
    }

    fn security(&self) -> Security {
        if self.authority.as_os_str().is_empty() {
            return Security::PlaintextForDev;
        }
        Security::MutualTls(CertificateFiles {
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        })
    }
}

/// Name and address of `name=host:port`.
fn named(member: &str) -> Option<(&str, &str)> {
    let (name, address) = member.split_once('=')?;
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let fits = (1..=64).contains(&name.len()) && port.is_some_and(|port| port > 0);
    fits.then_some((name, address))
}

/// Addresses by name.
fn by_name(members: &[String]) -> BTreeMap<String, String> {
    let named = members.iter().filter_map(|member| named(member));
    named.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}

/// A node's place in its cluster.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub seat: Seat,
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

/// Where members are found, by name, and routers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    members: BTreeMap<String, String>,
    routers: Vec<Peer>,
}

impl Addresses {
    /// As the settings say, if they name those that are members and routers.
    fn of(
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

#[cfg(test)]
mod tests;
