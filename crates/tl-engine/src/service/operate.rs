//! What an operator asks of a node: how it and its cluster are.
//!
//! Everything is answered from what this node knows and was told; nothing here needs a majority,
//! so a survivor still says who is missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tl_raft::{Members, PeerId};
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId};
use tokio::sync::oneshot;

use super::Service;
use crate::api::{Readiness, ServiceError};
use crate::node::Input;
use crate::ops::pages::{
    GroupPage, Member, NodePage, NotWritable, ObserverPage, StatusPage, StoragePage, distant_page,
    group_page, lag_at, node_page, replacing_page, why_not,
};
use crate::ops::report::lag_of;
use crate::ops::states::{Left, NodeState, Standing, standing, state_of};
use crate::ops::{GroupLook, Ops, Report};
use crate::peer::{Answer, Question};
use crate::shell::links::Links;
use crate::shell::{Mail, time};

mod change;
mod repair;
mod replace;

pub use change::{Awaited, WAIT_MAX};

/// The peer id of a node that is its own cluster.
const ONLY_PEER: PeerId = PeerId(1);
/// Longest wait for the driver to say how its groups are.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at the groups for metrics.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for another member's report.
pub(crate) const REPORT_WITHIN: Duration = Duration::from_secs(1);

impl<S: OrderedStore + 'static> Service<S> {
    pub(crate) fn ops(&self) -> &Ops {
        &self.inner.ops
    }

    // How this node is.

    /// Whether the node can serve, and if not, why.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let not = |reason, detail| Readiness { ready: false, reason: Some(reason), detail };
        if let Some(why) = &*self.inner.failure.borrow() {
            return not("raft_sync", vec![("probe_result", why.to_string())]);
        }
        if *self.inner.draining.borrow() {
            let left = self.left();
            let mut detail = vec![("state", self.standing_word().to_owned())];
            if left.has_others {
                detail.push(("groups_led", left.groups_led.to_string()));
            }
            detail.push(("tails_open", left.tails_open.to_string()));
            return not("draining", detail);
        }
        match self.trouble() {
            Some(detail) if self.is_router() => not("router_sync", detail),
            Some(detail) => not("raft_sync", detail),
            None => Readiness { ready: true, reason: None, detail: Vec::new() },
        }
    }

    /// What keeps a node that runs from being ready, a drain aside: the first group that is not
    /// healthy, and why.
    fn trouble(&self) -> Option<Vec<(&'static str, String)>> {
        if let Some(links) = self.inner.links.as_ref().filter(|links| links.is_router()) {
            return self.out_of_reach(links);
        }
        let here = self.groups_here();
        let groups = here.len().to_string();
        let of = |group: GroupId, result: String| {
            vec![
                ("checked_groups", groups.clone()),
                ("failing_group_id", group.to_string()),
                ("probe_result", result),
            ]
        };
        if let Some((group, why)) = self.inner.background.stopped_groups().first() {
            return Some(of(*group, why.to_string()));
        }
        if let Some(links) = &self.inner.links
            && let Some(group) = links.leaderless()
        {
            let Some(missing) = self.majority_is_missing(group) else {
                let is_member = self.is_member(group);
                return Some(of(group, if is_member { "no_leader" } else { "joining" }.to_owned()));
            };
            let mut detail = of(group, "quorum_unreachable".to_owned());
            detail.push(("missing", missing.join(",")));
            return Some(detail);
        }
        if !*self.inner.ready.borrow() {
            let group = here.get(usize::from(self.inner.ops.groups_confirmed())).or(here.last());
            return Some(match group {
                Some(group) => of(*group, "startup_sync".to_owned()),
                None => vec![("probe_result", "startup_sync".to_owned())],
            });
        }
        if let Some(roster) = &self.inner.ops.roster {
            let progress = roster.progress();
            if progress.replacing.iter().any(|name| **name == *self.inner.info.name) {
                return Some(vec![
                    ("checked_groups", groups),
                    ("probe_result", "joining".to_owned()),
                    ("groups_done", progress.done.to_string()),
                ]);
            }
        }
        let lag = self.inner.ops.sights.own_lag(time::now().boot_ms)?;
        let mut detail = of(lag.worst, "behind".to_owned());
        detail.push(("groups_behind", lag.groups.to_string()));
        detail.push(("lag_entries", lag.entries.to_string()));
        Some(detail)
    }

    /// What keeps a router from being ready: the first group of which it hears no member.
    fn out_of_reach(&self, links: &Links) -> Option<Vec<(&'static str, String)>> {
        let is_heard = |peer: &PeerId| {
            // At the start nobody is silent for long yet; who is there has said how it is.
            self.inner.ops.sights.report(*peer).is_some() && self.state_of(*peer).is_heard()
        };
        let mut groups = (0..self.inner.groups).map(GroupId);
        let missing = groups.find(|group| !links.replicas(*group).iter().any(is_heard))?;
        let names = links.replicas(missing).into_iter().map(|peer| links.name(peer).to_string());
        Some(vec![
            ("checked_groups", self.inner.groups.to_string()),
            ("failing_group_id", missing.to_string()),
            ("probe_result", "not_reached".to_owned()),
            ("missing", names.collect::<Vec<_>>().join(",")),
        ])
    }

    fn left(&self) -> Left {
        let tails = self.inner.metrics.tails_open.get();
        Left {
            groups_led: self.groups_led(),
            has_others: self.has_others(),
            tails_open: usize::try_from(tails).unwrap_or(0),
        }
    }

    fn groups_led(&self) -> usize {
        match &self.inner.links {
            Some(links) => links.led(),
            None => usize::from(self.inner.groups),
        }
    }

    /// What this node says of itself.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let is_running = self.inner.failure.borrow().is_none();
        let drain = self.inner.draining.borrow().then(|| self.left());
        standing(is_running && self.trouble().is_none(), drain.filter(|_| is_running))
    }

    fn standing_word(&self) -> &'static str {
        NodeState::from(self.standing()).word()
    }

    /// What this node says when `asker` asks.
    fn report(&self, asker: PeerId, look: &[GroupLook]) -> Report {
        let mut stopped: Vec<GroupId> =
            self.inner.background.stopped_groups().into_iter().map(|(group, _)| group).collect();
        stopped.sort_unstable();
        let left = self.left();
        Report {
            standing: self.standing(),
            is_disk_full: self.inner.admission.is_disk_full(),
            groups_led: u16::try_from(left.groups_led).unwrap_or(u16::MAX),
            tails_open: u32::try_from(left.tails_open).unwrap_or(u32::MAX),
            stopped,
            asker: lag_of(asker, look),
            reason: reason(&self.readiness()),
        }
    }

    /// How the groups are now, or as they were seen last when the driver does not say.
    pub(super) async fn look(&self) -> Arc<[GroupLook]> {
        let ops = &self.inner.ops;
        if self.is_running() {
            let (answer, answered) = oneshot::channel();
            self.inner.mailer.send(Mail::Look(answer));
            if let Ok(Ok(look)) = tokio::time::timeout(LOOK_WITHIN, answered).await {
                ops.saw(Arc::clone(&look));
                return look;
            }
        }
        ops.looked()
    }

    // How the cluster is, seen from here.

    /// The members of a group as they were seen last here; those that shall have it before the first
    /// look.
    fn members_of(&self, links: &Links, group: GroupId) -> Members {
        let looked = self.inner.ops.looked();
        let look = looked.iter().find(|look| look.group == group);
        look.map_or_else(|| Members::founding(&links.replicas(group)), |look| look.members.clone())
    }

    /// Whether this node's replica belongs to a group.
    fn is_member(&self, group: GroupId) -> bool {
        let Some(links) = &self.inner.links else { return true };
        self.members_of(links, group).contains(links.me())
    }

    /// Names of a group's silent voters, if too few are heard of.
    fn majority_is_missing(&self, group: GroupId) -> Option<Vec<String>> {
        let links = self.inner.links.as_ref()?;
        let members = self.members_of(links, group);
        let present = links.others();
        let is_heard = |peer: &PeerId| *peer == links.me() || self.state_of(*peer).is_heard();
        let voters = [&members.voters, &members.voters_outgoing].into_iter();
        let mut lost = voters.filter(|voters| {
            !voters.is_empty()
                && voters.iter().filter(|peer| is_heard(peer)).count() * 2 <= voters.len()
        });
        let silent = lost.next()?.iter().filter(|peer| present.contains(peer) && !is_heard(peer));
        Some(silent.map(|peer| links.name(*peer).to_string()).collect())
    }

    /// Members of which nothing is heard.
    fn silent(&self) -> usize {
        let Some(links) = &self.inner.links else { return 0 };
        let members = links.others().into_iter().filter(|peer| links.is_member(*peer));
        members.filter(|peer| !self.state_of(*peer).is_heard()).count()
    }

    /// The state of another member.
    pub(super) fn state_of(&self, peer: PeerId) -> NodeState {
        let ops = &self.inner.ops;
        state_of(ops.sights.sight(peer, time::now().boot_ms), ops.patience)
    }

    /// All members in order of their names, this one among them.
    fn members(&self, look: &[GroupLook]) -> Vec<Member> {
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

    /// Whether the member at a place among all names has a group.
    fn has_place(&self, group: GroupId, place: usize) -> bool {
        let links = self.inner.links.as_ref();
        links.is_none_or(|links| links.placement().has(group, place))
    }

    /// Refuses what needs a copy of a group on this node and on another one.
    fn check_has_copy(
        &self,
        links: &Links,
        group: GroupId,
        peer: PeerId,
    ) -> Result<(), ServiceError> {
        let replicas = links.replicas(group);
        let who = match replicas.contains(&links.me()) {
            true if replicas.contains(&peer) => return Ok(()),
            true => links.name(peer),
            false => Arc::clone(&self.inner.info.name),
        };
        let names: Vec<String> =
            replicas.into_iter().map(|peer| links.name(peer).to_string()).collect();
        let what = format!(
            "{who} has no copy of group {group}: name one of {names}, and ask one of them",
            names = names.join(", ")
        );
        Err(ServiceError::new(ErrorCode::InvalidOpsRequest, what))
    }

    /// Whether this node has no groups of its own.
    #[must_use]
    pub fn is_router(&self) -> bool {
        self.inner.links.as_ref().is_some_and(|links| links.is_router())
    }

    /// What this node is: `write_node` or `router_node`.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        if self.is_router() { "router_node" } else { "write_node" }
    }

    fn check_group(&self, group: GroupId) -> Result<(), ServiceError> {
        if group.0 < self.inner.groups {
            return Ok(());
        }
        let what = format!("group must be a number from 0 to {}", self.inner.groups - 1);
        Err(ServiceError::new(ErrorCode::InvalidOpsRequest, what))
    }

    /// The member that is meant; this node when none is named.
    fn member_named(&self, name: Option<&str>) -> Result<Option<PeerId>, ServiceError> {
        let own = &*self.inner.info.name;
        let Some(name) = name.filter(|name| *name != own) else { return Ok(None) };
        let links = self.inner.links.as_ref();
        let others = links.map(|links| links.others()).unwrap_or_default();
        let named = |peer: PeerId| links.map_or_else(|| "?".into(), |links| links.name(peer));
        if let Some(peer) = others.iter().find(|peer| *named(**peer) == *name) {
            return Ok(Some(*peer));
        }
        let mut known: Vec<String> = others.iter().map(|peer| named(*peer).to_string()).collect();
        known.push(own.to_owned());
        known.sort_unstable();
        let what = format!("No node is called {name:?}; there are: {}", known.join(", "));
        Err(ServiceError::new(ErrorCode::UnknownNode, what))
    }

    async fn page_of(&self, peer: Option<PeerId>) -> Result<NodePage, ServiceError> {
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

    // What others ask.

    /// Answers another member's question about operation; `None` for other questions.
    pub(crate) async fn answer_operator(
        &self,
        from: PeerId,
        question: &Question,
    ) -> Option<Answer> {
        match question {
            Question::Propose { .. } | Question::Clock | Question::Read { .. } => return None,
            Question::Report => {}
            Question::Members { number } => return Some(self.newer_members(*number)),
            Question::Drain { on } => {
                if let Err(error) = self.set_drain(*on).await {
                    return Some(Answer::Refused(error));
                }
            }
            Question::Transfer { group, to } => self.take_transfer(*group, *to),
            Question::Repair { group } => {
                if let Err(error) = self.take_repair(*group).await {
                    return Some(Answer::Refused(error));
                }
            }
        }
        // What was seen within the last seconds does: the driver is not woken for each member.
        Some(Answer::Report(self.report(from, &self.inner.ops.looked())))
    }

    // Metrics.

    /// Looks at the groups every other second, until the node ends.
    pub(crate) async fn keep_watch(self) {
        let mut rest = tokio::time::interval(WATCH_EVERY);
        rest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.is_running() {
            rest.tick().await;
            let look = self.look().await;
            let Some(links) = &self.inner.links else { return };
            for peer in links.others() {
                let (behind, entries) = lag_at(peer, &look);
                self.inner.metrics.replicas_at(&links.name(peer), behind, entries);
            }
            self.inner.metrics.members_unreachable.set(self.silent() as i64);
            self.give_away_stopped();
        }
    }

    /// A group that is stopped here because of damage is well elsewhere: others lead it, however
    /// often this replica wins an election.
    fn give_away_stopped(&self) {
        let Some(links) = &self.inner.links else { return };
        let stopped = self.inner.background.stopped_groups();
        let mut led = stopped.into_iter().map(|(group, _)| group).filter(|g| links.leads(*g));
        let Some(first) = led.next() else { return };
        let present = links.present();
        for group in std::iter::once(first).chain(led) {
            if let Some(to) = self.next_leader(group, 0, &present) {
                self.inner.mailer.send(Mail::Input(Input::Transfer { group, to }));
            }
        }
    }

    /// Whether a member said that it stopped a group because of damage.
    pub(super) fn has_stopped(&self, peer: PeerId, group: GroupId) -> bool {
        let report = self.inner.ops.sights.report(peer);
        report.is_some_and(|report| report.stopped.contains(&group))
    }
}

fn present(members: &[Member]) -> impl Iterator<Item = &Member> {
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

/// Why a node is not ready, in one line; empty when it is.
fn reason(readiness: &Readiness) -> String {
    let Some(reason) = readiness.reason else { return String::new() };
    let detail: Vec<String> =
        readiness.detail.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if detail.is_empty() { reason.to_owned() } else { format!("{reason} ({})", detail.join(", ")) }
}
