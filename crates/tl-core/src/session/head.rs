//! What an append needs of a session's header, read and rewritten without looking at the rest: the
//! texts of a header are carried from row to row as they are.

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::bytes_codec::{DecodeError, Scan};
use tl_types::{ResourceNumber, ResourcePath, RowKey, Seq};

use super::directory;
use super::header::{SessionHeader, SessionState, check, number, state, tag};
use crate::reply::Reason;
use crate::view::View;

/// The numbers of a header that an append looks at, and the row that they stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) state: SessionState,
    pub(super) last_seq: Seq,
    pub(super) archived_seq: Seq,
    pub(super) producers: u64,
    row: SmallVec<[u8; 256]>,
    /// Where the two that an append changes stand in the row; numbers that are zero do not.
    last_seq_at: Option<usize>,
    producers_at: Option<usize>,
}

/// The number and head of a session that commands may change: it exists and is not deleted.
pub(super) fn open(
    view: &mut View<'_>,
    path: &ResourcePath,
) -> Result<(ResourceNumber, Head), Reason> {
    let entry = directory::load(view, path).ok_or(Reason::SessionNotFound)?;
    let session = entry.number;
    match view.look(&RowKey::session(session), Head::decode) {
        Some(Ok(head)) if head.state == SessionState::Tombstoned => Err(Reason::SessionTombstoned),
        Some(Ok(head)) => Ok((session, head)),
        Some(Err(error)) => {
            view.damaged(format!("header of session {session}: {error}"));
            Err(Reason::SessionNotFound)
        }
        None => {
            view.damaged(format!("session {session} is in the directory but has no header"));
            Err(Reason::SessionNotFound)
        }
    }
}

impl Head {
    /// Reads the numbers; the texts are for those to judge who read them.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a header of a known version.
    pub(super) fn decode(row: &Bytes) -> Result<Head, DecodeError> {
        let mut scan = Scan::new(row);
        check::version(&mut scan)?;
        let mut head = Head {
            state: SessionState::Active,
            last_seq: Seq(0),
            archived_seq: Seq(0),
            producers: 0,
            row: SmallVec::new(),
            last_seq_at: None,
            producers_at: None,
        };
        let mut floor_seq = Seq(0);
        while let Some((tag, part)) = scan.field()? {
            let at = row.len() - scan.rest().len() - part.len();
            match tag {
                tag::STATE => head.state = state(part)?,
                tag::LAST_SEQ => {
                    head.last_seq = Seq(number(part)?);
                    head.last_seq_at = Some(at);
                }
                tag::ARCHIVED_SEQ => head.archived_seq = Seq(number(part)?),
                tag::FLOOR_SEQ => floor_seq = Seq(number(part)?),
                tag::PRODUCERS => {
                    head.producers = number(part)?;
                    head.producers_at = Some(at);
                }
                _ => {}
            }
        }
        check::positions(floor_seq, head.archived_seq, head.last_seq)?;
        check::producers(head.producers)?;
        head.row.extend_from_slice(row);
        Ok(head)
    }

    /// Writes the row with the last seq and the number of producers as they are now.
    pub(super) fn save(mut self, view: &mut View<'_>, session: ResourceNumber) {
        if let (Some(last_seq_at), Some(producers_at)) = (self.last_seq_at, self.producers_at) {
            for (at, number) in [(last_seq_at, self.last_seq.0), (producers_at, self.producers)] {
                self.row[at..at + size_of::<u64>()].copy_from_slice(&number.to_be_bytes());
            }
            view.put(RowKey::session(session), Bytes::copy_from_slice(&self.row));
            return;
        }
        // The first append: the row gets longer.
        match SessionHeader::decode(Bytes::copy_from_slice(&self.row)) {
            Ok(mut header) => {
                (header.last_seq, header.producers) = (self.last_seq, self.producers);
                view.put(RowKey::session(session), header.encode());
            }
            Err(error) => view.damaged(format!("header of session {session}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::MemoryRows;

    const ONE: ResourceNumber = ResourceNumber(1);

    #[test]
    fn numbers_that_nobody_could_count_on_from_are_damage() {
        let max = i64::MAX.cast_unsigned();
        for (last, producers, reads) in
            [(max, max, true), (max + 1, 0, false), (u64::MAX, 0, false), (9, max + 1, false)]
        {
            let header = SessionHeader { last_seq: Seq(last), producers, ..Default::default() };
            let row = header.encode();
            assert_eq!(Head::decode(&row).is_ok(), reads, "{last} {producers}");
            assert_eq!(SessionHeader::decode(row).is_ok(), reads, "{last} {producers}");
        }
    }

    #[test]
    fn a_rewritten_head_is_the_header_encoded_anew() {
        for (last, producers) in [(0, 0), (7, 0), (7, 2)] {
            let mut header = SessionHeader {
                title: Some("Trip".into()),
                creator: "user:ann".into(),
                archived_seq: Seq(last.min(3)),
                floor_seq: Seq(last.min(2)),
                last_seq: Seq(last),
                producers,
                state: SessionState::Closed,
                ..SessionHeader::default()
            };
            let mut head = Head::decode(&header.encode()).unwrap();
            assert_eq!((head.last_seq, head.producers), (Seq(last), producers));
            assert_eq!((head.archived_seq, head.state), (header.archived_seq, header.state));
            (head.last_seq, head.producers) = (Seq(last + 300), producers + 1);
            (header.last_seq, header.producers) = (Seq(last + 300), producers + 1);
            let rows = MemoryRows::default();
            let mut view = View::new(&rows);
            head.save(&mut view, ONE);
            assert_eq!(view.get(&RowKey::session(ONE)), Some(header.encode()));
        }
    }
}
