//! A refusal on its way to whoever asked: its code, its words and the facts in it.

use std::borrow::Cow;

use tl_types::ErrorCode;
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_wire::error::Fact;

use crate::api::ServiceError;

/// Most facts of a refusal.
const FACTS_MAX: usize = 16;
/// Longest message of a refusal that is sent on, bytes; what is longer is cut.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Facts that a refusal by a group's leader may carry. Others stay behind.
pub(super) const FACT_NAMES: [&str; 17] = [
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

pub(super) fn put_error(out: &mut Vec<u8>, error: &ServiceError) {
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

pub(super) fn read_error(reader: &mut Reader) -> Result<ServiceError, DecodeError> {
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
