//! Replies are held against the published description, and refusals have their pages.

use std::sync::LazyLock;

use http::StatusCode;
use serde_json::{Value, json};
use tl_gateway::fleet;

static DOCUMENT: LazyLock<Value> = LazyLock::new(fleet::openapi_document);

/// What the description says of a request; nothing for one that it does not know.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) =
            (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len()
            && template.iter().zip(&path).all(|(t, p)| t == p || t.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A path that is written out goes before one with a place for an id.
    let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
    found.sort_by_key(|(template, _)| template.contains('{'));
    let method = method.to_lowercase();
    found.into_iter().map(|(_, operations)| &operations[&method]).find(|it| it.is_object())
}

/// Panics when the description does not cover the reply.
#[track_caller]
pub fn check(method: &str, path: &str, status: StatusCode, content_type: &str, text: &str) {
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    let schema = match operation(method, path) {
        None => {
            assert!(status.is_client_error(), "{method} {path} is not described: {status}");
            problem
        }
        Some(operation) => {
            let range = format!("{}XX", status.as_u16() / 100);
            let responses = &operation["responses"];
            let exact = &responses[status.as_str()];
            let response = if exact.is_object() { exact } else { &responses[&range] };
            let content = &response["content"][content_type.split(';').next().unwrap()];
            assert!(content.is_object(), "{method} {path}: {status} {content_type} {text}");
            content["schema"].clone()
        }
    };
    if !content_type.starts_with("application/json") {
        return;
    }
    let body: Value = serde_json::from_str(text).unwrap();
    let root = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
    let validator = jsonschema::validator_for(&root).unwrap();
    if let Err(error) = validator.validate(&body) {
        panic!("{method} {path}: {error} in {text}");
    }
}

#[test]
fn every_route_describes_what_it_gives() {
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let good = responses.keys().filter(|status| status.starts_with('2')).count();
            assert!(good >= 1 && responses.len() == good + 2, "{method} {path}");
            assert_eq!(operation["requestBody"].is_object(), method == "post", "{method} {path}");
        }
    }
}

#[test]
fn every_sort_of_refusal_has_a_page_with_cause_remedy_and_example() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/fleet-errors");
    let index = std::fs::read_to_string(format!("{folder}/../fleet-http.md")).unwrap();
    let words = &DOCUMENT["components"]["schemas"]["Problem"]["properties"]["error_type"]["enum"];
    let words: Vec<&str> =
        words.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    for word in &words {
        let page = std::fs::read_to_string(format!("{folder}/{word}.md")).unwrap();
        assert!(page.starts_with(&format!("# {word}\n")), "{word}");
        for section in ["Cause", "Remedy", "Example"] {
            let (_, rest) = page.split_once(&format!("\n## {section}\n")).expect(word);
            let text = rest.split("\n## ").next().unwrap();
            assert!(!text.trim().is_empty(), "{word} has nothing under {section}");
        }
        let (_, example) = page.split_once("```json\n").expect(word);
        let example = example.split("\n```").next().unwrap();
        check("GET", "/nothing", StatusCode::NOT_FOUND, "application/json", example);
        assert_eq!(serde_json::from_str::<Value>(example).unwrap()["error_type"], **word);
        assert!(index.contains(&format!("[`{word}`](fleet-errors/{word}.md)")), "{word}");
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(words.contains(&name.strip_suffix(".md").unwrap()), "{name} is no sort of refusal");
    }
}
