//! A new life for a member whose disk is lost.
//!
//! ```text
//!   checks ─► list with the new life, committed by the group that keeps it ─► directory (caller's)
//!                                   └─► every leader brings its groups to the list (`plan`)
//! ```
//!
//! The commitment needs a majority of the members as they were, so a replacement waits, and with it
//! everything after it, as long as too few of them are there. Until a group has swapped the numbers
//! its old members count: no answer of the new life stands for what the old one promised. So a group
//! whose other members are no majority by themselves would never swap them, and such a member is not
//! replaced unless an operator insists.

use std::time::Instant;

use tl_core::entry::SetMembers;
use tl_core::{Command, Reply};
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId};

use super::{REPORT_WITHIN, Service};
use crate::api::ServiceError;
use crate::cluster::{ListError, NewLife};
use crate::ops::plan::progress;
use crate::ops::roster::Roster;
use crate::ops::writable::without_majority;
use crate::service::members::{COMMIT_WITHIN, LIST_GROUP};
use crate::service::refused;
use crate::shell::links::Links;

/// Most groups that a refusal names.
const NAMED_MAX: usize = 16;

impl<S: OrderedStore + 'static> Service<S> {
    /// Gives a member a new life: its disk is lost. With `force` also while it is heard, and also when
    /// some group cannot get on without it; its present life is then over, whatever it still has.
    ///
    /// # Errors
    /// `unknown_node`; `member_present` when it is heard, or is the node that is asked;
    /// `replacement_under_way` when another member's is not finished or came first;
    /// `raft_unavailable` when nothing was changed because too few members are there, of all groups or of
    /// one that needs this member;
    /// `raft_timeout` when that is not known: it may be asked again.
    pub async fn ops_replace(&self, name: &str, force: bool) -> Result<NewLife, ServiceError> {
        let peer = self.member_named(Some(name))?;
        let (Some(peer), Some(links), Some(roster)) =
            (peer, &self.inner.links, &self.inner.ops.roster)
        else {
            let what = format!("{name} is the node that answers: ask another member");
            return Err(ServiceError::new(ErrorCode::MemberPresent, what));
        };
        if !links.is_member(peer) {
            let what = format!(
                "{name} is a router, which keeps no promises: start it with a copy of the directory \
                 that the founding made"
            );
            return Err(ServiceError::new(ErrorCode::InvalidOpsRequest, what));
        }
        if links.is_router() {
            let what = "A router does not see how the groups are: ask a member";
            return Err(ServiceError::new(ErrorCode::InvalidOpsRequest, what));
        }
        self.ask_report(peer, Instant::now() + REPORT_WITHIN).await;
        let state = self.state_of(peer);
        if state.is_heard() && !force {
            let what = format!(
                "{name} is {}: whoever is heard keeps its life. End its process first, or force it",
                state.word()
            );
            return Err(ServiceError::new(ErrorCode::MemberPresent, what));
        }
        self.check_no_other_replacement(roster, name).await?;
        if !force {
            self.check_groups_get_on(links, name, peer).await?;
        }
        let present = roster.list();
        let next = present.replaced(name, fresh_id()?).map_err(|error| {
            let code = match error {
                ListError::Unknown(_) => ErrorCode::UnknownNode,
                ListError::NoMoreNumbers | ListError::Foreign(_) | ListError::Newer { .. } => {
                    ErrorCode::InternalError
                }
            };
            ServiceError::new(code, error.to_string())
        })?;
        let command = SetMembers { expected: present.number, list: next.encode().into() };
        let entry = self.entry([Command::SetMembers(command)]);
        let deadline = Instant::now() + COMMIT_WITHIN;
        let done = self.propose_routed(links, deadline, LIST_GROUP, &entry).await;
        let refusal = match done {
            Ok(applied) => match applied.replies.first() {
                Some(Reply::Refused(refusal)) => Some(refused(refusal)),
                Some(_) | None => None,
            },
            Err(error) => Some(error),
        };
        match refusal {
            None => {}
            Some(error) if error.code == ErrorCode::ExpectedVersionConflict => {
                let what = "The list of members has just changed: look at `tl ops status` and \
                            decide again";
                return Err(ServiceError::new(ErrorCode::ReplacementUnderWay, what));
            }
            Some(error) => return Err(error),
        }
        tracing::warn!(name, number = next.number, "an operator gave a member a new life");
        self.adopt(roster, next.clone()).await;
        Ok(roster.new_life(name, self.inner.groups, next))
    }

    /// Every group of the member has a majority without it: one whose other members are too few, or have
    /// stopped it because of damage, could not commit the change that takes the new life in.
    async fn check_groups_get_on(
        &self,
        links: &Links,
        name: &str,
        peer: PeerId,
    ) -> Result<(), ServiceError> {
        let mut asked = tokio::task::JoinSet::new();
        for other in links.others().into_iter().filter(|other| *other != peer) {
            let service = self.clone();
            let until = Instant::now() + REPORT_WITHIN;
            asked.spawn(async move { service.ask_report(other, until).await });
        }
        while asked.join_next().await.is_some() {}
        let needs_it = |group: &GroupId| {
            let members = self.members_of(links, *group);
            let majorities = [&members.voters[..], &members.voters_outgoing[..]];
            let counts = |voter: &PeerId| *voter != peer && self.counts(links, *group, *voter);
            links.replicas(*group).contains(&peer) && without_majority(majorities, counts).is_some()
        };
        let groups = (0..self.inner.groups).map(GroupId).filter(needs_it);
        let groups: Vec<String> = groups.map(|group| group.to_string()).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let more = groups.len().saturating_sub(NAMED_MAX);
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = format!(
            "Without {name} these groups have no majority of members that are heard and in good \
             order, and would take no writes for good: {}{and_more}. Start {name} again, or the \
             others that are missing, or have the damage of the others mended first (see `tl ops \
             status`); force it only if that cannot be",
            groups[..groups.len() - more].join(", ")
        );
        Err(ServiceError::new(ErrorCode::RaftUnavailable, what))
    }

    /// One member at a time. That the same one is replaced again is all right: its new life may be
    /// lost before it began.
    async fn check_no_other_replacement(
        &self,
        roster: &Roster,
        name: &str,
    ) -> Result<(), ServiceError> {
        let list = roster.list();
        let look = self.look().await;
        if look.len() != self.groups_here().len() {
            return Err(ServiceError::new(
                ErrorCode::RaftUnavailable,
                "The node is too busy to say how its groups are; repeat the request",
            ));
        }
        let now = progress(&look, &list, &roster.placement);
        let other = now.replacing.iter().find(|replaced| *replaced != name);
        // A joint change of this very member, or a learner that goes, holds up nobody.
        let Some(other) = other else { return Ok(()) };
        let what = format!(
            "{other} is being replaced: {} of {} groups are done. Wait until `tl ops status` shows \
             no replacement",
            now.done, now.groups
        );
        Err(ServiceError::new(ErrorCode::ReplacementUnderWay, what)
            .with("groups_done", now.done)
            .with("groups", now.groups))
    }
}

/// The id of a life, which nobody else has.
fn fresh_id() -> Result<[u8; 16], ServiceError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map(|()| id).map_err(|error| {
        tracing::error!(%error, "the operating system gives no random bytes");
        ServiceError::of(ErrorCode::InternalError)
    })
}
