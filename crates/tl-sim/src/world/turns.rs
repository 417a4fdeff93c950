//! What machines do: turns of the driver, and the threads around it.

use std::collections::BTreeSet;

use bytes::Bytes;
use tl_core::Effect;
use tl_engine::chain;
use tl_engine::node::{Done, Input, Turned, fetch};
use tl_raft::{DOUBTED, LogJob, Members, PeerId, Role};
use tl_types::{GroupId, Index, Term};
use tl_wal::Record;
use xxhash_rust::xxh3::xxh3_64;

use super::{Phase, TICK_US, World};
use crate::invariants::{
    Checked, SessionNo, Violation, confirmed_log, damaged, elections, one_life, synced_quorum,
};
use crate::queue::{Event, MachineNo};

/// What comes in within this time goes into one turn, microseconds.
pub(super) const GATHER_US: u64 = 200;
/// Chance in a million that the power goes in a turn which decides to go on from other rows.
const CRASH_INSTALLING_PPM: u32 = 200_000;

impl World {
    /// Starts a process on a machine.
    pub(super) fn start(&mut self, machine: MachineNo) -> Checked {
        let (now_us, seed) = (self.now_us, self.rng.u64(..));
        let again = self.machines[machine].was_used();
        let started = self.machines[machine].start(now_us, &self.plan, seed);
        let (found, before) = started.map_err(|error| {
            let what = format!("machine {machine} does not start: {}", chain(&error));
            Violation::new("a machine starts from what a crash left", what)
        })?;
        let life = self.machines[machine].life;
        self.note(&format!(
            "machine {machine} starts, {} entries behind its rows{}",
            found.entries,
            if found.cut.is_some() { ", a torn write cut off" } else { "" }
        ));
        self.coverage.restarts += u64::from(again);
        self.coverage.torn_tails_cut += u64::from(found.cut.is_some());
        let durable = self.machines[machine].durable(self.plan.groups);
        let doubted = &found.doubted;
        let after = &self.machines[machine].shadow;
        confirmed_log::survived(machine, &before, after, &durable, |it| doubted.contains(&it))?;
        self.doubts_found(machine, doubted, |group| before.group(group).has_rows)?;
        self.seen[machine].fill(0);
        let phase_us = self.rng.u64(0..TICK_US);
        self.queue.put(now_us + phase_us, Event::Tick { machine, life });
        self.wake(machine);
        self.prepare_soon(machine);
        Ok(())
    }

    /// Lets the driver run soon.
    pub(super) fn wake(&mut self, machine: MachineNo) {
        let at = self.later_us(GATHER_US);
        let life = self.machines[machine].life;
        if let Some(process) = &mut self.machines[machine].process
            && !process.turn_due
        {
            process.turn_due = true;
            self.queue.put(at, Event::Turn { machine, life });
        }
    }

    pub(super) fn input(&mut self, machine: MachineNo, input: Input) {
        if let Some(process) = &mut self.machines[machine].process {
            process.inbox.push(input);
            self.wake(machine);
        }
    }

    pub(super) fn turn(&mut self, machine: MachineNo) -> Checked {
        let now = self.machines[machine].clocks(self.now_us);
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
        if process.stalled_until_us > self.now_us {
            let at = process.stalled_until_us;
            self.queue.put(at, Event::Turn { machine, life });
            return Ok(());
        }
        process.turn_due = false;
        let turned = process.node.turn(now, &mut process.inbox);
        let installs = turned.log.as_ref().is_some_and(|job| {
            job.records.iter().any(|record| matches!(record, Record::Installed { .. }))
        });
        let crash_ppm = if installs { CRASH_INSTALLING_PPM } else { self.plan.crash_in_turn_ppm };
        self.commits_of(machine)?;
        if self.phase == Phase::Trouble && self.by_chance(crash_ppm) {
            self.coverage.crashes_installing += u64::from(installs);
            return self.crash_in_turn(machine, turned);
        }
        self.act(machine, turned)
    }

    /// The power goes after the driver has decided and before all of it is done: a first part of
    /// the frames is out, nobody has been answered, and the log job, or a first part of it, may or may not
    /// be written.
    fn crash_in_turn(&mut self, machine: MachineNo, turned: Turned) -> Checked {
        self.coverage.crashes_in_turn += 1;
        if let Some(mut job) = turned.log {
            self.log_checks(machine, &job.records)?;
            self.machines[machine].shadow.given_out(&job);
            job.records.truncate(part_of(&job.records, self.now_us));
            if self.rng.bool()
                && let Some(process) = &mut self.machines[machine].process
                && !process.log.busy
            {
                process.log.waiting.push_back(job);
                // A disk that fails here fails a process that is about to end anyway.
                let _ = process.log.write(self.plan.keep_bytes);
            }
        }
        let out = self.rng.usize(0..=turned.frames.len());
        for (to, frame) in turned.frames.into_iter().take(out) {
            self.send(machine, to, frame);
        }
        self.note(&format!("machine {machine} loses power in the middle of a turn"));
        self.power_cut(machine);
        Ok(())
    }

    /// Looks at what a machine is going to write to its log.
    fn log_checks(&mut self, machine: MachineNo, records: &[Record]) -> Checked {
        for record in records {
            match record {
                Record::Entry { group, term, index, data } => {
                    self.checks.log_matching.wrote(*group, *index, *term, xxh3_64(data))?;
                    if let Some(members) = Members::of_entry(*index, data) {
                        let members = members.expect("a log holds members that can be read");
                        self.proposed.insert((*group, *index, *term), members);
                    }
                }
                // What it voted may be forgotten; it says so, and votes no more.
                Record::HardState { vote: DOUBTED, .. } => {}
                Record::HardState { group, term, vote } => {
                    let before = self.machines[machine].shadow.group(*group).voted;
                    elections::votes(machine, *group, before, (*term, *vote))?;
                    let peer = self.machines[machine].peer();
                    if *vote == peer.0 {
                        let founding = self.members[usize::from(group.0)].first();
                        let all =
                            (*group, Index(0), Term(0))..=(*group, Index(u64::MAX), Term(u64::MAX));
                        let proposed = self.proposed.range(all).map(|(_, members)| members);
                        one_life::stands(*group, peer, founding.into_iter().chain(proposed))?;
                    }
                }
                Record::Membership { .. } | Record::Installed { .. } => {}
            }
        }
        Ok(())
    }

    /// A machine leads: all that was committed before is in its log, on disk or on the way there.
    fn leads_with_all(&mut self, machine: MachineNo, group: GroupId, term: Term) -> Checked {
        let log = self.machines[machine].shadow.group(group);
        let has = |index| log.get(index).map(|entry| (entry.term, entry.hash));
        self.coverage.leaders_compared += 1;
        self.checks.leader_completeness.led(machine, (group, term), log.first(), has)
    }

    /// Does what a turn decided, in the order in which the shipped shell does it.
    fn act(&mut self, machine: MachineNo, turned: Turned) -> Checked {
        if let Some(rejected) = turned.rejected.first() {
            self.trace.mix(&[rejected.from.0, rejected.reason.len() as u64]);
        }
        let life = self.machines[machine].life;
        self.trace.mix(&[
            self.now_us,
            machine as u64,
            turned.applied as u64,
            turned.done.len() as u64,
            turned.frames.len() as u64,
        ]);
        for change in &turned.roles {
            self.trace.mix(&[u64::from(change.group.0), change.term.0, change.role as u64]);
            if change.role == Role::Leader {
                let process = self.machines[machine].process.as_ref().expect("it had a turn");
                let is_stopped = process.stopped.contains_key(&change.group);
                damaged::led(machine, change.group, change.term, is_stopped)?;
                self.checks.elections.led(change.group, change.term, machine, life)?;
                self.coverage.elections += 1;
                self.coverage.led_with_a_clock_ahead += u64::from(self.is_ahead(machine));
                self.leads_with_all(machine, change.group, change.term)?;
                if self.plan.groups <= 8 {
                    let (group, term) = (change.group, change.term);
                    self.note(&format!("machine {machine} leads group {group} in term {term}"));
                }
            }
        }
        if let Some(job) = turned.log {
            self.log_checks(machine, &job.records)?;
            self.coverage.truncations += self.machines[machine].shadow.given_out(&job);
            self.log_push(machine, job);
        }
        self.coverage.applied += turned.applied as u64;
        self.coverage.applied_cold += turned.beside.len() as u64;
        for beside in turned.beside {
            let at = self.later_us(self.plan.beside_us_max);
            let process = self.machines[machine].process.as_mut().expect("it just had a turn");
            process.beside.push_back(beside);
            self.queue.put(at, Event::Beside { machine, life });
        }
        self.coverage.appends_passed_over += turned.appends_passed_over;
        if turned.sealed {
            self.flush_soon(machine);
        }
        for aside in turned.asides {
            let at = self.later_us(self.plan.beside_us_max);
            let process = self.machines[machine].process.as_mut().expect("it just had a turn");
            process.asides.push_back(aside);
            self.queue.put(at, Event::Aside { machine, life });
        }
        if !turned.fetches.is_empty() {
            let process = self.machines[machine].process.as_mut().expect("it just had a turn");
            let (wal, reader) = (&process.log.wal, &mut process.log.reader);
            for fetched in fetch(turned.fetches, reader, |wants| wal.segments_with(wants)) {
                self.coverage.log_fetches += 1;
                self.input(machine, Input::Fetched(fetched));
            }
        }
        for (group, why) in turned.troubles {
            self.not_given(machine, group, &why)?;
        }
        for &(group, index) in &turned.installed {
            self.installed(machine, group, index)?;
        }
        if turned.applied > 0 {
            let touched = self.touched(&turned.done);
            self.applied(machine, &touched)?;
        }
        self.stopped(machine, turned.stopped)?;
        for done in turned.done {
            self.answer(machine, done)?;
        }
        for (to, frame) in turned.frames {
            self.send(machine, to, frame);
        }
        for (to, piece) in turned.bulk {
            self.send_bulk(machine, to, &piece);
        }
        if turned.more {
            self.wake(machine);
        }
        Ok(())
    }

    /// A machine goes on from rows of another one: all of them are looked at.
    fn installed(&mut self, machine: MachineNo, group: GroupId, index: Index) -> Checked {
        self.coverage.snapshots_installed += 1;
        self.note(&format!("machine {machine} goes on with group {group} behind entry {index}"));
        let process = self.machines[machine].process.as_mut().expect("it just had a turn");
        let before = std::mem::replace(&mut process.applied[usize::from(group.0)], index);
        let stands_there = process.node.applied(group) == index;
        // Where rows are damaged the same ones are given anew.
        let was_stopped = process.stopped.remove(&group).is_some();
        self.no_longer_rotten(machine, group);
        self.no_longer_doubted(machine, group);
        if before > index || before == index && !was_stopped {
            let what = format!("machine {machine}, group {group}: from {before} to {index}");
            return Err(Violation::new("rows never go back", what));
        }
        let sessions = 0..self.workload.sessions.len();
        let all = sessions.filter(|at| self.workload.sessions[*at].group == group).collect();
        self.look(machine, &all)?;
        if stands_there {
            self.compare_digest(machine, group, index)?;
        }
        Ok(())
    }

    /// The sessions that effects speak of.
    fn touched(&self, done: &[Done]) -> BTreeSet<SessionNo> {
        let mut touched = BTreeSet::new();
        for done in done {
            if let Done::Applied { effects, .. } = done {
                for effect in effects {
                    let path = match effect {
                        Effect::Publish { path, .. } => path,
                        Effect::SessionChanged { row, .. } => &row.path,
                        Effect::DueAt(_) => continue,
                    };
                    touched.extend(self.workload.session_of(path));
                }
            }
        }
        touched
    }

    /// A machine has applied something: holds it against what others applied, what disks have
    /// confirmed, and what was shown before.
    fn applied(&mut self, machine: MachineNo, touched: &BTreeSet<SessionNo>) -> Checked {
        let process = self.machines[machine].process.as_ref().expect("it just had a turn");
        let moved: Vec<(GroupId, Index, Index)> = (0..self.plan.groups)
            .map(|group| {
                let id = GroupId(group);
                (id, process.applied[usize::from(group)], process.node.applied(id))
            })
            .filter(|(_, before, now)| before != now)
            .collect();
        for &(group, before, now) in &moved {
            let process = self.machines[machine].process.as_ref().expect("it just had a turn");
            damaged::applied(machine, group, now, process.stopped.get(&group).copied())?;
            for index in (before.0 + 1..=now.0).map(Index) {
                self.applied_one(machine, group, index)?;
            }
            let process = self.machines[machine].process.as_mut().expect("it just had a turn");
            process.applied[usize::from(group.0)] = now;
            self.trace.mix(&[u64::from(group.0), now.0]);
        }
        self.look(machine, touched)?;
        for &(group, _, now) in &moved {
            self.compare_digest(machine, group, now)?;
        }
        Ok(())
    }

    fn applied_one(&mut self, machine: MachineNo, group: GroupId, index: Index) -> Checked {
        let Some(entry) = self.machines[machine].shadow.group(group).get_applied(index) else {
            let what = format!("machine {machine}, group {group}: entry {index} is not in its log");
            return Err(Violation::new("what is applied is in the log", what));
        };
        let fact = (entry.term, entry.hash);
        if self.checks.applied_alike.applied(machine, group, index, fact)? {
            let committed = self.committed[usize::from(group.0)];
            synced_quorum::applied(machine, group, index, committed)?;
            let process = self.machines[machine].process.as_ref().expect("it just had a turn");
            let status = process.node.driver().status(group).expect("every group lives here");
            self.checks.leader_completeness.committed(group, index, fact, status.term);
        }
        Ok(())
    }

    fn send(&mut self, machine: MachineNo, to: PeerId, bytes: Bytes) {
        self.trace.mix_bytes(&bytes);
        let from = self.machines[machine].peer();
        let Some(other) = self.listener(machine, to) else { return };
        let arrivals = self.links.send(&self.plan, &mut self.rng, machine, other);
        self.coverage.frames_lost += u64::from(arrivals[0].is_none());
        self.coverage.frames_repeated += u64::from(arrivals[1].is_some());
        for delay_us in arrivals.into_iter().flatten() {
            let bytes = bytes.clone();
            self.queue.put(self.now_us + delay_us, Event::Frame { to, from, bytes });
        }
    }

    /// Messages about rows may be damaged on top of what happens to frames.
    fn send_bulk(&mut self, machine: MachineNo, to: PeerId, piece: &Bytes) {
        self.trace.mix_bytes(piece);
        let from = self.machines[machine].peer();
        let Some(other) = self.listener(machine, to) else { return };
        let arrivals = self.links.send(&self.plan, &mut self.rng, machine, other);
        for delay_us in arrivals.into_iter().flatten() {
            let mut bytes = piece.to_vec();
            let damage_ppm = self.plan.little.map_or(0, |little| little.damage_ppm);
            if self.phase == Phase::Trouble && self.by_chance(damage_ppm) {
                self.coverage.pieces_damaged += 1;
                let at = self.rng.usize(0..bytes.len());
                bytes[at] ^= 1 << self.rng.u32(0..8);
            }
            let bytes = bytes.into();
            self.queue.put(self.now_us + delay_us, Event::Bulk { to, from, bytes });
        }
    }

    /// Where a number listens that a machine sends something to; nowhere if it is over as far as that
    /// machine has heard, or if a former life is cut off from there.
    fn listener(&mut self, machine: MachineNo, to: PeerId) -> Option<MachineNo> {
        let is_over = self.is_over_for(machine, to);
        self.coverage.sent_to_the_lost += u64::from(is_over);
        let host = self.host_of(to).unwrap_or(self.machine_of(to));
        let is_cut = self.is_cut_from_former(machine, host);
        self.coverage.frames_lost += u64::from(is_cut);
        (!is_over && !is_cut).then_some(host)
    }

    pub(super) fn bulk(&mut self, to: PeerId, from: PeerId, bytes: Bytes) {
        self.arrive(to, from, Input::Bulk { from, bytes });
    }

    pub(super) fn frame(&mut self, to: PeerId, from: PeerId, bytes: Bytes) {
        self.arrive(to, from, Input::Frame { from, bytes });
    }

    /// A connection belongs to two numbers: what is meant for one whose disk is lost goes nowhere, and
    /// what comes from one that is over is refused by whoever has heard that. What such a one had sent
    /// before still arrives at the others.
    fn arrive(&mut self, to: PeerId, from: PeerId, input: Input) {
        match self.host_of(to) {
            None => self.coverage.sent_to_the_lost += 1,
            Some(host) if self.is_over_for(host, from) => self.refuse_former(from),
            Some(host) => self.input(host, input),
        }
    }
}

/// How many records of a job the shell may have written when the power goes: all of them as often as only
/// a part.
fn part_of(records: &[Record], seed: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    if rng.bool() {
        return records.len();
    }
    let upto = rng.usize(0..=records.len());
    let may_end = |upto: usize| match records.get(upto) {
        Some(next) if upto > 0 => LogJob::may_part(&records[upto - 1], next),
        Some(_) | None => true,
    };
    if may_end(upto) { upto } else { upto - 1 }
}
