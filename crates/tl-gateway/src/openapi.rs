//! The published description: OpenAPI 3.1, made from the route table and the error table.
//!
//! ```text
//!  ROUTES ─► operations: what each takes and answers ─┐
//!  ErrorCode ─► a response per status, words as enum ─┼─► document
//!  schemas: bodies ───────────────────────────────────┘
//! ```
//!
//! Tests hold it against the server: each route is here, and replies seen validate.

mod operations;
mod ops;
mod parts;
mod schemas;

use serde_json::{Map, Value, json};
use tl_types::ErrorCode;

use crate::routes::ROUTES;
use operations::Operation;

const DESCRIPTION: &str = "Durable ordered sessions: create, append, tail. Every error has the \
body {\"error\", \"message\", ...facts}; `error` is a stable word. 429 and 503 pass by themselves \
and carry Retry-After; any other 4xx means that the same request will never succeed. Paths that \
are not described answer 404 `not_found`, methods that are not described 405 \
`method_not_allowed` with Allow. Successful replies about sessions carry x-throughline-index: \
pass it as min_index to read your own write on another node.";

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operations::describe(route.endpoint);
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.to_ascii_lowercase()] = operation_object(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Throughline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "sessions", "description": "One ordered, append-only log each"},
            {"name": "node", "description": "Health, metrics, description"},
            {"name": "ops", "description": "For operators, from the node's own computer"},
        ],
        "paths": paths,
        "components": {"schemas": schemas::all()},
    })
}

fn operation_object(operation: Operation) -> Value {
    let Operation { id, tag, summary, description, parameters, body, answers, errors } = operation;
    let mut responses = Map::new();
    for (status, answer) in answers {
        responses.insert(status.to_string(), answer);
    }
    for (status, answer) in error_responses(&errors) {
        // A status may be an answer and an error at once: readiness.
        responses.entry(status).or_insert(answer);
    }
    let mut object = json!({
        "operationId": id,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = body {
        object["requestBody"] = body;
    }
    object
}

/// One response per status, naming its words.
fn error_responses(codes: &[ErrorCode]) -> Vec<(String, Value)> {
    let mut by_status: Vec<(u16, Vec<ErrorCode>)> = Vec::new();
    for &code in codes {
        match by_status.iter_mut().find(|(status, _)| *status == code.status()) {
            Some((_, codes)) => codes.push(code),
            None => by_status.push((code.status(), vec![code])),
        }
    }
    by_status.sort_unstable_by_key(|(status, _)| *status);
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), error_response(&codes)))
        .collect()
}

fn error_response(codes: &[ErrorCode]) -> Value {
    let words: Vec<_> = codes.iter().map(|code| code.word()).collect();
    let lines: Vec<_> =
        codes.iter().map(|code| format!("`{}`: {}", code.word(), code.message())).collect();
    let mut response = json!({
        "description": lines.join("; "),
        "content": {"application/json": {"schema": {
            "allOf": [{"$ref": "#/components/schemas/Error"}],
            "properties": {"error": {"enum": words}},
        }}},
    });
    if codes.iter().any(|code| code.has_retry_after()) {
        response["headers"] = json!({"Retry-After": {
            "description": "Whole seconds to wait", "required": true,
            "schema": {"type": "integer", "minimum": 1},
        }});
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| {
                let item = item.as_object().expect("an object");
                item.keys().map(|method| (method.to_ascii_uppercase(), path.clone()))
            })
            .collect();
        let routed: BTreeSet<_> =
            ROUTES.iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
        assert_eq!(described, routed);
        assert_eq!(routed.len(), ROUTES.len(), "no route stands twice");
    }

    #[test]
    fn references_lead_somewhere_and_path_parameters_are_declared() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
        for route in ROUTES.iter().filter(|route| route.path.contains("{id}")) {
            let method = route.method.to_ascii_lowercase();
            let parameters = document["paths"][route.path][&method]["parameters"].to_string();
            assert!(parameters.contains("\"in\":\"path\""), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let names: BTreeSet<_> =
            ROUTES.iter().map(|route| operations::describe(route.endpoint).id).collect();
        assert_eq!(names.len(), ROUTES.len());
    }
}
