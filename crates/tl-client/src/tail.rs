//! Replay and then follow one session, over any of the three fronts, resuming by itself.
//!
//! The cursor is the whole contract. Every event with `seq > cursor` is handed out exactly once
//! and in order: what a front sends again is dropped, what it leaves out is asked for again, and
//! a loss of any kind is answered by connecting anew behind the last event taken in.
//!
//! ```text
//!   front ──chunk──> take: seq = read + 1 ? queue : repeat → drop, hole → reconnect ──> next()
//!     ^                                                            │
//!     └───────────── connect behind `read`, after a wait ──────────┘
//! ```

mod poll;
mod socket;
mod sse;
pub mod sse_parser;

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use tl_types::Seq;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::ClientError;
use crate::event::Event;
use crate::retry::{Backoff, RETRY_AFTER_MAX};

/// How often the same hole may come again before the tail gives up.
const HOLES_MAX: u32 = 3;
/// Largest frame taken from a front, bytes: a full tail batch with room to spare.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How events are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// `GET …/tail` as a WebSocket.
    WebSocket,
    /// `GET …/tail` as server-sent events.
    Sse,
    /// `GET …/events` with a wait.
    LongPoll,
}

/// How a tail behaves.
#[derive(Debug, Clone, Copy)]
pub struct TailOptions {
    /// How events are fetched. Default WebSocket.
    pub front: Front,
    /// Most events in one frame or page, 1 to 1,000. Default 256.
    pub batch_size: u32,
    /// Waits between reconnects. Default 500 ms doubling to 15 s.
    pub backoff: Backoff,
    /// Most failures in a row without progress; `None` (the default) goes on for ever.
    pub failures_max: Option<u32>,
    /// Longest silence, heartbeats included, before the connection counts as lost. Default 60 s;
    /// the server speaks at least every 20 s.
    pub silence_max: Duration,
    /// How long one long poll waits. Default 20 s, at most 30 s.
    pub poll_wait: Duration,
}

impl Default for TailOptions {
    fn default() -> Self {
        TailOptions {
            front: Front::WebSocket,
            batch_size: 256,
            backoff: Backoff::TAIL,
            failures_max: None,
            silence_max: Duration::from_secs(60),
            poll_wait: Duration::from_secs(20),
        }
    }
}

/// What a tail hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailItem {
    /// The next event.
    Event(Event),
    /// Events right after the cursor can no longer be given; the tail goes on behind them.
    Gap(Gap),
}

/// A notice that events are missing, and where the tail goes on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// `cursor_expired` or `resume_invalidated`.
    pub reason: String,
    /// Where the tail stood.
    #[serde(default)]
    pub from_cursor: u64,
    /// Where it goes on.
    pub next_cursor: u64,
}

/// Why a tail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The session was closed; all its events have been handed out.
    Closed,
    /// The session was deleted.
    Deleted,
}

impl EndReason {
    /// From the words that came with the end; a plain end means closed.
    fn from_words(words: &str) -> EndReason {
        if words.contains("tombstone") || words.contains("deleted") {
            EndReason::Deleted
        } else {
            EndReason::Closed
        }
    }
}

/// What a front gives in one step.
#[derive(Debug)]
enum Chunk {
    Events(Vec<Event>),
    Gap(Gap),
    End(EndReason),
    /// A heartbeat: nothing new, but somebody is there.
    Alive,
}

/// An open connection of one of the fronts.
enum Source {
    Socket(Box<socket::Socket>),
    Sse(Box<sse::Sse>),
    Poll(poll::Poll),
}

impl Source {
    async fn open(tail: &Tail) -> Result<Source, ClientError> {
        let (client, session, options) = (&tail.client, &tail.session, &tail.options);
        Ok(match options.front {
            Front::WebSocket => {
                let socket = socket::Socket::open(client, session, tail.read, options).await?;
                Source::Socket(Box::new(socket))
            }
            Front::Sse => Source::Sse(Box::new(sse::Sse::open(client, session, tail.read).await?)),
            Front::LongPoll => Source::Poll(poll::Poll::new(client, session, tail.read, options)),
        })
    }

    async fn step(&mut self, silence_max: Duration) -> Result<Chunk, ClientError> {
        let next = async {
            match self {
                Source::Socket(socket) => socket.step().await,
                Source::Sse(sse) => sse.step().await,
                Source::Poll(poll) => poll.step().await,
            }
        };
        match tokio::time::timeout(silence_max, next).await {
            Ok(chunk) => chunk,
            Err(late) => {
                Err(ClientError::Broken { url: "the tail".into(), source: Box::new(late) })
            }
        }
    }
}

/// A reader of one session that survives any loss of connection.
pub struct Tail {
    client: Client,
    session: String,
    options: TailOptions,
    source: Option<Source>,
    /// Last seq handed out.
    cursor: Seq,
    /// Last seq taken in; a reconnect starts here.
    read: Seq,
    ready: VecDeque<TailItem>,
    ended: Option<EndReason>,
    failures: u32,
    /// When to connect again; an instant, so that a dropped future does not start the wait anew.
    retry_at: Option<Instant>,
    holes: u32,
    repeats: u64,
    connects: u64,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail")
            .field("session", &self.session)
            .field("front", &self.options.front)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A tail of one session from behind `cursor`; it connects when first asked for an event.
    #[must_use]
    pub fn tail(&self, session: &str, cursor: Seq, options: TailOptions) -> Tail {
        Tail {
            client: self.clone(),
            session: session.to_owned(),
            options,
            source: None,
            cursor,
            read: cursor,
            ready: VecDeque::new(),
            ended: None,
            failures: 0,
            retry_at: None,
            holes: 0,
            repeats: 0,
            connects: 0,
        }
    }
}

impl Tail {
    /// The next event or gap; `None` when the session was closed or deleted and everything before
    /// that has been handed out. Dropping the future loses nothing.
    ///
    /// # Errors
    /// A refusal that no wait will change, such as `session_not_found`; [`ClientError::GaveUp`]
    /// after `failures_max` failures; [`ClientError::Hole`] when the server keeps leaving out
    /// events.
    pub async fn next(&mut self) -> Result<Option<TailItem>, ClientError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.cursor = match &item {
                    TailItem::Event(event) => event.seq,
                    TailItem::Gap(gap) => Seq(gap.next_cursor),
                };
                return Ok(Some(item));
            }
            if self.ended.is_some() {
                return Ok(None);
            }
            if let Err(failure) = self.advance().await {
                self.lose(failure)?;
            }
        }
    }

    /// The next event, gaps passed over.
    ///
    /// # Errors
    /// As [`Tail::next`].
    pub async fn next_event(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            match self.next().await? {
                Some(TailItem::Event(event)) => return Ok(Some(event)),
                Some(TailItem::Gap(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The last seq handed out: a new tail from here misses nothing.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Why the tail ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<EndReason> {
        self.ended
    }

    /// How often a connection was opened.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.connects
    }

    /// Events that a front sent although the cursor was past them. They were dropped; a server
    /// that keeps its word sends none.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    async fn advance(&mut self) -> Result<(), ClientError> {
        if let Some(at) = self.retry_at {
            tokio::time::sleep_until(at).await;
            self.retry_at = None;
        }
        let source = match self.source.take() {
            Some(source) => source,
            None => {
                let source = Source::open(self).await?;
                self.connects += 1;
                source
            }
        };
        // Put back before waiting, so that dropping this future keeps the connection.
        let silence_max = match self.options.front {
            Front::LongPoll => self.options.silence_max + self.options.poll_wait,
            Front::WebSocket | Front::Sse => self.options.silence_max,
        };
        let chunk = {
            let slot = self.source.insert(source);
            slot.step(silence_max).await
        }?;
        self.take(chunk)
    }

    fn take(&mut self, chunk: Chunk) -> Result<(), ClientError> {
        self.failures = 0;
        match chunk {
            Chunk::Events(events) => {
                for event in events {
                    if event.seq <= self.read {
                        self.repeats += 1;
                        continue;
                    }
                    if event.seq != self.read.next() {
                        return self.hole(event.seq);
                    }
                    self.read = event.seq;
                    self.holes = 0;
                    self.ready.push_back(TailItem::Event(event));
                }
            }
            Chunk::Gap(gap) => {
                self.read = Seq(gap.next_cursor);
                self.ready.push_back(TailItem::Gap(gap));
            }
            Chunk::End(reason) => {
                self.source = None;
                self.ended = Some(reason);
            }
            Chunk::Alive => {}
        }
        Ok(())
    }

    fn hole(&mut self, got: Seq) -> Result<(), ClientError> {
        self.source = None;
        self.holes += 1;
        if self.holes < HOLES_MAX {
            return Ok(());
        }
        let (cursor, got) = (self.read.0, got.0);
        Err(ClientError::Hole { session: self.session.clone(), cursor, got })
    }

    /// Notes a lost connection and sets the wait before the next one.
    fn lose(&mut self, failure: ClientError) -> Result<(), ClientError> {
        self.source = None;
        // A deleted session refuses new tails; one that was open before has seen its end.
        if self.connects > 0 && failure.code() == Some("session_tombstoned") {
            self.ended = Some(EndReason::Deleted);
            return Ok(());
        }
        let again = failure.is_retryable() || matches!(failure, ClientError::Unexpected { .. });
        if !again {
            return Err(failure);
        }
        self.failures += 1;
        if self.options.failures_max.is_some_and(|max| self.failures >= max) {
            let attempts = self.failures;
            let last = Box::new(failure);
            return Err(ClientError::GaveUp { attempts, elapsed: Duration::ZERO, last });
        }
        let asked = failure.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        let wait = self.options.backoff.wait(self.failures, fastrand::f64()).max(asked);
        self.retry_at = Some(Instant::now() + wait);
        Ok(())
    }
}
