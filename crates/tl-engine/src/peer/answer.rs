//! What a node that was asked answers.

use bytes::Bytes;
use tl_core::Reply;
use tl_core::reply::{decode_replies, encode_replies};
use tl_raft::PeerId;
use tl_types::Index;
use tl_types::bytes_codec::DecodeError;
use tl_types::limits::MEMBER_LIST_BYTES_MAX;

use super::refusal::{put_error, read_error};
use super::{Found, begin, ended, opened};
use crate::api::ServiceError;
use crate::ops::Report;

mod kind {
    pub const TAKEN: u8 = 1;
    pub const REFUSED: u8 = 2;
    pub const NOT_TAKEN: u8 = 3;
    pub const UNKNOWN: u8 = 4;
    pub const CLOCK: u8 = 5;
    pub const REPORT: u8 = 6;
    pub const MEMBERS: u8 = 7;
    pub const FOUND: u8 = 8;
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
