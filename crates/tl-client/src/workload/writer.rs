//! One writer of a workload: one write in flight, to one of the sessions chosen by the seed.

use std::sync::Arc;

use tl_types::Seq;
use tokio::sync::watch;

use super::WorkloadOptions;
use crate::client::Client;
use crate::content::NewEvent;
use crate::error::ClientError;
use crate::producer::{BatchEncoding, Producer};
use crate::retry::RetryPolicy;
use crate::verify::Ledger;

/// A writer with a producer in every session.
#[derive(Debug)]
pub struct Writer {
    number: usize,
    producer_id: Arc<str>,
    sessions: Vec<Arc<str>>,
    producers: Vec<Producer>,
    options: WorkloadOptions,
    random: fastrand::Rng,
    ledger: Ledger,
    /// The write without an answer: its session and its number in the ledger.
    open: Option<(usize, usize)>,
    acked: watch::Sender<u64>,
}

impl Writer {
    pub(super) fn new(
        client: &Client,
        number: usize,
        sessions: &[Arc<str>],
        options: &WorkloadOptions,
        acked: watch::Sender<u64>,
    ) -> Writer {
        let producer_id: Arc<str> = format!("writer-{:x}-{number}", options.seed).into();
        let policy = RetryPolicy::until_dropped(options.backoff);
        let producers = sessions
            .iter()
            .map(|session| Producer::new(client.clone(), session, &producer_id).with_policy(policy))
            .collect();
        // Spread, so that neighbouring writers do not choose alike.
        let seed = options.seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Writer {
            number,
            producer_id,
            sessions: sessions.to_vec(),
            producers,
            options: options.clone(),
            random: fastrand::Rng::with_seed(seed),
            ledger: Ledger::default(),
            open: None,
            acked,
        }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Writes until told to stop. An attempt under way is dropped then; its write stays open.
    pub(super) async fn run(
        &mut self,
        mut stop: watch::Receiver<bool>,
        mut failed: watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let stopped = async {
            // A sender that is gone means the same as a stop.
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                _ = failed.wait_for(|failed| *failed) => {}
            }
        };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                more = self.write() => {
                    if !more? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One write, the open one first. False when there is nothing left to do.
    async fn write(&mut self) -> Result<bool, ClientError> {
        if let Some((session, write)) = self.open {
            let settled = self.producers[session].settle().await;
            return self.note(session, write, settled.map(|settled| settled.first_seq));
        }
        if self.ledger.writes().len() >= self.options.writes_max {
            return Ok(false);
        }
        let session = self.random.usize(..self.sessions.len());
        let batch = self.random.f64() < self.options.batch_ratio;
        let count =
            if batch { self.random.usize(1..=self.options.batch_events_max.max(1)) } else { 1 };
        let first = self.producers[session].next_seq();
        let events = self.make_events(session, first, count)?;
        let write = self.ledger.attempt(&self.sessions[session], &self.producer_id, first, &events);
        self.open = Some((session, write));
        let producer = &mut self.producers[session];
        let first_seq = if batch {
            let encoding =
                if self.random.bool() { BatchEncoding::Ndjson } else { BatchEncoding::Json };
            producer.append_batch(&events, None, encoding).await.map(|batch| batch.first_seq)
        } else {
            producer.append(&events[0], None).await.map(|one| one.seq)
        };
        self.note(session, write, first_seq)
    }

    fn note(
        &mut self,
        session: usize,
        write: usize,
        outcome: Result<Seq, ClientError>,
    ) -> Result<bool, ClientError> {
        if !self.producers[session].is_unsettled() {
            self.open = None;
        }
        match outcome {
            Ok(first_seq) => {
                self.ledger.acked(write, first_seq);
                let events = self.ledger.writes()[write].hashes.len() as u64;
                self.acked.send_modify(|acked| *acked += events);
                Ok(true)
            }
            Err(failure) => Err(failure),
        }
    }

    fn make_events(
        &mut self,
        session: usize,
        first: u64,
        count: usize,
    ) -> Result<Vec<NewEvent>, ClientError> {
        let filling: String =
            (0..self.options.payload_bytes).map(|_| self.random.alphanumeric()).collect();
        (first..)
            .take(count)
            .map(|at| {
                let payload = serde_json::json!({
                    "writer": self.number,
                    "session": session,
                    "position": at,
                    "filling": filling,
                });
                NewEvent::new("load", &payload)
            })
            .collect()
    }
}
