//! Accepting connections, draining, stopping.
//!
//! ```text
//!  Running ──shutdown──► Draining ──drain_ms──► Cut
//!            no accept     │ open requests finish, tails end with a resumable close
//!                          └──► all connections gone: done early
//! ```

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tl_engine::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection;
use crate::cors::Origins;
use crate::metrics::Metrics;
use crate::routes;
use crate::settings::{ACCEPT_PAUSE_MS, GatewaySettings};
use crate::shared::{Phase, Shared};

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Correct the settings; each line names a key and its range.
    #[error("bad http settings: {}", errors.join("; "))]
    Settings {
        /// A sentence per bad value.
        errors: Vec<String>,
    },
    /// Choose another address, or end what holds it.
    #[error("failed to listen on {listen}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that did not finish in time and were dropped.
    pub cut: u32,
}

/// A listening HTTP face.
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Checks the settings and starts to listen. Connections wait until [`Gateway::serve`].
    ///
    /// # Errors
    /// [`GatewayError`] when a setting is out of range or the address cannot be had.
    pub async fn bind(
        settings: GatewaySettings,
        service: Service,
    ) -> Result<Gateway, GatewayError> {
        settings.check().map_err(|errors| GatewayError::Settings { errors })?;
        let listen = settings.listen;
        let refused = |source| GatewayError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let metrics = Metrics::new();
        service.register_metrics(|registry| metrics.register(registry));
        let shared = Shared {
            origins: Origins::new(&settings.origins),
            slots: Arc::new(Semaphore::new(settings.connections_max as usize)),
            bodies: Arc::new(Semaphore::new((settings.bodies_bytes_max / 1024) as usize)),
            pages: Arc::new(Semaphore::new((settings.pages_bytes_max / 1024) as usize)),
            turns: Arc::new(Semaphore::new(settings.requests_max as usize)),
            tails: Arc::new(Semaphore::new(settings.tails_max as usize)),
            phase: watch::Sender::new(Phase::Running),
            settings,
            service,
            metrics,
        };
        Ok(Gateway { listener, address, shared: Arc::new(shared) })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then drains.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Gateway { listener, shared, .. } = self;
        let router = routes::router(&shared);
        tokio::select! {
            () = accept(&listener, &shared, &router) => unreachable!("accepting never ends"),
            () = shutdown => {}
        }
        drop(listener);
        drain(&shared).await
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, router: &Router) {
    loop {
        // At the limit new connections wait in the kernel's listen queue.
        let slot = Arc::clone(&shared.slots).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => start(stream, slot, shared, router),
            Err(error) => {
                // Out of files or a connection that vanished: either passes.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

fn start(stream: TcpStream, slot: OwnedSemaphorePermit, shared: &Arc<Shared>, router: &Router) {
    tokio::spawn(connection::run(stream, slot, Arc::clone(shared), router.clone()));
}

/// Waits until every connection has given back its slot, or the time is up.
async fn drain(shared: &Arc<Shared>) -> Drained {
    let all = shared.settings.connections_max;
    shared.phase.send_replace(Phase::Draining);
    let limit = Duration::from_millis(shared.settings.drain_ms);
    if tokio::time::timeout(limit, shared.slots.acquire_many(all)).await.is_ok() {
        return Drained { cut: 0 };
    }
    let free = u32::try_from(shared.slots.available_permits()).unwrap_or(all);
    shared.phase.send_replace(Phase::Cut);
    // Each connection drops itself when it sees the phase; nothing else can keep it.
    let _all = shared.slots.acquire_many(all).await.expect("never closed");
    Drained { cut: all - free }
}
