//! Who the cluster's members are: a node takes over each new list, and brings the groups that it
//! leads to it.
//!
//! ```text
//!   row of the group that keeps the list ─┐
//!   answer of another member ─────────────┼─► adopt ─► members.json ─► names, transport, plan
//!   replace, on this node ────────────────┘
//! ```
//!
//! Lists are only ever made by the group that keeps them; everything here follows. What is told by
//! a member was committed, since nobody tells what it has not applied or been told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tl_raft::{MemberChange, PeerId};
use tl_store::OrderedStore;
use tl_types::{Generation, GroupId, Index};

use super::Service;
use crate::cluster::{ListError, MemberList, born_elsewhere, replaced};
use crate::ops::plan::{Wanted, due, progress};
use crate::ops::roster::Roster;
use crate::peer::{Answer as PeerAnswer, Question};
use crate::shell::answers::Answer;
use crate::shell::{Ask, time};

/// The group that keeps the list.
pub(super) const LIST_GROUP: GroupId = GroupId(0);
/// Longest wait for a list to be committed.
pub(super) const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks for a new list.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the groups while some do not follow the list.
const STEP_EVERY: Duration = Duration::from_millis(100);
/// How long the outcome of a step is waited for; it is found again by looking anyway.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// A step that was refused is not tried again for so long.
const STEP_AGAIN: Duration = Duration::from_millis(500);
/// Longest wait for another member's list.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What the task remembers from one look to the next.
#[derive(Debug, Default)]
struct Seen {
    /// How far the group that keeps the list was applied when its row was read.
    row_at: Option<(Generation, Index)>,
    /// Steps that were proposed, and when: at most one for each group.
    proposed: BTreeMap<GroupId, (MemberChange, Instant)>,
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Follows the list of members as long as the node runs.
    pub(crate) async fn keep_members(self) {
        let Some(roster) = &self.inner.ops.roster else { return };
        let mut seen = Seen::default();
        while self.is_running() {
            self.look_at_row(&mut seen).await;
            let list = roster.list();
            self.inner.metrics.members_number.set(i64::try_from(list.number).unwrap_or(i64::MAX));
            let is_behind = list.number > 0 && self.follow(roster, &list, &mut seen).await;
            tokio::time::sleep(if is_behind { STEP_EVERY } else { LOOK_EVERY }).await;
        }
    }

    /// Takes over the list in the rows of its group, if it is a newer one.
    async fn look_at_row(&self, seen: &mut Seen) {
        let applied = self.inner.store.applied(LIST_GROUP);
        let at = Some((applied.generation, applied.index));
        if seen.row_at == at {
            return;
        }
        // Whoever cannot read it now looks again: at the latest when more is applied.
        if let Ok(found) = self.read(LIST_GROUP, tl_core::group::members).await {
            let is_over = match found {
                Some((number, list)) => self.hear_list(Some(number), &list).await,
                None => true,
            };
            // What could not be kept is looked at again.
            seen.row_at = at.filter(|_| is_over);
        }
    }

    /// Takes over an encoded list that was committed, if it is newer than this node's. False when it is,
    /// and could not be kept.
    async fn hear_list(&self, number: Option<u64>, list: &[u8]) -> bool {
        let Some(roster) = &self.inner.ops.roster else { return true };
        if number.is_some_and(|number| number <= roster.list().number) {
            return true;
        }
        match MemberList::decode(list) {
            Ok(list) if number.is_none_or(|number| number == list.number) => {
                return self.adopt(roster, list).await;
            }
            Ok(list) => tracing::error!(?number, says = list.number, "a list of members lies"),
            // Whoever does not know who belongs to the cluster takes no part in it.
            Err(error @ ListError::Newer { .. }) => self.inner.mailer.fail(error.to_string()),
            Err(error) => tracing::error!(%error, "a list of members cannot be read"),
        }
        true
    }

    /// Takes over a committed list, if it is newer than this node's. False when it is, and could not be
    /// kept.
    pub(super) async fn adopt(&self, roster: &Roster, list: MemberList) -> bool {
        let Some(links) = &self.inner.links else { return true };
        let _turn = roster.changing.lock().await;
        let present = roster.list();
        if list.number <= present.number {
            return true;
        }
        if list.level < present.level {
            tracing::error!(number = list.number, level = list.level, "a list of members lies");
            return true;
        }
        let level = list.check_level(self.inner.level_spoken);
        let (file, written) = (roster.file.clone(), list.clone());
        // Before anything follows it: what this node calls the others by after a restart.
        let kept = self.beside(move || file.write(&written)).await;
        // Whether it could be kept or not: this node takes part no more.
        if !roster.is_on(&list) {
            self.end_life();
            return true;
        }
        if let Err(error) = level {
            self.inner.mailer.fail(error.to_string());
            return true;
        }
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = crate::chain(&error);
                tracing::error!(%error, "the list of members cannot be kept");
                return false;
            }
            Err(_) => return false,
        }
        tracing::info!(number = list.number, "the members of the cluster have changed");
        links.set_members(&list);
        self.inner.ops.sights.set_others(links.others(), time::now().boot_ms);
        roster.put(list.into());
        true
    }

    /// Another life has taken this one's place: the node ends.
    pub(crate) fn end_life(&self) {
        self.inner.mailer.fail(replaced(&self.inner.info.name));
    }

    /// Ends the node: the others have heard of this life from another directory.
    pub(crate) fn end_other_birth(&self) {
        self.inner.mailer.fail(born_elsewhere(&self.inner.info.name));
    }

    /// What is told to a member that has the list of this number.
    pub(super) fn newer_members(&self, number: u64) -> PeerAnswer {
        let list = self.inner.ops.roster.as_ref().map(Roster::list);
        let newer = list.filter(|list| list.number > number);
        PeerAnswer::Members(newer.map_or_else(Bytes::new, |list| list.encode().into()))
    }

    /// Asks a member for a later list than this node has: it may have been away when the list
    /// was made, and whom it would hear it from may be a life that it does not know yet.
    pub(crate) async fn ask_members(&self, peer: PeerId) {
        let (Some(links), Some(roster)) = (&self.inner.links, &self.inner.ops.roster) else {
            return;
        };
        let question = Question::Members { number: roster.list().number };
        let answer = links.ask(peer, &question, Instant::now() + ASK_WITHIN).await;
        if let Ok(PeerAnswer::Members(list)) = answer
            && !list.is_empty()
        {
            self.hear_list(None, &list).await;
        }
    }

    /// Takes the next steps in groups led here; whether some group does not follow the list yet.
    async fn follow(&self, roster: &Roster, list: &MemberList, seen: &mut Seen) -> bool {
        let last = roster.progress();
        let groups = self.groups_here().len();
        if last.number == list.number && last.is_complete(groups) {
            return false;
        }
        let look = self.look().await;
        let now = progress(&look, list, &roster.placement);
        let left = groups - now.done.min(groups);
        self.inner.metrics.groups_replacing.set(i64::try_from(left).unwrap_or(i64::MAX));
        if now.is_complete(groups) {
            tracing::info!(number = list.number, "every group here has the members of the list");
            seen.proposed.clear();
        }
        let is_behind = !now.is_complete(groups);
        roster.saw(now);
        let fresh = |(_, at): &(MemberChange, Instant)| at.elapsed() < STEP_AGAIN;
        seen.proposed.retain(|_, proposed| fresh(proposed));
        let wanted = |group| Wanted::by(list, &roster.placement, group);
        for (group, change) in due(&look, wanted) {
            if seen.proposed.get(&group).is_some_and(|(proposed, _)| *proposed == change) {
                continue;
            }
            seen.proposed.insert(group, (change, Instant::now()));
            let service = self.clone();
            tokio::spawn(async move { service.take_step(group, change).await });
        }
        is_behind
    }

    /// Proposes one step. What came of it is seen at the next look.
    async fn take_step(&self, group: GroupId, change: MemberChange) {
        let deadline = Instant::now() + STEP_WITHIN;
        match self.ask(deadline, Ask::Change(group, change), None).await {
            Ok(Answer::Applied { .. }) => {
                tracing::info!(%group, ?change, "changed the members of a group");
            }
            Ok(Answer::Failed(failure)) => {
                tracing::debug!(%group, ?change, ?failure, "a group's members stay for now");
            }
            Ok(Answer::Read { .. }) => tracing::error!(%group, "a read answer for a change"),
            Err(error) => tracing::debug!(%group, ?change, %error, "a change is not answered"),
        }
    }
}
