//! Opening a log: find its segments, replay them, judge damage, repair what a crash left.
//!
//! The rule about damage. Every record says up to where the log was durable when it was
//! written; so does a segment's head about everything before it. Let *confirmed* be the highest
//! such position found anywhere. What cannot be read below it is corruption: somebody may have
//! been told that it is safe. What cannot be read above it was never confirmed on disk, and is
//! the torn end of the last write: it is cut, overwritten with zeros so that no part of it can
//! come back behind later writes, and reported.
//!
//! A member of a cluster goes on behind corruption ([`OnDamage::GoOn`]). What is intact and
//! confirmed is handed over record by record, since no record's meaning needs another group's; what
//! is not is named in [`Opened::damages`]. The damaged bytes stay as they are, and the log goes on
//! behind what is confirmed, in another segment whose head says up to where that is: so each opening
//! finds the same, until the segment is released, and nobody can forget that something is missing.
//!
//! The rule about absence. No segment at all is a new log only where none can have been. The
//! first segment is durable before any spare file is begun, so spare files alone prove a loss; an
//! owner who remembers an earlier opening says so ([`WalOptions::must_exist`]). Files without a
//! head and without records are what a crash left of a first segment, and prove nothing.

mod damages;
mod files;
mod replay;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::counters::Counters;
use crate::disk::{Disk, LockGuard, write_all_at};
use crate::error::{Damage, WalError};
use crate::format::{HEAD_BYTES, RecordKind, SegmentHead};
use crate::options::{FIRST_SEGMENT_BYTES, OnDamage, WalOptions};
use crate::pool::Pool;
use crate::record::{Position, Record};
use crate::states::States;
use crate::wal::{BARE_BYTES, Job, Segment, Tops, Wal, bare};
use damages::Damages;
use files::Files;
use replay::{Replay, Tail};

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// There was no log; an empty one was created.
    pub fresh: bool,
    /// Segments that hold records.
    pub segments: usize,
    /// Records handed over.
    pub records: u64,
    /// Where the oldest segment begins.
    pub first: Position,
    /// End of the last record handed over.
    pub end: Position,
    /// The log was confirmed on disk up to here, before it was opened.
    pub confirmed: Position,
    /// The torn end that was cut off, if there was one.
    pub cut: Option<Cut>,
    /// Damaged places whose content was known from elsewhere and was written again.
    pub healed: usize,
    /// Damaged places whose content is not known, in log order; always none unless
    /// [`OnDamage::GoOn`] was chosen.
    ///
    /// A record that was confirmed and not handed over lies at such a place, or between one that
    /// names no group and whatever was handed over next. So a group may have lost something unless a
    /// record of its own that makes up for all before it ([`Record::Installed`]) was handed over from
    /// behind every place that names it or names none; an entry that is named is no loss to a store
    /// that has applied it for good. Entries handed over may have holes there, and nothing is known
    /// of terms in a hole. A record of rows that only a segment's head repeats is not handed over
    /// behind damage, so one that is stands where it was appended, or at the log's start.
    ///
    /// Nothing is released until [`Wal::doubt`] was told which groups are concerned.
    pub damages: Vec<Damage>,
}

/// The torn end of the last write before a crash: never confirmed, now gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// File name of the segment.
    pub segment: String,
    /// Byte in the file from which on nothing was kept.
    pub at_bytes: u64,
    /// The same place in the log.
    pub position: Position,
    /// Intact records that went with it.
    pub records: usize,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: WalOptions,
    callback: &mut dyn FnMut(Position, Record),
) -> Result<(Wal, Opened), WalError> {
    options.check()?;
    let lock = lock(disk.as_ref())?;
    let mut files = Files::find(disk.as_ref(), &options)?;
    let pool = Pool::new(
        Arc::clone(&disk),
        options.owner,
        options.segment_bytes,
        options.spares,
        files.next_number,
    );
    let pool = Arc::new(pool);
    if files.log.is_empty() {
        files.refuse_orphans(0)?;
        if options.must_exist || files.has_spares() {
            return Err(WalError::Gone { place: disk.place() });
        }
        files.clear(disk.as_ref(), &pool)?;
        return create(pool, options, lock);
    }

    let mut replay = Replay::new(callback, options.on_damage);
    let tail = replay.run(&mut files)?;
    let damages = std::mem::take(&mut replay.damages);
    if replay.may_lack_note {
        // What is not there may have been released by a note that is lost. If it was not, nothing is
        // passed over either: that damage is behind it, and names no group.
        replay.start_life = replay.start_life.max(files.first_life());
    }
    let (mut refused, going_on) = match options.on_damage {
        OnDamage::Refuse => (damages, Damages::default()),
        OnDamage::GoOn => (Damages::default(), damages),
    };
    files.missing_segments(replay.start_life, tail.next_life, tail.end, &mut refused);
    if !refused.is_empty() {
        return Err(refused.refuse(replay.confirmed));
    }
    files.refuse_orphans(tail.life)?;

    let healed = repair(&files, &tail)?;
    let outcome = Outcome {
        records: replay.records,
        confirmed: replay.confirmed,
        content_end: replay.content_end,
        start_life: replay.start_life,
        noted_life: replay.noted_life,
        states: replay.states,
        tops: replay.tops,
        healed,
        damages: going_on.into_list(),
    };
    files.clear(disk.as_ref(), &pool)?;
    resume(files, tail, outcome, pool, options, lock)
}

fn lock(disk: &dyn Disk) -> Result<LockGuard, WalError> {
    disk.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => WalError::Locked { place: disk.place() },
        _ => failed("lock", disk.place())(source),
    })
}

/// What a replay leaves for the writing side.
struct Outcome {
    records: u64,
    confirmed: Position,
    content_end: Position,
    start_life: u64,
    noted_life: u64,
    states: States,
    tops: Tops,
    healed: usize,
    damages: Vec<Damage>,
}

/// The first start of a node: one small segment, so that it takes no time.
fn create(
    pool: Arc<Pool>,
    options: WalOptions,
    lock: LockGuard,
) -> Result<(Wal, Opened), WalError> {
    let head = SegmentHead {
        life: 1,
        first: Position(0),
        start_life: 1,
        segment_bytes: options.segment_bytes.min(FIRST_SEGMENT_BYTES),
        owner: options.owner,
    };
    let spare = pool.make_with_head(&head, &mut |_| {})?;
    let mut wal = writer(Segment::new(spare, &head), pool, options, lock);
    wal.write_states()?;
    wal.sync()?;
    let opened = Opened {
        fresh: true,
        segments: 1,
        records: 0,
        first: Position(0),
        end: wal.end,
        confirmed: Position(0),
        cut: None,
        healed: 0,
        damages: Vec::new(),
    };
    Ok((wal, opened))
}

/// Goes on writing where the replay ended.
fn resume(
    files: Files,
    tail: Tail,
    outcome: Outcome,
    pool: Arc<Pool>,
    options: WalOptions,
    lock: LockGuard,
) -> Result<(Wal, Opened), WalError> {
    let mut log: VecDeque<Segment> = files.log.into_iter().map(|found| found.segment).collect();
    let current = log.pop_back().expect("a log without segments was created anew");
    let mut wal = writer(current, pool, options, lock);
    for segment in log {
        if segment.life < outcome.noted_life {
            wal.pool.give(segment.spare);
        } else if segment.life < outcome.start_life {
            // The note that released it went with a torn end, so it is written again first.
            wal.retiring.push(segment);
        } else {
            wal.old.push_back(segment);
        }
    }
    wal.offset = tail.offset as u64;
    wal.end = wal.current.position(wal.offset);
    wal.content_end = outcome.content_end;
    wal.marked = outcome.confirmed;
    wal.states = outcome.states;
    wal.tops = outcome.tops;
    wal.start_life = outcome.start_life;
    wal.start_noted = outcome.noted_life == outcome.start_life;
    wal.doubted = outcome.damages.is_empty().then(BTreeMap::new);
    let end = wal.end;
    // A killed process may have left records that are in the file and not yet on the disk.
    wal.sync_current()?;
    if tail.is_damaged {
        leave_damaged(&mut wal, &tail.zero)?;
    } else if tail.offset == HEAD_BYTES {
        // The crash came between the segment's head and its first job.
        wal.write_states()?;
    }
    wal.idle_mark()?;
    let opened = Opened {
        fresh: false,
        segments: wal.segments(),
        records: outcome.records,
        first: wal.first(),
        end,
        confirmed: outcome.confirmed,
        cut: tail.cut,
        healed: outcome.healed,
        damages: outcome.damages,
    };
    Ok((wal, opened))
}

/// Goes on in another segment. What proves that the damage was confirmed, and no torn write, may be
/// a mark in what is cut here: the next segment's head proves it before anything is cut.
fn leave_damaged(wal: &mut Wal, zero: &Range<usize>) -> Result<(), WalError> {
    wal.rotate(true)?;
    let left = &wal.old.back().expect("a segment was just ended").spare;
    // Its last record was written where the cut begins.
    let start = zero.start + BARE_BYTES as usize;
    if start < zero.end {
        write_all_at(left.file.as_ref(), &vec![0; zero.end - start], start as u64)
            .map_err(failed("repair", left.name.clone()))?;
    }
    Ok(())
}

fn writer(current: Segment, pool: Arc<Pool>, options: WalOptions, lock: LockGuard) -> Wal {
    let first = current.first;
    Wal {
        pool,
        options,
        old: VecDeque::new(),
        offset: HEAD_BYTES as u64,
        end: first,
        durable: first,
        content_end: first,
        marked: first,
        current,
        states: States::default(),
        tops: Tops::default(),
        replaced_at: first,
        start_life: 1,
        start_noted: true,
        retiring: Vec::new(),
        doubted: Some(BTreeMap::new()),
        job: Job::default(),
        poisoned: false,
        counters: Arc::new(Counters::default()),
        _lock: lock,
    }
}

/// Writes again what a crash or a single fault took and the rest of the log still knows, and
/// overwrites a torn end. Each step may be repeated after another crash.
fn repair(files: &Files, tail: &Tail) -> Result<usize, WalError> {
    let mut healed = 0;
    for (at, found) in files.log.iter().enumerate() {
        let segment = &found.segment;
        let file = segment.spare.file.as_ref();
        let write = |bytes: &[u8], offset: u64| {
            write_all_at(file, bytes, offset)
                .and_then(|()| file.sync())
                .map_err(failed("repair", segment.spare.name.clone()))
        };
        if !found.head_whole {
            write(&found.head.encode(), 0)?;
            healed += 1;
        }
        if let Some(offset) = found.next_lost_at {
            let mut job = Job::default();
            job.begin(segment.life, segment.position(offset), segment.position(offset), 1);
            job.put(&bare(RecordKind::Next, segment.life + 1), 0);
            write(job.finish(BARE_BYTES), offset)?;
            healed += 1;
        }
        if at + 1 == files.log.len() && !tail.zero.is_empty() && !tail.is_damaged {
            let zeros = vec![0; tail.zero.len()];
            write(&zeros, tail.zero.start as u64)?;
        }
    }
    // The last record of a full segment may be in the file and not yet on the disk.
    if let [.., before, _] = &files.log[..] {
        let spare = &before.segment.spare;
        spare.file.sync().map_err(failed("sync", spare.name.clone()))?;
    }
    Ok(healed)
}

fn failed(deed: &'static str, file: String) -> impl FnOnce(io::Error) -> WalError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WalError::Full { source },
        _ => WalError::Failed { deed, file, source },
    }
}
