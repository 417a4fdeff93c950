//! The shell around rules, log, store and groups: what turns a request into an entry, an entry
//! into rows, and rows into replies and tails.
//!
//! ```text
//!  fronts ── Service ── mailbox ──► driver thread: Node::turn ──► log thread (write, sync)
//!    ▲                                 │ apply (rules over rows)
//!    └── replies, tail wakes ◄─────────┘            flush thread (memtable → sorted runs)
//! ```
//!
//! [`node`] is synchronous and shared with the simulator; [`shell`] holds the threads, clocks
//! and disks; [`service`] is the face.

pub mod api;
pub mod cluster;
mod durable;
pub mod engine;
pub mod front;
pub mod hub;
pub mod identity;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod ops;
pub mod peer;
mod peers;
pub mod service;
pub mod settings;
pub mod shell;

pub use cluster::ClusterSettings;
pub use engine::{Engine, EngineError};
pub use service::{Service, Tail};
pub use settings::EngineSettings;

/// An error and its causes in one line, for logs and for texts that outlive the error.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
