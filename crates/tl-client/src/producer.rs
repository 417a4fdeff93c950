//! A writer that numbers its own appends, one in flight.
//!
//! A write is built once and kept until its outcome is known: every attempt sends the identical
//! bytes, so the server recognises a repeat and answers with the first positions. Dropping the
//! future of an append, or running out of retries, leaves the write *unsettled*; the producer
//! then takes no other write until [`Producer::settle`] has sent it again.

use bytes::Bytes;
use serde::Deserialize;
use tl_types::Seq;
use tl_types::limits::BATCH_EVENTS_MAX;

use crate::client::{Client, session_path};
use crate::content::NewEvent;
use crate::error::ClientError;
use crate::retry::RetryPolicy;

/// What an append was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the event.
    pub seq: Seq,
    /// The session's last event at that moment.
    pub last_seq: Seq,
    /// Whether the server had this write already.
    pub deduped: bool,
}

/// What a batch was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchAppended {
    /// Position of its first event.
    pub first_seq: Seq,
    /// Position of its last event.
    pub last_seq: Seq,
    /// Whether the server had this write already.
    pub deduped: bool,
}

/// How a batch is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchEncoding {
    /// One event per line, `application/x-ndjson`.
    Ndjson,
    /// `{"events":[…]}`.
    Json,
}

/// A producer of one session.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    session: String,
    id: String,
    next: u64,
    policy: RetryPolicy,
    unsettled: Option<Write>,
}

/// A write whose bytes are fixed.
#[derive(Debug, Clone)]
struct Write {
    path: String,
    body: Bytes,
    content_type: &'static str,
    events: u64,
    batch: bool,
}

#[derive(Deserialize)]
struct SingleReply {
    seq: u64,
    last_seq: u64,
    deduped: bool,
}

#[derive(Deserialize)]
struct BatchReply {
    first_seq: u64,
    last_seq: u64,
    deduped: bool,
}

impl Producer {
    /// A new producer: its first write gets position 1.
    #[must_use]
    pub fn new(client: Client, session: &str, producer_id: &str) -> Producer {
        Producer::at(client, session, producer_id, 1)
    }

    /// A producer that goes on at a position.
    #[must_use]
    pub fn at(client: Client, session: &str, producer_id: &str, next_seq: u64) -> Producer {
        Producer {
            client,
            session: session.to_owned(),
            id: producer_id.to_owned(),
            next: next_seq,
            policy: RetryPolicy::default(),
            unsettled: None,
        }
    }

    /// The same producer with its own bound on retries.
    #[must_use]
    pub fn with_policy(mut self, policy: RetryPolicy) -> Producer {
        self.policy = policy;
        self
    }

    /// The session written to.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The producer id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The position of the next write; an unsettled write already stands there.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Whether a write of unknown outcome is kept.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.is_some()
    }

    /// Appends one event.
    ///
    /// # Errors
    /// [`ClientError::Refused`] leaves the position unused when nothing was changed;
    /// [`ClientError::GaveUp`] keeps the write for [`Producer::settle`].
    pub async fn append(
        &mut self,
        event: &NewEvent,
        expected_seq: Option<Seq>,
    ) -> Result<Appended, ClientError> {
        self.must_be_settled()?;
        let mut body = Vec::with_capacity(256 + event.payload.get().len());
        event.write_body(&self.id, self.next, expected_seq.map(|seq| seq.0), &mut body);
        self.unsettled = Some(Write {
            path: session_path(&self.session, "/append")?,
            body: body.into(),
            content_type: "application/json",
            events: 1,
            batch: false,
        });
        let answer = self.settle().await?;
        Ok(Appended { seq: answer.first_seq, last_seq: answer.head_seq, deduped: answer.deduped })
    }

    /// Appends up to 1,000 events, all or none.
    ///
    /// # Errors
    /// As [`Producer::append`]; [`ClientError::BadArgument`] for none or too many events.
    pub async fn append_batch(
        &mut self,
        events: &[NewEvent],
        expected_seq: Option<Seq>,
        encoding: BatchEncoding,
    ) -> Result<BatchAppended, ClientError> {
        self.must_be_settled()?;
        if events.is_empty() || events.len() > BATCH_EVENTS_MAX {
            let got = events.len();
            let what = format!("a batch holds 1 to {BATCH_EVENTS_MAX} events, not {got}");
            return Err(ClientError::BadArgument(what));
        }
        let positioned = events.iter().zip(self.next..).map(|(event, at)| (event, &*self.id, at));
        let (path, body, content_type) =
            batch_request(&self.session, positioned, expected_seq, encoding)?;
        self.unsettled =
            Some(Write { path, body, content_type, events: events.len() as u64, batch: true });
        let answer = self.settle().await?;
        Ok(BatchAppended {
            first_seq: answer.first_seq,
            last_seq: Seq(answer.first_seq.0 + events.len() as u64 - 1),
            deduped: answer.deduped,
        })
    }

    /// Sends the kept write until its outcome is known.
    ///
    /// # Errors
    /// [`ClientError::BadArgument`] when no write is kept; else as [`Producer::append`].
    pub async fn settle(&mut self) -> Result<Settled, ClientError> {
        let Some(write) = self.unsettled.clone() else {
            return Err(ClientError::BadArgument("no write is waiting to be settled".into()));
        };
        let mut attempts = self.policy.start();
        loop {
            match self.attempt(&write).await {
                Ok(settled) => {
                    self.unsettled = None;
                    self.next += write.events;
                    return Ok(settled);
                }
                Err(failure) => {
                    // A final "no" is not worth repeating. It also settles an earlier attempt of
                    // unknown outcome as far as that can be known: had it taken effect, a repeat
                    // within the producer window would have been answered as deduped.
                    if !failure.is_retryable() && failure.changed_nothing() {
                        self.unsettled = None;
                    }
                    attempts.again(failure).await?;
                }
            }
        }
    }

    async fn attempt(&self, write: &Write) -> Result<Settled, ClientError> {
        let (body, content_type) = (write.body.clone(), write.content_type);
        let reply = self.client.append_body(&write.path, body, content_type, &self.policy).await?;
        let settled = if write.batch {
            let reply: BatchReply = reply.json()?;
            Settled {
                first_seq: Seq(reply.first_seq),
                head_seq: Seq(reply.last_seq),
                deduped: reply.deduped,
            }
        } else {
            let reply: SingleReply = reply.json()?;
            Settled {
                first_seq: Seq(reply.seq),
                head_seq: Seq(reply.last_seq),
                deduped: reply.deduped,
            }
        };
        Ok(settled)
    }

    fn must_be_settled(&self) -> Result<(), ClientError> {
        match self.unsettled {
            Some(_) => Err(ClientError::Unsettled { producer_id: self.id.clone() }),
            None => Ok(()),
        }
    }
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Position of its first event.
    pub first_seq: Seq,
    /// `last_seq` of the reply: the session's last event for one event, the write's own last
    /// event for a batch.
    pub head_seq: Seq,
    /// Whether the server had this write already.
    pub deduped: bool,
}

/// Path, body and content type of a batch append.
fn batch_request<'a>(
    session: &str,
    events: impl Iterator<Item = (&'a NewEvent, &'a str, u64)>,
    expected_seq: Option<Seq>,
    encoding: BatchEncoding,
) -> Result<(String, Bytes, &'static str), ClientError> {
    let mut path = session_path(session, "/append")?;
    let mut body = Vec::with_capacity(4096);
    match encoding {
        BatchEncoding::Ndjson => {
            if let Some(expected) = expected_seq {
                path.push_str(&format!("?expected_seq={expected}"));
            }
            for (event, producer_id, producer_seq) in events {
                event.write_body(producer_id, producer_seq, None, &mut body);
                body.push(b'\n');
            }
            Ok((path, body.into(), "application/x-ndjson"))
        }
        BatchEncoding::Json => {
            body.extend_from_slice(b"{\"events\":[");
            for (at, (event, producer_id, producer_seq)) in events.enumerate() {
                if at > 0 {
                    body.push(b',');
                }
                event.write_body(producer_id, producer_seq, None, &mut body);
            }
            body.push(b']');
            if let Some(expected) = expected_seq {
                body.extend_from_slice(format!(",\"expected_seq\":{expected}").as_bytes());
            }
            body.push(b'}');
            Ok((path, body.into(), "application/json"))
        }
    }
}

impl Client {
    /// Appends events that carry their own producer positions, as one batch, once. Copying a
    /// session keeps the producers of its events this way.
    ///
    /// # Errors
    /// [`ClientError::Refused`] names the first event at fault as `index`.
    pub async fn append_positioned(
        &self,
        session: &str,
        events: &[(NewEvent, String, u64)],
    ) -> Result<BatchAppended, ClientError> {
        let positioned = events.iter().map(|(event, id, at)| (event, id.as_str(), *at));
        let (path, body, content_type) =
            batch_request(session, positioned, None, BatchEncoding::Ndjson)?;
        let reply: BatchReply =
            self.append_body(&path, body, content_type, &RetryPolicy::once()).await?.json()?;
        Ok(BatchAppended {
            first_seq: Seq(reply.first_seq),
            last_seq: Seq(reply.last_seq),
            deduped: reply.deduped,
        })
    }
}
