//! What the engine counts. Names are `throughline_<thing>_<unit>[_total]`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use stages::{Stage, Stages, Trace};

use crate::node::CatchUpOpen;

mod stages;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabel {
    budget: &'static str,
}

/// Label of what is known of another member; there are few of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabel {
    member: String,
}

/// Label of transfers of rows that are under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabel {
    /// `given` or `taken`.
    rows: &'static str,
    step: &'static str,
}

/// The engine's own metrics; fronts register theirs beside them.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Events accepted, repeats not counted.
    pub events_appended: Counter,
    /// Writes answered as repeats.
    pub writes_deduped: Counter,
    /// Writes refused by a rule.
    pub writes_refused: Counter,
    /// Entries applied.
    pub entries_applied: Counter,
    /// Entries whose rows had to be loaded from sorted runs beside the driver.
    pub entries_cold: Counter,
    /// Syncs of the log's files, marks and new segments included.
    pub log_syncs: Counter,
    /// Bytes written to the log, marks and repeated state included.
    pub log_bytes: Counter,
    /// Seconds one write and sync of the log took.
    pub log_sync_seconds: Histogram,
    /// Entries per log write.
    pub log_batch_entries: Histogram,
    /// Log segments prepared and not yet used.
    pub log_segments_ready: Gauge<i64, AtomicI64>,
    /// Memtables written to sorted runs.
    pub flushes: Counter,
    /// Seconds one flush took.
    pub flush_seconds: Histogram,
    /// Compactions run.
    pub compactions: Counter,
    /// Damaged places that the start found in the log and went on behind.
    pub log_damages_found: Counter,
    /// Scrubs that read everything on disk.
    pub scrubs: Counter,
    /// Files that the last scrub found damaged.
    pub scrub_damaged_files: Gauge<i64, AtomicI64>,
    /// Open tails.
    pub tails_open: Gauge<i64, AtomicI64>,
    /// Requests proposed and not answered.
    pub inflight_requests: Gauge<i64, AtomicI64>,
    /// Bytes proposed and not answered.
    pub inflight_bytes: Gauge<i64, AtomicI64>,
    /// Groups stopped because of damage.
    pub groups_stopped: Gauge<i64, AtomicI64>,
    /// Tails that have not been given all that they may show.
    pub tails_behind: Gauge<i64, AtomicI64>,
    /// Events that the tail furthest behind has not been given.
    pub tail_lag_events_max: Gauge<i64, AtomicI64>,
    /// Events that all tails together have not been given.
    pub tail_lag_events: Gauge<i64, AtomicI64>,
    /// Where the time of writes goes.
    pub stages: Arc<Stages>,
    budget_used: Family<BudgetLabel, Gauge>,
    budget_max: Family<BudgetLabel, Gauge>,
    /// Writes refused before they were proposed.
    pub writes_not_admitted: Family<ReasonLabel, Counter>,
    /// Flushes and compactions that found no room and are tried again.
    pub no_room: Counter,
    /// Frames of other nodes that were dropped because too many waited for the driver.
    pub peer_frames_dropped: Counter,
    /// Appends of leaders that were passed over because what came before them waits for the disk.
    pub appends_passed_over: Counter,
    /// Groups whose rows were given to a node that was far behind.
    pub snapshots_given: Counter,
    /// Groups whose rows were taken from another node.
    pub snapshots_taken: Counter,
    /// Bytes of rows given.
    pub snapshot_bytes: Counter,
    /// Bytes of rows taken that were here already.
    pub snapshot_bytes_reused: Counter,
    /// Groups whose rows were offered to a node that wanted none then.
    pub snapshots_not_wanted: Counter,
    /// Groups whose rows could not be given, or not to the end.
    pub snapshots_given_up: Counter,
    /// Groups whose rows were being taken and did not come to the end.
    pub snapshots_let_go: Counter,
    snapshots_open: Family<StepLabel, Gauge>,
    /// Entries sent to followers from the log on disk.
    pub log_fed_entries: Counter,
    /// Bytes of them.
    pub log_fed_bytes: Counter,
    /// Times that the log did not have what a follower lacked.
    pub log_feeds_missed: Counter,
    /// Memtables that are being written out now: 0 or 1.
    pub flushes_open: Gauge<i64, AtomicI64>,
    /// Groups that this node leads, of a cluster of several nodes.
    pub groups_led: Gauge<i64, AtomicI64>,
    /// Writes handed on to the node that leads their group.
    pub writes_forwarded: Counter,
    /// Other nodes' writes that were proposed here without a wait.
    pub writes_served: Counter,
    /// Reads asked of other members: of groups without a copy here, or with one that is behind.
    pub reads_forwarded: Counter,
    /// Sessions without a copy here that tails here hang on.
    pub sessions_followed: Gauge<i64, AtomicI64>,
    replicas_behind: Family<MemberLabel, Gauge>,
    replica_lag: Family<MemberLabel, Gauge>,
    /// Other members of which nothing is heard.
    pub members_unreachable: Gauge<i64, AtomicI64>,
    /// Number of the list of members that is in force here.
    pub members_number: Gauge<i64, AtomicI64>,
    /// Groups here whose members are not those of the list yet.
    pub groups_replacing: Gauge<i64, AtomicI64>,
    /// Free bytes of the fullest file system that the node writes to.
    pub disk_free_bytes: Gauge<i64, AtomicI64>,
    /// Free bytes below which clients' writes are refused.
    pub disk_reserve_bytes: Gauge<i64, AtomicI64>,
    /// Bytes of the store's files.
    pub store_disk_bytes: Gauge<i64, AtomicI64>,
    /// Bytes held of the memory budget.
    pub memory_used_bytes: Gauge<i64, AtomicI64>,
    /// The memory budget.
    pub memory_budget_bytes: Gauge<i64, AtomicI64>,
}

/// Why a write was refused before it was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// Too much is under way.
    Inflight,
    /// The memory budget is used up.
    Memory,
    /// Flushes are behind.
    Flush,
    /// There is no room on disk.
    Disk,
}

impl RefusedFor {
    fn word(self) -> &'static str {
        match self {
            RefusedFor::Inflight => "inflight",
            RefusedFor::Memory => "memory",
            RefusedFor::Flush => "flush_behind",
            RefusedFor::Disk => "disk_full",
        }
    }
}

/// Label of refused writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 18));
        let metrics = Metrics {
            registry: Mutex::new(Registry::with_prefix("throughline")),
            events_appended: Counter::default(),
            writes_deduped: Counter::default(),
            writes_refused: Counter::default(),
            entries_applied: Counter::default(),
            entries_cold: Counter::default(),
            log_syncs: Counter::default(),
            log_bytes: Counter::default(),
            log_sync_seconds: seconds(),
            log_batch_entries: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            log_segments_ready: Gauge::default(),
            flushes: Counter::default(),
            flush_seconds: seconds(),
            compactions: Counter::default(),
            log_damages_found: Counter::default(),
            scrubs: Counter::default(),
            scrub_damaged_files: Gauge::default(),
            tails_open: Gauge::default(),
            inflight_requests: Gauge::default(),
            inflight_bytes: Gauge::default(),
            groups_stopped: Gauge::default(),
            tails_behind: Gauge::default(),
            tail_lag_events_max: Gauge::default(),
            tail_lag_events: Gauge::default(),
            stages: Arc::default(),
            budget_used: Family::default(),
            budget_max: Family::default(),
            writes_not_admitted: Family::default(),
            no_room: Counter::default(),
            peer_frames_dropped: Counter::default(),
            appends_passed_over: Counter::default(),
            snapshots_given: Counter::default(),
            snapshots_taken: Counter::default(),
            snapshot_bytes: Counter::default(),
            snapshot_bytes_reused: Counter::default(),
            snapshots_not_wanted: Counter::default(),
            snapshots_given_up: Counter::default(),
            snapshots_let_go: Counter::default(),
            snapshots_open: Family::default(),
            log_fed_entries: Counter::default(),
            log_fed_bytes: Counter::default(),
            log_feeds_missed: Counter::default(),
            flushes_open: Gauge::default(),
            groups_led: Gauge::default(),
            writes_forwarded: Counter::default(),
            writes_served: Counter::default(),
            reads_forwarded: Counter::default(),
            sessions_followed: Gauge::default(),
            replicas_behind: Family::default(),
            replica_lag: Family::default(),
            members_unreachable: Gauge::default(),
            members_number: Gauge::default(),
            groups_replacing: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            disk_reserve_bytes: Gauge::default(),
            store_disk_bytes: Gauge::default(),
            memory_used_bytes: Gauge::default(),
            memory_budget_bytes: Gauge::default(),
        };
        metrics.register_own();
        metrics
    }
}

impl Metrics {
    fn register_own(&self) {
        let mut registry = self.registry.lock();
        let mut counter = |name, help, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("events_appended", "Events accepted, repeats not counted", &self.events_appended);
        counter("writes_deduped", "Writes answered as repeats", &self.writes_deduped);
        counter("writes_refused", "Writes refused by a rule", &self.writes_refused);
        counter("entries_applied", "Log entries applied", &self.entries_applied);
        counter("entries_cold", "Entries whose rows were loaded first", &self.entries_cold);
        counter("log_syncs", "Syncs of the write-ahead log", &self.log_syncs);
        counter("log_bytes", "Bytes written to the write-ahead log", &self.log_bytes);
        counter("flushes", "Memtables written to sorted runs", &self.flushes);
        counter("compactions", "Compactions of sorted runs", &self.compactions);
        let damages = &self.log_damages_found;
        counter("log_damages_found", "Damaged places in the log that the start found", damages);
        counter("scrubs", "Scrubs that read everything on disk", &self.scrubs);
        counter("no_room", "Flushes and compactions that found no room", &self.no_room);
        let dropped = &self.peer_frames_dropped;
        counter("peer_frames_dropped", "Frames of other nodes dropped for want of room", dropped);
        let passed_over = &self.appends_passed_over;
        let help = "Appends of leaders passed over until what came before them is on disk";
        counter("appends_passed_over", help, passed_over);
        let given = &self.snapshots_given;
        counter("snapshots_given", "Groups whose rows were given to a node far behind", given);
        let taken = &self.snapshots_taken;
        counter("snapshots_taken", "Groups whose rows were taken from another node", taken);
        counter("snapshot_bytes", "Bytes of rows given to nodes far behind", &self.snapshot_bytes);
        let reused = &self.snapshot_bytes_reused;
        let help = "Bytes of rows taken that were here already and did not travel";
        counter("snapshot_bytes_reused", help, reused);
        let not_wanted = &self.snapshots_not_wanted;
        counter("snapshots_not_wanted", "Groups whose rows a node did not want then", not_wanted);
        let given_up = &self.snapshots_given_up;
        counter("snapshots_given_up", "Groups whose rows were not given to the end", given_up);
        let let_go = &self.snapshots_let_go;
        counter("snapshots_let_go", "Groups whose rows were not taken to the end", let_go);
        let fed = &self.log_fed_entries;
        counter("log_fed_entries", "Entries sent to followers from the log on disk", fed);
        let fed = &self.log_fed_bytes;
        counter("log_fed_bytes", "Bytes sent to followers from the log on disk", fed);
        let missed = &self.log_feeds_missed;
        counter("log_feeds_missed", "Entries looked for in the log on disk and not there", missed);
        let forwarded = &self.writes_forwarded;
        counter("writes_forwarded", "Writes handed on to their group's leader", forwarded);
        let served = &self.writes_served;
        counter("writes_served", "Other nodes' writes that were proposed without a wait", served);
        let reads = &self.reads_forwarded;
        counter(
            "reads_forwarded",
            "Reads asked of other members: no copy here, or one behind",
            reads,
        );
        let mut histogram = |name, help, histogram: &Histogram| {
            registry.register(name, help, histogram.clone());
        };
        histogram("log_sync_seconds", "One write and sync of the log", &self.log_sync_seconds);
        histogram("log_batch_entries", "Entries per log write", &self.log_batch_entries);
        histogram("flush_seconds", "One flush", &self.flush_seconds);
        let mut gauge = |name, help, gauge: &Gauge<i64, AtomicI64>| {
            registry.register(name, help, gauge.clone());
        };
        let damaged = &self.scrub_damaged_files;
        gauge("scrub_damaged_files", "Files that the last scrub found damaged", damaged);
        gauge("log_segments_ready", "Log segments ready for use", &self.log_segments_ready);
        gauge("tails_open", "Open tails", &self.tails_open);
        gauge("inflight_requests", "Requests proposed and not answered", &self.inflight_requests);
        gauge("inflight_bytes", "Bytes proposed and not answered", &self.inflight_bytes);
        gauge("groups_stopped", "Groups stopped because of damage", &self.groups_stopped);
        gauge("disk_free_bytes", "Free bytes of the fullest file system", &self.disk_free_bytes);
        gauge("groups_led", "Groups that this member of a cluster leads", &self.groups_led);
        let followed = &self.sessions_followed;
        gauge("sessions_followed", "Sessions of other members that tails here hang on", followed);
        let unreachable = &self.members_unreachable;
        gauge("members_unreachable", "Other members of which nothing is heard", unreachable);
        let number = &self.members_number;
        gauge("members_number", "Number of the list of members that is in force here", number);
        let replacing = &self.groups_replacing;
        gauge("groups_replacing", "Groups whose members are not those of the list yet", replacing);
        let reserve = &self.disk_reserve_bytes;
        gauge("disk_reserve_bytes", "Free bytes below which writes are refused", reserve);
        gauge("store_disk_bytes", "Bytes of the store's files", &self.store_disk_bytes);
        gauge("memory_used_bytes", "Bytes held of the memory budget", &self.memory_used_bytes);
        gauge("memory_budget_bytes", "The memory budget", &self.memory_budget_bytes);
        gauge("tails_behind", "Tails that have not been given everything", &self.tails_behind);
        let furthest = &self.tail_lag_events_max;
        gauge("tail_lag_events_max", "Events that the tail furthest behind misses", furthest);
        gauge("flushes_open", "Memtables that are being written out", &self.flushes_open);
        gauge("tail_lag_events", "Events that all tails together miss", &self.tail_lag_events);
        registry.register(
            "write_stage_seconds",
            "Where the time of writes goes: waiting for a turn, the log and its sync, applying, \
             answering; one write in 16 is followed",
            self.stages.seconds.clone(),
        );
        registry.register(
            "snapshots_open",
            "Groups whose rows are being given or taken now, by step",
            self.snapshots_open.clone(),
        );
        registry.register(
            "replicas_behind",
            "Groups led here whose replica on that member is far behind or cut off",
            self.replicas_behind.clone(),
        );
        registry.register(
            "replica_lag_entries_max",
            "Entries that the replica furthest behind on that member lacks, of groups led here",
            self.replica_lag.clone(),
        );
        let used = self.budget_used.clone();
        registry.register("budget_used_bytes", "Memory in use, by what it is for", used);
        let max = self.budget_max.clone();
        registry.register("budget_max_bytes", "Its limit, where it has one of its own", max);
        registry.register(
            "writes_not_admitted",
            "Writes refused before they were proposed, by reason",
            self.writes_not_admitted.clone(),
        );
    }

    /// Counts a write that was refused before it was proposed.
    pub(crate) fn refused_for(&self, why: RefusedFor) {
        self.writes_not_admitted.get_or_create(&ReasonLabel { reason: why.word() }).inc();
    }

    /// Says what another member's replicas lack of the groups led here.
    pub(crate) fn replicas_at(&self, member: &str, behind: u16, entries: u64) {
        let label = MemberLabel { member: member.to_owned() };
        self.replicas_behind.get_or_create(&label).set(behind.into());
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        self.replica_lag.get_or_create(&label).set(entries);
    }

    /// Says at which step transfers of rows are.
    pub(crate) fn transfers(&self, open: CatchUpOpen) {
        let CatchUpOpen { preparing, sending, finishing, following, .. } = open;
        let CatchUpOpen { loading, flushing, installing, .. } = open;
        for (rows, step, count) in [
            ("given", "preparing", preparing),
            ("given", "sending", sending),
            ("given", "finishing", finishing),
            ("given", "following", following),
            ("taken", "loading", loading),
            ("taken", "flushing", flushing),
            ("taken", "installing", installing),
        ] {
            let gauge = self.snapshots_open.get_or_create(&StepLabel { rows, step });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Takes over the log's own totals.
    pub(crate) fn log_counts(&self, syncs: u64, written_bytes: u64) {
        self.log_syncs.inner().store(syncs, Ordering::Relaxed);
        self.log_bytes.inner().store(written_bytes, Ordering::Relaxed);
    }

    /// Says how much of a shared amount of memory is used.
    pub(crate) fn budget(&self, budget: &'static str, used: u64, limit: Option<u64>) {
        let label = BudgetLabel { budget };
        self.budget_used.get_or_create(&label).set(used as i64);
        if let Some(limit) = limit {
            self.budget_max.get_or_create(&label).set(limit as i64);
        }
    }

    /// Lets a front add its own metrics under the same prefix.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }
}
