//! Which files there are, and what their heads say.

use crate::disk::{Disk, read_up_to};
use crate::error::{Damage, Fault, WalError};
use crate::format::{HEAD_BYTES, HeadRead, SegmentHead};
use crate::options::{OnDamage, SEGMENT_BYTES_MAX, WalOptions};
use crate::pool::{Pool, Spare, file_number};
use crate::record::Position;
use crate::scan::{head_from_records, latest_life};
use crate::wal::Segment;

use super::damages::Damages;
use super::failed;

/// All segment files of a directory, sorted out.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The log: segments with lives that follow each other, up to the latest.
    pub log: Vec<Found>,
    /// Prepared or released files.
    spares: Vec<Spare>,
    /// Files without a head that can be known, and the latest life that records in them name.
    headless: Vec<(String, Option<u64>)>,
    /// Number for the next new file.
    pub next_number: u64,
}

/// One segment of the log.
#[derive(Debug)]
pub(super) struct Found {
    pub segment: Segment,
    pub head: SegmentHead,
    /// Both copies of the head are intact and agree; else it is to be written again.
    pub head_whole: bool,
    /// Where the record that names the next segment should be and is not.
    pub next_lost_at: Option<u64>,
}

impl Files {
    /// Reads the heads of all segment files. Other files are left alone.
    pub fn find(disk: &dyn Disk, options: &WalOptions) -> Result<Files, WalError> {
        let mut files = Files::default();
        let mut known = Vec::new();
        for info in disk.list().map_err(failed("list", disk.place()))? {
            let Some(number) = file_number(&info.name) else { continue };
            files.next_number = files.next_number.max(number + 1);
            let file = disk.open(&info.name).map_err(failed("open", info.name.clone()))?;
            let area =
                read_up_to(file.as_ref(), HEAD_BYTES).map_err(failed("read", info.name.clone()))?;
            match SegmentHead::read(&area) {
                HeadRead::Known { head, whole } => {
                    if head.owner != options.owner {
                        let (owner, expected) = (head.owner, options.owner);
                        return Err(WalError::Foreign { segment: info.name, owner, expected });
                    }
                    let segment_bytes = head.segment_bytes.min(SEGMENT_BYTES_MAX);
                    let spare = Spare { name: info.name, file: file.into(), segment_bytes };
                    if head.life == 0 {
                        files.spares.push(spare);
                        continue;
                    }
                    let segment = Segment::new(spare, &head);
                    known.push(Found { segment, head, head_whole: whole, next_lost_at: None });
                }
                HeadRead::Unsupported(value) => {
                    let what = "format version";
                    return Err(WalError::Unsupported { segment: info.name, what, value });
                }
                HeadRead::Unreadable => {
                    let bytes = read_up_to(file.as_ref(), SEGMENT_BYTES_MAX as usize)
                        .map_err(failed("read", info.name.clone()))?;
                    let told = match options.on_damage {
                        OnDamage::Refuse => None,
                        OnDamage::GoOn => head_from_records(&bytes, options.owner),
                    };
                    let Some(head) = told else {
                        files.headless.push((info.name, latest_life(&bytes)));
                        continue;
                    };
                    let segment_bytes = head.segment_bytes;
                    let spare = Spare { name: info.name, file: file.into(), segment_bytes };
                    let segment = Segment::new(spare, &head);
                    known.push(Found { segment, head, head_whole: false, next_lost_at: None });
                }
            }
        }
        files.sort_out(known)?;
        Ok(files)
    }

    /// The log is the unbroken run of lives up to the latest; what lies before it was released,
    /// or a segment in between is missing, which the replay will tell.
    fn sort_out(&mut self, mut known: Vec<Found>) -> Result<(), WalError> {
        known.sort_by_key(|found| found.head.life);
        let mut run = known.len().saturating_sub(1);
        while run > 0 && known[run - 1].head.life + 1 == known[run].head.life {
            run -= 1;
        }
        if let Some(twin) = known.windows(2).find(|pair| pair[0].head.life == pair[1].head.life) {
            let first = twin[1].head.first;
            let damage = whole_segment(&twin[1].segment.spare.name, first, Fault::Order);
            return Err(Damages::from(damage).refuse(first));
        }
        self.log = known.split_off(run);
        self.spares.extend(known.into_iter().map(|found| found.segment.spare));
        Ok(())
    }

    /// The life of the log's first segment.
    pub fn first_life(&self) -> u64 {
        self.log.first().map_or(0, |found| found.head.life)
    }

    /// Names segments that the log needs and does not have: one between `start_life` and the
    /// log's first, or the one that its last segment says comes next, at `end`.
    pub fn missing_segments(
        &self,
        start_life: u64,
        next_life: Option<u64>,
        end: Position,
        damages: &mut Damages,
    ) {
        if let Some(first) = self.log.first().filter(|found| found.head.life > start_life) {
            damages.push_front(self.missing(first.head.life - 1, first.head.first));
        }
        if let Some(life) = next_life {
            damages.push(self.missing(life, end));
        }
    }

    fn missing(&self, life: u64, position: Position) -> Damage {
        match self.headless.iter().find(|(_, latest)| *latest == Some(life)) {
            Some((name, _)) => whole_segment(name, position, Fault::SegmentHeader),
            None => whole_segment(&format!("with life {life}"), position, Fault::MissingSegment),
        }
    }

    /// Refuses files without a head that hold records later than the log's end.
    pub fn refuse_orphans(&self, last_life: u64) -> Result<(), WalError> {
        match self.headless.iter().find(|(_, latest)| *latest > Some(last_life)) {
            Some((name, _)) => {
                let confirmed = self.log.last().map_or_else(Default::default, |f| f.head.first);
                let damage = whole_segment(name, confirmed, Fault::SegmentHeader);
                Err(Damages::from(damage).refuse(confirmed))
            }
            None => Ok(()),
        }
    }

    /// Whether there are files that only a log with a first segment can have made.
    pub fn has_spares(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Gives spares to the pool and removes half-made files: no record in them is needed.
    pub fn clear(&mut self, disk: &dyn Disk, pool: &Pool) -> Result<(), WalError> {
        for spare in self.spares.drain(..) {
            pool.give(spare);
        }
        for (name, _) in &self.headless {
            disk.remove(name).map_err(failed("remove", name.clone()))?;
        }
        if !self.headless.is_empty() {
            disk.sync_dir().map_err(failed("sync", disk.place()))?;
        }
        Ok(())
    }
}

/// A segment of which nothing can be used, and where it is or would be.
fn whole_segment(name: &str, position: Position, fault: Fault) -> Damage {
    Damage {
        segment: name.to_owned(),
        at_bytes: 0,
        position,
        group: None,
        kind: None,
        entry: None,
        fault,
    }
}
