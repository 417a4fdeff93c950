//! The node's own commands. They free space or follow from something that is already so, and
//! therefore pass no admission: limits never block what makes room.

use std::time::Instant;

use tl_core::{Command, Entry, entry};
use tl_store::OrderedStore;
use tl_types::{Index, ResourcePath, Seq};

use super::{Service, failed, only_reply, unexpected};
use crate::api::ServiceError;
use crate::shell::Ask;
use crate::shell::answers::Answer;

impl<S: OrderedStore + 'static> Service<S> {
    /// Tells a session that its events up to `upto` are durable in the archive tier. Past the
    /// end is clamped, and it never moves back.
    ///
    /// # Errors
    /// `session_not_found`, `raft_unavailable`, `raft_timeout`.
    pub async fn ack_archived(
        &self,
        path: &ResourcePath,
        upto: Seq,
        deadline: Instant,
    ) -> Result<Index, ServiceError> {
        let command = entry::AckArchived { path: path.clone(), upto };
        self.maintain(path, Command::AckArchived(command), deadline).await
    }

    /// Forgets events up to `upto` on this tier, never past what is archived.
    ///
    /// # Errors
    /// As [`Service::ack_archived`].
    pub async fn trim(
        &self,
        path: &ResourcePath,
        upto: Seq,
        deadline: Instant,
    ) -> Result<Index, ServiceError> {
        let command = entry::Trim { path: path.clone(), upto };
        self.maintain(path, Command::Trim(command), deadline).await
    }

    async fn maintain(
        &self,
        path: &ResourcePath,
        command: Command,
        deadline: Instant,
    ) -> Result<Index, ServiceError> {
        let group = path.group(self.inner.groups);
        let entry = Entry::new([command]);
        self.warm(group, &entry).await?;
        match self.ask(deadline, Ask::Propose(group, entry.encode()), None).await? {
            Answer::Applied { index, replies, .. } => only_reply(replies).map(|_| index),
            Answer::Failed(failure) => Err(failed(group, failure)),
            Answer::Read { .. } => Err(unexpected("a read answer for a write")),
        }
    }
}
