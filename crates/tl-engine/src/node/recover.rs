//! From a store and a log to a node: the start of a process, the same on a real disk and in the
//! simulator.

use std::sync::Arc;

use tl_raft::{Driver, DriverConfig, GroupStart, PeerId, RecoverError, Recovery};
use tl_store::OrderedStore;
use tl_types::GroupId;
use tl_wal::{Cut, Disk, Record, Wal, WalError, WalOptions};

use super::{Node, Now};

/// Why a node could not start from what is on its disk.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log could not be opened; the source names the place.
    #[error("the write-ahead log could not be opened")]
    Log(#[from] WalError),
    /// Log and store do not fit together.
    #[error("log and store do not fit together")]
    Recover(#[from] RecoverError),
    /// A group's rows could not be read.
    #[error("the store could not be read: {0}")]
    Rows(String),
}

/// What a start needs to know beside the disk.
#[derive(Debug, Clone)]
pub struct StartPlan {
    /// Groups of the cluster; all of them live on this node.
    pub groups: u16,
    /// Who votes in every group.
    pub voters: Vec<PeerId>,
    /// The log's options.
    pub log: WalOptions,
    /// The driver's settings, this node's peer id among them.
    pub driver: DriverConfig,
}

/// What was found in the log.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Entries behind what the store holds durably.
    pub entries: u64,
    /// Bytes of those entries.
    pub bytes: u64,
    /// A torn write that was cut off the end.
    pub cut: Option<Cut>,
}

/// Opens the log, reads what the store does not hold yet, and makes the node.
///
/// # Errors
/// [`StartError`]; the node must not run then.
pub fn recover<S: OrderedStore>(
    store: Arc<S>,
    disk: Arc<dyn Disk>,
    plan: StartPlan,
    now: Now,
) -> Result<(Node<S>, Wal, Found), StartError> {
    let keep_bytes = if plan.voters.len() > 1 { plan.driver.entry_cache_bytes } else { 0 };
    let starts = (0..plan.groups).map(GroupId).map(|group| {
        let applied = store.applied(group);
        GroupStart { group, voters: plan.voters.clone(), applied: (applied.index, applied.term) }
    });
    let mut recovery = Recovery::new(starts.collect(), keep_bytes);
    let mut found = Found::default();
    let (wal, opened) = Wal::open(disk, plan.log, &mut |_, record| {
        if let Record::Entry { group, index, data, .. } = &record
            && *index > store.applied(*group).index
        {
            found.entries += 1;
            found.bytes += data.len() as u64;
        }
        recovery.record(record);
    })?;
    found.cut = opened.cut;
    let driver = Driver::new(plan.driver, recovery.finish()?);
    // Only a node that is its own majority may set its clock by itself.
    let step_clock = plan.voters.len() == 1;
    let node = Node::new(driver, store, plan.groups, now, step_clock).map_err(StartError::Rows)?;
    Ok((node, wal, found))
}
