//! The one table of public error codes: word, HTTP status, retry advice, WebSocket close code
//! and default message. Every face translates from here; every code has a page in
//! `docs/reference/errors/`.
//!
//! A code joins the table with the first feature that can return it.

use std::fmt;

/// What a caller may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request will never succeed; change it first.
    Never,
    /// The same request may succeed after the wait named by `Retry-After`.
    AfterWait,
    /// Nobody knows whether the write took effect: repeat it only with the same producer
    /// position or request id, which makes the repeat harmless.
    SameRequest,
}

impl Retry {
    /// The word used in documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Retry::Never => "never",
            Retry::AfterWait => "after a wait",
            Retry::SameRequest => "same request",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal $retry:ident $close:expr, $message:literal;)*) => {
        /// A public error code. The word is stable; the message may be reworded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* #[doc = ""] #[doc = $message] $name,)*
        }

        impl ErrorCode {
            /// Every code, in table order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The stable word sent as `error`.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(ErrorCode::$name => $word,)* }
            }

            /// HTTP status.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$name => $status,)* }
            }

            /// What the caller may do next.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self { $(ErrorCode::$name => Retry::$retry,)* }
            }

            /// The WebSocket close code when this condition ends an open tail.
            #[must_use]
            pub fn close_code(self) -> u16 {
                match self { $(ErrorCode::$name => $close,)* }
            }

            /// The message sent when the place of failure has nothing more exact to say.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(ErrorCode::$name => $message,)* }
            }
        }
    };
}

codes! {
    InvalidJson "invalid_json" 400 Never 1002, "The body is not valid JSON";
    TooDeep "too_deep" 400 Never 1002, "The body nests deeper than 32 levels";
    InvalidEvent "invalid_event" 400 Never 1002, "Invalid event payload";
    InvalidMetadata "invalid_metadata" 400 Never 1002, "Invalid metadata payload";
    InvalidRefs "invalid_refs" 400 Never 1002, "Invalid refs payload";
    InvalidCursor "invalid_cursor" 400 Never 1002, "Invalid cursor value";
    InvalidLimit "invalid_limit" 400 Never 1002, "Invalid limit value";
    InvalidWaitMs "invalid_wait_ms" 400 Never 1002, "Invalid wait_ms value";
    InvalidListQuery "invalid_list_query" 400 Never 1002, "Invalid list query";
    InvalidTailBatchSize "invalid_tail_batch_size" 400 Never 1002, "Invalid tail batch size value";
    InvalidWebsocketUpgrade "invalid_websocket_upgrade" 400 Never 1002, "WebSocket upgrade required";
    InvalidSession "invalid_session" 400 Never 1002, "Invalid session payload";
    InvalidSessionId "invalid_session_id" 400 Never 1002, "Invalid session id";
    InvalidNamespace "invalid_namespace" 400 Never 1002, "Invalid namespace";
    InvalidOpsRequest "invalid_ops_request" 400 Never 1002, "Invalid ops request";
    ForbiddenOrigin "forbidden_origin" 403 Never 1008, "This origin may not open connections here";
    OpsNotLocal "ops_not_local" 403 Never 1008, "Operations are taken from this computer only";
    NotFound "not_found" 404 Never 1002, "No such path";
    SessionNotFound "session_not_found" 404 Never 1002, "Session was not found";
    UnknownNode "unknown_node" 404 Never 1002, "No such node";
    MethodNotAllowed "method_not_allowed" 405 Never 1002, "This path does not take that method";
    NotAcceptable "not_acceptable" 406 Never 1002, "The reply is JSON, which the Accept header rules out";
    RequestTimeout "request_timeout" 408 AfterWait 1002, "The request did not arrive in time";
    SessionExists "session_exists" 409 Never 1002, "Session already exists";
    ExpectedSeqConflict "expected_seq_conflict" 409 Never 1002, "The session is not at the expected seq";
    ExpectedVersionConflict "expected_version_conflict" 409 Never 1002, "The session is not at the expected version";
    ProducerSeqConflict "producer_seq_conflict" 409 Never 1002, "The producer is not at this position";
    ProducerReplayConflict "producer_replay_conflict" 409 Never 1002, "Producer sequence was already used with different event content";
    SessionClosed "session_closed" 409 Never 4410, "The session is closed";
    SessionTombstoned "session_tombstoned" 410 Never 4410, "The session was deleted";
    MemberPresent "member_present" 409 Never 1002, "The member is heard, so it keeps its life";
    LevelNotRaised "level_not_raised" 409 Never 1002, "The feature level cannot be raised now";
    PayloadTooLarge "payload_too_large" 413 Never 1009, "The payload is larger than its limit";
    UriTooLong "uri_too_long" 414 Never 1002, "The request target is too long";
    UnsupportedMediaType "unsupported_media_type" 415 Never 1003, "The content type must be application/json";
    TooManyTails "too_many_tails" 429 AfterWait 1013, "This node has as many open tails as it may have";
    EventStoreBackpressure "event_store_backpressure" 429 AfterWait 1013, "Node is backpressuring writes due to event-store capacity";
    InternalError "internal_error" 500 AfterWait 1011, "Internal server error";
    /// The write was proposed and its outcome is not known.
    RaftTimeout "raft_timeout" 503 SameRequest 1011, "Cluster request timed out; the write may or may not have taken effect";
    RaftUnavailable "raft_unavailable" 503 AfterWait 1011, "No available replicas";
    ReplacementUnderWay "replacement_under_way" 503 AfterWait 1011, "Another member is being replaced";
    WaitTimedOut "wait_timed_out" 503 AfterWait 1011, "The node did not get there in time";
    DiskFull "disk_full" 503 AfterWait 1011, "The disk has no room for further writes";
    EventGapDetected "event_gap_detected" 503 AfterWait 1011, "Ordered replay gap detected";
}

impl ErrorCode {
    /// Whether replies with this code carry `Retry-After`.
    #[must_use]
    pub fn has_retry_after(self) -> bool {
        matches!(self.status(), 429 | 503)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_waits_are_429_503_or_a_server_fault() {
        let mut words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let may_pass = matches!(code.status(), 408 | 429 | 500 | 503);
            assert_eq!(code.retry() != Retry::Never, may_pass, "{code}");
        }
    }
}
