//! One session: an ordered, append-only log of events with one order for all writers.
//!
//! A session answers three questions and nothing else: may this event be added, which `seq`
//! does it get, and how much of the log may be forgotten.
//!
//! ```text
//!   trimmed | archived, still held | not yet archived
//!   --------+----------------------+------------------> seq
//!        floor_seq           archived_seq          last_seq
//!
//!   active ──close──> closed ──┐
//!      └────────tombstone──────┴──> tombstoned        (never back)
//! ```
//!
//! Invariants, each checked after every `apply` in tests (see [`crate::invariants`]):
//!  - I1 `floor_seq <= archived_seq <= last_seq`; none of the three ever moves back.
//!  - I2 held seqs are `floor_seq + 1 ..= last_seq` with no hole.
//!  - I3 within the producer window, one `(producer_id, producer_seq)` owns at most one `seq`.
//!
//! Absent on purpose: clocks, randomness, I/O, logging, and who may do what: the edge has
//! decided that.

use bytes::Bytes;
use tl_types::{ResourceNumber, ResourcePath, RowKey, UnixMs};

use crate::effect::{Change, Effect};
use crate::entry::Command;
use crate::reply::{Reason, Reply};
use crate::rows::{Poison, Rows};
use crate::view::View;

pub use self::header::{Listing, SessionHeader, SessionRow, SessionState};
pub use self::read::{EventPage, EventQuery, ReadError, read_events};

mod append;
mod change;
mod create;
pub(crate) mod directory;
mod head;
mod header;
pub(crate) mod producer;
mod read;

/// Why a command is refused, and which of its events is at fault.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) event: Option<usize>,
    pub(crate) reason: Reason,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Fault { event: None, reason }
    }
}

/// Applies one session command of the entry `raw`; `Err` means that the whole entry is refused.
pub(crate) fn apply(
    view: &mut View<'_>,
    at: UnixMs,
    command: Command,
    raw: &Bytes,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    match command {
        Command::CreateSession(create) => create::create(view, at, create, effects),
        Command::Append(append) => append::append(view, at, append, raw, effects),
        Command::UpdateHeader(update) => change::update(view, at, update, effects),
        Command::SetListing(set) => change::set_listing(view, at, set, effects),
        Command::Close(close) => change::close(view, at, close.path, effects),
        Command::Tombstone(tombstone) => change::tombstone(view, at, tombstone.path, effects),
        Command::AckArchived(ack) => change::ack_archived(view, ack),
        Command::Trim(trim) => change::trim(view, trim),
        Command::Tick | Command::SetMembers(_) => {
            unreachable!("the group keeps its own work to itself")
        }
    }
}

/// Finds a session by name, whatever its state; `None` when there never was one.
///
/// # Errors
/// [`Poison`] when a row was cold or damaged.
pub fn find(rows: &dyn Rows, path: &ResourcePath) -> Result<Option<SessionRow>, Poison> {
    View::read(rows, |view| lookup(view, path))
}

/// Reads a session's header by number.
///
/// # Errors
/// [`Poison`] when the row was cold or damaged.
pub fn header(rows: &dyn Rows, number: ResourceNumber) -> Result<Option<SessionHeader>, Poison> {
    View::read(rows, |view| load_header(view, number))
}

fn lookup(view: &mut View<'_>, path: &ResourcePath) -> Option<SessionRow> {
    let number = directory::load(view, path)?.number;
    let Some(header) = load_header(view, number) else {
        view.damaged(format!("session {number} is in the directory but has no header"));
        return None;
    };
    Some(SessionRow { path: path.clone(), number, header })
}

/// A session that commands may change: it exists and is not deleted.
fn open(view: &mut View<'_>, path: ResourcePath) -> Result<SessionRow, Reason> {
    match lookup(view, &path) {
        None => Err(Reason::SessionNotFound),
        Some(row) if row.header.state == SessionState::Tombstoned => Err(Reason::SessionTombstoned),
        Some(row) => Ok(row),
    }
}

pub(crate) fn load_header(view: &mut View<'_>, number: ResourceNumber) -> Option<SessionHeader> {
    let row = view.get(&RowKey::session(number))?;
    match SessionHeader::decode(row) {
        Ok(header) => Some(header),
        Err(error) => {
            view.damaged(format!("header of session {number}: {error}"));
            None
        }
    }
}

fn save_header(view: &mut View<'_>, row: &SessionRow) {
    let header = &row.header;
    assert!(
        header.floor_seq <= header.archived_seq && header.archived_seq <= header.last_seq,
        "positions of a session stay in order"
    );
    view.put(RowKey::session(row.number), header.encode());
}

fn changed(change: Change, row: &SessionRow) -> Effect {
    Effect::SessionChanged { change, row: Box::new(row.clone()) }
}
