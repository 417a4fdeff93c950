//! The group's running digest over all rows that its entries wrote. Replicas that applied the
//! same entries have the same digest; one that differs has diverged.
//!
//! ```text
//! digest = xxh3-128(previous digest ‖ for each written row, in key order:
//!                   key length u32 ‖ key ‖ 0 for a delete, else 1 ‖ value length u32 ‖ value)
//! ```

use bytes::Bytes;
use tl_types::RowKey;
use tl_types::keys::GroupField;
use xxhash_rust::xxh3::Xxh3;

use crate::rows::{Poison, Rows};
use crate::view::View;

/// The group's digest; zero before the first write.
///
/// # Errors
/// [`Poison`] when the row was cold or damaged.
pub fn digest(rows: &dyn Rows) -> Result<u128, Poison> {
    View::read(rows, load)
}

/// Takes the view's writes into the digest and writes it, as the entry's last row.
pub(super) fn extend(view: &mut View<'_>) {
    let mut hash = Xxh3::new();
    hash.update(&load(view).to_be_bytes());
    view.for_each_write(|key, value| {
        hash.update(&(key.as_bytes().len() as u32).to_be_bytes());
        hash.update(key.as_bytes());
        match value {
            None => hash.update(&[0]),
            Some(value) => {
                hash.update(&[1]);
                hash.update(&(value.len() as u32).to_be_bytes());
                hash.update(value);
            }
        }
    });
    let value = Bytes::copy_from_slice(&hash.digest128().to_be_bytes());
    view.put(RowKey::group(GroupField::Digest), value);
}

fn load(view: &mut View<'_>) -> u128 {
    match view.get(&RowKey::group(GroupField::Digest)) {
        None => 0,
        Some(row) => match <[u8; 16]>::try_from(&row[..]) {
            Ok(bytes) => u128::from_be_bytes(bytes),
            Err(_) => {
                view.damaged("the group's digest is not 16 bytes".into());
                0
            }
        },
    }
}
