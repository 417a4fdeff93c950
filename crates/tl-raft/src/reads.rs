//! Reads of one group that wait for an index.
//!
//! Raft drops a read request without a word when its leader has not committed in its term yet,
//! when nobody leads, and when a message is lost. So reads are asked in rounds under a context of
//! our own, a round that stays without an answer is asked again, and a read that has waited for
//! too long is answered as failed. All reads that arrive before a round share it.
//!
//! A context is never used twice, also not by a later life of this node: an answer to an old
//! question would name an index from before newer writes.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::config::{READ_RETRY_TICKS, READ_ROUNDS_MAX};
use crate::deeds::{PeerId, Token};

/// Names one round in the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoundId {
    pub(crate) peer: PeerId,
    /// Drawn at each start of the driver.
    pub(crate) life: u64,
    pub(crate) number: u64,
}

impl RoundId {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(24);
        out.put_u64_le(self.peer.0);
        out.put_u64_le(self.life);
        out.put_u64_le(self.number);
        out.freeze()
    }
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    ticks: u32,
}

#[derive(Debug)]
struct Round {
    context: Bytes,
    reads: Vec<Waiting>,
    ticks: u32,
}

/// Open reads of one group.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<Waiting>,
    rounds: VecDeque<Round>,
}

impl Reads {
    pub(crate) fn add(&mut self, token: Token) {
        self.waiting.push(Waiting { token, ticks: 0 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.rounds.is_empty()
    }

    /// Whether a round should be started.
    pub(crate) fn wants_round(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.len() < READ_ROUNDS_MAX
    }

    /// Puts all waiting reads into a round.
    pub(crate) fn start_round(&mut self, context: Bytes) {
        let reads = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { context, reads, ticks: 0 });
    }

    /// The reads of the round that an answer is for; none if it has been given up.
    pub(crate) fn finish_round(&mut self, context: &[u8]) -> impl Iterator<Item = Token> + use<> {
        let found = self.rounds.iter().position(|round| round.context == context);
        let round = found.and_then(|at| self.rounds.remove(at));
        round.map(|round| round.reads).unwrap_or_default().into_iter().map(|read| read.token)
    }

    /// Leadership changed: nobody will answer the rounds under way.
    pub(crate) fn restart_rounds(&mut self) {
        for round in self.rounds.drain(..) {
            self.waiting.extend(round.reads);
        }
    }

    /// A tick has passed; returns reads that have waited for `patience` ticks.
    pub(crate) fn tick(&mut self, patience: u32) -> Vec<Token> {
        for round in &mut self.rounds {
            round.ticks += 1;
            round.reads.iter_mut().for_each(|read| read.ticks += 1);
        }
        self.waiting.iter_mut().for_each(|read| read.ticks += 1);
        while self.rounds.front().is_some_and(|round| round.ticks >= READ_RETRY_TICKS) {
            let round = self.rounds.pop_front().expect("just seen");
            self.waiting.extend(round.reads);
        }
        self.waiting.extract_if(.., |read| read.ticks >= patience).map(|read| read.token).collect()
    }
}
