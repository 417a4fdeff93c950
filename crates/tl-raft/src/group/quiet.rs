//! The beats of a group in which nothing happens, past Raft's state machine.
//!
//! An idle node has hundreds of groups whose leaders say ten times a second that they are there. Through
//! Raft each such beat makes a `Ready` and two messages, and on the other side a `Ready` and an answer.
//! Where a beat could change nothing but that a peer was heard of, that is noted here, with the same
//! effect, and nothing else is done. Everything else takes the usual way: reads, elections, whoever lacks
//! entries, and the leader's look for a majority, for which one beat in ten goes through Raft.

use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, StateRole};
use tl_types::{Index, Term};

use super::Group;
use crate::deeds::PeerId;

/// What a leader says of a group in a beat, and a follower in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) term: Term,
    pub(crate) committed: Index,
}

/// What came of a peer's beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is noted, and this is its answer.
    Beat(Beat),
    /// A follower's answer is noted.
    Answer,
    /// It is for Raft.
    News,
}

impl Group {
    /// Whom a leader's beat goes to.
    pub(crate) fn others(&self) -> impl Iterator<Item = PeerId> {
        let all = self.raw.raft.prs().iter().map(|(peer, _)| PeerId(*peer));
        all.filter(|peer| *peer != self.peer)
    }

    /// Lets a leader's beat pass without Raft; `None` if it has to go through it.
    pub(crate) fn beat(&mut self) -> Option<Beat> {
        let raft = &self.raw.raft;
        // Raft looks for its majority at the end of this time.
        let looks_next = raft.election_elapsed + 1 >= raft.election_timeout();
        if looks_next || !self.is_settled_leader() {
            return None;
        }
        let all_have_all = self
            .raw
            .raft
            .prs()
            .iter()
            .all(|(peer, progress)| *peer == self.peer.0 || self.has_all(progress));
        if !all_have_all {
            return None;
        }
        self.raw.raft.election_elapsed += 1;
        Some(self.stand())
    }

    /// Takes a beat or an answer to one, if it changes nothing else.
    pub(crate) fn heard(&mut self, from: PeerId, message: &Message) -> Heard {
        if message.term != self.raw.raft.term || !message.context.is_empty() {
            return Heard::News;
        }
        match message.get_msg_type() {
            MessageType::MsgHeartbeat => self.heard_beat(from, message),
            MessageType::MsgHeartbeatResponse => self.heard_answer(from, message),
            _ => Heard::News,
        }
    }

    fn heard_beat(&mut self, from: PeerId, message: &Message) -> Heard {
        let raft = &self.raw.raft;
        let is_known = raft.state == StateRole::Follower
            && raft.leader_id == from.0
            && raft.raft_log.committed == message.commit
            && raft.pending_request_snapshot == raft::INVALID_INDEX;
        let is_well = !self.is_damaged && self.installing.is_none();
        // What an answer promises is on disk: the term at least.
        if !is_known || !is_well || !self.unconfirmed.is_empty() || self.members().is_gone(from) {
            return Heard::News;
        }
        self.raw.raft.election_elapsed = 0;
        Heard::Beat(self.stand())
    }

    fn heard_answer(&mut self, from: PeerId, message: &Message) -> Heard {
        if !self.is_settled_leader() || message.commit != self.raw.raft.raft_log.committed {
            return Heard::News;
        }
        let has_all = self.raw.raft.prs().get(from.0).is_some_and(|it| self.has_all(it));
        if !has_all {
            return Heard::News;
        }
        let progress = self.raw.raft.mut_prs().get_mut(from.0).expect("just seen");
        progress.update_committed(message.commit);
        progress.recent_active = true;
        Heard::Answer
    }

    /// Leads, with nothing proposed, read, changed, handed over or on its way to the disk.
    fn is_settled_leader(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Leader
            && raft.lead_transferee.is_none()
            && raft.pending_read_count() == 0
            && raft.raft_log.committed == raft.raft_log.last_index()
            && !self.is_damaged
            && self.installing.is_none()
            && self.giving.is_empty()
            && self.unconfirmed.is_empty()
            && self.members().voters.contains(&self.peer)
    }

    /// Nothing is to be sent to it. Behind a broken connection Raft probes with the next entry, which in an
    /// idle group does not come.
    fn has_all(&self, progress: &raft::Progress) -> bool {
        progress.state != ProgressState::Snapshot
            && progress.matched == self.raw.raft.raft_log.last_index()
            && progress.pending_request_snapshot == raft::INVALID_INDEX
            && !progress.is_paused()
    }

    fn stand(&self) -> Beat {
        let raft = &self.raw.raft;
        Beat { term: Term(raft.term), committed: Index(raft.raft_log.committed) }
    }
}
