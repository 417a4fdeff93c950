//! Writes on their way from one node's driver thread to another's: what is said of them.
//!
//! ```text
//!  front ── offer ──► driver ── question ═══► peer ── if nothing has to be waited for ──► driver
//!    ▲                  ▲                                                                   │
//!    └──── told ────────┴──────────────────── answer ◄══════════════════════════════════════┘
//! ```
//!
//! On this way no task of the runtime is woken: two of them on each node cost more than all that
//! is done with an append. What has to wait for anything (rows on disk, a flush, a leader)
//! takes the way over the runtime, `service::forward`, which also tries again.

use std::time::Instant;

use bytes::Bytes;
use tl_raft::PeerId;
use tl_types::GroupId;
use tokio::sync::OwnedSemaphorePermit;

use super::admission::Permit;

/// A write that has provably no effect yet and may be tried again.
#[derive(Debug)]
pub struct Again {
    pub(crate) group: GroupId,
    pub(crate) deadline: Instant,
    pub(crate) entry: Bytes,
}

/// Another node's write, for the driver.
#[derive(Debug)]
pub struct Served {
    pub(crate) from: PeerId,
    /// The question's.
    pub(crate) id: u64,
    pub(crate) group: GroupId,
    pub(crate) entry: Bytes,
    pub(crate) permit: Permit,
    /// One of the places for what is worked on for others.
    pub(crate) place: OwnedSemaphorePermit,
}
