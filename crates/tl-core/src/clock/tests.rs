#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn at(boot_ms: u64, wall: u64) -> Reading {
    Reading { boot_ms, wall: UnixMs(wall) }
}

const NONE: UnixMs = UnixMs(0);

#[test]
fn it_goes_on_from_the_last_stamp_with_the_boot_clock() {
    let mut clock = StampClock::new(at(50, 1_000), UnixMs(1_000));
    assert_eq!(clock.stamp(at(50, 1_000), NONE), UnixMs(1_000));
    assert_eq!(clock.stamp(at(51, 1_001), NONE), UnixMs(1_001));
    assert_eq!(clock.stamp(at(150, 1_100), NONE), UnixMs(1_100));
}

#[test]
fn a_wall_clock_that_jumps_ahead_pulls_at_five_percent() {
    let mut clock = StampClock::new(at(0, 0), UnixMs(1_000));
    assert_eq!(clock.stamp(at(1_000, 900_000), NONE), UnixMs(2_050));
    // Many small steps come to the same as one large one.
    for boot_ms in 1_001..=2_000 {
        clock.stamp(at(boot_ms, 900_000), NONE);
    }
    assert_eq!(clock.stamp(at(2_000, 900_000), NONE), UnixMs(3_100));
}

#[test]
fn a_wall_clock_that_jumps_back_slows_it_and_never_turns_it() {
    let mut clock = StampClock::new(at(0, 0), UnixMs(1_000_000));
    assert_eq!(clock.stamp(at(1_000, 5), NONE), UnixMs(1_000_950));
    assert_eq!(clock.stamp(at(1_000, 5), NONE), UnixMs(1_000_950));
}

#[test]
fn it_stops_pulling_when_wall_time_is_reached() {
    let mut clock = StampClock::new(at(0, 0), UnixMs(1_000));
    assert_eq!(clock.stamp(at(1_000, 2_010), NONE), UnixMs(2_010));
    assert_eq!(clock.stamp(at(2_000, 3_010), NONE), UnixMs(3_010));
}

#[test]
fn a_step_goes_to_wall_time_and_never_back() {
    let mut clock = StampClock::new(at(0, 0), UnixMs(1_000));
    clock.step(at(10, 900_000));
    assert_eq!(clock.stamp(at(10, 900_000), NONE), UnixMs(900_000));
    clock.step(at(20, 5));
    assert!(clock.stamp(at(20, 5), NONE) >= UnixMs(900_000));
}

#[test]
fn the_groups_last_stamp_lifts_it() {
    let mut clock = StampClock::new(at(0, 0), UnixMs(1_000));
    assert_eq!(clock.stamp(at(1, 1_001), UnixMs(7_000)), UnixMs(7_000));
    assert_eq!(clock.stamp(at(2, 7_001), UnixMs(7_000)), UnixMs(7_001));
}

proptest! {
    #[test]
    fn it_never_goes_back_and_never_runs_more_than_five_percent_off(
        first in 0u64..1 << 50,
        readings in proptest::collection::vec((0u64..100_000, 0u64..1 << 60), 1..100),
    ) {
        let mut clock = StampClock::new(at(7, 0), UnixMs(first));
        let mut boot_ms = 7;
        let (mut last, mut sum) = (UnixMs(first), 0);
        for (passed, wall) in readings {
            boot_ms += passed;
            sum += passed;
            let stamp = clock.stamp(at(boot_ms, wall), NONE);
            prop_assert!(stamp >= last);
            last = stamp;
            let ran = stamp.0 - first;
            prop_assert!(ran <= sum + sum / 20 && ran + sum / 20 >= sum, "{ran} in {sum}");
        }
    }

    #[test]
    fn no_reading_makes_it_panic(last: u64, readings: Vec<(u64, u64)>) {
        let mut clock = StampClock::new(at(0, 0), UnixMs(last));
        for (boot_ms, wall) in readings {
            clock.step(at(boot_ms, wall));
            clock.stamp(at(boot_ms, wall), UnixMs(wall));
        }
    }
}
