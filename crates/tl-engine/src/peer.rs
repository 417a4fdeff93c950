//! What nodes ask of one another beside Raft: a write that belongs to another node's group, what
//! its clock says, how it is, that it be drained, or that it take rows anew.
//!
//! ```text
//!   request = version (1) kind (1) id (8) body     propose: group (2) wait_ms (4) entry
//!                                                  clock, report: nothing
//!                                                  drain:   on (1)
//!                                                  transfer: group (2) to (8)
//!                                                  members: number (8)
//!                                                  repair:  group (2)
//!                                                  read:    wait_ms (4), see `read`
//!   answer  = version (1) kind (1) id (8) body     taken:   index (8) replies
//!                                                  refused: code message fact*
//!                                                  not taken: leader (8; 0 for nobody known)
//!                                                  unknown: nothing
//!                                                  clock:   wall_ms (8) may_lead (1)
//!                                                  report:  see `ops::report`
//!                                                  members: a list, or nothing
//!                                                  found:   see `read`
//! ```
//!
//! Numbers are big-endian; code, message, names and texts are a length and the bytes. An entry
//! carries the request id and the principal of whoever sent it. A later version adds kinds;
//! numbers are never used again. Decoding takes any bytes.

use std::borrow::Cow;

use bytes::Bytes;
use tl_core::Reply;
use tl_core::reply::{decode_replies, encode_replies};
use tl_raft::PeerId;
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_types::limits::{ENTRY_BYTES_MAX, MEMBER_LIST_BYTES_MAX};
use tl_types::{ErrorCode, GroupId, Index};
use tl_wire::error::Fact;

use crate::api::ServiceError;
use crate::ops::Report;

pub mod read;

pub use self::read::{Found, Read};

const VERSION: u8 = 1;
/// Most facts of a refusal.
const FACTS_MAX: usize = 16;
/// Longest message of a refusal that is sent on, bytes; what is longer is cut.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Facts that a refusal by a group's leader may carry. Others stay behind.
const FACT_NAMES: [&str; 17] = [
    "expected_seq",
    "current_seq",
    "expected_version",
    "current_version",
    "expected_producer_seq",
    "limit",
    "index",
    "group",
    "inflight_bytes",
    "inflight_requests",
    "used_bytes",
    "budget_bytes",
    "free_bytes",
    "reserve_bytes",
    "unit",
    "retry_after_ms",
    "missing_seq",
];

mod kind {
    pub const PROPOSE: u8 = 1;
    pub const ASK_CLOCK: u8 = 2;
    pub const ASK_REPORT: u8 = 3;
    pub const DRAIN: u8 = 4;
    pub const TRANSFER: u8 = 5;
    pub const ASK_MEMBERS: u8 = 6;
    pub const REPAIR: u8 = 7;
    pub const READ: u8 = 8;
    pub const TAKEN: u8 = 1;
    pub const REFUSED: u8 = 2;
    pub const NOT_TAKEN: u8 = 3;
    pub const UNKNOWN: u8 = 4;
    pub const CLOCK: u8 = 5;
    pub const REPORT: u8 = 6;
    pub const MEMBERS: u8 = 7;
    pub const FOUND: u8 = 8;
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

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The entry was applied.
    Taken {
        /// Where.
        index: Index,
        /// What the rules said.
        replies: Vec<Reply>,
    },
    /// It was refused, by a rule or because there is too much under way; it has no effect.
    Refused(ServiceError),
    /// It was not proposed, or what was proposed is provably overwritten; it has no effect.
    NotTaken {
        /// Who leads, if known.
        leader: Option<PeerId>,
    },
    /// Whether it takes effect is not known there.
    Unknown,
    /// Wall time, milliseconds, and how the node is.
    Clock {
        /// As the other's clock says.
        wall_ms: u64,
        /// Whether it may be given groups to lead: it does not stop.
        may_lead: bool,
    },
    /// How the node is.
    Report(Report),
    /// The encoded list of members that is in force there; empty when the asker's is as new.
    Members(Bytes),
    /// What its rows say.
    Found(Found),
}

fn begin(kind: u8, id: u64, body_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + body_bytes);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&id.to_be_bytes());
    out
}

fn opened(bytes: Bytes) -> Result<(u8, u64, Reader), DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok((reader.u8()?, reader.u64()?, reader)),
        other => Err(DecodeError::Unknown { what: "version", value: other.into() }),
    }
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

impl Answer {
    /// The frame's payload; `id` is the question's.
    #[must_use]
    pub fn encode(&self, id: u64) -> Bytes {
        match self {
            Answer::Taken { index, replies } => {
                let Some(replies) = encode_replies(replies) else {
                    // Rules that refuse are answered with `Refused`.
                    return Answer::Unknown.encode(id);
                };
                let mut out = begin(kind::TAKEN, id, 8 + replies.len());
                out.extend_from_slice(&index.0.to_be_bytes());
                out.extend_from_slice(&replies);
                out.into()
            }
            Answer::Refused(error) => {
                let mut out = begin(kind::REFUSED, id, 64 + error.message.len());
                put_error(&mut out, error);
                out.into()
            }
            Answer::NotTaken { leader } => {
                let mut out = begin(kind::NOT_TAKEN, id, 8);
                out.extend_from_slice(&leader.map_or(0, |leader| leader.0).to_be_bytes());
                out.into()
            }
            Answer::Unknown => begin(kind::UNKNOWN, id, 0).into(),
            Answer::Clock { wall_ms, may_lead } => {
                let mut out = begin(kind::CLOCK, id, 9);
                out.extend_from_slice(&wall_ms.to_be_bytes());
                out.push(u8::from(*may_lead));
                out.into()
            }
            Answer::Report(report) => {
                let mut out = begin(kind::REPORT, id, 64);
                report.encode(&mut out);
                out.into()
            }
            Answer::Members(list) => {
                let mut out = begin(kind::MEMBERS, id, list.len());
                out.extend_from_slice(list);
                out.into()
            }
            Answer::Found(found) => {
                let mut out = begin(kind::FOUND, id, 256);
                found.encode(&mut out);
                out.into()
            }
        }
    }

    /// Reads what [`Answer::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn decode(bytes: Bytes) -> Result<(u64, Answer), DecodeError> {
        let (kind, id, mut reader) = opened(bytes)?;
        let answer = match kind {
            kind::TAKEN => {
                let index = Index(reader.u64()?);
                Answer::Taken { index, replies: decode_replies(reader.rest())? }
            }
            kind::REFUSED => Answer::Refused(read_error(&mut reader)?),
            kind::NOT_TAKEN => {
                let leader = Some(PeerId(reader.u64()?)).filter(|leader| leader.0 != 0);
                ended(&reader)?;
                Answer::NotTaken { leader }
            }
            kind::UNKNOWN => {
                ended(&reader)?;
                Answer::Unknown
            }
            kind::CLOCK => {
                let (wall_ms, may_lead) = (reader.u64()?, reader.u8()?);
                ended(&reader)?;
                match may_lead {
                    0 | 1 => Answer::Clock { wall_ms, may_lead: may_lead == 1 },
                    _ => return Err(DecodeError::Malformed("flag")),
                }
            }
            kind::REPORT => {
                let report = Report::decode(&mut reader)?;
                ended(&reader)?;
                Answer::Report(report)
            }
            kind::MEMBERS => {
                let list = reader.rest();
                if list.len() > MEMBER_LIST_BYTES_MAX {
                    return Err(DecodeError::Malformed("length of a list of members"));
                }
                Answer::Members(list)
            }
            kind::FOUND => Answer::Found(Found::decode(reader)?),
            other => return Err(DecodeError::Unknown { what: "answer", value: other.into() }),
        };
        Ok((id, answer))
    }
}

fn ended(reader: &Reader) -> Result<(), DecodeError> {
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes behind a message")) }
}

fn put_error(out: &mut Vec<u8>, error: &ServiceError) {
    put_bytes(out, error.code.word().as_bytes());
    let mut end = error.message.len().min(MESSAGE_BYTES_MAX);
    while !error.message.is_char_boundary(end) {
        end -= 1;
    }
    put_bytes(out, &error.message.as_bytes()[..end]);
    let known = error.facts.iter().filter(|(name, _)| FACT_NAMES.contains(name));
    for (name, fact) in known.take(FACTS_MAX) {
        put_bytes(out, name.as_bytes());
        match fact {
            Fact::Number(number) => {
                out.push(0);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Fact::Text(text) => {
                out.push(1);
                put_bytes(out, text.as_bytes());
            }
        }
    }
}

fn read_error(reader: &mut Reader) -> Result<ServiceError, DecodeError> {
    let word = reader.text()?;
    // A later release may know more codes; what it said is then told in its words.
    let code = ErrorCode::ALL.iter().find(|code| code.word() == word);
    let message = reader.text()?;
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::Malformed("length of a message"));
    }
    let mut error = ServiceError {
        code: code.copied().unwrap_or(ErrorCode::InternalError),
        message: Cow::Owned(message),
        facts: Vec::new(),
    };
    while !reader.is_empty() {
        if error.facts.len() == FACTS_MAX {
            return Err(DecodeError::Malformed("number of facts"));
        }
        let name = reader.text()?;
        let fact = match reader.u8()? {
            0 => Fact::Number(reader.u64()?),
            1 => Fact::Text(Cow::Owned(reader.text()?)),
            other => return Err(DecodeError::Unknown { what: "fact", value: other.into() }),
        };
        // The same from a later release: a name that is not known here is left out.
        if let Some(name) = FACT_NAMES.iter().find(|known| **known == name) {
            error.facts.push((name, fact));
        }
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Lag, Standing};
    use tl_core::Reason;
    use tl_core::reply::Appended;
    use tl_types::Seq;

    fn report() -> Report {
        Report {
            standing: Standing::Draining,
            is_disk_full: true,
            groups_led: 85,
            tails_open: 70_000,
            stopped: vec![GroupId(3), GroupId(255)],
            asker: Some(Lag { groups: 2, worst: GroupId(9), entries: 20_000, is_cut_off: true }),
            reason: "draining".to_owned(),
        }
    }

    fn answers() -> Vec<Answer> {
        let appended = Appended {
            first_seq: Seq(7),
            last_seq: Seq(8),
            head_seq: Seq(9),
            archived_seq: Seq(1),
            deduped: true,
        };
        let refused = ServiceError::of(ErrorCode::ExpectedSeqConflict)
            .with("expected_seq", 3u64)
            .with("unit", "events");
        vec![
            Answer::Taken {
                index: Index(44),
                replies: vec![Reply::Appended(appended), Reply::Done],
            },
            Answer::Refused(refused),
            Answer::NotTaken { leader: Some(PeerId(3)) },
            Answer::NotTaken { leader: None },
            Answer::Unknown,
            Answer::Clock { wall_ms: 1_700_000_000_000, may_lead: true },
            Answer::Clock { wall_ms: 0, may_lead: false },
            Answer::Report(report()),
            Answer::Report(Report {
                standing: Standing::Ready,
                stopped: Vec::new(),
                asker: None,
                reason: String::new(),
                ..report()
            }),
            Answer::Members(Bytes::new()),
            Answer::Members(Bytes::from_static(b"list")),
        ]
    }

    fn questions() -> Vec<Question> {
        let entry = Bytes::from_static(b"entry");
        vec![
            Question::Propose { group: GroupId(9), wait_ms: 5_000, entry },
            Question::Clock,
            Question::Report,
            Question::Drain { on: true },
            Question::Drain { on: false },
            Question::Transfer { group: GroupId(7), to: PeerId(3) },
            Question::Members { number: 3 },
            Question::Repair { group: GroupId(258) },
        ]
    }

    #[test]
    fn what_is_asked_and_answered_comes_back() {
        for question in questions() {
            assert_eq!(Question::decode(question.encode(8)), Ok((8, question)));
        }
        for answer in answers() {
            assert_eq!(Answer::decode(answer.encode(u64::MAX)), Ok((u64::MAX, answer)));
        }
    }

    #[test]
    fn the_encoding_of_version_1_does_not_change() {
        let propose = questions().remove(0).encode(0x0102);
        assert_eq!(
            propose.as_ref(),
            b"\x01\x01\0\0\0\0\0\0\x01\x02\0\x09\0\0\x13\x88entry".as_slice()
        );
        let repair = Question::Repair { group: GroupId(258) }.encode(2);
        assert_eq!(repair.as_ref(), b"\x01\x07\0\0\0\0\0\0\0\x02\x01\x02".as_slice());
        let not_taken = Answer::NotTaken { leader: Some(PeerId(3)) }.encode(2);
        assert_eq!(not_taken.as_ref(), b"\x01\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03".as_slice());
        let report = Answer::Report(report()).encode(1);
        let expected = b"\x01\x06\0\0\0\0\0\0\0\x01\x02\x01\0\x55\0\x01\x11\x70\0\x02\0\x03\0\xff\
            \0\x02\0\x09\0\0\0\0\0\0\x4e\x20\x01\x08draining";
        assert_eq!(report.as_ref(), expected.as_slice());
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_a_message_or_an_error() {
        let whole = questions().into_iter().map(|question| question.encode(1));
        for bytes in whole.chain(answers().into_iter().map(|answer| answer.encode(1))) {
            for at in 0..bytes.len() {
                for byte in [0, 1, 0x7f, 0xff] {
                    let mut damaged = bytes.to_vec();
                    damaged[at] = byte;
                    let damaged = Bytes::from(damaged);
                    let (_, _) = (Question::decode(damaged.clone()), Answer::decode(damaged));
                }
                let (_, _) =
                    (Question::decode(bytes.slice(..at)), Answer::decode(bytes.slice(..at)));
            }
        }
        let long = Question::Propose {
            group: GroupId(0),
            wait_ms: 0,
            entry: vec![0; ENTRY_BYTES_MAX + 1].into(),
        };
        assert!(Question::decode(long.encode(1)).is_err(), "one past the largest entry");
        let longest = |more| Answer::Members(vec![0; MEMBER_LIST_BYTES_MAX + more].into());
        assert!(Answer::decode(longest(0).encode(1)).is_ok());
        assert!(Answer::decode(longest(1).encode(1)).is_err(), "one past the largest list");
    }

    #[test]
    fn facts_of_every_refusal_by_a_rule_are_sent_on() {
        for reason in [
            Reason::ExpectedSeq { expected: Seq(1), current: Seq(2) },
            Reason::ExpectedVersion { expected: 1, current: 2 },
            Reason::TooLarge { limit: "metadata", max: 3, got: 4 },
        ] {
            for (name, _) in reason.facts() {
                assert!(FACT_NAMES.contains(&name), "{name}");
            }
        }
        let long = ServiceError::new(ErrorCode::InternalError, "ä".repeat(MESSAGE_BYTES_MAX));
        let (_, answer) = Answer::decode(Answer::Refused(long).encode(1)).expect("cut to fit");
        let Answer::Refused(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.message.len(), MESSAGE_BYTES_MAX);
    }
}
