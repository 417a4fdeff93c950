//! Parts that operations are put together from: parameters, bodies, replies.

use serde_json::{Value, json};
use tl_types::limits::{FIELD_BYTES_MAX, NUMBER_MAX};

/// A schema by name.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A JSON reply.
pub fn answer(description: &str, schema: &str) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": reference(schema)}}})
}

/// A JSON reply with the log index.
pub fn indexed(description: &str, schema: &str) -> Value {
    let mut answer = answer(description, schema);
    answer["headers"] = index_header();
    answer
}

/// The header with the log index.
pub fn index_header() -> Value {
    json!({"x-throughline-index": {
        "description": "Log index that has what this reply speaks of: pass it as min_index",
        "schema": {"type": "integer", "minimum": 0},
    }})
}

/// A JSON body.
pub fn json_body(schema: &str, required: bool) -> Value {
    json!({"required": required, "content": {"application/json": {"schema": reference(schema)}}})
}

/// The session id in the path.
pub fn id() -> Value {
    json!({
        "name": "id", "in": "path", "required": true,
        "description": "Session id: 1 to 255 bytes of UTF-8, percent-encoded, also its slashes",
        "schema": {"type": "string", "minLength": 1},
    })
}

/// The namespace header.
pub fn namespace() -> Value {
    json!({
        "name": "x-throughline-namespace", "in": "header",
        "description": "Folder of names",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "default": "default"},
    })
}

/// The header that names a request.
pub fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header",
        "description": "Names the request: a repeat within ten minutes gets the first reply again",
        "schema": {"type": "string", "minLength": 1, "maxLength": FIELD_BYTES_MAX},
    })
}

/// How fresh a read must be.
pub fn freshness() -> Vec<Value> {
    vec![
        query("stale", "Answer at once from what this node has", flag()),
        query(
            "min_index",
            "Not older than an acknowledgement with this x-throughline-index",
            position(),
        ),
    ]
}

/// A query parameter.
pub fn query(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

/// A whole number in a range.
pub fn number(low: u64, high: u64, default: Option<u64>) -> Value {
    let mut schema = json!({"type": "integer", "minimum": low, "maximum": high});
    if let Some(default) = default {
        schema["default"] = json!(default);
    }
    schema
}

/// A seq or an index.
pub fn position() -> Value {
    number(0, NUMBER_MAX, None)
}

/// True or false.
pub fn flag() -> Value {
    json!({"type": "boolean", "default": false})
}
