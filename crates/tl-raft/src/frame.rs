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

use bytes::{BufMut, Bytes, BytesMut};
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use tl_types::limits::ENTRY_BYTES_MAX;
use tl_types::{GroupId, Index, Term};

use crate::config::FRAME_BYTES_ACCEPTED_MAX;
use crate::doubt::Note;
use crate::group::Beat;
use crate::members::Members;

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

/// Collects what goes to one peer.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    beats: Beats,
    answers: Beats,
    /// Answers that wait for the node's next beat.
    late: Beats,
    late_is_due: bool,
    messages: BytesMut,
    notes: BytesMut,
    /// Among the messages is one of a later kind.
    has_members: bool,
}

/// Heartbeats, or answers to them, already encoded.
#[derive(Debug, Default)]
struct Beats {
    count: u64,
    bytes: BytesMut,
}

impl FrameBuilder {
    pub(crate) fn len(&self) -> usize {
        let beats = self.beats.bytes.len() + self.answers.bytes.len();
        beats + self.messages.len() + self.notes.len()
    }

    /// Adds a message. Kinds that never leave the node (local ones and forwarded proposals) are
    /// refused by returning `false`. Of a snapshot only its position and the members go: rows travel
    /// another way.
    pub(crate) fn push(&mut self, group: GroupId, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgHeartbeat if message.context.is_empty() => {
                self.beats.push(group, message)
            }
            MessageType::MsgHeartbeatResponse if message.context.is_empty() => {
                self.answers.push(group, message)
            }
            _ => {
                self.has_members |= has_members(message);
                return encode_message(&mut self.messages, group, message);
            }
        }
        true
    }

    /// Adds what a doubted replica asks, or is told.
    pub(crate) fn push_note(&mut self, group: GroupId, note: &Note) {
        let out = &mut self.notes;
        out.put_u8(PART_DOUBT);
        match *note {
            Note::Asked { number } => {
                out.put_u8(DOUBT_ASKED);
                put(out, u64::from(group.0));
                put(out, number);
            }
            Note::Told { number, term, last, members_at } => {
                out.put_u8(DOUBT_TOLD);
                put(out, u64::from(group.0));
                for value in [number, term.0, last.0, members_at.0] {
                    put(out, value);
                }
            }
        }
    }

    /// Adds a heartbeat.
    pub(crate) fn beat(&mut self, group: GroupId, beat: Beat) {
        self.beats.add(group, beat.term.0, beat.committed.0);
    }

    /// Adds an answer to a heartbeat that may wait for this node's next beat, or until there are
    /// [`LATE_ANSWERS_MAX`].
    pub(crate) fn answer(&mut self, group: GroupId, beat: Beat) {
        self.late.add(group, beat.term.0, beat.committed.0);
        self.late_is_due |= self.late.count >= LATE_ANSWERS_MAX;
    }

    /// The node beats: what waited for that goes with the next frame.
    pub(crate) fn beats_now(&mut self) {
        self.late_is_due = true;
    }

    /// What was collected, leaving the builder empty: a frame of heartbeats and answers to them
    /// alone, which may overtake others on the way, a frame of everything else that Raft says, and
    /// one of what it does not. Nothing if there is nothing to say, or only what may wait.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        let frames = [self.finish_beats(), self.finish_messages(), self.finish_notes()];
        frames.into_iter().flatten()
    }

    /// A peer of an earlier release refuses this frame and takes the others.
    fn finish_notes(&mut self) -> Option<Bytes> {
        if self.notes.is_empty() {
            return None;
        }
        let mut frame = BytesMut::with_capacity(self.notes.len() + 1);
        frame.put_u8(VERSION_DOUBT);
        frame.extend_from_slice(&self.notes);
        self.notes = BytesMut::new();
        Some(frame.freeze())
    }

    fn finish_beats(&mut self) -> Option<Bytes> {
        let len = self.beats.bytes.len() + self.answers.bytes.len();
        let is_due = std::mem::take(&mut self.late_is_due) && self.late.count > 0;
        if len == 0 && !is_due {
            return None;
        }
        let mut frame = BytesMut::with_capacity(len + self.late.bytes.len() + 48);
        frame.put_u8(VERSION);
        self.beats.finish(PART_HEARTBEATS, &mut frame);
        self.answers.finish(PART_HEARTBEAT_ANSWERS, &mut frame);
        self.late.finish(PART_HEARTBEAT_ANSWERS, &mut frame);
        Some(frame.freeze())
    }

    fn finish_messages(&mut self) -> Option<Bytes> {
        if self.messages.is_empty() {
            return None;
        }
        let mut frame = BytesMut::with_capacity(self.messages.len() + 1);
        frame.put_u8(if self.has_members { VERSION_MEMBERS } else { VERSION });
        self.has_members = false;
        frame.extend_from_slice(&self.messages);
        // The buffer is used again; one grown by a rare burst is let go.
        if self.messages.capacity() > BUFFER_KEPT_MAX {
            self.messages = BytesMut::new();
        } else {
            self.messages.clear();
        }
        Some(frame.freeze())
    }
}

/// So many answers do not wait for a beat any longer.
const LATE_ANSWERS_MAX: u64 = 1_024;

/// A builder's buffer above this is given back after use, bytes.
const BUFFER_KEPT_MAX: usize = 1024 * 1024;

impl Beats {
    fn push(&mut self, group: GroupId, message: &Message) {
        self.add(group, message.term, message.commit);
    }

    fn add(&mut self, group: GroupId, term: u64, commit: u64) {
        self.count += 1;
        put(&mut self.bytes, u64::from(group.0));
        put(&mut self.bytes, term);
        put(&mut self.bytes, commit);
    }

    fn finish(&mut self, part: u8, frame: &mut BytesMut) {
        if self.count > 0 {
            frame.put_u8(part);
            put(frame, self.count);
            frame.extend_from_slice(&self.bytes);
            self.count = 0;
            self.bytes.clear();
        }
    }
}

fn put(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn has_members(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgSnapshot && !message.get_snapshot().data.is_empty()
}

fn encode_message(out: &mut BytesMut, group: GroupId, message: &Message) -> bool {
    let kind = match message.get_msg_type() {
        MessageType::MsgAppend => kind::APPEND,
        MessageType::MsgAppendResponse if message.request_snapshot != 0 => kind::ROWS_WANTED,
        MessageType::MsgAppendResponse => kind::APPEND_ANSWER,
        MessageType::MsgRequestVote => kind::VOTE,
        MessageType::MsgRequestPreVote => kind::PRE_VOTE,
        MessageType::MsgRequestVoteResponse => kind::VOTE_ANSWER,
        MessageType::MsgRequestPreVoteResponse => kind::PRE_VOTE_ANSWER,
        MessageType::MsgHeartbeat => kind::HEARTBEAT,
        MessageType::MsgHeartbeatResponse => kind::HEARTBEAT_ANSWER,
        MessageType::MsgTimeoutNow => kind::TIMEOUT_NOW,
        MessageType::MsgReadIndex => kind::READ_INDEX,
        MessageType::MsgReadIndexResp => kind::READ_INDEX_ANSWER,
        MessageType::MsgSnapshot if has_members(message) => kind::SNAPSHOT_WITH_MEMBERS,
        MessageType::MsgSnapshot => kind::SNAPSHOT,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return false,
    };
    let entry_bytes: usize = message.entries.iter().map(|entry| entry.data.len() + 20).sum();
    out.reserve(MESSAGE_OVERHEAD + message.context.len() + entry_bytes);
    out.put_u8(PART_MESSAGE);
    out.put_u8(kind);
    put(out, u64::from(group.0));
    put(out, message.term);
    match kind {
        kind::APPEND => {
            put(out, message.index);
            put(out, message.log_term);
            put(out, message.commit);
            put(out, message.entries.len() as u64);
            for entry in message.entries.iter() {
                put(out, entry.term);
                put_bytes(out, &entry.data);
            }
        }
        kind::APPEND_ANSWER => {
            out.put_u8(u8::from(message.reject));
            put(out, message.index);
            put(out, message.log_term);
            put(out, message.commit);
            put(out, message.reject_hint);
        }
        kind::VOTE | kind::PRE_VOTE => {
            out.put_u8(u8::from(message.context.as_ref() == CAMPAIGN_TRANSFER));
            put(out, message.index);
            put(out, message.log_term);
            put(out, message.commit);
            put(out, message.commit_term);
        }
        kind::VOTE_ANSWER | kind::PRE_VOTE_ANSWER => {
            out.put_u8(u8::from(message.reject));
            put(out, message.commit);
            put(out, message.commit_term);
        }
        kind::HEARTBEAT | kind::HEARTBEAT_ANSWER => {
            put(out, message.commit);
            put_bytes(out, &message.context);
        }
        kind::READ_INDEX | kind::READ_INDEX_ANSWER => {
            put(out, message.index);
            put_bytes(out, message.entries.first().map_or(&[], |entry| entry.data.as_ref()));
        }
        kind::ROWS_WANTED => {
            put(out, message.index);
            put(out, message.log_term);
            put(out, message.reject_hint);
            put(out, message.request_snapshot);
        }
        kind::SNAPSHOT | kind::SNAPSHOT_WITH_MEMBERS => {
            let metadata = message.get_snapshot().get_metadata();
            put(out, metadata.index);
            put(out, metadata.term);
            if kind == kind::SNAPSHOT_WITH_MEMBERS {
                put_bytes(out, &message.get_snapshot().data);
            }
        }
        // Nothing but group and term.
        _ => debug_assert_eq!(kind, kind::TIMEOUT_NOW),
    }
    true
}

/// Why bytes are no frame, in a few fixed words.
pub(crate) type FrameError = &'static str;

/// Decodes a frame, handing each message over as it is read; those before an error have been
/// handed over, which is as harmless as losing those after it.
pub(crate) fn decode_said(
    frame: &Bytes,
    mut each: impl FnMut(GroupId, Said),
) -> Result<(), FrameError> {
    if frame.len() > FRAME_BYTES_ACCEPTED_MAX {
        return Err("frame too long");
    }
    let mut reader = Reader { frame, at: 0, entries_left: FRAME_ENTRIES_MAX, version: VERSION };
    reader.version = reader.byte()?;
    if !(VERSION..=VERSION_DOUBT).contains(&reader.version) {
        return Err("unknown frame version");
    }
    while reader.at < frame.len() {
        match reader.byte()? {
            PART_HEARTBEATS => reader.beats(MessageType::MsgHeartbeat, &mut each)?,
            PART_HEARTBEAT_ANSWERS => reader.beats(MessageType::MsgHeartbeatResponse, &mut each)?,
            PART_MESSAGE => {
                let (group, message) = reader.message()?;
                each(group, Said::Raft(message));
            }
            PART_DOUBT if reader.version >= VERSION_DOUBT => {
                let (group, note) = reader.note()?;
                each(group, Said::Doubt(note));
            }
            _ => return Err("unknown frame part"),
        }
    }
    Ok(())
}

/// The same for messages of Raft alone.
#[cfg(test)]
pub(crate) fn decode(
    frame: &Bytes,
    mut each: impl FnMut(GroupId, Message),
) -> Result<(), FrameError> {
    decode_said(frame, |group, said| match said {
        Said::Raft(message) => each(group, message),
        Said::Doubt(_) => {}
    })
}

/// Whether a frame holds heartbeats and answers to them and nothing else. Such a frame may
/// overtake others: both kinds say only what was true when they were made.
pub(crate) fn only_beats(frame: &[u8]) -> bool {
    let Some((&VERSION, mut rest)) = frame.split_first() else { return false };
    while let Some((&part, after)) = rest.split_first() {
        if part != PART_HEARTBEATS && part != PART_HEARTBEAT_ANSWERS {
            return false;
        }
        let Some((count, mut after)) = first_number(after) else { return false };
        for _ in 0..count {
            for _ in 0..3 {
                let Some((_, next)) = first_number(after) else { return false };
                after = next;
            }
        }
        rest = after;
    }
    true
}

fn first_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    entries_left: u64,
    version: u8,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, FrameError> {
        let byte = *self.frame.get(self.at).ok_or("frame ends early")?;
        self.at += 1;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, FrameError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("flag is neither 0 nor 1"),
        }
    }

    fn number(&mut self) -> Result<u64, FrameError> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if value < NUMBER_MAX { Ok(value) } else { Err("number out of range") };
            }
        }
        Err("number out of range")
    }

    fn group(&mut self) -> Result<GroupId, FrameError> {
        u16::try_from(self.number()?).map(GroupId).map_err(|_| "group out of range")
    }

    fn term(&mut self) -> Result<u64, FrameError> {
        // Raft takes a message of term 0 for one of its own.
        match self.number()? {
            0 => Err("message without a term"),
            term => Ok(term),
        }
    }

    fn bytes(&mut self, bytes_max: usize) -> Result<Bytes, FrameError> {
        let len = usize::try_from(self.number()?).map_err(|_| "bytes too long")?;
        if len > bytes_max {
            return Err("bytes too long");
        }
        if len > self.frame.len() - self.at {
            return Err("frame ends early");
        }
        let bytes = self.frame.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }

    fn beats(
        &mut self,
        kind: MessageType,
        each: &mut impl FnMut(GroupId, Said),
    ) -> Result<(), FrameError> {
        for _ in 0..self.number()? {
            let group = self.group()?;
            let mut message = Message::default();
            message.set_msg_type(kind);
            message.term = self.term()?;
            message.commit = self.number()?;
            each(group, Said::Raft(message));
        }
        Ok(())
    }

    fn note(&mut self) -> Result<(GroupId, Note), FrameError> {
        let kind = self.byte()?;
        let group = self.group()?;
        let number = self.number()?;
        let note = match kind {
            DOUBT_ASKED => Note::Asked { number },
            DOUBT_TOLD => Note::Told {
                number,
                term: Term(self.number()?),
                last: Index(self.number()?),
                members_at: Index(self.number()?),
            },
            _ => return Err("unknown note of a doubted replica"),
        };
        Ok((group, note))
    }

    fn message(&mut self) -> Result<(GroupId, Message), FrameError> {
        let kind = self.byte()?;
        let group = self.group()?;
        let mut message = Message::default();
        // Only a forwarded read is sent without a term: any leader may answer it.
        message.term = if kind == kind::READ_INDEX {
            if self.number()? != 0 {
                return Err("forwarded read with a term");
            }
            0
        } else {
            self.term()?
        };
        message.set_msg_type(match kind {
            kind::APPEND => MessageType::MsgAppend,
            kind::APPEND_ANSWER => MessageType::MsgAppendResponse,
            kind::VOTE => MessageType::MsgRequestVote,
            kind::PRE_VOTE => MessageType::MsgRequestPreVote,
            kind::VOTE_ANSWER => MessageType::MsgRequestVoteResponse,
            kind::PRE_VOTE_ANSWER => MessageType::MsgRequestPreVoteResponse,
            kind::HEARTBEAT => MessageType::MsgHeartbeat,
            kind::HEARTBEAT_ANSWER => MessageType::MsgHeartbeatResponse,
            kind::TIMEOUT_NOW => MessageType::MsgTimeoutNow,
            kind::READ_INDEX => MessageType::MsgReadIndex,
            kind::READ_INDEX_ANSWER => MessageType::MsgReadIndexResp,
            kind::SNAPSHOT => MessageType::MsgSnapshot,
            kind::SNAPSHOT_WITH_MEMBERS if self.version >= VERSION_MEMBERS => {
                MessageType::MsgSnapshot
            }
            kind::ROWS_WANTED => MessageType::MsgAppendResponse,
            _ => return Err("unknown message kind"),
        });
        match kind {
            kind::APPEND => self.append(&mut message)?,
            kind::APPEND_ANSWER => {
                message.reject = self.flag()?;
                message.index = self.number()?;
                message.log_term = self.number()?;
                message.commit = self.number()?;
                message.reject_hint = self.number()?;
            }
            kind::VOTE | kind::PRE_VOTE => {
                if self.flag()? {
                    message.context = Bytes::from_static(CAMPAIGN_TRANSFER);
                }
                message.index = self.number()?;
                message.log_term = self.number()?;
                message.commit = self.number()?;
                message.commit_term = self.number()?;
            }
            kind::VOTE_ANSWER | kind::PRE_VOTE_ANSWER => {
                message.reject = self.flag()?;
                message.commit = self.number()?;
                message.commit_term = self.number()?;
            }
            kind::HEARTBEAT | kind::HEARTBEAT_ANSWER => {
                message.commit = self.number()?;
                message.context = self.bytes(CONTEXT_BYTES_MAX)?;
            }
            kind::READ_INDEX | kind::READ_INDEX_ANSWER => {
                message.index = self.number()?;
                let mut context = Entry::default();
                context.data = self.bytes(CONTEXT_BYTES_MAX)?;
                message.set_entries(vec![context].into());
            }
            kind::ROWS_WANTED => {
                message.reject = true;
                message.index = self.number()?;
                message.log_term = self.number()?;
                message.reject_hint = self.number()?;
                message.request_snapshot = self.number()?;
                if message.request_snapshot == 0 {
                    return Err("request for rows up to nothing");
                }
            }
            kind::SNAPSHOT | kind::SNAPSHOT_WITH_MEMBERS => {
                let index = self.number()?;
                let term = self.term()?;
                if index == 0 || term > message.term {
                    return Err("snapshot of nothing, or of a later term");
                }
                let metadata = message.mut_snapshot().mut_metadata();
                metadata.index = index;
                metadata.term = term;
                if kind == kind::SNAPSHOT_WITH_MEMBERS {
                    let members = self.bytes(MEMBERS_BYTES_MAX)?;
                    Members::decode(&members)?;
                    message.mut_snapshot().data = members;
                }
            }
            _ => debug_assert_eq!(kind, kind::TIMEOUT_NOW),
        }
        Ok((group, message))
    }

    fn append(&mut self, message: &mut Message) -> Result<(), FrameError> {
        message.index = self.number()?;
        message.log_term = self.number()?;
        message.commit = self.number()?;
        let count = self.number()?;
        self.entries_left =
            self.entries_left.checked_sub(count).ok_or("too many entries in a frame")?;
        let mut entries = Vec::new();
        let mut term_before = message.log_term;
        for offset in 1..=count {
            let mut entry = Entry::default();
            entry.index = message.index + offset;
            entry.term = self.term()?;
            entry.data = self.bytes(ENTRY_BYTES_MAX)?;
            if let Some(members) = Members::of_entry(Index(entry.index), &entry.data) {
                members?;
                entry.set_entry_type(EntryType::EntryConfChangeV2);
            }
            if entry.term < term_before || entry.term > message.term {
                return Err("entries' terms out of order");
            }
            term_before = entry.term;
            entries.push(entry);
        }
        message.set_entries(entries.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
