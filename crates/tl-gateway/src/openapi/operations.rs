//! What each endpoint takes and answers.

use serde_json::{Value, json};
use tl_types::ErrorCode;
use tl_types::limits::{PAGE_DEFAULT, PAGE_MAX, TAIL_BATCH_MAX, WAIT_MS_MAX};

use super::ops;
use super::parts::{
    answer, flag, freshness, id, idempotency_key, index_header, indexed, json_body, namespace,
    number, position, query, reference,
};
use crate::profile;
use crate::routes::Endpoint;

/// One operation, before it is written down.
pub struct Operation {
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    pub answers: Vec<(u16, Value)>,
    pub errors: Vec<ErrorCode>,
}

/// The description of an endpoint.
pub fn describe(endpoint: Endpoint) -> Operation {
    let mut operation = match endpoint {
        Endpoint::CreateSession => create(),
        Endpoint::ListSessions => list(),
        Endpoint::GetSession => get(),
        Endpoint::UpdateSession => update(),
        Endpoint::DeleteSession => delete(),
        Endpoint::Append => append(),
        Endpoint::Archive => listing("archiveSession", "Hide a session from default lists"),
        Endpoint::Unarchive => listing("unarchiveSession", "Show a session in default lists again"),
        Endpoint::Close => close(),
        Endpoint::Tail => tail(),
        Endpoint::Events => events(),
        Endpoint::Live => live(),
        Endpoint::Ready => ready(),
        Endpoint::Metrics => metrics(),
        Endpoint::Profile => profile(),
        Endpoint::OpsStatus => ops::status(),
        Endpoint::OpsNodes => ops::nodes(),
        Endpoint::OpsReadyNodes => ops::ready_nodes(),
        Endpoint::OpsGroups => ops::groups(),
        Endpoint::OpsGroup => ops::group(),
        Endpoint::OpsWaitReady => ops::wait("waitReady", "Wait until a member is ready"),
        Endpoint::OpsDrain => ops::drain(),
        Endpoint::OpsWaitDrained => ops::wait("waitDrained", "Wait until a member is drained"),
        Endpoint::OpsUndrain => ops::undrain(),
        Endpoint::OpsTransfer => ops::transfer(),
        Endpoint::OpsReplace => ops::replace(),
        Endpoint::OpsRepair => ops::repair(),
        Endpoint::OpsRaiseLevel => ops::raise_level(),
        Endpoint::OpenApi => openapi(),
        Endpoint::Docs => docs(),
        Endpoint::Home => home(),
    };
    if endpoint.answers_json() {
        operation.errors.push(ErrorCode::NotAcceptable);
    }
    if endpoint.is_ops() {
        operation.errors.push(ErrorCode::OpsNotLocal);
    }
    let crowded = ErrorCode::EventStoreBackpressure;
    if !endpoint.is_for_operators() && !operation.errors.contains(&crowded) {
        operation.errors.push(crowded);
    }
    operation.errors.extend([ErrorCode::UriTooLong, ErrorCode::InternalError]);
    operation
}

/// What any read of sessions may answer.
const READ: [ErrorCode; 3] =
    [ErrorCode::InvalidNamespace, ErrorCode::RaftTimeout, ErrorCode::RaftUnavailable];
/// What any request that names a session may answer.
const NAMED: [ErrorCode; 3] =
    [ErrorCode::InvalidSessionId, ErrorCode::SessionNotFound, ErrorCode::SessionTombstoned];
/// What any request with a body may answer.
pub(super) const BODY: [ErrorCode; 5] = [
    ErrorCode::InvalidJson,
    ErrorCode::TooDeep,
    ErrorCode::RequestTimeout,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UnsupportedMediaType,
];

fn codes(lists: &[&[ErrorCode]]) -> Vec<ErrorCode> {
    lists.concat()
}

fn sessions(id: &'static str, summary: &'static str, description: &'static str) -> Operation {
    Operation {
        id,
        tag: "sessions",
        summary,
        description,
        parameters: vec![namespace()],
        body: None,
        answers: Vec::new(),
        errors: Vec::new(),
    }
}

fn create() -> Operation {
    Operation {
        parameters: vec![namespace(), idempotency_key()],
        body: Some(json_body("CreateSession", false)),
        answers: vec![(201, indexed("The new session", "Session"))],
        errors: codes(&[
            &READ,
            &BODY,
            &[
                ErrorCode::InvalidEvent,
                ErrorCode::InvalidMetadata,
                ErrorCode::InvalidSession,
                ErrorCode::InvalidSessionId,
                ErrorCode::SessionExists,
                ErrorCode::EventStoreBackpressure,
                ErrorCode::DiskFull,
            ],
        ]),
        ..sessions(
            "createSession",
            "Create a session",
            "Without an id the server makes one. A name that was deleted is not free again.",
        )
    }
}

fn list() -> Operation {
    let mut parameters = vec![namespace()];
    parameters.extend([
        query(
            "limit",
            "Most rows in the page",
            number(1, PAGE_MAX as u64, Some(PAGE_DEFAULT as u64)),
        ),
        query("cursor", "Ids after this one", json!({"type": "string", "minLength": 1})),
        query(
            "archived",
            "Which sessions",
            json!({"enum": ["false", "true", "all"], "default": "false"}),
        ),
        query("consistent", "As fresh as the newest acknowledged write anywhere", flag()),
        json!({
            "name": "metadata", "in": "query", "style": "deepObject", "explode": true,
            "description": "metadata[key]=value or metadata.key=value: sessions whose metadata has \
                            exactly this string. Several must all match.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }),
    ]);
    Operation {
        parameters,
        answers: vec![(200, answer("Sessions in order of id", "SessionPage"))],
        errors: codes(&[
            &READ,
            &[
                ErrorCode::InvalidLimit,
                ErrorCode::InvalidCursor,
                ErrorCode::InvalidListQuery,
                ErrorCode::InvalidMetadata,
            ],
        ]),
        ..sessions(
            "listSessions",
            "List sessions",
            "A selective filter may give a short page with a cursor. What was created through \
             another node shows within a second, or at once with consistent=true.",
        )
    }
}

fn get() -> Operation {
    Operation {
        parameters: [vec![namespace(), id()], freshness()].concat(),
        answers: vec![(200, indexed("The session", "SessionOfTenant"))],
        errors: codes(&[&READ, &NAMED, &[ErrorCode::InvalidListQuery]]),
        ..sessions(
            "getSession",
            "Read a session's row",
            "Archived and closed sessions stay readable.",
        )
    }
}

fn update() -> Operation {
    Operation {
        parameters: vec![namespace(), id(), idempotency_key()],
        body: Some(json_body("UpdateSession", true)),
        answers: vec![(200, indexed("The changed session", "Session"))],
        errors: codes(&[
            &READ,
            &NAMED,
            &BODY,
            &[
                ErrorCode::InvalidSession,
                ErrorCode::InvalidMetadata,
                ErrorCode::ExpectedVersionConflict,
                ErrorCode::EventStoreBackpressure,
                ErrorCode::DiskFull,
            ],
        ]),
        ..sessions(
            "updateSession",
            "Change title or metadata",
            "Metadata is merged member by member; null is stored, not a deletion.",
        )
    }
}

fn delete() -> Operation {
    let done =
        json!({"description": "Deleted, also when it already was", "headers": index_header()});
    Operation {
        parameters: vec![namespace(), id(), idempotency_key()],
        answers: vec![(204, done)],
        errors: write_errors(&[ErrorCode::InvalidSessionId, ErrorCode::SessionNotFound]),
        ..sessions(
            "deleteSession",
            "Delete a session",
            "Open tails deliver up to the end and then close; everything else answers 410.",
        )
    }
}

fn write_errors(own: &[ErrorCode]) -> Vec<ErrorCode> {
    codes(&[
        &READ,
        own,
        &[ErrorCode::InvalidSession, ErrorCode::EventStoreBackpressure, ErrorCode::DiskFull],
    ])
}

fn listing(id_: &'static str, summary: &'static str) -> Operation {
    Operation {
        parameters: vec![namespace(), id(), idempotency_key()],
        answers: vec![(200, indexed("The session", "SessionOfTenant"))],
        errors: write_errors(&NAMED),
        ..sessions(
            id_,
            summary,
            "Only visibility changes; appends are still accepted. Repeating is harmless.",
        )
    }
}

fn close() -> Operation {
    Operation {
        parameters: vec![namespace(), id(), idempotency_key()],
        answers: vec![(200, indexed("The closed session", "SessionOfTenant"))],
        errors: write_errors(&NAMED),
        ..sessions(
            "closeSession",
            "Close a session",
            "It takes no more events and stays readable; tails end after the last event. \
             Repeating is harmless.",
        )
    }
}

fn append() -> Operation {
    let expected_seq = query(
        "expected_seq",
        "Append only if the session's last seq equals this; in a JSON body it may stand there instead",
        position(),
    );
    Operation {
        parameters: vec![namespace(), id(), expected_seq],
        body: Some(json!({"required": true, "content": {
            "application/json": {"schema": {"oneOf": [reference("NewEvent"), reference("NewBatch")]}},
            "application/x-ndjson": {"schema": {
                "type": "string",
                "description": "One NewEvent per line; the last line may be blank",
            }},
        }})),
        answers: vec![(
            201,
            json!({
                "description": "Durable. A repeat of the same producer position answers the first one again",
                "headers": index_header(),
                "content": {"application/json": {"schema": {
                    "oneOf": [reference("Appended"), reference("BatchAppended")],
                }}},
            }),
        )],
        errors: codes(&[
            &READ,
            &NAMED,
            &BODY,
            &[
                ErrorCode::InvalidEvent,
                ErrorCode::InvalidMetadata,
                ErrorCode::InvalidRefs,
                ErrorCode::ExpectedSeqConflict,
                ErrorCode::ProducerSeqConflict,
                ErrorCode::ProducerReplayConflict,
                ErrorCode::SessionClosed,
                ErrorCode::EventStoreBackpressure,
                ErrorCode::DiskFull,
            ],
        ]),
        ..sessions(
            "append",
            "Append events",
            "One event, or a batch that is appended whole or not at all. The reply means that the \
             events are on disk on a quorum of replicas.",
        )
    }
}

fn tail() -> Operation {
    let start = [
        query("cursor", "Events after this seq", position()),
        query(
            "from",
            "Instead of cursor: latest, earliest, or -N for the last N events",
            json!({
                "type": "string", "pattern": "^(latest|earliest|-[0-9]+)$",
            }),
        ),
        query(
            "batch_size",
            "Most events in a frame: 1 sends objects, more sends arrays",
            number(1, TAIL_BATCH_MAX as u64, Some(1)),
        ),
        query(
            "access_token",
            "Ignored without access control; never logged",
            json!({"type": "string"}),
        ),
    ];
    let last_event_id = json!({
        "name": "Last-Event-ID", "in": "header", "schema": position(),
        "description": "Event streams only: wins over cursor and from",
    });
    let mut parameters = vec![namespace(), id()];
    parameters.extend(start);
    parameters.push(last_event_id);
    parameters.extend(freshness());
    Operation {
        parameters,
        answers: vec![
            (
                101,
                json!({"description": "WebSocket: text frames with events. Close codes: 1001 \
                shutdown, 1002 not WebSocket, 1009 message too big, 1011 internal, 1012 drain, 1013 \
                slow reader, 4410 closed or deleted after the last event"}),
            ),
            (
                200,
                json!({"description": "Server-sent events: `event`, `gap`, `end`, and a comment \
                as heartbeat", "content": {"text/event-stream": {"schema": {"type": "string"}}}}),
            ),
        ],
        errors: codes(&[
            &READ,
            &NAMED,
            &[
                ErrorCode::InvalidWebsocketUpgrade,
                ErrorCode::InvalidCursor,
                ErrorCode::InvalidTailBatchSize,
                ErrorCode::ForbiddenOrigin,
                ErrorCode::TooManyTails,
                ErrorCode::EventGapDetected,
            ],
        ]),
        ..sessions(
            "tail",
            "Follow a session",
            "Every event after the cursor, exactly once and in order, first from the past, then \
             live. WebSocket by Upgrade, server-sent events by Accept: text/event-stream.",
        )
    }
}

fn events() -> Operation {
    let page = [
        query("cursor", "Events after this seq", position()),
        query(
            "limit",
            "Most events in the page",
            number(1, PAGE_MAX as u64, Some(PAGE_DEFAULT as u64)),
        ),
        query("wait_ms", "How long to wait for the first event", number(0, WAIT_MS_MAX, Some(0))),
    ];
    let mut parameters = vec![namespace(), id()];
    parameters.extend(page);
    parameters.extend(freshness());
    Operation {
        parameters,
        answers: vec![(
            200,
            indexed("Contiguous events; empty when the wait ended without one", "EventPage"),
        )],
        errors: codes(&[
            &READ,
            &NAMED,
            &[
                ErrorCode::InvalidCursor,
                ErrorCode::InvalidLimit,
                ErrorCode::InvalidWaitMs,
                ErrorCode::TooManyTails,
                ErrorCode::EventGapDetected,
            ],
        ]),
        ..sessions(
            "readEvents",
            "Read a page of events, or wait for one",
            "With wait_ms a long poll.",
        )
    }
}

pub(super) fn node(
    id: &'static str,
    summary: &'static str,
    description: &'static str,
) -> Operation {
    Operation { tag: "node", parameters: Vec::new(), ..sessions(id, summary, description) }
}

fn live() -> Operation {
    Operation {
        answers: vec![(200, answer("The process answers", "Live"))],
        ..node("live", "Liveness", "Says nothing about the node's ability to serve.")
    }
}

fn ready() -> Operation {
    Operation {
        answers: vec![
            (200, answer("The node serves", "Ready")),
            (503, answer("Not now; reason says why", "NotReady")),
        ],
        ..node("ready", "Readiness", "Whether requests should be sent here.")
    }
}

fn metrics() -> Operation {
    let text = json!({"description": "Prometheus text format 0.0.4",
        "content": {"text/plain": {"schema": {"type": "string"}}}});
    Operation {
        answers: vec![(200, text)],
        ..node("metrics", "Metrics", "All counters of the node.")
    }
}

fn profile() -> Operation {
    let bytes = json!({"description": "A profile as pprof reads it: profile.proto, not compressed",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}});
    let range = |range: std::ops::RangeInclusive<u64>, default| {
        number(*range.start(), *range.end(), Some(default))
    };
    Operation {
        parameters: vec![
            query("seconds", "How long", range(profile::SECONDS, profile::SECONDS_DEFAULT)),
            query(
                "frequency",
                "Stacks per second of processor time",
                range(profile::FREQUENCY, profile::FREQUENCY_DEFAULT),
            ),
        ],
        answers: vec![(200, bytes)],
        errors: vec![ErrorCode::InvalidLimit, ErrorCode::EventStoreBackpressure],
        ..node(
            "profile",
            "Profile of the processor",
            "What the node's threads do while they run. One is taken at a time.",
        )
    }
}

fn openapi() -> Operation {
    let document = json!({"description": "OpenAPI 3.1",
        "content": {"application/json": {"schema": {"type": "object"}}}});
    Operation {
        answers: vec![(200, document)],
        ..node("openapi", "This document", "Made from the routes.")
    }
}

fn home() -> Operation {
    Operation {
        answers: vec![(200, page())],
        ..node("home", "Where to go from here", "Links and first commands, for people.")
    }
}

fn docs() -> Operation {
    Operation {
        answers: vec![(200, page())],
        ..node("docs", "This document as a page", "For people.")
    }
}

fn page() -> Value {
    json!({"description": "A page without outside parts",
        "content": {"text/html": {"schema": {"type": "string"}}}})
}
