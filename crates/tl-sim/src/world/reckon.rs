//! The end of a run: every replica holds the same, in good order, and all that was
//! acknowledged; every tail has got everything; and every session's history has an order.

use std::collections::BTreeMap;

use bytes::Bytes;
use tl_core::SessionHeader;
use tl_core::memory::MemoryRows;
use tl_store::OrderedStore;
use tl_types::{GroupId, ResourceNumber, RowKey, Table};

use super::World;
use crate::invariants::{Checked, Violation};
use crate::queue::MachineNo;

impl World {
    pub(super) fn reckon(&mut self) -> Checked {
        self.audit()?;
        for machine in 0..self.plan.machines {
            for session in 0..self.workload.sessions.len() {
                let Some(row) = self.find(machine, session)? else { continue };
                let held = self.held(machine, session, &row)?;
                let floor = row.header.floor_seq;
                self.checks.acknowledged.hold(machine, session, floor, &held)?;
            }
        }
        self.checks_of_missing_sessions()?;
        for group in (0..self.plan.groups).map(GroupId) {
            self.reckon_group(group)?;
        }
        for tail in 0..self.workload.tails.len() {
            self.tail_to_the_end(tail)?;
        }
        self.coverage.history_answers = self.checks.history.check()?;
        Ok(())
    }

    /// A session that is nowhere cannot hold what was acknowledged.
    fn checks_of_missing_sessions(&self) -> Checked {
        for session in 0..self.workload.sessions.len() {
            if self.find(0, session)?.is_none() {
                let nothing = BTreeMap::new();
                self.checks.acknowledged.hold(0, session, tl_types::Seq(0), &nothing)?;
            }
        }
        Ok(())
    }

    fn reckon_group(&mut self, group: GroupId) -> Checked {
        let first = self.all_rows(0, group)?;
        let mut rows = MemoryRows::default();
        rows.write(first.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect());
        tl_core::invariants::check(&rows).map_err(|broken| {
            Violation::new("rows are in order", format!("group {group}: {broken}"))
        })?;
        for machine in 1..self.plan.machines {
            let other = self.all_rows(machine, group)?;
            if other != first {
                let differs = first.iter().zip(&other).find(|(one, two)| one != two);
                let keys = differs.map(|(one, two)| (&one.0, &two.0));
                let what = format!(
                    "group {group}: machines 0 and {machine} differ: {} and {} rows, first at {keys:?}",
                    first.len(),
                    other.len()
                );
                return Err(Violation::new("replicas hold the same rows", what));
            }
        }
        Ok(())
    }

    /// All rows of a group that can still be read: events below a floor may be gone on one
    /// machine and not yet on another.
    fn all_rows(
        &self,
        machine: MachineNo,
        group: GroupId,
    ) -> Result<Vec<(RowKey, Bytes)>, Violation> {
        let store = &self.machines[machine].store;
        let generation = store.applied(group).generation;
        let mut rows: Vec<(RowKey, Bytes)> = Vec::new();
        let mut floors = BTreeMap::new();
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Applied) {
            let start = RowKey::table_start(table, ResourceNumber(0));
            let end = RowKey::table_end(table, ResourceNumber(u64::MAX));
            let found = store.range(group, generation, &start, &end, usize::MAX, usize::MAX);
            for (key, value) in found.map_err(|error| {
                Violation::new("a store in memory is not damaged", tl_engine::chain(&error))
            })? {
                if table == Table::Session {
                    let header = SessionHeader::decode(value.clone());
                    let header = header.map_err(|error| {
                        Violation::new("rows are in order", format!("{key:?}: {error}"))
                    })?;
                    floors.insert(key.number(), header.floor_seq);
                }
                let below = key.event_seq() <= floors.get(&key.number()).copied();
                if !(table == Table::Event && below) {
                    rows.push((key, value));
                }
            }
        }
        Ok(rows)
    }
}
