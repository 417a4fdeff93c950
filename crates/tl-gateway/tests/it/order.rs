//! An append's reply is on the wire before its event is pushed.

use std::io::ErrorKind;

use crate::http::Wire;
use crate::server::{Server, event};
use crate::websocket::Socket;

const ROUNDS: u64 = 300;

/// On loopback, what `write(2)` has returned for can be read at once. So when the tail's frame
/// has arrived, the reply must be readable without waiting.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_event_arrives_the_reply_has_arrived() {
    let server = Server::start().await;
    server.session("s").await;
    let mut writer = server.connect().await;
    let mut tail = Socket::open(server.address, "/v1/sessions/s/tail").await;
    let mut stream = server.connect().await;
    let accept = [("accept", "text/event-stream")];
    stream.request("GET", "/v1/sessions/s/tail", &accept, None).await;
    assert_eq!(stream.head().await.status, 200);
    for round in 1..=ROUNDS {
        let body = event("p", round).to_string();
        let json = [("content-type", "application/json")];
        writer.request("POST", "/v1/sessions/s/append", &json, Some(body.as_bytes())).await;
        // Readers take turns at being first.
        if round % 2 == 0 {
            assert_eq!(tail.json().await["seq"], round);
            arrived(&writer, round);
            stream.chunk().await;
        } else {
            stream.chunk().await;
            arrived(&writer, round);
            assert_eq!(tail.json().await["seq"], round);
        }
        assert_eq!(writer.reply("POST").await.json()["seq"], round);
    }
}

/// Asks the socket itself, without the runtime's notion of readiness.
fn arrived(writer: &Wire, round: u64) {
    let socket = rustix::net::recv(
        &writer.stream,
        &mut [0_u8; 16][..],
        rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT,
    );
    match socket {
        Ok((bytes, _)) => assert!(bytes > 0, "round {round}: the connection ended"),
        Err(error) => {
            let kind = std::io::Error::from(error).kind();
            assert_ne!(kind, ErrorKind::WouldBlock, "round {round}: the event came first");
        }
    }
}
