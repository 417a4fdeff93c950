//! When a pod must take itself for dead.

/// Watches one lease by the process's monotonic clock.
///
/// The store counts a lease from when it handled the renewal, which is after the renewal was
/// sent. Counting from the sending, the holder lets go before the store takes it away,
/// however slow the answer was, as long as both clocks run at the same speed to within the
/// margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    sent_ms: u64,
    lease_ms: u64,
}

impl Fence {
    /// A lease that the store has confirmed, asked for at `sent_ms`.
    #[must_use]
    pub fn new(sent_ms: u64, lease_ms: u64) -> Fence {
        Fence { sent_ms, lease_ms }
    }

    /// The store has confirmed a renewal that was sent then. An answer that was overtaken by
    /// a later one changes nothing.
    pub fn confirm(&mut self, sent_ms: u64, lease_ms: u64) {
        if sent_ms >= self.sent_ms {
            *self = Fence { sent_ms, lease_ms };
        }
    }

    /// From when on the holder must have stopped: a tenth of the lease before its end.
    #[must_use]
    pub fn deadline_ms(self) -> u64 {
        self.sent_ms.saturating_add(self.lease_ms - self.lease_ms / 10)
    }

    /// Whether the holder must have stopped by now.
    #[must_use]
    pub fn is_past(self, now_ms: u64) -> bool {
        now_ms >= self.deadline_ms()
    }

    /// When to renew next: a third into the lease, so that two renewals may be lost.
    #[must_use]
    pub fn renew_at_ms(self) -> u64 {
        self.sent_ms.saturating_add(self.lease_ms / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_falls_a_tenth_before_the_end_of_the_last_confirmed_lease() {
        let mut fence = Fence::new(1_000, 30_000);
        assert!(!fence.is_past(27_999));
        assert!(fence.is_past(28_000));
        assert_eq!(fence.renew_at_ms(), 11_000);
        fence.confirm(11_000, 30_000);
        assert!(!fence.is_past(37_999));
        assert!(fence.is_past(38_000));
    }

    #[test]
    fn an_overtaken_answer_does_not_shorten_it() {
        let mut fence = Fence::new(1_000, 30_000);
        fence.confirm(500, 30_000);
        assert_eq!(fence, Fence::new(1_000, 30_000));
    }

    proptest! {
        #[test]
        fn it_falls_before_the_stores_deadline_whatever_the_delay(
            sent in 0_u64..1 << 40, to_store in 0_u64..10_000, lease in 100_u64..3_600_000,
        ) {
            let stores_deadline = sent + to_store + lease;
            prop_assert!(Fence::new(sent, lease).deadline_ms() < stores_deadline);
        }
    }
}
