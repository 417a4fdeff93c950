//! Every public error code is provoked through the face that sends it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tl_engine::api::{Caller, Freshness, TailFrom};
use tl_types::limits::{REQUEST_MS_DEFAULT, TAILS_OPEN_MAX, URI_BYTES_MAX};
use tl_types::{ErrorCode, Namespace, Principal, Seq, SessionId};

use crate::http::{Reply, Wire, soon};
use crate::server::{Server, event};
use crate::websocket::{Socket, UPGRADE};

/// Codes provoked where their cause is at hand: a panicking endpoint in this crate's unit tests,
/// trimmed events and a full disk in the engine's tests, callers from elsewhere in unit tests, a
/// second replacement in the engine's tests of several nodes.
const ELSEWHERE: [ErrorCode; 5] = [
    ErrorCode::InternalError,
    ErrorCode::EventGapDetected,
    ErrorCode::DiskFull,
    ErrorCode::OpsNotLocal,
    ErrorCode::ReplacementUnderWay,
];

/// Asserts the code with its status, body and wait; gives it back for counting.
fn is(code: ErrorCode, reply: &Reply) -> ErrorCode {
    assert_eq!(reply.error(), code.word(), "{reply:?}");
    assert_eq!(reply.status, code.status(), "{reply:?}");
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    assert!(!message.is_empty(), "{reply:?}");
    match reply.header("retry-after") {
        Some(wait) => {
            assert!(matches!(reply.status, 429 | 503) && wait.parse::<u32>().unwrap() >= 1);
        }
        None => assert!(!matches!(reply.status, 429 | 503), "{reply:?}"),
    }
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code_is_provoked() {
    let mut seen = BTreeSet::new();
    seen.extend(bodies().await);
    seen.extend(queries().await);
    seen.extend(requests().await);
    seen.extend(conflicts().await);
    seen.extend(nodes().await);
    seen.extend(operations().await);
    seen.insert(crowded().await);
    let expected: BTreeSet<_> =
        ErrorCode::ALL.iter().copied().filter(|code| !ELSEWHERE.contains(code)).collect();
    assert_eq!(seen, expected);
}

async fn bodies() -> Vec<ErrorCode> {
    let server = Server::start().await;
    server.session("s").await;
    let mut seen = Vec::new();

    let json_type = [("content-type", "application/json")];
    let reply = server.ask("POST", "/v1/sessions", &json_type, Some(b"{")).await;
    seen.push(is(ErrorCode::InvalidJson, &reply));
    let deep =
        format!("{{\"metadata\":{}{}}}", "{\"a\":".repeat(33), "1".to_owned() + &"}".repeat(33));
    let reply = server.ask("POST", "/v1/sessions", &json_type, Some(deep.as_bytes())).await;
    seen.push(is(ErrorCode::TooDeep, &reply));
    let reply = server.post("/v1/sessions", &json!({"metadata": []})).await;
    seen.push(is(ErrorCode::InvalidMetadata, &reply));
    let reply = server.post("/v1/sessions", &json!({"title": "x".repeat(1_025)})).await;
    is(ErrorCode::InvalidSession, &reply);

    let append = |change: fn(&mut Value)| {
        let mut body = event("p", 1);
        change(&mut body);
        body
    };
    let target = "/v1/sessions/s/append";
    let reply = server.post(target, &append(|body| body["type"] = json!(""))).await;
    seen.push(is(ErrorCode::InvalidEvent, &reply));
    let reply = server.post(target, &append(|body| body["refs"] = json!([]))).await;
    seen.push(is(ErrorCode::InvalidRefs, &reply));
    let reply = server.post(target, &json!({"events": []})).await;
    is(ErrorCode::InvalidEvent, &reply);
    let reply = server.post(target, &json!({"events": [event("p", 1), {"type": 1}]})).await;
    is(ErrorCode::InvalidEvent, &reply);
    assert_eq!(reply.json()["index"], 1);
    seen
}

async fn queries() -> Vec<ErrorCode> {
    let server = Server::start().await;
    server.session("s").await;
    let mut seen = Vec::new();
    let cases = [
        ("/v1/sessions?cursor=", ErrorCode::InvalidCursor),
        ("/v1/sessions?limit=1001", ErrorCode::InvalidLimit),
        ("/v1/sessions?archived=maybe", ErrorCode::InvalidListQuery),
        ("/v1/sessions?metadata[a][b]=c", ErrorCode::InvalidMetadata),
        ("/v1/sessions/s/events?wait_ms=30001", ErrorCode::InvalidWaitMs),
        ("/v1/sessions/s/events?limit=0", ErrorCode::InvalidLimit),
        ("/v1/sessions/s/events?cursor=-1", ErrorCode::InvalidCursor),
        ("/v1/sessions/s/tail?cursor=0", ErrorCode::InvalidWebsocketUpgrade),
        ("/v1/sessions/%00", ErrorCode::InvalidSessionId),
        ("/v1/sessions/%zz", ErrorCode::InvalidSessionId),
        ("/v1/sessions/nobody", ErrorCode::SessionNotFound),
        ("/v1/sessions/nobody/events", ErrorCode::SessionNotFound),
    ];
    for (target, code) in cases {
        seen.push(is(code, &server.get(target).await));
    }
    let upgrades = [
        ("/v1/sessions/s/tail?batch_size=1001", ErrorCode::InvalidTailBatchSize),
        ("/v1/sessions/s/tail?batch_size=0", ErrorCode::InvalidTailBatchSize),
        ("/v1/sessions/s/tail?cursor=x", ErrorCode::InvalidCursor),
        ("/v1/sessions/s/tail?cursor=1&from=latest", ErrorCode::InvalidCursor),
        ("/v1/sessions/s/tail?from=-x", ErrorCode::InvalidCursor),
        ("/v1/sessions/nobody/tail", ErrorCode::SessionNotFound),
    ];
    for (target, code) in upgrades {
        seen.push(is(code, &server.ask("GET", target, &UPGRADE, None).await));
    }
    seen
}

async fn requests() -> Vec<ErrorCode> {
    let server = Server::with(|settings| {
        settings.origins = vec!["https://app.example".to_owned()];
        settings.body_read_ms = 50;
    })
    .await;
    server.session("s").await;
    let mut seen = Vec::new();
    let long = format!("/v1/sessions?x={}", "y".repeat(URI_BYTES_MAX));
    seen.push(is(ErrorCode::UriTooLong, &server.get(&long).await));
    seen.push(is(ErrorCode::NotFound, &server.get("/v2/sessions").await));
    let reply = server.ask("PUT", "/v1/sessions", &[], None).await;
    seen.push(is(ErrorCode::MethodNotAllowed, &reply));
    let allowed: BTreeSet<_> = reply.header("allow").unwrap().split(',').map(str::trim).collect();
    assert_eq!(allowed, BTreeSet::from(["GET", "HEAD", "POST"]));

    let reply = server.ask("GET", "/v1/sessions", &[("accept", "text/html")], None).await;
    seen.push(is(ErrorCode::NotAcceptable, &reply));
    let place = [("x-throughline-namespace", "a/b")];
    let reply = server.ask("GET", "/v1/sessions", &place, None).await;
    seen.push(is(ErrorCode::InvalidNamespace, &reply));
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let headers: Vec<_> = kind.into_iter().map(|kind| ("content-type", kind)).collect();
        let reply = server.ask("POST", "/v1/sessions", &headers, Some(b"{}")).await;
        seen.push(is(ErrorCode::UnsupportedMediaType, &reply));
    }
    let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let reply = server.ask("POST", "/v1/sessions", &packed, Some(b"{}")).await;
    is(ErrorCode::UnsupportedMediaType, &reply);
    assert!(reply.json()["message"].as_str().unwrap().contains("content-encoding"), "{reply:?}");
    let mut headers = UPGRADE.to_vec();
    headers.push(("origin", "https://evil.example"));
    let reply = server.ask("GET", "/v1/sessions/s/tail", &headers, None).await;
    seen.push(is(ErrorCode::ForbiddenOrigin, &reply));

    let mut wire = server.connect().await;
    let head = "POST /v1/sessions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n";
    wire.send(format!("{head}content-length: 10\r\n\r\n{{").as_bytes()).await;
    seen.push(is(ErrorCode::RequestTimeout, &wire.reply("POST").await));
    wire.closed().await;

    let mut wire = server.connect().await;
    wire.send(format!("{head}content-length: 99999999999\r\n\r\n").as_bytes()).await;
    let reply = wire.reply("POST").await;
    seen.push(is(ErrorCode::PayloadTooLarge, &reply));
    assert_eq!(reply.json()["limit"], tl_types::limits::BODY_BYTES_MAX);
    seen
}

async fn conflicts() -> Vec<ErrorCode> {
    let server = Server::start().await;
    server.session("s").await;
    server.append("s", 1).await;
    let mut seen = Vec::new();
    let reply = server.post("/v1/sessions", &json!({"id": "s"})).await;
    seen.push(is(ErrorCode::SessionExists, &reply));

    let target = "/v1/sessions/s/append";
    let mut guarded = event("p", 2);
    guarded["expected_seq"] = json!(7);
    let reply = server.post(target, &guarded).await;
    seen.push(is(ErrorCode::ExpectedSeqConflict, &reply));
    assert_eq!(
        (&reply.json()["expected_seq"], &reply.json()["current_seq"]),
        (&json!(7), &json!(1))
    );
    let reply = server.post(target, &event("p", 5)).await;
    seen.push(is(ErrorCode::ProducerSeqConflict, &reply));
    assert_eq!(reply.json()["expected_producer_seq"], 2);
    let mut other = event("p", 1);
    other["payload"] = json!({"other": true});
    let reply = server.post(target, &other).await;
    seen.push(is(ErrorCode::ProducerReplayConflict, &reply));

    let reply = server.send("PATCH", "/v1/sessions/s", &json!({})).await;
    seen.push(is(ErrorCode::InvalidSession, &reply));
    let change = json!({"title": "t", "expected_version": 9});
    let reply = server.send("PATCH", "/v1/sessions/s", &change).await;
    seen.push(is(ErrorCode::ExpectedVersionConflict, &reply));
    assert_eq!(reply.json()["current_version"], 1);

    assert_eq!(server.ask("POST", "/v1/sessions/s/close", &[], None).await.status, 200);
    seen.push(is(ErrorCode::SessionClosed, &server.post(target, &event("p", 2)).await));
    assert_eq!(server.ask("DELETE", "/v1/sessions/s", &[], None).await.status, 204);
    seen.push(is(ErrorCode::SessionTombstoned, &server.post(target, &event("p", 2)).await));
    for target in ["/v1/sessions/s", "/v1/sessions/s/events"] {
        is(ErrorCode::SessionTombstoned, &server.get(target).await);
    }
    let reply = server.ask("GET", "/v1/sessions/s/tail", &UPGRADE, None).await;
    is(ErrorCode::SessionTombstoned, &reply);
    let reply = server.post("/v1/sessions", &json!({"id": "s"})).await;
    is(ErrorCode::SessionExists, &reply);
    seen
}

/// What a node answers that is full, or has stopped.
/// A body that never ends takes half of the room there is, and one that needs more than the other
/// half is refused; the room comes back when the first client leaves.
async fn crowded() -> ErrorCode {
    const ALL: usize = 16 << 20;
    let server = Server::with(|settings| settings.bodies_bytes_max = ALL as u64).await;
    let mut large = vec![b' '; ALL / 2 + 64 * 1024];
    large.extend_from_slice(b"{}");
    let json_type = [("content-type", "application/json")];
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        ALL / 2
    );
    let (refused, stuck) = soon(async {
        loop {
            // Whichever of the two comes second is refused: try until it is the one asked for.
            let mut stuck = Wire::connect(server.address).await;
            stuck.send(head.as_bytes()).await;
            stuck.send(&large[..256 * 1024]).await;
            let reply = server.ask("POST", "/v1/sessions", &json_type, Some(&large)).await;
            if reply.status != 201 {
                return (reply, stuck);
            }
        }
    })
    .await;
    drop(stuck);
    soon(async {
        while server.ask("POST", "/v1/sessions", &json_type, Some(&large)).await.status != 201 {}
    })
    .await;
    is(ErrorCode::EventStoreBackpressure, &refused)
}

async fn operations() -> Vec<ErrorCode> {
    let server = Server::start().await;
    let mut seen = Vec::new();
    for bad in ["/v1/ops/groups/8", "/v1/ops/groups/x", "/v1/ops/wait-ready?timeout_ms=600001"] {
        seen.push(is(ErrorCode::InvalidOpsRequest, &server.get(bad).await));
    }
    let reply = server.post("/v1/ops/transfer", &json!({"group": 1})).await;
    is(ErrorCode::InvalidOpsRequest, &reply);
    for body in [json!({}), json!({"group": 8}), json!({"group": 1})] {
        // The last one is a group, but a node of its own has nobody to give it rows.
        let reply = server.post("/v1/ops/repair", &body).await;
        is(ErrorCode::InvalidOpsRequest, &reply);
    }
    let reply = server.post("/v1/ops/drain", &json!({"node": "nobody"})).await;
    seen.push(is(ErrorCode::UnknownNode, &reply));
    assert!(reply.json()["message"].as_str().unwrap().contains("there are: "), "{reply:?}");
    let own = server.get("/v1/ops/status").await.json()["node"].clone();
    let reply = server.post("/v1/ops/replace", &json!({"node": own})).await;
    seen.push(is(ErrorCode::MemberPresent, &reply));
    let reply = server.post("/v1/ops/replace", &json!({"node": "nobody", "force": true})).await;
    is(ErrorCode::UnknownNode, &reply);
    let reply = server.post("/v1/ops/raise-level", &json!({})).await;
    seen.push(is(ErrorCode::LevelNotRaised, &reply));
    assert_eq!(reply.json()["feature_level"], 1);
    let reply = server.post("/v1/ops/raise-level", &json!({"to": 2})).await;
    is(ErrorCode::InvalidOpsRequest, &reply);
    let reply = server.get("/v1/ops/wait-drained?timeout_ms=0").await;
    seen.push(is(ErrorCode::WaitTimedOut, &reply));
    assert_eq!(reply.json()["state"], "ready");
    seen
}

async fn nodes() -> Vec<ErrorCode> {
    let mut server = Server::start().await;
    server.session("s").await;
    let mut seen = Vec::new();
    let caller = Caller {
        principal: Principal::open_access(),
        namespace: Namespace::default_namespace(),
        deadline: std::time::Instant::now()
            + std::time::Duration::from_millis(REQUEST_MS_DEFAULT) * 20,
        request_id: None,
    };
    let id = SessionId::new("s").unwrap();
    let mut tails = Vec::with_capacity(TAILS_OPEN_MAX);
    for _ in 0..TAILS_OPEN_MAX - 1 {
        let from = TailFrom::After(Seq(0));
        let tail = server.service().open_tail(&caller, &id, from, Freshness::default()).await;
        tails.push(tail.unwrap());
    }
    let mut last = Socket::open(server.address, "/v1/sessions/s/tail").await;
    let reply = server.ask("GET", "/v1/sessions/s/tail", &UPGRADE, None).await;
    seen.push(is(ErrorCode::TooManyTails, &reply));
    drop(tails);
    let mut again = Socket::open(server.address, "/v1/sessions/s/tail").await;
    server.append("s", 1).await;
    assert_eq!(
        (last.json().await["seq"].as_u64(), again.json().await["seq"].as_u64()),
        (Some(1), Some(1))
    );

    server.end_engine().await;
    // Nobody can say any more what became of a write; a read just was not done.
    let nothing = json!({});
    let (write, read) =
        tokio::join!(server.post("/v1/sessions", &nothing), server.get("/v1/sessions/s"));
    seen.push(is(ErrorCode::RaftTimeout, &write));
    seen.push(is(ErrorCode::RaftUnavailable, &read));
    seen
}
