//! Reads and conditions are linearizable: what an operation is told is no older than anything
//! that any client had been told before it began.
//!
//! Sessions only grow: positions, header versions and states move one way. So it is enough to
//! remember the furthest that was ever told, and to compare it with what an operation that began
//! later sees.

use tl_core::{Reason, SessionHeader, SessionState};
use tl_types::Seq;

use super::{Checked, SessionNo, Violation, archived, presence};

/// The furthest that clients were told of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// It was made.
    pub exists: bool,
    /// Its last position.
    pub last_seq: Seq,
    /// Its header version.
    pub version: u64,
    /// How far it is archived.
    pub archived_seq: Seq,
    /// It takes no more events.
    pub closed: bool,
    /// It was deleted.
    pub tombstoned: bool,
}

/// What clients asked for, which bounds what they may be told.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    create: bool,
    close: bool,
    tombstone: bool,
}

/// What was told and asked, by session.
#[derive(Debug, Default)]
pub struct Linearizable {
    known: Vec<Known>,
    asked: Vec<Asked>,
}

const PROMISE: &str = "reads and conditions are linearizable";

fn broken(session: SessionNo, what: String) -> Checked {
    Err(Violation::new(PROMISE, format!("session {session}: {what}")))
}

impl Linearizable {
    /// A run with so many sessions.
    #[must_use]
    pub fn new(sessions: usize) -> Linearizable {
        Linearizable {
            known: vec![Known::default(); sessions],
            asked: vec![Asked::default(); sessions],
        }
    }

    /// What an operation that begins now must not be behind.
    #[must_use]
    pub fn known(&self, session: SessionNo) -> Known {
        self.known[session]
    }

    /// A client is going to ask for the session to be made.
    pub fn asks_create(&mut self, session: SessionNo) {
        self.asked[session].create = true;
    }

    /// A client is going to ask for a close.
    pub fn asks_close(&mut self, session: SessionNo) {
        self.asked[session].close = true;
    }

    /// A client is going to ask for a delete.
    pub fn asks_tombstone(&mut self, session: SessionNo) {
        self.asked[session].tombstone = true;
    }

    /// A client was told that the session was deleted, without seeing its row.
    pub fn told_tombstoned(&mut self, session: SessionNo) {
        self.known[session].exists = true;
        self.known[session].tombstoned = true;
    }

    /// A client was shown an event, by a read that may be old itself: what is shown once is
    /// committed, so later reads must not be behind it.
    pub fn shown(&mut self, session: SessionNo, last: Seq) {
        let known = &mut self.known[session];
        known.exists = true;
        known.last_seq = known.last_seq.max(last);
    }

    /// A client was given the session's row (or found none) by a read or a write that began when
    /// `before` was known.
    ///
    /// # Errors
    /// The row is older than that, or has what nobody asked for.
    pub fn row(
        &mut self,
        session: SessionNo,
        before: &Known,
        header: Option<&SessionHeader>,
    ) -> Checked {
        let Some(header) = header else {
            return presence::absent(session, before);
        };
        archived::told(session, before.archived_seq, header.archived_seq, header.last_seq)?;
        let asked = self.asked[session];
        let (closed, tombstoned) =
            (header.state >= SessionState::Closed, header.state == SessionState::Tombstoned);
        let old = header.last_seq < before.last_seq
            || header.version < before.version
            || (before.closed && !closed)
            || (before.tombstoned && !tombstoned);
        if old {
            return broken(session, format!("{header:?} was given when {before:?} was known"));
        }
        if !asked.create
            || (tombstoned && !asked.tombstone)
            || (closed && !(asked.close || asked.tombstone))
        {
            return broken(session, format!("{header:?} has what nobody asked for"));
        }
        let known = &mut self.known[session];
        known.exists = true;
        known.last_seq = known.last_seq.max(header.last_seq);
        known.version = known.version.max(header.version);
        known.archived_seq = known.archived_seq.max(header.archived_seq);
        known.closed |= closed;
        known.tombstoned |= tombstoned;
        Ok(())
    }

    /// A client was told where its append landed.
    ///
    /// # Errors
    /// It landed before what was known, or on a session that took no more.
    pub fn appended(
        &mut self,
        session: SessionNo,
        before: &Known,
        appended: &tl_core::reply::Appended,
        expected: Option<Seq>,
    ) -> Checked {
        let new = !appended.deduped;
        let (archived, head) = (appended.archived_seq, appended.head_seq);
        archived::told(session, before.archived_seq, archived, head)?;
        if appended.head_seq < before.last_seq {
            return broken(session, format!("{appended:?} was told when {before:?} was known"));
        }
        // A duplicate of a write whose first outcome was not known may be older than `before`.
        if new && appended.first_seq <= before.last_seq {
            return broken(session, format!("{appended:?} was new when {before:?} was known"));
        }
        if before.tombstoned || (before.closed && new) {
            return broken(session, format!("{appended:?} was told although {before:?}"));
        }
        if new && expected.is_some_and(|expected| expected.next() != appended.first_seq) {
            return broken(session, format!("{appended:?} was told, expecting {expected:?}"));
        }
        let known = &mut self.known[session];
        known.exists = true;
        known.last_seq = known.last_seq.max(appended.head_seq);
        known.archived_seq = known.archived_seq.max(appended.archived_seq);
        Ok(())
    }

    /// A client was refused.
    ///
    /// # Errors
    /// The reason was not true at any time since the operation began.
    pub fn refused(&mut self, session: SessionNo, before: &Known, reason: &Reason) -> Checked {
        if matches!(reason, Reason::SessionNotFound) {
            return presence::absent(session, before);
        }
        let asked = self.asked[session];
        let lie = match reason {
            Reason::SessionExists => !asked.create,
            Reason::SessionTombstoned => !asked.tombstone,
            Reason::SessionClosed => !asked.close || before.tombstoned,
            Reason::ExpectedSeq { expected, current } => {
                *current < before.last_seq || current == expected
            }
            Reason::ExpectedVersion { expected, current } => {
                *current < before.version || current == expected
            }
            Reason::ProducerSeq { .. }
            | Reason::ProducerReplay { .. }
            | Reason::TooLarge { .. }
            | Reason::NoEvents
            | Reason::TitleTooLong
            | Reason::SessionNotFound => false,
        };
        if lie {
            return broken(session, format!("{reason:?} was told when {before:?} was known"));
        }
        let known = &mut self.known[session];
        match reason {
            Reason::SessionExists => known.exists = true,
            Reason::SessionTombstoned => self.told_tombstoned(session),
            Reason::SessionClosed => {
                known.exists = true;
                known.closed = true;
            }
            Reason::ExpectedSeq { current, .. } => {
                known.exists = true;
                known.last_seq = known.last_seq.max(*current);
            }
            Reason::ExpectedVersion { current, .. } => {
                known.exists = true;
                known.version = known.version.max(*current);
            }
            Reason::SessionNotFound
            | Reason::ProducerSeq { .. }
            | Reason::ProducerReplay { .. }
            | Reason::TooLarge { .. }
            | Reason::NoEvents
            | Reason::TitleTooLong => {}
        }
        Ok(())
    }
}
