//! The pages that operators are shown.
use std::collections::BTreeSet;
use std::sync::Arc;

use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId};

use super::{ONLY_PEER, Service, reason};
use crate::api::ServiceError;
use crate::ops::GroupLook;
use crate::ops::pages::{
    GroupPage, Member, NodePage, NotWritable, ObserverPage, StatusPage, StoragePage, distant_page,
    group_page, node_page, replacing_page, why_not,
};
use crate::ops::states::NodeState;
use crate::shell::time;

impl<S: OrderedStore + 'static> Service<S> {
    /// All members in order of their names, this one among them.
    pub(super) fn members(&self, look: &[GroupLook]) -> Vec<Member> {
        let me = self.inner.links.as_ref().map_or(ONLY_PEER, |links| links.me());
        let place = |peer| match &self.inner.links {
            Some(links) => links.place(peer),
            None => Some(0),
        };
        let report = self.report(me, look);
        let mut members = vec![Member {
            peer: me,
            name: self.inner.info.name.to_string(),
            is_local: true,
            state: report.standing.into(),
            silent_ms: 0,
            report: Some(Arc::new(report)),
            is_former: false,
            place: place(me),
        }];
        if let Some(links) = &self.inner.links {
            let sights = &self.inner.ops.sights;
            let now_ms = time::now().boot_ms;
            let others = links.others();
            let former = former_voters(look, me, &others);
            let all = others.into_iter().map(|peer| (peer, false));
            members.extend(all.chain(former).map(|(peer, is_former)| Member {
                peer,
                name: links.name(peer).to_string(),
                is_local: false,
                state: self.state_of(peer),
                silent_ms: sights.sight(peer, now_ms).silent_ms,
                report: sights.report(peer),
                is_former,
                place: place(peer),
            }));
        }
        members.sort_by(|a, b| (a.is_former, &a.name).cmp(&(b.is_former, &b.name)));
        members
    }

    /// Everything about the node and its cluster in one answer.
    pub async fn ops_status(&self) -> StatusPage {
        let look = self.look().await;
        let members = self.members(&look);
        let readiness = self.readiness();
        let named = |wanted: &dyn Fn(NodeState) -> bool| {
            let members = members.iter().filter(|member| !member.is_former && wanted(member.state));
            members.map(|member| member.name.clone()).collect::<Vec<String>>()
        };
        let not_writable = look.iter().filter_map(|group| {
            let why = why_not(&members, group)?;
            Some(NotWritable { group: group.group.0, advice: why.advice(), why })
        });
        let bytes = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        let metrics = &self.inner.metrics;
        let state = NodeState::from(self.standing());
        let roster = self.inner.ops.roster.as_ref();
        let is_router = self.is_router();
        let local_groups = u16::try_from(self.groups_here().len()).unwrap_or(u16::MAX);
        let write_nodes = present(&members).filter(|member| member.place.is_some());
        let copies = self.inner.links.as_ref().map_or(1, |links| links.placement().copies());
        StatusPage {
            node: self.inner.info.name.to_string(),
            state,
            local_write_node: !is_router,
            local_mode: self.mode(),
            local_ready: readiness.ready,
            local_drained: state == NodeState::Drained,
            reason: Some(reason(&readiness)).filter(|reason| !reason.is_empty()),
            write_nodes: write_nodes.map(|member| member.name.clone()).collect(),
            write_replication_factor: copies,
            num_groups: self.inner.groups,
            local_groups: look.len(),
            groups_led: u16::try_from(self.groups_led()).unwrap_or(u16::MAX),
            not_writable: not_writable.collect(),
            storage: StoragePage {
                data_dir: self.inner.ops.drain_file.dir().display().to_string(),
                disk_free_bytes: bytes(metrics.disk_free_bytes.get()),
                disk_reserve_bytes: bytes(metrics.disk_reserve_bytes.get()),
                disk_full: self.inner.admission.is_disk_full(),
            },
            observer: ObserverPage {
                visible_nodes: named(&NodeState::is_heard),
                ready_nodes: named(&|state| state == NodeState::Ready),
            },
            nodes: present(&members).map(|member| node_page(member, &look)).collect(),
            members_number: roster.map_or(0, |roster| roster.list().number),
            feature_level: self.level(),
            replacing: roster.and_then(|roster| replacing_page(&roster.progress(), local_groups)),
        }
    }

    /// Every member, by name.
    pub async fn ops_nodes(&self) -> Vec<NodePage> {
        let look = self.look().await;
        present(&self.members(&look)).map(|member| node_page(member, &look)).collect()
    }

    /// Every group: those with a copy here as they stand here, the others as their members are.
    pub async fn ops_groups(&self) -> Vec<GroupPage> {
        let look = self.look().await;
        let members = self.members(&look);
        let page = |group| self.page_of_group(&members, &look, group);
        (0..self.inner.groups).map(GroupId).filter_map(page).collect()
    }

    /// One group.
    ///
    /// # Errors
    /// `invalid_ops_request` when there is no such group; `raft_unavailable` before the first
    /// look.
    pub async fn ops_group(&self, group: GroupId) -> Result<GroupPage, ServiceError> {
        self.check_group(group)?;
        let look = self.look().await;
        self.page_of_group(&self.members(&look), &look, group).ok_or_else(|| {
            ServiceError::new(
                ErrorCode::RaftUnavailable,
                "The node is too busy to say how its groups are; repeat the request",
            )
        })
    }

    /// Nothing for a group that is here and was not looked at yet.
    fn page_of_group(
        &self,
        members: &[Member],
        looks: &[GroupLook],
        group: GroupId,
    ) -> Option<GroupPage> {
        let has = |place| self.has_place(group, place);
        match looks.iter().find(|look| look.group == group) {
            Some(look) => Some(group_page(members, look, has)),
            None if self.is_here(group) => None,
            None => {
                let leader = self.inner.links.as_ref().and_then(|links| links.leader(group));
                Some(distant_page(members, group, leader, has))
            }
        }
    }

    pub(super) async fn page_of(&self, peer: Option<PeerId>) -> Result<NodePage, ServiceError> {
        let look = self.look().await;
        let members = self.members(&look);
        let wanted = |member: &&Member| match peer {
            Some(peer) => member.peer == peer,
            None => member.is_local,
        };
        let member = members.iter().find(wanted).ok_or_else(|| {
            // It was given a new life in this moment, under another number.
            let what = "The member has just been replaced; look at `tl ops status`";
            ServiceError::new(ErrorCode::UnknownNode, what)
        })?;
        Ok(node_page(member, &look))
    }
}

pub(super) fn present(members: &[Member]) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| !member.is_former)
}

/// Lives that are over and on which some group still counts.
fn former_voters(look: &[GroupLook], me: PeerId, others: &[PeerId]) -> Vec<(PeerId, bool)> {
    let voters = look.iter().flat_map(|group| {
        group.members.voters.iter().chain(&group.members.voters_outgoing).copied()
    });
    let former: BTreeSet<PeerId> =
        voters.filter(|peer| *peer != me && !others.contains(peer)).collect();
    former.into_iter().map(|peer| (peer, true)).collect()
}
