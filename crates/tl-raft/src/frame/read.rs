//! Reading frames: every length and number is checked before it is used.
use bytes::Bytes;
use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use tl_types::limits::ENTRY_BYTES_MAX;
use tl_types::{GroupId, Index, Term};

use super::{
    CONTEXT_BYTES_MAX, DOUBT_ASKED, DOUBT_TOLD, FRAME_ENTRIES_MAX, FrameError, MEMBERS_BYTES_MAX,
    NUMBER_MAX, PART_DOUBT, PART_HEARTBEAT_ANSWERS, PART_HEARTBEATS, PART_MESSAGE, Said, VERSION,
    VERSION_DOUBT, VERSION_MEMBERS, kind,
};
use crate::config::FRAME_BYTES_ACCEPTED_MAX;
use crate::doubt::Note;
use crate::members::Members;

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
