//! What waits to be sent to one peer on one connection: who goes first, and when it is full.
//!
//! ```text
//!   heartbeats alone ────────────────► first
//!   other frames of the driver ──┐
//!                                ├──► in turns, a frame each
//!   requests, replies, bulk ─────┘
//! ```
//!
//! Each of the three classes keeps its order and has limits of its own, so neither can push the
//! other out. Heartbeats therefore wait for what is being written and for nothing else.

use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::Batch;
use super::codec::FrameKind;
use crate::frame::only_beats;

/// Heartbeat frames that wait for one peer. One past: the frame is dropped.
pub const URGENT_FRAMES_MAX: usize = 64;
/// A frame above this is not looked at for being heartbeats alone, bytes. Those of 256 groups
/// take less even with the longest numbers that Raft is likely to see.
pub const URGENT_BYTES_MAX: usize = 8 * 1024;

/// What may wait, for each of two classes: frames of the driver, and all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most bytes of payload. One past: refused.
    pub bytes_max: usize,
    /// Most frames. One past: refused.
    pub frames_max: usize,
}

/// There is no room for the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Default)]
struct Class {
    frames: VecDeque<(FrameKind, Bytes)>,
    bytes: usize,
}

impl Class {
    fn has_room(&self, payload_bytes: usize, limits: QueueLimits) -> bool {
        self.frames.len() < limits.frames_max
            && payload_bytes <= limits.bytes_max.saturating_sub(self.bytes)
    }

    fn push(&mut self, kind: FrameKind, payload: Bytes, limits: QueueLimits) -> Result<(), Full> {
        if !self.has_room(payload.len(), limits) {
            return Err(Full);
        }
        self.bytes += payload.len();
        self.frames.push_back((kind, payload));
        Ok(())
    }

    /// Moves the first frame into the batch, if both are there.
    fn move_one(&mut self, batch: &mut Batch) -> bool {
        let fits = self.frames.front().is_some_and(|(_, payload)| batch.has_room(payload.len()));
        if fits && let Some((kind, payload)) = self.frames.pop_front() {
            self.bytes -= payload.len();
            batch.push(kind, payload);
        }
        fits
    }
}

/// Frames that wait, in the order in which they go.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    urgent: Class,
    raft: Class,
    others: Class,
    /// Whose turn it is when both have something.
    others_next: bool,
}

impl Queue {
    /// An empty one.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Queue {
        Queue {
            limits,
            urgent: Class::default(),
            raft: Class::default(),
            others: Class::default(),
            others_next: false,
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// When its class has reached a limit.
    pub fn push(&mut self, kind: FrameKind, payload: Bytes) -> Result<(), Full> {
        match kind {
            FrameKind::Raft if payload.len() <= URGENT_BYTES_MAX && only_beats(&payload) => {
                let limits = QueueLimits {
                    bytes_max: URGENT_BYTES_MAX * URGENT_FRAMES_MAX,
                    frames_max: URGENT_FRAMES_MAX,
                };
                self.urgent.push(kind, payload, limits)
            }
            FrameKind::Raft => self.raft.push(kind, payload, self.limits),
            FrameKind::Request | FrameKind::Reply | FrameKind::Bulk => {
                self.others.push(kind, payload, self.limits)
            }
        }
    }

    /// Whether a request, reply or chunk of so many bytes would be taken.
    #[must_use]
    pub fn has_room(&self, payload_bytes: usize) -> bool {
        self.others.has_room(payload_bytes, self.limits)
    }

    /// What goes next, as much as one write takes; empty when nothing waits.
    pub fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        while self.urgent.move_one(&mut batch) {}
        loop {
            let (first, second) = match self.others_next {
                true => (&mut self.others, &mut self.raft),
                false => (&mut self.raft, &mut self.others),
            };
            if !first.frames.is_empty() {
                // Where the first one does not fit, the second must not pass it by.
                if !first.move_one(&mut batch) {
                    return batch;
                }
                self.others_next = !self.others_next;
            } else if !second.move_one(&mut batch) {
                return batch;
            }
        }
    }

    /// Frames that wait.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.urgent.frames.len() + self.raft.frames.len() + self.others.frames.len()
    }

    /// Their payloads, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.urgent.bytes + self.raft.bytes + self.others.bytes
    }

    /// Takes everything out, in order within each class.
    pub fn clear(&mut self) -> impl Iterator<Item = (FrameKind, Bytes)> + use<> {
        let classes = [&mut self.urgent, &mut self.raft, &mut self.others];
        let taken = classes.map(|class| {
            class.bytes = 0;
            std::mem::take(&mut class.frames)
        });
        taken.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests;
