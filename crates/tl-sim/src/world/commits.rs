//! What leaders commit, seen in the turn in which they do it and held against the disks of those
//! who count.

use tl_raft::{Members, Role};
use tl_types::{GroupId, Index};

use super::World;
use crate::invariants::{Checked, Violation, members, one_life, synced_quorum};
use crate::queue::MachineNo;

impl World {
    /// Looks at the groups that a machine leads, or led before the turn that it just had.
    pub(super) fn commits_of(&mut self, machine: MachineNo) -> Checked {
        let process = self.machines[machine].process.as_mut().expect("it just had a turn");
        let led = std::mem::take(&mut process.leads);
        for group in (0..self.plan.groups).map(GroupId) {
            let process = self.machines[machine].process.as_ref().expect("it just had a turn");
            let driver = process.node.driver();
            let before = led.get(&group);
            // Who leads knows of itself how far it has confirmed.
            if before.is_none() && driver.matched(group, self.machines[machine].peer()).is_none() {
                continue;
            }
            let status = driver.status(group).expect("every group lives here");
            let leads = status.role == Role::Leader;
            let seen = self.committed[usize::from(group.0)];
            for index in (seen.0 + 1..=status.committed.0).map(Index) {
                let by = before.into_iter().chain([&status.members]);
                if let Err(violation) = self.committed_one(machine, group, index, by) {
                    if leads {
                        return Err(violation);
                    }
                    // It may have heard of it from the one that leads now.
                    break;
                }
            }
            if leads {
                if status.committed > seen {
                    let all = &self.members[usize::from(group.0)];
                    members::in_force(machine, group, &status.members, status.applied, all)?;
                }
                let process = self.machines[machine].process.as_mut().expect("it had a turn");
                process.leads.insert(group, status.members);
            }
        }
        Ok(())
    }

    fn committed_one<'a>(
        &mut self,
        machine: MachineNo,
        group: GroupId,
        index: Index,
        by: impl IntoIterator<Item = &'a Members>,
    ) -> Checked {
        let at = usize::from(group.0);
        let Some(entry) = self.machines[machine].shadow.group(group).get(index) else {
            let what = format!("machine {machine}, group {group}: entry {index}");
            return Err(Violation::new("what is committed is in the leader's log", what));
        };
        synced_quorum::check(group, index, entry.term, by, |peer| {
            self.shadow_of(peer).group(group).has_confirmed(index, entry)
        })?;
        self.coverage.commits_seen += 1;
        self.committed[at] = index;
        if let Some(members) = self.proposed.get(&(group, index, entry.term)) {
            one_life::counts_once(group, members, |peer| self.machine_of(peer))?;
            self.members[at].push(members.clone());
            self.coverage.changes_made += 1;
        }
        Ok(())
    }
}
