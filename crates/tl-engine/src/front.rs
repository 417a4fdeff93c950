//! A face that lives on the driver's thread.
//!
//! Most fronts run on the runtime and reach the driver through its mailbox: two hand-overs per
//! request. One front may sit on the driver's own thread instead: it waits for sockets in place of
//! the driver, reads requests right before a turn, and writes replies right behind it.
//!
//! ```text
//!  Front::poll ──offers──► Node::turn ──answers──► Front::answer ──► tails are woken
//!      ▲  (epoll: sockets, and the mailbox by its waker)                  │
//!      └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What such a front does holds up the whole node: it never blocks, never waits for a disk, and
//! does a bounded amount of work per call. Whatever needs more goes to the runtime.

use std::time::Duration;

use crate::api::ServiceError;
pub use crate::service::{Later, Prepared, Proposal};
pub use crate::shell::answers::Answer;
pub use crate::shell::mailbox::Waker;
pub use crate::shell::relay::Again;

/// A front's own name for a request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request that is ready to be proposed.
#[derive(Debug)]
pub struct Offer {
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// What to propose.
    pub proposal: Proposal,
}

/// What became of an offer.
#[derive(Debug)]
pub enum Told {
    /// It was proposed.
    Answer(Answer),
    /// The node that leads its group has refused it; it has no effect.
    Refused(ServiceError),
    /// It has no effect, and [`Service::append_again`](crate::Service::append_again) tries again.
    Again(Box<Again>),
}

/// A face on the driver's thread. Dropped there when the node ends: what is still under way then
/// has an unknown outcome.
pub trait Front: Send {
    /// How to end a wait in [`Front::poll`] from another thread. Asked once.
    fn waker(&self) -> Waker;

    /// Waits at most `patience` for something to do, then does it. What is to be proposed is
    /// added to `offers`; each is answered once, unless the node ends.
    fn poll(&mut self, patience: Duration, offers: &mut Vec<Offer>);

    /// Writes the answer to one offer. Its events are shown to tails right afterwards, so the
    /// reply's bytes are with the socket, or queued in front of it, when this returns.
    fn answer(&mut self, ticket: Ticket, told: Told);
}
