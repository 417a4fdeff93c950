//! All fronts deliver every event exactly once, in order, across replay and live.

use serde_json::Value;

use crate::http::Wire;
use crate::server::{Server, event};
use crate::websocket::Socket;

const BEFORE: u64 = 300;
const ALL: u64 = 900;

/// A writer that appends while readers open at different moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replay_and_live_are_one_sequence_on_every_front() {
    let server = Server::start().await;
    server.session("s").await;
    let mut writer = server.connect().await;
    for n in 1..=BEFORE {
        write(&mut writer, n).await;
    }
    let address = server.address;
    let mut readers = tokio::task::JoinSet::new();
    for cursor in [0, 1, BEFORE - 1, BEFORE, BEFORE + 50] {
        for batch in [1, 7, 1000] {
            readers.spawn(async move {
                let target = format!("/v1/sessions/s/tail?cursor={cursor}&batch_size={batch}");
                (cursor, by_websocket(Socket::open(address, &target).await, batch).await)
            });
        }
        readers.spawn(async move {
            (cursor, by_event_stream(Wire::connect(address).await, cursor).await)
        });
        readers
            .spawn(async move { (cursor, by_polling(Wire::connect(address).await, cursor).await) });
    }
    for n in BEFORE + 1..=ALL {
        write(&mut writer, n).await;
    }
    while let Some(done) = readers.join_next().await {
        let (cursor, events) = done.unwrap();
        let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        let first = seqs[0];
        assert!(first == cursor + 1, "{first} after {cursor}");
        assert_eq!(seqs, (first..=ALL).collect::<Vec<_>>());
        for event in &events {
            assert_eq!(event["payload"]["n"], event["seq"]);
        }
    }
}

async fn write(writer: &mut Wire, n: u64) {
    let body = event("p", n).to_string();
    let json = [("content-type", "application/json")];
    writer.request("POST", "/v1/sessions/s/append", &json, Some(body.as_bytes())).await;
    assert_eq!(writer.reply("POST").await.json()["seq"], n);
}

fn complete(events: &[Value]) -> bool {
    events.last().is_some_and(|event| event["seq"] == ALL)
}

async fn by_websocket(mut socket: Socket, batch: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while !complete(&events) {
        match socket.json().await {
            Value::Array(frame) => {
                assert!(batch > 1 && !frame.is_empty() && frame.len() <= batch);
                events.extend(frame);
            }
            event => {
                assert_eq!(batch, 1, "one event per frame only when asked");
                events.push(event);
            }
        }
    }
    events
}

async fn by_event_stream(mut wire: Wire, cursor: u64) -> Vec<Value> {
    let target = format!("/v1/sessions/s/tail?cursor={cursor}");
    // A cursor ahead of the session is a gap on this front; it waits until it is none.
    while cursor > 0 && head_of(&mut wire).await < cursor {}
    wire.request("GET", &target, &[("accept", "text/event-stream")], None).await;
    assert_eq!(wire.head().await.status, 200);
    let (mut text, mut events) = (String::new(), Vec::new());
    while !complete(&events) {
        text.push_str(&String::from_utf8(wire.chunk().await).unwrap());
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            if block.starts_with(':') {
                continue;
            }
            let id_first = block.strip_prefix("id: ").and_then(|rest| rest.split_once('\n'));
            let (id, rest) = id_first.unwrap_or_else(|| panic!("from {cursor}: {block}"));
            let json = rest.strip_prefix("event: event\ndata: ");
            let json = json.unwrap_or_else(|| panic!("from {cursor}: {block}")).trim_end();
            let event: Value = serde_json::from_str(json).unwrap();
            assert_eq!(event["seq"].to_string(), id);
            events.push(event);
        }
    }
    events
}

async fn head_of(wire: &mut Wire) -> u64 {
    wire.request("GET", "/v1/sessions/s", &[], None).await;
    let reply = wire.reply("GET").await;
    reply.json()["last_seq"].as_u64().unwrap_or_else(|| panic!("{reply:?}"))
}

async fn by_polling(mut wire: Wire, mut cursor: u64) -> Vec<Value> {
    let mut events = Vec::new();
    while !complete(&events) {
        let target = format!("/v1/sessions/s/events?cursor={cursor}&limit=50&wait_ms=30000");
        wire.request("GET", &target, &[], None).await;
        let page = wire.reply("GET").await.json();
        cursor = page["next_cursor"].as_u64().unwrap();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_may_start_at_the_end_or_some_events_before_it() {
    let server = Server::start().await;
    server.session("s").await;
    for n in 1..=4 {
        server.append("s", n).await;
    }
    let open = async |query: &str| {
        Socket::open(server.address, &format!("/v1/sessions/s/tail?{query}")).await
    };
    let cases = [
        ("from=earliest", 1),
        ("from=-2", 3),
        ("from=-99", 1),
        ("from=latest", 5),
        ("cursor=4", 5),
    ];
    let mut tails = Vec::new();
    for (query, first) in cases {
        tails.push((open(query).await, query, first));
    }
    let mut ahead = open("cursor=6").await;
    for n in 5..=7 {
        server.append("s", n).await;
    }
    for (mut tail, query, first) in tails {
        assert_eq!(tail.json().await["seq"], first, "{query}");
    }
    assert_eq!(ahead.json().await["seq"], 7, "silent until its cursor is passed");
}
