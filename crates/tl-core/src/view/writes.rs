//! The writes of one entry: a short sorted list, or a tree once there are many.
//!
//! A plain append writes four rows, and for those a list beats a tree; an entry of a thousand
//! commands would pay for it with quadratic moves, hence the second form.

use std::collections::BTreeMap;

use bytes::Bytes;
use tl_types::RowKey;

/// Rows up to which the list is used. Inserting moves at most this many.
const FEW: usize = 64;
/// Rows that the list has room for when it is made: enough for a plain append.
const USUAL: usize = 6;

type Row = (RowKey, Option<Bytes>);

#[derive(Debug)]
pub(super) enum Writes {
    /// A vector, which is what leaves the view: rows in place on the stack would be copied twice.
    Few(Vec<Row>),
    Many(BTreeMap<RowKey, Option<Bytes>>),
}

impl Default for Writes {
    fn default() -> Self {
        Writes::Few(Vec::new())
    }
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Writes::Few(rows) => rows.is_empty(),
            Writes::Many(rows) => rows.is_empty(),
        }
    }

    pub(super) fn get(&self, key: &RowKey) -> Option<&Option<Bytes>> {
        match self {
            Writes::Few(rows) => {
                let at = rows.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
                Some(&rows[at].1)
            }
            Writes::Many(rows) => rows.get(key),
        }
    }

    pub(super) fn insert(&mut self, key: RowKey, value: Option<Bytes>) {
        match self {
            Writes::Few(rows) => match rows.binary_search_by(|(k, _)| k.cmp(&key)) {
                Ok(at) => rows[at].1 = value,
                Err(at) if rows.len() < FEW => {
                    if rows.capacity() == 0 {
                        rows.reserve_exact(USUAL);
                    }
                    rows.insert(at, (key, value));
                }
                Err(_) => {
                    let mut many: BTreeMap<_, _> = rows.drain(..).collect();
                    many.insert(key, value);
                    *self = Writes::Many(many);
                }
            },
            Writes::Many(rows) => {
                rows.insert(key, value);
            }
        }
    }

    pub(super) fn range(&self, start: &RowKey, end: &RowKey) -> Vec<Row> {
        if start >= end {
            return Vec::new();
        }
        match self {
            Writes::Few(rows) => {
                let from = rows.partition_point(|(key, _)| key < start);
                let to = rows.partition_point(|(key, _)| key < end);
                rows[from..to].to_vec()
            }
            Writes::Many(rows) => {
                rows.range(start..end).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
        }
    }

    pub(super) fn for_each(&self, mut each: impl FnMut(&RowKey, Option<&Bytes>)) {
        match self {
            Writes::Few(rows) => rows.iter().for_each(|(k, v)| each(k, v.as_ref())),
            Writes::Many(rows) => rows.iter().for_each(|(k, v)| each(k, v.as_ref())),
        }
    }

    pub(super) fn into_sorted(self) -> Vec<Row> {
        match self {
            Writes::Few(rows) => rows,
            Writes::Many(rows) => rows.into_iter().collect(),
        }
    }
}
