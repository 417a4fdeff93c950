//! The published description of the fleet's face: every route, its bodies and its refusals.

use serde_json::{Map, Value, json};

use super::problem::Sort;
use super::replies;
use super::shapes::ok;
use super::{ROUTES, Reply};

pub(super) async fn get() -> Reply {
    ok(&document())
}

/// The description, made of the table that the router is checked against.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for (method, path) in ROUTES {
        let place = paths.entry(*path).or_insert_with(|| json!({}));
        place[method.to_lowercase()] = operation(method, path);
    }
    let words: Vec<&str> = Sort::ALL.iter().map(|sort| sort.word()).collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Throughline fleet", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": {
            "Problem": {
                "type": "object",
                "required": ["detail", "error_type", "timestamp", "path"],
                "properties": {
                    "detail": { "type": "string" },
                    "error_type": { "enum": words },
                    "timestamp": { "type": "string", "format": "date-time" },
                    "path": { "type": "string" },
                },
            },
            "NewStep": {
                "type": "object",
                "required": ["type"],
                "additionalProperties": false,
                "properties": {
                    "type": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$" },
                    "args": { "type": "object" },
                    "metadata": { "type": "object" },
                    "priority": { "type": "integer", "minimum": -1_000_000, "maximum": 1_000_000 },
                    "max_retries": { "type": "integer", "minimum": 0, "maximum": 10 },
                    "step_id": { "type": "string", "format": "uuid" },
                    "delay_ms": { "type": "integer", "minimum": 0 },
                    "run_at": { "type": "string", "format": "date-time" },
                    "timeout_ms": { "type": "integer", "minimum": 1 },
                    "unique_key": { "type": "string", "minLength": 1, "maxLength": 255 },
                    "unique_until": { "enum": ["finished", "forgotten"] },
                },
            },
        } },
    });
    for (name, schema) in replies::schemas() {
        document["components"]["schemas"][name] = schema;
    }
    document
}

/// What a route does, in a sentence.
fn summary(method: &str, path: &str) -> &'static str {
    match (method, path) {
        (_, "/") => "What this is and what it answers",
        (_, "/health") => "Whether the pod and its database are well",
        (_, "/health/live") => "Whether the process answers; never asks the database",
        (_, "/health/ready") => "Whether the database answers and takes writes",
        (_, "/metrics") => "Counts for a scraper",
        (_, "/openapi.json") => "This description",
        (_, "/submit") => "Submit a step",
        (_, "/status/{step_id}") => "How a step stands",
        (_, "/idempotency/{step_id}") => "The key to send along to other systems",
        (_, "/admin/queue") => "How many steps stand where",
        (_, "/admin/leader") => "Who leads and who could",
        (_, "/admin/recovery/run") => "Take back steps of dead holders now; only at the leader",
        ("POST", "/v1/steps") => "Submit a step; 200 when it was submitted before",
        (_, "/v1/steps") => "Steps that pass a filter, newest first",
        (_, "/v1/steps/batch") => "Submit many steps, all or none",
        (_, "/v1/steps/claim") => "Take steps to work on",
        (_, "/v1/steps/{step_id}") => "A step as it stands",
        (_, "/v1/steps/{step_id}/attempts") => "All attempts at a step",
        (_, "/v1/steps/{step_id}/result") => "What a step gave, waiting for it if asked to",
        (_, "/v1/steps/{step_id}/cancel") => "Call a step off",
        (_, "/v1/steps/{step_id}/retry" | "/v1/dead-letters/{step_id}/retry") => {
            "Put a failed, cancelled or scheduled step back"
        }
        (_, "/v1/steps/{step_id}/renew") => "Go on holding a claim",
        (_, "/v1/steps/{step_id}/complete") => "Report success",
        (_, "/v1/steps/{step_id}/fail") => "Report failure",
        (_, "/v1/steps/{step_id}/release") => "Give a step back",
        (_, "/v1/dead-letters") => "Steps that were given up",
        _ => "Pods that are known",
    }
}

fn operation(method: &str, path: &str) -> Value {
    let mut parameters = Vec::new();
    if path.contains("{step_id}") {
        parameters.push(json!({
            "name": "step_id", "in": "path", "required": true, "schema": { "type": "string" },
        }));
    }
    let names: &[&str] = match (method, path) {
        ("GET", "/v1/steps") => super::ask::FILTERS,
        ("GET", "/v1/dead-letters") => &["retried", "limit", "page"],
        ("GET", "/v1/steps/{step_id}/result") => &["wait_ms"],
        _ => &[],
    };
    for name in names {
        parameters.push(json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
    }
    let problem = json!({
        "description": "A refusal; 503 with the header Retry-After",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let mut responses = json!({ "4XX": problem, "5XX": problem });
    for (status, schema) in replies::of(method, path) {
        let (content_type, schema) = match schema {
            Value::Null => ("application/openmetrics-text", json!({ "type": "string" })),
            schema => ("application/json", schema),
        };
        responses[status] = json!({
            "description": "Done",
            "content": { content_type: { "schema": schema } },
        });
    }
    let mut operation = json!({
        "summary": summary(method, path),
        "parameters": parameters,
        "responses": responses,
    });
    let schema = match (method, path) {
        ("POST", "/submit" | "/v1/steps") => {
            Some(json!({ "$ref": "#/components/schemas/NewStep" }))
        }
        ("POST", "/v1/steps/batch") => Some(json!({
            "type": "object", "required": ["steps"],
            "properties": { "steps": {
                "type": "array", "maxItems": tl_fleet::limits::BATCH_MAX,
                "items": { "$ref": "#/components/schemas/NewStep" },
            } },
        })),
        ("POST", _) => Some(json!({ "type": "object" })),
        _ => None,
    };
    if let Some(schema) = schema {
        operation["requestBody"] =
            json!({ "content": { "application/json": { "schema": schema } } });
    }
    operation
}
