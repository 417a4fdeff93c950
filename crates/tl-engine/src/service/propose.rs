//! Writes: an entry is proposed to its group and its answer waited for.
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tl_core::{Command, Entry, Reply};
use tl_store::OrderedStore;
use tl_types::bytes_codec::DecodeError;
use tl_types::limits::ENTRY_BYTES_MAX;
use tl_types::{ErrorCode, GroupId, Index, RowKey};

use super::{FLUSH_WAIT_MAX, Service, damaged, failed, refused, unexpected};
use crate::api::{Caller, ServiceError};
use crate::hub::ReplyGuards;
use crate::shell::Ask;
use crate::shell::admission::Purpose;
use crate::shell::answers::Answer;

/// An applied entry.
pub(crate) struct Applied {
    pub(crate) index: Index,
    pub(crate) replies: Vec<Reply>,
    /// One per append in the entry.
    pub(crate) guards: ReplyGuards,
}

impl<S: OrderedStore + 'static> Service<S> {
    /// Proposes one entry and waits until it is applied here.
    pub(super) async fn propose(
        &self,
        caller: &Caller,
        group: GroupId,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<Applied, ServiceError> {
        let applied = self.propose_entry(caller, group, self.entry_of(caller, commands)).await?;
        self.wait_for_own(caller.deadline, group, &applied).await;
        Ok(applied)
    }

    pub(super) async fn propose_entry(
        &self,
        caller: &Caller,
        group: GroupId,
        entry: Entry,
    ) -> Result<Applied, ServiceError> {
        if let Some(links) = &self.inner.links {
            return self.propose_routed(links, caller.deadline, group, &entry).await;
        }
        let (bytes, purpose) = (encoded(&entry)?, Purpose::of(&entry));
        let permit = self.inner.admission.admit(bytes.len(), purpose)?;
        if purpose == Purpose::Takes {
            self.wait_for_flush(caller.deadline).await;
            self.check_disk()?;
        }
        self.warm(group, &entry).await?;
        let answer = self.ask(caller.deadline, Ask::Propose(group, bytes), Some(permit)).await?;
        applied(group, answer)
    }

    /// An entry of the feature level that the cluster has committed, as far as this node has heard.
    pub(super) fn entry(&self, commands: impl IntoIterator<Item = Command>) -> Entry {
        Entry::of_level(self.level(), commands)
    }

    /// The same with what the caller says of itself.
    pub(super) fn entry_of(
        &self,
        caller: &Caller,
        commands: impl IntoIterator<Item = Command>,
    ) -> Entry {
        let mut entry = self.entry(commands);
        entry.request = caller.request_id;
        if caller.request_id.is_some() {
            entry.principal = principal_digest(caller);
        }
        entry
    }

    /// Reads an entry, also another node's, of a level that this node speaks.
    pub(super) fn decoded(&self, bytes: Bytes) -> Result<Entry, DecodeError> {
        Entry::decode_up_to(self.inner.level_spoken, bytes)
    }

    pub(super) fn check_disk(&self) -> Result<(), ServiceError> {
        self.inner.admission.check_disk(self.inner.store.is_full())
    }

    /// Whether a write is held back until a flush has made room.
    pub(super) fn waits_for_flush(&self) -> bool {
        self.inner.store.is_full() && !self.inner.admission.is_disk_full()
    }

    /// While sealed memtables pile up, writes are slowed to the pace of the flushes before they
    /// are refused: most waits are shorter than a client's own pause would be.
    pub(super) async fn wait_for_flush(&self, deadline: Instant) {
        let until = deadline.min(Instant::now() + FLUSH_WAIT_MAX);
        while self.waits_for_flush() {
            let flushed = self.inner.background.next_flush();
            tokio::pin!(flushed);
            flushed.as_mut().enable();
            if !self.inner.store.is_full() {
                return;
            }
            if tokio::time::timeout_at(until.into(), flushed).await.is_err() {
                return;
            }
        }
    }

    /// Loads rows that the entry needs into memory, so that it is applied without a detour. A
    /// hint: what is cold all the same is applied beside the driver.
    pub(super) async fn warm(&self, group: GroupId, entry: &Entry) -> Result<(), ServiceError> {
        if self.cold_keys(group, entry).is_empty() {
            return Ok(());
        }
        let (store, entry) = (Arc::clone(&self.inner.store), entry.clone());
        // All rounds in one go: each way to another thread and back costs more than the reads.
        let warmed = self.beside(move || crate::node::rows::warm(&*store, group, &entry)).await?;
        warmed.map_err(|error| damaged(&error))
    }

    /// Rows that the entry needs, as far as they are known, and that are not in memory.
    pub(super) fn cold_keys(&self, group: GroupId, entry: &Entry) -> Vec<RowKey> {
        let generation = self.inner.store.applied(group).generation;
        crate::node::rows::cold_keys(&*self.inner.store, group, generation, entry)
    }
}

/// The entry's bytes, as far as one entry may go.
pub(super) fn encoded(entry: &Entry) -> Result<Vec<u8>, ServiceError> {
    let bytes = entry.encode();
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(ServiceError::new(
            ErrorCode::PayloadTooLarge,
            format!("This write takes {} bytes; the limit is {ENTRY_BYTES_MAX}", bytes.len()),
        )
        .with("limit", ENTRY_BYTES_MAX));
    }
    Ok(bytes)
}

/// What became of a proposal.
pub(super) fn applied(group: GroupId, answer: Answer) -> Result<Applied, ServiceError> {
    match answer {
        Answer::Applied { index, replies, guards } => Ok(Applied { index, replies, guards }),
        Answer::Read { .. } => Err(unexpected("a read answer for a write")),
        Answer::Failed(failure) => Err(failed(group, failure)),
    }
}

/// Distinguishes who may be given a remembered reply.
pub(super) fn principal_digest(caller: &Caller) -> [u8; 16] {
    let mut text = caller.principal.tenant.as_str().as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(caller.principal.actor.to_string().as_bytes());
    xxhash_rust::xxh3::xxh3_128(&text).to_be_bytes()
}

/// The one reply of an entry with one command.
pub(super) fn only_reply(replies: Vec<Reply>) -> Result<Reply, ServiceError> {
    match replies.into_iter().next() {
        Some(Reply::Refused(refusal)) => Err(refused(&refusal)),
        Some(reply) => Ok(reply),
        None => Err(unexpected("an entry without a reply")),
    }
}
