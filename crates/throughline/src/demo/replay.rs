//! Writing the conversations, each in its order, and following them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt};
use tl_client::verify::{Ledger, Reading};
use tl_client::{
    Backoff, Client, CreateSession, Front, Producer, RetryPolicy, TailItem, TailOptions,
};
use tl_types::Seq;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

use super::conversations::Conversation;
use super::screen::Screen;

/// Conversations written at the same time.
const WRITERS_MAX: usize = 32;
/// Conversations followed live; the others are read afterwards.
const TAILS_MAX: usize = 64;
/// Every so many writes one is sent a second time.
const REPEAT_EVERY: usize = 10;
/// Waits while the node is away: short, so that a watcher is not kept waiting.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(25),
    max: Duration::from_millis(250),
    jitter_ratio: 0.2,
};

/// Conversations whose sessions exist.
pub struct Replay<'a> {
    client: Client,
    conversations: &'a [Conversation],
    sessions: Vec<Arc<str>>,
    pace: Mutex<Interval>,
    acked: watch::Sender<u64>,
}

/// What was written.
#[derive(Default)]
pub struct Written {
    pub ledger: Ledger,
    /// Writes sent twice and answered with their first position.
    pub retries: u64,
}

impl<'a> Replay<'a> {
    /// Makes the sessions. The writes will be spread over about `time`.
    pub async fn prepare(
        client: &Client,
        conversations: &'a [Conversation],
        time: Duration,
    ) -> anyhow::Result<Replay<'a>> {
        let mut events = 0;
        let mut sessions = Vec::with_capacity(conversations.len());
        for Conversation { session, events: of_session } in conversations {
            let create = CreateSession {
                id: Some(session.id.clone()),
                title: session.title.clone(),
                metadata: session.metadata.clone(),
            };
            client.create(&create).await.with_context(|| format!("session {}", session.id))?;
            sessions.push(session.id.as_str().into());
            events += of_session.len() as u32;
        }
        let period = (time / events.max(1)).max(Duration::from_micros(1));
        let mut pace = tokio::time::interval(period);
        // Ticks missed while the node was away are not made up for in a burst.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (acked, _) = watch::channel(0);
        let (client, pace) = (client.clone(), Mutex::new(pace));
        Ok(Replay { client, conversations, sessions, pace, acked })
    }

    /// The number of acknowledged events, as it grows.
    pub fn acked(&self) -> watch::Receiver<u64> {
        self.acked.subscribe()
    }

    /// A tail per session, over all three fronts in turn, up to its last event.
    pub fn follow(&self, screen: &Arc<Screen>) -> JoinSet<anyhow::Result<Reading>> {
        let fronts = [Front::WebSocket, Front::Sse, Front::LongPoll];
        let mut tails = JoinSet::new();
        let of_conversation = self.sessions.iter().zip(self.conversations);
        for (at, (session, conversation)) in of_conversation.enumerate().take(TAILS_MAX) {
            let last = Seq(conversation.events.len() as u64);
            let front = fronts[at % fronts.len()];
            let options = TailOptions { front, backoff: BACKOFF, ..TailOptions::default() };
            let mut tail = self.client.tail(session, Seq(0), options);
            let (session, screen) = (session.clone(), screen.clone());
            tails.spawn(async move {
                let mut reading = Reading::new(session.clone());
                while tail.cursor() < last {
                    match tail.next().await? {
                        Some(TailItem::Event(event)) => {
                            screen.event(&session, &event);
                            reading.saw(&event)?;
                        }
                        // The hole it leaves is found by the checker.
                        Some(TailItem::Gap(_)) => {}
                        None => break,
                    }
                }
                ensure!(tail.repeats() == 0, "a tail of {session} was sent an event twice");
                Ok(reading)
            });
        }
        tails
    }

    /// Writes everything; survives the death of the node.
    pub async fn write(&self) -> anyhow::Result<Written> {
        futures_util::stream::iter(self.sessions.iter().zip(self.conversations))
            .map(|(session, conversation)| self.write_one(session, conversation))
            .buffer_unordered(WRITERS_MAX)
            .try_fold(Written::default(), async |mut all, one| {
                all.ledger.merge(one.ledger);
                all.retries += one.retries;
                Ok(all)
            })
            .await
    }

    async fn write_one(
        &self,
        session: &Arc<str>,
        conversation: &Conversation,
    ) -> anyhow::Result<Written> {
        let mut written = Written::default();
        let id: Arc<str> = format!("demo:{session}").into();
        let policy = RetryPolicy::until_dropped(BACKOFF);
        let producer = |at| Producer::at(self.client.clone(), session, &id, at).with_policy(policy);
        let mut writer = producer(1);
        for (number, event) in conversation.events.iter().enumerate() {
            self.pace.lock().await.tick().await;
            let at = writer.next_seq();
            let write = written.ledger.attempt(session, &id, at, std::slice::from_ref(event));
            let first = writer.append(event, None).await?;
            written.ledger.acked(write, first.seq);
            self.acked.send_modify(|acked| *acked += 1);
            if number % REPEAT_EVERY == REPEAT_EVERY - 1 {
                let again = producer(at).append(event, None).await?;
                ensure!(
                    again.deduped && again.seq == first.seq,
                    "a repeated write of {session} was given seq {} after {}",
                    again.seq,
                    first.seq
                );
                written.retries += 1;
            }
        }
        Ok(written)
    }
}
