//! Looking at a machine's rows from outside, and holding what is seen against the promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tl_core::session::{self, EventQuery, ReadError};
use tl_core::{EventPage, Poison, SessionRow};
use tl_engine::node::rows::BlockingRows;
use tl_store::{MemStore, OrderedStore};
use tl_types::{GroupId, Index, Seq, StoredEvent};
use xxhash_rust::xxh3::xxh3_64;

use super::World;
use super::rot::DAMAGE;
use crate::invariants::{Checked, SessionNo, Violation, commits};
use crate::queue::MachineNo;

/// Events read at a time.
const PAGE_EVENTS: usize = 500;

const ROWS: &str = "rows can be read and have no hole";

/// A store and the generation of one group in it.
pub(super) struct Window {
    store: Arc<MemStore>,
    group: GroupId,
    generation: tl_types::Generation,
}

impl Window {
    pub(super) fn rows(&self) -> BlockingRows<'_, MemStore> {
        BlockingRows::new(&*self.store, self.group, self.generation)
    }
}

/// The promise that rows break which cannot be read.
fn promise_of(poison: &Poison) -> &'static str {
    match poison {
        Poison::Damaged(_) => DAMAGE,
        Poison::Cold => ROWS,
    }
}

impl World {
    /// A machine's rows of one group, as its process would read them.
    pub(super) fn window(&self, machine: MachineNo, group: GroupId) -> Window {
        let store = Arc::clone(&self.machines[machine].store);
        let generation = store.applied(group).generation;
        Window { store, group, generation }
    }

    /// A session's row on a machine.
    pub(super) fn find(
        &self,
        machine: MachineNo,
        session: SessionNo,
    ) -> Result<Option<SessionRow>, Violation> {
        let place = &self.workload.sessions[session];
        let window = self.window(machine, place.group);
        session::find(&window.rows(), &place.path).map_err(|poison| {
            let what = format!("machine {machine}, session {session}: {poison}");
            Violation::new(promise_of(&poison), what)
        })
    }

    /// A session's row on a machine, if it is there and has not rotted.
    pub(super) fn find_sound(
        &mut self,
        machine: MachineNo,
        session: SessionNo,
    ) -> Result<Option<SessionRow>, Violation> {
        let found = self.find(machine, session);
        let group = self.workload.sessions[session].group;
        Ok(self.unless_rotten(machine, group, found)?.flatten())
    }

    /// Events of a session on a machine behind a cursor.
    pub(super) fn read(
        &self,
        machine: MachineNo,
        session: SessionNo,
        row: &SessionRow,
        after: Seq,
        limit: usize,
    ) -> Result<Result<EventPage, ReadError>, Violation> {
        let window = self.window(machine, self.workload.sessions[session].group);
        match session::read_events(&window.rows(), row.number, EventQuery::page(after, limit)) {
            Err(ReadError::Rows(poison)) => {
                let what = format!("machine {machine}, session {session}: {poison}");
                Err(Violation::new(promise_of(&poison), what))
            }
            Err(error @ (ReadError::Hole { .. } | ReadError::NotFound)) => {
                let what = format!("machine {machine}, session {session}: {error}");
                Err(Violation::new(ROWS, what))
            }
            read => Ok(read),
        }
    }

    /// The same, `None` where the read met rot.
    pub(super) fn read_sound(
        &mut self,
        machine: MachineNo,
        session: SessionNo,
        row: &SessionRow,
        after: Seq,
        limit: usize,
    ) -> Result<Option<Result<EventPage, ReadError>>, Violation> {
        let read = self.read(machine, session, row, after, limit);
        self.unless_rotten(machine, self.workload.sessions[session].group, read)
    }

    /// Looks at what is new in these sessions on a machine.
    pub(super) fn look(&mut self, machine: MachineNo, sessions: &BTreeSet<SessionNo>) -> Checked {
        let mut commits_seen = BTreeSet::new();
        for &session in sessions {
            self.look_at(machine, session, &mut commits_seen)?;
        }
        for commit in commits_seen {
            let halves = self.checks.commits.halves(machine, commit)?.clone();
            for (session, seq) in halves {
                let group = self.workload.sessions[session].group;
                let found = self.find(machine, session);
                let Some(row) = self.unless_rotten(machine, group, found)? else { continue };
                if row.is_none_or(|row| row.header.last_seq < seq) {
                    let what = format!("session {session}, seq {seq} is not there yet");
                    return Err(commits::torn(machine, commit, &what));
                }
            }
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        machine: MachineNo,
        session: SessionNo,
        commits_seen: &mut BTreeSet<u64>,
    ) -> Checked {
        let Some(row) = self.find_sound(machine, session)? else { return Ok(()) };
        self.checks.positions.lives(session, row.header.incarnation)?;
        let is_rotten = self.is_rotten(machine, self.workload.sessions[session].group);
        let seen = self.seen[machine][session];
        if row.header.last_seq.0 < seen {
            let what = format!("machine {machine}, session {session}: shrank behind seq {seen}");
            return Err(Violation::new("rows never go back", what));
        }
        let mut after = Seq(seen.max(row.header.floor_seq.0));
        while after < row.header.last_seq {
            let page = match self.read_sound(machine, session, &row, after, PAGE_EVENTS)? {
                None => break,
                Some(Ok(page)) => page,
                Some(Err(error)) => {
                    let what = format!("machine {machine}, session {session}: {error}");
                    return Err(Violation::new(ROWS, what));
                }
            };
            let Some(last) = page.events.last() else { break };
            after = last.seq;
            for event in &page.events {
                let commit = self.shown(session, event)?;
                // The other half may be what cannot be read.
                commits_seen.extend(commit.filter(|_| !is_rotten));
            }
        }
        self.seen[machine][session] = after.0;
        Ok(())
    }

    /// Somebody is shown an event; returns the commit that it is half of.
    pub(super) fn shown(
        &mut self,
        session: SessionNo,
        event: &StoredEvent,
    ) -> Result<Option<u64>, Violation> {
        let content = xxh3_64(&event.envelope);
        let origin = self.checks.origins.of(session, event.seq.0, content)?;
        let whole = content ^ event.at.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.checks.positions.show(session, event.seq, whole)? {
            self.checks.history.landed(session, event.seq, content);
            self.trace.mix(&[session as u64, event.seq.0, whole]);
            self.checks.producers.landed(&origin, event.seq)?;
            let group = self.workload.sessions[session].group;
            let passed_ms = self.now_us / 1_000;
            self.checks.stamps.shown(group, session, event.seq, event.at, passed_ms)?;
            if let Some(commit) = origin.commit {
                self.checks.commits.landed(commit, session, event.seq);
            }
        }
        Ok(origin.commit)
    }

    pub(super) fn compare_digest(
        &mut self,
        machine: MachineNo,
        group: GroupId,
        index: Index,
    ) -> Checked {
        let window = self.window(machine, group);
        let digest = tl_core::group::digest(&window.rows()).map_err(|poison| {
            Violation::new(promise_of(&poison), format!("group {group}: {poison}"))
        })?;
        let compared = self.checks.digests.stands(machine, group, index, digest)?;
        self.coverage.digests_compared += u64::from(compared);
        Ok(())
    }

    /// Looks at everything on every machine that runs.
    pub(super) fn audit(&mut self) -> Checked {
        let all: BTreeSet<SessionNo> = (0..self.workload.sessions.len()).collect();
        for machine in 0..self.machines.len() {
            if self.machines[machine].process.is_some() {
                self.look(machine, &all)?;
            }
        }
        Ok(())
    }

    /// What a machine holds of a session: floor and the content of each event above it.
    pub(super) fn held(
        &self,
        machine: MachineNo,
        session: SessionNo,
        row: &SessionRow,
    ) -> Result<BTreeMap<Seq, u64>, Violation> {
        let mut held = BTreeMap::new();
        let mut after = row.header.floor_seq;
        while after < row.header.last_seq {
            let Ok(page) = self.read(machine, session, row, after, PAGE_EVENTS)? else { break };
            let Some(last) = page.events.last() else { break };
            after = last.seq;
            held.extend(page.events.iter().map(|event| (event.seq, xxh3_64(&event.envelope))));
        }
        Ok(held)
    }
}
