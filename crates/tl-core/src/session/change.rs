//! Changes to a session that add no event: header, listing, close, delete, archive positions.

use tl_types::{ResourcePath, UnixMs};

use super::create::{check_metadata, check_title};
use super::header::SessionState;
use super::{Fault, changed, directory, lookup, open, save_header};
use crate::effect::{Change, Effect};
use crate::entry::{AckArchived, SetListing, Trim, UpdateHeader};
use crate::reply::{Reason, Reply};
use crate::session::Listing;
use crate::view::View;

/// Sets title and metadata members; every update adds one to the version, also when it sets
/// what was there.
pub(super) fn update(
    view: &mut View<'_>,
    at: UnixMs,
    update: UpdateHeader,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    let mut row = open(view, update.path)?;
    let current = row.header.version;
    if let Some(expected) = update.expected_version
        && expected != current
    {
        return Err(Reason::ExpectedVersion { expected, current }.into());
    }
    check_title(update.title.as_ref().and_then(Option::as_ref))?;
    if let Some(title) = update.title {
        row.header.title = title;
    }
    if let Some(patch) = &update.metadata {
        let merged = row.header.metadata.merged(patch);
        check_metadata(&merged)?;
        row.header.metadata = merged;
    }
    row.header.version = current + 1;
    row.header.updated_at = at;
    save_header(view, &row);
    effects.push(changed(Change::Updated, &row));
    Ok(Reply::Session(Box::new(row)))
}

/// Shows or hides a session; doing it again changes nothing.
pub(super) fn set_listing(
    view: &mut View<'_>,
    at: UnixMs,
    set: SetListing,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    let mut row = open(view, set.path)?;
    if row.header.listing != set.listing {
        row.header.listing = set.listing;
        row.header.updated_at = at;
        save_header(view, &row);
        directory::save(view, &row);
        effects.push(match set.listing {
            Listing::Active => changed(Change::Unarchived, &row),
            Listing::Archived => changed(Change::Archived, &row),
        });
    }
    Ok(Reply::Session(Box::new(row)))
}

/// Takes no more events; doing it again changes nothing.
pub(super) fn close(
    view: &mut View<'_>,
    at: UnixMs,
    path: ResourcePath,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    let mut row = open(view, path)?;
    if row.header.state == SessionState::Active {
        row.header.state = SessionState::Closed;
        row.header.updated_at = at;
        save_header(view, &row);
        directory::save(view, &row);
        effects.push(changed(Change::Closed, &row));
    }
    Ok(Reply::Session(Box::new(row)))
}

/// Deletes; doing it again changes nothing. Rows stay: open tails deliver up to the end.
pub(super) fn tombstone(
    view: &mut View<'_>,
    at: UnixMs,
    path: ResourcePath,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    let Some(mut row) = lookup(view, &path) else { return Err(Reason::SessionNotFound.into()) };
    if row.header.state != SessionState::Tombstoned {
        row.header.state = SessionState::Tombstoned;
        row.header.updated_at = at;
        save_header(view, &row);
        directory::save(view, &row);
        effects.push(changed(Change::Tombstoned, &row));
    }
    Ok(Reply::Done)
}

/// Past the end is clamped and an older ack is nothing: a slow archiver may ack twice. Works on
/// a deleted session too, whose last events may still be on their way to the archive.
pub(super) fn ack_archived(view: &mut View<'_>, ack: AckArchived) -> Result<Reply, Fault> {
    let Some(mut row) = lookup(view, &ack.path) else { return Err(Reason::SessionNotFound.into()) };
    let upto = ack.upto.min(row.header.last_seq);
    if upto > row.header.archived_seq {
        row.header.archived_seq = upto;
        save_header(view, &row);
    }
    Ok(Reply::Done)
}

/// Never past what is archived, never back. The event rows below the floor are the store's to
/// drop; readers check the floor.
pub(super) fn trim(view: &mut View<'_>, trim: Trim) -> Result<Reply, Fault> {
    let Some(mut row) = lookup(view, &trim.path) else {
        return Err(Reason::SessionNotFound.into());
    };
    let upto = trim.upto.min(row.header.archived_seq);
    if upto > row.header.floor_seq {
        row.header.floor_seq = upto;
        save_header(view, &row);
    }
    Ok(Reply::Done)
}
