//! What every connection and endpoint of one gateway shares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tl_engine::service::Service;
use tl_types::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::cors::Origins;
use crate::held::Held;
use crate::metrics::{Front, Metrics, Open};
use crate::problem::Problem;
use crate::room::Room;
use crate::settings::{GatewaySettings, PAGE_ROOM_BYTES, SMALL_BODIES_DIVISOR, SMALL_BODY_BYTES};
use crate::socket::Unread;

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
    pub bodies: Bodies,
    /// KiB that pages may take together.
    pub pages: Arc<Semaphore>,
    /// One per request that may be worked on.
    pub turns: Arc<Semaphore>,
    /// One per tail that may be open.
    pub tails: Arc<Semaphore>,
    /// The one profile that may be taken at a time.
    pub profile: Arc<Semaphore>,
    /// Told to every connection and tail.
    pub phase: watch::Sender<Phase>,
}

impl Shared {
    /// A place among the requests that are worked on.
    ///
    /// # Errors
    /// `event_store_backpressure` when there are as many as there may be.
    pub fn turn(&self) -> Result<Turn, Problem> {
        Arc::clone(&self.turns).try_acquire_owned().map(Turn).map_err(|_| {
            let limit = self.settings.requests_max;
            Problem::new(
                ErrorCode::EventStoreBackpressure,
                format!(
                    "This node works on {limit} requests, as many as it may; repeat the request \
                     after the wait"
                ),
            )
            .fact("limit", limit.into())
        })
    }

    /// A place among the open tails.
    ///
    /// # Errors
    /// `too_many_tails` when there are as many as there may be.
    pub fn tail(&self, front: Front) -> Result<TailPlace, Problem> {
        let Ok(permit) = Arc::clone(&self.tails).try_acquire_owned() else {
            let limit = self.settings.tails_max;
            let message = format!("This node has {limit} open tails, as many as it may have");
            return Err(Problem::new(ErrorCode::TooManyTails, message).fact("limit", limit.into()));
        };
        Ok(TailPlace { permit, open: self.metrics.tail(front) })
    }

    /// Tells the metrics what requests hold of the memory that they share.
    pub fn say_budgets(&self) {
        let kib = [
            ("bodies", self.bodies.free_kib(), self.settings.bodies_bytes_max),
            ("pages", self.pages.available_permits(), self.settings.pages_bytes_max),
        ];
        for (budget, free_kib, all) in kib {
            let used = all.saturating_sub(free_kib as u64 * 1024);
            self.service.say_budget(budget, used, Some(all));
        }
    }

    /// Room for one page, waited for until the deadline.
    ///
    /// # Errors
    /// `event_store_backpressure` when other pages do not make room in time.
    pub async fn page_room(&self, deadline: Instant) -> Result<Room, Problem> {
        let mut room = Room::new(Arc::clone(&self.pages));
        if room.wait(PAGE_ROOM_BYTES, deadline).await {
            return Ok(room);
        }
        Err(Problem::new(
            ErrorCode::EventStoreBackpressure,
            "This node holds as many pages for readers as it may; repeat the request after the wait",
        ))
    }

    /// Waits until the server begins to stop.
    pub async fn draining(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await.map(drop);
    }
}

/// Room for request bodies. Small ones have a part of their own, which large ones that come slowly
/// cannot take from them.
#[derive(Debug)]
pub struct Bodies {
    small: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Bodies {
    /// Room for so many bytes in all.
    pub fn new(bytes_max: u64) -> Bodies {
        let small_kib = (bytes_max / SMALL_BODIES_DIVISOR / 1024) as usize;
        let others_kib = (bytes_max / 1024) as usize - small_kib;
        let semaphore = |kib| Arc::new(Semaphore::new(kib));
        Bodies { small: semaphore(small_kib), others: semaphore(others_kib) }
    }

    /// Where a body of at most so many bytes finds its room; `None` when it did not say.
    pub fn room(&self, bytes_max: Option<u64>) -> Room {
        // Small ones that find their own part full share with the others.
        let free = self.small.available_permits() as u64 * 1024;
        let is_small = bytes_max.is_some_and(|bytes| bytes <= SMALL_BODY_BYTES.min(free));
        Room::new(Arc::clone(if is_small { &self.small } else { &self.others }))
    }

    fn free_kib(&self) -> usize {
        self.small.available_permits() + self.others.available_permits()
    }
}

/// What a request knows of the connection it came on.
#[derive(Clone)]
pub struct Link {
    /// Replies whose bytes are not written yet.
    pub held: Arc<Held>,
    /// Whether a body was left unread.
    pub unread: Arc<Unread>,
    /// Kept by whatever uses the connection, also by an upgraded tail.
    pub place: Arc<Place>,
}

/// A place among the requests that are worked on, given back when dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// The place of one open tail, given back when dropped.
#[derive(Debug)]
pub struct TailPlace {
    /// One of the limit.
    #[expect(dead_code, reason = "held, not read")]
    permit: OwnedSemaphorePermit,
    /// One in the metrics.
    #[expect(dead_code, reason = "held, not read")]
    open: Open,
}

/// The place of one open connection, given back when dropped.
pub struct Place {
    /// One of the limit.
    #[expect(dead_code, reason = "held, not read")]
    pub slot: OwnedSemaphorePermit,
    /// One in the metrics.
    #[expect(dead_code, reason = "held, not read")]
    pub open: Open,
    /// Whether whoever called is on this computer.
    pub is_local: bool,
}

impl Place {
    /// Takes a slot's place in the metrics.
    pub fn new(slot: OwnedSemaphorePermit, metrics: &Metrics, caller: SocketAddr) -> Place {
        let is_local = caller.ip().to_canonical().is_loopback();
        Place { slot, open: metrics.connection(), is_local }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_leave_small_ones_their_room() {
        let bodies = Bodies::new(16 << 20);
        let mut large = bodies.room(Some(SMALL_BODY_BYTES + 1));
        assert!(large.grow(12 << 20), "all that is not for small ones");
        assert!(!bodies.room(None).grow(1), "one that does not say may be large");
        let mut small = bodies.room(Some(SMALL_BODY_BYTES));
        assert!(small.grow(4 << 20) && !small.grow((4 << 20) + 1));
        assert_eq!(bodies.free_kib(), 0);
        drop(large);
        assert!(bodies.room(Some(SMALL_BODY_BYTES)).grow(12 << 20), "they share what is free");
    }
}
