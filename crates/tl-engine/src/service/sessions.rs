//! Operations on a session's row: create, get, change, archive flag, close, delete.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tl_core::{Command, Listing, Metadata, Reply, SessionRow, SessionState, Text, entry, session};
use tl_store::OrderedStore;
use tl_types::{ErrorCode, Incarnation, Index, RequestId, ResourcePath, SessionId};

use super::read::Wanted;
use super::{Service, only_reply, principal_digest, unexpected};
use crate::api::{Caller, CreateSession, Freshness, Indexed, ServiceError, Session, UpdateSession};

impl<S: OrderedStore + 'static> Service<S> {
    /// Makes a session.
    ///
    /// # Errors
    /// `session_exists` when the id is in use or was; otherwise as any write.
    pub async fn create_session(
        &self,
        caller: &Caller,
        request: CreateSession,
    ) -> Result<Indexed<Session>, ServiceError> {
        let id = match (request.id, caller.request_id) {
            (Some(id), _) => id,
            // A repeat must come to the same group to be recognised, so it gets the same id.
            (None, Some(request)) => session_id_of(request, caller),
            (None, None) => fresh_session_id()?,
        };
        let mut incarnation = [0; 16];
        fill_random(&mut incarnation)?;
        let command = Command::CreateSession(entry::CreateSession {
            path: caller.session(&id),
            incarnation: Incarnation(incarnation),
            title: request.title.map(Text::from),
            metadata: Metadata::new(&request.metadata.0),
            creator: caller.principal.actor.to_string().into(),
        });
        self.change(caller, &id, command).await
    }

    /// Reads a session's row.
    ///
    /// # Errors
    /// `session_not_found` and `session_tombstoned`, both confirmed by a read-index round.
    pub async fn get_session(
        &self,
        caller: &Caller,
        id: &SessionId,
        fresh: Freshness,
    ) -> Result<Indexed<Session>, ServiceError> {
        let path = caller.session(id);
        let confirm = !fresh.stale;
        let (row, index) = self
            .row_of_any(
                caller.deadline,
                Wanted { path: &path, confirm, min_index: fresh.min_index },
            )
            .await?;
        Ok(Indexed { value: Session(Box::new(readable(row)?)), index })
    }

    /// Changes title or metadata.
    ///
    /// # Errors
    /// `session_not_found`, `session_tombstoned`, `expected_version_conflict`,
    /// `payload_too_large` when the merged metadata passes its limit.
    pub async fn update_session(
        &self,
        caller: &Caller,
        id: &SessionId,
        request: UpdateSession,
    ) -> Result<Indexed<Session>, ServiceError> {
        let command = Command::UpdateHeader(entry::UpdateHeader {
            path: caller.session(id),
            expected_version: request.expected_version,
            title: request.title.map(|title| title.map(Text::from)),
            metadata: request.metadata.map(|members| Metadata::new(&members.0)),
        });
        self.change(caller, id, command).await
    }

    /// Hides a session from default lists, or shows it again. Repeating it changes nothing.
    ///
    /// # Errors
    /// `session_not_found`, `session_tombstoned`.
    pub async fn set_archived(
        &self,
        caller: &Caller,
        id: &SessionId,
        archived: bool,
    ) -> Result<Indexed<Session>, ServiceError> {
        let listing = if archived { Listing::Archived } else { Listing::Active };
        let command = Command::SetListing(entry::SetListing { path: caller.session(id), listing });
        self.change(caller, id, command).await
    }

    /// Takes no more events from now on. Repeating it changes nothing.
    ///
    /// # Errors
    /// `session_not_found`, `session_tombstoned`.
    pub async fn close_session(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<Indexed<Session>, ServiceError> {
        let command = Command::Close(entry::Close { path: caller.session(id) });
        self.change(caller, id, command).await
    }

    /// Deletes a session; its name stays taken. Repeating it changes nothing.
    ///
    /// # Errors
    /// `session_not_found`.
    pub async fn delete_session(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<Indexed<()>, ServiceError> {
        let path = caller.session(id);
        let group = path.group(self.inner.groups);
        let command = Command::Tombstone(entry::Tombstone { path });
        let applied = self.propose(caller, group, [command]).await?;
        only_reply(applied.replies)?;
        Ok(Indexed { value: (), index: applied.index })
    }

    async fn change(
        &self,
        caller: &Caller,
        id: &SessionId,
        command: Command,
    ) -> Result<Indexed<Session>, ServiceError> {
        let group = caller.session(id).group(self.inner.groups);
        let applied = self.propose(caller, group, [command]).await?;
        match only_reply(applied.replies)? {
            Reply::Session(row) => Ok(Indexed { value: Session(row), index: applied.index }),
            Reply::Appended(_) | Reply::Done | Reply::Ticked { .. } | Reply::Refused(_) => {
                Err(unexpected("a change of a session was answered without its row"))
            }
        }
    }

    /// The session's row as applied here.
    pub(super) async fn find(
        &self,
        path: &ResourcePath,
    ) -> Result<Option<SessionRow>, ServiceError> {
        let group = path.group(self.inner.groups);
        let path = path.clone();
        self.read(group, move |rows| session::find(rows, &path)).await
    }

    /// A session that can be read, and how far its group was applied where it was: absence is
    /// confirmed by a read-index round, deletion refused.
    pub(super) async fn find_readable(
        &self,
        caller: &Caller,
        path: &ResourcePath,
        confirm: bool,
        min_index: Option<Index>,
    ) -> Result<(SessionRow, Index), ServiceError> {
        let (row, index) = self.row(caller.deadline, Wanted { path, confirm, min_index }).await?;
        Ok((readable(row)?, index))
    }
}

/// The row of a session that is there and not deleted. That there is none is confirmed.
fn readable(row: Option<SessionRow>) -> Result<SessionRow, ServiceError> {
    match row {
        None => Err(ServiceError::of(ErrorCode::SessionNotFound)),
        Some(row) if row.header.state == SessionState::Tombstoned => {
            Err(ServiceError::of(ErrorCode::SessionTombstoned))
        }
        Some(row) => Ok(row),
    }
}

impl Caller {
    /// The path of a session as this caller names it.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> ResourcePath {
        ResourcePath::session(self.principal.tenant.clone(), self.namespace.clone(), id.clone())
    }
}

/// `ses_` and 16 characters of base64url, here over 12 random bytes.
fn fresh_session_id() -> Result<SessionId, ServiceError> {
    let mut bytes = [0; 12];
    fill_random(&mut bytes)?;
    Ok(made_session_id(bytes))
}

/// The id of the session that this request makes, the same for every repeat of it.
fn session_id_of(request: RequestId, caller: &Caller) -> SessionId {
    let mut text = request.0.to_vec();
    text.extend_from_slice(&principal_digest(caller));
    text.extend_from_slice(caller.namespace.as_str().as_bytes());
    let hash = xxhash_rust::xxh3::xxh3_128(&text).to_be_bytes();
    made_session_id(*hash.first_chunk().expect("12 of 16 bytes"))
}

fn made_session_id(bytes: [u8; 12]) -> SessionId {
    let id = format!("ses_{}", URL_SAFE_NO_PAD.encode(bytes));
    SessionId::new(&id).expect("letters, digits, '-' and '_'")
}

fn fill_random(bytes: &mut [u8]) -> Result<(), ServiceError> {
    getrandom::fill(bytes).map_err(|_| unexpected("the operating system gave no random bytes"))
}
