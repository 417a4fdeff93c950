//! The list of members that is in force on this node, and how far its groups follow it.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tl_types::ids::ClusterId;
use tl_types::{NodeId, UnixMs};
use tokio::sync::watch;

use super::plan::Progress;
use crate::cluster::{MemberList, MembersFile, Membership, NewLife};
use crate::identity::hex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Roster {
    cluster: ClusterId,
    founded_at: UnixMs,
    node: NodeId,
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

    /// Tells of each list that comes into force.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<MemberList>> {
        self.list.subscribe()
    }

    /// From now on this list is in force.
    pub(crate) fn put(&self, list: Arc<MemberList>) {
        self.list.send_replace(list);
    }

    /// Whether this node's life is on a list.
    pub(crate) fn is_on(&self, list: &MemberList) -> bool {
        list.member_of(self.node).is_some()
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
        }
    }
}
