//! Why a call did not give what was asked, sorted by what the caller does next.

use std::time::Duration;

use serde_json::{Map, Value};

/// The code of a server fault before which nothing was written.
const NOT_PROPOSED: &str = "raft_unavailable";

/// Statuses after which the same request may be sent again.
const RETRYABLE_STATUSES: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];

/// A refusal in the server's own words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The stable word, or `http_<status>` when the body names none.
    pub code: String,
    /// What the server says about it.
    pub message: String,
    /// The other members of the body, such as `expected_producer_seq`.
    pub facts: Map<String, Value>,
    /// The wait the server asks for.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads a refusal from a reply; a body that is not ours still gives a code.
    #[must_use]
    pub fn from_reply(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
        let mut facts = match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let code = text(facts.remove("error")).unwrap_or_else(|| format!("http_{status}"));
        let message =
            text(facts.remove("message")).unwrap_or_else(|| format!("HTTP status {status}"));
        Refusal { status, code, message, facts, retry_after }
    }

    /// A whole number that travels beside the code.
    #[must_use]
    pub fn number(&self, fact: &str) -> Option<u64> {
        self.facts.get(fact)?.as_u64()
    }
}

/// What can go wrong between a caller and a node.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address, session id or another argument can never work; change it.
    #[error("{0}")]
    BadArgument(String),
    /// No connection was made, so nothing was sent.
    #[error("cannot connect to {url}")]
    Unreachable {
        /// Where to.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request was sent and no whole reply came: its outcome is not known.
    #[error("the connection to {url} broke before the whole reply had come")]
    Broken {
        /// Where to.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The reply is not one that this client understands.
    #[error("the reply of {url} is not understood: {what}")]
    Unexpected {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// Retries were used up.
    #[error("gave up after {attempts} attempts in {} ms", elapsed.as_millis())]
    GaveUp {
        /// How often it was tried.
        attempts: u32,
        /// How long that took.
        elapsed: Duration,
        /// The last failure; of a write, the last one that leaves its outcome open, if any does.
        #[source]
        last: Box<ClientError>,
    },
    /// The producer has a write of unknown outcome; settle it before the next one.
    #[error("producer {producer_id} has a write of unknown outcome; settle it first")]
    Unsettled {
        /// The producer.
        producer_id: String,
    },
    /// A tail was given events that do not follow its cursor, again after reconnecting.
    #[error("the tail of {session} jumps from seq {cursor} to {got} without saying so")]
    Hole {
        /// Which session.
        session: String,
        /// Last event handed out.
        cursor: u64,
        /// The event that came.
        got: u64,
    },
}

impl ClientError {
    /// The refusal, also the last one behind retries that were used up.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            ClientError::Refused(refusal) => Some(refusal),
            ClientError::GaveUp { last, .. } => last.refusal(),
            ClientError::BadArgument(_)
            | ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::Unexpected { .. }
            | ClientError::Unsettled { .. }
            | ClientError::Hole { .. } => None,
        }
    }

    /// The server's stable word, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str())
    }

    /// Whether no node could be reached at all, also behind retries that were used up.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } => true,
            ClientError::GaveUp { last, .. } => last.is_unreachable(),
            _ => false,
        }
    }

    /// Whether the same request may succeed later. For a write this is safe only when it carries
    /// a producer position or an `Idempotency-Key`.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Broken { .. } => true,
            ClientError::Refused(refusal) => RETRYABLE_STATUSES.contains(&refusal.status),
            ClientError::BadArgument(_)
            | ClientError::Unexpected { .. }
            | ClientError::GaveUp { .. }
            | ClientError::Unsettled { .. }
            | ClientError::Hole { .. } => false,
        }
    }

    /// Whether a write that ended so certainly changed nothing. A broken connection, a time-out or
    /// a server fault leaves that open; `raft_unavailable` says that nothing was written.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        match self {
            ClientError::BadArgument(_)
            | ClientError::Unreachable { .. }
            | ClientError::Unsettled { .. } => true,
            ClientError::Refused(refusal) => {
                refusal.status < 500 && refusal.status != 408 || refusal.code == NOT_PROPOSED
            }
            ClientError::Broken { .. }
            | ClientError::Unexpected { .. }
            | ClientError::GaveUp { .. }
            | ClientError::Hole { .. } => false,
        }
    }

    /// The wait the server asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_code_message_and_numbers() {
        let body = br#"{"error":"producer_seq_conflict","message":"Producer p expected seq 3, got 9","expected_producer_seq":3}"#;
        let refusal = Refusal::from_reply(409, None, body);
        assert_eq!(refusal.code, "producer_seq_conflict");
        assert_eq!(refusal.number("expected_producer_seq"), Some(3));
        assert_eq!(refusal.to_string(), "Producer p expected seq 3, got 9 (producer_seq_conflict)");
    }

    #[test]
    fn a_reply_of_somebody_else_still_has_a_code() {
        let refusal = Refusal::from_reply(502, None, b"<html>bad gateway</html>");
        assert_eq!(refusal.code, "http_502");
        assert!(ClientError::Refused(refusal).is_retryable());
    }

    #[test]
    fn conflicts_are_never_retried_and_change_nothing() {
        let error = ClientError::Refused(Refusal::from_reply(409, None, b"{}"));
        assert!(!error.is_retryable());
        assert!(error.changed_nothing());
        let error = ClientError::Refused(Refusal::from_reply(503, None, b"{}"));
        assert!(error.is_retryable() && !error.changed_nothing());
        let body = br#"{"error":"raft_unavailable"}"#;
        let error = ClientError::Refused(Refusal::from_reply(503, None, body));
        assert!(error.is_retryable() && error.changed_nothing());
    }
}
