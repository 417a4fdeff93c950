//! Disks that are lost: a machine comes back with nothing, under a number of its own, and whoever
//! leads a group lets that number take the place of the lost one, step by step.
//!
//! What an operator and the member list of a cluster do is done here by looking: at the numbers
//! that machines have, and at who belongs to each group. Only one disk is lost at a time: the next
//! one once every group has the new number and no longer the old one.

use tl_engine::node::Input;
use tl_raft::{MemberChange, Members, PeerId, Role, Token};
use tl_types::GroupId;

use super::{Phase, World};
use crate::machine::founding;
use crate::queue::{Event, MachineNo};

/// Between two looks at who belongs to the groups, microseconds.
pub(super) const LOOK_US: u64 = 200_000;
/// Names of changes; those of clients stay below.
const TOKENS_FROM: u64 = 1 << 60;
/// Chance in a million that a look asks for something that must be refused.
const NONSENSE_PPM: u32 = 50_000;
/// How long a machine is cut off before another one's disk is lost, microseconds.
const LAG_US_MAX: u64 = 2_500_000;

impl World {
    /// The machine that has or had a number.
    pub(super) fn machine_of(&self, peer: PeerId) -> MachineNo {
        self.seats[peer.0 as usize - 1]
    }

    /// Whether a machine has this number now.
    pub(super) fn is_current(&self, peer: PeerId) -> bool {
        self.machines[self.machine_of(peer)].peer() == peer
    }

    /// One machine is cut off and lags; then a second one's disk is lost while a third goes down.
    /// Of three, the one that is left knows less than what was acknowledged.
    pub(super) fn begin_to_lose(&mut self) {
        let machines = self.plan.machines;
        let running = self.machines.iter().filter(|machine| machine.process.is_some()).count();
        if self.replacing.is_some() || running < machines {
            return;
        }
        let lost = self.rng.usize(0..machines);
        let lags = (lost + self.rng.usize(1..machines)) % machines;
        self.links.join(self.now_us);
        for other in (0..machines).filter(|other| *other != lags) {
            self.links.cut(lags, other, self.now_us);
            self.links.cut(other, lags, self.now_us);
        }
        self.links.split += 1;
        let split = self.links.split;
        self.note(&format!("split {split}: machine {lags} alone"));
        let at = self.later_us(LAG_US_MAX);
        self.queue.put(at, Event::Lose { lost, lags, split });
    }

    pub(super) fn lose(&mut self, lost: MachineNo, lags: MachineNo, split: u64) {
        if self.phase != Phase::Trouble || self.replacing.is_some() {
            return;
        }
        let lacks = self.lacks(lags, lost);
        let others = (0..self.plan.machines).filter(|no| ![lost, lags].contains(no));
        let down: Vec<MachineNo> = others.collect();
        let down = down[self.rng.usize(0..down.len())];
        self.wipe(lost);
        if self.machines[down].process.is_some() && self.rng.u8(0..4) > 0 {
            self.note(&format!("machine {down} is killed"));
            self.kill(down);
            self.coverage.disks_lost_with_no_majority +=
                u64::from(lacks && self.plan.machines == 3);
        }
        if self.links.split == split {
            self.links.join(self.now_us);
            self.note("the network is whole again");
        }
    }

    /// Whether a machine lacks something that another one has applied.
    fn lacks(&self, lags: MachineNo, other: MachineNo) -> bool {
        let applied = |no: MachineNo| self.machines[no].process.as_ref().map(|one| &one.applied);
        let (Some(behind), Some(ahead)) = (applied(lags), applied(other)) else { return false };
        behind.iter().zip(ahead).any(|(behind, ahead)| behind < ahead)
    }

    fn wipe(&mut self, machine: MachineNo) {
        self.coverage.disks_lost += 1;
        self.retire(machine);
        self.count_disk(machine);
        self.seats.push(machine);
        let (old, new) = (self.machines[machine].peer(), PeerId(self.seats.len() as u64));
        let shadow = self.machines[machine].wipe(new, &self.plan);
        self.retired.push((old, shadow));
        self.replacing = Some(machine);
        self.note(&format!("the disk of machine {machine} is lost: it was {old} and is {new}"));
        self.start_later(machine);
    }

    /// Whoever leads a group takes the next step.
    pub(super) fn operate(&mut self) {
        let at = self.later_us(2 * LOOK_US);
        self.queue.put(at, Event::Operate);
        let nonsense = self.by_chance(NONSENSE_PPM);
        let Some(replacing) = self.replacing.filter(|_| !nonsense) else {
            if nonsense {
                self.ask_nonsense();
            }
            return;
        };
        let new = self.machines[replacing].peer();
        let mut done = 0;
        for group in (0..self.plan.groups).map(GroupId) {
            let mut is_done = false;
            for machine in 0..self.plan.machines {
                let Some(process) = &self.machines[machine].process else { continue };
                let status = process.node.driver().status(group).expect("every group lives here");
                // What a machine has taken up is committed, whoever it is.
                is_done |= status.members.voters.contains(&new) && !status.members.is_joint();
                if status.role == Role::Leader
                    && let Some(change) = self.step_of(&status.members)
                {
                    self.ask_change(machine, group, change);
                }
            }
            done += u16::from(is_done);
        }
        if done == self.plan.groups {
            self.coverage.disks_replaced += 1;
            self.note(&format!("every group has {new} for what was lost"));
            self.replacing = None;
        }
    }

    /// The next step, found by looking.
    fn step_of(&self, members: &Members) -> Option<MemberChange> {
        if members.is_joint() {
            return Some(MemberChange::LeaveJoint);
        }
        if let Some(gone) = members.learners.iter().find(|peer| !self.is_current(**peer)) {
            return Some(MemberChange::RemoveLearner(*gone));
        }
        let old_out = *members.voters.iter().find(|peer| !self.is_current(**peer))?;
        let new_in = self.machines[self.machine_of(old_out)].peer();
        Some(match members.is_learner(new_in) {
            true => MemberChange::Swap { new_in, old_out },
            false => MemberChange::AddLearner(new_in),
        })
    }

    fn ask_change(&mut self, machine: MachineNo, group: GroupId, change: MemberChange) {
        self.changes_asked += 1;
        let token = Token(TOKENS_FROM + self.changes_asked);
        self.input(machine, Input::ChangeMembers { group, token, change });
    }

    /// What must be refused, wherever it is asked: numbers that were members, voters that are no
    /// learners, and a joint change left where there is none or that is wanted anyway.
    fn ask_nonsense(&mut self) {
        let machine = self.rng.usize(0..self.plan.machines);
        let group = GroupId(self.rng.u16(0..self.plan.groups));
        let founding = founding(self.plan.machines);
        let (one, other) = (self.rng.usize(0..founding.len()), self.rng.usize(0..founding.len()));
        let change = match self.rng.u8(0..4) {
            0 => MemberChange::AddLearner(founding[one]),
            1 => MemberChange::RemoveLearner(founding[one]),
            2 => MemberChange::Swap { new_in: founding[one], old_out: founding[other] },
            _ => MemberChange::LeaveJoint,
        };
        self.ask_change(machine, group, change);
    }
}
