//! Writes in a cluster of several nodes: to whoever leads the group, from wherever they came.
//!
//! ```text
//!   write ─► who leads? ── here ──────► propose ─► taken | refused | not taken | unknown
//!               ▲      └── a peer ───► question ─► the same, by the peer
//!               └──────── not taken: ask again ◄──┘        unknown: tell the caller so
//! ```
//!
//! A write is tried again only after proof that the last try has no effect: it was not sent, not
//! proposed, or what was proposed is overwritten. Whose outcome is unknown is never repeated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tl_core::{Entry, Reply};
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::limits::REQUEST_MS_DEFAULT;
use tl_types::{ErrorCode, GroupId};

use super::elsewhere::served_until;
use super::{Applied, Service, encoded, failed, refused, unexpected};
use crate::api::ServiceError;
use crate::node::{Failure, Input};
use crate::peer::{Answer as PeerAnswer, Question};
use crate::shell::admission::Purpose;
use crate::shell::answers::Answer;
use crate::shell::links::{Links, NoAnswer};
use crate::shell::{Ask, Mail};

/// Wait before a group is looked at again whose leader is not known or has just said no.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Between two looks at who leads what.
const BALANCE_EVERY: Duration = Duration::from_secs(2);
/// Groups handed over at one look.
const BALANCED_AT_ONCE: usize = 16;
/// Groups handed over at one look by a node that gives away everything.
const HANDED_AT_ONCE: usize = 64;
/// Hand-overs that ask for the same member; then it is the next one's turn. They come ten times a
/// second, and who is asked a second time in vain still lacks entries.
const ASKED_ALIKE: usize = 10;
/// Longest time that a leader works on another node's write.
const SERVE_MAX: Duration = Duration::from_secs(60);

/// Where a group's writes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Here.
    Local,
    /// To another node.
    Remote(PeerId),
    /// No leader is known.
    Nobody,
}

/// What became of one try.
pub(crate) enum Tried {
    Applied(Applied),
    Refused(ServiceError),
    NotTaken(Option<PeerId>),
    Unknown,
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Where a group's writes go, as far as is known now.
    pub(super) fn route(&self, group: GroupId) -> Route {
        let Some(links) = &self.inner.links else { return Route::Local };
        match links.leader(group) {
            Some(leader) if leader == links.me() => Route::Local,
            Some(leader) => Route::Remote(leader),
            None => Route::Nobody,
        }
    }

    /// Whether a write had better take the way through [`Service::propose_routed`].
    pub(super) fn is_elsewhere(&self, group: GroupId) -> bool {
        self.route(group) != Route::Local
    }

    /// Proposes an entry wherever its group is led, and waits until it is applied there.
    pub(super) async fn propose_routed(
        &self,
        links: &Arc<Links>,
        deadline: Instant,
        group: GroupId,
        entry: &Entry,
    ) -> Result<Applied, ServiceError> {
        let (bytes, purpose) = (Bytes::from(encoded(entry)?), Purpose::of(entry));
        let mut hint = None;
        // Of a group that is elsewhere, each member may be the one that leads.
        let (is_here, mut guesses) = (self.is_here(group), 0);
        // Two nodes that name each other are not asked in turns without a rest.
        let mut rested = true;
        loop {
            self.check_running()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_leader(group));
            }
            let leader = hint.take().or_else(|| match is_here {
                true => links.leader(group),
                false => self.guess(links, group, &mut guesses),
            });
            let tried = match leader {
                None => Tried::NotTaken(None),
                Some(leader) if leader == links.me() => {
                    self.propose_here(deadline, group, entry, &bytes, purpose).await
                }
                Some(leader) => {
                    let _permit = self.inner.admission.admit(bytes.len(), purpose)?;
                    let wait_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
                    let question = Question::Propose { group, wait_ms, entry: bytes.clone() };
                    self.inner.metrics.writes_forwarded.inc();
                    told(links.ask(leader, &question, deadline).await)
                }
            };
            if !is_here {
                match (&tried, leader) {
                    (Tried::Applied(_) | Tried::Refused(_), Some(leader)) => {
                        links.leads_elsewhere(group, leader);
                    }
                    (Tried::Applied(_) | Tried::Refused(_), None) => {}
                    (Tried::NotTaken(_) | Tried::Unknown, _) => links.forget_elsewhere(group),
                }
            }
            match tried {
                Tried::Applied(applied) => return Ok(applied),
                Tried::Refused(error) => return Err(error),
                Tried::Unknown => return Err(ServiceError::of(ErrorCode::RaftTimeout)),
                Tried::NotTaken(next) => {
                    hint = next.filter(|next| rested && Some(*next) != leader);
                    rested = hint.is_none();
                    if rested {
                        links.wait_for_change(LOOK_AGAIN.min(left)).await;
                    }
                }
            }
        }
    }

    /// Who may lead a group that is elsewhere: whoever did last, else each of its members in turn,
    /// those first of which something is heard.
    fn guess(&self, links: &Links, group: GroupId, guesses: &mut usize) -> Option<PeerId> {
        let leader = links.leader(group);
        let known = leader.filter(|leader| self.state_of(*leader).is_heard());
        known.or_else(|| {
            let members = self.readers(links, group, None);
            let guess = guesses.checked_rem(members.len()).map(|at| members[at]);
            *guesses += 1;
            guess
        })
    }

    /// Proposes an entry on this node.
    async fn propose_here(
        &self,
        deadline: Instant,
        group: GroupId,
        entry: &Entry,
        bytes: &Bytes,
        purpose: Purpose,
    ) -> Tried {
        let permit = match self.inner.admission.admit(bytes.len(), purpose) {
            Ok(permit) => permit,
            Err(error) => return Tried::Refused(error),
        };
        if purpose == Purpose::Takes {
            self.wait_for_flush(deadline).await;
            if let Err(error) = self.check_disk() {
                return Tried::Refused(error);
            }
        }
        if let Err(error) = self.warm(group, entry).await {
            return Tried::Refused(error);
        }
        let ask = Ask::Propose(group, bytes.to_vec());
        match self.ask(deadline, ask, Some(permit)).await {
            Ok(answer) => tried(group, answer),
            Err(error) if error.code == ErrorCode::RaftTimeout => Tried::Unknown,
            Err(error) => Tried::Refused(error),
        }
    }

    /// Answers another node's question.
    pub(crate) async fn answer_peer(&self, from: PeerId, question: Question) -> PeerAnswer {
        if let Some(answer) = self.answer_operator(from, &question).await {
            return answer;
        }
        let (group, wait_ms, bytes) = match question {
            Question::Propose { group, wait_ms, entry } => (group, wait_ms, entry),
            Question::Read { wait_ms, read } => {
                return self.answer_read(served_until(wait_ms), read).await;
            }
            Question::Clock
            | Question::Report
            | Question::Drain { .. }
            | Question::Transfer { .. }
            | Question::Members { .. }
            | Question::Repair { .. } => {
                let wall_ms = crate::shell::time::now().wall_ms;
                let is_router = self.inner.links.as_ref().is_some_and(|links| links.is_router());
                let may_lead = !is_router && !*self.inner.draining.borrow();
                return PeerAnswer::Clock { wall_ms, may_lead };
            }
        };
        let leads = self.inner.links.as_ref().is_some_and(|links| links.leads(group));
        if !leads {
            let leader = self.inner.links.as_ref().and_then(|links| links.leader(group));
            return PeerAnswer::NotTaken { leader };
        }
        if tl_core::entry::peek_level(&bytes).is_some_and(|level| level > self.inner.level_spoken) {
            // This node speaks less than its cluster, and ends as soon as it hears of that.
            return PeerAnswer::NotTaken { leader: None };
        }
        let Ok(entry) = self.decoded(bytes.clone()) else {
            return PeerAnswer::Refused(unexpected("a peer sent an entry that is none"));
        };
        let patience = Duration::from_millis(wait_ms.into()).min(SERVE_MAX);
        let deadline = Instant::now() + patience;
        let purpose = Purpose::of(&entry);
        self.propose_here(deadline, group, &entry, &bytes, purpose).await.for_peer()
    }

    /// Asks other members to lead what this node leads, some groups at a time; it goes away.
    pub(crate) fn hand_over(&self) {
        let Some(links) = &self.inner.links else { return };
        let ops = &self.inner.ops;
        let turn = ops.next_hand_over() / ASKED_ALIKE;
        let led = self.to_hand_over(links, turn).collect();
        for (group, to) in ops.behind_last_handed(led, HANDED_AT_ONCE) {
            self.inner.mailer.send(Mail::Input(Input::Transfer { group, to }));
        }
    }

    /// What this node leads and a member that is up could lead.
    fn to_hand_over(&self, links: &Links, turn: usize) -> impl Iterator<Item = (GroupId, PeerId)> {
        let present = links.present();
        let led: Vec<GroupId> = links.local_groups().filter(|group| links.leads(*group)).collect();
        let led = led.into_iter();
        led.filter_map(move |group| Some((group, self.next_leader(group, turn, &present)?)))
    }

    /// Which of these members shall lead a group next.
    pub(super) fn next_leader(
        &self,
        group: GroupId,
        turn: usize,
        present: &[PeerId],
    ) -> Option<PeerId> {
        let replicas = self.inner.links.as_ref().map(|links| links.replicas(group));
        let has = |peer: &PeerId| replicas.as_ref().is_none_or(|all| all.contains(peer));
        let well = |peer: &PeerId| has(peer) && !self.has_stopped(*peer, group);
        choose(group, turn, &Vec::from_iter(present.iter().copied().filter(well)))
    }

    /// Whether this node leads something that a member which is up could lead.
    pub(crate) fn leads_for_present(&self) -> bool {
        let running = self.inner.failure.borrow().is_none();
        let links = self.inner.links.as_ref().filter(|_| running);
        links.is_some_and(|links| links.led() > 0 && self.to_hand_over(links, 0).next().is_some())
    }

    /// Gives each member its share of the leadership, a few groups at a time, as long as the node
    /// runs.
    pub(crate) async fn keep_balance(self) {
        let mut rest = tokio::time::interval(BALANCE_EVERY);
        loop {
            rest.tick().await;
            let Some(links) = &self.inner.links else { return };
            if self.inner.failure.borrow().is_some() {
                return;
            }
            // Who drains gives everything away; and while some group has no leader there is
            // trouble enough.
            if *self.inner.draining.borrow() || links.leaderless().is_some() {
                continue;
            }
            let now_ms = crate::shell::time::now().boot_ms;
            let free = links.led_for_others().into_iter();
            let free = free.filter(|(group, to)| {
                !self.inner.ops.holds(*group, now_ms) && !self.has_stopped(*to, *group)
            });
            for (group, to) in free.take(BALANCED_AT_ONCE) {
                self.inner.mailer.send(Mail::Input(Input::Transfer { group, to }));
            }
        }
    }

    /// Waits a little until what another node applied is applied here too, so that who wrote
    /// through this node also reads it here.
    pub(super) async fn wait_for_own(&self, deadline: Instant, group: GroupId, applied: &Applied) {
        /// A replica that lags further is not waited for.
        const PATIENCE_MS: u64 = REQUEST_MS_DEFAULT / 5;
        if self.inner.links.is_some() && self.is_here(group) {
            let until = deadline.min(Instant::now() + Duration::from_millis(PATIENCE_MS));
            // The write is done all the same; who must be sure asks with the index.
            let _ = self.wait_applied(until, group, applied.index).await;
        }
    }
}

impl Tried {
    /// What another node is told that has asked for it.
    pub(crate) fn for_peer(self) -> PeerAnswer {
        match self {
            Tried::Applied(Applied { index, replies, guards }) => {
                // Tails here may show the events from now on: the writer is elsewhere.
                drop(guards);
                match replies.first() {
                    Some(Reply::Refused(refusal)) => PeerAnswer::Refused(refused(refusal)),
                    Some(_) | None => PeerAnswer::Taken { index, replies },
                }
            }
            Tried::Refused(error) => PeerAnswer::Refused(error),
            Tried::NotTaken(leader) => PeerAnswer::NotTaken { leader },
            Tried::Unknown => PeerAnswer::Unknown,
        }
    }
}

/// What the driver's answer to a proposal says.
pub(crate) fn tried(group: GroupId, answer: Answer) -> Tried {
    match answer {
        Answer::Applied { index, replies, guards } => {
            Tried::Applied(Applied { index, replies, guards })
        }
        Answer::Read { .. } => Tried::Refused(unexpected("a read answer for a write")),
        Answer::Failed(Failure::NotLeader(leader)) => Tried::NotTaken(leader),
        Answer::Failed(Failure::Lost) => Tried::NotTaken(None),
        Answer::Failed(Failure::Unknown) => Tried::Unknown,
        Answer::Failed(
            failure @ (Failure::Busy | Failure::Stopped | Failure::ChangeRefused(_)),
        ) => Tried::Refused(failed(group, failure)),
    }
}

/// What another node's answer says.
pub(crate) fn told(answer: Result<PeerAnswer, NoAnswer>) -> Tried {
    match answer {
        Ok(PeerAnswer::Taken { index, replies }) => {
            Tried::Applied(Applied { index, replies, guards: Default::default() })
        }
        Ok(PeerAnswer::Refused(error)) => Tried::Refused(error),
        Ok(PeerAnswer::NotTaken { leader }) => Tried::NotTaken(leader),
        Ok(PeerAnswer::Unknown) | Err(NoAnswer::Unknown) => Tried::Unknown,
        Ok(
            PeerAnswer::Clock { .. }
            | PeerAnswer::Report(_)
            | PeerAnswer::Members(_)
            | PeerAnswer::Found(_),
        ) => Tried::Unknown,
        Err(NoAnswer::NotSent) => Tried::NotTaken(None),
    }
}

/// By the group's number, so that all get their share; each turn another one, so that a member
/// that cannot lead yet holds up nobody for long.
fn choose(group: GroupId, turn: usize, well: &[PeerId]) -> Option<PeerId> {
    let at = usize::from(group.0).wrapping_add(turn).checked_rem(well.len())?;
    Some(well[at])
}

fn no_leader(group: GroupId) -> ServiceError {
    ServiceError::new(
        ErrorCode::RaftUnavailable,
        format!("Group {group} has no leader that this node can reach; nothing was written"),
    )
    .with("group", u64::from(group.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_offered_to_each_member_that_could_lead_it_in_turn() {
        let well = [PeerId(2), PeerId(3)];
        let of = |group, turn| choose(GroupId(group), turn, &well).expect("somebody is well");
        assert_eq!([of(0, 0), of(1, 0), of(2, 0)], [PeerId(2), PeerId(3), PeerId(2)]);
        assert_eq!([of(1, 0), of(1, 1), of(1, 2)], [PeerId(3), PeerId(2), PeerId(3)]);
        assert_eq!(of(1, usize::MAX), PeerId(2), "turns begin anew");
        assert_eq!(choose(GroupId(1), 7, &[PeerId(3)]), Some(PeerId(3)), "whoever is left");
        assert_eq!(choose(GroupId(1), 0, &[]), None);
    }

    #[test]
    fn only_what_certainly_has_no_effect_is_tried_again() {
        let again = [
            told(Err(NoAnswer::NotSent)),
            told(Ok(PeerAnswer::NotTaken { leader: None })),
            told(Ok(PeerAnswer::NotTaken { leader: Some(PeerId(2)) })),
        ];
        assert!(again.iter().all(|tried| matches!(tried, Tried::NotTaken(_))));
        let never = [
            told(Err(NoAnswer::Unknown)),
            told(Ok(PeerAnswer::Unknown)),
            told(Ok(PeerAnswer::Clock { wall_ms: 1, may_lead: true })),
        ];
        assert!(never.iter().all(|tried| matches!(tried, Tried::Unknown)));
    }
}
