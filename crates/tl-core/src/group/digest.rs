//! What a group remembers of its last entry that wrote rows: its stamp, and a running digest over
//! all rows that entries wrote. Replicas that applied the same entries have the same digest; one
//! that differs has diverged.
//!
//! ```text
//! row    = stamp u64 ms ‖ digest u128
//! digest = xxh3-128(previous digest ‖ stamp ‖ for each written row, in key order:
//!                   key length u32 ‖ key ‖ 0 for a delete
//!                                        ‖ 1 ‖ value length u32 ‖ value, up to 64 bytes
//!                                        ‖ 2 ‖ value length u32 ‖ xxh3-128(value), a longer one)
//! ```

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::keys::GroupField;
use tl_types::{RowKey, UnixMs};
use xxhash_rust::xxh3::xxh3_128;

use crate::rows::{Poison, Rows};
use crate::view::View;

/// Bytes of a value up to which it is hashed together with its key.
const SHORT_BYTES_MAX: usize = 64;

/// The stamp and the digest, both zero before the first write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Last {
    pub(super) stamp: UnixMs,
    digest: u128,
}

/// The group's digest; zero before the first write.
///
/// # Errors
/// [`Poison`] when the row was cold or damaged.
pub fn digest(rows: &dyn Rows) -> Result<u128, Poison> {
    View::read(rows, load).map(|last| last.digest)
}

/// Takes the view's writes into the digest and writes the row, as the entry's last one.
pub(super) fn extend(view: &mut View<'_>, before: Last, stamp: UnixMs) {
    let mut text: SmallVec<[u8; 512]> = SmallVec::new();
    text.extend_from_slice(&before.digest.to_be_bytes());
    text.extend_from_slice(&stamp.0.to_be_bytes());
    view.for_each_write(|key, value| {
        text.extend_from_slice(&(key.as_bytes().len() as u32).to_be_bytes());
        text.extend_from_slice(key.as_bytes());
        let Some(value) = value else { return text.push(0) };
        let is_short = value.len() <= SHORT_BYTES_MAX;
        text.push(if is_short { 1 } else { 2 });
        text.extend_from_slice(&(value.len() as u32).to_be_bytes());
        if is_short {
            text.extend_from_slice(value);
        } else {
            text.extend_from_slice(&xxh3_128(value).to_be_bytes());
        }
    });
    let mut row = [0; 24];
    row[..8].copy_from_slice(&stamp.0.to_be_bytes());
    row[8..].copy_from_slice(&xxh3_128(&text).to_be_bytes());
    view.put(RowKey::group(GroupField::Last), Bytes::copy_from_slice(&row));
}

pub(super) fn load(view: &mut View<'_>) -> Last {
    let found = view.look(&RowKey::group(GroupField::Last), |row| {
        let (stamp, digest) = row.split_first_chunk::<8>()?;
        let digest = u128::from_be_bytes(digest.try_into().ok()?);
        Some(Last { stamp: UnixMs(u64::from_be_bytes(*stamp)), digest })
    });
    match found {
        None => Last::default(),
        Some(Some(last)) => last,
        Some(None) => {
            view.damaged("the group's last stamp and digest are not 24 bytes".into());
            Last::default()
        }
    }
}
