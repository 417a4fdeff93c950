//! Building frames: messages of many groups, beats last, in frames of bounded size.
use bytes::{BufMut, Bytes, BytesMut};
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Message, MessageType};
use tl_types::GroupId;

use super::{
    DOUBT_ASKED, DOUBT_TOLD, MESSAGE_OVERHEAD, PART_DOUBT, PART_HEARTBEAT_ANSWERS, PART_HEARTBEATS,
    PART_MESSAGE, VERSION, VERSION_DOUBT, VERSION_MEMBERS, kind,
};
use crate::doubt::Note;
use crate::group::Beat;

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
pub(super) const LATE_ANSWERS_MAX: u64 = 1_024;

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
