//! The network between the machines: every ordered pair has a link of its own, so a split may
//! cut one direction only.

use fastrand::Rng;

use crate::options::{MACHINES_MAX, Plan};
use crate::queue::MachineNo;

/// A frame takes at least this long, microseconds.
const DELAY_US_MIN: u64 = 50;
/// A late frame is late by up to one of these, microseconds: from a little reordering to longer
/// than an election takes.
const LATE_US_MAX: [u64; 4] = [3_000, 30_000, 300_000, 3_000_000];

/// Ends of links: all machines, and a former life, which hears everybody.
const ENDS_MAX: usize = MACHINES_MAX + 1;

/// Which links work, and how well.
#[derive(Debug)]
pub(crate) struct Links {
    machines: usize,
    cut: [[bool; ENDS_MAX]; ENDS_MAX],
    /// Since when each machine cannot talk with a majority, itself included, microseconds.
    alone_since_us: [Option<u64>; ENDS_MAX],
    /// Names the newest split, so that the end of an older one does not end it.
    pub(crate) split: u64,
    clean: bool,
}

/// When copies of a frame arrive; none when it is lost.
pub(crate) type Arrivals = [Option<u64>; 2];

impl Links {
    pub(crate) fn new(machines: usize) -> Links {
        Links {
            machines,
            cut: Default::default(),
            alone_since_us: Default::default(),
            split: 0,
            clean: false,
        }
    }

    /// From now on nothing is cut, lost, doubled or late.
    pub(crate) fn heal(&mut self, now_us: u64) {
        self.join(now_us);
        self.clean = true;
    }

    pub(crate) fn join(&mut self, now_us: u64) {
        self.cut = Default::default();
        self.look(now_us);
    }

    pub(crate) fn cut(&mut self, from: MachineNo, to: MachineNo, now_us: u64) {
        self.cut[from][to] = true;
        self.look(now_us);
    }

    /// Whether two machines hear each other.
    pub(crate) fn joins(&self, one: MachineNo, other: MachineNo) -> bool {
        !self.cut[one][other] && !self.cut[other][one]
    }

    /// Since when the machine has been on a side without a majority, microseconds; `None` when it
    /// is not.
    pub(crate) fn alone_since(&self, machine: MachineNo) -> Option<u64> {
        self.alone_since_us[machine]
    }

    fn look(&mut self, now_us: u64) {
        for machine in 0..self.machines {
            let is_alone = self.side(machine) * 2 <= self.machines;
            let since = &mut self.alone_since_us[machine];
            *since = if is_alone { since.or(Some(now_us)) } else { None };
        }
    }

    /// How many machines this one reaches and is reached by, over any others, itself included.
    fn side(&self, machine: MachineNo) -> usize {
        let mut reached = [false; ENDS_MAX];
        let mut next = vec![machine];
        while let Some(from) = next.pop() {
            if !std::mem::replace(&mut reached[from], true) {
                let both = |to: &MachineNo| !self.cut[from][*to] && !self.cut[*to][from];
                next.extend((0..self.machines).filter(both));
            }
        }
        reached.iter().filter(|reached| **reached).count()
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
