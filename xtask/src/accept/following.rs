//! Tails that are open while an import runs.
//!
//! Each starts in the middle of what its session holds so far, once the import is under way. It
//! must be through with that before the import reaches the session, then take every event that
//! the import adds, in order and with the file's content, and at last one mark that is appended
//! when all imports are over: an event that came twice would stand in its place.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tl_client::{Client, Front, NewEvent, Producer, TailOptions};
use tl_types::Seq;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::export::essence;
use super::tails::{FRONTS, next_event};

/// Longest wait of one request for the import's first news.
const NEWS_WAIT: Duration = Duration::from_secs(20);
/// Requests for that news before it counts as missing.
const NEWS_WAITS_MAX: u32 = 3;
/// Longest wait for the tails to end behind the mark.
const END_MAX: Duration = Duration::from_secs(60);
/// Type of the event behind the imports' last.
const MARK: &str = "end-of-imports";

/// A session of which the first events are there before the import.
#[derive(Debug)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// Events there beforehand.
    pub count: u64,
    /// All its events in the file.
    pub events: Vec<Value>,
}

impl Begun {
    /// A session whose first half is there beforehand.
    pub fn half_of(id: &str, events: &[Value]) -> Self {
        Begun { id: id.to_owned(), count: events.len() as u64 / 2, events: events.to_vec() }
    }
}

/// Tails of one session on every front.
#[derive(Debug)]
pub struct Following {
    tails: JoinSet<Result<u64>>,
    late: Arc<Begun>,
}

impl Following {
    /// Starts the tails of `late` as soon as `front` gets another event.
    pub fn start(runtime: &Runtime, client: &Client, front: Begun, late: Begun) -> Self {
        let (front, late) = (Arc::new(front), Arc::new(late));
        let mut tails = JoinSet::new();
        for (kind, name) in FRONTS {
            let (client, front, late) = (client.clone(), Arc::clone(&front), Arc::clone(&late));
            let follow = async move {
                news(&client, &front).await?;
                follow(&client, &late, kind).await.with_context(|| name.to_owned())
            };
            tails.spawn_on(follow, runtime.handle());
        }
        Following { tails, late }
    }

    /// Appends the mark and waits for it on every tail; returns how many events were delivered.
    pub fn end(mut self, runtime: &Runtime, client: &Client) -> Result<u64> {
        let mark = NewEvent::new(MARK, &serde_json::json!({}))?;
        runtime.block_on(async {
            Producer::new(client.clone(), &self.late.id, "accept").append(&mark, None).await?;
            let all = async {
                let mut delivered = 0;
                while let Some(ended) = self.tails.join_next().await {
                    delivered += ended.context("a tail broke off")??;
                }
                Ok(delivered)
            };
            tokio::time::timeout(END_MAX, all).await.context("a tail does not get to the mark")?
        })
    }
}

/// Waits until the import has added to `front`.
async fn news(client: &Client, front: &Begun) -> Result<()> {
    for _ in 0..NEWS_WAITS_MAX {
        let page = client.events(&front.id, Seq(front.count), 1, NEWS_WAIT).await?;
        if !page.events.is_empty() {
            return Ok(());
        }
    }
    anyhow::bail!("the import has not begun")
}

async fn follow(client: &Client, late: &Begun, front: Front) -> Result<u64> {
    let start = late.count / 2;
    let options = TailOptions { front, ..TailOptions::default() };
    let mut tail = client.tail(&late.id, Seq(start), options);
    let expected = late.events.iter().zip(1..).skip(start as usize);
    for (content, seq) in expected {
        let event = next_event(&mut tail, seq).await?;
        let given = essence(&serde_json::from_slice(event.raw())?)?;
        ensure!(given == *content, "seq {seq} is {given} where {content} was due");
        if seq == late.count {
            let head = client.get(&late.id).await?.last_seq;
            ensure!(head == seq, "the import was there first: nothing is left to come live");
        }
    }
    let last = late.events.len() as u64;
    let mark = next_event(&mut tail, last + 1).await?;
    ensure!(&*mark.event_type == MARK, "seq {} is {}", mark.seq, mark.event_type);
    // The client would hide what the server sent twice, or left out and gave when asked again.
    ensure!(tail.repeats() == 0, "{} events came twice", tail.repeats());
    ensure!(tail.connects() == 1, "it had to connect {} times", tail.connects());
    Ok(last - start)
}
