//! Numbers that go on running after they were replaced: a machine that hung, was cut off, or was given
//! up too early.
//!
//! Its disk and rows go on at a place of their own behind all machines, under the old number and with
//! the old list of members, while the machine gets a new number. Whoever has heard of a list on which a
//! number is over sends it nothing more and refuses what it says; it may hear that, and ends then.
//! There is one such life at a time, and the end of trouble ends it. Machines that are cut off from a
//! majority are cut off from it too.

use std::collections::BTreeSet;

use tl_raft::PeerId;

use super::World;
use crate::queue::MachineNo;
use crate::shadow::Shadow;

/// Chance in a million that a former life hears why it is refused.
const HEARS_PPM: u32 = 100_000;
/// Chance in a million that a request goes to a former life that runs.
const ASKED_PPM: u32 = 100_000;

impl World {
    /// Where a former life runs.
    pub(super) fn former(&self) -> MachineNo {
        self.plan.machines
    }

    /// Whether a former life is there, running or about to.
    pub(super) fn has_former(&self) -> bool {
        self.machines.get(self.former()).is_some_and(|former| !former.is_lost)
    }

    /// What a machine is goes on elsewhere under its old number.
    pub(super) fn leave_behind(&mut self, machine: MachineNo) {
        let at = self.former();
        let other = self.machines[machine].another(&self.plan);
        let mut former = std::mem::replace(&mut self.machines[machine], other);
        former.kill();
        former.no = at;
        let before = self.machines.get(at).map_or(0, |before| before.life);
        former.life = former.life.max(before) + 1;
        self.coverage.numbers_left_running += 1;
        self.note(&format!("number {} of machine {machine} is left running", former.peer()));
        self.machines.truncate(at);
        self.machines.push(former);
        self.seen.resize(at + 1, vec![0; self.workload.sessions.len()]);
        self.start_later(at);
    }

    pub(super) fn end_former(&mut self) {
        if !self.has_former() {
            return;
        }
        let at = self.former();
        self.retire(at);
        self.count_disk(at);
        let peer = self.machines[at].peer();
        let shadow = self.machines[at].lose_disk(&self.plan);
        self.retired.push((peer, shadow));
        self.note(&format!("the former life {peer} ends"));
    }

    /// The machine that goes by a number now.
    pub(super) fn host_of(&self, peer: PeerId) -> Option<MachineNo> {
        self.machines.iter().position(|machine| machine.peer() == peer && !machine.is_lost)
    }

    /// Whether one of two is a former life and the other a machine on a side without a majority: with
    /// its help that side might be one.
    pub(super) fn is_cut_from_former(&self, one: MachineNo, other: MachineNo) -> bool {
        let machine = if one == self.former() { other } else { one };
        one.max(other) == self.former() && self.links.alone_since(machine).is_some()
    }

    /// Whether a machine has heard that a number is over.
    pub(super) fn is_over_for(&self, machine: MachineNo, peer: PeerId) -> bool {
        let list = &self.lists[self.machines[machine].list];
        peer < list.next_peer && !list.peers.contains(&peer)
    }

    /// A machine refuses what a number says because that is over.
    pub(super) fn refuse_former(&mut self, peer: PeerId) {
        self.coverage.former_lives_refused += 1;
        if self.has_former()
            && self.machines[self.former()].peer() == peer
            && self.by_chance(HEARS_PPM)
        {
            self.end_former();
        }
    }

    /// Some requests go to a former life, while there is one.
    pub(super) fn perhaps_former(&mut self, machine: MachineNo) -> MachineNo {
        if !self.has_former() || !self.by_chance(ASKED_PPM) {
            return machine;
        }
        self.coverage.former_lives_asked += 1;
        self.former()
    }

    /// What is known of the log of a number, also of one whose disk is lost.
    pub(super) fn shadow_of(&self, peer: PeerId) -> &Shadow {
        if let Some((_, shadow)) = self.retired.iter().find(|(retired, _)| *retired == peer) {
            return shadow;
        }
        let host = self.host_of(peer).expect("a number that is not lost is somewhere");
        &self.machines[host].shadow
    }

    /// The numbers that machines have now.
    pub(super) fn present(&self) -> BTreeSet<PeerId> {
        self.machines[..self.plan.machines].iter().map(|machine| machine.peer()).collect()
    }
}
