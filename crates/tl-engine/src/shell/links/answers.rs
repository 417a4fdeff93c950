//! Answers to what other nodes ask.
//!
//! Requests and answers to one peer wait in one queue, whose room is bounded. What is small goes there at
//! once: whether a write was done must not wait behind pages of a replay, and least of all be dropped
//! since these have filled the queue. So a large answer waits until there is room for it and more,
//! one at a time for each peer, and no longer than whoever asked does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tl_raft::PeerId;
use tl_raft::transport::FrameKind;

use super::Links;
use crate::peer::Answer;

/// An answer up to this size goes without waiting, bytes.
const SMALL_BYTES: usize = 64 * 1024;
/// Room in a peer's queue that large answers leave to small ones, bytes.
const RESERVE_BYTES: usize = 16 * 1024 * 1024;

/// Whose turn it is to wait for room, by peer.
pub(super) type Turns = Mutex<BTreeMap<PeerId, Arc<tokio::sync::Mutex<()>>>>;

impl Links {
    /// The same as [`Links::answer`], behind the next [`Links::release`].
    pub(crate) fn answer_later(&self, to: PeerId, id: u64, answer: &Answer) {
        let payload = answer.encode(id);
        if !self.hold(to, FrameKind::Reply, payload.clone()) {
            // What the turn has said so far may have filled the queue and not the socket.
            self.release();
            self.hold(to, FrameKind::Reply, payload);
        }
    }

    /// Sends an answer, if there is room for it; else whoever asked hears nothing.
    pub(crate) fn answer(&self, to: PeerId, id: u64, answer: &Answer) {
        self.reply(to, answer.encode(id));
    }

    /// The same for an answer that may be large: it waits for its turn and for room, until then.
    pub(crate) async fn answer_in_turn(
        &self,
        to: PeerId,
        id: u64,
        answer: &Answer,
        until: Instant,
    ) {
        let payload = answer.encode(id);
        if payload.len() <= SMALL_BYTES {
            return self.reply(to, payload);
        }
        let turn = Arc::clone(self.turns.lock().entry(to).or_default());
        let sent = async {
            let _turn = turn.lock().await;
            let Some(sender) = self.sender.read().clone() else { return };
            let room = payload.len() + RESERVE_BYTES;
            let room = room.min(FrameKind::Reply.payload_bytes_max());
            if sender.wait_for_room(to, FrameKind::Reply, room).await.is_ok() {
                self.reply(to, payload);
            }
        };
        // Whoever asked has stopped waiting.
        let _ = tokio::time::timeout_at(until.into(), sent).await;
    }

    fn reply(&self, to: PeerId, payload: Bytes) {
        if let Some(sender) = &*self.sender.read() {
            let _ = sender.send(to, FrameKind::Reply, payload);
        }
    }
}

#[cfg(test)]
mod tests;
