//! The log's writing side: one object, one owner at a time.

mod job;
mod spans;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tl_types::{GroupId, Index};

use crate::counters::{Counters, Counts};
use crate::disk::{Disk, LockGuard};
use crate::error::WalError;
use crate::open::{self, Opened};
use crate::options::WalOptions;
use crate::pool::{Pool, Preparer, Spare};
use crate::read::{Segments, Want};
use crate::record::{Position, Record};
use crate::states::States;

pub(crate) use job::{Job, bare};
pub(crate) use spans::{Span, Tops};
pub(crate) use write::BARE_BYTES;

/// One segment that holds records.
#[derive(Debug)]
pub(crate) struct Segment {
    pub spare: Spare,
    pub life: u64,
    pub first: Position,
    /// Entries of each group in it that count.
    pub spans: BTreeMap<GroupId, Span>,
    /// Whoever reads in it holds this too.
    pub pin: Arc<()>,
}

/// The node's log. See the crate's documentation for what it promises.
///
/// It starts no thread: the owner calls [`append`](Wal::append) and [`sync`](Wal::sync), inline
/// or from a thread of its own, and gives the [`Preparer`] to some other thread.
#[derive(Debug)]
pub struct Wal {
    pub(crate) pool: Arc<Pool>,
    pub(crate) options: WalOptions,
    /// Full segments, oldest first.
    pub(crate) old: VecDeque<Segment>,
    pub(crate) current: Segment,
    /// File offset in the current segment at which the next job goes.
    pub(crate) offset: u64,
    /// Everything below was written.
    pub(crate) end: Position,
    /// Everything below is durable.
    pub(crate) durable: Position,
    /// End of the last job that holds something to confirm.
    pub(crate) content_end: Position,
    /// The highest durable mark that was written.
    pub(crate) marked: Position,
    pub(crate) states: States,
    pub(crate) tops: Tops,
    /// End of the last job that replaced entries of others.
    pub(crate) replaced_at: Position,
    /// The oldest life still needed.
    pub(crate) start_life: u64,
    /// Whether the log says so on disk yet.
    pub(crate) start_noted: bool,
    /// Released segments. Reused once the note that releases them is durable: until then a
    /// replay would miss them.
    pub(crate) retiring: Vec<Segment>,
    /// Groups for whose sake nothing is released, and where the record of the doubt about one of
    /// them ends, once it is written. `None` after damage, until somebody says which groups these are.
    pub(crate) doubted: Option<BTreeMap<GroupId, Option<Position>>>,
    pub(crate) job: Job,
    pub(crate) poisoned: bool,
    pub(crate) counters: Arc<Counters>,
    /// Held for its drop.
    pub(crate) _lock: LockGuard,
}

impl Wal {
    /// Opens or creates the log on `disk`, hands every record to `replay` in log order, and
    /// repairs what a crash left half done.
    ///
    /// Reads one segment at a time; entry data are slices of that segment's buffer, so a
    /// caller that keeps a few bytes for long should copy them. When this returns, all that
    /// was handed over is durable.
    ///
    /// # Errors
    /// - [`WalError::Locked`] when another owner has the log.
    /// - [`WalError::Corrupt`] when confirmed records are damaged or missing; what `replay`
    ///   was given until then must be thrown away.
    /// - [`WalError::Gone`] when there was a log and no segment of it is left.
    /// - [`WalError::Unsupported`], [`WalError::Foreign`], [`WalError::Option`].
    /// - [`WalError::Full`], [`WalError::Failed`] when the file system refuses.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        replay: &mut dyn FnMut(Position, Record),
    ) -> Result<(Wal, Opened), WalError> {
        open::open(disk, options, replay)
    }

    /// Writes `records` behind everything else and returns the log's new end. They are durable
    /// only once [`sync`](Wal::sync) has returned that position or a later one.
    ///
    /// The records are one job, written by one call and after a crash found whole or not at
    /// all, unless they do not fit one segment; then they are several jobs in order.
    ///
    /// # Errors
    /// - [`WalError::TooLarge`], [`WalError::Full`]: nothing was written, the log goes on.
    /// - [`WalError::Failed`], [`WalError::Poisoned`]: the node must stop.
    pub fn append(&mut self, records: &[Record]) -> Result<Position, WalError> {
        self.refuse_if_poisoned()?;
        self.check_sizes(records)?;
        let mut rest = records;
        while !rest.is_empty() {
            let fits = self.take(rest);
            if fits == 0 {
                self.rotate(rest.len() == records.len())?;
                continue;
            }
            let (job, later) = rest.split_at(fits);
            self.write_job(job)?;
            rest = later;
        }
        Ok(self.end)
    }

    /// Makes everything written durable and returns the durable end.
    ///
    /// # Errors
    /// [`WalError::Failed`], [`WalError::Poisoned`]: the node must stop. What was written since
    /// the last sync may or may not be there at the next start.
    pub fn sync(&mut self) -> Result<Position, WalError> {
        self.refuse_if_poisoned()?;
        if self.end > self.durable {
            self.sync_current()?;
        }
        if self.start_noted {
            // One that is being read is used again behind a later sync.
            let unread = |segment: &mut Segment| Arc::strong_count(&segment.pin) == 1;
            for segment in self.retiring.extract_if(.., unread) {
                self.pool.give(segment.spare);
            }
        }
        Ok(self.durable)
    }

    /// True when the last records on disk are not yet confirmed by a mark behind them: call
    /// [`idle_mark`](Wal::idle_mark) if nothing else is appended within 50 ms.
    #[must_use]
    pub fn wants_idle_mark(&self) -> bool {
        self.content_end > self.marked || !self.start_noted
    }

    /// Syncs, and confirms what is durable with a mark on disk if nothing behind it does so
    /// already. From then on damage to the last records cannot pass for a torn write.
    ///
    /// # Errors
    /// As [`sync`](Wal::sync), and [`WalError::Full`].
    pub fn idle_mark(&mut self) -> Result<Position, WalError> {
        self.sync()?;
        if !self.wants_idle_mark() {
            return Ok(self.durable);
        }
        self.write_mark()?;
        self.sync()
    }

    /// Lets go of the oldest segments, and returns how many went: those whose entries are all
    /// durably applied (`applied` says up to where, per group), and which lie wholly further
    /// than `keep_bytes` behind the end, the budget kept for slow followers.
    ///
    /// A group that `applied` does not name keeps its segments; to drop a group's entries for
    /// good name it with the highest index. Entries that later ones or rows have replaced keep no
    /// segment. Nothing goes while a group is in [doubt](Wal::doubt), or before what has replaced
    /// entries is durable.
    pub fn release(&mut self, applied: &BTreeMap<GroupId, Index>, keep_bytes: u64) -> usize {
        if self.is_in_doubt() || self.replaced_at > self.durable {
            return 0;
        }
        let mut released = 0;
        while let Some(oldest) = self.old.front() {
            let next_first = self.old.get(1).map_or(self.current.first, |next| next.first);
            let kept = self.end.0 - next_first.0 < keep_bytes;
            let done = |(group, span): (&GroupId, &Span)| {
                applied.get(group).is_some_and(|at| *at >= span.highest)
            };
            if kept || !oldest.spans.iter().all(done) {
                break;
            }
            self.start_life = oldest.life + 1;
            self.start_noted = false;
            self.retiring.extend(self.old.pop_front());
            released += 1;
        }
        released
    }

    /// Says which groups may have lost something in the damage that opening found
    /// ([`Opened::damages`]), and so start without the entries that the log has of them; these are
    /// [forgotten](Wal::forget). An earlier word is replaced. A [`Record::HardState`] of each of them,
    /// appended from now on, says whether it is still so. Until these are durable,
    /// [`release`](Wal::release) lets nothing go: a restart must find the damage again, or the group
    /// would take for whole what it has.
    pub fn doubt(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        let doubted: BTreeMap<_, _> = groups.into_iter().map(|group| (group, None)).collect();
        doubted.keys().for_each(|group| self.forget(*group));
        self.doubted = Some(doubted);
    }

    /// Keeps no segment for the entries of a group that are in the log so far, and gives none of them
    /// to readers. For one whose records on disk say that they count for nothing: its store may never
    /// apply them.
    pub fn forget(&mut self, group: GroupId) {
        self.tops.forget(group);
        self.cut_from(group, Index(0));
    }

    fn cut_from(&mut self, group: GroupId, from: Index) {
        let segments = self.old.iter_mut().chain([&mut self.current]);
        segments.for_each(|segment| segment.cut_from(group, from));
    }

    fn is_in_doubt(&mut self) -> bool {
        let durable = self.durable;
        let Some(doubted) = &mut self.doubted else { return true };
        doubted.retain(|_, ends| ends.is_none_or(|end| end > durable));
        !doubted.is_empty()
    }

    /// For each group that has entries in the log, the lowest index among them.
    #[must_use]
    pub fn begins(&self) -> BTreeMap<GroupId, Index> {
        let mut begins = BTreeMap::new();
        for segment in self.old.iter().chain([&self.current]) {
            for (group, span) in &segment.spans {
                let lowest = begins.entry(*group).or_insert(span.lowest);
                *lowest = span.lowest.min(*lowest);
            }
        }
        begins
    }

    /// Segments in which entries may be found, for whoever reads them while the log goes on. Until
    /// they are let go none of them is used again.
    #[must_use]
    pub fn segments_with(&self, wants: &[Want]) -> Segments {
        let all: Vec<&Segment> = self.old.iter().chain([&self.current]).collect();
        let ends = all[1..].iter().map(|next| next.first).chain([self.end]);
        Segments::of(all.iter().copied().zip(ends), wants)
    }

    /// A handle for the thread that prepares segments.
    #[must_use]
    pub fn preparer(&self) -> Preparer {
        Preparer::new(Arc::clone(&self.pool))
    }

    /// How many prepared segments are missing; wake the preparing thread when not 0.
    #[must_use]
    pub fn spares_missing(&self) -> usize {
        self.pool.missing()
    }

    /// How many prepared segments are ready.
    #[must_use]
    pub fn spares_ready(&self) -> usize {
        self.pool.ready()
    }

    /// Everything below is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Everything below was written.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Where the oldest segment still held begins.
    #[must_use]
    pub fn first(&self) -> Position {
        self.old.front().map_or(self.current.first, |segment| segment.first)
    }

    /// Segments that hold records.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.old.len() + 1
    }

    /// Disk bytes of all segments that hold records, released ones included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        let others = self.old.iter().chain(&self.retiring).map(|s| s.spare.segment_bytes);
        others.sum::<u64>() + self.current.spare.segment_bytes
    }

    /// Totals so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// The totals themselves, for a metrics thread.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}
