//! A refusal of a request: a public code, a sentence for a person, and facts for a program.

use std::borrow::Cow;
use std::fmt;

use tl_types::ErrorCode;

use crate::json::write;

/// A named value that travels beside an error and becomes a member of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A count or position.
    Number(u64),
    /// A word.
    Text(Cow<'static, str>),
}

impl From<u64> for Fact {
    fn from(value: u64) -> Self {
        Fact::Number(value)
    }
}

impl From<usize> for Fact {
    fn from(value: usize) -> Self {
        Fact::Number(value as u64)
    }
}

impl From<&'static str> for Fact {
    fn from(value: &'static str) -> Self {
        Fact::Text(Cow::Borrowed(value))
    }
}

/// Why a request was refused before anything was proposed; the same request never succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// Public code.
    pub code: ErrorCode,
    /// Names the field at fault and what to do about it.
    pub message: Cow<'static, str>,
    /// Members of the error body behind `error` and `message`.
    pub facts: Vec<(&'static str, Fact)>,
}

impl WireError {
    /// An error with a message of its own.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        WireError { code, message: message.into(), facts: Vec::new() }
    }

    /// An error with the table's message.
    #[must_use]
    pub fn of(code: ErrorCode) -> Self {
        WireError::new(code, code.message())
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, fact: impl Into<Fact>) -> Self {
        self.facts.push((name, fact.into()));
        self
    }

    /// Names the event of a batch that is at fault, from 0, in the message and as `index`.
    #[must_use]
    pub fn at_index(mut self, index: usize) -> Self {
        self.message = format!("events[{index}]: {}", self.message).into();
        self.with("index", index)
    }

    /// A body, event or part larger than its limit.
    #[must_use]
    pub(crate) fn too_large(what: &str, unit: &'static str, limit: usize, sent: usize) -> Self {
        WireError::new(
            ErrorCode::PayloadTooLarge,
            format!("{what} has {sent} {unit}; the limit is {limit}: send less at once"),
        )
        .with("limit", limit)
        .with("unit", unit)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for WireError {}

/// Writes an error body: `{"error","message",facts…}`.
pub fn error_body(
    out: &mut Vec<u8>,
    code: ErrorCode,
    message: &str,
    facts: &[(&'static str, Fact)],
) {
    out.extend_from_slice(b"{\"error\":");
    write::string(out, code.word());
    out.extend_from_slice(b",\"message\":");
    write::string(out, message);
    for (name, fact) in facts {
        out.push(b',');
        write::string(out, name);
        out.push(b':');
        match fact {
            Fact::Number(value) => write::number(out, *value),
            Fact::Text(text) => write::string(out, text),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_has_code_message_and_facts_in_order() {
        let error = WireError::of(ErrorCode::ExpectedSeqConflict)
            .with("expected_seq", 3u64)
            .with("hint", "say \"4\"");
        let mut out = Vec::new();
        error_body(&mut out, error.code, &error.message, &error.facts);
        crate::testing::golden("error.json", &out);
    }

    #[test]
    fn an_error_of_a_batch_says_which_event() {
        let error = WireError::of(ErrorCode::InvalidRefs).at_index(7);
        assert_eq!(error.to_string(), "invalid_refs: events[7]: Invalid refs payload");
        assert_eq!(error.facts, [("index", Fact::Number(7))]);
    }
}
