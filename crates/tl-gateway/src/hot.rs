//! Plain appends, served on the driver's own thread.
//!
//! ```text
//!  accept ─► Inbox ─► HotFront: epoll ─ read ─ head ─ body ─► propose ─► … answer ─► write
//!                        │ anything else: another route, an upgrade, a slow or odd request
//!                        └──────────► the runtime: hyper and the router, with the bytes read so far
//! ```
//!
//! Every connection begins here and stays as long as it sends nothing but plain appends, one
//! after another. The first request that is anything else, or wrong in any way, moves the
//! connection for good to the general way, which answers it from its first byte. So there is one
//! place for every refusal of a request; here only the Service's own answers are told.
//!
//! Invariants:
//!  - H1 one request of a connection is under way at a time; what was sent behind it waits unread
//!    or, as far as it was read with it, in the connection's input.
//!  - H2 nothing here blocks: sockets do not, and what would wait for a disk goes to the runtime.
//!  - H3 a call does a bounded amount of work, and holds a bounded number of bytes: requests are
//!    small here, what is not whole soon is handed on, and what is sent ahead waits in the
//!    sockets when much waits here.
//!  - H4 a request moved on was not begun: moving happens before anything is proposed.

mod connection;
mod front;
mod head;
mod inbox;
mod poll;
mod reply;

pub(crate) use front::HotFront;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use head::{Head, read as read_head};
pub(crate) use inbox::{Inbox, Mail};
