//! What goes wrong, and when.

use tl_engine::node::Input;
use tl_types::GroupId;

use super::{Phase, World};
use crate::invariants::Checked;
use crate::queue::{Event, MachineNo};

/// A kind of fault; each comes again and again, at random instants around its own mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One machine loses power.
    PowerCut,
    /// One process is killed.
    Kill,
    /// All machines lose power at once.
    Blackout,
    /// One of a disk's next syncs fails.
    SyncError,
    /// A disk has no room for new files for a while.
    DiskFull,
    /// Some links are cut for a while.
    Split,
    /// A driver stands still for a while.
    Stall,
    /// A wall clock jumps, up to a day, forward or back.
    WallJump,
    /// A machine is asked to hand the groups that it leads to others.
    HandOver,
    /// A machine goes away for long.
    Away,
    /// A machine that is taking rows of another one goes down.
    KillTaking,
    /// A machine's disk is lost, while another one lags and a third goes down.
    Lose,
    /// A disk is slow for a while.
    SlowDisk,
    /// A row rots on the disk of one machine.
    Rot,
    /// The log of one machine rots.
    LogRot,
    /// A wall clock goes a day forward where it matters most, or back.
    ClockDay,
}

const ALL: [Fault; 16] = [
    Fault::PowerCut,
    Fault::Kill,
    Fault::Blackout,
    Fault::SyncError,
    Fault::DiskFull,
    Fault::Split,
    Fault::Stall,
    Fault::WallJump,
    Fault::HandOver,
    Fault::Away,
    Fault::KillTaking,
    Fault::Lose,
    Fault::SlowDisk,
    Fault::Rot,
    Fault::ClockDay,
    Fault::LogRot,
];

/// A stopped machine stays down for at least this long, milliseconds.
const DOWN_MS_MIN: u64 = 20;
/// A disk is full for up to this long, microseconds.
const FULL_US_MAX: u64 = 3_000_000;
/// A disk is slow for up to this long, microseconds.
const SLOW_US_MAX: u64 = 8_000_000;
/// A driver stands still for up to this long, microseconds.
const STALL_US_MAX: u64 = 2_500_000;
/// How far a wall clock jumps, milliseconds.
const JUMP_MS_MAX: i64 = 24 * 60 * 60 * 1_000;

impl World {
    fn mean_ms(&self, fault: Fault) -> u64 {
        match fault {
            Fault::PowerCut => self.plan.power_cut_mean_ms,
            Fault::Kill => self.plan.kill_mean_ms,
            Fault::Blackout => self.plan.blackout_mean_ms,
            Fault::SyncError => self.plan.sync_error_mean_ms,
            Fault::DiskFull => self.plan.disk_full_mean_ms,
            Fault::Split => self.plan.split_mean_ms,
            Fault::Stall => self.plan.stall_mean_ms,
            Fault::WallJump => self.plan.wall_jump_mean_ms,
            Fault::HandOver => self.plan.hand_over_mean_ms,
            Fault::Away => self.plan.little.map_or(0, |little| little.away_mean_ms),
            Fault::KillTaking => self.plan.little.map_or(0, |little| little.kill_taking_mean_ms),
            Fault::Lose => self.plan.lose_mean_ms,
            Fault::SlowDisk => self.plan.slow_disk_mean_ms,
            Fault::Rot => self.plan.rot_mean_ms,
            Fault::LogRot => self.plan.log_rot_mean_ms,
            Fault::ClockDay => self.plan.clock_day_mean_ms,
        }
    }

    pub(super) fn begin_faults(&mut self) {
        for fault in ALL {
            self.next_fault(fault);
        }
    }

    /// Puts the next fault of a kind into the queue.
    fn next_fault(&mut self, kind: Fault) {
        let mean_ms = self.mean_ms(kind);
        if mean_ms > 0 {
            let at = self.later_us(2 * mean_ms * 1_000);
            self.queue.put(at, Event::Fault { kind });
        }
    }

    pub(super) fn fault(&mut self, kind: Fault) -> Checked {
        if self.phase != Phase::Trouble {
            return Ok(());
        }
        self.next_fault(kind);
        let machine = self.rng.usize(0..self.plan.machines);
        let runs = self.machines[machine].process.is_some();
        match kind {
            Fault::PowerCut if runs => {
                self.note(&format!("machine {machine} loses power"));
                self.power_cut(machine);
            }
            Fault::Kill if runs => {
                self.note(&format!("machine {machine} is killed"));
                self.kill(machine);
            }
            Fault::Blackout => {
                self.note("all machines lose power");
                self.coverage.blackouts += 1;
                for machine in 0..self.plan.machines {
                    if self.machines[machine].process.is_some() {
                        self.power_cut(machine);
                    }
                }
            }
            Fault::SyncError if runs => {
                let after = self.rng.u64(0..20);
                self.machines[machine].disk.fail_sync(after);
            }
            Fault::DiskFull if runs => {
                self.note(&format!("the disk of machine {machine} is full"));
                self.machines[machine].disk.set_free_bytes(Some(0));
                self.machines[machine].is_full = true;
                let at = self.later_us(FULL_US_MAX);
                self.queue.put(at, Event::Room { machine });
            }
            Fault::Split => self.split(),
            Fault::Stall => {
                let until = self.later_us(STALL_US_MAX);
                if let Some(process) = &mut self.machines[machine].process {
                    process.stalled_until_us = until;
                    self.coverage.stalls += 1;
                    self.note(&format!("machine {machine} stands still"));
                }
            }
            Fault::WallJump => {
                self.coverage.wall_jumps += 1;
                let jump = self.rng.i64(-JUMP_MS_MAX..=JUMP_MS_MAX);
                self.machines[machine].wall_jump_ms = jump;
            }
            Fault::HandOver if runs => {
                self.coverage.hand_overs += 1;
                for group in (0..self.plan.groups).map(GroupId) {
                    let to = self.rng.usize(0..self.plan.machines);
                    let to = self.machines[to].peer();
                    self.input(machine, Input::Transfer { group, to });
                }
            }
            Fault::Away if runs && self.machines.iter().all(|one| one.process.is_some()) => {
                self.go_away(machine);
            }
            Fault::KillTaking => {
                let takes = |no: &MachineNo| {
                    let process = self.machines[*no].process.as_ref();
                    process.is_some_and(|process| process.node.taking().next().is_some())
                };
                if let Some(machine) = (0..self.plan.machines).find(takes) {
                    self.coverage.kills_taking += 1;
                    self.note(&format!("machine {machine} goes down while it is taking rows"));
                    if self.rng.bool() {
                        self.power_cut(machine);
                    } else {
                        self.kill(machine);
                    }
                }
            }
            Fault::Lose => self.begin_to_lose(),
            Fault::SlowDisk if runs => {
                self.coverage.slow_disks += 1;
                self.note(&format!("the disk of machine {machine} is slow"));
                self.machines[machine].slow_until_us = self.later_us(SLOW_US_MAX);
            }
            Fault::Rot if runs => self.rot(machine),
            Fault::LogRot => self.rot_log(machine),
            Fault::ClockDay => self.clock_day(),
            Fault::SlowDisk
            | Fault::Rot
            | Fault::PowerCut
            | Fault::Kill
            | Fault::Away
            | Fault::SyncError
            | Fault::DiskFull
            | Fault::HandOver => {}
        }
        Ok(())
    }

    /// Cuts links: some machines off, one direction, everybody apart, or a single pair.
    fn split(&mut self) {
        self.coverage.splits += 1;
        self.links.join(self.now_us);
        let machines = self.plan.machines;
        let one = self.rng.usize(0..machines);
        let kind = self.rng.u8(0..5);
        // From one machine up to as many as there are on the other side, one less.
        let side = if machines == 3 { 1 } else { self.rng.usize(1..machines - 1) };
        let within = |machine: MachineNo| (machine + machines - one) % machines < side;
        for from in 0..machines {
            for to in (0..machines).filter(|to| *to != from) {
                let cut = match kind {
                    // Only one direction is cut.
                    1 => !within(from) && within(to),
                    2 => within(from) && !within(to),
                    // Everybody alone.
                    3 => true,
                    // Only one pair does not hear each other.
                    4 => {
                        from.min(to) == one.min((one + 1) % machines)
                            && from.max(to) == one.max((one + 1) % machines)
                    }
                    _ => within(from) != within(to),
                };
                if cut {
                    self.links.cut(from, to, self.now_us);
                }
            }
        }
        self.links.split += 1;
        let split = self.links.split;
        self.note(&format!(
            "split {split} of kind {kind} around machine {one}, {side} on its side"
        ));
        let at = self.later_us(self.plan.split_ms_max * 1_000);
        self.queue.put(at, Event::Rejoin { split });
    }

    pub(super) fn power_cut(&mut self, machine: MachineNo) {
        self.coverage.power_cuts += 1;
        let seed = self.rng.u64(..);
        self.retire(machine);
        self.machines[machine].cut_power(self.now_us, seed);
        self.start_later(machine);
    }

    pub(super) fn kill(&mut self, machine: MachineNo) {
        self.coverage.kills += 1;
        self.retire(machine);
        self.machines[machine].kill();
        self.start_later(machine);
    }

    /// One machine goes away for long while the others go on.
    fn go_away(&mut self, machine: MachineNo) {
        let Some(little) = self.plan.little else { return };
        self.coverage.aways += 1;
        self.retire(machine);
        self.machines[machine].kill();
        let away_ms = self.rng.u64(little.away_ms_max / 2..=little.away_ms_max);
        self.note(&format!("machine {machine} goes away for {away_ms} ms"));
        let life = self.machines[machine].life;
        self.queue.put(self.now_us + away_ms * 1_000, Event::Start { machine, life });
    }

    /// Counts what a process did before it goes.
    pub(super) fn retire(&mut self, machine: MachineNo) {
        if let Some(process) = &self.machines[machine].process {
            let counts = process.node.catch_up_counts();
            self.coverage.transfers_let_go += counts.let_go;
            self.coverage.bytes_resumed += counts.bytes_resumed;
            self.coverage.bytes_alike += counts.bytes_alike;
            self.coverage.segments_begun += process.log.wal.counts().rotations;
            self.coverage.segments_released += process.log.released;
        }
    }

    pub(super) fn start_later(&mut self, machine: MachineNo) {
        let down_ms = self.rng.u64(DOWN_MS_MIN..=self.plan.down_ms_max);
        let life = self.machines[machine].life;
        self.queue.put(self.now_us + down_ms * 1_000, Event::Start { machine, life });
    }

    /// Trouble ends: everything is up, clean and roomy, and each group is asked for one write.
    pub(super) fn heal(&mut self) -> Checked {
        self.note("trouble ends");
        self.end_former();
        self.links.heal(self.now_us);
        for machine in 0..self.plan.machines {
            self.machines[machine].disk.set_free_bytes(None);
            self.machines[machine].is_full = false;
            self.machines[machine].slow_until_us = 0;
            self.machines[machine].disk.fail_sync(u64::MAX);
            let is_lost = self.machines[machine].is_lost;
            match &mut self.machines[machine].process {
                Some(process) => process.stalled_until_us = 0,
                // It is still to be given a number.
                None if is_lost => {}
                None => self.start(machine)?,
            }
            self.wake(machine);
        }
        self.begin_probes();
        Ok(())
    }

    /// Adds up what disks and logs have counted.
    pub(super) fn count_disks(&mut self) {
        for machine in 0..self.plan.machines {
            self.retire(machine);
            self.count_disk(machine);
        }
    }

    pub(super) fn count_disk(&mut self, machine: MachineNo) {
        let counts = self.machines[machine].disk.counts();
        self.coverage.lost_bytes += counts.lost_bytes;
        self.coverage.torn_writes += counts.torn_writes;
        self.coverage.sync_errors += counts.sync_errors;
    }
}
