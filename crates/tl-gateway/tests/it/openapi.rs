//! Replies are held against the published description.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tl_gateway::openapi::document;
use tl_gateway::routes::{ROUTES, Route};

use crate::http::Reply;
use crate::server::Server;

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

fn route(method: &str, target: &str) -> Option<Route> {
    let path = target.split('?').next().unwrap();
    let matches = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) =
            (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len()
            && template
                .iter()
                .zip(&path)
                .all(|(t, p)| if *t == "{id}" { !p.is_empty() } else { t == p })
    };
    ROUTES.into_iter().find(|route| route.method == method && matches(route.path))
}

/// Panics when the description does not cover the reply.
pub fn check(method: &str, target: &str, reply: &Reply) {
    let error = json!({"$ref": "#/components/schemas/Error"});
    let schema = match route(method, target) {
        None => error,
        Some(route) => {
            let operation = &DOCUMENT["paths"][route.path][method.to_ascii_lowercase()];
            let response = &operation["responses"][reply.status.to_string()];
            assert!(response.is_object(), "{method} {target} answers undescribed {reply:?}");
            for (name, header) in response["headers"].as_object().into_iter().flatten() {
                let value = reply.header(&name.to_ascii_lowercase());
                if header["required"] == true {
                    assert!(value.is_some(), "{name} is missing in {reply:?}");
                }
            }
            let Some(content) = response["content"].as_object() else {
                assert!(reply.body.is_empty(), "{reply:?}");
                return;
            };
            let sent = reply.header("content-type").unwrap().split(';').next().unwrap();
            let Some(body) = content.get(sent) else { panic!("{sent} is undescribed: {reply:?}") };
            if sent != "application/json" {
                return;
            }
            body["schema"].clone()
        }
    };
    if method == "HEAD" || method == "OPTIONS" {
        return;
    }
    let root = json!({"allOf": [schema], "components": DOCUMENT["components"]});
    let validator = jsonschema::validator_for(&root).unwrap();
    if let Err(error) = validator.validate(&reply.json()) {
        panic!("{method} {target}: {error} in {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_its_page_are_served() {
    let server = Server::start().await;
    let reply = server.get("/openapi.json").await;
    assert_eq!(reply.json(), *DOCUMENT);
    let page = server.get("/docs").await;
    assert_eq!(page.status, 200);
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(text.contains("fetch(\"/openapi.json\")"));
    assert!(!text.contains("http://") && !text.contains("https://"), "no part comes from outside");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_says_where_to_go() {
    let server = Server::start().await;
    let page = server.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let text = String::from_utf8(page.body).unwrap();
    assert!(text.contains(concat!("version ", env!("CARGO_PKG_VERSION"), ".")));
    for link in text.split("href=\"").skip(1) {
        let target = link.split('"').next().unwrap();
        assert_eq!(server.get(target).await.status, 200, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_served() {
    let server = Server::start().await;
    for route in ROUTES {
        let target = route.path.replace("{id}", "nobody");
        let reply = server.ask(route.method, &target, &[], None).await;
        assert_ne!(reply.status, 405, "{} {}", route.method, route.path);
        let unknown = reply.status == 404 && reply.error() == "not_found";
        assert!(!unknown, "{} {}", route.method, route.path);
    }
}
