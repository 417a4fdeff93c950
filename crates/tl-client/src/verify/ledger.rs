//! What was attempted, and what a reader saw.

use std::sync::Arc;

use tl_types::Seq;

use crate::content::{ContentHash, NewEvent};
use crate::error::ClientError;
use crate::event::Event;

/// One write, single or batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerWrite {
    /// The session written to.
    pub session: Arc<str>,
    /// The producer.
    pub producer_id: Arc<str>,
    /// Producer position of its first event; the others follow.
    pub producer_seq: u64,
    /// Content of its events.
    pub hashes: Vec<ContentHash>,
    /// Position of its first event, once acknowledged.
    pub first_seq: Option<Seq>,
}

/// Every write that may have taken effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    writes: Vec<LedgerWrite>,
}

impl Ledger {
    /// Notes a write before it is sent; answers its number in this ledger.
    pub fn attempt(
        &mut self,
        session: &Arc<str>,
        producer_id: &Arc<str>,
        producer_seq: u64,
        events: &[NewEvent],
    ) -> usize {
        self.writes.push(LedgerWrite {
            session: session.clone(),
            producer_id: producer_id.clone(),
            producer_seq,
            hashes: events.iter().map(ContentHash::of_sent).collect(),
            first_seq: None,
        });
        self.writes.len() - 1
    }

    /// Notes that write number `write` was acknowledged with its first event at `first_seq`.
    ///
    /// # Panics
    /// When the ledger gave out no such number.
    pub fn acked(&mut self, write: usize, first_seq: Seq) {
        self.writes[write].first_seq = Some(first_seq);
    }

    /// Puts the writes of another ledger behind those of this one.
    pub fn merge(&mut self, other: Ledger) {
        self.writes.extend(other.writes);
    }

    /// All writes, in the order in which they were noted.
    #[must_use]
    pub fn writes(&self) -> &[LedgerWrite] {
        &self.writes
    }

    /// Number of acknowledged events.
    #[must_use]
    pub fn acknowledged_events(&self) -> u64 {
        let acked = self.writes.iter().filter(|write| write.first_seq.is_some());
        acked.map(|write| write.hashes.len() as u64).sum()
    }
}

/// One event as a reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Position.
    pub seq: Seq,
    /// Producer.
    pub producer_id: Box<str>,
    /// Producer position.
    pub producer_seq: u64,
    /// Content.
    pub hash: ContentHash,
}

/// What one reader saw of one session, in the order in which it saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The session.
    pub session: Arc<str>,
    /// The cursor that the reader started from.
    pub from: Seq,
    /// What it saw.
    pub sightings: Vec<Sighting>,
}

impl Reading {
    /// An empty reading from the start of a session.
    #[must_use]
    pub fn new(session: Arc<str>) -> Reading {
        Reading { session, from: Seq(0), sightings: Vec::new() }
    }

    /// Notes the next event.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] when its members are not those of an event.
    pub fn saw(&mut self, event: &Event) -> Result<(), ClientError> {
        let hash = ContentHash::of_read(event).map_err(|e| ClientError::Unexpected {
            url: format!("session {}", self.session),
            what: format!("event {}: {e}", event.seq),
        })?;
        self.sightings.push(Sighting {
            seq: event.seq,
            producer_id: event.producer_id.clone(),
            producer_seq: event.producer_seq,
            hash,
        });
        Ok(())
    }
}
