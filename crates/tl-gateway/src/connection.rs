//! One connection: hyper's HTTP/1 over our socket, until the peer leaves or the server stops.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::Service as _;

use crate::held::Held;
use crate::settings::{CONNECTION_BUFFER_BYTES, HEADER_BYTES_MAX, HEADERS_MAX};
use crate::shared::{Link, Phase, Place, Shared};
use crate::socket::{Socket, Unread};

/// Serves one connection to its end. `begun` was read from it already.
pub async fn run(
    stream: TcpStream,
    begun: Bytes,
    place: Place,
    shared: Arc<Shared>,
    router: Router,
) {
    let held = Arc::new(Held::default());
    let stall = Duration::from_millis(shared.settings.write_stall_ms);
    let unread = Arc::new(Unread::default());
    let socket = Socket::new(stream, begun, Arc::clone(&held), Arc::clone(&unread), stall);
    let link = Link { held, unread, place: Arc::new(place) };
    let mut phase = shared.phase.subscribe();

    let serve = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(link.clone());
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(shared.settings.head_read_ms))
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(TokioIo::new(socket), serve)
        .with_upgrades();
    let mut connection = pin!(connection);
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Running => {}
            Phase::Draining => connection.as_mut().graceful_shutdown(),
            Phase::Cut => return,
        }
        tokio::select! {
            done = connection.as_mut() => {
                // Peers that vanish, stall or send what is not HTTP are everyday life.
                if let Err(error) = done {
                    tracing::debug!(%error, "a connection ended early");
                    if stalled(&error) {
                        shared.metrics.slow_reader();
                    }
                }
                return;
            }
            _ = phase.changed() => {}
        }
    }
}

/// Whether the socket's stall limit ended the connection.
fn stalled(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// Sets what every connection needs.
pub fn tune(stream: &TcpStream, unacked_ms: u32) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A tail writes little, so a peer that vanished would otherwise stay for a quarter of an hour.
    rustix::net::sockopt::set_tcp_user_timeout(stream, unacked_ms)?;
    Ok(())
}
