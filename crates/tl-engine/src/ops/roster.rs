//! The list of members that is in force on this node, and how far its groups follow it.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tl_types::ids::ClusterId;
use tl_types::{NodeId, UnixMs};
use tokio::sync::watch;

use super::plan::Progress;
use crate::cluster::{MemberList, MembersFile, Membership, NewLife, Placement};
use crate::identity::{Member, hex};

/// See the module.
#[derive(Debug)]
pub(crate) struct Roster {
    cluster: ClusterId,
    founded_at: UnixMs,
    node: NodeId,
    /// Which members have which groups.
    pub(crate) placement: Arc<Placement>,
    /// As it was founded.
    copies: Option<u8>,
    routers: Vec<Member>,
    pub(crate) file: MembersFile,
    list: watch::Sender<Arc<MemberList>>,
    progress: Mutex<Progress>,
    /// One change of the list at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Roster {
    pub(crate) fn new(dir: &Path, member: &Membership) -> Roster {
        Roster {
            cluster: member.cluster,
            founded_at: member.founded_at,
            node: member.seat.node,
            placement: Arc::clone(&member.placement),
            copies: member.copies,
            routers: member.routers.clone(),
            file: MembersFile::in_dir(dir),
            list: watch::Sender::new(Arc::clone(&member.list)),
            progress: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// The list in force.
    pub(crate) fn list(&self) -> Arc<MemberList> {
        Arc::clone(&self.list.borrow())
    }

    /// The feature level that is committed.
    pub(crate) fn level(&self) -> u16 {
        self.list.borrow().level
    }

    /// Tells of each list that comes into force.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<MemberList>> {
        self.list.subscribe()
    }

    /// From now on this list is in force.
    pub(crate) fn put(&self, list: Arc<MemberList>) {
        self.list.send_replace(list);
    }

    /// Whether a list leaves this node in the cluster: as a member in its present life, or as a
    /// router, which no list names.
    pub(crate) fn is_on(&self, list: &MemberList) -> bool {
        self.is_router() || list.member_of(self.node).is_some()
    }

    /// Whether this node has no groups of its own.
    pub(crate) fn is_router(&self) -> bool {
        self.routers.iter().any(|router| NodeId(router.node_id_bytes()) == self.node)
    }

    /// How far the groups followed the list when they were looked at last.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    pub(crate) fn saw(&self, progress: Progress) {
        *self.progress.lock() = progress;
    }

    /// What a new life's directory is made from.
    pub(crate) fn new_life(&self, name: &str, groups: u16, list: MemberList) -> NewLife {
        NewLife {
            name: name.to_owned(),
            cluster_id: hex(self.cluster.0),
            groups,
            founded_at_ms: self.founded_at.0,
            list,
            copies: self.copies,
            routers: self.routers.clone(),
        }
    }
}
