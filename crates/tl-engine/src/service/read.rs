//! Reads: an index to read at, rows in memory or from a thread beside, and the wait for both.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_core::{Poison, Rows};
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId, Index, ResourcePath};

use super::{PROBE_AGAIN, READ_WAIT_MAX, Service, damage, failed, unexpected};
use crate::api::ServiceError;
use crate::node::rows::{BlockingRows, CachedRows};
use crate::peer::Read;
use crate::shell::Ask;
use crate::shell::answers::Answer;

/// A session's row that is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The session.
    pub(super) path: &'a ResourcePath,
    /// Whether the row must be as new as every acknowledged write; that there is none always is.
    pub(super) confirm: bool,
    /// It must be as new as this entry.
    pub(super) min_index: Option<Index>,
}

impl Wanted<'_> {
    /// As it stands where it is read.
    pub(super) fn present(path: &ResourcePath) -> Wanted<'_> {
        Wanted { path, confirm: false, min_index: None }
    }

    /// As new as every acknowledged write.
    pub(super) fn confirmed(path: &ResourcePath) -> Wanted<'_> {
        Wanted { confirm: true, ..Wanted::present(path) }
    }

    /// The same as a question to another member.
    pub(super) fn read(self) -> Read {
        let Wanted { path, confirm, min_index } = self;
        Read::Row { path: path.clone(), confirm, min_index }
    }
}

impl<S: OrderedStore + 'static> Service<S> {
    /// The index up to which rows of a group are applied here, linearizable: a read from now on
    /// sees every write acknowledged before this call.
    pub(super) async fn read_index(
        &self,
        deadline: Instant,
        group: GroupId,
    ) -> Result<Index, ServiceError> {
        let patience = deadline.min(Instant::now() + READ_WAIT_MAX);
        loop {
            match self.read_index_once(deadline, group).await {
                // A change of leader is soon over.
                Err(error)
                    if error.code == ErrorCode::RaftUnavailable
                        && self.inner.links.is_some()
                        && Instant::now() < patience =>
                {
                    self.check_running()?;
                    tokio::time::sleep(PROBE_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// The same without patience while nobody leads.
    pub(super) async fn read_index_once(
        &self,
        deadline: Instant,
        group: GroupId,
    ) -> Result<Index, ServiceError> {
        let links = self.inner.links.as_ref();
        let reign = links.map(|links| links.reign(group));
        match self.ask(deadline, Ask::Read(group), None).await {
            Ok(Answer::Read { index }) => {
                if let (Some(links), Some(reign)) = (links, reign) {
                    links.confirmed(group, reign);
                }
                Ok(index)
            }
            Ok(Answer::Failed(failure)) => Err(failed(group, failure)),
            Ok(Answer::Applied { .. }) => Err(unexpected("a write answer for a read")),
            // A read has no outcome that could be unknown. A round fails after about a second, so whoever
            // waited for longer has an index that is not applied here.
            Err(error) if error.code == ErrorCode::RaftTimeout => Err(ServiceError::new(
                ErrorCode::RaftUnavailable,
                "What the read needs was not confirmed and applied here in time; repeat the request",
            )),
            Err(error) => Err(error),
        }
    }

    /// Work that may wait for a disk, off the runtime's workers. Waits its turn: each such thread
    /// has memory of its own, and a disk is not quicker for more than a few reads at a time.
    pub(super) async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        let places = Arc::clone(&self.inner.beside);
        let place = places.acquire_owned().await.expect("never closed");
        let done = tokio::task::spawn_blocking(move || {
            // Also of a caller that has stopped waiting.
            let _place = place;
            work()
        });
        done.await.map_err(|_| unexpected("background work ended early"))
    }

    /// Runs a read over rows in memory, or beside the runtime when some are on disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        group: GroupId,
        look: impl Fn(&dyn Rows) -> Result<T, Poison> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let generation = self.inner.store.applied(group).generation;
        let cached = look(&CachedRows::new(&*self.inner.store, group, generation));
        match cached {
            Ok(found) => Ok(found),
            Err(Poison::Damaged(what)) => Err(damage(&what)),
            Err(Poison::Cold) => {
                let store = Arc::clone(&self.inner.store);
                let look = move || look(&BlockingRows::new(&*store, group, generation));
                match self.beside(look).await? {
                    Ok(found) => Ok(found),
                    Err(Poison::Damaged(what)) => Err(damage(&what)),
                    Err(Poison::Cold) => Err(ServiceError::new(
                        ErrorCode::RaftUnavailable,
                        "The read was overtaken by background work; repeat the request",
                    )),
                }
            }
        }
    }

    /// Waits until an index is applied here.
    pub(super) async fn wait_applied(
        &self,
        deadline: Instant,
        group: GroupId,
        index: Index,
    ) -> Result<(), ServiceError> {
        /// Between two looks; the index normally comes from this very node and is there.
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        while self.inner.store.applied(group).index < index {
            if Instant::now() >= deadline {
                return Err(ServiceError::new(
                    ErrorCode::RaftUnavailable,
                    format!("This node has not applied index {index} of group {group} yet"),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
