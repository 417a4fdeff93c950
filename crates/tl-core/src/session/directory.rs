//! The directory row `name → number`, which is also the list index: it sorts by name and holds
//! what a list filters by before it looks at headers.

use bytes::Bytes;
use tl_types::bytes_codec::{DecodeError, Scan};
use tl_types::{ResourceNumber, ResourcePath, RowKey};

use super::header::{Listing, SessionRow, SessionState};
use crate::view::View;

const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryRow {
    pub(crate) number: ResourceNumber,
    pub(crate) listing: Listing,
    pub(crate) state: SessionState,
}

impl DirectoryRow {
    pub(crate) fn encode(self) -> Bytes {
        let mut row = Vec::with_capacity(11);
        row.push(VERSION);
        row.extend_from_slice(&self.number.0.to_be_bytes());
        row.push(self.listing as u8);
        row.push(self.state as u8);
        row.into()
    }

    pub(crate) fn decode(row: &Bytes) -> Result<DirectoryRow, DecodeError> {
        let mut reader = Scan::new(row);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "directory version", value: version.into() });
        }
        Ok(DirectoryRow {
            number: ResourceNumber(reader.u64()?),
            listing: Listing::from_number(reader.u8()?).ok_or(DecodeError::Malformed("listing"))?,
            state: SessionState::from_number(reader.u8()?)
                .ok_or(DecodeError::Malformed("state"))?,
        })
    }
}

pub(crate) fn load(view: &mut View<'_>, path: &ResourcePath) -> Option<DirectoryRow> {
    match view.look(&RowKey::directory(path), DirectoryRow::decode)? {
        Ok(row) => Some(row),
        Err(error) => {
            view.damaged(format!("directory row of {}: {error}", path.name));
            None
        }
    }
}

/// Writes the directory row that belongs to a session as it is now.
pub(super) fn save(view: &mut View<'_>, row: &SessionRow) {
    let entry =
        DirectoryRow { number: row.number, listing: row.header.listing, state: row.header.state };
    view.put(RowKey::directory(&row.path), entry.encode());
}
