//! What operators ask of a node that is a cluster of its own.

use serde_json::json;

use crate::http::soon;
use crate::server::Server;
use crate::websocket::{Frame, Socket};

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_answers_what_operators_ask() {
    let server = Server::start().await;
    let status = server.get("/v1/ops/status").await.json();
    let name = status["node"].clone();
    assert_eq!((&status["state"], &status["local_ready"]), (&json!("ready"), &json!(true)));
    assert_eq!((&status["num_groups"], &status["groups_led"]), (&json!(8), &json!(8)));
    assert_eq!(status["not_writable"], json!([]));
    assert_eq!(status["observer"]["ready_nodes"], json!([name]));
    let nodes = server.get("/v1/ops/nodes").await.json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/ops/ready-nodes").await.json(), json!({"ready_nodes": [name]}));
    let groups = server.get("/v1/ops/groups").await.json();
    assert_eq!(groups["groups"].as_array().unwrap().len(), 8);
    let group = server.get("/v1/ops/groups/7").await.json();
    assert_eq!((&group["leader"], &group["writable"]), (&name, &json!(true)));
    assert_eq!(group["replicas"][0]["lag_entries"], 0);
    let moved = server.post("/v1/ops/transfer", &json!({"group": 7, "to": name})).await;
    assert_eq!(moved.json()["leader"], name, "it leads already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_tails_and_readiness_until_it_is_taken_back() {
    let server = Server::start().await;
    server.session("s").await;
    let mut tail = Socket::open(server.address, "/v1/sessions/s/tail").await;
    let drained = server.post("/v1/ops/drain", &json!({})).await;
    assert_eq!(drained.status, 200);
    assert_eq!(tail.frame().await, Frame::Close(Some(1012), "drain".into()));
    drop(tail);
    let waited = soon(server.get("/v1/ops/wait-drained")).await;
    assert_eq!(waited.json()["local_drained"], true);
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, &ready.json()["reason"]), (503, &json!("draining")));
    assert_eq!(ready.json()["detail"]["state"], "drained");
    assert_eq!(server.get("/v1/ops/ready-nodes").await.json(), json!({"ready_nodes": []}));
    // It still serves what it is asked.
    server.append("s", 1).await;
    let back = server.ask("POST", "/v1/ops/undrain", &[], None).await;
    assert_eq!(back.json()["state"], "ready", "{back:?}");
    assert_eq!(server.get("/health/ready").await.status, 200);
    let mut tail = Socket::open(server.address, "/v1/sessions/s/tail").await;
    assert_eq!(tail.json().await["seq"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_changes_nothing() {
    let server = Server::start().await;
    let page = [("origin", "https://example.com")];
    let refused = server.ask("POST", "/v1/ops/drain", &page, None).await;
    assert_eq!((refused.status, &*refused.error()), (403, "forbidden_origin"));
    assert_eq!(server.get("/health/ready").await.status, 200);
}
