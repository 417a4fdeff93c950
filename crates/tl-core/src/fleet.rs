//! What a fleet decides without looking at a clock, a random number or a database.
//!
//! ```text
//!   what is seen (rows, times, counts) ──> function ──> what to do
//!   submission ──> rank            pod ──> capacity, wanted, next_poll, Breaker, Fence
//!   failure ──> retry_delay_ms, verdict      pods ──> eldest, may_lead, lead
//!   a sweep that failed ──> Portion
//! ```
//!
//! Instants are milliseconds of one clock: the store's for leases and births, the process's
//! monotonic clock for breaker, poll and fence. They are never mixed.
//!
//! Absent on purpose: the stores, which do all this again in SQL where it must be one statement
//! (the conformance suite holds both alike).

mod breaker;
mod capacity;
mod fence;
mod leader;
mod poll;
mod portion;
mod rank;
mod retry;

pub use breaker::{Admission, Breaker, BreakerSettings, BreakerState};
pub use capacity::{Pressure, capacity, prefetch_max, wanted};
pub use fence::Fence;
pub use leader::{Asker, Candidate, Lead, LeadRow, eldest, lead, may_lead};
pub use poll::{POLL_MS_MAX, POLL_MS_MIN, next_poll_ms};
pub use portion::Portion;
pub use rank::{PRIORITY_AGEING_MS, rank};
pub use retry::{Backoff, Charge, Verdict, retry_delay_ms, verdict};
