//! A fingerprint of all that happened, and the last things worth telling.

use std::collections::VecDeque;

use xxhash_rust::xxh3::Xxh3;

/// Lines kept for a report.
const RECENT_MAX: usize = 60;

/// What a run leaves behind.
pub(crate) struct Trace {
    hash: Xxh3,
    recent: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace { hash: Xxh3::new(), recent: VecDeque::new() }
    }

    /// Numbers that make up one event.
    pub(crate) fn mix(&mut self, facts: &[u64]) {
        for fact in facts {
            self.hash.update(&fact.to_le_bytes());
        }
    }

    /// Bytes that left a machine.
    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// A line for people; part of the fingerprint too.
    pub(crate) fn note(&mut self, now_us: u64, what: &str) {
        self.hash.update(what.as_bytes());
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(format!("{:>9.3} s  {what}", now_us as f64 / 1e6));
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.hash.digest()
    }

    pub(crate) fn into_recent(self) -> Vec<String> {
        self.recent.into()
    }
}
