//! Having a member take the rows of a group anew from the group's leader.
//!
//! The member stops the group as if it had found damage there, and what follows is the same:
//! others lead it, its leader gives the rows, and the group goes on from them.

use std::time::Instant;

use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId};

use super::change::{DRAIN_WITHIN, TRANSFER_WITHIN, WAIT_EVERY};
use super::{REPORT_WITHIN, Service};
use crate::api::ServiceError;
use crate::node::Input;
use crate::ops::pages::GroupPage;
use crate::ops::repair::in_the_way;
use crate::peer::{Answer, Question};
use crate::shell::links::{Links, NoAnswer};
use crate::shell::{Mail, time};

/// Looks at who leads that name the same next leader; then it is another one's turn.
const LOOKS_ALIKE: usize = 10;

impl<S: OrderedStore + 'static> Service<S> {
    /// Has a member take a group's rows anew. If it leads the group, another member does first.
    /// Answers once the member has begun; it is ready again when the rows are there.
    ///
    /// # Errors
    /// `invalid_ops_request` for a node without others, and for a group that there is not;
    /// `unknown_node`; `raft_unavailable` when the member is not reached, when the others are no
    /// majority without it, or when none of them could lead; `raft_timeout` when it did not answer.
    pub async fn ops_repair(
        &self,
        group: GroupId,
        node: Option<&str>,
    ) -> Result<GroupPage, ServiceError> {
        self.check_group(group)?;
        let peer = self.member_named(node)?;
        let Some(links) = &self.inner.links else { return Err(alone()) };
        let who = peer.unwrap_or(links.me());
        self.check_has_copy(links, group, who)?;
        for other in links.others() {
            self.ask_report(other, Instant::now() + REPORT_WITHIN).await;
        }
        self.check_spare(group, who).await?;
        self.give_away(links, group, who).await?;
        match peer {
            None => self.take_repair(group).await?,
            Some(peer) => self.ask_repair(links, peer, group).await?,
        }
        self.ops_group(group).await
    }

    /// Whether the group gets on while this member waits for rows.
    async fn check_spare(&self, group: GroupId, who: PeerId) -> Result<(), ServiceError> {
        let mut members = self.members(&self.look().await);
        members.retain(|member| member.place.is_some_and(|place| self.has_place(group, place)));
        let views: Vec<_> = members.iter().map(|member| member.view(group)).collect();
        let place = members.iter().position(|member| member.peer == who);
        let Some(place) = place else {
            // It was given a new life in this moment, under another number.
            let what = "The member has just been replaced; look at `tl ops status`";
            return Err(ServiceError::new(ErrorCode::UnknownNode, what));
        };
        let view = views[place];
        if !view.state.is_heard() {
            let what = format!("{} is {}: it cannot be asked now", view.name, view.state.word());
            return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
        }
        let missing = in_the_way(&views, place);
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!(
            "Without {} and {} group {group} would take no writes until the rows are there; mend \
             or start them first",
            view.name,
            missing.join(", ")
        );
        Err(ServiceError::new(ErrorCode::RaftUnavailable, what))
    }

    /// Has somebody else lead the group, if this member does, and waits until it is so.
    async fn give_away(
        &self,
        links: &Links,
        group: GroupId,
        who: PeerId,
    ) -> Result<(), ServiceError> {
        let until = Instant::now() + TRANSFER_WITHIN;
        for look in 0.. {
            if links.leader(group).is_some_and(|leader| leader != who) {
                return Ok(());
            }
            if Instant::now() >= until {
                break;
            }
            let mut others = links.present();
            others.push(links.me());
            others.sort_unstable();
            others.retain(|peer| *peer != who);
            // Only those that have it are given it, see `next_leader`.
            if links.leader(group) == Some(who)
                && let Some(to) = self.next_leader(group, look / LOOKS_ALIKE, &others)
            {
                // Who is asked to lead it keeps it, though the balance may want it elsewhere.
                self.tell_transfer(to, group, to).await;
                self.tell_transfer(who, group, to).await;
            }
            links.wait_for_change(WAIT_EVERY).await;
        }
        let what = format!(
            "No other member than {} leads group {group} after {} s; nothing was changed. Look at \
             the group and try again",
            links.name(who),
            TRANSFER_WITHIN.as_secs()
        );
        Err(ServiceError::new(ErrorCode::RaftUnavailable, what))
    }

    async fn ask_repair(
        &self,
        links: &Links,
        peer: PeerId,
        group: GroupId,
    ) -> Result<(), ServiceError> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        let name = links.name(peer);
        match links.ask(peer, &Question::Repair { group }, deadline).await {
            Ok(Answer::Report(report)) => {
                self.inner.ops.sights.said(peer, report, time::now().boot_ms);
                Ok(())
            }
            Ok(Answer::Refused(error)) => Err(error),
            Err(NoAnswer::NotSent) => Err(ServiceError::new(
                ErrorCode::RaftUnavailable,
                format!("{name} is not reached from here; nothing was changed"),
            )),
            Ok(_) | Err(NoAnswer::Unknown) => Err(ServiceError::new(
                ErrorCode::RaftTimeout,
                format!("{name} did not answer; look at its state and repeat the request"),
            )),
        }
    }

    /// Begins on this node, and answers once the group is stopped here. Repeating is harmless.
    pub(super) async fn take_repair(&self, group: GroupId) -> Result<(), ServiceError> {
        self.check_group(group)?;
        let Some(links) = &self.inner.links else { return Err(alone()) };
        self.check_has_copy(links, group, links.me())?;
        if links.leads(group) {
            let what = format!("This node leads group {group}; have another member lead it first");
            return Err(ServiceError::new(ErrorCode::RaftUnavailable, what));
        }
        self.inner.mailer.send(Mail::Input(Input::Repair(group)));
        // A look is taken behind the turn that takes the input.
        self.look().await;
        Ok(())
    }
}

fn alone() -> ServiceError {
    let what = "This node is a cluster of its own: nobody else has the rows of its groups";
    ServiceError::new(ErrorCode::InvalidOpsRequest, what)
}
