//! In which order pending steps are claimed.

use tl_types::UnixMs;

/// Waiting that makes up for one step of priority, milliseconds.
///
/// With strict priorities a steady flow of urgent steps starves all others. So priority grows
/// with waiting: by one for each of these. As all pending steps age alike, two of them never
/// change places, and so the order is a number that is stored once and indexed.
pub const PRIORITY_AGEING_MS: i64 = 60_000;

/// The place of a step among the pending: smaller is sooner.
///
/// `ready_at` is when it may first run. Within one priority it is first come, first served.
#[must_use]
pub fn rank(ready_at: UnixMs, priority: i32) -> i64 {
    let ready_ms = i64::try_from(ready_at.0).unwrap_or(i64::MAX);
    ready_ms.saturating_sub(i64::from(priority) * PRIORITY_AGEING_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn larger_priority_is_sooner_and_equals_go_by_age() {
        assert!(rank(UnixMs(1_000), 5) < rank(UnixMs(1_000), 4));
        assert!(rank(UnixMs(1_000), 0) < rank(UnixMs(1_001), 0));
    }

    #[test]
    fn waiting_makes_up_for_priority() {
        let urgent_now = rank(UnixMs(10 * 60_000), 9);
        assert!(rank(UnixMs(60_000 - 1), 0) < urgent_now, "waited nine minutes and a bit");
        assert!(urgent_now < rank(UnixMs(60_000 + 1), 0), "waited a bit less");
    }

    proptest! {
        #[test]
        fn no_step_waits_behind_later_ones_longer_than_its_priority_says(
            ready in 0_u64..1 << 45, low in -1_000_000_i32..1_000_000, more in 0_i32..1_000,
        ) {
            let later = ready + u64::try_from(i64::from(more) * PRIORITY_AGEING_MS).expect("positive") + 1;
            prop_assert!(rank(UnixMs(ready), low) < rank(UnixMs(later), low + more));
        }

        #[test]
        fn any_instant_and_priority_have_a_rank(ready: u64, priority: i32) {
            let _ = rank(UnixMs(ready), priority);
        }
    }
}
