//! Health, metrics, and the published description.

use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tl_engine::api::Readiness;
use tl_wire::json::write;

use crate::call::Call;
use crate::exposition::prometheus_text;
use crate::openapi;
use crate::reply::{json, typed};

/// `GET /health/live`: the process answers.
pub fn live() -> Response<Body> {
    json(StatusCode::OK, b"{\"status\":\"ok\"}".to_vec())
}

/// `GET /health/ready`: the node can serve.
pub fn ready(call: &Call) -> Response<Body> {
    let readiness = call.shared.service.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(status, ready_json(&readiness, call.shared.service.mode()));
    if !readiness.ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn ready_json(readiness: &Readiness, mode: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let status = if readiness.ready { "ok" } else { "starting" };
    out.extend_from_slice(b"{\"status\":");
    write::string(&mut out, status);
    out.extend_from_slice(b",\"mode\":");
    write::string(&mut out, mode);
    if let Some(reason) = readiness.reason {
        out.extend_from_slice(b",\"reason\":");
        write::string(&mut out, reason);
    }
    if !readiness.detail.is_empty() {
        out.extend_from_slice(b",\"detail\":{");
        for (at, (name, value)) in readiness.detail.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write::string(&mut out, name);
            out.push(b':');
            write::string(&mut out, value);
        }
        out.push(b'}');
    }
    out.push(b'}');
    out
}

/// `GET /metrics`
pub fn metrics(call: &Call) -> Response<Body> {
    call.shared.say_budgets();
    let text = prometheus_text(&call.shared.service.metrics_text());
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    typed(StatusCode::OK, content_type, Body::from(text))
}

/// `GET /openapi.json`
pub fn openapi() -> Response<Body> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| openapi::document().to_string().into());
    let content_type = HeaderValue::from_static("application/json");
    typed(StatusCode::OK, content_type, Body::from(document.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_why_it_is_missing() {
        let ready = Readiness { ready: true, reason: None, detail: vec![] };
        let of = |readiness| ready_json(readiness, "write_node");
        assert_eq!(of(&ready), br#"{"status":"ok","mode":"write_node"}"#);
        let router = ready_json(&ready, "router_node");
        assert_eq!(router, br#"{"status":"ok","mode":"router_node"}"#);
        let starting = Readiness {
            ready: false,
            reason: Some("raft_sync"),
            detail: vec![
                ("probe_result", "timeout".to_owned()),
                ("checked_groups", "3".to_owned()),
            ],
        };
        let expected = concat!(
            r#"{"status":"starting","mode":"write_node","reason":"raft_sync","#,
            r#""detail":{"probe_result":"timeout","checked_groups":"3"}}"#
        );
        assert_eq!(of(&starting), expected.as_bytes());
    }
}
