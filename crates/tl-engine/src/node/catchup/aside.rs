//! What transfers need that waits for a disk: done off the driver, one piece at a time.

use std::fmt;

use crc32fast::Hasher;
use tl_store::{Applied, Export, OrderedStore, Row};
use tl_types::{Generation, GroupId};

use super::message::{Sum, put_row};

/// A piece of work to be done off the driver; its end comes back as
/// [`Input::AsideDone`](crate::node::Input::AsideDone).
#[derive(Debug)]
pub struct Aside {
    pub(super) group: GroupId,
    pub(super) transfer: u64,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    /// Open the rows of the last flush.
    Open,
    /// Read on, for a chunk of about so many bytes.
    Read { stream: Stream, chunk_bytes: usize },
    /// Find a generation that has no rows yet.
    Name,
}

/// What came of it.
#[derive(Debug)]
pub struct AsideDone {
    pub(super) group: GroupId,
    pub(super) transfer: u64,
    pub(super) found: Found,
}

#[derive(Debug)]
pub(super) enum Found {
    Opened(Result<(Applied, Stream), String>),
    Read(Result<(Stream, Piece), String>),
    Named(Result<Generation, String>),
}

/// Rows for one chunk, encoded.
pub(super) struct Piece {
    pub(super) rows: Vec<u8>,
    pub(super) last: Option<Sum>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("bytes", &self.rows.len()).field("last", &self.last).finish()
    }
}

/// Rows on their way out, and what those before were together.
pub(super) struct Stream {
    rows: Box<dyn Iterator<Item = Result<Row, tl_store::StoreError>> + Send>,
    sent: u64,
    crc: Hasher,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Stream {
    fn next_piece(&mut self, chunk_bytes: usize) -> Result<Piece, tl_store::StoreError> {
        let mut rows = Vec::new();
        let mut is_last = false;
        while rows.len() < chunk_bytes && !is_last {
            match self.rows.next() {
                Some(row) => {
                    put_row(&mut rows, &row?);
                    self.sent += 1;
                }
                None => is_last = true,
            }
        }
        self.crc.update(&rows);
        let last = is_last.then(|| Sum { rows: self.sent, crc: self.crc.clone().finalize() });
        Ok(Piece { rows, last })
    }
}

impl Aside {
    /// Does the work. Blocking.
    pub fn run<S: OrderedStore>(self, store: &S) -> AsideDone {
        let Aside { group, transfer, work } = self;
        let found = match work {
            Work::Open => Found::Opened(
                store
                    .export(group)
                    .map(|Export { applied, rows }| {
                        (applied, Stream { rows, sent: 0, crc: Hasher::new() })
                    })
                    .map_err(|error| crate::chain(&error)),
            ),
            Work::Read { mut stream, chunk_bytes } => {
                let piece = stream.next_piece(chunk_bytes);
                let piece = piece.map_err(|error| crate::chain(&error));
                Found::Read(piece.map(|piece| (stream, piece)))
            }
            Work::Name => {
                Found::Named(store.newest_generation(group).map_err(|error| crate::chain(&error)))
            }
        };
        AsideDone { group, transfer, found }
    }
}
