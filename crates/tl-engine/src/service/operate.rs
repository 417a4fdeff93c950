//! What an operator asks of a node: how it and its cluster are, draining, handing over groups.
//!
//! Everything is answered from what this node knows and was told; nothing here needs a majority,
//! so a survivor still says who is missing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId, UnixMs};
use tokio::sync::oneshot;

use super::Service;
use crate::api::{Readiness, ServiceError};
use crate::node::Input;
use crate::ops::pages::{
    GroupPage, Member, NodePage, NotWritable, ObserverPage, StatusPage, StoragePage, group_page,
    lag_at, node_page, why_not,
};
use crate::ops::report::lag_of;
use crate::ops::states::{Left, NodeState, Standing, standing, state_of};
use crate::ops::{GroupLook, Ops, Report};
use crate::peer::{Answer, Question};
use crate::shell::links::NoAnswer;
use crate::shell::{Mail, time};

/// The peer id of a node that is its own cluster.
const ONLY_PEER: PeerId = PeerId(1);
/// Longest wait for the driver to say how its groups are.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at the groups for metrics.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Between two looks while somebody waits for a state, or while a drain goes on.
const WAIT_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for another member's report.
pub(crate) const REPORT_WITHIN: Duration = Duration::from_secs(1);
/// Longest wait for another member to begin or end its drain.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for another member to lead a group.
const TRANSFER_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait that may be asked for.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The node serves.
    Ready,
    /// The node is drained.
    Drained,
}

impl Awaited {
    fn state(self) -> NodeState {
        match self {
            Awaited::Ready => NodeState::Ready,
            Awaited::Drained => NodeState::Drained,
        }
    }
}

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
            Some(detail) => not("raft_sync", detail),
            None => Readiness { ready: true, reason: None, detail: Vec::new() },
        }
    }

    /// What keeps a node that runs from being ready, a drain aside: the first group that is not
    /// healthy, and why.
    fn trouble(&self) -> Option<Vec<(&'static str, String)>> {
        let groups = self.inner.groups.to_string();
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
            let missing = self.missing();
            if (self.members_count() - missing.len()) * 2 > self.members_count() {
                return Some(of(group, "no_leader".to_owned()));
            }
            let mut detail = of(group, "quorum_unreachable".to_owned());
            detail.push(("missing", missing.join(",")));
            return Some(detail);
        }
        if !*self.inner.ready.borrow() {
            let group = self.inner.ops.groups_confirmed().min(self.inner.groups - 1);
            return Some(of(GroupId(group), "startup_sync".to_owned()));
        }
        let lag = self.inner.ops.sights.own_lag(time::now().boot_ms)?;
        let mut detail = of(lag.worst, "behind".to_owned());
        detail.push(("groups_behind", lag.groups.to_string()));
        detail.push(("lag_entries", lag.entries.to_string()));
        Some(detail)
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
    async fn look(&self) -> Arc<[GroupLook]> {
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

    fn members_count(&self) -> usize {
        self.inner.links.as_ref().map_or(1, |links| links.others().count() + 1)
    }

    /// Names of members of which nothing is heard.
    fn missing(&self) -> Vec<String> {
        let Some(links) = &self.inner.links else { return Vec::new() };
        let silent = links.others().filter(|peer| !self.state_of(*peer).is_heard());
        silent.map(|peer| links.name(peer).to_owned()).collect()
    }

    /// The state of another member.
    fn state_of(&self, peer: PeerId) -> NodeState {
        let ops = &self.inner.ops;
        state_of(ops.sights.sight(peer, time::now().boot_ms), ops.patience)
    }

    /// All members in order of their names, this one among them.
    fn members(&self, look: &[GroupLook]) -> Vec<Member> {
        let me = self.inner.links.as_ref().map_or(ONLY_PEER, |links| links.me());
        let report = self.report(me, look);
        let mut members = vec![Member {
            peer: me,
            name: self.inner.info.name.to_string(),
            is_local: true,
            state: report.standing.into(),
            silent_ms: 0,
            report: Some(Arc::new(report)),
        }];
        if let Some(links) = &self.inner.links {
            let sights = &self.inner.ops.sights;
            let now_ms = time::now().boot_ms;
            members.extend(links.others().map(|peer| Member {
                peer,
                name: links.name(peer).to_owned(),
                is_local: false,
                state: self.state_of(peer),
                silent_ms: sights.sight(peer, now_ms).silent_ms,
                report: sights.report(peer),
            }));
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Everything about the node and its cluster in one answer.
    pub async fn ops_status(&self) -> StatusPage {
        let look = self.look().await;
        let members = self.members(&look);
        let readiness = self.readiness();
        let named = |wanted: &dyn Fn(NodeState) -> bool| {
            let members = members.iter().filter(|member| wanted(member.state));
            members.map(|member| member.name.clone()).collect::<Vec<String>>()
        };
        let not_writable = look.iter().filter_map(|group| {
            let why = why_not(&members, group)?;
            Some(NotWritable { group: group.group.0, advice: why.advice(), why })
        });
        let bytes = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        let metrics = &self.inner.metrics;
        let state = NodeState::from(self.standing());
        StatusPage {
            node: self.inner.info.name.to_string(),
            state,
            local_write_node: true,
            local_mode: "write_node",
            local_ready: readiness.ready,
            local_drained: state == NodeState::Drained,
            reason: Some(reason(&readiness)).filter(|reason| !reason.is_empty()),
            write_nodes: named(&|_| true),
            write_replication_factor: members.len(),
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
            nodes: members.iter().map(|member| node_page(member, &look)).collect(),
        }
    }

    /// Every member, by name.
    pub async fn ops_nodes(&self) -> Vec<NodePage> {
        let look = self.look().await;
        self.members(&look).iter().map(|member| node_page(member, &look)).collect()
    }

    /// Every group with a replica here.
    pub async fn ops_groups(&self) -> Vec<GroupPage> {
        let look = self.look().await;
        let members = self.members(&look);
        look.iter().map(|group| group_page(&members, group)).collect()
    }

    /// One group.
    ///
    /// # Errors
    /// `invalid_ops_request` when there is no such group; `raft_unavailable` before the first
    /// look.
    pub async fn ops_group(&self, group: GroupId) -> Result<GroupPage, ServiceError> {
        self.check_group(group)?;
        let look = self.look().await;
        let members = self.members(&look);
        let found = look.iter().find(|look| look.group == group);
        found.map(|look| group_page(&members, look)).ok_or_else(|| {
            ServiceError::new(
                ErrorCode::RaftUnavailable,
                "The node is too busy to say how its groups are; repeat the request",
            )
        })
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
        let others =
            || links.into_iter().flat_map(|links| links.others().map(move |peer| (links, peer)));
        if let Some((_, peer)) = others().find(|(links, peer)| links.name(*peer) == name) {
            return Ok(Some(peer));
        }
        let mut known: Vec<&str> = others().map(|(links, peer)| links.name(peer)).collect();
        known.push(own);
        known.sort_unstable();
        let what = format!("No node is called {name:?}; there are: {}", known.join(", "));
        Err(ServiceError::new(ErrorCode::UnknownNode, what))
    }

    async fn page_of(&self, peer: Option<PeerId>) -> NodePage {
        let look = self.look().await;
        let members = self.members(&look);
        let wanted = |member: &&Member| match peer {
            Some(peer) => member.peer == peer,
            None => member.is_local,
        };
        let member = members.iter().find(wanted).expect("a member that was found by its name");
        node_page(member, &look)
    }

    // Draining.

    /// Ends open tails with a resumable end and says "draining" until the process ends.
    pub fn begin_drain(&self) {
        self.inner.ops.stop();
        self.drain_on();
    }

    fn drain_on(&self) {
        self.inner.draining.send_replace(true);
        self.hand_over();
        self.inner.hub.wake_all();
    }

    /// Drains a member, or ends its drain; remembered by that member over restarts.
    ///
    /// # Errors
    /// `unknown_node`; `raft_unavailable` when the member is not reached or stops;
    /// `raft_timeout` when it did not answer; `internal_error` when it cannot write its file.
    pub async fn ops_drain(&self, node: Option<&str>, on: bool) -> Result<NodePage, ServiceError> {
        let peer = self.member_named(node)?;
        match peer {
            None => self.set_drain(on).await?,
            Some(peer) => self.ask_drain(peer, on).await?,
        }
        Ok(self.page_of(peer).await)
    }

    async fn set_drain(&self, on: bool) -> Result<(), ServiceError> {
        let ops = &self.inner.ops;
        let _turn = ops.changing.lock().await;
        if ops.is_stopping() {
            return Err(ServiceError::new(
                ErrorCode::RaftUnavailable,
                "This node is stopping; ask again when it is back",
            ));
        }
        let file = ops.drain_file.clone();
        let now = UnixMs(time::now().wall_ms);
        let written = self.beside(move || if on { file.put(now) } else { file.take_away() });
        if let Err(error) = written.await? {
            let error = crate::chain(&error);
            tracing::error!(%error, on, "a drain cannot be remembered");
            let what = "The node cannot write the file that remembers its drain; its log says why";
            return Err(ServiceError::new(ErrorCode::InternalError, what));
        }
        tracing::info!(on, "the operator changed the drain of this node");
        if on {
            self.drain_on();
        } else {
            self.inner.draining.send_replace(false);
        }
        Ok(())
    }

    async fn ask_drain(&self, peer: PeerId, on: bool) -> Result<(), ServiceError> {
        let links = self.inner.links.as_ref().expect("another member was found through them");
        let deadline = Instant::now() + DRAIN_WITHIN;
        let name = links.name(peer);
        let refused = |code, what: String| Err(ServiceError::new(code, what));
        match links.ask(peer, &Question::Drain { on }, deadline).await {
            Ok(Answer::Report(report)) => {
                self.inner.ops.sights.said(peer, report, time::now().boot_ms);
                Ok(())
            }
            Ok(Answer::Refused(error)) => Err(error),
            Err(NoAnswer::NotSent) => refused(
                ErrorCode::RaftUnavailable,
                format!("{name} is not reached from here; nothing was changed"),
            ),
            Ok(_) | Err(NoAnswer::Unknown) => refused(
                ErrorCode::RaftTimeout,
                format!("{name} did not answer; look at its state and repeat the request"),
            ),
        }
    }

    /// Gives away what this node leads again and again while it is drained: others may elect it
    /// when they lose their leader. Until the node ends.
    pub(crate) async fn keep_drained(self) {
        let mut draining = self.inner.draining.subscribe();
        // The sender lives as long as the service.
        while draining.wait_for(|draining| *draining).await.map(drop).is_ok() && self.is_running() {
            if self.leads_for_present() {
                self.hand_over();
            }
            tokio::time::sleep(WAIT_EVERY).await;
        }
    }

    /// Waits until other members lead what this node led, or so long. Tells whether they do.
    pub async fn handed_over_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.leads_for_present() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(WAIT_EVERY.min(limit)).await;
        }
        true
    }

    // Waiting.

    /// Waits until a member is ready or drained.
    ///
    /// # Errors
    /// `unknown_node`; `wait_timed_out` with the state that it is in.
    pub async fn ops_wait(
        &self,
        node: Option<&str>,
        awaited: Awaited,
        limit: Duration,
    ) -> Result<NodePage, ServiceError> {
        let peer = self.member_named(node)?;
        let until = Instant::now() + limit.min(WAIT_MAX);
        loop {
            if let Some(peer) = peer {
                self.ask_report(peer, until).await;
            }
            let state = match peer {
                None => self.standing().into(),
                Some(peer) => self.state_of(peer),
            };
            if state == awaited.state() {
                return Ok(self.page_of(peer).await);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.wait_timed_out(peer, state, awaited, limit));
            }
            tokio::time::sleep(WAIT_EVERY.min(left)).await;
        }
    }

    fn wait_timed_out(
        &self,
        peer: Option<PeerId>,
        state: NodeState,
        awaited: Awaited,
        limit: Duration,
    ) -> ServiceError {
        let (name, reason) = match (peer, &self.inner.links) {
            (Some(peer), Some(links)) => {
                let report = self.inner.ops.sights.report(peer);
                let reason = report.map(|report| report.reason.clone()).unwrap_or_default();
                (links.name(peer).to_owned(), reason)
            }
            (None, _) | (_, None) => (self.inner.info.name.to_string(), reason(&self.readiness())),
        };
        let (state, wanted, ms) = (state.word(), awaited.state().word(), limit.as_millis());
        let mut what = format!("{name} is {state} after {ms} ms, not {wanted}");
        if !reason.is_empty() && state != wanted {
            what.push_str(": ");
            what.push_str(&reason);
        }
        ServiceError::new(ErrorCode::WaitTimedOut, what).with("state", state)
    }

    /// Asks a member how it is, and remembers what it says.
    pub(crate) async fn ask_report(&self, peer: PeerId, deadline: Instant) {
        let Some(links) = &self.inner.links else { return };
        let deadline = deadline.min(Instant::now() + REPORT_WITHIN);
        if let Ok(Answer::Report(report)) = links.ask(peer, &Question::Report, deadline).await {
            self.inner.ops.sights.said(peer, report, time::now().boot_ms);
        }
    }

    // Handing over one group.

    /// Has a member lead a group, and leaves it there for some minutes.
    ///
    /// # Errors
    /// `invalid_ops_request`, `unknown_node`; `raft_unavailable` when that member cannot lead it
    /// now.
    pub async fn ops_transfer(&self, group: GroupId, to: &str) -> Result<GroupPage, ServiceError> {
        self.check_group(group)?;
        let peer = self.member_named(Some(to))?;
        let Some(links) = &self.inner.links else { return self.ops_group(group).await };
        let to_peer = peer.unwrap_or(links.me());
        if let Some(peer) = peer {
            self.ask_report(peer, Instant::now() + REPORT_WITHIN).await;
        }
        let state = peer.map_or_else(|| self.standing().into(), |peer| self.state_of(peer));
        if matches!(
            state,
            NodeState::Draining | NodeState::Drained | NodeState::Suspect | NodeState::Lost
        ) {
            let what = format!("{to} is {}: it cannot be given a group now", state.word());
            return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
        }
        let until = Instant::now() + TRANSFER_WITHIN;
        // Who shall lead it keeps it, though the balance may want it elsewhere.
        self.tell_transfer(to_peer, group, to_peer).await;
        loop {
            let leader = links.leader(group);
            if leader == Some(to_peer) {
                return self.ops_group(group).await;
            }
            if Instant::now() >= until {
                let what = format!(
                    "{to} does not lead group {group} after {} s: it may lack entries; look at the \
                     group and try again",
                    TRANSFER_WITHIN.as_secs()
                );
                return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
            }
            if let Some(leader) = leader {
                self.tell_transfer(leader, group, to_peer).await;
            }
            links.wait_for_change(WAIT_EVERY).await;
        }
    }

    async fn tell_transfer(&self, whom: PeerId, group: GroupId, to: PeerId) {
        let Some(links) = &self.inner.links else { return };
        if whom == links.me() {
            return self.take_transfer(group, to);
        }
        let deadline = Instant::now() + REPORT_WITHIN;
        // What came of it is seen by who leads then.
        let _ = links.ask(whom, &Question::Transfer { group, to }, deadline).await;
    }

    fn take_transfer(&self, group: GroupId, to: PeerId) {
        let Some(links) = &self.inner.links else { return };
        if group.0 >= self.inner.groups {
            return;
        }
        if to == links.me() {
            self.inner.ops.hold(group, time::now().boot_ms);
        } else if links.leads(group) {
            self.inner.mailer.send(Mail::Input(Input::Transfer { group, to }));
        }
    }

    // What others ask.

    /// Answers another member's question about operation; `None` for other questions.
    pub(crate) async fn answer_operator(
        &self,
        from: PeerId,
        question: &Question,
    ) -> Option<Answer> {
        match question {
            Question::Propose { .. } | Question::Clock => return None,
            Question::Report => {}
            Question::Drain { on } => {
                if let Err(error) = self.set_drain(*on).await {
                    return Some(Answer::Refused(error));
                }
            }
            Question::Transfer { group, to } => self.take_transfer(*group, *to),
        }
        let look = self.look().await;
        Some(Answer::Report(self.report(from, &look)))
    }

    // Metrics.

    /// Looks at the groups every second, until the node ends.
    pub(crate) async fn keep_watch(self) {
        let mut rest = tokio::time::interval(WATCH_EVERY);
        rest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.is_running() {
            rest.tick().await;
            let look = self.look().await;
            let Some(links) = &self.inner.links else { return };
            for peer in links.others() {
                let (behind, entries) = lag_at(peer, &look);
                self.inner.metrics.replicas_at(links.name(peer), behind, entries);
            }
            self.inner.metrics.members_unreachable.set(self.missing().len() as i64);
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
            let well: Vec<PeerId> =
                present.iter().copied().filter(|peer| !self.has_stopped(*peer, group)).collect();
            if let Some(to) = well.get(usize::from(group.0) % well.len().max(1)) {
                self.inner.mailer.send(Mail::Input(Input::Transfer { group, to: *to }));
            }
        }
    }

    /// Whether a member said that it stopped a group because of damage.
    pub(super) fn has_stopped(&self, peer: PeerId, group: GroupId) -> bool {
        let report = self.inner.ops.sights.report(peer);
        report.is_some_and(|report| report.stopped.contains(&group))
    }
}

/// Why a node is not ready, in one line; empty when it is.
fn reason(readiness: &Readiness) -> String {
    let Some(reason) = readiness.reason else { return String::new() };
    let detail: Vec<String> =
        readiness.detail.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if detail.is_empty() { reason.to_owned() } else { format!("{reason} ({})", detail.join(", ")) }
}
