//! Lists: paging, filters, archived.

use serde_json::{Value, json};

use crate::server::Server;

fn ids(page: &Value) -> Vec<String> {
    let rows = page["sessions"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_to_the_whole_list_in_order_of_id() {
    let server = Server::start().await;
    for n in (0..25).rev() {
        server.session(&format!("s{n:02}")).await;
    }
    let (mut all, mut target) = (Vec::new(), "/v1/sessions?limit=7".to_owned());
    loop {
        let page = server.get(&target).await.json();
        let part = ids(&page);
        assert!(part.len() <= 7);
        all.extend(part);
        match page["next_cursor"].as_str() {
            Some(cursor) => target = format!("/v1/sessions?limit=7&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(all, (0..25).map(|n| format!("s{n:02}")).collect::<Vec<_>>());
    assert_eq!(ids(&server.get("/v1/sessions?limit=1000").await.json()).len(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_the_archived_flag_choose_rows() {
    let server = Server::start().await;
    for (id, metadata) in [
        ("a", json!({"kind": "x y", "n": "1"})),
        ("b", json!({"kind": "x y", "n": "2"})),
        ("c", json!({"kind": 5})),
    ] {
        let reply = server.post("/v1/sessions", &json!({"id": id, "metadata": metadata})).await;
        assert_eq!(reply.status, 201);
    }
    server.ask("POST", "/v1/sessions/b/archive", &[], None).await;
    let cases = [
        ("", vec!["a", "c"]),
        ("archived=true", vec!["b"]),
        ("archived=all", vec!["a", "b", "c"]),
        ("metadata.kind=x+y", vec!["a"]),
        ("metadata%5Bkind%5D=x%20y&archived=all", vec!["a", "b"]),
        ("metadata.kind=x+y&metadata.n=2&archived=all", vec!["b"]),
        ("metadata.n=1&metadata.n=2&archived=all", vec!["b"]),
        ("metadata.kind=5", vec![]),
        ("unknown=1&consistent=true", vec!["a", "c"]),
    ];
    for (query, expected) in cases {
        let page = server.get(&format!("/v1/sessions?{query}")).await.json();
        assert_eq!(ids(&page), expected, "{query}");
    }
}
