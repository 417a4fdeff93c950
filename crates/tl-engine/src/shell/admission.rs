//! Admission: the one place where a write is refused because too much is under way.
//!
//! Judged before anything is proposed, never while applying, so replicas cannot differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tl_types::ErrorCode;
use tl_types::limits::{INFLIGHT_BYTES_MAX, INFLIGHT_REQUESTS_MAX};

use crate::api::ServiceError;

/// Bytes and requests proposed but not answered yet.
#[derive(Debug, Default)]
pub struct Admission {
    bytes: AtomicUsize,
    requests: AtomicUsize,
}

/// A place under the limits; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// A place for one request of `bytes`.
    ///
    /// # Errors
    /// `event_store_backpressure` when either limit would be passed.
    pub fn admit(self: &Arc<Self>, bytes: usize) -> Result<Permit, ServiceError> {
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let requests_before = self.requests.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { admission: Arc::clone(self), bytes };
        if bytes_before + bytes > INFLIGHT_BYTES_MAX || requests_before >= INFLIGHT_REQUESTS_MAX {
            return Err(ServiceError::new(
                ErrorCode::EventStoreBackpressure,
                "Too many writes are under way on this node; repeat the request after the wait",
            )
            .with("inflight_bytes", bytes_before)
            .with("inflight_requests", requests_before));
        }
        Ok(permit)
    }

    /// Bytes and requests under way, for metrics.
    #[must_use]
    pub fn inflight(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }
}

/// Refuses a client's write that the disk could not take now.
///
/// # Errors
/// `disk_full` when the log has no room, `event_store_backpressure` when sealed memtables pile
/// up because flushing is behind.
pub fn check_disk(is_log_full: bool, is_store_full: bool) -> Result<(), ServiceError> {
    if is_log_full {
        return Err(ServiceError::new(
            ErrorCode::DiskFull,
            "The disk of the log is full; free some room, and repeat the request",
        ));
    }
    if is_store_full {
        return Err(ServiceError::new(
            ErrorCode::EventStoreBackpressure,
            "The disk is behind with writing sorted runs; repeat the request after the wait",
        ));
    }
    Ok(())
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

    #[test]
    fn a_full_disk_and_a_slow_one_are_told_apart() {
        assert_eq!(check_disk(false, false), Ok(()));
        let code = |log, store| check_disk(log, store).expect_err("refused").code;
        assert_eq!(code(true, true), ErrorCode::DiskFull);
        assert_eq!(code(false, true), ErrorCode::EventStoreBackpressure);
    }

    #[test]
    fn at_the_limit_it_admits_and_one_past_it_refuses() {
        let admission = Arc::new(Admission::default());
        let all = admission.admit(INFLIGHT_BYTES_MAX).expect("the limit itself");
        let error = admission.admit(1).expect_err("one past");
        assert_eq!(error.code, ErrorCode::EventStoreBackpressure);
        drop(all);
        assert_eq!(admission.inflight(), (0, 0), "a refusal leaves nothing behind");
        let many: Vec<_> =
            (0..INFLIGHT_REQUESTS_MAX).map(|_| admission.admit(0).expect("room")).collect();
        assert!(admission.admit(0).is_err());
        drop(many);
        assert!(admission.admit(0).is_ok());
    }
}
