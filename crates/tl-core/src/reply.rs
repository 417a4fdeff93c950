//! What the caller is told. A refusal is a reply, never an `Err`.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;
use tl_types::bytes_codec::{DecodeError, Reader};
use tl_types::{ErrorCode, Seq};

use crate::session::SessionRow;
use crate::text::Text;

pub(crate) mod codec;

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The session as it is after the command.
    Session(Box<SessionRow>),
    /// Events have positions.
    Appended(Appended),
    /// Done, with nothing more to say.
    Done,
    /// A tick did its share.
    Ticked {
        /// Whether more is due now: propose another tick.
        more_due: bool,
    },
    /// No. Nothing of the whole entry took effect, and this is its only reply.
    Refused(Refusal),
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// First position of this write.
    pub first_seq: Seq,
    /// Last position of this write.
    pub last_seq: Seq,
    /// The session's last position.
    pub head_seq: Seq,
    /// Durable in the archive tier up to here.
    pub archived_seq: Seq,
    /// True when an earlier, identical write had landed there.
    pub deduped: bool,
}

/// Why an entry was refused, and which of its commands was the first to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Position of the command in the entry.
    pub command: usize,
    /// Position of the offending event in its append, when one is at fault.
    pub event: Option<usize>,
    /// Why.
    pub reason: Reason,
}

/// Reasons to refuse, by what the caller needs to know to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No such session.
    SessionNotFound,
    /// The name is in use, or was.
    SessionExists,
    /// The session was deleted.
    SessionTombstoned,
    /// The session takes no more events.
    SessionClosed,
    /// The caller's view of the end is stale.
    ExpectedSeq {
        /// What the caller expected.
        expected: Seq,
        /// Where the session ends.
        current: Seq,
    },
    /// The caller's view of the header is stale.
    ExpectedVersion {
        /// What the caller expected.
        expected: u64,
        /// The header's version.
        current: u64,
    },
    /// The producer is at another position.
    ProducerSeq {
        /// Which producer.
        producer_id: Text,
        /// The position it must use next.
        expected: u64,
        /// The position it used.
        got: u64,
    },
    /// A remembered position came again with other content.
    ProducerReplay {
        /// Which producer.
        producer_id: Text,
        /// The first position of that write.
        producer_seq: u64,
    },
    /// Something is larger than its limit.
    TooLarge {
        /// The limit's name.
        limit: &'static str,
        /// The limit.
        max: u64,
        /// What was found.
        got: u64,
    },
    /// An append without events.
    NoEvents,
    /// A title longer than its limit.
    TitleTooLong,
}

/// Numbers that a caller needs to go on, by the names they have in error bodies.
pub type Facts = SmallVec<[(&'static str, u64); 2]>;

impl Reason {
    /// The public code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Reason::SessionNotFound => ErrorCode::SessionNotFound,
            Reason::SessionExists => ErrorCode::SessionExists,
            Reason::SessionTombstoned => ErrorCode::SessionTombstoned,
            Reason::SessionClosed => ErrorCode::SessionClosed,
            Reason::ExpectedSeq { .. } => ErrorCode::ExpectedSeqConflict,
            Reason::ExpectedVersion { .. } => ErrorCode::ExpectedVersionConflict,
            Reason::ProducerSeq { .. } => ErrorCode::ProducerSeqConflict,
            Reason::ProducerReplay { .. } => ErrorCode::ProducerReplayConflict,
            Reason::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Reason::NoEvents => ErrorCode::InvalidEvent,
            Reason::TitleTooLong => ErrorCode::InvalidSession,
        }
    }

    /// What to tell the caller.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Reason::ExpectedSeq { expected, current } => {
                format!("Expected seq {expected}, current seq is {current}").into()
            }
            Reason::ExpectedVersion { expected, current } => {
                format!("Expected version {expected}, current version is {current}").into()
            }
            Reason::ProducerSeq { producer_id, expected, got } => {
                format!("Producer {producer_id} expected seq {expected}, got {got}").into()
            }
            Reason::TooLarge { limit, max, got } => {
                format!("{got} is over the limit {limit} of {max}").into()
            }
            Reason::NoEvents => "An append needs at least one event".into(),
            Reason::TitleTooLong => "The title is longer than 1024 bytes".into(),
            Reason::SessionNotFound
            | Reason::SessionExists
            | Reason::SessionTombstoned
            | Reason::SessionClosed
            | Reason::ProducerReplay { .. } => self.code().message().into(),
        }
    }

    /// The numbers that go with the code.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        match self {
            Reason::ExpectedSeq { expected, current } => {
                facts.push(("expected_seq", expected.0));
                facts.push(("current_seq", current.0));
            }
            Reason::ExpectedVersion { expected, current } => {
                facts.push(("expected_version", *expected));
                facts.push(("current_version", *current));
            }
            Reason::ProducerSeq { expected, .. } => {
                facts.push(("expected_producer_seq", *expected));
            }
            Reason::TooLarge { max, .. } => facts.push(("limit", *max)),
            Reason::SessionNotFound
            | Reason::SessionExists
            | Reason::SessionTombstoned
            | Reason::SessionClosed
            | Reason::ProducerReplay { .. }
            | Reason::NoEvents
            | Reason::TitleTooLong => {}
        }
        facts
    }
}

/// The replies of an entry that took effect, as bytes for another node. `None` for a refusal, of
/// which nothing is kept.
#[must_use]
pub fn encode_replies(replies: &[Reply]) -> Option<Vec<u8>> {
    let took_effect = !replies.iter().any(|reply| matches!(reply, Reply::Refused(_)));
    took_effect.then(|| {
        let mut out = Vec::new();
        codec::put_replies(&mut out, replies);
        out
    })
}

/// Reads what [`encode_replies`] wrote.
///
/// # Errors
/// The bytes are something else.
pub fn decode_replies(bytes: bytes::Bytes) -> Result<Vec<Reply>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let replies = codec::read_replies(&mut reader)?;
    match reader.is_empty() {
        true => Ok(replies),
        false => Err(DecodeError::Malformed("bytes behind the replies")),
    }
}

impl Refusal {
    /// The public code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.reason.code()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.reason.message())
    }
}
