//! Reading the log's segments in order: one is checked while a thread reads the next.

mod damaged;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use tl_types::{GroupId, Index};

use crate::disk::{DiskFile, read_up_to};
use crate::error::WalError;
use crate::format::{
    FLAG_FIRST, FLAG_LAST, FLAG_STATE, HEAD_BYTES, RECORD_HEADER_BYTES, RecordHead, RecordKind,
};
use crate::options::OnDamage;
use crate::record::{Position, Record};
use crate::scan::{Found as At, Scan};
use crate::states::{States, decode};
use crate::wal::{BARE_BYTES, Segment, Tops};

use super::damages::Damages;
use super::files::{Files, Found};
use super::{Cut, failed};
use damaged::Salvaged;

/// What reading has established so far.
pub(super) struct Replay<'a> {
    callback: &'a mut dyn FnMut(Position, Record),
    on_damage: OnDamage,
    pub states: States,
    pub tops: Tops,
    /// From where on the segment that is read replaces entries of those before it.
    replaced: BTreeMap<GroupId, Index>,
    /// The highest position that anything read proves to have been durable.
    pub confirmed: Position,
    /// End of the last record that says something of a group.
    pub content_end: Position,
    /// The oldest life still needed.
    pub start_life: u64,
    /// The same as far as it stands in heads and whole jobs, which are not cut.
    pub noted_life: u64,
    /// Records handed over.
    pub records: u64,
    /// Damage to confirmed records. If it is to be refused, nothing more is handed over after
    /// the first.
    pub damages: Damages,
    /// In the last segment lies damage that may have been a note about the oldest life needed.
    pub may_lack_note: bool,
}

/// Where the log ends.
#[derive(Debug)]
pub(super) struct Tail {
    pub life: u64,
    /// Offset in the last segment behind its last whole job.
    pub offset: usize,
    /// The same place in the log.
    pub end: Position,
    /// The last segment is full and names this one, which is not there.
    pub next_life: Option<u64>,
    pub cut: Option<Cut>,
    /// Bytes of the last segment to overwrite with zeros.
    pub zero: Range<usize>,
    /// Confirmed records of the last segment are damaged.
    pub is_damaged: bool,
}

/// Where reading a segment stopped.
struct Stop {
    /// Behind the last whole job.
    offset: usize,
    /// At what could not be read; further than `offset` when a job was cut short.
    at: usize,
    found: At,
    /// Intact records of the job that was cut short.
    open_records: usize,
    next_life: Option<u64>,
}

impl<'a> Replay<'a> {
    pub fn new(callback: &'a mut dyn FnMut(Position, Record), on_damage: OnDamage) -> Replay<'a> {
        Replay {
            callback,
            on_damage,
            states: States::default(),
            tops: Tops::default(),
            replaced: BTreeMap::new(),
            confirmed: Position(0),
            content_end: Position(0),
            start_life: 1,
            noted_life: 1,
            records: 0,
            damages: Damages::default(),
            may_lack_note: false,
        }
    }

    /// Reads all of the log. Damage to what was confirmed is left in `damages`.
    pub fn run(&mut self, files: &mut Files) -> Result<Tail, WalError> {
        for found in &files.log {
            self.start_life = self.start_life.max(found.head.start_life);
            self.confirm(found.head.first);
        }
        self.noted_life = self.start_life;
        let last = files.log.len() - 1;
        self.find_start(&files.log[last])?;
        let lives: Vec<u64> = files.log.iter().map(|found| found.head.life).collect();
        // Segments before the oldest needed one were released; a crash may have come while one
        // of them was being made ready for its next use.
        let begin = lives.iter().position(|life| *life >= self.start_life).unwrap_or(last);
        let sources: Vec<Source> = files.log[begin..].iter().map(Source::of).collect();
        std::thread::scope(|scope| {
            // What is sent waits for the one that is being checked; so three are in memory.
            let (sender, segments) = sync_channel(1);
            scope.spawn(move || {
                for source in sources {
                    let bytes = source.read();
                    let failed = bytes.is_err();
                    // Nobody takes it once damage or an unknown format has ended the replay.
                    if sender.send(bytes).is_err() || failed {
                        return;
                    }
                }
            });
            for at in begin..last {
                let next_first = files.log[at + 1].head.first;
                let bytes = next(&segments)?;
                self.full_segment(&mut files.log[at], &bytes, at == begin, next_first)?;
                self.cut_before(&mut files.log[..at]);
            }
            let bytes = next(&segments)?;
            let tail = self.last_segment(&mut files.log[last], &bytes, last == begin)?;
            self.cut_before(&mut files.log[..last]);
            Ok(tail)
        })
    }

    /// What a segment has replaced in those before it keeps none of them.
    fn cut_before(&mut self, before: &mut [Found]) {
        for (group, from) in std::mem::take(&mut self.replaced) {
            before.iter_mut().for_each(|found| found.segment.cut_from(group, from));
        }
    }

    fn replace(&mut self, segment: &mut Segment, group: GroupId, from: Index) {
        segment.cut_from(group, from);
        let lowest = self.replaced.entry(group).or_insert(from);
        *lowest = from.min(*lowest);
    }

    /// Reads from the last segment which is the oldest one needed. Notes in earlier segments are
    /// in later heads already.
    fn find_start(&mut self, last: &Found) -> Result<(), WalError> {
        let bytes = Source::of(last).read()?;
        let scan = Scan { head: last.head, bytes: &bytes };
        let mut offset = HEAD_BYTES;
        loop {
            let At::Record(record) = scan.at(offset) else {
                // A note was true when it was written, so it counts wherever it stands.
                let next = match self.on_damage {
                    OnDamage::Refuse => None,
                    OnDamage::GoOn => scan.next_intact(offset + 1),
                };
                let Some(next) = next else { return Ok(()) };
                offset = next;
                continue;
            };
            if RecordKind::from_u8(record.kind) == Some(RecordKind::Start) {
                self.start_life = self.start_life.max(record.index.0);
            }
            offset += record.record_bytes();
        }
    }

    fn full_segment(
        &mut self,
        found: &mut Found,
        bytes: &Bytes,
        begin: bool,
        next_first: Position,
    ) -> Result<(), WalError> {
        let scan = Scan { head: found.head, bytes };
        if self.is_refused() {
            self.blame(&scan, HEAD_BYTES, found, next_first);
            return Ok(());
        }
        let stop = self.walk(&scan, bytes, &mut found.segment, begin, HEAD_BYTES)?;
        let end = scan.position(stop.offset);
        if stop.next_life == Some(found.head.life + 1) && end == next_first {
            return Ok(());
        }
        let only_next_lost = stop.next_life.is_none()
            && stop.at == stop.offset
            && end.plus(BARE_BYTES) == next_first;
        if only_next_lost {
            found.next_lost_at = Some(stop.offset as u64);
            return Ok(());
        }
        match self.on_damage {
            OnDamage::Refuse => {
                self.blame(&scan, stop.at, found, next_first);
                self.blame_order(found, stop.at);
                Ok(())
            }
            OnDamage::GoOn => {
                let salvaged = match scan.offset(next_first) {
                    Some(end) if stop.next_life.is_none() => {
                        self.salvage(&scan, bytes, found, stop.offset..end, begin, true)?
                    }
                    _ => Salvaged::default(),
                };
                // Where nothing is damaged, what is intact contradicts the next segment's head.
                let named = salvaged.next_life.is_none_or(|life| life == found.head.life + 1);
                if salvaged.damaged > 0 && named {
                    Ok(())
                } else {
                    self.refuse_order(found, stop.at)
                }
            }
        }
    }

    fn last_segment(
        &mut self,
        found: &mut Found,
        bytes: &Bytes,
        begin: bool,
    ) -> Result<Tail, WalError> {
        let scan = Scan { head: found.head, bytes };
        let mut tail = Tail {
            life: found.head.life,
            offset: HEAD_BYTES,
            end: found.head.first,
            next_life: None,
            cut: None,
            zero: 0..0,
            is_damaged: false,
        };
        if self.is_refused() {
            self.blame(&scan, HEAD_BYTES, found, Position(u64::MAX));
            return Ok(tail);
        }
        let mut stop = self.walk(&scan, bytes, &mut found.segment, begin, HEAD_BYTES)?;
        let mut behind = 0;
        if self.on_damage == OnDamage::GoOn && stop.next_life.is_none() {
            behind = self.survey(&scan, stop.at, &mut |_, _, _| {});
            while self.confirmed > scan.position(stop.offset) && stop.next_life.is_none() {
                // What is confirmed ends where a job ends, and whole jobs may follow.
                let Some(end) = scan.offset(self.confirmed) else {
                    return self.refuse_order(found, stop.at);
                };
                let salvaged = self.salvage(&scan, bytes, found, stop.offset..end, begin, false)?;
                if salvaged.damaged == 0 {
                    return self.refuse_order(found, stop.at);
                }
                tail.is_damaged = true;
                stop = self.walk(&scan, bytes, &mut found.segment, begin, end)?;
                stop.next_life = stop.next_life.or(salvaged.next_life);
                behind = self.survey(&scan, stop.at, &mut |_, _, _| {});
            }
        }
        tail.offset = stop.offset;
        tail.end = scan.position(stop.offset);
        tail.next_life = stop.next_life;
        if stop.next_life.is_some() {
            return Ok(tail);
        }
        let intact = stop.open_records
            + match self.on_damage {
                OnDamage::Refuse => self.blame(&scan, stop.at, found, Position(u64::MAX)),
                OnDamage::GoOn => behind,
            };
        if self.confirmed > tail.end {
            self.blame_order(found, stop.at);
            return Ok(tail);
        }
        let clean = matches!(stop.found, At::Zeros | At::Full) && intact == 0;
        if !clean {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            tail.zero = stop.offset..used.max(stop.offset);
            tail.cut = Some(Cut {
                segment: found.segment.spare.name.clone(),
                at_bytes: stop.offset as u64,
                position: tail.end,
                records: intact,
            });
        }
        Ok(tail)
    }

    /// Hands over whole jobs until something is no record, or the segment is at its end.
    fn walk(
        &mut self,
        scan: &Scan<'_>,
        bytes: &Bytes,
        segment: &mut Segment,
        begin: bool,
        from: usize,
    ) -> Result<Stop, WalError> {
        let mut job: Vec<(usize, RecordHead)> = Vec::new();
        let mut stop =
            Stop { offset: from, at: from, found: At::Full, open_records: 0, next_life: None };
        loop {
            stop.found = scan.at(stop.at);
            let At::Record(record) = stop.found else { break };
            let first = record.flags & FLAG_FIRST != 0;
            if first != job.is_empty() {
                // Intact and out of place: judged like a record that is not there.
                stop.found = At::NoHeader;
                break;
            }
            self.confirm(record.mark);
            job.push((stop.at, record));
            stop.at += record.record_bytes();
            if record.flags & FLAG_LAST == 0 {
                continue;
            }
            for (offset, record) in job.drain(..) {
                let start = offset + RECORD_HEADER_BYTES;
                let data = bytes.slice(start..start + record.data_bytes as usize);
                match self.take(&record, data, segment, begin)? {
                    Some(life) => stop.next_life = Some(life),
                    None => continue,
                }
            }
            stop.offset = stop.at;
            if stop.next_life.is_some() {
                break;
            }
        }
        stop.open_records = job.len();
        Ok(stop)
    }

    /// Takes one record that counts; the next life if the record names one.
    fn take(
        &mut self,
        head: &RecordHead,
        data: Bytes,
        segment: &mut Segment,
        begin: bool,
    ) -> Result<Option<u64>, WalError> {
        let unknown = |what, value| WalError::Unsupported {
            segment: segment.spare.name.clone(),
            what,
            value,
        };
        let Some(kind) = RecordKind::from_u8(head.kind) else {
            return Err(unknown("record kind", u32::from(head.kind)));
        };
        match kind {
            RecordKind::Mark => return Ok(None),
            RecordKind::Start => {
                self.noted_life = self.noted_life.max(head.index.0);
                return Ok(None);
            }
            RecordKind::Next => return Ok(Some(head.index.0)),
            RecordKind::Entry
            | RecordKind::HardState
            | RecordKind::Membership
            | RecordKind::Installed => {}
        }
        let Some(record) = decode(kind, head.group, head.term, head.index, data) else {
            return Err(unknown("data of record kind", u32::from(head.kind)));
        };
        let is_news = self.states.note(&record);
        let repeats = head.flags & FLAG_STATE != 0;
        match record {
            Record::Entry { group, index, .. } => {
                if self.tops.replaces(group, index) {
                    self.replace(segment, group, index);
                }
                segment.note_index(group, index);
            }
            // One that is repeated says nothing of what stands between it and the first.
            Record::Installed { group, .. } if is_news && !repeats => {
                if self.tops.forget(group) {
                    self.replace(segment, group, Index(0));
                }
            }
            Record::Installed { .. } | Record::HardState { .. } | Record::Membership { .. } => {}
        }
        if !repeats {
            self.content_end = head.position.plus(head.record_bytes() as u64);
        }
        // What repeats the past is news only where the past is gone: before the log's start, or in
        // damage. Of rows that came in damage only the record itself could say what came before and
        // what after them; so that is told to nobody, and what the damage took stays taken.
        let is_lost = is_news && !matches!(record, Record::Installed { .. });
        if !repeats || begin || is_lost {
            self.records += 1;
            (self.callback)(head.position, record);
        }
        Ok(None)
    }

    fn confirm(&mut self, position: Position) {
        self.confirmed = self.confirmed.max(position);
    }
}

/// Where the bytes of one segment are.
struct Source {
    name: String,
    file: Arc<dyn DiskFile>,
    bytes: usize,
}

impl Source {
    fn of(found: &Found) -> Source {
        let spare = &found.segment.spare;
        let bytes = spare.segment_bytes as usize;
        Source { name: spare.name.clone(), file: Arc::clone(&spare.file), bytes }
    }

    fn read(&self) -> Result<Bytes, WalError> {
        let bytes = read_up_to(self.file.as_ref(), self.bytes);
        Ok(Bytes::from(bytes.map_err(failed("read", self.name.clone()))?))
    }
}

/// The next segment from the thread that reads them.
fn next(segments: &Receiver<Result<Bytes, WalError>>) -> Result<Bytes, WalError> {
    segments.recv().expect("as many segments are read as are asked for")
}
