//! The network between the machines: every ordered pair has a link of its own, so a split may
//! cut one direction only.

use fastrand::Rng;

use crate::options::{MACHINES, Plan};
use crate::queue::MachineNo;

/// A frame takes at least this long, microseconds.
const DELAY_US_MIN: u64 = 50;
/// A late frame is late by up to one of these, microseconds: from a little reordering to longer
/// than an election takes.
const LATE_US_MAX: [u64; 4] = [3_000, 30_000, 300_000, 3_000_000];

/// Which links work, and how well.
#[derive(Debug, Default)]
pub(crate) struct Links {
    cut: [[bool; MACHINES]; MACHINES],
    /// Names the newest split, so that the end of an older one does not end it.
    pub(crate) split: u64,
    clean: bool,
}

/// When copies of a frame arrive; none when it is lost.
pub(crate) type Arrivals = [Option<u64>; 2];

impl Links {
    /// From now on nothing is cut, lost, doubled or late.
    pub(crate) fn heal(&mut self) {
        self.join();
        self.clean = true;
    }

    pub(crate) fn join(&mut self) {
        self.cut = Default::default();
    }

    pub(crate) fn cut(&mut self, from: MachineNo, to: MachineNo) {
        self.cut[from][to] = true;
    }

    /// How long the copies of a frame take, microseconds.
    pub(crate) fn send(
        &self,
        plan: &Plan,
        rng: &mut Rng,
        from: MachineNo,
        to: MachineNo,
    ) -> Arrivals {
        if self.cut[from][to] {
            return [None, None];
        }
        let delay = |rng: &mut Rng| DELAY_US_MIN + rng.u64(0..plan.delay_us_max);
        if self.clean {
            return [Some(delay(rng)), None];
        }
        let late = |rng: &mut Rng| {
            let most_us = LATE_US_MAX[rng.usize(0..LATE_US_MAX.len())];
            rng.u64(0..most_us)
        };
        let mut first = delay(rng);
        if rng.u32(0..1_000_000) < plan.late_ppm {
            first += late(rng);
        }
        let lost = rng.u32(0..1_000_000) < plan.loss_ppm;
        let again = rng.u32(0..1_000_000) < plan.repeat_ppm;
        [(!lost).then_some(first), again.then(|| delay(rng) + late(rng))]
    }
}
