//! Wall clocks that go a day forward where it matters most, and back; and machines that compare
//! theirs.
//!
//! One clock at a time is a day ahead: that of a machine which leads, or of one that is about to.
//! Machines tell one another the time; whoever finds that a majority says the same within a second
//! is told so, as the shipped node is, and may let its groups' clocks step forward to it.

use tl_engine::node::Input;
use tl_types::GroupId;

use super::World;
use crate::queue::{Event, MachineNo};

/// How far such a clock goes forward, milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Between two comparisons, microseconds.
pub(super) const COMPARE_US: u64 = 500_000;
/// Clocks that differ by no more than this say the same, milliseconds.
const SAME_MS: u64 = 1_000;

impl World {
    /// A clock goes forward; or if one is ahead, back.
    pub(super) fn clock_day(&mut self) {
        if let Some(machine) = self.ahead.take() {
            self.machines[machine].wall_jump_ms = 0;
            self.coverage.clocks_set_back += 1;
            self.note(&format!("the clock of machine {machine} goes back"));
            return;
        }
        let group = GroupId(self.rng.u16(0..self.plan.groups));
        let Some(leader) = self.leader_of(group) else { return };
        let machine = if self.rng.bool() {
            self.coverage.clocks_ahead_of_leaders += 1;
            leader
        } else {
            let next = (leader + self.rng.usize(1..self.plan.machines)) % self.plan.machines;
            let to = self.machines[next].peer();
            self.input(leader, Input::Transfer { group, to });
            next
        };
        self.machines[machine].wall_jump_ms = DAY_MS;
        self.ahead = Some(machine);
        self.note(&format!("the clock of machine {machine} goes a day forward"));
    }

    /// Whether a machine's clock is a day ahead now.
    pub(super) fn is_ahead(&self, machine: MachineNo) -> bool {
        self.ahead == Some(machine) && self.machines[machine].wall_jump_ms == DAY_MS
    }

    /// Every machine compares its clock with those that it reaches.
    pub(super) fn compare_clocks(&mut self) {
        self.queue.put(self.now_us + COMPARE_US, Event::Clocks);
        let machines = self.plan.machines;
        for machine in 0..machines {
            // A clock that jumped agrees with nobody, but by an accident that proves nothing.
            let machine_at = &self.machines[machine];
            if machine_at.process.is_none() || machine_at.wall_jump_ms != 0 {
                continue;
            }
            let own = self.machines[machine].clocks(self.now_us);
            let says_the_same = |other: &MachineNo| {
                let theirs = self.machines[*other].clocks(self.now_us).wall_ms;
                *other == machine
                    || self.machines[*other].process.is_some()
                        && self.links.joins(machine, *other)
                        && theirs.abs_diff(own.wall_ms) <= SAME_MS
            };
            if (0..machines).filter(says_the_same).count() * 2 > machines {
                self.coverage.clocks_agreed += 1;
                self.checks.stamps.agreed(own.wall_ms, self.now_us / 1_000);
                self.input(machine, Input::ClocksAgree(own));
            }
        }
    }
}
