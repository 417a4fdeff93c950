//! One group: the only place that knows all machines and applies an entry to them.
//!
//! ```text
//! entry ─ decode ─ clamp stamp ─ remembered? ──yes──> first replies, nothing written
//!                                    │no
//!                     each command on one overlay ──first refusal──> that refusal, nothing written
//!                                    │
//!              remember request ─ last stamp, digest ──> replies, effects, writes
//! ```
//!
//! `apply` is total: "no" is a reply. What cannot be decoded stops the group, because a replica
//! that guesses would differ from one that does not. A read that cannot be answered poisons the
//! outcome, which then holds nothing else.

use bytes::Bytes;
use tl_types::bytes_codec::DecodeError;
use tl_types::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX};
use tl_types::{Index, UnixMs};

use crate::effect::Effect;
use crate::entry::{Command, Entry, LEVEL_SPOKEN, peek_level};
use crate::reply::{Reason, Refusal, Reply};
use crate::rows::{Poison, Rows};
use crate::session::{self, Fault};
use crate::view::{View, WriteSet};

pub use self::digest::digest;
pub use self::members::members;
pub use self::requests::due_work;

mod digest;
mod members;
pub(crate) mod requests;

/// What applying one entry gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One reply per command, or a single refusal, or the first replies of the request that this
    /// entry repeats: those belong to the first one's commands, whatever this one says.
    pub replies: Vec<Reply>,
    /// Hints for the shell.
    pub effects: Vec<Effect>,
    /// Rows to write in one step, together with the applied index; empty when nothing changed.
    pub writes: WriteSet,
    /// The stamp this entry was applied with; zero for an empty entry.
    pub stamp: UnixMs,
    /// Set when a row could not be read: everything else here is empty then.
    pub poison: Option<Poison>,
}

/// The group must stop: an entry that this release cannot apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// It follows rules that came later.
    #[error(
        "entry {index} is of feature level {level} and this release speaks {spoken} at most: a newer \
         release is needed"
    )]
    Level {
        /// Which entry.
        index: Index,
        /// The level of the rules that apply it.
        level: u16,
        /// The highest one here.
        spoken: u16,
    },
    /// Its bytes say nothing here.
    #[error("entry {index} cannot be applied by this release")]
    Foreign {
        /// Which entry.
        index: Index,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

/// Applies one committed entry to the rows it is given. Deterministic: the same rows and entry
/// give the same outcome on every replica. An empty entry, which Raft itself makes at the start
/// of a term, is applied as nothing.
///
/// # Errors
/// [`Stop`] when the bytes are not an entry that this release can apply.
pub fn apply(rows: &dyn Rows, index: Index, entry: Bytes) -> Result<Outcome, Stop> {
    apply_up_to(LEVEL_SPOKEN, rows, index, entry)
}

/// The same on a node that speaks another highest feature level.
///
/// # Errors
/// [`Stop`] when the entry is of a higher level, or the bytes are none that can be applied.
pub fn apply_up_to(
    spoken: u16,
    rows: &dyn Rows,
    index: Index,
    entry: Bytes,
) -> Result<Outcome, Stop> {
    if entry.is_empty() {
        return Ok(Outcome::default());
    }
    let raw = entry;
    if let Some(level) = peek_level(&raw).filter(|level| *level > spoken) {
        return Err(Stop::Level { index, level, spoken });
    }
    let entry = Entry::decode_up_to(spoken, raw.clone())
        .map_err(|source| Stop::Foreign { index, source })?;
    let mut view = View::new(rows);
    let last = digest::load(&mut view);
    // A new leader's clock may lag the old one's; the group's time never goes back.
    let stamp = entry.stamp.max(last.stamp);
    let mut done = Outcome { stamp, ..Outcome::default() };
    match run(&mut view, &mut done.effects, stamp, entry, &raw) {
        Ok(replies) => done.replies = replies,
        Err(refusal) => return Ok(refused(&view, refusal, stamp)),
    }
    if view.has_writes() {
        digest::extend(&mut view, last, stamp);
    }
    match view.into_writes() {
        Ok(writes) => Ok(Outcome { writes, ..done }),
        Err(poison) => Ok(poisoned(poison, stamp)),
    }
}

fn run(
    view: &mut View<'_>,
    effects: &mut Vec<Effect>,
    stamp: UnixMs,
    entry: Entry,
    raw: &Bytes,
) -> Result<Vec<Reply>, Refusal> {
    check_size(&entry, raw.len())?;
    if let Some(replies) = requests::remembered(view, &entry) {
        return Ok(replies);
    }
    let request = entry.request.map(|id| requests::scoped(id, &entry.principal));
    let mut replies = Vec::with_capacity(entry.commands.len());
    for (place, command) in entry.commands.into_iter().enumerate() {
        let reply = match command {
            Command::Tick => requests::expire(view, stamp),
            Command::SetMembers(set) => members::set(view, &set).map_err(|reason| Refusal {
                command: place,
                event: None,
                reason,
            })?,
            command => session::apply(view, stamp, command, raw, effects)
                .map_err(|Fault { event, reason }| Refusal { command: place, event, reason })?,
        };
        replies.push(reply);
    }
    if let Some(id) = request {
        requests::remember(view, effects, stamp, id, &entry.principal, &replies)
            .map_err(|reason| Refusal { command: 0, event: None, reason })?;
    }
    Ok(replies)
}

fn check_size(entry: &Entry, entry_bytes: usize) -> Result<(), Refusal> {
    let checks = [
        ("entry_bytes_max", entry_bytes, ENTRY_BYTES_MAX),
        ("entry_commands_max", entry.commands.len(), ENTRY_COMMANDS_MAX),
    ];
    for (limit, got, max) in checks {
        if got > max {
            let reason = Reason::TooLarge { limit, max: max as u64, got: got as u64 };
            return Err(Refusal { command: 0, event: None, reason });
        }
    }
    Ok(())
}

fn refused(view: &View<'_>, refusal: Refusal, stamp: UnixMs) -> Outcome {
    match view.poison() {
        Some(poison) => poisoned(poison.clone(), stamp),
        None => Outcome { replies: vec![Reply::Refused(refusal)], stamp, ..Outcome::default() },
    }
}

fn poisoned(poison: Poison, stamp: UnixMs) -> Outcome {
    Outcome { poison: Some(poison), stamp, ..Outcome::default() }
}

/// The stamp of the group's last entry that wrote something; its clock goes on from there.
///
/// # Errors
/// [`Poison`] when the row was cold or damaged.
pub fn stamp_of(rows: &dyn Rows) -> Result<UnixMs, Poison> {
    View::read(rows, digest::load).map(|last| last.stamp)
}
