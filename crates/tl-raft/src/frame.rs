//! Frames: what one driver says to another in one turn, for all groups together.
//!
//! ```text
//!   frame    = version (1 byte, 1 to 3) part*
//!   part     = 1 count (group term commit){count}      heartbeats
//!            | 2 count (group term commit){count}      answers to heartbeats
//!            | 3 kind group term fields                any other message; fields depend on kind
//!            | 4 1 group number                        a doubted replica asks
//!            | 4 2 group number term last members      the answer
//! ```
//!
//! Numbers are little-endian base-128, bytes are a length and the bytes. Sender and receiver are
//! the connection's, so they are not in the frame; length and checksum are the transport's. A
//! later version adds parts and kinds under a new version byte; numbers are never used again. Version
//! 2 adds the snapshot with members, version 3 what doubted replicas say, which leaves in a frame of
//! its own; a frame with neither is of version 1.
//!
//! Decoding takes any bytes: what is no frame is an error, and a message that decodes is one that
//! Raft can be given without a panic as far as its shape goes (`Group::step` checks the rest).
use raft::eraftpb::Message;

use crate::doubt::Note;

mod build;
mod read;

pub(crate) use self::build::FrameBuilder;
#[cfg(test)]
pub(crate) use self::read::decode;
pub(crate) use self::read::{decode_said, only_beats};

const VERSION: u8 = 1;
/// Of frames with a kind that came later.
const VERSION_MEMBERS: u8 = 2;
/// Of frames with what doubted replicas say and are told.
const VERSION_DOUBT: u8 = 3;
const PART_HEARTBEATS: u8 = 1;
const PART_HEARTBEAT_ANSWERS: u8 = 2;
const PART_MESSAGE: u8 = 3;
const PART_DOUBT: u8 = 4;
const DOUBT_ASKED: u8 = 1;
const DOUBT_TOLD: u8 = 2;

/// Terms and indexes stay below this, so that Raft's `+ 1` never overflows.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
/// Longest read context, bytes; ours are 24.
const CONTEXT_BYTES_MAX: usize = 64;
/// Longest list of members, bytes; three full lists are 188.
const MEMBERS_BYTES_MAX: usize = 256;
/// Most entries in one frame, so that a frame of empty ones does not grow in memory. A full frame
/// stays below it unless its entries are shorter than 16 bytes, which ours never are.
const FRAME_ENTRIES_MAX: u64 = 1 << 20;
/// Bytes of an encoded message apart from entries and context, at most: kind, flags and seven numbers.
const MESSAGE_OVERHEAD: usize = 80;

/// Numbers of the messages in a frame.
mod kind {
    pub const APPEND: u8 = 1;
    pub const APPEND_ANSWER: u8 = 2;
    pub const VOTE: u8 = 3;
    pub const PRE_VOTE: u8 = 4;
    pub const VOTE_ANSWER: u8 = 5;
    pub const PRE_VOTE_ANSWER: u8 = 6;
    pub const HEARTBEAT: u8 = 7;
    pub const HEARTBEAT_ANSWER: u8 = 8;
    pub const TIMEOUT_NOW: u8 = 9;
    pub const READ_INDEX: u8 = 10;
    pub const READ_INDEX_ANSWER: u8 = 11;
    pub const SNAPSHOT: u8 = 12;
    pub const ROWS_WANTED: u8 = 13;
    pub const SNAPSHOT_WITH_MEMBERS: u8 = 14;
}

/// What one replica of a group says to another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Raft(Message),
    Doubt(Note),
}

/// Why bytes are no frame, in a few fixed words.
pub(crate) type FrameError = &'static str;

#[cfg(test)]
mod tests;
