//! Rows of a transfer that the taker has already: of a load that was cut off, or its own old ones.
//!
//! Before a chunk the giver says what is in it: the key of its last row, and a hash of all of them.
//! The taker reads the same range of what it has. If the hash is the same these are the rows, byte
//! for byte, and are copied under the new generation; otherwise the chunk travels. So a transfer
//! that was cut off is begun anew and costs reading, not sending, up to where the former one came;
//! and who was away for long is sent the chunks that changed.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tl_store::OrderedStore;
use tl_types::{Generation, GroupId, ResourceNumber, RowKey, Table};

use super::message::{Fingerprint, Sum, put_row};

/// Rows read at a time.
const PAGE_ROWS: usize = 1_024;
/// No further row of a page once it has so many bytes.
const PAGE_BYTES: usize = 1024 * 1024;

/// A chunk to be looked for in what is here.
#[derive(Debug)]
pub(super) struct Compare {
    pub(super) chunk: u64,
    /// The first row is the next behind this one; none for the very first.
    pub(super) after: Option<RowKey>,
    pub(super) print: Fingerprint,
    pub(super) last: Option<Sum>,
    /// Where to look, in this order.
    pub(super) among: Vec<Generation>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) chunk: u64,
    pub(super) last: Option<Sum>,
    /// The rows as they would have been sent, and where they are.
    pub(super) same: Option<(Generation, Bytes)>,
}

/// Tells these encoded rows, of which the last has this key, from all others.
pub(super) fn fingerprint(upto: RowKey, rows: &[u8]) -> Fingerprint {
    Fingerprint { upto, bytes: rows.len() as u64, hash: Sha256::digest(rows).into() }
}

impl Compare {
    pub(super) fn run<S: OrderedStore>(self, store: &S, group: GroupId) -> Compared {
        let found = |of: &Generation| Some((*of, self.rows_in(store, group, *of)?.into()));
        let same = self.among.iter().find_map(found);
        Compared { chunk: self.chunk, last: self.last, same }
    }

    /// The rows if they are the same. What cannot be read is not.
    fn rows_in<S: OrderedStore>(
        &self,
        store: &S,
        group: GroupId,
        generation: Generation,
    ) -> Option<Vec<u8>> {
        let first = RowKey::table_start(Table::Group, ResourceNumber(0));
        let mut start = self.after.as_ref().map_or(first, behind);
        let end = behind(&self.print.upto);
        let mut rows = Vec::new();
        while start < end {
            let page = store.range(group, generation, &start, &end, PAGE_ROWS, PAGE_BYTES).ok()?;
            let Some((last, _)) = page.last() else { break };
            start = behind(last);
            for row in &page {
                put_row(&mut rows, row);
                if rows.len() as u64 > self.print.bytes {
                    return None;
                }
            }
        }
        (fingerprint(self.print.upto.clone(), &rows) == self.print).then_some(rows)
    }
}

/// The least key above this one.
fn behind(key: &RowKey) -> RowKey {
    key.with(&[0])
}
