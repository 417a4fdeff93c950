//! From a store and a log to a node: the start of a process, the same on a real disk and in the
//! simulator.

use std::sync::Arc;

use bytes::Bytes;
use tl_core::{Outcome, Poison};
use tl_raft::{
    Driver, DriverConfig, GroupStart, LogDamage, PeerId, RecoverError, RecoveredGroup, Recovery,
    Staged,
};
use tl_store::{GroupWrites, OrderedStore};
use tl_types::{Generation, GroupId, Index, Term};
use tl_wal::{Cut, Damage, Disk, Opened, Position, Record, Wal, WalError, WalOptions};

use super::rows::{BlockingRows, HeldRows};
use super::{LOG_ENTRY_OVERHEAD, Node, Now, floors_of};

/// Records that the thread which reads the log hands over at a time.
const PIECE_RECORDS: usize = 64;
/// Such pieces that may wait to be applied.
const PIECES_AHEAD_MAX: usize = 4;

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
    /// Groups of the cluster.
    pub groups: u16,
    /// Who voted when the cluster was founded; a node that came later is not among them. Who votes
    /// since then, the log says.
    pub voters: Vec<PeerId>,
    /// The log's options.
    pub log: WalOptions,
    /// The driver's settings, this node's peer id among them.
    pub driver: DriverConfig,
    /// The highest feature level of entries that this node applies.
    pub level_spoken: u16,
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
    /// Places where records that were durable cannot be read.
    pub damages: Vec<Damage>,
    /// Groups that may have lost one of them, or had at an earlier start and have not gone on since:
    /// they say nothing here before their leaders have brought them past that.
    pub doubted: Vec<GroupId>,
}

/// Opens the log, reads what the store does not hold yet, and makes the node.
///
/// A log with damage is gone on from if its options say so: the groups concerned are doubted.
///
/// Where this node alone is the majority, what its log holds is committed: entries are applied
/// while the log is still being read, on another thread. Else they wait for a leader.
///
/// # Errors
/// [`StartError`]; the node must not run then.
pub fn recover<S: OrderedStore>(
    store: Arc<S>,
    disk: Arc<dyn Disk>,
    plan: StartPlan,
    now: Now,
) -> Result<(Node<S>, Wal, Found), StartError> {
    let everybody = plan.voters.clone();
    recover_some(store, disk, plan, |_| Some(everybody.clone()), now)
}

/// The same for a node that has some of the groups: `voters_of` says who voted in one of them when
/// the cluster was founded, and nothing of one that is elsewhere.
///
/// # Errors
/// [`StartError`]; the node must not run then.
pub fn recover_some<S: OrderedStore>(
    store: Arc<S>,
    disk: Arc<dyn Disk>,
    plan: StartPlan,
    voters_of: impl Fn(GroupId) -> Option<Vec<PeerId>>,
    now: Now,
) -> Result<(Node<S>, Wal, Found), StartError> {
    let is_alone = plan.voters.len() == 1;
    let keep_bytes = if is_alone { 0 } else { plan.driver.entry_cache_bytes };
    let starts = (0..plan.groups).map(GroupId).filter_map(|group| {
        let applied = store.applied(group);
        Some(GroupStart {
            group,
            voters: voters_of(group)?,
            applied: (applied.index, applied.term),
            generation: applied.generation,
        })
    });
    let recovery = Recovery::new(starts.collect(), keep_bytes);
    let level_spoken = plan.level_spoken;
    let mut replay = Replay {
        store: &*store,
        recovery,
        is_alone,
        level_spoken,
        found: Found::default(),
        log_bytes: 0,
    };
    let (mut wal, opened) = if is_alone {
        read_beside(disk, plan.log, |at, record| replay.take(at, record))?
    } else {
        Wal::open(disk, plan.log, &mut |at, record| replay.take(at, record))?
    };
    let Replay { recovery, mut found, log_bytes, .. } = replay;
    found.cut = opened.cut;
    let damages: Vec<LogDamage> = opened.damages.iter().map(lost).collect();
    let recovered = recovery.finish(&damages)?;
    let doubted = recovered.iter().filter(|group| group.is_doubted());
    found.doubted = doubted.map(RecoveredGroup::group).collect();
    if opened.damages.is_empty() {
        // Each of them has a record that says so. Of their entries nothing will ever be applied.
        found.doubted.iter().for_each(|group| wal.forget(*group));
    } else {
        put_on_record(&mut wal, &recovered)?;
        found.damages = opened.damages;
    }
    for (group, rows) in
        recovered.iter().filter_map(|group| Some((group.group(), group.installed()?)))
    {
        // The rows are durable, as the record says; the switch to them was not yet.
        let Staged { index, term, generation } = rows;
        store.write(GroupWrites { group, generation, index, term, rows: Vec::new() });
    }
    let mut driver = Driver::new(plan.driver, recovered);
    driver.log_begins(&wal.begins());
    // Only a node that is its own majority may set its clock by itself.
    let node = Node::new(driver, store, plan.groups, now, is_alone).map_err(StartError::Rows)?;
    Ok((Node { log_bytes, level_spoken, ..node }, wal, found))
}

fn lost(damage: &Damage) -> LogDamage {
    LogDamage { position: damage.position, group: damage.group, entry: damage.entry }
}

/// Which groups are doubted is on record before any segment with damage is let go.
fn put_on_record(wal: &mut Wal, recovered: &[RecoveredGroup]) -> Result<(), WalError> {
    let doubted = recovered.iter().filter(|group| group.is_doubted());
    let records: Vec<Record> = doubted.map(RecoveredGroup::doubt_record).collect();
    wal.doubt(records.iter().map(Record::group));
    if records.is_empty() {
        return Ok(());
    }
    match wal.append(&records) {
        Ok(_) => wal.sync().map(|_| ()),
        // The driver writes the same once there is room. Till then nothing is let go.
        Err(WalError::Full { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads the log on a thread of its own and takes its records here, in order.
fn read_beside(
    disk: Arc<dyn Disk>,
    options: WalOptions,
    mut take: impl FnMut(Position, Record),
) -> Result<(Wal, Opened), WalError> {
    std::thread::scope(|scope| {
        let (sender, pieces) = std::sync::mpsc::sync_channel(PIECES_AHEAD_MAX);
        let reader = scope.spawn(move || {
            let mut piece = Vec::with_capacity(PIECE_RECORDS);
            let opened = Wal::open(disk, options, &mut |position, record| {
                piece.push((position, record));
                if piece.len() == PIECE_RECORDS {
                    // Nobody takes them only when the other side has panicked.
                    let _ = sender
                        .send(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_RECORDS)));
                }
            });
            let _ = sender.send(piece);
            opened
        });
        pieces.into_iter().flatten().for_each(|(position, record)| take(position, record));
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What reading the log leads to.
struct Replay<'a, S> {
    store: &'a S,
    recovery: Recovery,
    /// Every entry of the log is committed.
    is_alone: bool,
    level_spoken: u16,
    found: Found,
    /// Bytes of entries applied since the memtable was begun.
    log_bytes: usize,
}

impl<S: OrderedStore> Replay<'_, S> {
    fn take(&mut self, position: Position, record: Record) {
        if let Record::Entry { group, term, index, data } = &record {
            let (group, term, index) = (*group, *term, *index);
            let applied = self.store.applied(group);
            if index > applied.index {
                self.found.entries += 1;
                self.found.bytes += data.len() as u64;
            }
            // What cannot be applied goes the usual way, where it stops its group.
            if self.is_alone
                && self.recovery.is_next(group, index)
                && self.apply(group, applied.generation, (index, term), data)
            {
                self.recovery.applied(group, (index, term));
                return;
            }
        }
        self.recovery.record(position, record);
    }

    /// Applies an entry; false when it cannot be, and nothing has changed then.
    fn apply(
        &mut self,
        group: GroupId,
        generation: Generation,
        (index, term): (Index, Term),
        data: &Bytes,
    ) -> bool {
        let spoken = self.level_spoken;
        let outcome = self.store.hold(group, generation, |held| {
            tl_core::apply_up_to(spoken, &HeldRows(held), index, data.clone())
        });
        let outcome = match outcome {
            Ok(outcome) if outcome.poison == Some(Poison::Cold) => {
                let rows = BlockingRows::keeping(self.store, group, generation);
                tl_core::apply_up_to(spoken, &rows, index, data.clone())
            }
            other => other,
        };
        let Ok(Outcome { poison: None, replies, writes: rows, .. }) = outcome else { return false };
        let floors = floors_of(&replies, &rows);
        self.store.write(GroupWrites { group, generation, index, term, rows });
        for (number, floor) in floors {
            self.store.set_floor(group, generation, number, floor);
        }
        self.log_bytes += data.len() + LOG_ENTRY_OVERHEAD;
        // What is sealed here is flushed when the node runs.
        if self.store.needs_rotation(self.log_bytes) && self.store.rotate() {
            self.log_bytes = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests;
