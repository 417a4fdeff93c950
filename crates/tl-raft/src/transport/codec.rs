//! Frames on a connection, after the handshake.
//!
//! ```text
//!   frame = length (4 bytes: of the payload) crc (4) kind (1) payload
//! ```
//!
//! Little-endian; the checksum is CRC-32 over length, kind and payload. A frame that is too long,
//! of a kind that does not belong here, or damaged, ends the connection: behind it nothing can be
//! told from noise. A later version of the protocol may add kinds; numbers are never used again.
//!
//! Nothing is allocated for a frame before its head has passed, and then what the head says, once.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::hello::Lane;
use crate::config::FRAME_BYTES_ACCEPTED_MAX;

/// Bytes of a frame before its payload.
pub const HEAD_BYTES: usize = 9;
/// Largest payload on a bulk connection, bytes. One past: refused by both ends.
pub const BULK_CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What is read from a socket at once, bytes, but for the rest of a frame that is larger.
const READ_BYTES: usize = 64 * 1024;

/// What a frame carries. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A frame of the driver. It may be dropped: Raft repairs.
    Raft = 1,
    /// A request to be answered by the receiver.
    Request = 2,
    /// The answer to a request.
    Reply = 3,
    /// A piece of something large, on the bulk connection.
    Bulk = 4,
}

impl FrameKind {
    /// The connection that carries frames of this kind.
    #[must_use]
    pub fn lane(self) -> Lane {
        match self {
            FrameKind::Raft | FrameKind::Request | FrameKind::Reply => Lane::Main,
            FrameKind::Bulk => Lane::Bulk,
        }
    }

    /// Largest payload of this kind, bytes.
    #[must_use]
    pub fn payload_bytes_max(self) -> usize {
        match self {
            FrameKind::Raft | FrameKind::Request | FrameKind::Reply => FRAME_BYTES_ACCEPTED_MAX,
            FrameKind::Bulk => BULK_CHUNK_BYTES_MAX,
        }
    }

    fn from_number(number: u8) -> Option<FrameKind> {
        match number {
            1 => Some(FrameKind::Raft),
            2 => Some(FrameKind::Request),
            3 => Some(FrameKind::Reply),
            4 => Some(FrameKind::Bulk),
            _ => None,
        }
    }
}

/// Why bytes are no frame, in a few fixed words.
pub type Damage = &'static str;

/// The head of a frame around `payload`.
///
/// # Panics
/// When the payload is longer than its kind may be; the queue has refused such a one.
#[must_use]
pub fn head(kind: FrameKind, payload: &[u8]) -> [u8; HEAD_BYTES] {
    assert!(payload.len() <= kind.payload_bytes_max(), "what is sent would be refused");
    let length = u32::try_from(payload.len()).expect("a payload is far below 4 GiB").to_le_bytes();
    let crc = checksum(length, kind as u8, payload).to_le_bytes();
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&length);
    head[4..8].copy_from_slice(&crc);
    head[8] = kind as u8;
    head
}

fn checksum(length: [u8; 4], kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

#[derive(Debug, Clone, Copy)]
struct Head {
    kind: FrameKind,
    length: [u8; 4],
    crc: u32,
}

impl Head {
    fn decode(bytes: [u8; HEAD_BYTES], lane: Lane) -> Result<Head, Damage> {
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind] = bytes;
        let kind = FrameKind::from_number(kind).ok_or("unknown kind of frame")?;
        if kind.lane() != lane {
            return Err("kind of frame that belongs to the other connection");
        }
        let head =
            Head { kind, length: [l0, l1, l2, l3], crc: u32::from_le_bytes([c0, c1, c2, c3]) };
        if head.payload_bytes() > kind.payload_bytes_max() {
            return Err("frame too long");
        }
        Ok(head)
    }

    fn payload_bytes(&self) -> usize {
        u32::from_le_bytes(self.length) as usize
    }

    fn check(&self, payload: &[u8]) -> Result<(), Damage> {
        if checksum(self.length, self.kind as u8, payload) == self.crc {
            Ok(())
        } else {
            Err("checksum does not match")
        }
    }
}

/// Turns what a socket gives into frames; how it was cut into reads makes no difference.
#[derive(Debug)]
pub struct Decoder {
    lane: Lane,
    /// Read and not yet looked at.
    buffer: BytesMut,
    /// A frame that is larger than what the buffer held of it; the buffer is then empty.
    partial: Option<(Head, BytesMut)>,
}

impl Decoder {
    /// For a connection of this lane, at its first frame.
    #[must_use]
    pub fn new(lane: Lane) -> Decoder {
        Decoder { lane, buffer: BytesMut::with_capacity(READ_BYTES), partial: None }
    }

    /// Where the next bytes go. Never empty after [`Decoder::frame`] has said that there is none.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        match &mut self.partial {
            Some((head, payload)) => {
                let missing = head.payload_bytes() - payload.len();
                payload.limit(missing)
            }
            None => {
                self.buffer.reserve(READ_BYTES - self.buffer.len());
                let room = READ_BYTES - self.buffer.len();
                (&mut self.buffer).limit(room)
            }
        }
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// When the bytes are no frame. The connection is then of no more use.
    pub fn frame(&mut self) -> Result<Option<(FrameKind, Bytes)>, Damage> {
        if self.partial.is_none() {
            let Some(bytes) = self.buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let head = Head::decode(*bytes, self.lane)?;
            self.buffer.advance(HEAD_BYTES);
            let payload_bytes = head.payload_bytes();
            let here = payload_bytes.min(self.buffer.len());
            if here == payload_bytes {
                // A copy of its own: a small frame that is kept must not keep the whole buffer.
                head.check(&self.buffer[..here])?;
                let payload = Bytes::copy_from_slice(&self.buffer[..here]);
                self.buffer.advance(here);
                return Ok(Some((head.kind, payload)));
            }
            let mut payload = BytesMut::with_capacity(payload_bytes);
            payload.extend_from_slice(&self.buffer[..here]);
            self.buffer.clear();
            self.partial = Some((head, payload));
        }
        let Some((head, payload)) = self.partial.take() else { return Ok(None) };
        if payload.len() < head.payload_bytes() {
            self.partial = Some((head, payload));
            return Ok(None);
        }
        head.check(&payload)?;
        Ok(Some((head.kind, payload.freeze())))
    }

    /// Whether the bytes so far end with a whole frame.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.partial.is_none() && self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests;
