//! Sessions: rows, changes, ids, namespaces.

use serde_json::json;

use crate::server::{Server, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_created_read_changed_hidden_closed_and_deleted() {
    let server = Server::start().await;
    let body = br#"{"metadata": {"b": 1, "a": "x"}, "id": "s", "title": ""}"#;
    let json_type = [("content-type", "application/json")];
    let created = server.ask("POST", "/v1/sessions", &json_type, Some(body)).await;
    assert_eq!(created.status, 201);
    let keys: Vec<_> = created.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 11, "{keys:?}");
    let text = String::from_utf8(created.body.clone()).unwrap();
    let expected = "{\"id\":\"s\",\"title\":\"\",\"metadata\":{\"b\":1,\"a\":\"x\"},\
                    \"creator_principal\":{\"tenant_id\":\"default\",\"id\":\"service\",\
                    \"type\":\"service\"},\"created_at\":\"";
    assert!(text.starts_with(expected), "{text}");
    let index: u64 = created.header("x-throughline-index").unwrap().parse().unwrap();
    assert!(index >= 1);

    let row = server.get(&format!("/v1/sessions/s?min_index={index}")).await;
    assert_eq!(row.json()["tenant_id"], "default");
    assert_eq!(row.json()["version"], 1);

    let change = json!({"title": null, "metadata": {"a": null, "c": [1]}, "expected_version": "1"});
    let changed = server.send("PATCH", "/v1/sessions/s", &change).await;
    assert_eq!(changed.json()["metadata"], json!({"b": 1, "a": null, "c": [1]}));
    assert_eq!(changed.json()["version"], 2);
    assert_eq!(changed.json()["title"], json!(null));

    let archived = server.ask("POST", "/v1/sessions/s/archive", &[], None).await;
    assert_eq!(archived.json()["archived"], true);
    assert_eq!(archived.json()["version"], 2);
    server.append("s", 1).await;
    let shown = server.ask("POST", "/v1/sessions/s/unarchive", &[], None).await;
    assert_eq!((&shown.json()["archived"], &shown.json()["last_seq"]), (&json!(false), &json!(1)));

    for _ in 0..2 {
        let closed = server.ask("POST", "/v1/sessions/s/close", &[], None).await;
        assert_eq!((closed.status, &closed.json()["state"]), (200, &json!("closed")));
    }
    for _ in 0..2 {
        let deleted = server.ask("DELETE", "/v1/sessions/s", &[], None).await;
        assert_eq!(deleted.status, 204);
        assert!(deleted.header("x-throughline-index").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_request_makes_a_session_with_an_id_of_the_server() {
    let server = Server::start().await;
    let created = server.ask("POST", "/v1/sessions", &[], None).await;
    assert_eq!(created.status, 201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), &id[..4]), (20, "ses_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_slash_is_part_of_the_id_and_a_bare_one_is_not() {
    let server = Server::start().await;
    let id = "a/b ü%";
    assert_eq!(server.post("/v1/sessions", &json!({"id": id})).await.status, 201);
    let encoded = "a%2fb%20%C3%BC%25";
    assert_eq!(server.get(&format!("/v1/sessions/{encoded}")).await.json()["id"], id);
    let target = format!("/v1/sessions/{encoded}/append");
    assert_eq!(server.post(&target, &event("p", 1)).await.status, 201);
    let page = server.get(&format!("/v1/sessions/{encoded}/events")).await;
    assert_eq!(page.json()["last_seq"], 1);
    assert_eq!(server.get("/v1/sessions/a/b").await.error(), "not_found");
    // `append` here is an id, not an operation.
    assert_eq!(server.get("/v1/sessions/a%2Fappend").await.error(), "session_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_in_two_namespaces_is_two_sessions() {
    let server = Server::start().await;
    server.session("s").await;
    let other = [("x-throughline-namespace", "other"), ("content-type", "application/json")];
    assert_eq!(
        server.ask("GET", "/v1/sessions/s", &other, None).await.error(),
        "session_not_found"
    );
    let created = server.ask("POST", "/v1/sessions", &other, Some(b"{\"id\":\"s\"}")).await;
    assert_eq!(created.status, 201);
    server.append("s", 1).await;
    let row = server.ask("GET", "/v1/sessions/s", &other, None).await;
    assert_eq!(row.json()["last_seq"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_repeats_the_first_reply() {
    let server = Server::start().await;
    let keyed = [("idempotency-key", "k"), ("content-type", "application/json")];
    let body = b"{\"id\":\"s\",\"title\":\"t\"}";
    let first = server.ask("POST", "/v1/sessions", &keyed, Some(body)).await;
    let again = server.ask("POST", "/v1/sessions", &keyed, Some(body)).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json(), again.json());
    let other = [("idempotency-key", "l"), ("content-type", "application/json")];
    let third = server.ask("POST", "/v1/sessions", &other, Some(body)).await;
    assert_eq!(third.error(), "session_exists");
    let long = "k".repeat(256);
    let keyed = [("idempotency-key", long.as_str()), ("content-type", "application/json")];
    let reply = server.ask("POST", "/v1/sessions", &keyed, Some(b"{}")).await;
    assert_eq!(reply.error(), "invalid_session");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_access_control_an_authorization_header_is_ignored() {
    let server = Server::start().await;
    let reply =
        server.ask("GET", "/v1/sessions", &[("authorization", "Bearer nonsense")], None).await;
    assert_eq!(reply.status, 200);
}
