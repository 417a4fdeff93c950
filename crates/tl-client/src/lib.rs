//! The Rust client: sessions, append with a producer position, tails that resume by
//! themselves, and the one checker of what was acknowledged against what can be read.
//!
//! ```text
//!  Producer ── append, retry the identical body ──┐
//!  Tail ────── replay, live, resume from cursor ──┼── Client ── HTTP/1.1, WebSocket ── node
//!  workload ── many producers, a ledger of acks ──┘
//!  verify ──── ledger + readings → report
//! ```
//!
//! Absent on purpose: TLS and tokens (they come with access control), caching, and any retry of
//! a write that carries neither a producer position nor an `Idempotency-Key`.

pub mod client;
pub mod content;
pub mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod producer;
pub mod retry;
pub mod session;
pub mod tail;
pub mod verify;
pub mod workload;

pub use client::{Client, ClientOptions, EventPage, WRITE_RETRY_MAX};
pub use content::{ContentHash, NewEvent};
pub use error::{ClientError, Refusal};
pub use event::{Event, EventFields};
pub use producer::{Appended, BatchAppended, BatchEncoding, Producer};
pub use retry::{Backoff, RetryPolicy};
pub use session::{CreateSession, ListQuery, PatchSession, Session, SessionPage};
pub use tail::{EndReason, Front, Gap, Tail, TailItem, TailOptions};
