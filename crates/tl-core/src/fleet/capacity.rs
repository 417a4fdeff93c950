//! How many steps a pod takes.

/// How hard the pod's machine or control group works, each from 0 to 1 and past it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Share of the time in which something waited for a processor.
    pub cpu_ratio: f64,
    /// Memory in use over its limit.
    pub memory_ratio: f64,
}

/// Share of the waiting time from which capacity is lowered.
const CPU_HIGH: f64 = 0.8;
/// Share of the memory's limit from which capacity is lowered.
const MEMORY_HIGH: f64 = 0.85;

/// Steps that a pod may run at once: `floor(max_parallelism × threshold)`, less under
/// pressure, never below one.
#[must_use]
pub fn capacity(max_parallelism: u32, threshold: f64, pressure: Pressure) -> u32 {
    // The product of a decimal fraction may fall just short of a whole number: 10 × 0.7.
    let full = (f64::from(max_parallelism) * threshold + 1e-9).floor().max(1.0);
    let ease = |ratio: f64, high: f64| {
        let over = ((ratio - high) / (1.0 - high)).clamp(0.0, 1.0);
        if over.is_nan() { 1.0 } else { 1.0 - over }
    };
    let share = ease(pressure.cpu_ratio, CPU_HIGH).min(ease(pressure.memory_ratio, MEMORY_HIGH));
    (full * share).floor().max(1.0) as u32
}

/// Steps that a pod may hold ready beside those that run, so that the last of them starts
/// within a third of its lease.
#[must_use]
pub fn prefetch_max(configured: u32, capacity: u32, lease_ms: u64, run_ms: u64) -> u32 {
    let started = (lease_ms / 3).saturating_mul(u64::from(capacity)) / run_ms.max(1);
    configured.min(u32::try_from(started).unwrap_or(u32::MAX))
}

/// How many steps to ask for: `claimed = running + prefetched ≤ capacity + prefetch_max`.
#[must_use]
pub fn wanted(capacity: u32, prefetch_max: u32, claimed: u32) -> u32 {
    capacity.saturating_add(prefetch_max).saturating_sub(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capacity_is_the_product_rounded_down_and_never_below_one() {
        let calm = Pressure::default();
        assert_eq!(capacity(10, 0.8, calm), 8);
        assert_eq!(capacity(10, 0.7, calm), 7);
        assert_eq!(capacity(3, 0.5, calm), 1);
        assert_eq!(capacity(1, 0.1, calm), 1);
        assert_eq!(capacity(100, 1.0, calm), 100);
    }

    #[test]
    fn pressure_lowers_capacity_down_to_one() {
        let cpu = |cpu_ratio| Pressure { cpu_ratio, memory_ratio: 0.0 };
        assert_eq!(capacity(100, 1.0, cpu(0.8)), 100);
        assert_eq!(capacity(100, 1.0, cpu(0.9)), 50);
        assert_eq!(capacity(100, 1.0, cpu(1.0)), 1);
        let memory = Pressure { cpu_ratio: 0.0, memory_ratio: 2.0 };
        assert_eq!(capacity(100, 1.0, memory), 1);
    }

    #[test]
    fn no_more_is_held_ready_than_starts_within_a_third_of_the_lease() {
        assert_eq!(prefetch_max(500, 8, 30_000, 10), 500);
        assert_eq!(prefetch_max(500, 8, 30_000, 1_000), 80);
        assert_eq!(prefetch_max(500, 8, 30_000, 3_600_000), 0);
        assert_eq!(prefetch_max(500, 8, 30_000, 0), 500);
    }

    proptest! {
        #[test]
        fn a_pod_never_holds_more_than_capacity_and_prefetch(
            capacity in 1_u32..200, prefetch in 0_u32..2_000, claimed in 0_u32..3_000,
        ) {
            let after = claimed + wanted(capacity, prefetch, claimed);
            prop_assert!(after <= (capacity + prefetch).max(claimed));
        }

        #[test]
        fn capacity_is_at_least_one_and_at_most_the_product(
            max in 1_u32..101, threshold in 0.1_f64..1.0, cpu: f64, memory: f64,
        ) {
            let pressure = Pressure { cpu_ratio: cpu, memory_ratio: memory };
            let got = capacity(max, threshold, pressure);
            prop_assert!(got >= 1 && f64::from(got) <= (f64::from(max) * threshold + 1e-9).max(1.0));
        }
    }
}
