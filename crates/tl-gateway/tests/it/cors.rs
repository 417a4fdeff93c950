//! Browsers: preflights, origins, exposed headers.

use crate::server::Server;
use crate::websocket::{Socket, UPGRADE};

#[tokio::test(flavor = "multi_thread")]
async fn every_origin_may_call_unless_the_settings_name_some() {
    let server = Server::start().await;
    server.session("s").await;
    let origin = [("origin", "https://any.example")];
    for target in ["/v1/sessions/s", "/v1/sessions/nobody", "/nowhere"] {
        let reply = server.ask("GET", target, &origin, None).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.header("access-control-expose-headers"), Some("*"));
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
    assert_eq!(server.get("/v1/sessions").await.header("access-control-allow-origin"), None);
    let asked = [origin[0], ("access-control-request-method", "PATCH")];
    let mut wire = server.connect().await;
    wire.request("OPTIONS", "/v1/sessions/s", &asked, None).await;
    let reply = wire.reply("OPTIONS").await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("access-control-allow-methods").unwrap().contains("PATCH"));
    assert!(reply.header("access-control-allow-headers").unwrap().starts_with('*'));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    // Without a preflight's headers, OPTIONS is a method like any other.
    let reply = server.ask("OPTIONS", "/v1/sessions/s", &[], None).await;
    assert_eq!(reply.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn named_origins_alone_may_read_replies_and_upgrade() {
    let server =
        Server::with(|settings| settings.origins = vec!["https://app.example".to_owned()]).await;
    server.session("s").await;
    let (good, bad) = ([("origin", "https://app.example")], [("origin", "https://evil.example")]);
    let reply = server.ask("GET", "/v1/sessions/s", &good, None).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(reply.header("vary"), Some("origin"));
    let reply = server.ask("GET", "/v1/sessions/s", &bad, None).await;
    assert_eq!(reply.status, 200, "a browser keeps the reply from the page by itself");
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(reply.header("vary"), Some("origin"));

    let upgrade = |origin| [&UPGRADE[..], origin].concat();
    let reply = server.ask("GET", "/v1/sessions/s/tail", &upgrade(&bad), None).await;
    assert_eq!(reply.error(), "forbidden_origin");
    let mut wire = server.connect().await;
    wire.request("GET", "/v1/sessions/s/tail", &upgrade(&good), None).await;
    assert_eq!(wire.reply("GET").await.status, 101);
    // A program that is not a browser sends no origin.
    Socket::open(server.address, "/v1/sessions/s/tail").await;
}
