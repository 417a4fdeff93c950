//! What clients do: they begin operations, try them until they are answered, and hold every
//! answer against what they knew.

use std::sync::Arc;

use bytes::Bytes;
use tl_core::{Entry, Reply};
use tl_engine::node::rows::CachedRows;
use tl_engine::node::{Done, Failure, Input};
use tl_raft::Token;
use tl_store::OrderedStore;
use tl_types::{FullKey, GroupId, Seq};

use super::rot::DAMAGE;
use super::{Phase, World};
use crate::invariants::linearizable::Known;
use crate::invariants::{Checked, SessionNo, Violation, minority};
use crate::queue::{Event, MachineNo};
use crate::workload::Kind;

mod answers;
mod begin;
mod recorded;

/// A request takes up to this to its machine, microseconds.
const REQUEST_US: u64 = 2_000;
/// A client waits for an answer between these, microseconds.
const PATIENCE_US: std::ops::RangeInclusive<u64> = 1_000_000..=3_000_000;
/// Wait before another attempt when nobody is known to lead, microseconds.
const BACKOFF_US: u64 = 150_000;

/// Rows name further rows: directory, header, producers.
const PREFETCH_ROUNDS: usize = 3;

impl World {
    /// A client acts: it begins an operation, or tries its open one again.
    pub(super) fn client(&mut self, client: usize) -> Checked {
        if self.workload.clients[client].operation.is_none() {
            if self.phase != Phase::Trouble || client >= self.plan.clients {
                return Ok(());
            }
            let Some(operation) = self.begin(client)? else {
                // Done at once, without a machine's driver.
                self.think(client);
                return Ok(());
            };
            self.workload.clients[client].operation = Some(operation);
            self.workload.operations_open += 1;
        }
        self.attempt(client);
        Ok(())
    }

    /// Sends the open operation to the machine that the client has in mind.
    pub(super) fn attempt(&mut self, client: usize) {
        self.workload.attempts_made += 1;
        let attempt = self.workload.attempts_made;
        self.workload.open.insert(attempt, client);
        let machine = self.workload.clients[client].machine;
        let machine = self.perhaps_former(machine);
        let operation = self.workload.clients[client].operation.as_mut().expect("one is open");
        operation.attempt = attempt;
        operation.attempts.push(attempt);
        operation.unresolved += 1;
        let at = self.later_us(REQUEST_US);
        self.queue.put(at, Event::Request { client, attempt, machine });
        let patience_us = self.rng.u64(PATIENCE_US);
        self.queue.put(self.now_us + patience_us, Event::Patience { client, attempt });
    }

    /// An attempt arrives; also one that its client has given up meanwhile.
    pub(super) fn request(&mut self, client: usize, attempt: u64, machine: MachineNo) -> Checked {
        let Some(operation) = &self.workload.clients[client].operation else { return Ok(()) };
        if !operation.attempts.contains(&attempt) {
            return Ok(());
        }
        let (group, token) = (operation.group, Token(attempt));
        let entry = operation.entry.clone();
        if self.machines[machine].process.is_none() {
            // Nobody is there: the connection is refused.
            self.workload.open.remove(&attempt);
            self.resolved(client, attempt, None);
            return Ok(());
        }
        self.asked_at_us.insert(attempt, self.now_us);
        self.coverage.asked_in_minority += u64::from(self.links.alone_since(machine).is_some());
        let input = match entry.is_empty() {
            true => Input::Read { group, token },
            false => {
                if self.by_chance(self.plan.prefetch_ppm) {
                    self.prefetch(machine, group, &entry)?;
                }
                Input::Propose { group, token, entry }
            }
        };
        self.input(machine, input);
        Ok(())
    }

    /// Loads the rows that an entry is going to need, so that it is applied from memory.
    fn prefetch(&mut self, machine: MachineNo, group: GroupId, entry: &[u8]) -> Checked {
        let store = Arc::clone(&self.machines[machine].store);
        let generation = store.applied(group).generation;
        let rows = CachedRows::new(&*store, group, generation);
        let entry = Entry::decode(Bytes::copy_from_slice(entry)).expect("clients encode entries");
        for _ in 0..PREFETCH_ROUNDS {
            let cold = tl_core::cold_keys(&entry, &rows);
            let keys: Vec<FullKey> =
                cold.iter().map(|key| FullKey::new(group, generation, key)).collect();
            let loaded = store
                .prefetch(&keys)
                .map_err(|error| Violation::new(DAMAGE, tl_engine::chain(&error)));
            if self.unless_rotten(machine, group, loaded)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// The attempt certainly has no effect. If it is the newest, another one follows.
    fn resolved(&mut self, client: usize, attempt: u64, leader: Option<MachineNo>) {
        let Some(operation) = &mut self.workload.clients[client].operation else { return };
        operation.unresolved -= 1;
        if operation.attempt == attempt {
            let wait_us = if leader.is_some() { REQUEST_US } else { BACKOFF_US };
            self.try_elsewhere(client, leader, wait_us);
        }
    }

    fn try_elsewhere(&mut self, client: usize, leader: Option<MachineNo>, wait_us: u64) {
        let any = self.rng.usize(0..self.plan.machines);
        self.workload.clients[client].machine = leader.unwrap_or(any);
        let at = self.later_us(wait_us);
        self.queue.put(at, Event::Client { client });
    }

    /// The client waits no longer for this attempt; whether it takes effect is unknown.
    pub(super) fn patience(&mut self, client: usize, attempt: u64) {
        let Some(operation) = &self.workload.clients[client].operation else { return };
        if operation.attempt == attempt && self.workload.open.contains_key(&attempt) {
            self.coverage.outcomes_unknown += 1;
            self.try_elsewhere(client, None, 1);
        }
    }

    fn think(&mut self, client: usize) {
        let at = self.later_us(2 * self.plan.think_ms * 1_000);
        self.queue.put(at, Event::Client { client });
    }

    /// A machine answers.
    pub(super) fn answer(&mut self, machine: MachineNo, done: Done) -> Checked {
        match done {
            Done::Applied { token: None, .. } => Ok(()),
            Done::Applied { token: Some(token), replies, .. } => {
                self.agreed(machine, token)?;
                self.applied_for(token, &replies)
            }
            Done::Read { token, .. } => {
                self.agreed(machine, token)?;
                self.read_for(machine, token)
            }
            Done::Failed { token, failure } => {
                let refused = matches!(failure, Failure::ChangeRefused(_));
                self.coverage.changes_refused += u64::from(refused);
                self.asked_at_us.remove(&token.0);
                self.failed_for(token, failure);
                Ok(())
            }
        }
    }

    /// A machine says yes.
    fn agreed(&mut self, machine: MachineNo, token: Token) -> Checked {
        match self.asked_at_us.remove(&token.0) {
            Some(at_us) => minority::answers(machine, at_us, self.links.alone_since(machine)),
            None => Ok(()),
        }
    }

    /// The client whose open operation the token belongs to.
    fn whose(&mut self, token: Token) -> Option<usize> {
        let client = self.workload.open.remove(&token.0)?;
        let operation = self.workload.clients[client].operation.as_ref()?;
        operation.attempts.contains(&token.0).then_some(client)
    }

    fn failed_for(&mut self, token: Token, failure: Failure) {
        let Some(client) = self.whose(token) else { return };
        match failure {
            Failure::NotLeader(leader) => {
                self.coverage.not_leader += 1;
                self.resolved(client, token.0, leader.map(|peer| self.machine_of(peer)));
            }
            Failure::Lost => {
                self.coverage.outcomes_lost += 1;
                self.resolved(client, token.0, None);
            }
            Failure::Busy | Failure::ChangeRefused(_) => self.resolved(client, token.0, None),
            Failure::Stopped | Failure::Unknown => self.try_elsewhere(client, None, BACKOFF_US),
        }
    }

    /// A linearizable read may look at the machine's rows now.
    fn read_for(&mut self, machine: MachineNo, token: Token) -> Checked {
        let Some(client) = self.whose(token) else { return Ok(()) };
        let operation = self.workload.clients[client].operation.as_ref().expect("it is open");
        let Kind::Read { session, known } = operation.kind.clone() else {
            unreachable!("only reads are answered so");
        };
        let from_us = operation.from_us;
        let found = self.find(machine, session);
        let group = self.workload.sessions[session].group;
        let Some(row) = self.unless_rotten(machine, group, found)? else {
            // The machine says that it cannot read this; another one can.
            self.resolved(client, token.0, None);
            return Ok(());
        };
        self.record_read(from_us, session, row.as_ref());
        self.checks.linearizable.row(session, &known, row.as_ref().map(|row| &row.header))?;
        if let Some(row) = row {
            let after = Seq(known.last_seq.0.max(row.header.floor_seq.0).saturating_sub(3));
            let after = after.max(row.header.floor_seq);
            if let Some(Ok(page)) = self.read_sound(machine, session, &row, after, 20)? {
                for event in &page.events {
                    self.shown(session, event)?;
                }
            }
        }
        self.coverage.reads += 1;
        self.finish(client);
        Ok(())
    }

    fn finish(&mut self, client: usize) {
        self.workload.clients[client].operation = None;
        if client >= self.plan.clients {
            self.workload.probes_open -= 1;
            return;
        }
        self.workload.operations_open -= 1;
        self.coverage.operations += 1;
        self.think(client);
    }

    /// An entry was applied for a client: either every command has a reply, or there is one
    /// refusal.
    fn applied_for(&mut self, token: Token, replies: &[Reply]) -> Checked {
        let Some(client) = self.whose(token) else { return Ok(()) };
        let operation = self.workload.clients[client].operation.as_mut().expect("it is open");
        operation.unresolved -= 1;
        let settled = operation.unresolved == 0;
        let kind = operation.kind.clone();
        let entry = operation.entry.clone();
        let from_us = operation.from_us;
        self.record(from_us, &kind, replies, settled);
        if let [Reply::Refused(refusal)] = replies {
            self.refused(client, &kind, refusal.command, &refusal.reason, settled)?;
        } else {
            self.accepted(client, kind, entry, replies)?;
        }
        self.finish(client);
        Ok(())
    }

    /// One write to every group, to see that it takes writes.
    pub(super) fn begin_probes(&mut self) {
        for group in (0..self.plan.groups).map(GroupId) {
            let client = self.workload.clients.len();
            let operation = self.probe(group);
            self.workload
                .clients
                .push(crate::workload::Client { operation: Some(operation), ..Default::default() });
            self.workload.probes_open += 1;
            self.attempt(client);
        }
    }

    pub(super) fn known(&self, session: SessionNo) -> Known {
        self.checks.linearizable.known(session)
    }
}
