//! Rows that rot: bytes at rest on one machine are no longer what was written.
//!
//! Whoever reads such a row is told so and gets nothing of it. The rules that meet it stop the group
//! on that machine, which then wants its rows from the leader; where nobody meets it, an operator
//! has the group's rows given anew. Of each group at most one machine has rot at a time, and
//! none while a disk is being replaced: with two replicas of three that take nothing, a group waits
//! for as long as that lasts.
//!
//! Absent: rot in the rows that count for a group as a whole, which a process reads at its start and
//! then does not start. Of rot in the log see [`super::rot_log`].

use std::sync::Arc;

use tl_engine::node::Input;
use tl_raft::Role;
use tl_store::OrderedStore;
use tl_types::{Generation, GroupId, RowKey, Table};

use super::{Phase, World};
use crate::invariants::{Checked, Violation};
use crate::queue::{Event, MachineNo};

/// Between two looks of an operator, microseconds.
pub(super) const LOOK_US: u64 = 400_000;
/// Chance in a million that such a look in the middle of trouble leads to something.
const MEND_PPM: u32 = 100_000;

/// The promise that everything but rot keeps.
pub(super) const DAMAGE: &str = "a store in memory is not damaged";

/// Rows of a group that rot on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotten {
    machine: MachineNo,
    generation: Generation,
}

impl World {
    /// A row of some group rots on a machine that runs.
    pub(super) fn rot(&mut self, machine: MachineNo) {
        let group = GroupId(self.rng.u16(0..self.plan.groups));
        let pick = self.rng.usize(..);
        if self.rotten.contains_key(&group) || self.is_losing() || self.rotten_log.is_some() {
            return;
        }
        let store = &self.machines[machine].store;
        let generation = store.applied(group).generation;
        let wanted = |key: &RowKey| !matches!(key.table(), Table::Applied | Table::Group);
        let Some(key) = store.rot(group, generation, pick, wanted) else { return };
        self.rotten.insert(group, Rotten { machine, generation });
        self.ever_rotten.insert((machine, group));
        self.coverage.rows_rotten += 1;
        self.note(&format!("on machine {machine} a row of group {group} rots: {key:?}"));
    }

    pub(super) fn is_losing(&self) -> bool {
        self.replacing.is_some()
            || self.machines[..self.plan.machines].iter().any(|machine| machine.is_lost)
    }

    /// Whether rows of a group rot on a machine, as it reads them now.
    pub(super) fn is_rotten(&self, machine: MachineNo, group: GroupId) -> bool {
        let generation = self.machines[machine].store.applied(group).generation;
        self.rotten.get(&group) == Some(&Rotten { machine, generation })
    }

    /// What was read on a machine; `None` if that met rot.
    pub(super) fn unless_rotten<T>(
        &mut self,
        machine: MachineNo,
        group: GroupId,
        read: Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        match read {
            Err(violation) if violation.promise == DAMAGE && self.is_rotten(machine, group) => {
                self.coverage.reads_of_rot += 1;
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Rows of a group could not be read for another machine: only rot is a reason.
    pub(super) fn not_given(&mut self, machine: MachineNo, group: GroupId, why: &str) -> Checked {
        if self.ever_rotten.contains(&(machine, group)) {
            self.coverage.rot_not_given += 1;
            return Ok(());
        }
        Err(Violation::new(DAMAGE, format!("machine {machine}, group {group}: {why}")))
    }

    /// Groups stop on a machine: only rot is a reason, of rows or of the log.
    pub(super) fn stopped(
        &mut self,
        machine: MachineNo,
        stopped: Vec<(GroupId, String)>,
    ) -> Checked {
        for (group, why) in stopped {
            let what = format!("group {group} stopped on machine {machine}: {why}");
            let process = self.machines[machine].process.as_ref().expect("it just had a turn");
            let is_doubted = process.node.driver().is_doubted(group);
            if !is_doubted && !self.is_rotten(machine, group) {
                return Err(Violation::new("no group stops without damage", what));
            }
            self.note(&what);
            self.coverage.groups_stopped += u64::from(!is_doubted);
            let process = self.machines[machine].process.as_mut().expect("it just had a turn");
            let applied = process.node.applied(group);
            process.stopped.insert(group, applied);
        }
        Ok(())
    }

    /// A machine goes on with a group from other rows: what rotted is no longer read.
    pub(super) fn no_longer_rotten(&mut self, machine: MachineNo, group: GroupId) {
        if self.rotten.get(&group).is_some_and(|rotten| rotten.machine == machine) {
            self.rotten.remove(&group);
            self.coverage.groups_mended += 1;
        }
    }

    /// An operator looks for rot and has the rows of its groups given anew.
    pub(super) fn mend(&mut self) {
        self.queue.put(self.now_us + LOOK_US, Event::Mend);
        let all: Vec<(GroupId, Rotten)> = self.rotten.iter().map(|(of, at)| (*of, *at)).collect();
        for (group, Rotten { machine, generation }) in all {
            let store = Arc::clone(&self.machines[machine].store);
            let Some(process) = &self.machines[machine].process else { continue };
            if store.applied(group).generation > generation {
                // It went on from other rows in the instant in which it lost power.
                self.no_longer_rotten(machine, group);
                continue;
            }
            let is_stopped = process.stopped.contains_key(&group);
            if is_stopped || self.phase == Phase::Trouble && !self.by_chance(MEND_PPM) {
                continue;
            }
            match self.leader_of(group) {
                Some(leader) if leader == machine => {
                    let other =
                        (machine + self.rng.usize(1..self.plan.machines)) % self.plan.machines;
                    let to = self.machines[other].peer();
                    self.input(machine, Input::Transfer { group, to });
                }
                Some(_) => self.input(machine, Input::Repair(group)),
                None => {}
            }
        }
    }

    /// Who leads a group, in the newest term in which anybody does.
    pub(super) fn leader_of(&self, group: GroupId) -> Option<MachineNo> {
        let leads = |machine: MachineNo| {
            let status = self.machines[machine].process.as_ref()?.node.driver().status(group)?;
            (status.role == Role::Leader).then_some((status.term, machine))
        };
        (0..self.plan.machines).filter_map(leads).max().map(|(_, machine)| machine)
    }
}
