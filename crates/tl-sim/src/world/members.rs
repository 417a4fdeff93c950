//! Disks that are lost: a machine comes back with nothing, under a number of its own, and whoever
//! leads a group lets that number take the place of the lost one, step by step.
//!
//! The steps are those of the shipped planner (`tl_engine::ops::plan`), by the list of members that
//! each machine has heard of: machines hear of a new list one after the other, and until then they
//! go by an old one.
//!
//! A machine may lose its new disk again before that counts everywhere. Of five machines a second one
//! may lose its disk meanwhile, also while a group is between two majorities; as an operator must, it
//! waits for its new number until the first one has been replaced. More disks than a minority
//! are never lost at a time. Some that are taken for lost go on running, see [`super::former`].

use std::collections::BTreeMap;

use tl_engine::node::Input;
use tl_engine::ops::look::look;
use tl_engine::ops::plan::{Wanted, due};
use tl_raft::{MemberChange, PeerId, Token};
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
/// Chance in a million that a machine hears of the newest list between two looks, while there is
/// trouble.
const HEAR_PPM: u32 = 200_000;
/// Chance in a million that what is replaced goes on running.
const LEFT_RUNNING_PPM: u32 = 300_000;
/// Chance in a million that a disk is lost at a look that finds a group between two majorities.
const LOSE_IN_JOINT_PPM: u32 = 30_000;
/// How long a machine is cut off before another one's disk is lost, microseconds.
const LAG_US_MAX: u64 = 2_500_000;

/// The list of members that a cluster is founded with.
pub(super) fn founding_list(machines: usize) -> Wanted {
    let peers = founding(machines).into_iter().collect();
    Wanted { peers, next_peer: PeerId(machines as u64 + 1), heirs: BTreeMap::new() }
}

impl World {
    /// The machine that has or had a number.
    pub(super) fn machine_of(&self, peer: PeerId) -> MachineNo {
        self.seats[peer.0 as usize - 1]
    }

    /// Whether one more disk may be lost, this one: more than a minority never are.
    fn may_lose(&self, lost: MachineNo) -> bool {
        let is_lost = |no: &MachineNo| self.replacing == Some(*no) || self.machines[*no].is_lost;
        let others = (0..self.plan.machines).filter(|no| *no != lost && is_lost(no)).count();
        others < (self.plan.machines - 1) / 2
            && !self.machines[lost].is_lost
            && self.rotten.is_empty()
            && self.rotten_log.is_none()
    }

    /// A machine whose disk may be lost; where one is being replaced, often that one.
    fn one_to_lose(&mut self) -> Option<MachineNo> {
        let any = self.rng.usize(0..self.plan.machines);
        let lost = self.replacing.filter(|_| self.rng.bool()).unwrap_or(any);
        self.may_lose(lost).then_some(lost)
    }

    /// One machine is cut off and lags; then a second one's disk is lost while a third goes down.
    /// Of three, the one that is left knows less than what was acknowledged.
    pub(super) fn begin_to_lose(&mut self) {
        let machines = self.plan.machines;
        let is_there = |no: MachineNo| {
            let machine = &self.machines[no];
            machine.process.is_some() || machine.is_lost
        };
        if !(0..machines).all(is_there) {
            return;
        }
        let Some(lost) = self.one_to_lose() else { return };
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
        if self.phase != Phase::Trouble || !self.may_lose(lost) {
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
        self.coverage.disks_lost_in_joint_changes += u64::from(self.is_joint());
        let is_again = self.replacing == Some(machine);
        self.coverage.disks_lost_again += u64::from(is_again);
        self.coverage.second_disks_lost += u64::from(!is_again && self.replacing.is_some());
        self.retire(machine);
        let runs = self.machines[machine].process.is_some();
        if runs && !self.has_former() && self.by_chance(LEFT_RUNNING_PPM) {
            self.leave_behind(machine);
        } else {
            self.count_disk(machine);
            let old = self.machines[machine].peer();
            let shadow = self.machines[machine].lose_disk(&self.plan);
            self.retired.push((old, shadow));
            self.note(&format!("the disk of machine {machine} is lost, number {old}"));
        }
        if is_again || self.replacing.is_none() {
            self.give_number(machine);
        }
    }

    /// A machine whose disk was lost gets a number that nobody ever had, and everybody is going to
    /// hear of it.
    fn give_number(&mut self, machine: MachineNo) {
        self.seats.push(machine);
        let new = PeerId(self.seats.len() as u64);
        let list = self.lists.len();
        self.machines[machine].begin_anew(new, list);
        // One that is still to be replaced is on the list by the number that was lost.
        let (peers, next_peer) = (self.present(), PeerId(new.0 + 1));
        let former = (1..=new.0).map(PeerId).filter(|peer| !peers.contains(peer));
        let heirs = former.map(|peer| (peer, self.machines[self.machine_of(peer)].peer()));
        let heirs = heirs.collect();
        self.lists.push(Wanted { peers, next_peer, heirs });
        self.replacing = Some(machine);
        self.note(&format!("machine {machine} is number {new}"));
        self.start_later(machine);
    }

    /// Whether some group is between two majorities, as far as anybody sees.
    fn is_joint(&self) -> bool {
        self.machines.iter().filter_map(|machine| machine.process.as_ref()).any(|process| {
            let status = |no| process.node.driver().status(GroupId(no));
            (0..self.plan.groups).filter_map(status).any(|status| status.members.is_joint())
        })
    }

    /// Whoever leads a group takes the next step, by the list that it has heard of.
    pub(super) fn operate(&mut self) {
        let at = self.later_us(2 * LOOK_US);
        self.queue.put(at, Event::Operate);
        if self.by_chance(NONSENSE_PPM) {
            return self.ask_nonsense();
        }
        self.hear_of_lists();
        for machine in 0..self.machines.len() {
            let Some(process) = &self.machines[machine].process else { continue };
            let looks =
                look(process.node.driver(), self.plan.groups, |group| process.node.applied(group));
            let list = self.machines[machine].list;
            let is_old = list + 1 < self.lists.len();
            for (group, change) in due(&looks, |_| self.lists[list].clone()) {
                self.coverage.steps_by_an_old_list += u64::from(is_old);
                self.ask_change(machine, group, change);
            }
        }
        self.count_replaced();
        if self.phase == Phase::Trouble
            && self.is_joint()
            && self.by_chance(LOSE_IN_JOINT_PPM)
            && let Some(lost) = self.one_to_lose()
        {
            self.wipe(lost);
        }
    }

    fn hear_of_lists(&mut self) {
        let newest = self.lists.len() - 1;
        for machine in 0..self.plan.machines {
            let hears = self.phase != Phase::Trouble || self.by_chance(HEAR_PPM);
            let machine = &mut self.machines[machine];
            if hears && machine.process.is_some() {
                machine.list = newest;
            }
        }
    }

    /// Once every group has the new number for the lost one, the next lost disk has its turn.
    fn count_replaced(&mut self) {
        let Some(replacing) = self.replacing else { return };
        let new = self.machines[replacing].peer();
        let is_done = |group: GroupId| {
            self.machines.iter().filter_map(|machine| machine.process.as_ref()).any(|process| {
                // What a machine has taken up is committed, whoever it is.
                let status = process.node.driver().status(group);
                let members = status.expect("every group lives here").members;
                members.voters.contains(&new) && !members.is_joint()
            })
        };
        if (0..self.plan.groups).map(GroupId).all(is_done) {
            self.coverage.disks_replaced += 1;
            self.note(&format!("every group has {new} for what was lost"));
            self.replacing = None;
            if let Some(next) = self.lost() {
                self.give_number(next);
            }
        }
    }

    /// A machine that waits for its new number.
    fn lost(&self) -> Option<MachineNo> {
        self.machines[..self.plan.machines].iter().position(|machine| machine.is_lost)
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
