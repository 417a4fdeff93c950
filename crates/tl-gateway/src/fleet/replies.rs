//! What each route replies with, as the description says it. Every field of a reply is named and
//! always there; tests hold replies against this.

use serde_json::{Map, Value, json};
use tl_fleet::limits::{ATTEMPTS_SHOWN_MAX, BATCH_MAX, PAGE_MAX, PODS_MAX};
use tl_fleet::{AttemptEnd, StepState};

/// The schemas that several replies share.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("Submitted", submitted()),
        ("Step", step()),
        ("Attempt", attempt()),
        ("StepResult", result()),
        ("Claim", claim()),
        ("DeadLetter", dead_letter()),
        ("Pod", pod(&[])),
    ]
}

/// The statuses of success of a route, each with the schema of its body.
pub(super) fn of(method: &str, path: &str) -> Vec<(&'static str, Value)> {
    let ok = |fields: &[(&str, Value)]| vec![("200", object(fields))];
    match (method, path) {
        (_, "/") => {
            ok(&[("service", text()), ("version", text()), ("endpoints", list(text(), 100))])
        }
        (_, "/health") => ok(&[
            ("pod_id", or_null(text())),
            ("status", json!({ "const": "healthy" })),
            ("uptime_seconds", count()),
            ("current_capacity", count()),
            ("max_capacity", count()),
            ("is_leader", truth()),
            ("version", text()),
        ]),
        (_, "/health/live") => ok(&[("status", json!({ "const": "live" }))]),
        (_, "/health/ready") => ok(&[("status", json!({ "const": "ready" }))]),
        (_, "/openapi.json") => vec![("200", json!({ "type": "object" }))],
        (_, "/submit") => vec![(
            "201",
            object(&[
                ("step_id", id()),
                ("status", json!({ "const": "submitted" })),
                ("message", text()),
            ]),
        )],
        (_, "/status/{step_id}") => ok(&[
            ("step_id", id()),
            ("status", json!({ "enum": ["pending", "claimed", "completed", "failed"] })),
            ("claimed_by", or_null(text())),
            ("last_update_ts", time()),
            ("retry_count", count()),
            ("priority", number()),
            ("created_ts", time()),
            ("max_retries", count()),
            ("payload", object(&[("type", text()), ("args", any()), ("metadata", any())])),
        ]),
        (_, "/idempotency/{step_id}") => ok(&[("step_id", id()), ("idempotency_key", text())]),
        (_, "/admin/queue") => ok(&queue()),
        (_, "/admin/leader") => ok(&[
            ("current_leader", or_null(text())),
            ("leader_birth_ts", or_null(time())),
            ("epoch", or_null(count())),
            ("active_pods", count()),
            ("last_election_check", time()),
            (
                "election_details",
                object(&[("eligible_pods", list(pod(&[("is_leader", truth())]), PODS_MAX))]),
            ),
        ]),
        (_, "/admin/recovery/run") => ok(&[
            ("status", json!({ "const": "completed" })),
            ("message", text()),
            ("recovery_summary", recovery()),
        ]),
        ("POST", "/v1/steps") => vec![("200", shared("Submitted")), ("201", shared("Submitted"))],
        (_, "/v1/steps") => {
            ok(&[("steps", list(shared("Step"), PAGE_MAX)), ("next_page", or_null(text()))])
        }
        (_, "/v1/steps/batch") => ok(&[("steps", list(shared("Submitted"), BATCH_MAX))]),
        (_, "/v1/steps/claim") => ok(&[("claims", list(shared("Claim"), BATCH_MAX))]),
        (_, "/v1/steps/{step_id}") => vec![("200", shared("Step"))],
        (_, "/v1/steps/{step_id}/attempts") => {
            ok(&[("attempts", list(shared("Attempt"), ATTEMPTS_SHOWN_MAX))])
        }
        (_, "/v1/steps/{step_id}/result") => {
            vec![("200", shared("StepResult")), ("202", shared("StepResult"))]
        }
        (_, "/v1/steps/{step_id}/cancel") => {
            ok(&[("step_id", id()), ("cancel", json!({ "enum": ["now", "asked"] }))])
        }
        (_, "/v1/steps/{step_id}/retry" | "/v1/dead-letters/{step_id}/retry") => {
            ok(&[("step_id", id()), ("state", json!({ "const": "pending" }))])
        }
        (_, "/v1/steps/{step_id}/renew") => ok(&[("lease_ms", count()), ("cancel_asked", truth())]),
        (
            _,
            "/v1/steps/{step_id}/complete"
            | "/v1/steps/{step_id}/fail"
            | "/v1/steps/{step_id}/release",
        ) => ok(&[("step_id", id()), ("state", state())]),
        (_, "/v1/dead-letters") => ok(&[
            ("dead_letters", list(shared("DeadLetter"), PAGE_MAX)),
            ("next_page", or_null(text())),
        ]),
        (_, "/v1/pods") => {
            ok(&[("pods", list(shared("Pod"), PODS_MAX)), ("leader", or_null(text()))])
        }
        // The one that is text.
        _ => vec![("200", Value::Null)],
    }
}

fn submitted() -> Value {
    object(&[("step_id", id()), ("state", state()), ("deduped", truth()), ("differs", truth())])
}

fn step() -> Value {
    object(&[
        ("step_id", id()),
        ("type", text()),
        ("args", any()),
        ("metadata", any()),
        ("state", state()),
        ("priority", number()),
        ("attempt", count()),
        ("retry_count", count()),
        ("max_retries", count()),
        ("timeout_ms", or_null(count())),
        ("run_at", time()),
        ("claimed_by", or_null(text())),
        ("cancel_asked", truth()),
        ("progress", any()),
        ("unique_key", or_null(text())),
        ("unique_until", json!({ "enum": ["finished", "forgotten", null] })),
        ("result", any()),
        ("error", or_null(text())),
        ("created_at", time()),
        ("updated_at", time()),
        ("finished_at", or_null(time())),
    ])
}

fn attempt() -> Value {
    let ends: Vec<&str> = AttemptEnd::ALL.iter().map(|end| end.word()).collect();
    object(&[
        ("attempt", count()),
        ("pod", text()),
        ("claimed_at", time()),
        ("ended_at", or_null(time())),
        ("end", json!({ "enum": ends })),
        ("error", or_null(text())),
    ])
}

fn result() -> Value {
    object(&[
        ("step_id", id()),
        ("state", state()),
        ("attempt", count()),
        ("result", any()),
        ("error", or_null(text())),
    ])
}

fn claim() -> Value {
    object(&[
        ("step_id", id()),
        ("claim_token", id()),
        ("attempt", count()),
        ("retry_count", count()),
        ("max_retries", count()),
        ("type", text()),
        ("args", any()),
        ("metadata", any()),
        ("priority", number()),
        ("timeout_ms", or_null(count())),
        ("idempotency_key", text()),
        ("lease_ms", count()),
    ])
}

fn dead_letter() -> Value {
    object(&[
        ("step_id", id()),
        ("attempt", count()),
        ("type", text()),
        ("reason", json!({ "enum": ["max_retries_exceeded", "poison", "fatal"] })),
        ("error", or_null(text())),
        ("pod", text()),
        ("died_at", time()),
        ("retried_at", or_null(time())),
    ])
}

fn pod(more: &[(&str, Value)]) -> Value {
    let mut fields = vec![
        ("pod_id", text()),
        ("incarnation", count()),
        ("birth_ts", time()),
        ("last_heartbeat_ts", time()),
        ("status", json!({ "enum": ["up", "down"] })),
        ("draining", truth()),
        ("capacity", count()),
        ("running", count()),
        ("prefetched", count()),
        ("types", list(text(), tl_fleet::limits::KINDS_MAX)),
        ("meta", any()),
    ];
    fields.extend_from_slice(more);
    object(&fields)
}

fn queue() -> Vec<(&'static str, Value)> {
    vec![
        ("pending_steps", count()),
        ("claimed_steps", count()),
        ("completed_steps", count()),
        ("failed_steps", count()),
        ("active_pods", count()),
        ("current_leader", or_null(text())),
        ("queue_depth_by_priority", map(count())),
        ("steps_by_type", map(count())),
        ("pod_capacity", map(object(&[("current", count()), ("max", count())]))),
        ("unserved_types", list(text(), tl_fleet::limits::COUNTS_GROUPS_MAX)),
    ]
}

fn recovery() -> Value {
    // What one cycle finds has no limit but that of its calls.
    let names = || json!({ "type": "array", "items": text() });
    object(&[
        ("cycle_id", text()),
        ("dead_pods_found", count()),
        ("orphaned_steps_found", count()),
        ("steps_requeued", count()),
        ("steps_marked_terminal", count()),
        ("duration_ms", count()),
        ("dead_pods", names()),
        ("requeued_steps", names()),
        ("terminal_steps", names()),
    ])
}

/// An object with these fields, all of them, and no other.
fn object(fields: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({
        "type": "object",
        "required": names,
        "additionalProperties": false,
        "properties": properties,
    })
}

fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

fn list(of: Value, items_max: usize) -> Value {
    json!({ "type": "array", "maxItems": items_max, "items": of })
}

fn shared(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn any() -> Value {
    json!({})
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn truth() -> Value {
    json!({ "type": "boolean" })
}

fn number() -> Value {
    json!({ "type": "integer" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn id() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn state() -> Value {
    let words: Vec<&str> = StepState::ALL.iter().map(|state| state.word()).collect();
    json!({ "enum": words })
}
