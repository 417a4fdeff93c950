//! The process's own clock, for fences and the breaker: it cannot be set, and on Linux it goes
//! on while the machine sleeps.

/// Milliseconds since some fixed instant.
#[cfg(target_os = "linux")]
pub(super) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Milliseconds since some fixed instant.
#[cfg(not(target_os = "linux"))]
pub(super) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000
}
