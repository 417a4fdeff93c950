//! Admission: the one place where a write is refused because there is too much, or too little
//! room.
//!
//! Judged before anything is proposed, never while applying, so replicas cannot differ. What
//! frees space passes where other writes are refused: the node's own commands ask nobody, and a
//! client's deletion has a reserve of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tl_core::{Command, Entry};
use tl_types::ErrorCode;
use tl_types::limits::INFLIGHT_REQUESTS_MAX;

use super::space::Space;
use crate::api::ServiceError;
use crate::memory::{Budget, RESERVE_DIVISOR};
use crate::metrics::{Metrics, RefusedFor, Stage, Trace};

/// What a client's entry does to the space that the node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It takes some.
    Takes,
    /// It gives some back, in the end.
    Frees,
}

impl Purpose {
    /// What this entry does.
    #[must_use]
    pub fn of(entry: &Entry) -> Purpose {
        let frees = |command: &Command| match command {
            // A list of members is small, and may be what a full cluster is waiting for.
            Command::Tombstone(_)
            | Command::AckArchived(_)
            | Command::Trim(_)
            | Command::Tick
            | Command::SetMembers(_) => true,
            Command::CreateSession(_)
            | Command::Append(_)
            | Command::UpdateHeader(_)
            | Command::SetListing(_)
            | Command::Close(_) => false,
        };
        if entry.commands.iter().all(frees) { Purpose::Frees } else { Purpose::Takes }
    }
}

/// What is under way, and what there is room for.
#[derive(Debug)]
pub struct Admission {
    bytes: AtomicUsize,
    requests: AtomicUsize,
    /// Bytes proposed but not answered that clients' writes may reach.
    bytes_max: usize,
    space: Arc<Space>,
    budget: Budget,
    metrics: Arc<Metrics>,
}

/// A place under the limits; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
    trace: Option<Trace>,
}

impl Admission {
    /// With nothing under way.
    #[must_use]
    pub fn new(
        bytes_max: usize,
        space: Arc<Space>,
        budget: Budget,
        metrics: Arc<Metrics>,
    ) -> Admission {
        let (bytes, requests) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Admission { bytes, requests, bytes_max, space, budget, metrics }
    }

    /// A place for one request of `bytes`.
    ///
    /// # Errors
    /// `event_store_backpressure` when a limit would be passed, or the memory budget is used up.
    pub fn admit(self: &Arc<Self>, bytes: usize, purpose: Purpose) -> Result<Permit, ServiceError> {
        let (bytes_max, requests_max) = match purpose {
            Purpose::Takes => (self.bytes_max, INFLIGHT_REQUESTS_MAX),
            Purpose::Frees => {
                let with_reserve = |max: usize| max + max / RESERVE_DIVISOR as usize;
                (with_reserve(self.bytes_max), with_reserve(INFLIGHT_REQUESTS_MAX))
            }
        };
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let requests_before = self.requests.fetch_add(1, Ordering::Relaxed);
        let trace = self.metrics.stages.begin();
        let permit = Permit { admission: Arc::clone(self), bytes, trace };
        if bytes_before + bytes > bytes_max || requests_before >= requests_max {
            self.metrics.refused_for(RefusedFor::Inflight);
            return Err(ServiceError::new(
                ErrorCode::EventStoreBackpressure,
                "Too many writes are under way on this node; repeat the request after the wait",
            )
            .with("inflight_bytes", bytes_before)
            .with("inflight_requests", requests_before));
        }
        if purpose == Purpose::Takes && self.budget.is_over() {
            self.metrics.refused_for(RefusedFor::Memory);
            return Err(ServiceError::new(
                ErrorCode::EventStoreBackpressure,
                "The node's memory budget is used up; repeat the request after the wait",
            )
            .with("used_bytes", self.budget.used_bytes())
            .with("budget_bytes", self.budget.budget_bytes()));
        }
        Ok(permit)
    }

    /// Refuses a client's write that takes space when the disk could not take it now.
    ///
    /// # Errors
    /// `disk_full` when there is no room, `event_store_backpressure` when sealed memtables pile
    /// up because flushing is behind.
    pub fn check_disk(&self, is_store_behind: bool) -> Result<(), ServiceError> {
        if self.space.is_full() {
            self.metrics.refused_for(RefusedFor::Disk);
            return Err(ServiceError::new(
                ErrorCode::DiskFull,
                "The node's disk is full up to its reserve; free some room, and repeat the request",
            )
            .with("free_bytes", self.space.free_bytes())
            .with("reserve_bytes", self.space.reserve_bytes()));
        }
        if is_store_behind {
            self.metrics.refused_for(RefusedFor::Flush);
            return Err(ServiceError::new(
                ErrorCode::EventStoreBackpressure,
                "The disk is behind with writing sorted runs; repeat the request after the wait",
            ));
        }
        Ok(())
    }

    /// Whether waiting for a flush may help a write: not on a full disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.space.is_full()
    }

    /// Bytes and requests under way, for metrics.
    #[must_use]
    pub fn inflight(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }

    /// The memory budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Permit {
    /// A stage of the write's way ended just now.
    pub fn pass(&mut self, stage: Stage) {
        self.admission.metrics.stages.pass(&mut self.trace, stage);
    }

    /// A stage of the write's way ended at this moment.
    pub fn pass_at(&mut self, stage: Stage, at: Instant) {
        self.admission.metrics.stages.pass_at(&mut self.trace, stage, at);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{BUDGET_BYTES_MIN, Shares};

    const BYTES_MAX: usize = 1_000;

    fn admission() -> Arc<Admission> {
        let budget = Budget::new(BUDGET_BYTES_MIN, &Shares::of(BUDGET_BYTES_MIN));
        Arc::new(Admission::new(BYTES_MAX, Arc::default(), budget, Arc::default()))
    }

    fn refusals(admission: &Admission, reason: &str) -> bool {
        let line = format!("throughline_writes_not_admitted_total{{reason=\"{reason}\"}} 1\n");
        admission.metrics.text().contains(&line)
    }

    #[test]
    fn a_full_disk_and_a_slow_one_are_told_apart() {
        let admission = admission();
        assert_eq!(admission.check_disk(false), Ok(()));
        let code = |behind| admission.check_disk(behind).expect_err("refused").code;
        assert_eq!(code(true), ErrorCode::EventStoreBackpressure);
        admission.space.flush_waits(true);
        assert_eq!(code(true), ErrorCode::DiskFull);
        assert!(refusals(&admission, "disk_full") && refusals(&admission, "flush_behind"));
    }

    #[test]
    fn at_the_limit_it_admits_and_one_past_it_refuses() {
        let admission = admission();
        let admit = |bytes| admission.admit(bytes, Purpose::Takes);
        let all = admit(BYTES_MAX).expect("the limit itself");
        let error = admit(1).expect_err("one past");
        assert_eq!(error.code, ErrorCode::EventStoreBackpressure);
        let freeing = admission.admit(BYTES_MAX / 20, Purpose::Frees).expect("in the reserve");
        assert!(admission.admit(1, Purpose::Frees).is_err(), "that has a limit too");
        drop((all, freeing));
        assert_eq!(admission.inflight(), (0, 0), "a refusal leaves nothing behind");
        let many: Vec<_> = (0..INFLIGHT_REQUESTS_MAX).map(|_| admit(0).expect("room")).collect();
        assert!(admit(0).is_err());
        drop(many);
        assert!(admit(0).is_ok());
    }

    #[test]
    fn a_used_up_memory_budget_refuses_what_takes_and_not_what_frees() {
        let admission = admission();
        admission.budget.note(BUDGET_BYTES_MIN, 0, 0, 0);
        let error = admission.admit(1, Purpose::Takes).expect_err("used up");
        assert_eq!(error.code, ErrorCode::EventStoreBackpressure);
        assert!(refusals(&admission, "memory"));
        assert!(admission.admit(1, Purpose::Frees).is_ok());
        admission.budget.note(0, 0, 0, 0);
        assert!(admission.admit(1, Purpose::Takes).is_ok());
        assert_eq!(admission.inflight(), (0, 0));
    }
}
