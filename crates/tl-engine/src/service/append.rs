//! Appends: single and batch are one path.
//!
//! A front on the runtime calls [`Service::append`]. A front on the driver's thread may not wait:
//! it calls [`Service::prepare_append`], proposes what comes back, and reads the answer with
//! [`Service::conclude_append`]; what would have to wait comes back as [`Later`].

use std::time::Instant;

use tl_core::{Command, ContentHash, Entry, NewEvent, Reply, Text, entry};
use tl_raft::PeerId;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId, Index, SessionId};
use tl_wire::{HASH_ALGORITHM, SealedEvent};

use super::forward::Route;
use super::recent::Mark;
use super::{Applied, Service, applied, encoded, only_reply, unexpected};
use crate::api::{Append, Appended, Caller, Indexed, ServiceError};
use crate::front::Front;
use crate::shell::Mail;
use crate::shell::admission::{Permit, Purpose};
use crate::shell::answers::Answer;

/// An entry that may be proposed as it is.
#[derive(Debug)]
pub struct Proposal {
    pub(crate) group: GroupId,
    pub(crate) entry: Vec<u8>,
    pub(crate) permit: Permit,
    /// Who leads the group, if this node does not.
    pub(crate) to: Option<PeerId>,
    pub(crate) deadline: Instant,
}

/// An append that has to wait first: for rows from disk, or for a flush.
#[derive(Debug)]
pub struct Later {
    caller: Caller,
    group: GroupId,
    entry: Entry,
    /// Nothing but rows is missing, and they have not been looked for yet.
    wants_rows: bool,
    /// Its part of what all writes under way may take, while it waits for rows.
    permit: Option<Permit>,
}

impl Later {
    /// Whether [`Service::load_rows`] and then [`Service::prepare_again`] is the short way.
    #[must_use]
    pub fn wants_rows(&self) -> bool {
        self.wants_rows
    }
}

/// What can be done with an append at once.
#[derive(Debug)]
pub enum Prepared {
    /// Propose it.
    Now(Proposal),
    /// Hand it to [`Service::finish_append`], or load its rows and prepare it again.
    Later(Box<Later>),
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Appends events, all or nothing, and waits until they are durable and applied.
    ///
    /// # Errors
    /// A refusal of the session rules (`session_not_found`, `session_tombstoned`,
    /// `session_closed`, `expected_seq_conflict`, `producer_seq_conflict`,
    /// `producer_replay_conflict`), `event_store_backpressure` before anything was proposed, or
    /// `raft_timeout` when the outcome is not known: repeat it with the same producer position.
    pub async fn append(
        &self,
        caller: &Caller,
        id: &SessionId,
        request: Append,
    ) -> Result<Indexed<Appended>, ServiceError> {
        let (group, entry) = self.append_entry(caller, id, request)?;
        self.appended(self.propose_entry(caller, group, entry).await?)
    }

    /// The part of an append that needs no waiting. Does not block.
    ///
    /// # Errors
    /// Those of [`Service::append`] that can be told before anything is proposed.
    pub fn prepare_append(
        &self,
        caller: &Caller,
        id: &SessionId,
        request: Append,
    ) -> Result<Prepared, ServiceError> {
        let (group, entry) = self.append_entry(caller, id, request)?;
        self.check_running()?;
        let here = match self.route(group) {
            Route::Local => true,
            Route::Remote(leader) => {
                let bytes = encoded(&entry)?;
                let (permit, deadline) = (self.permit(&bytes)?, caller.deadline);
                let to = Some(leader);
                return Ok(Prepared::Now(Proposal { group, entry: bytes, permit, to, deadline }));
            }
            Route::Nobody => false,
        };
        if !here || self.waits_for_flush() || !self.has_rows_in_memory(group, &entry) {
            let wants_rows = here && !self.waits_for_flush();
            let permit = if wants_rows { Some(self.permit(&encoded(&entry)?)?) } else { None };
            let caller = caller.clone();
            let later = Later { caller, group, entry, wants_rows, permit };
            return Ok(Prepared::Later(Box::new(later)));
        }
        self.proposal(caller.deadline, group, &entry, None)
    }

    /// Loads the rows that an append waits for, unless its caller has stopped waiting. Blocking.
    ///
    /// # Errors
    /// `internal_error` when they cannot be read, `raft_timeout` past the deadline.
    pub fn load_rows(&self, later: &Later) -> Result<(), ServiceError> {
        if Instant::now() >= later.caller.deadline {
            return Err(ServiceError::of(ErrorCode::RaftTimeout));
        }
        crate::node::rows::warm(&*self.inner.store, later.group, &later.entry)
            .map_err(|error| super::damaged(&error))
    }

    /// Looks again at an append whose rows were loaded. Does not block.
    ///
    /// # Errors
    /// Those of [`Service::prepare_append`].
    pub fn prepare_again(&self, mut later: Box<Later>) -> Result<Prepared, ServiceError> {
        let Later { group, entry, .. } = &*later;
        self.check_running()?;
        if self.is_elsewhere(*group)
            || self.waits_for_flush()
            || !self.has_rows_in_memory(*group, entry)
        {
            // Memory is short of room for rows: the long way waits as often as it takes.
            later.wants_rows = false;
            return Ok(Prepared::Later(later));
        }
        let Later { caller, group, entry, permit, .. } = *later;
        self.proposal(caller.deadline, group, &entry, permit)
    }

    fn permit(&self, bytes: &[u8]) -> Result<Permit, ServiceError> {
        self.inner.admission.admit(bytes.len(), Purpose::Takes)
    }

    fn proposal(
        &self,
        deadline: Instant,
        group: GroupId,
        entry: &Entry,
        permit: Option<Permit>,
    ) -> Result<Prepared, ServiceError> {
        let bytes = encoded(entry)?;
        let permit = permit.map_or_else(|| self.permit(&bytes), Ok)?;
        self.check_disk()?;
        Ok(Prepared::Now(Proposal { group, entry: bytes, permit, to: None, deadline }))
    }

    /// Goes on with an append that had to wait.
    ///
    /// # Errors
    /// Those of [`Service::append`].
    pub async fn finish_append(&self, later: Later) -> Result<Indexed<Appended>, ServiceError> {
        let Later { caller, group, entry, permit, .. } = later;
        // It is asked for anew, behind what this waits for.
        drop(permit);
        self.appended(self.propose_entry(&caller, group, entry).await?)
    }

    /// Reads the answer to a proposal of an append.
    ///
    /// # Errors
    /// Those of [`Service::append`].
    pub fn conclude_append(
        &self,
        group: GroupId,
        answer: Answer,
    ) -> Result<Indexed<Appended>, ServiceError> {
        self.appended(applied(group, answer)?)
    }

    /// Lets a front live on the driver's thread. A node has one such front at most.
    pub fn attach(&self, front: Box<dyn Front>) {
        self.inner.mailer.send(Mail::Front(front));
    }

    /// Whether an append needs no row from disk, as far as can be told.
    pub(super) fn has_rows_in_memory(&self, group: GroupId, entry: &Entry) -> bool {
        let mark = match &entry.commands[..] {
            [Command::Append(append)] => Mark::of(append, self.inner.mailer.memtables()),
            _ => None,
        };
        if mark.is_some_and(|mark| self.inner.recent.has(mark)) {
            return true;
        }
        let is_in_memory = self.cold_keys(group, entry).is_empty();
        if let (true, Some(mark)) = (is_in_memory, mark) {
            self.inner.recent.remember(mark);
        }
        is_in_memory
    }

    fn append_entry(
        &self,
        caller: &Caller,
        id: &SessionId,
        request: Append,
    ) -> Result<(GroupId, Entry), ServiceError> {
        let path = caller.session(id);
        let group = path.group(self.inner.groups);
        let events = request.events.into_iter().map(new_event).collect::<Result<_, _>>()?;
        let append = entry::Append { path, expected_seq: request.expected_seq, events };
        Ok((group, self.entry_of(caller, [Command::Append(append)])))
    }

    pub(super) fn appended(&self, mut applied: Applied) -> Result<Indexed<Appended>, ServiceError> {
        let reply = only_reply(applied.replies).inspect_err(|_| {
            self.inner.metrics.writes_refused.inc();
        })?;
        let Reply::Appended(appended) = reply else {
            return Err(unexpected("an append was answered with something else"));
        };
        if appended.deduped {
            self.inner.metrics.writes_deduped.inc();
        }
        let value = Appended {
            first_seq: appended.first_seq,
            last_seq: appended.last_seq,
            head_seq: appended.head_seq,
            archived_seq: appended.archived_seq,
            deduped: appended.deduped,
            reply_written: applied.guards.pop(),
        };
        let index: Index = applied.index;
        Ok(Indexed { value, index })
    }
}

impl Proposal {
    /// The group that it is for; [`Service::conclude_append`] asks for it.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }
}

fn new_event(event: SealedEvent) -> Result<NewEvent, ServiceError> {
    let producer_id = Text::new(event.envelope.producer_id.clone()).ok_or_else(|| {
        ServiceError::new(ErrorCode::InvalidEvent, "producer_id must be UTF-8 text")
    })?;
    Ok(NewEvent {
        producer_id,
        producer_seq: event.envelope.producer_seq,
        hash: ContentHash { algorithm: HASH_ALGORITHM, value: event.hash },
        envelope: event.envelope.encode().into(),
    })
}
