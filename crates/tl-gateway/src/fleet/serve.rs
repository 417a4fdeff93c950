//! Connections of a fleet's face: how many, how long they may be silent, and to whom their
//! requests go.
//!
//! ```text
//!   accept ──(room)──> connection ──> door ──┬── shut: live, and why the rest has to wait
//!                                            └── open: the fleet's router
//! ```
//!
//! At the limit new connections wait in the kernel's queue. One that says nothing, or does not
//! read what it is told, is closed, so that it gives its place back.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn;
use axum::routing::get;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use tl_fleet::{FleetService, StoreError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service as _;

use super::problem::Problem;
use super::{classic, envelope, exposition, openapi, router};
use crate::connection::tune;
use crate::held::Held;
use crate::settings::{ACCEPT_PAUSE_MS, CONNECTION_BUFFER_BYTES, HEADER_BYTES_MAX, HEADERS_MAX};
use crate::socket::Socket;

/// How much connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time: more than requests may be worked on, so that whoever asks whether
    /// the pod lives finds room beside them.
    pub connections_max: u32,
    /// Longest time until the head of the next request has come.
    pub head_ms: u64,
    /// Longest time in which a client reads nothing of what waits for it.
    pub stall_ms: u64,
    /// Longest time in which a client's machine confirms nothing that was sent to it.
    pub unacked_ms: u32,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            connections_max: 2_048,
            head_ms: 60_000,
            stall_ms: 10_000,
            unacked_ms: 60_000,
        }
    }
}

/// To whom requests go. While the database has not answered yet there is no fleet to give them
/// to: then the process says that it lives, and why it is not ready.
#[derive(Debug)]
pub struct Door(RwLock<Router>);

impl Door {
    /// With nobody behind it yet.
    #[must_use]
    pub fn shut() -> Arc<Door> {
        Arc::new(Door(RwLock::new(waiting("it is just being opened".to_owned()))))
    }

    /// Says why there is still nobody.
    pub fn waits(&self, error: &StoreError) {
        *self.0.write() = waiting(error.to_string());
    }

    /// From now on requests go to this fleet.
    pub fn open(&self, service: Arc<FleetService>) {
        *self.0.write() = router(service);
    }

    fn router(&self) -> Router {
        self.0.read().clone()
    }
}

fn waiting(why: String) -> Router {
    Router::new()
        .route("/", get(classic::home))
        .route("/health/live", get(classic::live))
        .route("/metrics", get(exposition::nothing))
        .route("/openapi.json", get(openapi::get))
        .fallback(move || std::future::ready(Problem::waits(&why)))
        .layer(from_fn(envelope))
}

/// Serves until told to stop, then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max as usize));
    let draining = watch::Sender::new(false);
    tokio::select! {
        () = accept(&listener, &door, limits, &slots, &draining) => {}
        () = stop => {}
    }
    drop(listener);
    draining.send_replace(true);
    // Each connection gives its place back when it has ended.
    drop(slots.acquire_many(limits.connections_max).await);
}

async fn accept(
    listener: &TcpListener,
    door: &Arc<Door>,
    limits: ConnectionLimits,
    slots: &Arc<Semaphore>,
    draining: &watch::Sender<bool>,
) {
    loop {
        let slot = Arc::clone(slots).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection =
                    connection(stream, Arc::clone(door), limits, draining.subscribe(), slot);
                tokio::spawn(connection);
            }
            Err(error) => {
                // Out of files or a connection that vanished: either passes.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    door: Arc<Door>,
    limits: ConnectionLimits,
    mut draining: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
) {
    let socket = match socket(stream, limits) {
        Ok(socket) => socket,
        Err(error) => return tracing::debug!(%error, "failed to set socket options"),
    };
    let serve = service_fn(move |request: http::Request<Incoming>| {
        let mut router = door.router();
        let request = request.map(Body::new);
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.head_ms))
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(TokioIo::new(socket), serve);
    let mut connection = pin!(connection);
    let mut told = false;
    loop {
        tokio::select! {
            done = connection.as_mut() => {
                // Peers that vanish, stall or send what is not HTTP are everyday life.
                if let Err(error) = done {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            // An error means that the serving itself has gone.
            _ = draining.wait_for(|drains| *drains), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn socket(stream: TcpStream, limits: ConnectionLimits) -> io::Result<Socket> {
    tune(&stream, limits.unacked_ms)?;
    let stall = Duration::from_millis(limits.stall_ms);
    Ok(Socket::new(stream, Bytes::new(), Arc::new(Held::default()), Arc::default(), stall))
}
