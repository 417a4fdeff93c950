//! What an operator asks of a node: how it and its cluster are.
//!
//! Everything is answered from what this node knows and was told; nothing here needs a majority,
//! so a survivor still says who is missing.
use std::sync::Arc;
use std::time::Duration;

use tl_raft::{Members, PeerId};
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId};
use tokio::sync::oneshot;

use self::readiness::reason;
use super::Service;
use crate::api::ServiceError;
use crate::node::Input;
use crate::ops::pages::lag_at;
use crate::ops::report::lag_of;
use crate::ops::states::{NodeState, state_of};
use crate::ops::writable::{counts, without_majority};
use crate::ops::{GroupLook, Ops, Report};
use crate::peer::{Answer, Question};
use crate::shell::links::Links;
use crate::shell::{Mail, time};

mod change;
mod level;
mod pages;
mod readiness;
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
            level_spoken: self.inner.level_spoken,
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

    /// Names of a group's silent voters, if those that are heard and have not stopped it are too few.
    pub(super) fn majority_is_missing(&self, group: GroupId) -> Option<Vec<String>> {
        let links = self.inner.links.as_ref()?;
        let members = self.members_of(links, group);
        let majorities = [&members.voters[..], &members.voters_outgoing[..]];
        let lost = without_majority(majorities, |peer| self.counts(links, group, *peer))?;
        let present = links.others();
        let silent = lost.iter().filter(|peer| present.contains(peer));
        let silent = silent.filter(|peer| !self.state_of(**peer).is_heard());
        Some(silent.map(|peer| links.name(*peer).to_string()).collect())
    }

    /// Whether a voter counts for a group's majority as far as is known here.
    fn counts(&self, links: &Links, group: GroupId, peer: PeerId) -> bool {
        if peer == links.me() {
            let stopped = self.inner.background.stopped_groups();
            return !stopped.iter().any(|(of, _)| *of == group);
        }
        counts(self.state_of(peer), self.has_stopped(peer, group))
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
