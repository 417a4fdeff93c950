//! What one node asks another.

use bytes::Bytes;
use tl_raft::PeerId;
use tl_types::GroupId;
use tl_types::bytes_codec::DecodeError;
use tl_types::limits::ENTRY_BYTES_MAX;

use super::{Read, begin, ended, opened};

mod kind {
    pub const PROPOSE: u8 = 1;
    pub const ASK_CLOCK: u8 = 2;
    pub const ASK_REPORT: u8 = 3;
    pub const DRAIN: u8 = 4;
    pub const TRANSFER: u8 = 5;
    pub const ASK_MEMBERS: u8 = 6;
    pub const REPAIR: u8 = 7;
    pub const READ: u8 = 8;
}

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Propose this entry if you lead the group, and say what became of it.
    Propose {
        /// The group.
        group: GroupId,
        /// How long the asker waits, milliseconds.
        wait_ms: u32,
        /// The encoded entry, not stamped yet.
        entry: Bytes,
    },
    /// What does your clock say?
    Clock,
    /// How are you, and how far am I behind?
    Report,
    /// Be drained, or be so no longer; answered with a report.
    Drain {
        /// Whether it shall be drained.
        on: bool,
    },
    /// If you lead this group, have another member lead it; answered with a report at once.
    Transfer {
        /// The group.
        group: GroupId,
        /// Who shall lead it.
        to: PeerId,
    },
    /// Is there a later list of members than this one?
    Members {
        /// Number of the list that the asker has.
        number: u64,
    },
    /// Take the rows of this group anew from its leader; answered with a report.
    Repair {
        /// The group.
        group: GroupId,
    },
    /// What do your rows say? Answered as not taken by whoever does not have them.
    Read {
        /// How long the asker waits, milliseconds.
        wait_ms: u32,
        /// What is read.
        read: Read,
    },
}

impl Question {
    /// The frame's payload; `id` comes back with the answer.
    #[must_use]
    pub fn encode(&self, id: u64) -> Bytes {
        match self {
            Question::Propose { group, wait_ms, entry } => {
                let mut out = begin(kind::PROPOSE, id, 6 + entry.len());
                out.extend_from_slice(&group.0.to_be_bytes());
                out.extend_from_slice(&wait_ms.to_be_bytes());
                out.extend_from_slice(entry);
                out.into()
            }
            Question::Clock => begin(kind::ASK_CLOCK, id, 0).into(),
            Question::Report => begin(kind::ASK_REPORT, id, 0).into(),
            Question::Drain { on } => {
                let mut out = begin(kind::DRAIN, id, 1);
                out.push(u8::from(*on));
                out.into()
            }
            Question::Transfer { group, to } => {
                let mut out = begin(kind::TRANSFER, id, 10);
                out.extend_from_slice(&group.0.to_be_bytes());
                out.extend_from_slice(&to.0.to_be_bytes());
                out.into()
            }
            Question::Members { number } => {
                let mut out = begin(kind::ASK_MEMBERS, id, 8);
                out.extend_from_slice(&number.to_be_bytes());
                out.into()
            }
            Question::Repair { group } => {
                let mut out = begin(kind::REPAIR, id, 2);
                out.extend_from_slice(&group.0.to_be_bytes());
                out.into()
            }
            Question::Read { wait_ms, read } => {
                let mut out = begin(kind::READ, id, 128);
                out.extend_from_slice(&wait_ms.to_be_bytes());
                read.encode(&mut out);
                out.into()
            }
        }
    }

    /// Reads what [`Question::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn decode(bytes: Bytes) -> Result<(u64, Question), DecodeError> {
        let (kind, id, mut reader) = opened(bytes)?;
        let question = match kind {
            kind::PROPOSE => {
                let (group, wait_ms) = (GroupId(reader.u16()?), reader.u32()?);
                let entry = reader.rest();
                if entry.is_empty() || entry.len() > ENTRY_BYTES_MAX {
                    return Err(DecodeError::Malformed("length of an entry"));
                }
                Question::Propose { group, wait_ms, entry }
            }
            kind::ASK_CLOCK => {
                ended(&reader)?;
                Question::Clock
            }
            kind::ASK_REPORT => {
                ended(&reader)?;
                Question::Report
            }
            kind::DRAIN => {
                let on = reader.u8()?;
                ended(&reader)?;
                if on > 1 {
                    return Err(DecodeError::Malformed("flag"));
                }
                Question::Drain { on: on == 1 }
            }
            kind::TRANSFER => {
                let (group, to) = (GroupId(reader.u16()?), PeerId(reader.u64()?));
                ended(&reader)?;
                Question::Transfer { group, to }
            }
            kind::ASK_MEMBERS => {
                let number = reader.u64()?;
                ended(&reader)?;
                Question::Members { number }
            }
            kind::REPAIR => {
                let group = GroupId(reader.u16()?);
                ended(&reader)?;
                Question::Repair { group }
            }
            kind::READ => {
                let wait_ms = reader.u32()?;
                Question::Read { wait_ms, read: Read::decode(&mut reader)? }
            }
            other => return Err(DecodeError::Unknown { what: "question", value: other.into() }),
        };
        Ok((id, question))
    }
}
