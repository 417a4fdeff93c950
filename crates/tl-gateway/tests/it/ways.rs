//! Appends have two ways through the server: on the driver's own thread, and through hyper and
//! the router. Nobody can tell them apart by what comes back.

use std::fmt::Write;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use tokio::io::AsyncWriteExt;

use crate::http::{Reply, Wire};
use crate::server::{Server, event};

/// Two servers with the same content, one for each way.
struct Ways {
    hot: Server,
    general: Server,
}

impl Ways {
    async fn start() -> Ways {
        let ways = Ways {
            hot: Server::with(|settings| settings.hot_appends = true).await,
            general: Server::with(|settings| settings.hot_appends = false).await,
        };
        for server in [&ways.hot, &ways.general] {
            for id in ["s", "a/b", "closed", "gone"] {
                server.session(id).await;
            }
            server.append("closed", 1).await;
            assert_eq!(server.post("/v1/sessions/closed/close", &json!({})).await.status, 200);
            assert_eq!(server.ask("DELETE", "/v1/sessions/gone", &[], None).await.status, 204);
        }
        ways
    }

    /// Sends the same pieces both ways, and gives what came back, which must be the same.
    async fn talk(&self, pieces: &[&[u8]]) -> Vec<Reply> {
        let hot = talk(&self.hot, pieces).await;
        let general = talk(&self.general, pieces).await;
        let shown: Vec<_> = pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect();
        assert_eq!(comparable(&hot), comparable(&general), "{shown:?}");
        hot
    }

    /// How many appends went over the driver's thread.
    async fn hot_appends(&self) -> u64 {
        let text = String::from_utf8(self.hot.get("/metrics").await.body).unwrap();
        let line = text.lines().find(|line| line.starts_with("throughline_http_hot_appends_total"));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// The last request of a talk: the server closes behind its answer.
const LAST: &str = "GET /health/live HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// Sends the pieces and a last request on one connection and reads to the end.
async fn talk(server: &Server, pieces: &[&[u8]]) -> Vec<Reply> {
    let mut wire = server.connect().await;
    for piece in pieces.iter().copied().chain([LAST.as_bytes()]) {
        // The server may have answered and gone already.
        if wire.stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    wire.closed().await;
    replies(&mut wire)
}

/// The replies in what was read.
fn replies(wire: &mut Wire) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(at) = wire.input.windows(4).position(|part| part == b"\r\n\r\n") {
        let head = String::from_utf8(wire.input.drain(..at + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
        reply.body = wire.input.drain(..length).collect();
        replies.push(reply);
    }
    assert!(wire.input.is_empty(), "{:?}", String::from_utf8_lossy(&wire.input));
    replies
}

fn comparable(replies: &[Reply]) -> String {
    let mut text = String::new();
    for reply in replies {
        let mut headers = reply.headers.clone();
        let mut body = String::from_utf8_lossy(&reply.body);
        let mut own = vec!["date"];
        if body.contains("\"created_at\"") {
            // A damaged path may make a session, whose id and times are the server's own.
            body = "a session".into();
            own.push("x-throughline-index");
        }
        headers.retain(|(name, _)| !own.contains(&name.as_str()));
        headers.sort();
        writeln!(text, "{} {headers:?} {body}", reply.status).unwrap();
        assert_eq!(reply.headers.iter().filter(|(name, _)| name == "date").count(), 1);
    }
    text
}

/// A request for an append as most clients send it.
fn append(id: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/sessions/{id}/append HTTP/1.1\r\nhost: test\r\n\
         content-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn note(producer_seq: u64) -> String {
    event("p", producer_seq).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_the_same_on_both_ways() {
    let ways = Ways::start().await;
    let guarded =
        r#"{"type":"t","payload":{},"producer_id":"p","producer_seq":9,"expected_seq":7}"#;
    let actor = r#"{"type":"t","payload":{},"producer_id":"q","producer_seq":1,"actor":"nobody"}"#;
    let batch = json!({"events": [event("b", 1), event("b", 2)]}).to_string();
    let large = |bytes: usize| {
        let text = "x".repeat(bytes);
        json!({"type": "t", "payload": {"text": text}, "producer_id": "l", "producer_seq": 1})
            .to_string()
    };
    let lines = append("s", "", &format!("{}\n{}\n", event("n", 1), event("n", 2)))
        .replace("application/json", "application/x-ndjson");
    let chunked = "POST /v1/sessions/s/append HTTP/1.1\r\nhost: test\r\n\
                   content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let requests = [
        append("s", "", &note(1)),
        append("s", "", &note(1)),
        append("s", "accept: application/json, */*\r\nuser-agent: x\r\n", &note(2)),
        append("s", "", &note(2).replace("note", "other")),
        append("s", "", &note(9)),
        append("s", "", guarded),
        append("s?expected_seq=7", "", &note(3))
            .replace("s?expected_seq=7/append", "s/append?expected_seq=7"),
        append("s", "", &batch),
        append("s", "", &batch),
        lines,
        append("a%2Fb", "", &note(1)),
        append("unknown", "", &note(1)),
        append("closed", "", &note(2)),
        append("gone", "", &note(1)),
        append("s", "x-throughline-namespace: default\r\n", &note(3)),
        append("s", "x-throughline-namespace: elsewhere\r\n", &note(3)),
        append("s", "x-throughline-namespace: not a name\r\n", &note(3)),
        append("%00", "", &note(1)),
        append(&"x".repeat(300), "", &note(1)),
        append("s", "", "{"),
        append("s", "", "[]"),
        append("s", "", "{}"),
        append("s", "", ""),
        append("s", "", actor),
        append("s", "", &note(4).replace("note", &"n".repeat(300))),
        append("s", "accept: text/html\r\n", &note(4)),
        append("s", "content-encoding: gzip\r\n", &note(4)),
        append("s", "origin: https://a.example\r\n", &note(4)),
        append("s", "connection: close\r\n", &note(5)),
        append("s", "", &note(6)).replace("HTTP/1.1", "HTTP/1.0"),
        append("s", "", &note(6)).replace("application/json", "text/plain"),
        append("s", "", &note(6)).replace("content-type", "content-kind"),
        append("s", "", &large(100_000)),
        append("s", "", &large(400_000)),
        append("s", "", &large(2_000_000)),
        chunked.to_owned(),
        "POST /v1/sessions/s/append HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        "POST /v1/sessions/s/append HTTP/1.1\r\ncontent-length: x\r\n\r\n".to_owned(),
        "POST /v1/sessions//append HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "\r\n".to_owned() + &append("s", "", &note(7)),
        "nonsense\r\n\r\n".to_owned(),
    ];
    let mut statuses = Vec::new();
    for request in &requests {
        let replies = ways.talk(&[request.as_bytes()]).await;
        statuses.extend(replies.iter().map(|reply| reply.status));
    }
    for status in [201, 400, 404, 406, 409, 410, 413, 415] {
        assert!(statuses.contains(&status), "no {status} in {statuses:?}");
    }
    assert!(ways.hot_appends().await >= 15, "plain appends took the driver's thread");
    let text = String::from_utf8(ways.general.get("/metrics").await.body).unwrap();
    assert!(text.contains("throughline_http_hot_appends_total 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_may_change_its_way_and_send_ahead() {
    let ways = Ways::start().await;
    // Pages without events: times differ between servers.
    let page = |cursor: u64| {
        format!("GET /v1/sessions/s/events?cursor={cursor} HTTP/1.1\r\nhost: test\r\n\r\n")
    };
    let ahead: String = (1..=20).map(|n| append("s", "", &note(n))).collect();
    let mixed = format!("{ahead}{}{}{}", page(20), append("s", "", &note(21)), page(21));
    let replies = ways.talk(&[mixed.as_bytes()]).await;
    assert_eq!(replies.len(), 24);
    assert_eq!(replies[20].json()["last_seq"], 20);
    assert_eq!(replies[22].json()["last_seq"], 21);
    // Cut anywhere, the same comes back.
    let two = format!("{}{}", append("s", "", &note(22)), append("s", "", &note(23)));
    for at in (1..two.len()).step_by(7) {
        let (one, rest) = two.as_bytes().split_at(at);
        let replies = ways.talk(&[one, rest]).await;
        assert_eq!(replies.len(), 3, "cut at {at}");
    }
    let single: Vec<&[u8]> = two.as_bytes().chunks(1).collect();
    assert_eq!(ways.talk(&single).await.len(), 3);
    // A client that leaves in the middle leaves nothing behind.
    let unfinished = append("s", "", &note(24));
    for server in [&ways.hot, &ways.general] {
        for at in [1, 20, 100, unfinished.len() - 1] {
            server.connect().await.send(&unfinished.as_bytes()[..at]).await;
        }
        assert_eq!(server.get("/v1/sessions/s/events?cursor=20").await.json()["last_seq"], 23);
    }
}

/// Requests that are a little wrong, each sent both ways.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_requests_are_answered_the_same_on_both_ways() {
    const CASES: u32 = 300;
    let ways = Ways::start().await;
    let text = append("s", "accept: */*\r\n", &note(1));
    let change = prop_oneof![
        Just(b' '),
        Just(b'\r'),
        Just(b'\n'),
        Just(b':'),
        Just(b'"'),
        Just(b'{'),
        Just(b'0'),
        Just(b'?'),
        Just(b'%'),
        Just(b'/'),
        any::<u8>(),
    ];
    // A length that promises more than is sent would only be waited for.
    let length = text.find("content-length: ").unwrap() + "content-length:".len();
    let place =
        (0..text.len()).prop_filter("the length", move |at| !(length..length + 5).contains(at));
    let changes = prop::collection::vec((place, change, any::<bool>()), 1..3);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        runner.run(&changes, |mut changes| {
            // From the end on: an insertion moves only what was changed already.
            changes.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
            let mut bytes = text.clone().into_bytes();
            for (at, byte, replace) in changes {
                if replace {
                    bytes[at] = byte;
                } else {
                    bytes.insert(at, byte);
                }
            }
            handle.block_on(ways.talk(&[&bytes]));
            Ok(())
        })
    })
    .unwrap();
}
