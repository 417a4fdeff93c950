//! Bodies, as JSON Schema 2020-12.

use serde_json::{Value, json};
use tl_types::ErrorCode;
use tl_types::limits::{BATCH_EVENTS_MAX, FIELD_BYTES_MAX, NUMBER_MAX, TITLE_BYTES_MAX};

/// All of them by name.
pub fn all() -> Value {
    let mut all = json!({
        "Error": error(),
        "CreateSession": create_session(),
        "UpdateSession": update_session(),
        "Session": session(false),
        "SessionOfTenant": session(true),
        "SessionPage": object(
            json!({
                "sessions": {"type": "array", "items": reference("SessionOfTenant")},
                "next_cursor": {"type": ["string", "null"]},
            }),
            &["sessions", "next_cursor"],
        ),
        "NewEvent": new_event(),
        "NewBatch": object(
            json!({
                "events": {"type": "array", "items": reference("NewEvent"),
                    "minItems": 1, "maxItems": BATCH_EVENTS_MAX},
                "expected_seq": loose(0),
            }),
            &["events"],
        ),
        "Appended": object(
            json!({
                "seq": number(1), "last_seq": number(1), "deduped": {"type": "boolean"},
                "cursor": number(1), "committed_cursor": number(0),
            }),
            &["seq", "last_seq", "deduped", "cursor", "committed_cursor"],
        ),
        "BatchAppended": object(
            json!({
                "first_seq": number(1), "last_seq": number(1), "count": number(1),
                "deduped": {"type": "boolean"}, "cursor": number(1), "committed_cursor": number(0),
            }),
            &["first_seq", "last_seq", "count", "deduped", "cursor", "committed_cursor"],
        ),
        "Event": event(),
        "EventPage": object(
            json!({
                "events": {"type": "array", "items": reference("Event")},
                "next_cursor": number(0), "last_seq": number(0), "up_to_date": {"type": "boolean"},
            }),
            &["events", "next_cursor", "last_seq", "up_to_date"],
        ),
        "Live": object(json!({"status": {"const": "ok"}}), &["status"]),
        "Ready": object(json!({"status": {"const": "ok"}, "mode": mode()}), &["status", "mode"]),
        "NotReady": object(
            json!({
                "status": {"const": "starting"}, "mode": mode(), "reason": {"type": "string"},
                "detail": {"type": "object", "additionalProperties": {"type": "string"}},
            }),
            &["status", "mode", "reason"],
        ),
    });
    let ops = super::ops::schemas();
    let members = ops.as_object().into_iter().flatten();
    for (name, schema) in members {
        all[name] = schema.clone();
    }
    all
}

fn error() -> Value {
    let words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.word()).collect();
    object(
        json!({
            "error": {"enum": words, "description": "Stable word"},
            "message": {"type": "string", "description": "What happened and what to do"},
            "limit": {"type": "integer", "description": "The limit that was passed"},
            "unit": {"type": "string", "description": "Unit of the limit"},
            "index": {"type": "integer", "description": "Which event of a batch, from 0"},
            "expected_seq": number(0),
            "current_seq": number(0),
            "expected_producer_seq": number(0),
            "current_version": number(1),
        }),
        &["error", "message"],
    )
}

fn create_session() -> Value {
    object(
        json!({
            "id": {"type": ["string", "null"], "minLength": 1},
            "title": {"type": ["string", "null"], "maxLength": TITLE_BYTES_MAX},
            "metadata": {"type": ["object", "null"]},
        }),
        &[],
    )
}

fn update_session() -> Value {
    object(
        json!({
            "title": {"type": ["string", "null"], "maxLength": TITLE_BYTES_MAX},
            "metadata": {"type": "object"},
            "expected_version": loose(1),
        }),
        &[],
    )
}

fn session(with_tenant: bool) -> Value {
    let mut required = vec![
        "id",
        "title",
        "metadata",
        "creator_principal",
        "created_at",
        "updated_at",
        "version",
        "archived",
        "state",
        "last_seq",
        "archived_seq",
    ];
    let mut members = json!({
        "id": {"type": "string"},
        "title": {"type": ["string", "null"]},
        "metadata": {"type": "object"},
        "creator_principal": object(
            json!({
                "tenant_id": {"type": "string"}, "id": {"type": "string"},
                "type": {"enum": ["user", "agent", "service"]},
            }),
            &["tenant_id", "id", "type"],
        ),
        "created_at": instant(),
        "updated_at": instant(),
        "version": number(1),
        "archived": {"type": "boolean"},
        "state": {"enum": ["active", "closed", "tombstoned"]},
        "last_seq": number(0),
        "archived_seq": number(0),
    });
    if with_tenant {
        members["tenant_id"] = json!({"type": "string"});
        required.push("tenant_id");
    }
    object(members, &required)
}

fn new_event() -> Value {
    object(
        json!({
            "type": field(), "payload": {"type": "object"}, "producer_id": field(),
            "producer_seq": loose(1), "actor": field(), "source": field(),
            "metadata": {"type": "object"}, "refs": {"type": "object"}, "idempotency_key": field(),
            "event_time": {"type": "string", "format": "date-time"}, "expected_seq": loose(0),
        }),
        &["type", "payload", "producer_id", "producer_seq"],
    )
}

fn event() -> Value {
    object(
        json!({
            "seq": number(1), "type": {"type": "string"}, "payload": {"type": "object"},
            "actor": {"type": "string"}, "producer_id": {"type": "string"},
            "producer_seq": number(1), "source": {"type": "string"},
            "metadata": {"type": "object"}, "refs": {"type": "object"},
            "idempotency_key": {"type": ["string", "null"]}, "inserted_at": instant(),
            "event_time": instant(), "tenant_id": {"type": "string"}, "cursor": number(1),
        }),
        &["seq", "type", "payload", "actor", "producer_id", "producer_seq", "inserted_at"],
    )
}

pub(super) fn object(members: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": members, "required": required})
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn number(minimum: u64) -> Value {
    json!({"type": "integer", "minimum": minimum, "maximum": NUMBER_MAX})
}

/// A number that may also be sent as a string of digits.
fn loose(minimum: u64) -> Value {
    json!({"anyOf": [number(minimum), {"type": "string", "pattern": "^[0-9]+$"}]})
}

fn field() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": FIELD_BYTES_MAX})
}

fn instant() -> Value {
    json!({"type": "string", "format": "date-time",
        "pattern": "^[0-9-]{10}T[0-9:]{8}\\.[0-9]{3}Z$"})
}

fn mode() -> Value {
    json!({"enum": ["write_node", "router_node"]})
}
