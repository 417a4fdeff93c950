//! What every connection and endpoint of one gateway shares.

use std::sync::Arc;

use tl_engine::service::Service;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::cors::Origins;
use crate::held::Held;
use crate::metrics::{Metrics, Open};
use crate::settings::GatewaySettings;

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new requests: open ones finish, tails end with a resumable close.
    Draining,
    /// Time is up: connections are dropped.
    Cut,
}

/// One gateway's state.
pub struct Shared {
    /// Checked settings.
    pub settings: GatewaySettings,
    /// What answers.
    pub service: Service,
    /// Who may call from a browser.
    pub origins: Origins,
    /// Counters of this face.
    pub metrics: Metrics,
    /// One per connection that may be open.
    pub slots: Arc<Semaphore>,
    /// KiB that request bodies may take together.
    pub bodies: Arc<Semaphore>,
    /// Told to every connection and tail.
    pub phase: watch::Sender<Phase>,
}

impl Shared {
    /// Waits until the server begins to stop.
    pub async fn draining(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await.map(drop);
    }
}

/// What a request knows of the connection it came on.
#[derive(Clone)]
pub struct Link {
    /// Replies whose bytes are not written yet.
    pub held: Arc<Held>,
    /// Kept by whatever uses the connection, also by an upgraded tail.
    pub place: Arc<Place>,
}

/// The place of one open connection, given back when dropped.
pub struct Place {
    /// One of the limit.
    #[expect(dead_code, reason = "held, not read")]
    pub slot: OwnedSemaphorePermit,
    /// One in the metrics.
    #[expect(dead_code, reason = "held, not read")]
    pub open: Open,
}
