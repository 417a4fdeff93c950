//! Pages of the documents are true: errors as a node really answers them, and settings.

use serde_json::{Value, json};
use tl_engine::{ClusterSettings, EngineSettings};
use tl_gateway::GatewaySettings;
use tl_types::ErrorCode;

use crate::server::{Server, event};

/// Pages whose example cannot be sent as it stands: it is too long to print, or the node would
/// have to be full, slow, stopped, broken or a member of a cluster first.
const NOT_SENT: [ErrorCode; 14] = [
    ErrorCode::DiskFull,
    ErrorCode::TooDeep,
    ErrorCode::PayloadTooLarge,
    ErrorCode::UriTooLong,
    ErrorCode::RequestTimeout,
    ErrorCode::TooManyTails,
    ErrorCode::EventStoreBackpressure,
    ErrorCode::InternalError,
    ErrorCode::RaftTimeout,
    ErrorCode::RaftUnavailable,
    ErrorCode::EventGapDetected,
    ErrorCode::OpsNotLocal,
    ErrorCode::MemberPresent,
    ErrorCode::ReplacementUnderWay,
];

/// The example of a page: a request, and the reply that it is said to get.
struct Example {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    reply_status: u16,
    reply_headers: Vec<(String, String)>,
    reply_body: Value,
}

fn block<'a>(page: &'a str, info: &str, nth: usize) -> &'a str {
    let open = format!("```{info}\n");
    let rest = page.split(&open).nth(nth + 1).expect("the page has such a block");
    rest.split("\n```").next().expect("split gives at least one")
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .map(|line| line.split_once(": ").expect("a header"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn example(code: ErrorCode) -> Example {
    let path = format!("{}/../../docs/reference/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let request = block(&page, "http", 0);
    let (head, body) = match request.split_once("\n\n") {
        Some((head, body)) => (head, Some(body.to_owned())),
        None => (request, None),
    };
    let mut line = head.lines().next().unwrap().split(' ');
    let mut reply = block(&page, "http", 1).lines();
    let status = reply.next().unwrap().split(' ').nth(1).unwrap();
    Example {
        method: line.next().unwrap().to_owned(),
        target: line.next().unwrap().to_owned(),
        headers: headers(head.lines().skip(1)),
        body,
        reply_status: status.parse().unwrap(),
        reply_headers: headers(reply),
        reply_body: serde_json::from_str(block(&page, "json", 0)).unwrap(),
    }
}

/// What differs between page and node.
async fn difference(server: &Server, code: ErrorCode) -> Option<String> {
    let page = example(code);
    let headers: Vec<_> = page.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let body = page.body.as_deref().map(str::as_bytes);
    let reply = server.ask(&page.method, &page.target, &headers, body).await;
    let same_headers =
        page.reply_headers.iter().all(|(name, value)| reply.header(name) == Some(value));
    let same = reply.status == page.reply_status && same_headers && reply.json() == page.reply_body;
    (!same).then(|| {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        format!("{code}: {} {:?}\n{text}", reply.status, reply.headers)
    })
}

/// The session of the examples: `chat-42` at seq 7 and version 4, producer `w1` at 2.
async fn prepare(server: &Server) {
    server.session("chat-42").await;
    let target = "/v1/sessions/chat-42/append";
    for n in 1..=2 {
        assert_eq!(server.post(target, &event("w1", n)).await.status, 201);
    }
    for n in 1..=5 {
        server.append("chat-42", n).await;
    }
    for title in ["a", "b", "c"] {
        let reply = server.send("PATCH", "/v1/sessions/chat-42", &json!({"title": title})).await;
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_error_pages_are_what_a_node_answers() {
    let server =
        Server::with(|settings| settings.origins = vec!["https://app.example".to_owned()]).await;
    prepare(&server).await;
    let ended = [ErrorCode::SessionClosed, ErrorCode::SessionTombstoned];
    let mut wrong = Vec::new();
    for &code in ErrorCode::ALL {
        if !NOT_SENT.contains(&code) && !ended.contains(&code) {
            wrong.extend(difference(&server, code).await);
        }
    }
    for (method, target, code) in [
        ("POST", "/v1/sessions/chat-42/close", ErrorCode::SessionClosed),
        ("DELETE", "/v1/sessions/chat-42", ErrorCode::SessionTombstoned),
    ] {
        assert!(server.ask(method, target, &[], None).await.status < 300);
        wrong.extend(difference(&server, code).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_setting_of_node_and_face_is_on_the_settings_page_with_its_default() {
    let path = format!("{}/../../docs/reference/settings.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let sections = [
        ("engine", serde_json::to_value(EngineSettings::default()).unwrap()),
        ("cluster", serde_json::to_value(ClusterSettings::default()).unwrap()),
        ("http", serde_json::to_value(GatewaySettings::default()).unwrap()),
    ];
    let mut rows = 0;
    for (section, settings) in sections {
        for (key, default) in settings.as_object().unwrap() {
            let row = format!("| `{section}.{key}` | `{default}` | ");
            assert!(page.contains(&row), "the page lacks {row}");
            rows += 1;
        }
    }
    let of_a_section = |line: &&str| {
        ["| `engine.", "| `cluster.", "| `http."].iter().any(|start| line.starts_with(start))
    };
    let shown = page.lines().filter(of_a_section);
    assert_eq!(shown.count(), rows, "the page shows settings that do not exist");
}
