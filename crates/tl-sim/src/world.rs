//! The world of one run: machines, network, clients, and the queue that moves them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use tl_engine::ops::plan::Wanted;
use tl_raft::{Members, PeerId};
use tl_types::{GroupId, Index, Term};

use crate::coverage::Coverage;
use crate::invariants::history::History;
use crate::invariants::linearizable::Linearizable;
use crate::invariants::stamps::Stamps;
use crate::invariants::{Checked, Checks, Violation};
use crate::links::Links;
use crate::machine::{Machine, founding};
use crate::options::{
    CATCH_UP_WITHIN_MS, HEAL_WITHIN_MS, Options, Plan, SETTLE_WITHIN_MS, TROUBLE_MS_MAX,
};
use crate::queue::{Event, Queue};
use crate::report::Report;
use crate::shadow::Shadow;
use crate::trace::Trace;
use crate::workload::Workload;

mod clients;
mod commits;
pub(crate) mod faults;
mod former;
mod members;
mod observe;
mod reckon;
mod rot;
mod rot_log;
mod tails;
mod threads;
mod turns;
mod wall_clocks;

/// How often all rows of all machines are looked at, microseconds.
const AUDIT_EVERY_US: u64 = 5_000_000;
/// Between two ticks of a machine, microseconds.
const TICK_US: u64 = 50_000;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Trouble,
    /// Since then every machine is up and the network clean.
    Healing {
        since_us: u64,
    },
    /// All clients are done; replicas catch up.
    Settling {
        since_us: u64,
    },
    Done,
}

pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) phase: Phase,
    pub(crate) rng: Rng,
    pub(crate) queue: Queue,
    pub(crate) plan: Plan,
    pub(crate) machines: Vec<Machine>,
    /// The machine of every number that there ever was, from number 1.
    pub(crate) seats: Vec<usize>,
    /// Logs whose disks are lost, as they were then.
    pub(crate) retired: Vec<(PeerId, Shadow)>,
    /// The machine that was given a new number last, until every group has it for the one that was
    /// lost.
    pub(crate) replacing: Option<usize>,
    /// The lists of members, oldest first.
    pub(crate) lists: Vec<Wanted>,
    /// Groups of which one machine has rows that rot.
    pub(crate) rotten: BTreeMap<GroupId, rot::Rotten>,
    /// Machines and groups of which rows rotted at some time: what was opened then is read for longer.
    pub(crate) ever_rotten: BTreeSet<(usize, GroupId)>,
    /// The machine whose log has rotted, and the groups that it is doubted in.
    pub(crate) rotten_log: Option<rot_log::RottenLog>,
    pub(crate) doubted: BTreeSet<GroupId>,
    /// The machine whose wall clock is a day ahead.
    pub(crate) ahead: Option<usize>,
    /// How far leaders were seen to commit, by group.
    pub(crate) committed: Vec<Index>,
    pub(crate) changes_asked: u64,
    /// Who was ever proposed to belong to a group, by the place of the entry.
    pub(crate) proposed: BTreeMap<(GroupId, Index, Term), Members>,
    /// Who belonged to each group, in order.
    pub(crate) members: Vec<Vec<Members>>,
    pub(crate) links: Links,
    pub(crate) workload: Workload,
    pub(crate) checks: Checks,
    /// What was seen of each session, by machine and session: up to here.
    pub(crate) seen: Vec<Vec<u64>>,
    /// When attempts arrived at their machine, until they are answered.
    pub(crate) asked_at_us: HashMap<u64, u64>,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
}

/// Plays one seed.
pub(crate) fn run(seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed);
    let (groups, machines) = (world.plan.groups, world.plan.machines);
    let played = catch_unwind(AssertUnwindSafe(|| world.play(options)));
    let violation = match played {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            Some(Violation::new("no panic", said.unwrap_or_else(|| "without a word".into())))
        }
    };
    let at_ms = world.now_us / 1_000;
    world.count_disks();
    Report {
        seed,
        groups,
        machines,
        trace: world.trace.fingerprint(),
        virtual_ms: at_ms,
        coverage: world.coverage,
        violation: violation.map(|violation| Violation { at_ms, ..violation }),
        recent: world.trace.into_recent(),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::new(seed, &mut rng);
        let workload = Workload::new(&plan, &mut rng);
        let sessions = workload.sessions.len();
        let mut stamps = Stamps::default();
        if plan.clock_day_mean_ms > 0 {
            stamps.agreed(plan.wall_start_ms, 0);
        }
        World {
            now_us: 0,
            phase: Phase::Trouble,
            queue: Queue::default(),
            machines: (0..plan.machines).map(|no| Machine::new(no, &plan)).collect(),
            seats: (0..plan.machines).collect(),
            retired: Vec::new(),
            replacing: None,
            lists: vec![members::founding_list(plan.machines)],
            rotten: BTreeMap::new(),
            ever_rotten: BTreeSet::new(),
            rotten_log: None,
            doubted: BTreeSet::new(),
            ahead: None,
            committed: vec![Index(0); usize::from(plan.groups)],
            changes_asked: 0,
            proposed: BTreeMap::new(),
            members: vec![
                vec![Members::founding(&founding(plan.machines))];
                usize::from(plan.groups)
            ],
            links: Links::new(plan.machines),
            checks: Checks {
                linearizable: Linearizable::new(sessions),
                history: History::new(sessions),
                stamps,
                ..Checks::default()
            },
            seen: vec![vec![0; sessions]; plan.machines],
            asked_at_us: HashMap::new(),
            coverage: Coverage {
                clusters_of_four: u64::from(plan.machines == 4),
                clusters_of_five: u64::from(plan.machines == 5),
                ..Coverage::default()
            },
            trace: Trace::new(),
            workload,
            plan,
            rng,
        }
    }

    fn play(&mut self, options: &Options) -> Checked {
        for machine in 0..self.plan.machines {
            self.start(machine)?;
        }
        for client in 0..self.plan.clients {
            let at = self.later_us(self.plan.think_ms * 1_000);
            self.queue.put(at, Event::Client { client });
        }
        for tail in 0..self.workload.tails.len() {
            let at = self.later_us(1_000_000);
            self.queue.put(at, Event::Tail { tail });
        }
        self.queue.put(AUDIT_EVERY_US, Event::Audit);
        self.begin_faults();
        if self.plan.lose_mean_ms > 0 {
            let at = self.later_us(members::LOOK_US);
            self.queue.put(at, Event::Operate);
        }
        if self.plan.rot_mean_ms > 0 {
            self.queue.put(rot::LOOK_US, Event::Mend);
        }
        if self.plan.clock_day_mean_ms > 0 {
            self.queue.put(wall_clocks::COMPARE_US, Event::Clocks);
        }
        while self.phase != Phase::Done {
            let (at_us, event) = self.queue.take().expect("machines tick as long as a run lasts");
            self.now_us = at_us;
            self.happen(event)?;
            self.move_on(options)?;
        }
        self.reckon()
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Tick { machine, life } if self.lives(machine, life) => {
                self.wake(machine);
                self.queue.put(self.now_us + TICK_US, Event::Tick { machine, life });
            }
            Event::Turn { machine, life } if self.lives(machine, life) => self.turn(machine)?,
            Event::LogWrite { machine, life } if self.lives(machine, life) => {
                self.log_write(machine)?;
            }
            Event::LogSync { machine, life } if self.lives(machine, life) => {
                self.log_sync(machine)?;
            }
            Event::LogIdle { machine, life, batch } if self.lives(machine, life) => {
                self.log_idle(machine, batch)?;
            }
            Event::Prepare { machine, life } if self.lives(machine, life) => self.prepare(machine),
            Event::Flush { machine, life } if self.lives(machine, life) => self.flush(machine)?,
            Event::Beside { machine, life } if self.lives(machine, life) => self.beside(machine),
            Event::Aside { machine, life } if self.lives(machine, life) => self.aside(machine),
            Event::Tick { .. }
            | Event::Turn { .. }
            | Event::LogWrite { .. }
            | Event::LogSync { .. }
            | Event::LogIdle { .. }
            | Event::Prepare { .. }
            | Event::Flush { .. }
            | Event::Beside { .. }
            | Event::Aside { .. } => {}
            Event::Bulk { to, from, bytes } => self.bulk(to, from, bytes),
            Event::Frame { to, from, bytes } => self.frame(to, from, bytes),
            Event::Start { machine, life } => {
                let machine_at = &self.machines[machine];
                if machine_at.life == life && machine_at.process.is_none() && !machine_at.is_lost {
                    self.start(machine)?;
                }
            }
            Event::Client { client } => self.client(client)?,
            Event::Request { client, attempt, machine } => {
                self.request(client, attempt, machine)?;
            }
            Event::Patience { client, attempt } => self.patience(client, attempt),
            Event::Tail { tail } => self.tail(tail)?,
            Event::Fault { kind } => self.fault(kind)?,
            Event::Rejoin { split } => {
                if self.links.split == split {
                    self.links.join(self.now_us);
                    self.note("the network is whole again");
                }
            }
            Event::Lose { lost, lags, split } => self.lose(lost, lags, split),
            Event::Operate => self.operate(),
            Event::Mend => self.mend(),
            Event::Clocks => self.compare_clocks(),
            Event::Room { machine } => {
                self.machines[machine].disk.set_free_bytes(None);
                self.machines[machine].is_full = false;
            }
            Event::Audit => {
                self.audit()?;
                self.queue.put(self.now_us + AUDIT_EVERY_US, Event::Audit);
            }
        }
        Ok(())
    }

    /// Goes to the next phase when this one has done its work.
    fn move_on(&mut self, options: &Options) -> Checked {
        let now_us = self.now_us;
        match self.phase {
            Phase::Trouble => {
                let enough = self.coverage.operations >= options.operations_min
                    && now_us >= options.trouble_ms_min * 1_000;
                if enough || now_us >= TROUBLE_MS_MAX * 1_000 {
                    self.phase = Phase::Healing { since_us: now_us };
                    self.heal()?;
                }
            }
            Phase::Healing { since_us } => {
                let within_ms = self.heal_within_ms();
                let waited_ms = (now_us - since_us) / 1_000;
                if self.workload.probes_open == 0 && self.workload.operations_open == 0 {
                    self.phase = Phase::Settling { since_us: now_us };
                } else if waited_ms > within_ms && self.workload.probes_open > 0 {
                    return Err(Violation::new(
                        "groups take writes again",
                        format!(
                            "{} groups took no write within {within_ms} ms after trouble ended{}",
                            self.workload.probes_open,
                            self.standing()
                        ),
                    ));
                } else if waited_ms > within_ms + SETTLE_WITHIN_MS {
                    return Err(Violation::new(
                        "every operation ends",
                        format!("{} operations are still open", self.workload.operations_open),
                    ));
                }
            }
            Phase::Settling { since_us } => {
                if self.is_settled() {
                    self.phase = Phase::Done;
                } else if (now_us - since_us) / 1_000 > self.settle_within_ms() {
                    let within_ms = self.settle_within_ms();
                    return Err(Violation::new(
                        "replicas catch up",
                        format!("not within {within_ms} ms{}", self.standing()),
                    ));
                }
            }
            Phase::Done => {}
        }
        Ok(())
    }

    fn rows_travel(&self) -> bool {
        self.plan.little.is_some() || self.rows_are_needed()
    }

    /// Whether a machine may need rows of whole groups although its log and the others' are long.
    fn rows_are_needed(&self) -> bool {
        let Plan { lose_mean_ms, rot_mean_ms, log_rot_mean_ms, .. } = self.plan;
        lose_mean_ms > 0 || rot_mean_ms > 0 || log_rot_mean_ms > 0
    }

    /// With a disk lost, or rows or a log that rot, a majority may be in need of rows before it can agree to
    /// anything.
    fn heal_within_ms(&self) -> u64 {
        let waits_for_rows = self.plan.little.is_some() && self.rows_are_needed();
        if waits_for_rows { CATCH_UP_WITHIN_MS } else { HEAL_WITHIN_MS }
    }

    fn settle_within_ms(&self) -> u64 {
        if self.rows_travel() { CATCH_UP_WITHIN_MS } else { SETTLE_WITHIN_MS }
    }

    fn is_settled(&self) -> bool {
        let applied = |machine: &Machine| -> Option<Vec<Index>> {
            machine.process.as_ref().map(|process| process.applied.clone())
        };
        let first = applied(&self.machines[0]);
        let committed = |machine: &Machine| match &machine.process {
            None => false,
            Some(process) => (0..self.plan.groups).map(tl_types::GroupId).all(|group| {
                let status = process.node.driver().status(group);
                status.is_some_and(|status| {
                    status.last == status.committed && process.node.applied(group) == status.last
                })
            }),
        };
        first.is_some()
            && self.replacing.is_none()
            && self.rotten.is_empty()
            && self.rotten_log.is_none()
            && self.machines[..self.plan.machines].iter().all(|machine| {
                machine.process.as_ref().is_some_and(|process| process.stopped.is_empty())
            })
            && self.machines[..self.plan.machines].iter().all(|machine| applied(machine) == first)
            && self.machines[..self.plan.machines].iter().all(committed)
    }

    pub(crate) fn lives(&self, machine: usize, life: u64) -> bool {
        self.machines[machine].life == life && self.machines[machine].process.is_some()
    }

    /// A random instant within so many microseconds from now.
    pub(crate) fn later_us(&mut self, within_us: u64) -> u64 {
        self.now_us + self.rng.u64(0..within_us.max(1))
    }

    pub(crate) fn note(&mut self, what: &str) {
        self.trace.note(self.now_us, what);
    }

    /// True with a chance of so many in a million.
    pub(crate) fn by_chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.u32(0..1_000_000) < ppm
    }

    /// Where machines and groups stand, for a report.
    fn standing(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for group in (0..self.plan.groups.min(8)).map(tl_types::GroupId) {
            for machine in &self.machines {
                let status = machine.process.as_ref().map(|process| {
                    let driver = process.node.driver();
                    let followers = driver.followers(group);
                    let first_kept = driver.first_kept(group);
                    (driver.status(group), first_kept, process.node.applied(group), followers)
                });
                let _ = write!(text, "\n  group {group}, machine {}: {status:?}", machine.no);
            }
        }
        text
    }
}
