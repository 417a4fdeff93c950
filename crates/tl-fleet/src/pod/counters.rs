//! What a pod counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Running counts, from the start of the pod.
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)* }

        /// The counts at one instant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counted { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub(super) fn read(&self) -> Counted {
                Counted { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }

        impl Counted {
            /// Every count with its name.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Steps claimed.
    claimed,
    /// Claims that found nothing.
    claims_empty,
    /// Reports of success that counted.
    completed,
    /// Reports of failure that counted, also those that are tried again.
    failed,
    /// Steps that ended because they were called off.
    cancelled,
    /// Steps given back.
    released,
    /// Attempts that ran out of time; they count among the failed too.
    timed_out,
    /// Claims let go because their lease may have run out, or was taken away.
    lost,
    /// Reports that came too late and were dropped.
    fenced,
    /// Reports put into the journal because the database was away.
    journaled,
    /// Reports from the journal that were answered.
    replayed,
    /// Reports dropped because the journal had no room for them, or could not be written.
    journal_full,
    /// Heartbeats that failed.
    heartbeats_failed,
    /// Lives that ended without a goodbye.
    reaped,
    /// Steps that this pod took back from others as leader.
    recovered,
    /// Steps that this pod forgot as leader.
    forgotten,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
}
