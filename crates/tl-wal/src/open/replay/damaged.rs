//! What is done about a segment in which something cannot be read: named, or gone on behind.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Fault, WalError};
use crate::format::{RECORD_HEADER_BYTES, RecordHead};
use crate::options::OnDamage;
use crate::record::Position;
use crate::scan::{Found as At, Scan};
use crate::wal::BARE_BYTES;

use super::Replay;
use crate::open::damages::{Damages, damage};
use crate::open::files::Found;

/// What came of a part of a segment in which something is damaged.
#[derive(Default)]
pub(super) struct Salvaged {
    pub damaged: usize,
    pub next_life: Option<u64>,
}

impl Replay<'_> {
    /// Hands over what is intact in a part of a segment that is confirmed, and names what is not.
    ///
    /// Here a record counts by itself: its whole job was durable, and what its job lacks is named.
    pub(super) fn salvage(
        &mut self,
        scan: &Scan<'_>,
        bytes: &Bytes,
        found: &mut Found,
        part: Range<usize>,
        begin: bool,
        has_next: bool,
    ) -> Result<Salvaged, WalError> {
        let mut salvaged = Salvaged::default();
        let mut offset = part.start;
        while offset < part.end {
            let (record, is_intact) = match scan.at(offset) {
                At::Record(record) => (Some(record), true),
                At::DamagedData(record) => (Some(record), false),
                At::NoHeader | At::Zeros | At::Full => (None, false),
            };
            let Some(record) = record.filter(|r| offset + r.record_bytes() <= part.end) else {
                salvaged.damaged += 1;
                if has_next && offset as u64 + BARE_BYTES == part.end as u64 {
                    // What the last record of a full segment says, the next one's head says too.
                    found.next_lost_at = Some(offset as u64);
                } else {
                    self.may_lack_note |= !has_next;
                    self.damages.push(damage(found, offset, None, Fault::Header));
                }
                let next = scan.next_header(offset + 1).unwrap_or(part.end);
                offset = next.min(part.end);
                continue;
            };
            self.confirm(record.mark);
            if is_intact {
                let start = offset + RECORD_HEADER_BYTES;
                let data = bytes.slice(start..start + record.data_bytes as usize);
                let next_life = self.take(&record, data, &mut found.segment, begin)?;
                salvaged.next_life = next_life.or(salvaged.next_life);
            } else {
                salvaged.damaged += 1;
                let damage = damage(found, offset, Some(&record), Fault::Data);
                if let (Some(group), Some(index)) = (damage.group, damage.entry) {
                    // The segment is kept until the store has what the entry brought.
                    found.segment.note_index(group, index);
                    self.tops.rise(group, index);
                }
                self.damages.push(damage);
            }
            offset += record.record_bytes();
        }
        Ok(salvaged)
    }

    /// Names what is damaged from `offset` up to `limit`, as far as that is confirmed, and says how
    /// many intact records there are: nothing of it is going to be handed over.
    pub(super) fn blame(
        &mut self,
        scan: &Scan<'_>,
        offset: usize,
        found: &Found,
        limit: Position,
    ) -> usize {
        let mut damages = Vec::new();
        let intact = self.survey(scan, offset, &mut |at, header, fault| {
            damages.push(damage(found, at, header, fault));
        });
        let limit = limit.min(self.confirmed);
        let confirmed = damages.into_iter().filter(|damage| damage.position < limit);
        confirmed.for_each(|damage| self.damages.push(damage));
        intact
    }

    /// Looks at everything from `offset` on: how many intact records there are, what they prove,
    /// and what is damaged.
    pub(super) fn survey(
        &mut self,
        scan: &Scan<'_>,
        offset: usize,
        damaged: &mut dyn FnMut(usize, Option<&RecordHead>, Fault),
    ) -> usize {
        let mut offset = offset;
        let mut intact = 0;
        loop {
            let (header, fault) = match scan.at(offset) {
                At::Full => break,
                At::Record(record) => {
                    intact += 1;
                    self.confirm(record.mark);
                    offset += record.record_bytes();
                    continue;
                }
                At::DamagedData(record) => {
                    self.confirm(record.mark);
                    (Some(record), Fault::Data)
                }
                At::NoHeader | At::Zeros => (None, Fault::Header),
            };
            damaged(offset, header.as_ref(), fault);
            match header {
                Some(record) => offset += record.record_bytes(),
                None => match scan.next_header(offset + 1) {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        intact
    }

    pub(super) fn is_refused(&self) -> bool {
        self.on_damage == OnDamage::Refuse && !self.damages.is_empty()
    }

    /// When confirmed records cannot be used although none of them is damaged.
    pub(super) fn blame_order(&mut self, found: &Found, at: usize) {
        if self.damages.is_empty() {
            self.damages.push(damage(found, at, None, Fault::Order));
        }
    }

    /// The same where damage is no reason to refuse: contradictions are.
    pub(super) fn refuse_order<T>(&self, found: &Found, at: usize) -> Result<T, WalError> {
        Err(Damages::from(damage(found, at, None, Fault::Order)).refuse(self.confirmed))
    }
}
