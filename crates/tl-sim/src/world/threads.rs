//! The threads around a driver: the log thread with its syncs, the one that makes segments
//! ahead, the flush thread, and the one that applies entries whose rows must be loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use tl_engine::chain;
use tl_engine::node::Input;
use tl_raft::LogJob;
use tl_store::OrderedStore;
use tl_types::{GroupId, Index};
use tl_wal::WalError;

use super::turns::GATHER_US;
use super::{Phase, World};
use crate::invariants::{Checked, Violation};
use crate::machine::Written;
use crate::queue::{Event, MachineNo};

/// An idle log confirms its end after this, as the shipped log thread does.
const IDLE_MARK_US: u64 = 50_000;
/// A full disk is tried again after this, as the shipped log thread does.
const FULL_DISK_US: u64 = 200_000;
/// A slow sync takes up to this.
const SLOW_SYNC_US: u64 = 600_000;
/// So many times as long as otherwise a flush takes on a slow disk.
const SLOW_FLUSH_TIMES: u64 = 8;
/// Making a segment takes up to this.
const PREPARE_US: u64 = 20_000;

impl World {
    pub(super) fn log_push(&mut self, machine: MachineNo, job: LogJob) {
        let process = self.machines[machine].process.as_mut().expect("it just had a turn");
        process.log.waiting.push_back(job);
        self.log_go_on(machine, GATHER_US / 2);
    }

    /// Lets the log thread take what waits, unless it is at work.
    fn log_go_on(&mut self, machine: MachineNo, within_us: u64) {
        let at = self.later_us(within_us);
        let life = self.machines[machine].life;
        if let Some(process) = &mut self.machines[machine].process
            && !process.log.busy
        {
            process.log.busy = true;
            self.queue.put(at, Event::LogWrite { machine, life });
        }
    }

    pub(super) fn log_write(&mut self, machine: MachineNo) -> Checked {
        let life = self.machines[machine].life;
        let keep_bytes = self.plan.keep_bytes;
        let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
        let written = process.log.write(keep_bytes);
        let begins = process.log.begins.take();
        match written {
            Ok(Written::Nothing) => process.log.busy = false,
            Ok(Written::Yes) => {
                let is_slow = self.machines[machine].slow_until_us > self.now_us;
                let slow = self.phase == Phase::Trouble
                    && (is_slow || self.by_chance(self.plan.slow_sync_ppm));
                self.coverage.slow_syncs += u64::from(slow);
                let takes = if slow { SLOW_SYNC_US } else { self.plan.sync_us_max };
                let at = self.later_us(takes);
                self.queue.put(at, Event::LogSync { machine, life });
                self.prepare_soon(machine);
            }
            Ok(Written::Full) => {
                self.coverage.full_disks += 1;
                self.queue.put(self.now_us + FULL_DISK_US, Event::LogWrite { machine, life });
            }
            Err(error) => return self.log_failed(machine, &error),
        }
        if let Some(begins) = begins {
            self.input(machine, Input::LogBegins(begins));
        }
        Ok(())
    }

    pub(super) fn log_sync(&mut self, machine: MachineNo) -> Checked {
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
        if let Err(error) = process.log.wal.sync() {
            return self.log_failed(machine, &error);
        }
        let jobs = std::mem::take(&mut process.log.syncing);
        process.log.busy = false;
        let batch = process.log.batches;
        for job in jobs {
            self.machines[machine].shadow.confirmed(job);
            self.input(machine, Input::LogDone(job));
        }
        self.log_go_on(machine, 1);
        self.queue.put(self.now_us + IDLE_MARK_US, Event::LogIdle { machine, life, batch });
        Ok(())
    }

    pub(super) fn log_idle(&mut self, machine: MachineNo, batch: u64) -> Checked {
        let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
        if process.log.batches != batch || !process.log.is_idle() {
            return Ok(());
        }
        match process.log.wal.idle_mark() {
            Ok(_) | Err(WalError::Full { .. }) => Ok(()),
            Err(error) => self.log_failed(machine, &error),
        }
    }

    /// The shipped shell stops the node; here the machine then starts again, sometimes after the
    /// page cache has gone too.
    fn log_failed(&mut self, machine: MachineNo, error: &WalError) -> Checked {
        if self.phase != Phase::Trouble {
            let what = format!("machine {machine}: {}", chain(error));
            return Err(Violation::new("a log fails only with its disk", what));
        }
        self.note(&format!("machine {machine} stops: {}", chain(error)));
        if self.rng.bool() {
            self.power_cut(machine)
        } else {
            self.kill(machine)
        }
        Ok(())
    }

    pub(super) fn prepare_soon(&mut self, machine: MachineNo) {
        let at = self.later_us(PREPARE_US);
        let life = self.machines[machine].life;
        if let Some(process) = &mut self.machines[machine].process
            && !process.log.prepare_due
            && process.log.preparer.needed()
        {
            process.log.prepare_due = true;
            self.queue.put(at, Event::Prepare { machine, life });
        }
    }

    pub(super) fn prepare(&mut self, machine: MachineNo) {
        let Some(process) = &mut self.machines[machine].process else { return };
        process.log.prepare_due = false;
        // What fails here is tried again behind the next write; the log makes its own meanwhile.
        if process.log.preparer.work(&mut |_| {}).is_ok() {
            self.prepare_soon(machine);
        }
    }

    // The flush thread, and the thread beside the driver.

    pub(super) fn flush_soon(&mut self, machine: MachineNo) {
        let is_slow = self.machines[machine].slow_until_us > self.now_us;
        let times = if is_slow { SLOW_FLUSH_TIMES } else { 1 };
        let at = self.later_us(times * self.plan.flush_us_max);
        let life = self.machines[machine].life;
        let process = self.machines[machine].process.as_mut().expect("only a running node flushes");
        if !process.flush_due {
            process.flush_due = true;
            self.queue.put(at, Event::Flush { machine, life });
        }
    }

    /// Flushes one memtable and lets the log behind it go, as the shipped shell does, where the
    /// seed says that machines keep little. Elsewhere the log goes once all machines have flushed
    /// past it, so that the log alone brings everybody back. One entry more stays there, because a
    /// log that is read back begins with the position of its first entry, not with that entry.
    pub(super) fn flush(&mut self, machine: MachineNo) -> Checked {
        if self.machines[machine].is_full {
            self.coverage.flushes_without_room += 1;
            let life = self.machines[machine].life;
            self.queue.put(self.now_us + FULL_DISK_US, Event::Flush { machine, life });
            return Ok(());
        }
        let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
        process.flush_due = false;
        let store = Arc::clone(&self.machines[machine].store);
        let damaged = |error| Violation::new("a store in memory is not damaged", chain(&error));
        if !store.flush_one().map_err(damaged)? {
            store.compact_step().map_err(damaged)?;
            return Ok(());
        }
        self.coverage.flushes += 1;
        let groups = self.plan.groups;
        if self.plan.little.is_some() {
            let durable = self.machines[machine].durable(groups);
            let durable = (0..groups).map(GroupId).zip(durable).collect();
            if let Some(process) = &mut self.machines[machine].process {
                process.log.release = Some(durable);
            }
            self.log_go_on(machine, GATHER_US);
            self.flush_soon(machine);
            // Somebody may wait for this flush.
            self.wake(machine);
            return Ok(());
        }
        let mut everywhere = self.machines[0].durable(groups);
        for other in &self.machines[1..self.plan.machines] {
            for (least, durable) in everywhere.iter_mut().zip(other.durable(groups)) {
                *least = (*least).min(durable);
            }
        }
        let everywhere: BTreeMap<GroupId, Index> = (0..groups)
            .map(GroupId)
            .zip(everywhere.into_iter().map(|index| Index(index.0.saturating_sub(1))))
            .collect();
        let indexes = everywhere.iter().map(|(group, index)| (*group, *index)).collect();
        if let Some(process) = &mut self.machines[machine].process {
            process.log.release = Some(everywhere);
        }
        self.log_go_on(machine, GATHER_US);
        self.input(machine, Input::Flushed(indexes));
        self.flush_soon(machine);
        Ok(())
    }

    pub(super) fn aside(&mut self, machine: MachineNo) {
        let store = Arc::clone(&self.machines[machine].store);
        let Some(process) = &mut self.machines[machine].process else { return };
        let aside = process.asides.pop_front().expect("one event for each piece of work");
        let done = aside.run(&*store);
        self.input(machine, Input::AsideDone(done));
    }

    pub(super) fn beside(&mut self, machine: MachineNo) {
        let store = Arc::clone(&self.machines[machine].store);
        let Some(process) = &mut self.machines[machine].process else { return };
        let beside = process.beside.pop_front().expect("one event for each entry beside");
        let done = beside.run(&*store);
        self.input(machine, Input::BesideDone(done));
    }
}
