//! The fleet's face over the embedded store.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tl_core::fleet::BreakerSettings;
use tl_fleet::sqlite::{SqliteOptions, SqliteStore};
use tl_fleet::{FleetService, Guard, StoreError};
use tl_gateway::fleet;
use tower::Service;

mod described;
mod serving;

struct World {
    _folder: TempDir,
    guard: Arc<Guard>,
    router: Router,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.db");
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).unwrap());
    let settings = BreakerSettings {
        failures_in_row: 1,
        open_ms: 300_000,
        open_ms_max: 300_000,
        ..BreakerSettings::default()
    };
    let guard = Arc::new(Guard::new(store, settings, 60_000));
    let router = fleet::router(Arc::new(FleetService::alone(Arc::clone(&guard))));
    World { _folder: folder, guard, router }
}

struct Answer {
    status: StatusCode,
    retry_after: bool,
    body: Value,
    text: String,
}

impl World {
    async fn send(&mut self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let response = self.router.call(request).await.unwrap();
        let status = response.status();
        let retry_after = response.headers().contains_key("retry-after");
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        described::check(method, path, status, &content_type, &text);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, retry_after, body, text }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, Body::empty()).await
    }

    async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body.to_string()).await
    }

    async fn submit(&mut self, body: Value) -> String {
        let answer = self.post("/v1/steps", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.body["step_id"].as_str().unwrap().to_owned()
    }

    async fn claim(&mut self) -> Value {
        let wish = json!({ "worker": "w", "types": ["work"] });
        self.post("/v1/steps/claim", wish).await.body["claims"][0].clone()
    }

    /// Opens the breaker as an outage does: calls fail.
    async fn database_goes_away(&self) {
        let away: Result<_, StoreError> = self
            .guard
            .call(|_| {
                Box::pin(async {
                    let source = Arc::new(std::io::Error::from(std::io::ErrorKind::NotConnected));
                    Err::<tl_fleet::time::Timed<()>, _>(StoreError::Unavailable { source })
                })
            })
            .await;
        assert!(away.is_err());
    }
}

#[track_caller]
fn is_problem(answer: &Answer, status: u16, error_type: &str, path: &str) {
    assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
    assert_eq!(answer.body["error_type"], error_type, "{path}");
    assert_eq!(answer.body["path"], path);
    assert!(answer.body["detail"].is_string());
    let at = answer.body["timestamp"].as_str().unwrap();
    assert!(tl_types::UnixMs::parse_rfc3339(at).is_some(), "{at}");
}

#[tokio::test]
async fn a_step_goes_from_submission_to_its_result_by_a_worker_that_pulls() {
    let mut world = world();
    let answer = world.send("POST", "/submit", r#"{"type":"work","args":{"b":1.50,"a":2}}"#).await;
    assert_eq!((answer.status, &answer.body["status"]), (StatusCode::CREATED, &json!("submitted")));
    let id = answer.body["step_id"].as_str().unwrap().to_owned();
    let status = world.get(&format!("/status/{id}")).await;
    assert_eq!(
        (&status.body["status"], &status.body["retry_count"]),
        (&json!("pending"), &json!(0))
    );
    assert!(status.text.contains(r#""args":{"b":1.50,"a":2}"#), "as it was sent: {}", status.text);

    let claim = world.claim().await;
    assert_eq!((&claim["step_id"], &claim["attempt"]), (&json!(id), &json!(1)));
    let token = claim["claim_token"].clone();
    let renewed = world
        .post(&format!("/v1/steps/{id}/renew"), json!({ "claim_token": token, "progress": 1 }))
        .await;
    assert_eq!(renewed.body["cancel_asked"], false);
    let waiting = world.get(&format!("/v1/steps/{id}/result")).await;
    assert_eq!((waiting.status, &waiting.body["state"]), (StatusCode::ACCEPTED, &json!("claimed")));
    let report = json!({ "claim_token": token, "result": { "sum": 3 } });
    let done = world.post(&format!("/v1/steps/{id}/complete"), report).await;
    assert_eq!((done.status, &done.body["state"]), (StatusCode::OK, &json!("completed")));
    let result = world.get(&format!("/v1/steps/{id}/result?wait_ms=1000")).await;
    assert_eq!((result.status, &result.body["result"]), (StatusCode::OK, &json!({ "sum": 3 })));
    let key = world.get(&format!("/idempotency/{id}")).await;
    assert_eq!(key.body["idempotency_key"], format!("idempotent_{id}"));
    let queue = world.get("/admin/queue").await;
    assert_eq!(queue.body["completed_steps"], 1);
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_step_that_stands() {
    let mut world = world();
    let body = json!({ "type": "work", "unique_key": "k", "args": { "n": 1 } });
    let id = world.submit(body.clone()).await;
    let again = world.post("/v1/steps", body).await;
    assert_eq!((again.status, &again.body["step_id"]), (StatusCode::OK, &json!(id)));
    let batch = json!({ "steps": [{ "type": "work", "unique_key": "k" }, { "type": "other" }] });
    let batch = world.post("/v1/steps/batch", batch).await.body;
    let first = &batch["steps"][0];
    assert_eq!((&first["deduped"], &first["differs"]), (&json!(true), &json!(true)));
    let found = world.get("/v1/steps?type=other&state=pending,scheduled&limit=5").await.body;
    assert_eq!(found["steps"].as_array().unwrap().len(), 1);
    assert_eq!(found["next_page"], Value::Null);
}

#[tokio::test]
async fn who_lost_a_claim_is_told_conflict_and_a_dead_letter_is_put_back() {
    let mut world = world();
    let id = world.submit(json!({ "type": "work", "max_retries": 0 })).await;
    let claim = world.claim().await;
    let path = format!("/v1/steps/{id}/complete");
    for token in ["x", "00000000-0000-4000-8000-000000000000"] {
        let late = world.post(&path, json!({ "claim_token": token })).await;
        is_problem(&late, 409, "conflict", &path);
    }
    let path = format!("/v1/steps/{id}/fail");
    let report = json!({ "claim_token": claim["claim_token"], "error": "no luck" });
    assert_eq!(world.post(&path, report).await.body["state"], "failed");
    let dead = world.get("/v1/dead-letters").await.body;
    assert_eq!(
        (&dead["dead_letters"][0]["step_id"], &dead["dead_letters"][0]["error"]),
        (&json!(id), &json!("no luck"))
    );
    let path = format!("/v1/dead-letters/{id}/retry");
    assert_eq!(world.send("POST", &path, "").await.status, StatusCode::OK);
    is_problem(&world.send("POST", &path, "").await, 409, "conflict", &path);
    let path = format!("/v1/steps/{id}/cancel");
    assert_eq!(world.send("POST", &path, "").await.body["cancel"], "now");
    is_problem(&world.send("POST", &path, "").await, 409, "conflict", &path);
    assert_eq!(world.get(&format!("/status/{id}")).await.body["status"], "failed");
}

#[tokio::test]
async fn every_refusal_is_in_the_one_envelope() {
    let mut world = world();
    let unknown = "01900000-0000-7000-8000-000000000000";
    for path in ["/nothing", &format!("/status/{unknown}"), "/status/'; DROP TABLE", "/v1/steps/x"]
    {
        let path = path.replace(' ', "%20");
        is_problem(&world.get(&path).await, 404, "not_found", &path);
    }
    is_problem(&world.send("DELETE", "/submit", "").await, 405, "validation_error", "/submit");
    let bodies = [
        ("", 422),
        ("[]", 422),
        (r#"{"type":7}"#, 422),
        (r#"{"type":"w","surprise":1}"#, 422),
        (r#"{"type":"w","max_retries":-1}"#, 422),
        (r#"{"type":"w","max_retries":11}"#, 400),
        (r#"{"type":"a b"}"#, 400),
        (r#"{"type":""}"#, 400),
        (r#"{"type":"w","args":[]}"#, 400),
        (r#"{"type":"w","metadata":1}"#, 400),
        (r#"{"type":"w","step_id":"7"}"#, 400),
        (r#"{"type":"w","run_at":"noon"}"#, 400),
        (r#"{"type":"w","unique_until":"finished"}"#, 400),
    ];
    for (body, status) in bodies {
        is_problem(
            &world.send("POST", "/submit", body).await,
            status,
            "validation_error",
            "/submit",
        );
    }
    let payload = |bytes: usize| {
        let frame = r#"{"type":"w","args":{"a":""},"metadata":{}}"#.len();
        json!({ "type": "w", "args": { "a": "x".repeat(bytes - frame) } })
    };
    assert_eq!(world.post("/submit", payload(1_048_576)).await.status, StatusCode::CREATED);
    let large = world.post("/submit", payload(1_048_577)).await;
    is_problem(&large, 400, "validation_error", "/submit");
    let huge = world.send("POST", "/submit", vec![b' '; 33 * 1024 * 1024]).await;
    is_problem(&huge, 413, "validation_error", "/submit");
    for query in ["stat=pending", "state=odd", "limit=x", "limit=0", "limit=1001", "page=x"] {
        let answer = world.get(&format!("/v1/steps?{query}")).await;
        assert!(answer.status.is_client_error(), "{query}");
        assert_eq!(answer.body["error_type"], "validation_error", "{query}");
    }
    let forbidden = world.send("POST", "/admin/recovery/run", "").await;
    is_problem(&forbidden, 403, "permission_denied", "/admin/recovery/run");
}

/// What each endpoint does while the database is away: the few that need none go on.
#[tokio::test]
async fn each_endpoint_says_so_when_the_database_is_away() {
    let mut world = world();
    let id = world.submit(json!({ "type": "work" })).await;
    let token = world.claim().await["claim_token"].clone();
    world.database_goes_away().await;
    let described = fleet::openapi_document();
    let mut asked = 0;
    for (template, operations) in described["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = template.replace("{step_id}", &id);
            let body = match template.as_str() {
                "/submit" | "/v1/steps" => json!({ "type": "work" }),
                "/v1/steps/batch" => json!({ "steps": [{ "type": "work" }] }),
                "/v1/steps/claim" => json!({ "worker": "w", "types": ["work"] }),
                "/v1/steps/{step_id}/fail" => json!({ "claim_token": token, "error": "no" }),
                "/admin/recovery/run" => json!({}),
                _ => json!({ "claim_token": token }),
            };
            let answer = world.send(&method.to_uppercase(), &path, body.to_string()).await;
            match template.as_str() {
                "/" | "/health/live" | "/metrics" | "/openapi.json" => {
                    assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
                }
                _ => {
                    is_problem(&answer, 503, "database_error", &path);
                    assert!(answer.retry_after, "{method} {path}");
                }
            }
            asked += 1;
        }
    }
    assert_eq!(asked, 28, "every route is described");
}

#[tokio::test]
async fn it_listens_beyond_this_machine_only_when_forced() {
    let open = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(fleet::listen(open, false).await, Err(fleet::FleetFaceError::Open(_))));
    assert!(fleet::listen(open, true).await.is_ok());
    assert!(fleet::listen("127.0.0.1:0".parse().unwrap(), false).await.is_ok());
}

#[tokio::test]
async fn requests_and_their_bodies_have_limits_together_and_liveness_has_none() {
    const REQUESTS_MAX: usize = 1_024;
    let mut world = world();
    let id = world.submit(json!({ "type": "work" })).await;
    // One past the bodies: each may become as long as any, for it does not say.
    let endless = || {
        let chunks = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        Request::post("/submit").body(Body::from_stream(chunks)).unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut waits = Box::pin(world.router.call(endless()));
        assert!((&mut waits).now_or_never().is_none());
        open.push(waits);
    }
    let refused = world.send("POST", "/submit", r#"{"type":"work"}"#).await;
    is_problem(&refused, 503, "database_error", "/submit");
    assert!(refused.retry_after);
    assert_eq!(world.get("/health/ready").await.status, StatusCode::OK, "without a body");
    drop(open);
    assert_eq!(
        world.send("POST", "/submit", r#"{"type":"work"}"#).await.status,
        StatusCode::CREATED
    );

    // One past the requests.
    let path = format!("/v1/steps/{id}/result?wait_ms=30000");
    let mut waiting = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let request = Request::get(&path).body(Body::empty()).unwrap();
        let mut waits = Box::pin(world.router.call(request));
        assert!((&mut waits).now_or_never().is_none());
        waiting.push(waits);
    }
    is_problem(&world.get("/v1/pods").await, 503, "database_error", "/v1/pods");
    for always in ["/health/live", "/metrics"] {
        assert_eq!(world.get(always).await.status, StatusCode::OK);
    }
    drop(waiting);
    assert_eq!(world.get("/v1/pods").await.status, StatusCode::OK);
}
