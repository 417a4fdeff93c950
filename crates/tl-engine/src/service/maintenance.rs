//! The node's own commands. They free space or follow from something that is already so, and
//! therefore pass no admission: limits never block what makes room.

use std::time::Instant;

use tl_core::{Command, entry};
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
        let entry = self.entry([command]);
        self.warm(group, &entry).await?;
        match self.ask(deadline, Ask::Propose(group, entry.encode()), None).await? {
            Answer::Applied { index, replies, .. } => only_reply(replies).map(|_| index),
            Answer::Failed(failure) => Err(failed(group, failure)),
            Answer::Read { .. } => Err(unexpected("a read answer for a write")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tl_types::limits::INFLIGHT_BYTES_MAX;
    use tl_types::{ErrorCode, Namespace, Principal, SessionId};

    use crate::api::{Caller, CreateSession, Freshness};
    use crate::shell::admission::Purpose;
    use crate::{Engine, EngineSettings};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_frees_space_passes_when_nothing_else_does() {
        let dir = tempfile::tempdir().expect("temp dir");
        let settings = EngineSettings {
            data_dir: dir.path().to_owned(),
            groups: 4,
            ..EngineSettings::default()
        };
        let engine = Engine::open(&settings).expect("the engine opens");
        engine.wait_ready().await.expect("ready");
        let service = engine.service();
        let caller = Caller {
            principal: Principal::open_access(),
            namespace: Namespace::default_namespace(),
            deadline: Instant::now() + Duration::from_secs(30),
            request_id: None,
        };
        let id = SessionId::new("s").expect("id");
        let create = || CreateSession { id: Some(id.clone()), ..CreateSession::default() };
        service.create_session(&caller, create()).await.expect("created");

        let admission = &service.inner.admission;
        let all = admission.admit(INFLIGHT_BYTES_MAX, Purpose::Takes).expect("room");
        let refused = service.close_session(&caller, &id).await.expect_err("no room");
        assert_eq!(refused.code, ErrorCode::EventStoreBackpressure);
        let path = caller.session(&id);
        service.ack_archived(&path, Seq(0), caller.deadline).await.expect("acked");
        service.trim(&path, Seq(0), caller.deadline).await.expect("trimmed");
        service.get_session(&caller, &id, Freshness::default()).await.expect("read");
        drop(all);
        service.close_session(&caller, &id).await.expect("closed");
        tokio::task::spawn_blocking(move || engine.shutdown()).await.expect("stopped");
    }
}
