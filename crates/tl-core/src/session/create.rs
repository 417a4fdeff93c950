//! Making a session: a number, a header, a directory row.

use bytes::Bytes;
use tl_types::keys::GroupField;
use tl_types::limits::{METADATA_BYTES_MAX, TITLE_BYTES_MAX};
use tl_types::{ResourceNumber, RowKey, Seq, UnixMs};

use super::header::{Listing, SessionHeader, SessionRow, SessionState};
use super::{Fault, changed, directory, save_header};
use crate::effect::{Change, Effect};
use crate::entry::CreateSession;
use crate::metadata::Metadata;
use crate::reply::{Reason, Reply};
use crate::text::Text;
use crate::view::View;

pub(super) fn create(
    view: &mut View<'_>,
    at: UnixMs,
    create: CreateSession,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    // A deleted name stays taken, so that its positions never name other events.
    if directory::load(view, &create.path).is_some() {
        return Err(Reason::SessionExists.into());
    }
    check_title(create.title.as_ref())?;
    check_metadata(&create.metadata)?;
    let row = SessionRow {
        path: create.path,
        number: take_number(view),
        header: SessionHeader {
            incarnation: create.incarnation,
            title: create.title,
            metadata: create.metadata,
            creator: create.creator,
            created_at: at,
            updated_at: at,
            version: 1,
            listing: Listing::Active,
            state: SessionState::Active,
            last_seq: Seq(0),
            archived_seq: Seq(0),
            floor_seq: Seq(0),
            producers: 0,
        },
    };
    save_header(view, &row);
    directory::save(view, &row);
    effects.push(changed(Change::Created, &row));
    effects.push(changed(Change::Activated, &row));
    Ok(Reply::Session(Box::new(row)))
}

/// The next resource number of the group; numbers start at 1 and are never given out again.
fn take_number(view: &mut View<'_>) -> ResourceNumber {
    let key = RowKey::group(GroupField::NextNumber);
    let next = match view.get(&key) {
        None => 1,
        Some(row) => match <[u8; 8]>::try_from(&row[..]) {
            Ok(bytes) => u64::from_be_bytes(bytes),
            Err(_) => {
                view.damaged("the group's next number is not 8 bytes".into());
                1
            }
        },
    };
    view.put(key, Bytes::copy_from_slice(&(next + 1).to_be_bytes()));
    ResourceNumber(next)
}

pub(super) fn check_title(title: Option<&Text>) -> Result<(), Reason> {
    match title {
        Some(title) if title.bytes().len() > TITLE_BYTES_MAX => Err(Reason::TitleTooLong),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn check_metadata(metadata: &Metadata) -> Result<(), Reason> {
    let (got, max) = (metadata.json_bytes() as u64, METADATA_BYTES_MAX as u64);
    if got > max {
        return Err(Reason::TooLarge { limit: "metadata_bytes_max", max, got });
    }
    Ok(())
}
