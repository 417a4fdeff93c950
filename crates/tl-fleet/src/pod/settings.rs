//! How a pod behaves. Checked once; the message names every value out of range at once.

use std::path::PathBuf;

use tl_core::fleet::{Backoff, BreakerSettings};

use crate::error::InvalidInput;
use crate::ids::PodId;
use crate::json::JsonText;
use crate::limits::{BATCH_MAX, LEASE_MS_MAX, LEASE_MS_MIN, TIMEOUT_MS_MAX};
use crate::recover::Retention;

/// A pod's settings as written. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// Its name. It may be used again after a restart; nothing is guarded by it.
    pub pod: PodId,
    /// What it says of itself: a JSON object.
    pub meta: JsonText,
    /// Folder of its journal and ledger, made when it is not there. One pod at a time.
    pub local_dir: PathBuf,
    /// Steps that may run at once before the threshold. Default 10; from 1 to 100.
    pub max_parallelism: u32,
    /// Share of it that is used. Default 0.8; from 0.1 to 1. The product is at least 1.
    pub capacity_threshold: f64,
    /// Whether fewer steps run while the machine or the control group is under pressure.
    /// Default true.
    pub heed_pressure: bool,
    /// Steps that may be held ready beside the running ones. Default 200; from 0 to 900.
    pub prefetch_max: u32,
    /// Lease of a claimed step. Default 30 s; from 100 ms to 1 h.
    pub step_lease_ms: u64,
    /// Lease of the pod's life, and of leadership. Default 30 s; from 100 ms to 1 h, at least
    /// twice the heartbeat.
    pub pod_lease_ms: u64,
    /// Time between heartbeats. Default 10 s; from 10 ms to 10 min.
    pub heartbeat_ms: u64,
    /// Time between looks for lost leases, as leader. Default 1 s; from 10 ms to 1 h.
    pub recovery_ms: u64,
    /// Longest run of an attempt whose step names none. Default 1 h; from 1 ms to 7 days.
    pub timeout_ms: u64,
    /// Longest wait for an answer of the database. Default 10 s; from 10 ms to 5 min.
    pub call_ms: u64,
    /// Waits between attempts. Default from 1 s doubling to 5 min.
    pub backoff: Backoff,
    /// Leases that a step may lose before it is taken for what kills its pods. Default 5; from
    /// 1 to 11.
    pub poison_after: u32,
    /// How long running steps may go on when the pod goes down. Default 30 s; to 1 h.
    pub grace_ms: u64,
    /// When the guard on the database opens and for how long.
    pub breaker: BreakerSettings,
    /// How long finished things are kept. Default 7 days, dead letters 30 days, pods 1 day.
    pub retention: Retention,
}

impl PodSettings {
    /// The defaults for a pod of this name with this folder.
    #[must_use]
    pub fn new(pod: PodId, local_dir: impl Into<PathBuf>) -> PodSettings {
        const DAY_MS: u64 = 24 * 3_600_000;
        PodSettings {
            pod,
            meta: JsonText::empty_object(),
            local_dir: local_dir.into(),
            max_parallelism: 10,
            capacity_threshold: 0.8,
            heed_pressure: true,
            prefetch_max: 200,
            step_lease_ms: 30_000,
            pod_lease_ms: 30_000,
            heartbeat_ms: 10_000,
            recovery_ms: 1_000,
            timeout_ms: 3_600_000,
            call_ms: 10_000,
            backoff: Backoff { base_ms: 1_000, max_ms: 300_000 },
            poison_after: 5,
            grace_ms: 30_000,
            breaker: BreakerSettings::default(),
            retention: Retention {
                finished_ms: 7 * DAY_MS,
                dead_ms: 30 * DAY_MS,
                pods_ms: DAY_MS,
                steps_max: BATCH_MAX,
            },
        }
    }

    /// Holds every range.
    ///
    /// # Errors
    /// [`InvalidInput`] naming all values out of range, not only the first.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let mut wrong = Vec::new();
        let mut range = |name: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                wrong.push(format!("{name} must be from {least} to {most}, not {value}"));
            }
        };
        range("max_parallelism", self.max_parallelism.into(), 1, 100);
        range("prefetch_max", self.prefetch_max.into(), 0, 900);
        range("step_lease_ms", self.step_lease_ms, LEASE_MS_MIN, LEASE_MS_MAX);
        range("pod_lease_ms", self.pod_lease_ms, LEASE_MS_MIN, LEASE_MS_MAX);
        range("heartbeat_ms", self.heartbeat_ms, 10, 600_000);
        range("recovery_ms", self.recovery_ms, 10, 3_600_000);
        range("timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX);
        range("call_ms", self.call_ms, 10, 300_000);
        range("backoff.base_ms", self.backoff.base_ms, 1, 300_000);
        range("backoff.max_ms", self.backoff.max_ms, 1, 86_400_000);
        range("poison_after", self.poison_after.into(), 1, 11);
        range("grace_ms", self.grace_ms, 0, 3_600_000);
        range("breaker.failures_in_row", self.breaker.failures_in_row.into(), 1, 64);
        range("breaker.window", self.breaker.window.into(), 1, 64);
        range("breaker.open_ms", self.breaker.open_ms, 1, 300_000);
        range("breaker.open_ms_max", self.breaker.open_ms_max, 1, 300_000);
        if !(0.1..=1.0).contains(&self.capacity_threshold) {
            let value = self.capacity_threshold;
            wrong.push(format!("capacity_threshold must be from 0.1 to 1, not {value}"));
        } else if f64::from(self.max_parallelism) * self.capacity_threshold < 1.0 {
            wrong.push("max_parallelism times capacity_threshold must be at least 1".to_owned());
        }
        if self.pod_lease_ms < 2 * self.heartbeat_ms {
            wrong.push("pod_lease_ms must be at least twice heartbeat_ms".to_owned());
        }
        if self.backoff.max_ms < self.backoff.base_ms {
            wrong.push("backoff.max_ms must not be below backoff.base_ms".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(InvalidInput::new("settings", wrong.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PodSettings {
        PodSettings::new(PodId::new("p").expect("a plain name"), "/nowhere")
    }

    #[test]
    fn defaults_are_in_range() {
        assert_eq!(settings().check(), Ok(()));
    }

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let wrong = PodSettings {
            max_parallelism: 101,
            capacity_threshold: 0.05,
            heartbeat_ms: 20_000,
            grace_ms: 3_600_001,
            ..settings()
        };
        let problem = wrong.check().expect_err("four are wrong").problem;
        for name in ["max_parallelism", "capacity_threshold", "pod_lease_ms", "grace_ms"] {
            assert!(problem.contains(name), "{name} in {problem}");
        }
        let small = PodSettings { max_parallelism: 3, capacity_threshold: 0.3, ..settings() };
        assert!(small.check().is_err(), "the product is below one");
        let low = PodSettings { max_parallelism: 10, capacity_threshold: 0.1, ..settings() };
        assert_eq!(low.check(), Ok(()));
    }
}
