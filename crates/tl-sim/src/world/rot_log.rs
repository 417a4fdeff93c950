//! Logs that rot: durable bytes of a machine's log are noise when it starts again.
//!
//! The machine starts, goes on behind the damage, and is doubted in the groups that may have lost
//! something: it neither votes in them nor acknowledges before their leaders have brought it past that.
//! What it had acknowledged still counts, since nobody is elected without it meanwhile.
//!
//! One machine at a time, and not while a disk is being replaced or rows rot: a group of which two
//! replicas may have forgotten what they said waits for as long as that lasts.
//!
//! Absent: noise in what no mark says was durable, which cannot be told from a torn write; and
//! damage behind which the order of the log is lost, with which a machine does not start.

use std::collections::BTreeSet;

use tl_types::GroupId;

use super::World;
use crate::invariants::{Checked, Violation};
use crate::queue::MachineNo;

/// A machine whose log has rotted, until all its groups are past that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RottenLog {
    pub(super) machine: MachineNo,
    /// It has started since.
    pub(super) is_found: bool,
}

impl World {
    /// A machine goes down, if it is up, and its log rots.
    pub(super) fn rot_log(&mut self, machine: MachineNo) {
        if self.rotten_log.is_some() || self.is_losing() || !self.rotten.is_empty() {
            return;
        }
        if !self.machines[machine].was_used() {
            return;
        }
        if self.machines[machine].process.is_some() {
            self.note(&format!("machine {machine} goes down"));
            if self.rng.bool() {
                self.power_cut(machine);
            } else {
                self.kill(machine);
            }
        }
        let Some(what) = self.machines[machine].rot_log(&self.plan, &mut self.rng) else { return };
        self.rotten_log = Some(RottenLog { machine, is_found: false });
        self.coverage.logs_rotten += 1;
        self.note(&format!("the log of machine {machine} rots: {what}"));
    }

    /// A machine has started: a doubt begins only with damage, and ends only with rows that the log
    /// says are in place. `rows_since` are the groups that it had such a record on the way for.
    pub(super) fn doubts_found(
        &mut self,
        machine: MachineNo,
        doubted: &[GroupId],
        rows_since: impl Fn(GroupId) -> bool,
    ) -> Checked {
        let rotten = self.rotten_log.filter(|rotten| rotten.machine == machine);
        let is_new = rotten.is_some_and(|rotten| !rotten.is_found);
        let now: BTreeSet<GroupId> = doubted.iter().copied().collect();
        let before: BTreeSet<GroupId> = self.doubted.iter().copied().collect();
        if rotten.is_some() {
            for group in before.difference(&now) {
                if !rows_since(*group) {
                    let what = format!("machine {machine}, group {group}: it has no other rows");
                    return Err(Violation::new("a doubt is not forgotten", what));
                }
                self.coverage.doubts_ended += 1;
            }
        }
        let begun = now.iter().find(|group| rotten.is_none() || !before.contains(group));
        if let Some(group) = begun.filter(|_| !is_new) {
            let what = format!("machine {machine}, group {group}: nothing was damaged since");
            return Err(Violation::new("a doubt ends for good", what));
        }
        if rotten.is_none() {
            return Ok(());
        }
        if is_new {
            self.coverage.groups_doubted += now.len() as u64;
            self.note(&format!("machine {machine} is doubted in groups {now:?}"));
        }
        self.doubted = now;
        self.rotten_log = Some(RottenLog { machine, is_found: true });
        self.end_rot_of_log();
        Ok(())
    }

    /// A machine goes on with a group from rows of its leader.
    pub(super) fn no_longer_doubted(&mut self, machine: MachineNo, group: GroupId) {
        if self.rotten_log.is_some_and(|rotten| rotten.machine == machine)
            && self.doubted.remove(&group)
        {
            self.machines[machine].shadow.past_doubt(group);
            self.coverage.doubts_ended += 1;
            self.end_rot_of_log();
        }
    }

    fn end_rot_of_log(&mut self) {
        if self.doubted.is_empty() {
            self.rotten_log = None;
        }
    }
}
