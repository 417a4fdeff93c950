//! One simulated machine: a disk and a store that outlive its processes, its clocks, and
//! perhaps a process: the shipped node with a log thread that is simulated around the shipped
//! log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tl_engine::node::recover::{Found, StartError, StartPlan, recover};
use tl_engine::node::{Aside, Beside, CatchUpLimits, Input, Node, Now};
use tl_raft::{DriverConfig, JobId, LogJob, Members, PeerId};
use tl_store::{MemStore, OrderedStore, StoreOptions};
use tl_types::{GroupId, Index, NodeId, UnixMs};
use tl_wal::memdisk::MemDisk;
use tl_wal::{Disk, OnDamage, Opened, Preparer, Reader, Record, Wal, WalError, WalOptions};

use crate::options::Plan;
use crate::queue::MachineNo;
use crate::shadow::Shadow;

/// Largest entry that the small logs of a simulation take, bytes.
const ENTRY_BYTES_MAX: usize = 24 * 1024;
/// Places of a log that are tried for noise that shows.
const ROT_TRIES: usize = 64;
/// Most bytes that rot in one place.
const ROT_BYTES_MAX: usize = 200;
/// How far apart the machines' boot clocks start, milliseconds.
const BOOT_STEP_MS: i64 = 1_000_000;

/// What a machine is, whether or not a process runs on it.
pub(crate) struct Machine {
    pub(crate) no: MachineNo,
    /// Its number in Raft; another one with every disk.
    peer: PeerId,
    pub(crate) disk: MemDisk,
    pub(crate) store: Arc<MemStore>,
    pub(crate) shadow: Shadow,
    /// Counts processes; what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// A process has opened the log, so it must be there ever after.
    has_log: bool,
    /// Its disk is lost, and it has no other number yet.
    pub(crate) is_lost: bool,
    /// The newest list of members that it has heard of, counted from 0.
    pub(crate) list: usize,
    /// Its syncs and flushes take long until then.
    pub(crate) slow_until_us: u64,
    /// There is no room on the disk for a while.
    pub(crate) is_full: bool,
    /// Added to the wall clock by jumps so far, milliseconds.
    pub(crate) wall_jump_ms: i64,
    /// The instant, in virtual milliseconds, at which the boot clock stood at 0.
    boot_zero_ms: i64,
    wall_start_ms: u64,
}

/// A running node.
pub(crate) struct Process {
    pub(crate) node: Node<MemStore>,
    pub(crate) inbox: Vec<Input>,
    pub(crate) turn_due: bool,
    /// The driver does not run before this instant.
    pub(crate) stalled_until_us: u64,
    pub(crate) log: LogThread,
    pub(crate) beside: VecDeque<Beside>,
    pub(crate) asides: VecDeque<Aside>,
    pub(crate) flush_due: bool,
    /// What was applied when it was last looked at, by group.
    pub(crate) applied: Vec<Index>,
    /// Groups whose rows are known to be damaged here, and what was applied to them then.
    pub(crate) stopped: BTreeMap<GroupId, Index>,
    /// Groups that it led when it was last looked at, and the members that it went by.
    pub(crate) leads: BTreeMap<GroupId, Members>,
}

/// The log thread: what waits, and what is being synced.
pub(crate) struct LogThread {
    pub(crate) wal: Wal,
    pub(crate) preparer: Preparer,
    pub(crate) prepare_due: bool,
    pub(crate) waiting: VecDeque<LogJob>,
    /// Written and being synced.
    pub(crate) syncing: Vec<JobId>,
    /// Taken from `waiting`, refused by a full disk, to be tried again.
    refused: Option<(Vec<JobId>, Vec<Record>)>,
    pub(crate) busy: bool,
    pub(crate) batches: u64,
    /// Rows are durable up to these indexes on every machine.
    pub(crate) release: Option<BTreeMap<GroupId, Index>>,
    pub(crate) released: u64,
    /// Where each group begins, once some were released.
    pub(crate) begins: Option<BTreeMap<GroupId, Index>>,
    /// Reads entries back for machines that lack them.
    pub(crate) reader: Reader,
}

/// How a write of the log thread went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// There was nothing to write.
    Nothing,
    /// Now it is to be synced.
    Yes,
    /// There is no room; it is to be tried again.
    Full,
}

impl Machine {
    pub(crate) fn new(no: MachineNo, plan: &Plan) -> Machine {
        Machine {
            no,
            peer: founding(plan.machines)[no],
            disk: MemDisk::new(),
            store: new_store(plan),
            shadow: Shadow::new(plan.groups),
            life: 0,
            has_log: false,
            process: None,
            is_lost: false,
            list: 0,
            slow_until_us: 0,
            is_full: false,
            wall_jump_ms: 0,
            boot_zero_ms: -BOOT_STEP_MS * (no as i64 + 1),
            wall_start_ms: plan.wall_start_ms + 700 * no as u64,
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// What the machine's clocks say.
    pub(crate) fn clocks(&self, now_us: u64) -> Now {
        let passed_ms = now_us / 1_000;
        let wall_ms = (self.wall_start_ms + passed_ms).saturating_add_signed(self.wall_jump_ms);
        let boot_ms = passed_ms.saturating_add_signed(-self.boot_zero_ms);
        Now { boot_ms, wall_ms }
    }

    /// Starts a process as a real one starts, and reads the log once more for the shadow.
    pub(crate) fn start(
        &mut self,
        now_us: u64,
        plan: &Plan,
        seed: u64,
    ) -> Result<(Found, Shadow), StartError> {
        let mut shadow = Shadow::new(plan.groups);
        let copy: Arc<dyn Disk> = Arc::new(self.disk.copy());
        Wal::open(copy, self.log_options(plan), &mut |_, record| shadow.replayed(&record))?;

        let start = StartPlan {
            groups: plan.groups,
            voters: founding(plan.machines),
            log: self.log_options(plan),
            driver: self.driver_config(plan, seed),
            level_spoken: tl_core::entry::LEVEL_SPOKEN,
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let now = self.clocks(now_us);
        let (mut node, wal, found) = recover(Arc::clone(&self.store), disk, start, now)?;
        if plan.clock_day_mean_ms > 0 {
            node.not_before(UnixMs(plan.wall_start_ms));
        }
        if let Some(little) = plan.little {
            let chunk_bytes = little.chunk_bytes;
            node.limit_catch_up(CatchUpLimits { chunk_bytes, ..CatchUpLimits::default() });
        }
        let applied: Vec<Index> = (0..plan.groups).map(|no| node.applied(GroupId(no))).collect();
        for (group, applied) in (0..).map(GroupId).zip(&applied) {
            shadow.rows_reach(group, *applied);
            if found.doubted.contains(&group) {
                shadow.doubt(group, &self.shadow, *applied);
            } else if found.damages.iter().any(|damage| damage.group.is_none_or(|of| of == group)) {
                shadow.forget(group, *applied);
            }
        }
        self.life += 1;
        self.has_log = true;
        self.process = Some(Process {
            node,
            inbox: Vec::new(),
            turn_due: false,
            stalled_until_us: 0,
            log: LogThread::new(wal),
            beside: VecDeque::new(),
            asides: VecDeque::new(),
            flush_due: false,
            applied,
            stopped: BTreeMap::new(),
            leads: BTreeMap::new(),
        });
        let before = std::mem::replace(&mut self.shadow, shadow);
        Ok((found, before))
    }

    fn driver_config(&self, plan: &Plan, seed: u64) -> DriverConfig {
        let mut config = DriverConfig::new(self.peer(), seed);
        config.turn_items_max = plan.turn_items_max;
        // Some starts read the log for others, and some leave all that memory lacks to rows.
        config.fetches_max = (seed % 3) as usize;
        if let Some(little) = plan.little {
            config.entry_cache_bytes = little.entry_cache_bytes;
            config.follower_lag_bytes = little.entry_cache_bytes;
            config.followed_bytes_max = little.entry_cache_bytes;
        }
        config
    }

    fn log_options(&self, plan: &Plan) -> WalOptions {
        let mut owner = [0; 16];
        owner[..8].copy_from_slice(&self.peer.0.to_be_bytes());
        WalOptions {
            owner: NodeId(owner),
            segment_bytes: plan.segment_bytes,
            entry_bytes_max: ENTRY_BYTES_MAX,
            spares: 1,
            must_exist: self.has_log,
            on_damage: OnDamage::GoOn,
        }
    }

    /// Puts noise somewhere into the log at rest, such that records which were durable are damaged, the
    /// order of the log can still be told, and nothing passes for a torn write. Says where.
    pub(crate) fn rot_log(&self, plan: &Plan, rng: &mut fastrand::Rng) -> Option<String> {
        let names: Vec<String> = self.disk.list().ok()?.into_iter().map(|file| file.name).collect();
        let before = self.opened(self.disk.copy(), plan)?;
        for _ in 0..ROT_TRIES {
            let name = &names[rng.usize(0..names.len())];
            let bytes = self.disk.contents(name)?;
            let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
            let first = rng.usize(0..=last);
            let part = first..first + rng.usize(1..=ROT_BYTES_MAX);
            let seed = rng.u64(..);
            let copy = self.disk.copy();
            copy.rot(name, part.clone(), seed);
            let after = self.opened(copy, plan);
            if after.is_some_and(|after| {
                after.damages != before.damages
                    && (after.end, &after.cut) == (before.end, &before.cut)
            }) {
                self.disk.rot(name, part.clone(), seed);
                return Some(format!("bytes {part:?} of {name}"));
            }
        }
        None
    }

    fn opened(&self, disk: MemDisk, plan: &Plan) -> Option<Opened> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        Wal::open(disk, self.log_options(plan), &mut |_, _| ()).ok().map(|(_, opened)| opened)
    }

    /// The process ends; what it had written stays in the page cache.
    pub(crate) fn kill(&mut self) {
        self.end();
        self.disk.kill();
    }

    /// Disk and rows are gone; the machine does not start before it has a number of its own. Returns
    /// what was known of the log.
    pub(crate) fn lose_disk(&mut self, plan: &Plan) -> Shadow {
        self.end();
        self.is_lost = true;
        self.disk = MemDisk::new();
        self.store = new_store(plan);
        self.has_log = false;
        std::mem::replace(&mut self.shadow, Shadow::new(plan.groups))
    }

    /// The same machine with nothing on it, which does not start before it has a number of its own.
    pub(crate) fn another(&self, plan: &Plan) -> Machine {
        Machine {
            peer: self.peer,
            life: self.life + 1,
            is_lost: true,
            list: self.list,
            wall_jump_ms: self.wall_jump_ms,
            boot_zero_ms: self.boot_zero_ms,
            ..Machine::new(self.no, plan)
        }
    }

    /// The machine goes on with an empty disk, as somebody else.
    pub(crate) fn begin_anew(&mut self, peer: PeerId, list: usize) {
        (self.peer, self.list, self.is_lost) = (peer, list, false);
    }

    /// Whether a process ran on this disk before.
    pub(crate) fn was_used(&self) -> bool {
        self.has_log
    }

    /// The power is cut: unsynced writes are kept, lost or torn, and the boot clock begins anew.
    pub(crate) fn cut_power(&mut self, now_us: u64, seed: u64) {
        self.end();
        self.boot_zero_ms = (now_us / 1_000) as i64;
        self.disk.crash(seed);
    }

    fn end(&mut self) {
        self.process = None;
        self.is_full = false;
        self.life += 1;
        // Memtables are memory either way.
        self.store.crash();
    }

    /// How far this machine's rows would survive a crash now.
    pub(crate) fn durable(&self, groups: u16) -> Vec<Index> {
        let mut durable = vec![Index(0); usize::from(groups)];
        for (group, applied) in self.store.durable_applied() {
            durable[usize::from(group.0)] = applied.index;
        }
        durable
    }
}

impl LogThread {
    fn new(wal: Wal) -> LogThread {
        LogThread {
            preparer: wal.preparer(),
            wal,
            prepare_due: false,
            waiting: VecDeque::new(),
            syncing: Vec::new(),
            refused: None,
            busy: false,
            batches: 0,
            release: None,
            released: 0,
            begins: None,
            reader: Reader::default(),
        }
    }

    /// One write of everything that waits.
    pub(crate) fn write(&mut self, keep_bytes: u64) -> Result<Written, WalError> {
        if let Some(durable) = self.release.take() {
            let released = self.wal.release(&durable, keep_bytes);
            self.released += released as u64;
            self.begins = (released > 0).then(|| self.wal.begins());
        }
        let (ids, records) = self.refused.take().unwrap_or_else(|| {
            let mut records = Vec::new();
            let mut ids = Vec::new();
            for job in self.waiting.drain(..) {
                ids.push(job.id);
                records.extend(job.records);
            }
            (ids, records)
        });
        if ids.is_empty() {
            return Ok(Written::Nothing);
        }
        match self.wal.append(&records) {
            Ok(_) => {
                self.syncing = ids;
                self.batches += 1;
                Ok(Written::Yes)
            }
            Err(WalError::Full { .. }) => {
                self.refused = Some((ids, records));
                Ok(Written::Full)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }
}

/// The numbers in Raft that machines begin with.
pub(crate) fn founding(machines: usize) -> Vec<PeerId> {
    (1..=machines as u64).map(PeerId).collect()
}

fn new_store(plan: &Plan) -> Arc<MemStore> {
    Arc::new(MemStore::new(StoreOptions {
        memtable_bytes: plan.memtable_bytes,
        cache_bytes: plan.cache_bytes,
        ..StoreOptions::default()
    }))
}
