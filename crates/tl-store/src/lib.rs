//! The ordered store: all rows of all groups of one node, in one key space.
//!
//! ```text
//!   write ──► active memtable ──rotate──► sealed memtables ──flush──► sorted runs (tables, blobs)
//!                   ▲                          ▲                          ▲
//!   get_cached ─────┴──────────────────────────┴── row cache ◄─ prefetch ─┘
//!   get, range ─────┴──────────────────────────┴──────────────────────────┘
//! ```
//!
//! The store is no log: what sits in memtables is lost in a crash and comes back by applying
//! the log again behind [`OrderedStore::durable_applied`]. Rows and the applied index of every
//! group become durable together, in one pointer move per flush.
//!
//! Invariants:
//!  - O1 newest wins: active over sealed over runs; a delete hides what lies below it.
//!  - O2 after a crash the rows are exactly those of the last completed flush, and the applied
//!    indexes are those of these rows.
//!  - O3 [`OrderedStore::get_cached`] answers from memory or says [`Read::Cold`]; `Found` and
//!    `Absent` are always what a blocking read would have said.
//!  - O4 damage is an error that names what was read, never another value.
//!
//! Absent on purpose: the log, Raft, what a row means, threads (the callers bring their own).

pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod options;
pub mod store;

mod applied;
mod cache;
mod floors;
mod memtable;
mod merge;
mod runs;
mod shared;
mod tree;

pub use applied::Applied;
pub use error::StoreError;
pub use options::{KillPoints, Pacing, StoreOptions, Work};
pub use shared::{LsmStore, MemStore};
pub use store::{
    Export, GroupWrites, Held, OrderedStore, Read, Row, ScrubProgress, ScrubReport, StoreStats,
};
