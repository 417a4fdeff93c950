//! Appends: single and batch are one path.

use tl_core::{Command, ContentHash, NewEvent, Reply, Text, entry};
use tl_store::OrderedStore;
use tl_types::{ErrorCode, SessionId};
use tl_wire::{HASH_ALGORITHM, SealedEvent};

use super::{Service, only_reply, unexpected};
use crate::api::{Append, Appended, Caller, Indexed, ServiceError};

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
        let path = caller.session(id);
        let group = path.group(self.inner.groups);
        let events = request.events.into_iter().map(new_event).collect::<Result<_, _>>()?;
        let append = entry::Append { path, expected_seq: request.expected_seq, events };
        let mut applied = self.propose(caller, group, [Command::Append(append)]).await?;
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
        Ok(Indexed { value, index: applied.index })
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
