//! What transfers need that waits for a disk: done off the driver, one piece at a time.

use std::fmt;

use crc32fast::Hasher;
use tl_store::{Applied, Export, OrderedStore, Row};
use tl_types::{Generation, GroupId, RowKey};

use super::alike::{Compare, Compared, fingerprint};
use super::message::{Fingerprint, Sum, put_row};

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
    Read { stream: Stream, chunk_bytes: usize, is_print_wanted: bool },
    /// Find a generation that has no rows yet, and rows that are of use; the group reads this one.
    Name { live: Generation },
    /// Look whether the rows of a chunk are here already.
    Compare(Compare),
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
    Named(Result<Names, String>),
    Compared(Compared),
}

/// Generations of a group on this node.
#[derive(Debug)]
pub(super) struct Names {
    /// The highest that has rows.
    pub(super) newest: Generation,
    /// Those that rows of a transfer may be among, with their last flushed rows: the one that the
    /// group reads, and loads that were cut off.
    pub(super) of_use: Vec<(Generation, RowKey)>,
}

/// Rows for one chunk, encoded.
pub(super) struct Piece {
    pub(super) rows: Vec<u8>,
    pub(super) last: Option<Sum>,
    /// If it was wanted and there are rows.
    pub(super) print: Option<Fingerprint>,
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
    fn next_piece(
        &mut self,
        chunk_bytes: usize,
        is_print_wanted: bool,
    ) -> Result<Piece, tl_store::StoreError> {
        let mut rows = Vec::new();
        let (mut upto, mut is_last) = (None, false);
        while rows.len() < chunk_bytes && !is_last {
            match self.rows.next() {
                Some(row) => {
                    let row = row?;
                    put_row(&mut rows, &row);
                    self.sent += 1;
                    upto = Some(row.0);
                }
                None => is_last = true,
            }
        }
        self.crc.update(&rows);
        let last = is_last.then(|| Sum { rows: self.sent, crc: self.crc.clone().finalize() });
        let print = upto.filter(|_| is_print_wanted).map(|upto| fingerprint(upto, &rows));
        Ok(Piece { rows, last, print })
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
            Work::Read { mut stream, chunk_bytes, is_print_wanted } => {
                let piece = stream.next_piece(chunk_bytes, is_print_wanted);
                let piece = piece.map_err(|error| crate::chain(&error));
                Found::Read(piece.map(|piece| (stream, piece)))
            }
            Work::Name { live } => {
                Found::Named(names(store, group, live).map_err(|error| crate::chain(&error)))
            }
            Work::Compare(compare) => Found::Compared(compare.run(store, group)),
        };
        AsideDone { group, transfer, found }
    }
}

fn names<S: OrderedStore>(
    store: &S,
    group: GroupId,
    live: Generation,
) -> Result<Names, tl_store::StoreError> {
    let above = store.generations_above(group, live)?;
    let newest = above.last().copied().unwrap_or(live);
    // What cannot be read is of no use: damaged rows are why some transfers are made.
    let last = |of: Generation| Some((of, store.last_flushed(group, of).ok()??));
    let of_use = std::iter::once(live).chain(above).filter_map(last).collect();
    Ok(Names { newest, of_use })
}
