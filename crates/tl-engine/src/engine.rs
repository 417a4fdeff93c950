//! Opening and closing a node: directory, identity, log, store, driver, threads.
//!
//! Order of a start: lock → identity → store (newest sorted runs and how far they go) → log (everything
//! behind that, streamed) → identity again, which remembers the log → driver → threads. What the log holds and the runs do not is applied
//! again by the driver once its groups have elected themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_core::entry::LEVEL_SPOKEN;
use tl_raft::transport::TransportError;
use tl_raft::{DriverConfig, PeerId};
use tl_store::{LsmStore, StoreError, StoreOptions};
use tl_types::{NodeId, UnixMs};
use tl_wal::{OnDamage, StdDisk, WalOptions};
use tokio::sync::watch;

use crate::api::NodeInfo;
use crate::cluster::{ClusterError, ClusterSettings, Membership};
use crate::hub::Hub;
use crate::identity::{Identity, IdentityError};
use crate::lock::{DirLock, LockError};
use crate::memory::{Budget, MEMTABLES_MAX, Shares};
use crate::metrics::Metrics;
use crate::node::recover::{Found, StartError, StartPlan, recover_some};
use crate::ops::roster::Roster;
use crate::ops::{DrainError, Ops};
use crate::peers::Peers;
use crate::service::{BESIDE_AT_ONCE_MAX, Follows, Inner, Recent, Service, TailRoom};
use crate::settings::EngineSettings;
use crate::shell::admission::Admission;
use crate::shell::links::Links;
use crate::shell::pulse::Pulse;
use crate::shell::space::Space;
use crate::shell::{FailureWatch, LogLimits, Shell, With, time};

/// The peer id of a node that is its own cluster.
const ONLY_PEER: PeerId = PeerId(1);
/// The log is written in pieces of a segment divided by this.
const LOG_PIECES_PER_SEGMENT: u64 = 4;
/// Longest wait at a stop for other members to take over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);
/// Entries that are kept for followers may have this part of the memory budget.
const ENTRIES_OF_BUDGET: u64 = 8;
/// Followers that are sent entries from the log at a time; half a mebibyte in memory for each.
const FETCHES_MAX: usize = 16;
/// Entries of leaders that wait for the disk or to be applied may have this part of it.
const FOLLOWED_OF_BUDGET: u64 = 32;
/// One group may have this part of them for a follower that lags.
const LAG_OF_ENTRIES: usize = 4;
/// Longest wait for all groups to have applied what the log holds, at a start.
const READY_WITHIN: Duration = Duration::from_secs(600);
/// Rest of a member between two such waits.
const PROBE_REST: Duration = Duration::from_secs(1);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Correct the settings; each sentence names one.
    #[error("settings out of range: {}", .0.join("; "))]
    Settings(Vec<String>),
    /// Another process has the data directory, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data directory is not usable as it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The sorted runs could not be opened.
    #[error("the store could not be opened")]
    Store(#[from] StoreError),
    /// The node is not the member of a cluster that its settings say.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node cannot speak with the other members.
    #[error("the node cannot speak with the other members")]
    Transport(#[from] TransportError),
    /// What is on the disk is not a node's whole state.
    #[error("the node could not start from its data directory")]
    Start(#[from] StartError),
    /// The file system does not say whether the node shall be drained.
    #[error(transparent)]
    Drain(#[from] DrainError),
    /// The operating system refused something else.
    #[error("failed to {what}")]
    System {
        /// The deed.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// What a start found and how long it took, for the log line and `tl doctor`.
#[derive(Debug, Clone)]
pub struct StartReport {
    /// What the log held behind the sorted runs.
    pub found: Found,
    /// Time until the threads ran.
    pub took: Duration,
}

/// A running node without a face.
#[derive(Debug)]
pub struct Engine {
    service: Service<LsmStore>,
    shell: Shell<LsmStore>,
    /// Dropped behind the threads that send through it.
    peers: Option<Peers>,
    report: StartReport,
    ready: watch::Receiver<bool>,
    /// Tasks of the node itself; they hold the store and end with it.
    tasks: Vec<tokio::task::AbortHandle>,
    /// Dropped last, after the threads have ended.
    _lock: DirLock,
}

impl Engine {
    /// Opens the data directory and starts the node. Blocking; to be called within a tokio
    /// runtime, where answers are handed out.
    ///
    /// # Errors
    /// [`EngineError`]; nothing runs then.
    pub fn open(settings: &EngineSettings) -> Result<Engine, EngineError> {
        Engine::open_in(settings, &ClusterSettings::default())
    }

    /// The same as a member of a cluster, if the settings name one.
    ///
    /// # Errors
    /// [`EngineError`]; nothing runs then.
    pub fn open_in(
        settings: &EngineSettings,
        cluster: &ClusterSettings,
    ) -> Result<Engine, EngineError> {
        Engine::open_speaking(settings, cluster, LEVEL_SPOKEN)
    }

    /// The same as a release would whose highest feature level is this one: for tests of clusters
    /// between two releases.
    ///
    /// # Errors
    /// [`EngineError`]; nothing runs then.
    #[doc(hidden)]
    pub fn open_speaking(
        settings: &EngineSettings,
        cluster: &ClusterSettings,
        level_spoken: u16,
    ) -> Result<Engine, EngineError> {
        let started = Instant::now();
        settings.check().map_err(EngineError::Settings)?;
        cluster.check(&settings.node_name).map_err(EngineError::Settings)?;
        let random = random_source()?;
        let lock = DirLock::take(&settings.data_dir)?;
        let mut identity = match cluster.is_set() {
            true => Identity::open(&settings.data_dir)?
                .ok_or_else(|| ClusterError::NotFounded { dir: settings.data_dir.clone() })?,
            false => Identity::open_or_create(&settings.data_dir, settings.groups, &random)?,
        };
        let membership =
            Membership::of(&settings.data_dir, &identity, cluster, &settings.node_name)?;
        if let Some(member) = &membership {
            member.list.check_level(level_spoken)?;
        }
        let me = membership.as_ref().map_or(ONLY_PEER, |member| member.seat.peer);
        let groups = identity.groups;
        let pulse = Arc::new(Pulse::default());
        let options = StoreOptions {
            pacing: pulse.pacing(),
            memtable_bytes: settings.memtable_bytes,
            cache_bytes: settings.cache_bytes / 2,
            block_cache_bytes: settings.cache_bytes / 2,
            ..StoreOptions::default()
        };
        let store = Arc::new(LsmStore::open(&settings.data_dir.join("store"), options)?);
        let disk = StdDisk::create(settings.data_dir.join("log"))
            .map_err(|source| EngineError::System { what: "open the log's directory", source })?;
        let seed = u64::from_le_bytes(random()[..8].try_into().expect("eight of sixteen bytes"));
        let plan = StartPlan {
            groups,
            voters: membership.as_ref().map_or(vec![ONLY_PEER], |member| member.voters.clone()),
            log: WalOptions {
                owner: NodeId(identity.node_id_bytes()),
                segment_bytes: settings.log_segment_bytes,
                must_exist: identity.has_log,
                // Who has peers is brought past the damage by them.
                on_damage: match &membership {
                    Some(_) => OnDamage::GoOn,
                    None => OnDamage::Refuse,
                },
                ..WalOptions::default()
            },
            driver: cluster.timed(driver_config(me, seed, settings.memory_budget_bytes)),
            level_spoken,
        };
        let now = time::now();
        let voters_of = |group| match &membership {
            Some(member) => member.voters_of(group),
            None => Some(vec![ONLY_PEER]),
        };
        let (mut node, wal, found) =
            recover_some(Arc::clone(&store), Arc::new(disk), plan, voters_of, now)?;
        identity.remember_log(&settings.data_dir, &random)?;
        if let Some(member) = &membership {
            node.not_before(member.founded_at);
        }
        if let Some(cut) = &found.cut {
            tracing::warn!(
                segment = cut.segment,
                at_bytes = cut.at_bytes,
                records = cut.records,
                "cut a torn write off the end of the log: it had not been acknowledged"
            );
        }
        tell_of_damage(&found);
        let shares = settings.shares();
        let hub = Hub::holding(usize::try_from(shares.windows_bytes).unwrap_or(usize::MAX));
        let metrics = Arc::new(Metrics::default());
        metrics.log_damages_found.inc_by(found.damages.len() as u64);
        let (space, admission) = watched(settings, &shares, &metrics);
        let run = u64::from_le_bytes(random()[..8].try_into().expect("eight of sixteen bytes"));
        let links = membership
            .as_ref()
            .map(|member| Arc::new(Links::new(member, groups, run, Arc::clone(&metrics))));
        let runtime = tokio::runtime::Handle::current();
        let log = wal.counters();
        let with = With {
            hub: Arc::clone(&hub),
            metrics: Arc::clone(&metrics),
            space,
            admission: Arc::clone(&admission),
            pulse,
            limits: LogLimits {
                keep_bytes: if membership.is_some() { settings.log_keep_bytes } else { 0 },
                piece_bytes: settings.log_segment_bytes / LOG_PIECES_PER_SEGMENT,
                feeds: membership.is_some(),
            },
            links: links.clone(),
        };
        let shell = Shell::start(node, wal, with, &runtime)
            .map_err(|source| EngineError::System { what: "start a thread", source })?;
        let (ready_sender, ready) = watch::channel(false);
        let others = links.iter().flat_map(|links| links.others());
        let roster = membership.as_ref().map(|member| Roster::new(&settings.data_dir, member));
        let now_ms = time::now().boot_ms;
        let ops = Ops::new(&settings.data_dir, others, roster, cluster.patience(), now_ms);
        let shall_drain = ops.drain_file.is_there()?;
        if shall_drain {
            tracing::warn!(
                "this node is drained, as it was before its start: see `tl ops undrain`"
            );
        }
        let service = Service::new(Inner {
            groups,
            level_spoken,
            store,
            hub,
            metrics,
            mailer: shell.mailer(),
            links: links.clone(),
            lags: Arc::default(),
            admission,
            background: shell.background(),
            failure: shell.failure(),
            draining: watch::Sender::new(shall_drain),
            ready: ready.clone(),
            log,
            recent: Recent::default(),
            lists: tokio::sync::Semaphore::new(crate::service::LISTS_AT_ONCE_MAX),
            beside: Arc::new(tokio::sync::Semaphore::new(BESIDE_AT_ONCE_MAX)),
            tail_room: TailRoom::new(shares.tails_bytes),
            follows: Follows::default(),
            info: NodeInfo {
                name: settings.node_name.as_str().into(),
                started_at: UnixMs(now.wall_ms),
            },
            ops,
        });
        let mut tasks = Vec::new();
        let peers = match (membership, links) {
            (Some(mut member), Some(links)) => {
                member.birth = identity.birth_bytes();
                let seed = u64::from_le_bytes(random()[..8].try_into().expect("eight of sixteen"));
                let mailer = shell.mailer();
                Some(Peers::start(member, links, mailer, &service, seed, &mut tasks)?)
            }
            (None, _) | (_, None) => None,
        };
        let probe = service.clone();
        let probing = runtime.spawn(async move {
            loop {
                if probe.confirm_all_groups(Instant::now() + READY_WITHIN).await.is_ok() {
                    ready_sender.send_replace(true);
                    return;
                }
                // A member waits for the others as long as they take, and shows what it holds.
                if !probe.has_others() || !probe.is_running() {
                    return;
                }
                tokio::time::sleep(PROBE_REST).await;
            }
        });
        let ticking = runtime.spawn(service.clone().tick_when_due());
        if peers.is_some() {
            tasks.push(runtime.spawn(service.clone().keep_balance()).abort_handle());
            tasks.push(runtime.spawn(service.clone().keep_drained()).abort_handle());
            tasks.push(runtime.spawn(service.clone().keep_watch()).abort_handle());
            tasks.push(runtime.spawn(service.clone().keep_members()).abort_handle());
            tasks.push(runtime.spawn(service.clone().keep_reads_moving()).abort_handle());
        }
        tasks.extend([probing.abort_handle(), ticking.abort_handle()]);
        let report = StartReport { found, took: started.elapsed() };
        Ok(Engine { service, shell, peers, report, ready, tasks, _lock: lock })
    }

    /// The face of the node.
    #[must_use]
    pub fn service(&self) -> Service<LsmStore> {
        self.service.clone()
    }

    /// What the start found.
    #[must_use]
    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// Becomes `Some` when the node stopped by itself.
    #[must_use]
    pub fn failure(&self) -> FailureWatch {
        self.shell.failure()
    }

    /// Waits until every group has applied what the log holds.
    ///
    /// # Errors
    /// Why the node stopped by itself meanwhile, or that it took too long.
    pub async fn wait_ready(&self) -> Result<(), Arc<str>> {
        let (mut ready, mut failure) = (self.ready.clone(), self.shell.failure());
        // The probe ends without a word when the node fails or does not get ready in time.
        let reached = tokio::select! {
            reached = ready.wait_for(|ready| *ready) => reached.is_ok(),
            _ = failure.wait_for(Option::is_some) => false,
        };
        if reached {
            return Ok(());
        }
        let why = self.shell.failure().borrow().clone();
        Err(why.unwrap_or_else(|| "not every group could be confirmed in time".into()))
    }

    /// Ends open tails with a resumable end and reports "draining".
    pub fn begin_drain(&self) {
        self.service.begin_drain();
    }

    /// As [`Engine::begin_drain`], and waits until other members lead what this node led, or so
    /// long. Tells whether they do.
    pub async fn drain_within(&self, limit: Duration) -> bool {
        self.service.begin_drain();
        self.service.handed_over_within(limit).await
    }

    /// Ends the node. Blocking; what was acknowledged is in the log.
    pub fn shutdown(mut self) {
        self.service.begin_drain();
        self.wait_for_hand_over();
        self.shell.stop();
        drop(self.peers.take());
    }

    /// Waits until other members lead what this node led, so that its end costs no election.
    fn wait_for_hand_over(&self) {
        /// Between two looks.
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        /// Whoever lagged a moment ago may be asked again.
        const ASK_EVERY: Duration = Duration::from_millis(100);
        let until = Instant::now() + HAND_OVER_WITHIN;
        let mut asked = Instant::now();
        while self.service.leads_for_present() && Instant::now() < until {
            if asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                self.service.hand_over();
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The usual settings, with no more entries kept for followers than fit the node's memory.
fn driver_config(me: PeerId, seed: u64, memory_budget_bytes: u64) -> DriverConfig {
    let usual = DriverConfig::new(me, seed);
    let share = |part: u64| usize::try_from(memory_budget_bytes / part).unwrap_or(usize::MAX);
    let entry_cache_bytes = usual.entry_cache_bytes.min(share(ENTRIES_OF_BUDGET));
    let followed_bytes_max = usual.followed_bytes_max.min(share(FOLLOWED_OF_BUDGET));
    let follower_lag_bytes = usual.follower_lag_bytes.min(entry_cache_bytes / LAG_OF_ENTRIES);
    DriverConfig {
        entry_cache_bytes,
        follower_lag_bytes,
        followed_bytes_max,
        fetches_max: FETCHES_MAX,
        ..usual
    }
}

/// Damaged places in the log that are told one by one; of more, the number says enough.
const DAMAGES_TOLD_MAX: usize = 16;

fn tell_of_damage(found: &Found) {
    for damage in found.damages.iter().take(DAMAGES_TOLD_MAX) {
        tracing::error!(place = %damage, "the log is damaged: records that were durable are lost");
    }
    if !found.damages.is_empty() {
        tracing::error!(
            places = found.damages.len(),
            groups_doubted = found.doubted.len(),
            "this node goes on behind the damage: groups that may have lost something wait for rows \
             of their leaders; replace the disk if it goes on losing data"
        );
    }
}

/// What a write looks at before it is proposed: room on disk and in memory.
fn watched(
    settings: &EngineSettings,
    shares: &Shares,
    metrics: &Arc<Metrics>,
) -> (Arc<Space>, Arc<Admission>) {
    // Each may be a disk of its own.
    let dirs = ["log", "store"].map(|name| settings.data_dir.join(name)).to_vec();
    let space = Arc::new(Space::new(dirs, settings.disk_reserve_bytes));
    // The first write is judged by what is known; whoever cannot look is told by the watch.
    drop(space.look());
    let budget = Budget::new(settings.memory_budget_bytes, shares);
    let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    metrics.disk_reserve_bytes.set(gauge(settings.disk_reserve_bytes));
    metrics.memory_budget_bytes.set(gauge(settings.memory_budget_bytes));
    tracing::info!(
        budget_bytes = settings.memory_budget_bytes,
        memtables_bytes = shares.memtable_bytes * MEMTABLES_MAX,
        cache_bytes = shares.cache_bytes,
        inflight_bytes = shares.inflight_bytes,
        windows_bytes = shares.windows_bytes,
        disk_free_bytes = space.free_bytes(),
        disk_reserve_bytes = space.reserve_bytes(),
        "budgets"
    );
    let inflight_bytes = usize::try_from(shares.inflight_bytes).unwrap_or(usize::MAX);
    let admission = Admission::new(inflight_bytes, Arc::clone(&space), budget, Arc::clone(metrics));
    (space, Arc::new(admission))
}

/// Random bytes, asked for once here so that a system without them fails at the start.
fn random_source() -> Result<impl Fn() -> [u8; 16], EngineError> {
    let fill = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map(|()| bytes)
    };
    fill().map_err(|error| EngineError::System {
        what: "get random bytes from the operating system",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(move || fill().expect("the operating system gave random bytes before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_for_followers_follow_the_memory_budget_up_to_the_usual() {
        let kept = |budget_mib: u64| {
            let config = driver_config(ONLY_PEER, 1, budget_mib << 20);
            let bytes =
                [config.entry_cache_bytes, config.follower_lag_bytes, config.followed_bytes_max];
            bytes.map(|bytes| bytes >> 20)
        };
        assert_eq!(kept(128), [16, 4, 4]);
        assert_eq!((kept(1_024), kept(1 << 20)), ([128, 32, 32], [128, 32, 64]));
    }
}
