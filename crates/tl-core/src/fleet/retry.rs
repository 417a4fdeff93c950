//! What follows a failed attempt or a lost lease.

/// How waits between attempts grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the second attempt, before jitter, milliseconds.
    pub base_ms: u64,
    /// No wait is longer, jitter included.
    pub max_ms: u64,
}

/// The wait after the `charged`-th charged attempt (from 1): doubling, spread by jitter to
/// three quarters up to five quarters, and never past the maximum.
///
/// `jitter` is drawn by the caller from 0 up to 1; what lies outside counts as the nearer end.
#[must_use]
pub fn retry_delay_ms(backoff: Backoff, charged: u32, jitter: f64) -> u64 {
    let doublings = charged.saturating_sub(1).min(63);
    let grown = backoff.base_ms.saturating_mul(1_u64 << doublings).min(backoff.max_ms);
    let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
    // Half of the wait times jitter, in whole thousandths: exact, alike on every machine.
    let thousandths = 750 + (jitter * 500.0) as u128;
    let spread = u128::from(grown) * thousandths / 1_000;
    u64::try_from(spread).unwrap_or(u64::MAX).min(backoff.max_ms)
}

/// What counts against a step, the attempt that has just ended included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Attempts that failed or lost their lease.
    pub charged: u32,
    /// Attempts that may be charged before the step is given up.
    pub attempts_max: u32,
    /// Attempts among them that lost their lease.
    pub lost: u32,
    /// Lost leases after which the step is taken for what kills its pods.
    pub poison_after: u32,
}

/// What becomes of a step whose attempt ended badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt follows.
    Again,
    /// Its attempts are used up.
    Exhausted,
    /// It has lost too many leases.
    Poison,
}

/// Decides between another attempt and the dead letters.
///
/// Used-up attempts come first: a step that may not run again anyway needs no worse name.
#[must_use]
pub fn verdict(charge: Charge) -> Verdict {
    if charge.charged >= charge.attempts_max {
        Verdict::Exhausted
    } else if charge.lost >= charge.poison_after {
        Verdict::Poison
    } else {
        Verdict::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff { base_ms: 100, max_ms: 30_000 };

    #[test]
    fn waits_double_up_to_the_maximum() {
        let waits: Vec<u64> = (1..=11).map(|n| retry_delay_ms(BACKOFF, n, 0.5)).collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
        );
    }

    #[test]
    fn jitter_spreads_by_a_quarter_and_never_past_the_maximum() {
        assert_eq!(retry_delay_ms(BACKOFF, 2, 0.0), 150);
        assert_eq!(retry_delay_ms(BACKOFF, 2, 1.0), 250);
        assert_eq!(retry_delay_ms(BACKOFF, 20, 1.0), 30_000);
        assert_eq!(retry_delay_ms(BACKOFF, 2, f64::NAN), 200);
    }

    #[test]
    fn a_step_with_one_retry_gets_its_second_attempt() {
        let charge = Charge { charged: 1, attempts_max: 2, lost: 1, poison_after: 5 };
        assert_eq!(verdict(charge), Verdict::Again);
        assert_eq!(verdict(Charge { charged: 2, ..charge }), Verdict::Exhausted);
    }

    #[test]
    fn a_step_without_retries_is_given_up_at_once() {
        let charge = Charge { charged: 1, attempts_max: 1, lost: 0, poison_after: 5 };
        assert_eq!(verdict(charge), Verdict::Exhausted);
    }

    #[test]
    fn lost_leases_make_poison_before_attempts_are_used_up() {
        let charge = Charge { charged: 5, attempts_max: 11, lost: 5, poison_after: 5 };
        assert_eq!(verdict(charge), Verdict::Poison);
        assert_eq!(verdict(Charge { lost: 4, ..charge }), Verdict::Again);
    }

    proptest! {
        #[test]
        fn no_wait_is_ever_past_the_maximum(base: u64, max: u64, charged: u32, jitter: f64) {
            let backoff = Backoff { base_ms: base, max_ms: max };
            prop_assert!(retry_delay_ms(backoff, charged, jitter) <= max);
        }

        #[test]
        fn waits_never_shrink_with_attempts(
            base in 1_u64..1_000_000, max in 1_u64..1 << 40, charged in 1_u32..80, j in 0.0_f64..1.0,
        ) {
            let backoff = Backoff { base_ms: base, max_ms: max };
            let wait = |n| retry_delay_ms(backoff, n, j);
            prop_assert!(wait(charged) <= wait(charged + 1));
        }

        #[test]
        fn every_step_ends_after_as_many_charges_as_it_may_have(
            max in 1_u32..12, poison in 1_u32..12,
        ) {
            let charge = |n| Charge { charged: n, attempts_max: max, lost: n, poison_after: poison };
            let ends = (1..=12).find(|n| verdict(charge(*n)) != Verdict::Again);
            prop_assert_eq!(ends, Some(max.min(poison)));
        }
    }
}
