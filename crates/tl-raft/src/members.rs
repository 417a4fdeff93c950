//! Who belongs to a group, how that changes, and how it is written down.
//!
//! A change is an entry of the group's own log, and names all members as they are from then on.
//! So whoever has the entry knows them without what was before: a replica that starts with
//! nothing, and one that starts from a log whose beginning is gone.
//!
//! ```text
//!   members = version (1 byte, 1) at (u64) highest (u64) voters outgoing learners
//!   list    = count (1 byte) number (u64){count}                      rising, big-endian
//!   entry   = mark (4 bytes) members                  `at` is the entry's own index
//! ```
//!
//! A disk that was lost is replaced in three changes, each of which is found again by looking:
//!
//! ```text
//!   1 2 3 ──AddLearner(4)──► 1 2 3 +4 ──Swap(4 for 3)──► 1 2 4 and 1 2 3 ──LeaveJoint──► 1 2 4
//! ```
//!
//! In between, both majorities must agree, so nothing that either has taken can be forgotten.

use bytes::{BufMut, Bytes, BytesMut};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};
use tl_types::Index;

use crate::deeds::PeerId;

/// Most numbers in one list of members.
const LIST_MAX: usize = 7;
/// Learners that a group may have at a time.
pub const LEARNERS_MAX: usize = 1;
/// A group with fewer voters has no changes: a leader that is its only voter sends before its own
/// term is on disk, so nobody may listen to one; and of two, none can be replaced while it is lost.
pub const CHANGE_VOTERS_MIN: usize = 3;
/// A learner may vote once it lacks at most so many of the committed entries.
pub const CAUGHT_UP_ENTRIES: u64 = 256;

const VERSION: u8 = 1;
/// Before the members of an entry. What is proposed by a caller never begins like that.
const MARK: [u8; 4] = *b"\0TLM";

/// Who belongs to a group, as of one entry of its log. Lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The entry that made them so; 0 for those that the group was founded with.
    pub at: Index,
    /// Who votes.
    pub voters: Vec<PeerId>,
    /// Who voted before, as long as both majorities must agree; empty otherwise.
    pub voters_outgoing: Vec<PeerId>,
    /// Who is given entries and rows and has no vote.
    pub learners: Vec<PeerId>,
    /// The highest number that was ever a member: a number comes once and never again.
    pub highest: PeerId,
}

/// A step from some members to others. One at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// A number that was never a member is given entries and rows.
    AddLearner(PeerId),
    /// A learner goes again: its disk was lost too.
    RemoveLearner(PeerId),
    /// A learner that has caught up votes, and another voter goes. Until [`MemberChange::LeaveJoint`]
    /// the majorities with and without the change must both agree.
    Swap {
        /// The learner.
        new_in: PeerId,
        /// The voter.
        old_out: PeerId,
    },
    /// The majority after the change is enough.
    LeaveJoint,
}

/// Why a change was not proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Another node leads the group, or none.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<PeerId>,
    },
    /// A change is under way, or this leader has not applied yet what was there before it.
    #[error("a change is under way, or the leader is too new")]
    Pending,
    /// Leadership is being handed over, rows are being put in place, or too much is uncommitted.
    #[error("the leader is busy")]
    Busy,
    /// A joint change must be left first.
    #[error("a joint change is to be left first")]
    Joint,
    /// There is no joint change to be left.
    #[error("no joint change is under way")]
    NotJoint,
    /// The number is a member.
    #[error("the number is a member already")]
    AlreadyMember,
    /// The number is not above all that were ever members.
    #[error("the number may have been a member before")]
    NumberUsed,
    /// The number to come in or to go is no learner.
    #[error("the number is no learner")]
    NoLearner,
    /// The number to go has no vote.
    #[error("the number has no vote")]
    NoVoter,
    /// The learner lacks too much of what is committed.
    #[error("the learner has not caught up")]
    NotCaughtUp,
    /// The leader itself would go. It hands over by itself.
    #[error("the leader itself would go")]
    LeaderLeaves,
    /// The group has fewer than [`CHANGE_VOTERS_MIN`] voters.
    #[error("the group has too few voters")]
    TooFewVoters,
    /// The group has [`LEARNERS_MAX`] learners.
    #[error("the group has a learner already")]
    TooManyLearners,
}

/// Why bytes are no members, in a few fixed words.
pub(crate) type Damage = &'static str;

impl Members {
    /// The members that a group begins with.
    #[must_use]
    pub fn founding(voters: &[PeerId]) -> Members {
        let voters = sorted(voters.iter().copied());
        let highest = voters.last().copied().unwrap_or(PeerId(0));
        let (voters_outgoing, learners) = (Vec::new(), Vec::new());
        Members { at: Index(0), voters, voters_outgoing, learners, highest }
    }

    /// Whether two majorities must agree.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether the number belongs to the group in any role.
    #[must_use]
    pub fn contains(&self, peer: PeerId) -> bool {
        self.is_voter(peer) || self.is_learner(peer)
    }

    /// Whether the number's vote counts.
    #[must_use]
    pub fn is_voter(&self, peer: PeerId) -> bool {
        self.voters.contains(&peer) || self.voters_outgoing.contains(&peer)
    }

    /// Whether the number is given everything and has no vote.
    #[must_use]
    pub fn is_learner(&self, peer: PeerId) -> bool {
        self.learners.contains(&peer)
    }

    /// Whether the number was a member, or could have been, and is none. One above all that were
    /// is not gone: it may be a member by a change that is not known here yet.
    #[must_use]
    pub fn is_gone(&self, peer: PeerId) -> bool {
        peer <= self.highest && !self.contains(peer)
    }

    /// How many belong to it.
    pub(crate) fn count(&self) -> usize {
        let all = self.voters.iter().chain(&self.voters_outgoing).chain(&self.learners);
        sorted(all.copied()).len()
    }

    /// The members after a change, if these allow it.
    pub(crate) fn changed(&self, change: MemberChange) -> Result<Members, ChangeRefused> {
        if self.voters.len() < CHANGE_VOTERS_MIN {
            return Err(ChangeRefused::TooFewVoters);
        }
        if self.is_joint() != (change == MemberChange::LeaveJoint) {
            let refused =
                if self.is_joint() { ChangeRefused::Joint } else { ChangeRefused::NotJoint };
            return Err(refused);
        }
        let mut next = self.clone();
        match change {
            MemberChange::AddLearner(peer) => {
                if self.contains(peer) {
                    return Err(ChangeRefused::AlreadyMember);
                }
                if peer <= self.highest {
                    return Err(ChangeRefused::NumberUsed);
                }
                if self.learners.len() >= LEARNERS_MAX {
                    return Err(ChangeRefused::TooManyLearners);
                }
                next.learners.push(peer);
                next.highest = peer;
            }
            MemberChange::RemoveLearner(peer) => {
                if !self.is_learner(peer) {
                    return Err(ChangeRefused::NoLearner);
                }
                next.learners.retain(|learner| *learner != peer);
            }
            MemberChange::Swap { new_in, old_out } => {
                if !self.is_learner(new_in) {
                    return Err(ChangeRefused::NoLearner);
                }
                if !self.voters.contains(&old_out) {
                    return Err(ChangeRefused::NoVoter);
                }
                next.learners.retain(|learner| *learner != new_in);
                next.voters_outgoing.clone_from(&self.voters);
                let stay = self.voters.iter().copied().filter(|voter| *voter != old_out);
                next.voters = sorted(stay.chain([new_in]));
            }
            MemberChange::LeaveJoint => next.voters_outgoing.clear(),
        }
        Ok(next)
    }

    /// What Raft is told to come from these members to the next ones in one step; `None` if these
    /// are not what the next ones came from.
    pub(crate) fn step_to(&self, next: &Members) -> Option<ConfChangeV2> {
        let mut change = ConfChangeV2::default();
        let goes = |from: &[PeerId], to: &[PeerId]| -> Vec<PeerId> {
            from.iter().copied().filter(|peer| !to.contains(peer)).collect()
        };
        match (self.is_joint(), next.is_joint()) {
            (false, true) => {
                change.set_transition(ConfChangeTransition::Explicit);
                let comes = goes(&next.voters, &self.voters)
                    .into_iter()
                    .map(|peer| single(peer, ConfChangeType::AddNode));
                let gone = goes(&self.voters, &next.voters)
                    .into_iter()
                    .map(|peer| single(peer, ConfChangeType::RemoveNode));
                change.set_changes(comes.chain(gone).collect::<Vec<_>>().into());
            }
            // A change without parts is one that leaves.
            (true, false) => {}
            (false, false) => {
                let comes = goes(&next.learners, &self.learners)
                    .into_iter()
                    .map(|peer| single(peer, ConfChangeType::AddLearnerNode));
                let gone = goes(&self.learners, &next.learners)
                    .into_iter()
                    .map(|peer| single(peer, ConfChangeType::RemoveNode));
                let changes: Vec<_> = comes.chain(gone).collect();
                if changes.len() != 1 {
                    return None;
                }
                change.set_changes(changes.into());
            }
            (true, true) => return None,
        }
        let mut reached = Members { at: next.at, highest: next.highest, ..self.clone() };
        match (self.is_joint(), next.is_joint()) {
            (false, true) => {
                reached.voters_outgoing.clone_from(&self.voters);
                reached.voters.clone_from(&next.voters);
                reached.learners = goes(&self.learners, &next.voters);
            }
            (true, _) => reached.voters_outgoing.clear(),
            (false, false) => reached.learners.clone_from(&next.learners),
        }
        (reached == *next).then_some(change)
    }

    /// What Raft is told, one after the other, to come from any members to these.
    pub(crate) fn steps_from(&self, other: &Members) -> Vec<ConfChangeV2> {
        let alone = |peer: PeerId, kind| {
            let mut change = ConfChangeV2::default();
            change.set_changes(vec![single(peer, kind)].into());
            change
        };
        let mut steps = Vec::new();
        if other.is_joint() {
            steps.push(ConfChangeV2::default());
        }
        let before = if self.is_joint() { &self.voters_outgoing } else { &self.voters };
        let comes = before.iter().filter(|peer| !other.voters.contains(peer));
        steps.extend(comes.map(|peer| alone(*peer, ConfChangeType::AddNode)));
        let gone = other.voters.iter().chain(&other.learners);
        let gone = gone.filter(|peer| !before.contains(peer));
        steps.extend(gone.map(|peer| alone(*peer, ConfChangeType::RemoveNode)));
        steps.extend(self.learners.iter().map(|peer| alone(*peer, ConfChangeType::AddLearnerNode)));
        if self.is_joint() {
            let unjoint = Members {
                voters: self.voters_outgoing.clone(),
                voters_outgoing: Vec::new(),
                ..self.clone()
            };
            steps.extend(unjoint.step_to(self));
        }
        steps
    }

    pub(crate) fn to_conf_state(&self) -> ConfState {
        let numbers = |list: &[PeerId]| list.iter().map(|peer| peer.0).collect::<Vec<_>>();
        let mut state = ConfState::default();
        state.voters = numbers(&self.voters);
        state.voters_outgoing = numbers(&self.voters_outgoing);
        state.learners = numbers(&self.learners);
        state
    }

    /// Whether Raft has come to the same members.
    pub(crate) fn are(&self, state: &ConfState) -> bool {
        let same = |list: &[PeerId], other: &[u64]| {
            sorted(other.iter().copied().map(PeerId)) == list && other.len() == list.len()
        };
        same(&self.voters, &state.voters)
            && same(&self.voters_outgoing, &state.voters_outgoing)
            && same(&self.learners, &state.learners)
            && state.learners_next.is_empty()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.put(&mut out);
        out.freeze()
    }

    /// The data of the entry that makes them so.
    pub(crate) fn encode_entry(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&MARK);
        self.put(&mut out);
        out.freeze()
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u64(self.at.0);
        out.put_u64(self.highest.0);
        for list in [&self.voters, &self.voters_outgoing, &self.learners] {
            out.put_u8(u8::try_from(list.len()).expect("lists of members are short"));
            list.iter().for_each(|peer| out.put_u64(peer.0));
        }
    }

    /// Reads members from a disk or a peer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Members, Damage> {
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return Err("unknown version of members");
        }
        let members = Members {
            at: Index(reader.number()?),
            highest: PeerId(reader.number()?),
            voters: reader.list()?,
            voters_outgoing: reader.list()?,
            learners: reader.list()?,
        };
        if !reader.0.is_empty() {
            return Err("members go on behind their end");
        }
        members.check()?;
        Ok(members)
    }

    /// The members that an entry makes, if it is one that does; or in a few fixed words what is wrong
    /// with it.
    #[must_use]
    pub fn of_entry(index: Index, data: &[u8]) -> Option<Result<Members, &'static str>> {
        let members = Members::decode(data.strip_prefix(&MARK)?);
        Some(members.and_then(|members| match members.at == index {
            true => Ok(members),
            false => Err("members of another entry"),
        }))
    }

    fn check(&self) -> Result<(), Damage> {
        let mut all = self.voters.iter().chain(&self.voters_outgoing).chain(&self.learners);
        if all.any(|peer| peer.0 == 0 || *peer > self.highest) {
            return Err("members with a number out of range");
        }
        if self.learners.iter().any(|peer| self.is_voter(*peer)) {
            return Err("members of which one votes and does not");
        }
        let may_change = self.at.0 > 0 || self.is_joint() || !self.learners.is_empty();
        let few = self.voters.len() < CHANGE_VOTERS_MIN
            || self.is_joint() && self.voters_outgoing.len() < CHANGE_VOTERS_MIN;
        if self.voters.is_empty() || may_change && few {
            return Err("members with too few voters");
        }
        Ok(())
    }
}

/// Whether an entry's data is a change of members.
pub(crate) fn is_change(data: &[u8]) -> bool {
    data.starts_with(&MARK)
}

fn single(peer: PeerId, kind: ConfChangeType) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.node_id = peer.0;
    single.set_change_type(kind);
    single
}

fn sorted(peers: impl Iterator<Item = PeerId>) -> Vec<PeerId> {
    let mut peers: Vec<_> = peers.collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.0.split_first().ok_or("members end early")?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, Damage> {
        let (first, rest) = self.0.split_first_chunk().ok_or("members end early")?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*first))
    }

    fn list(&mut self) -> Result<Vec<PeerId>, Damage> {
        let count = usize::from(self.byte()?);
        if count > LIST_MAX {
            return Err("too many members");
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let peer = PeerId(self.number()?);
            if list.last().is_some_and(|last| *last >= peer) {
                return Err("members out of order");
            }
            list.push(peer);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests;
