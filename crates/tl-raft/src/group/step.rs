//! Messages of peers: which Raft may see, and which would stop the process or cannot be meant.
use raft::eraftpb::{Message, MessageType};
use tl_types::Index;

use super::Group;
use super::change::asks_for_vote;
use crate::deeds::PeerId;

impl Group {
    /// Takes a peer's message, unless Raft would panic on it or it cannot be meant for here.
    pub(crate) fn step(&mut self, from: PeerId, mut message: Message) -> Result<(), &'static str> {
        // A number that is not known yet may be a member by a change that did not come here so far.
        if from == self.peer || self.members().is_gone(from) {
            return Err("sender is no other member of the group");
        }
        if self.doubt.is_some() {
            return self.step_in_doubt(from, message);
        }
        self.check_shape(&message)?;
        if self.has_nothing() && asks_for_vote(&message) {
            // As if it were lost. Whoever counts on this vote has given the group to this node first.
            return Ok(());
        }
        if self.is_damaged && message.get_msg_type() == MessageType::MsgTimeoutNow {
            // As if it were lost: its leader has not heard yet that the rows here are damaged.
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgReadIndex && !self.leads() {
            // It came late. Raft would pass it on, and two followers for ever; the asker asks again.
            return Ok(());
        }
        if self.is_late_rejection(from, &message) {
            return Ok(());
        }
        let may_not_lead = self.installing.is_some() || self.is_damaged;
        if message.get_msg_type() == MessageType::MsgTimeoutNow && may_not_lead {
            // As if it were lost: the leader goes on after a while.
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.check_snapshot(&mut message)?;
        }
        self.hint_by_terms(&mut message);
        self.note_answer(from, &message);
        message.from = from.0;
        message.to = self.peer.0;
        // What Raft answers with an error (a response of a peer that it does not track) is as good as lost.
        let stepped = self.raw.step(message).map_err(|_| "refused by raft");
        self.stepped();
        stepped
    }

    /// Raft trusts its peers and stops the process on these; a broken peer shall not do that. A
    /// node that led, crashed and came back with a shorter log may see answers ahead of it: as a
    /// follower it passes over them.
    fn check_shape(&self, message: &Message) -> Result<(), &'static str> {
        let last = self.raw.raft.raft_log.last_index();
        match message.get_msg_type() {
            MessageType::MsgHeartbeat
                if message.term >= self.raw.raft.term && message.commit > last =>
            {
                Err("heartbeat commits entries that are not here")
            }
            MessageType::MsgAppendResponse
                if self.leads()
                    && !message.reject
                    && message.term == self.raw.raft.term
                    && message.index > last =>
            {
                Err("append answer is ahead of the log")
            }
            MessageType::MsgAppend if message.index > 0 && message.log_term == 0 => {
                // Raft takes an entry behind the last one here for one of term 0.
                Err("append behind an entry of no term")
            }
            MessageType::MsgAppend
                if message.term >= self.raw.raft.term && self.rewrites_committed(message) =>
            {
                Err("append of other entries than are committed here")
            }
            _ => Ok(()),
        }
    }

    /// Whether an append says of an entry that is committed and still known here that it is another.
    /// No leader of this term or a later one does, unless it lost its log: Raft would tell it that
    /// both are alike so far. Terms never fall along a log, so what is behind the last one is of its
    /// term at least.
    fn rewrites_committed(&self, message: &Message) -> bool {
        let log = &self.raw.raft.raft_log;
        let term_here = |index| log.term(index).ok().filter(|term| *term > 0);
        if message.index > log.committed {
            return term_here(log.committed).is_some_and(|term| message.log_term < term);
        }
        let entries = message.entries.iter().map(|entry| (entry.index, entry.term));
        std::iter::once((message.index, message.log_term))
            .chain(entries)
            .take_while(|(index, _)| *index <= log.committed)
            .any(|(index, term)| term_here(index).is_some_and(|here| here != term))
    }

    /// What a follower has confirmed to this leader.
    pub(crate) fn matched(&self, peer: PeerId) -> Option<Index> {
        if !self.leads() {
            return None;
        }
        self.raw.raft.prs().get(peer.0).map(|progress| Index(progress.matched))
    }

    /// A follower never loses what it has confirmed, so a rejection from before that says nothing
    /// any more. Raft while probing would go back to where the follower stood then; entries that
    /// nobody lacks are gone from memory, and the follower would wait for a snapshot for ever.
    fn is_late_rejection(&self, from: PeerId, message: &Message) -> bool {
        let raft = &self.raw.raft;
        let matched = raft.prs().get(from.0).map_or(0, |progress| progress.matched);
        message.get_msg_type() == MessageType::MsgAppendResponse
            && self.leads()
            && message.reject
            && message.request_snapshot == raft::INVALID_INDEX
            && message.term == raft.term
            && (message.index <= matched || message.reject_hint < matched)
    }
}
