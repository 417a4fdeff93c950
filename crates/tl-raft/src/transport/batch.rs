//! Frames on their way into one write: many small ones, or one large one.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::codec::{FrameKind, HEAD_BYTES, head};

/// Most bytes gathered into one batch; one frame that is larger goes alone.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Most frames in one batch; with their heads as many slices as one write takes.
pub const BATCH_FRAMES_MAX: usize = 32;

/// What is being written. A frame's memory is given back when its last byte is.
#[derive(Debug, Default)]
pub struct Batch {
    parts: VecDeque<Part>,
    /// Bytes of the first part that are written.
    at: usize,
    remaining: usize,
}

#[derive(Debug)]
struct Part {
    head: [u8; HEAD_BYTES],
    payload: Bytes,
}

impl Part {
    fn len(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    /// What is left behind `at`: of the head, and of the payload.
    fn slices(&self, at: usize) -> [&[u8]; 2] {
        [&self.head[at.min(HEAD_BYTES)..], &self.payload[at.saturating_sub(HEAD_BYTES)..]]
    }
}

impl Batch {
    /// Whether a frame of so many payload bytes may join.
    #[must_use]
    pub fn has_room(&self, payload_bytes: usize) -> bool {
        self.parts.is_empty()
            || (self.parts.len() < BATCH_FRAMES_MAX
                && self.remaining + HEAD_BYTES + payload_bytes <= BATCH_BYTES_MAX)
    }

    /// Adds a frame.
    pub fn push(&mut self, kind: FrameKind, payload: Bytes) {
        let part = Part { head: head(kind, &payload), payload };
        self.remaining += part.len();
        self.parts.push_back(part);
    }

    /// Bytes of the payloads that are not wholly written.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.payload.len()).sum()
    }

    /// How many frames are not wholly written.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.parts.len()
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        let Some(part) = self.parts.front() else { return &[] };
        let [head, payload] = part.slices(self.at);
        if head.is_empty() { payload } else { head }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut at = self.at;
        for part in &self.parts {
            for slice in part.slices(at) {
                if filled == slices.len() {
                    return filled;
                }
                if !slice.is_empty() {
                    slices[filled] = IoSlice::new(slice);
                    filled += 1;
                }
            }
            at = 0;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "no more is written than there is");
        self.remaining -= count;
        self.at += count;
        while let Some(part) = self.parts.front() {
            if self.at < part.len() {
                return;
            }
            self.at -= part.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mut batch: Batch, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while batch.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 5];
            let filled = batch.chunks_vectored(&mut slices);
            let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            assert!(!batch.chunk().is_empty() && all.starts_with(batch.chunk()));
            let count = step.min(all.len());
            out.extend_from_slice(&all[..count]);
            batch.advance(count);
        }
        assert_eq!(batch.frames(), 0);
        out
    }

    #[test]
    fn a_batch_is_written_as_its_frames_in_a_row_however_it_is_cut() {
        let payloads = [&b"first"[..], b"", b"the third one"];
        let batch = || {
            let mut batch = Batch::default();
            for payload in payloads {
                batch.push(FrameKind::Raft, Bytes::copy_from_slice(payload));
            }
            batch
        };
        let mut plain = Vec::new();
        for payload in payloads {
            plain.extend_from_slice(&head(FrameKind::Raft, payload));
            plain.extend_from_slice(payload);
        }
        for step in 1..=plain.len() {
            assert_eq!(written(batch(), step), plain, "{step} bytes at a time");
        }
    }

    #[test]
    fn a_batch_takes_what_fits_and_one_large_frame_alone() {
        let mut batch = Batch::default();
        assert!(batch.has_room(BATCH_BYTES_MAX * 8), "a first frame always fits");
        batch.push(FrameKind::Raft, Bytes::from(vec![0; 100]));
        let left = BATCH_BYTES_MAX - 100 - 2 * HEAD_BYTES;
        assert!(batch.has_room(left));
        assert!(!batch.has_room(left + 1));
        for _ in 1..BATCH_FRAMES_MAX {
            assert!(batch.has_room(0));
            batch.push(FrameKind::Raft, Bytes::new());
        }
        assert!(!batch.has_room(0));
    }
}
