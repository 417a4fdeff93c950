//! Request memory: the first replies of requests that carried an id of the client's, so that a
//! repeat is answered with them and does nothing.
//!
//! ```text
//! Request    scoped id            → version u8 ‖ stamp u64 ‖ principal digest 16 ‖ replies
//! RequestAge stamp, scoped id     → –
//! ```
//!
//! The scoped id is a hash of the request id and who sent it: two principals that choose the
//! same id never meet. Refusals are not remembered, they wrote nothing. Bounded in number and
//! age; a `Tick` forgets what is too old.

use bytes::Bytes;
use tl_types::bytes_codec::{DecodeError, Reader};
use tl_types::keys::GroupField;
use tl_types::limits::{REQUEST_MEMORY_MS, REQUESTS_PER_GROUP_MAX, TICK_ROWS_MAX};
use tl_types::{RequestId, ResourceNumber, RowKey, Table, UnixMs};
use xxhash_rust::xxh3::xxh3_128;

use crate::effect::Effect;
use crate::entry::{Entry, PrincipalDigest};
use crate::reply::{Reason, Reply, codec};
use crate::rows::{Poison, Rows};
use crate::view::View;

const VERSION: u8 = 1;

/// Most bytes of replies remembered for one request; only an entry of very many commands gets
/// there, and is refused. One past: `payload_too_large`.
const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// Rows that forgetting one request touches.
const ROWS_PER_REQUEST: usize = 2;

/// The id a request is remembered under.
pub(crate) fn scoped(id: RequestId, principal: &PrincipalDigest) -> RequestId {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&id.0);
    bytes[16..].copy_from_slice(principal);
    RequestId(xxh3_128(&bytes).to_be_bytes())
}

/// The first replies, when this principal sent this request before.
pub(super) fn remembered(view: &mut View<'_>, entry: &Entry) -> Option<Vec<Reply>> {
    let id = scoped(entry.request?, &entry.principal);
    let row = view.get(&RowKey::request(id))?;
    match decode(row) {
        Ok((principal, replies)) if principal == entry.principal => Some(replies),
        // Another principal under the same scoped id takes a broken hash; it learns nothing.
        Ok(_) => None,
        Err(error) => {
            view.damaged(format!("remembered request {id}: {error}"));
            None
        }
    }
}

/// Remembers the replies of a request; the oldest goes when there are too many.
pub(super) fn remember(
    view: &mut View<'_>,
    effects: &mut Vec<Effect>,
    stamp: UnixMs,
    id: RequestId,
    principal: &PrincipalDigest,
    replies: &[Reply],
) -> Result<(), Reason> {
    let mut row = Vec::with_capacity(96);
    row.push(VERSION);
    row.extend_from_slice(&stamp.0.to_be_bytes());
    row.extend_from_slice(principal);
    codec::put_replies(&mut row, replies);
    if row.len() > REPLY_BYTES_MAX {
        let (max, got) = (REPLY_BYTES_MAX as u64, row.len() as u64);
        return Err(Reason::TooLarge { limit: "request_reply_bytes_max", max, got });
    }
    if view.get(&RowKey::request(id)).is_some() {
        return Ok(());
    }
    view.put(RowKey::request(id), row.into());
    view.put(RowKey::request_age(stamp.0, id), Bytes::new());
    let mut count = load_count(view) + 1;
    if count > REQUESTS_PER_GROUP_MAX {
        let excess = (count - REQUESTS_PER_GROUP_MAX) as usize;
        for (age, _) in ages_until(view, u64::MAX, excess) {
            forget(view, age);
            count -= 1;
        }
    }
    save_count(view, count);
    effects.push(Effect::DueAt(due_at(stamp)));
    Ok(())
}

/// Forgets requests that are too old, a bounded number of them.
pub(super) fn expire(view: &mut View<'_>, stamp: UnixMs) -> Reply {
    let Some(until) = stamp.0.checked_sub(REQUEST_MEMORY_MS) else {
        return Reply::Ticked { more_due: false };
    };
    let share = TICK_ROWS_MAX / ROWS_PER_REQUEST;
    let mut due = ages_until(view, until, share + 1);
    let more_due = due.len() > share;
    due.truncate(share);
    if !due.is_empty() {
        let count = load_count(view).saturating_sub(due.len() as u64);
        save_count(view, count);
    }
    for (age, _) in due {
        forget(view, age);
    }
    Reply::Ticked { more_due }
}

/// When the group next has work for a `Tick`; `None` when it has none in sight.
///
/// # Errors
/// [`Poison`] when a row was cold or damaged.
pub fn due_work(rows: &dyn Rows) -> Result<Option<UnixMs>, Poison> {
    View::read(rows, |view| {
        let (age, _) = ages_until(view, u64::MAX, 1).into_iter().next()?;
        Some(due_at(UnixMs(age_stamp(view, &age)?)))
    })
}

fn due_at(stamp: UnixMs) -> UnixMs {
    UnixMs(stamp.0.saturating_add(REQUEST_MEMORY_MS))
}

/// The oldest ages with a stamp of at most `until`.
fn ages_until(view: &mut View<'_>, until: u64, limit: usize) -> Vec<(RowKey, Bytes)> {
    let start = RowKey::table_start(Table::RequestAge, ResourceNumber(0));
    let end = start.with(&until.to_be_bytes()).prefix_end();
    view.range(&start, &end, limit)
}

fn forget(view: &mut View<'_>, age: RowKey) {
    match age.rest().get(8..).map(<[u8; 16]>::try_from) {
        Some(Ok(id)) => view.delete(RowKey::request(RequestId(id))),
        Some(Err(_)) | None => view.damaged("a request age names no request".into()),
    }
    view.delete(age);
}

fn age_stamp(view: &mut View<'_>, age: &RowKey) -> Option<u64> {
    let stamp = age.rest().first_chunk::<8>();
    if stamp.is_none() {
        view.damaged("a request age has no stamp".into());
    }
    stamp.map(|stamp| u64::from_be_bytes(*stamp))
}

fn load_count(view: &mut View<'_>) -> u64 {
    match view.get(&RowKey::group(GroupField::RequestCount)) {
        None => 0,
        Some(row) => match <[u8; 8]>::try_from(&row[..]) {
            Ok(bytes) => u64::from_be_bytes(bytes),
            Err(_) => {
                view.damaged("the group's request count is not 8 bytes".into());
                0
            }
        },
    }
}

fn save_count(view: &mut View<'_>, count: u64) {
    let value = Bytes::copy_from_slice(&count.to_be_bytes());
    view.put(RowKey::group(GroupField::RequestCount), value);
}

fn decode(row: Bytes) -> Result<(PrincipalDigest, Vec<Reply>), DecodeError> {
    let mut reader = Reader::new(row);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::Unknown { what: "request version", value: version.into() });
    }
    let _stamp = reader.u64()?;
    let principal = reader.array()?;
    Ok((principal, codec::read_replies(&mut reader)?))
}
