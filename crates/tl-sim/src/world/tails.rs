//! Tails: readers that follow one session on whichever machine runs, from rows applied there.

use tl_core::session::ReadError;
use tl_types::Seq;

use super::{Phase, World};
use crate::invariants::tails::Cursor;
use crate::invariants::{Checked, Violation};
use crate::queue::{Event, MachineNo};

/// A tail looks again within this, microseconds.
const LOOK_US: u64 = 400_000;
/// Most events taken at one look.
const TAKE_EVENTS_MAX: usize = 40;
/// Chance in a million that a tail moves to another machine before it looks.
const MOVE_PPM: u32 = 150_000;
/// Chance in a million that a tail gives way to a new one, of some session, from its beginning.
const ANEW_PPM: u32 = 20_000;

impl World {
    pub(super) fn tail(&mut self, tail: usize) -> Checked {
        let at = self.later_us(LOOK_US);
        if matches!(self.phase, Phase::Trouble | Phase::Healing { .. }) {
            self.queue.put(at, Event::Tail { tail });
        }
        if self.by_chance(ANEW_PPM) {
            let session = self.rng.usize(0..self.workload.sessions.len());
            self.workload.tails[tail].cursor = Cursor { session, at: Seq(0) };
        }
        let machine = self.workload.tails[tail].machine;
        let moves = self.machines[machine].process.is_none() || self.by_chance(MOVE_PPM);
        if moves {
            self.coverage.tail_moves += 1;
            self.workload.tails[tail].machine = self.rng.usize(0..self.plan.machines);
        }
        let machine = self.workload.tails[tail].machine;
        let limit = self.rng.usize(1..=TAKE_EVENTS_MAX);
        if self.machines[machine].process.is_some() {
            self.tail_once(tail, machine, limit)?;
        }
        Ok(())
    }

    /// One look; returns how many events were given.
    fn tail_once(
        &mut self,
        tail: usize,
        machine: MachineNo,
        limit: usize,
    ) -> Result<usize, Violation> {
        let session = self.workload.tails[tail].cursor.session;
        let Some(row) = self.find_sound(machine, session)? else { return Ok(0) };
        let after = self.workload.tails[tail].cursor.at;
        let Some(read) = self.read_sound(machine, session, &row, after, limit)? else {
            return Ok(0);
        };
        match read {
            Ok(page) => {
                for event in &page.events {
                    self.shown(session, event)?;
                    self.workload.tails[tail].cursor.given(event.seq)?;
                    self.coverage.tailed += 1;
                }
                if !page.events.is_empty() {
                    let last = self.workload.tails[tail].cursor.at;
                    self.checks.linearizable.shown(session, last);
                }
                Ok(page.events.len())
            }
            Err(ReadError::Gap { earliest, .. }) => {
                self.coverage.tail_gaps += 1;
                let asked = self.workload.sessions[session].trim_asked;
                self.workload.tails[tail].cursor.gap(earliest, asked)?;
                Ok(0)
            }
            Err(error) => {
                Err(Violation::new("rows can be read and have no hole", error.to_string()))
            }
        }
    }

    /// Reads on until nothing more comes, and compares with where the session ends.
    pub(super) fn tail_to_the_end(&mut self, tail: usize) -> Checked {
        let session = self.workload.tails[tail].cursor.session;
        let machine = self.workload.tails[tail].machine;
        let Some(row) = self.find(machine, session)? else { return Ok(()) };
        loop {
            let before = self.workload.tails[tail].cursor.at;
            self.tail_once(tail, machine, TAKE_EVENTS_MAX)?;
            if self.workload.tails[tail].cursor.at == before {
                break;
            }
        }
        let last = row.header.last_seq;
        self.workload.tails[tail].cursor.ended(last)
    }
}
