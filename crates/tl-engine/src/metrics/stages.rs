//! Where the time of a write goes: one in a few is followed through its stages.
//!
//! ```text
//!  admitted ──queue──► in a turn ──sync──► turn that finds it done ──apply──► answered ──reply──► gone
//! ```
//!
//! A [`Trace`] travels with the write's permit, so it passes every thread that the write passes,
//! and whoever holds it says when a stage ends. A write that ends early leaves its last stage
//! uncounted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// One write in so many is followed: enough for a distribution, and no cost for the others.
const FOLLOWED_ONE_IN: u32 = 16;

/// A part of a write's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Admitted; waits for the driver's turn.
    Queue,
    /// Waits for the log: for its turn there, the write, the sync, and a quorum.
    Sync,
    /// Done; its rows are made and put into the store.
    Apply,
    /// The answer is handed over, or written to the socket.
    Reply,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Queue, Stage::Sync, Stage::Apply, Stage::Reply];

    fn word(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Sync => "sync",
            Stage::Apply => "apply",
            Stage::Reply => "reply",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabel {
    stage: &'static str,
}

pub(super) type StageSeconds = Family<StageLabel, Histogram, fn() -> Histogram>;

/// The stages of the writes that are followed.
#[derive(Debug)]
pub struct Stages {
    writes: AtomicU32,
    pub(super) seconds: StageSeconds,
    /// The histograms of `seconds`, without a look-up.
    each: [Histogram; 4],
}

impl Default for Stages {
    fn default() -> Self {
        let seconds = StageSeconds::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_002, 2.0, 22))
        });
        let each = Stage::ALL
            .map(|stage| seconds.get_or_create_owned(&StageLabel { stage: stage.word() }));
        Stages { writes: AtomicU32::new(0), seconds, each }
    }
}

impl Stages {
    /// A write begins; now and then one is followed.
    #[must_use]
    pub fn begin(&self) -> Option<Trace> {
        let write = self.writes.fetch_add(1, Ordering::Relaxed);
        write.is_multiple_of(FOLLOWED_ONE_IN).then(|| Trace { since: Instant::now() })
    }

    /// A stage ended just now.
    pub fn pass(&self, trace: &mut Option<Trace>, stage: Stage) {
        if trace.is_some() {
            self.pass_at(trace, stage, Instant::now());
        }
    }

    /// A stage ended at this moment.
    pub fn pass_at(&self, trace: &mut Option<Trace>, stage: Stage, at: Instant) {
        if let Some(trace) = trace {
            let took = at.saturating_duration_since(trace.since);
            self.each[stage as usize].observe(took.as_secs_f64());
            trace.since = at.max(trace.since);
        }
    }
}

/// A write that is followed.
#[derive(Debug)]
pub struct Trace {
    /// When the last stage ended.
    since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_write_in_a_few_is_followed_through_all_stages() {
        let stages = Stages::default();
        let mut traces: Vec<_> = (0..2 * FOLLOWED_ONE_IN).map(|_| stages.begin()).collect();
        assert_eq!(traces.iter().flatten().count(), 2);
        let start = Instant::now();
        for (n, stage) in (1..).zip(Stage::ALL) {
            stages.pass_at(&mut traces[0], stage, start + Duration::from_millis(n));
        }
        stages.pass(&mut traces[1], Stage::Queue);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("stage_seconds", "Stages", stages.seconds.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        for stage in Stage::ALL {
            let line = format!("stage_seconds_count{{stage=\"{}\"}} 1", stage.word());
            assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
        }
    }
}
