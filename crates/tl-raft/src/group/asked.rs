//! What is asked of a group: proposals and reads, kept until they leave together.
use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use tl_types::{Index, Term};

use super::{Group, UNCOMMITTED_OVERHEAD};
use crate::deeds::{Outcome, PeerId, Token};
use crate::members::is_change;
use crate::reads::RoundId;

impl Group {
    /// Keeps a proposal for [`Group::propose_all`]; returns whether it is the first one kept.
    pub(crate) fn queue_proposal(&mut self, token: Token, data: Bytes) -> bool {
        assert!(!data.is_empty(), "an empty entry is a new leader's own");
        assert!(!is_change(&data), "members are changed in a way of their own");
        self.proposals.push((token, data));
        self.proposals.len() == 1
    }

    /// Proposes what was queued, as one message to each follower.
    pub(crate) fn propose_all(&mut self, outcomes: &mut Vec<Outcome>) {
        if self.proposals.is_empty() {
            return;
        }
        let transferee = self.raw.raft.lead_transferee.map(PeerId);
        let mut proposals = std::mem::take(&mut self.proposals);
        if !self.leads() || transferee.is_some() {
            let leader = transferee.or(self.leader());
            outcomes
                .extend(proposals.drain(..).map(|(token, _)| Outcome::NotLeader { token, leader }));
            self.proposals = proposals;
            return;
        }
        let mut bytes = self.raw.raft.uncommitted_size();
        let mut tokens = Vec::with_capacity(proposals.len());
        let mut entries = Vec::with_capacity(proposals.len());
        for (token, data) in proposals.drain(..) {
            // An entry larger than the budget still goes when nothing else is on its way.
            if bytes > 0 && bytes + data.len() + UNCOMMITTED_OVERHEAD > self.uncommitted_bytes_max {
                outcomes.push(Outcome::Busy { token });
                continue;
            }
            bytes += data.len() + UNCOMMITTED_OVERHEAD;
            let mut entry = Entry::default();
            entry.data = data;
            entries.push(entry);
            tokens.push(token);
        }
        self.proposals = proposals;
        if entries.is_empty() {
            return;
        }
        let first = self.raw.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer.0;
        message.set_entries(entries.into());
        match self.raw.raft.step(message) {
            Ok(()) => {
                let term = Term(self.raw.raft.term);
                for (index, token) in (first..).zip(tokens) {
                    self.tokens.proposed(Index(index), term, token);
                }
            }
            // Nothing was appended: a leader that is a voter and hands nothing over only refuses for
            // its budget, which counts a little differently.
            Err(_) => outcomes.extend(tokens.into_iter().map(|token| Outcome::Busy { token })),
        }
    }

    pub(crate) fn queue_read(&mut self, token: Token) {
        self.reads.add(token);
    }

    pub(crate) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Asks for an index for all reads that wait, if somebody could answer now.
    pub(crate) fn ask_reads(&mut self, mut round: impl FnMut() -> RoundId) {
        let answerable = if self.leads() {
            self.raw.raft.commit_to_current_term()
        } else {
            self.raw.raft.leader_id != 0
        };
        if answerable && self.reads.wants_round() {
            let context = round().encode();
            self.reads.start_round(context.clone());
            let mut entry = Entry::default();
            entry.data = context;
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgReadIndex);
            message.set_entries(vec![entry].into());
            // A refusal shows as a round without an answer.
            let _ = self.raw.raft.step(message);
        }
    }

    pub(crate) fn tick_reads(&mut self, outcomes: &mut Vec<Outcome>) {
        if self.reads.is_empty() {
            return;
        }
        let patience = u32::try_from(self.election_ticks.1).expect("an election time-out is short");
        let leader = self.leader();
        let failed = self.reads.tick(patience).into_iter();
        outcomes.extend(failed.map(|token| Outcome::ReadFailed { token, leader }));
    }
}
