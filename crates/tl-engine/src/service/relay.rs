//! Writes between nodes that have nothing to wait for: they skip the runtime, see
//! [`crate::shell::relay`].

use bytes::Bytes;
use tl_store::OrderedStore;
use tl_types::{ErrorCode, GroupId};

use super::forward::Route;
use super::{Service, unexpected};
use crate::api::{Appended, Indexed, ServiceError};
use crate::shell::admission::{Permit, Purpose};
use crate::shell::relay::Again;

impl<S: OrderedStore + 'static> Service<S> {
    /// Room for another node's write that may be proposed at once; `None` when something has to be
    /// waited for first, or it does not belong here. Does not block.
    ///
    /// # Errors
    /// What [`Service::append`] refuses before it proposes.
    pub(crate) fn admit_for_peer(
        &self,
        group: GroupId,
        bytes: &Bytes,
    ) -> Result<Option<Permit>, ServiceError> {
        if !self.is_running() || self.route(group) != Route::Local {
            return Ok(None);
        }
        // What is no entry is told so on the other way.
        let Ok(entry) = self.decoded(bytes.clone()) else { return Ok(None) };
        let purpose = Purpose::of(&entry);
        let takes = purpose == Purpose::Takes;
        if (takes && self.waits_for_flush()) || !self.has_rows_in_memory(group, &entry) {
            return Ok(None);
        }
        let permit = self.inner.admission.admit(bytes.len(), purpose)?;
        if takes {
            self.check_disk()?;
        }
        Ok(Some(permit))
    }

    /// Tries an append again that had no effect, until its deadline.
    ///
    /// # Errors
    /// Those of [`Service::append`].
    pub async fn append_again(&self, again: Again) -> Result<Indexed<Appended>, ServiceError> {
        let Again { group, deadline, entry } = again;
        let entry = self
            .decoded(entry)
            .map_err(|_| unexpected("an entry of this node cannot be read by it"))?;
        let Some(links) = &self.inner.links else {
            return Err(ServiceError::of(ErrorCode::RaftUnavailable));
        };
        self.appended(self.propose_routed(links, deadline, group, &entry).await?)
    }
}
