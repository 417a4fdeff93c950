//! How long to wait before the next attempt: doubling from a least to a most, half of it by lot.

use std::time::Duration;

/// The waits of one connection.
#[derive(Debug)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
    lot: fastrand::Rng,
}

impl Backoff {
    /// Waits from `min_ms` to `max_ms`; the seed decides the lots.
    #[must_use]
    pub fn new(min_ms: u64, max_ms: u64, seed: u64) -> Backoff {
        Backoff { min_ms, max_ms, next_ms: min_ms, lot: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait: at least half of what its turn allows, so that two that failed together do
    /// not meet again.
    pub fn next_wait(&mut self) -> Duration {
        let most_ms = self.next_ms;
        self.next_ms = most_ms.saturating_mul(2).min(self.max_ms);
        Duration::from_millis(self.lot.u64(most_ms / 2..=most_ms))
    }

    /// An attempt succeeded: the next wait is a short one.
    pub fn reset(&mut self) {
        self.next_ms = self.min_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_double_up_to_their_bound_and_start_anew_after_success(
            min_ms in 1_u64..1_000,
            more_ms in 0_u64..100_000,
            seed: u64,
        ) {
            let max_ms = min_ms + more_ms;
            let mut backoff = Backoff::new(min_ms, max_ms, seed);
            let mut most_ms = min_ms;
            for _ in 0..40 {
                let wait = backoff.next_wait();
                prop_assert!(wait <= Duration::from_millis(most_ms));
                prop_assert!(wait >= Duration::from_millis(most_ms / 2));
                most_ms = (most_ms * 2).min(max_ms);
            }
            prop_assert_eq!(most_ms, max_ms.min(most_ms));
            backoff.reset();
            prop_assert!(backoff.next_wait() <= Duration::from_millis(min_ms));
        }
    }

    #[test]
    fn two_seeds_wait_differently() {
        let waits = |seed| {
            let mut backoff = Backoff::new(50, 2_000, seed);
            (0..8).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
