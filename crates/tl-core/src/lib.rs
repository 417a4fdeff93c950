//! The rules: deterministic state machines over an ordered key space.
//!
//! ```text
//! log entry ──> group::apply(rows, index, entry) ──> Outcome { replies, effects, writes }
//!                    │ reads and writes through View, one overlay per entry
//!                    └─ session rules; one entry is all or nothing
//! ```
//!
//! The same rows and the same entry give the same outcome on every replica. Reads
//! ([`session`], [`list`]) are functions of the same rows.
//!
//! Absent on purpose: clocks, randomness, I/O, `async`, threads, logging, access control (the
//! edge has decided it), and Raft.

pub mod clock;
pub mod effect;
pub mod entry;
pub mod fleet;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod group;
pub mod invariants;
pub mod list;
pub mod memory;
pub mod metadata;
pub mod prefetch;
pub mod reply;
pub mod rows;
pub mod session;
pub mod text;
pub mod view;

pub use effect::{Change, Effect};
pub use entry::{Command, ContentHash, Entry, NewEvent};
pub use group::{Outcome, Stop, apply, apply_up_to, due_work};
pub use metadata::Metadata;
pub use prefetch::cold_keys;
pub use reply::{Reason, Refusal, Reply};
pub use rows::{Poison, Read, Rows};
pub use session::{
    EventPage, EventQuery, Listing, ReadError, SessionHeader, SessionRow, SessionState,
};
pub use text::Text;
pub use view::{View, WriteSet};

#[cfg(test)]
mod tests;
