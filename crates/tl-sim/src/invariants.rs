//! The promises that every run is held to, one file each.
//!
//! A check is a struct that remembers what it was shown and answers with the first
//! [`Violation`]. What is shown comes from outside the nodes: their log jobs, their rows, their
//! answers. None of the checks asks a node for its opinion.

use std::fmt;

use serde::Serialize;

pub mod acknowledged;
pub mod applied_alike;
pub mod archived;
pub mod commits;
pub mod confirmed_log;
pub mod damaged;
pub mod digests;
pub mod elections;
pub mod history;
pub mod leader_completeness;
pub mod linearizable;
pub mod log_matching;
pub mod members;
pub mod minority;
pub mod one_life;
pub mod origins;
pub mod positions;
pub mod presence;
pub mod producers;
pub mod requests;
pub mod stamps;
pub mod synced_quorum;
pub mod tails;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which one, in a few fixed words.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
    /// When, virtual milliseconds.
    pub at_ms: u64,
}

impl Violation {
    pub(crate) fn new(promise: &'static str, what: impl Into<String>) -> Violation {
        Violation { promise, what: what.into(), at_ms: 0 }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at {:.3} s: {}", self.promise, self.at_ms as f64 / 1e3, self.what)
    }
}

/// Nothing, or a broken promise.
pub type Checked = Result<(), Violation>;

/// All checks of a run.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) acknowledged: acknowledged::Acknowledged,
    pub(crate) applied_alike: applied_alike::AppliedAlike,
    pub(crate) commits: commits::Commits,
    pub(crate) digests: digests::Digests,
    pub(crate) elections: elections::Elections,
    pub(crate) history: history::History,
    pub(crate) leader_completeness: leader_completeness::LeaderCompleteness,
    pub(crate) linearizable: linearizable::Linearizable,
    pub(crate) log_matching: log_matching::LogMatching,
    pub(crate) origins: origins::Origins,
    pub(crate) positions: positions::Positions,
    pub(crate) producers: producers::Producers,
    pub(crate) stamps: stamps::Stamps,
}

/// Number of a session in a run, from 0.
pub type SessionNo = usize;

#[cfg(test)]
mod tests;
