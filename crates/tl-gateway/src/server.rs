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
use bytes::Bytes;
use tl_engine::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection;
use crate::cors::Origins;
#[cfg(target_os = "linux")]
use crate::hot;
use crate::metrics::Metrics;
use crate::routes;
use crate::settings::{ACCEPT_PAUSE_MS, GatewaySettings};
use crate::shared::{Bodies, Phase, Place, Shared};

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
    entry: Entry,
}

/// Where accepted connections go.
struct Entry {
    shared: Arc<Shared>,
    router: Router,
    /// The front on the driver's thread, if there is one: connections begin there.
    hot: Option<Arc<hot::Inbox>>,
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
            bodies: Bodies::new(settings.bodies_bytes_max),
            pages: Arc::new(Semaphore::new((settings.pages_bytes_max / 1024) as usize)),
            turns: Arc::new(Semaphore::new(settings.requests_max as usize)),
            tails: Arc::new(Semaphore::new(settings.tails_max as usize)),
            profile: Arc::new(Semaphore::new(1)),
            phase: watch::Sender::new(Phase::Running),
            settings,
            service,
            metrics,
        };
        let shared = Arc::new(shared);
        let router = routes::router(&shared);
        let hot = hot_front(&shared, &router).map_err(refused)?;
        Ok(Gateway { listener, address, entry: Entry { shared, router, hot } })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then drains.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Gateway { listener, entry, .. } = self;
        tokio::select! {
            () = accept(&listener, &entry) => unreachable!("accepting never ends"),
            () = shutdown => {}
        }
        drop(listener);
        entry.drain().await
    }
}

/// Puts a front on the driver's thread, if the settings want one.
#[cfg(target_os = "linux")]
fn hot_front(shared: &Arc<Shared>, router: &Router) -> io::Result<Option<Arc<hot::Inbox>>> {
    if !shared.settings.hot_appends {
        return Ok(None);
    }
    let front = hot::HotFront::new(Arc::clone(shared), router.clone())?;
    let inbox = front.inbox();
    shared.service.attach(Box::new(front));
    Ok(Some(inbox))
}

/// Elsewhere all connections take the general way.
#[cfg(not(target_os = "linux"))]
mod hot {
    pub enum Inbox {}
}

#[cfg(not(target_os = "linux"))]
fn hot_front(_: &Arc<Shared>, _: &Router) -> io::Result<Option<Arc<hot::Inbox>>> {
    Ok(None)
}

async fn accept(listener: &TcpListener, entry: &Entry) {
    loop {
        // At the limit new connections wait in the kernel's listen queue.
        let slots = Arc::clone(&entry.shared.slots);
        let slot = slots.acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, caller)) => entry.start(stream, caller, slot),
            Err(error) => {
                // Out of files or a connection that vanished: either passes.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

impl Entry {
    fn start(&self, stream: TcpStream, caller: SocketAddr, slot: OwnedSemaphorePermit) {
        if let Err(error) = connection::tune(&stream, self.shared.settings.unacked_ms) {
            tracing::debug!(%error, "failed to set socket options");
            return;
        }
        let place = Place::new(slot, &self.shared.metrics, caller);
        if let Some((stream, place)) = self.start_hot(stream, place) {
            let (shared, router) = (Arc::clone(&self.shared), self.router.clone());
            tokio::spawn(connection::run(stream, Bytes::new(), place, shared, router));
        }
    }

    /// Gives a connection to the front on the driver's thread; gives it back if there is none.
    #[cfg(target_os = "linux")]
    fn start_hot(&self, stream: TcpStream, place: Place) -> Option<(TcpStream, Place)> {
        let Some(inbox) = &self.hot else { return Some((stream, place)) };
        // Leaving one runtime for the other fails only together with the connection.
        let stream = stream.into_std().ok()?;
        match inbox.send(hot::Mail::Open(stream, place)) {
            Err(hot::Mail::Open(stream, place)) => Some((TcpStream::from_std(stream).ok()?, place)),
            _ => None,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn start_hot(&self, stream: TcpStream, place: Place) -> Option<(TcpStream, Place)> {
        Some((stream, place))
    }

    fn enter(&self, phase: Phase) {
        self.shared.phase.send_replace(phase);
        #[cfg(target_os = "linux")]
        if let Some(inbox) = &self.hot {
            // Without a front there is no connection that could be told.
            drop(inbox.send(hot::Mail::Phase(phase)));
        }
    }

    /// Waits until every connection has given back its slot, or the time is up.
    async fn drain(self) -> Drained {
        let shared = &self.shared;
        let all = shared.settings.connections_max;
        self.enter(Phase::Draining);
        let limit = Duration::from_millis(shared.settings.drain_ms);
        if tokio::time::timeout(limit, shared.slots.acquire_many(all)).await.is_ok() {
            return Drained { cut: 0 };
        }
        let free = u32::try_from(shared.slots.available_permits()).unwrap_or(all);
        self.enter(Phase::Cut);
        // Each connection drops itself when it sees the phase; nothing else can keep it.
        let _all = shared.slots.acquire_many(all).await.expect("never closed");
        Drained { cut: all - free }
    }
}
