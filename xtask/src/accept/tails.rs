//! A tail that starts in the middle sees every later event exactly once, in order, on each
//! front, across what is there already and what is appended while it is open.

use anyhow::{Result, ensure};
use tl_client::{Client, Front, NewEvent, Producer, TailItem, TailOptions};
use tl_types::Seq;
use tokio::runtime::Runtime;

/// Events appended while each tail is open.
const LIVE_EVENTS: u64 = 20;

/// Every front, with its name.
const FRONTS: [(Front, &str); 3] =
    [(Front::WebSocket, "WebSocket"), (Front::Sse, "SSE"), (Front::LongPoll, "long poll")];

/// Tails `session` from its middle on every front; returns how many events were delivered.
pub fn from_the_middle(url: &str, session: &str) -> Result<u64> {
    let runtime = Runtime::new()?;
    let client = Client::new(url)?;
    let event = NewEvent::new("accept", &serde_json::json!({ "live": true }))?;
    runtime.block_on(async {
        let mut delivered = 0;
        for (front, name) in FRONTS {
            let before = client.get(session).await?.last_seq;
            let start = before / 2;
            let last = before + LIVE_EVENTS;
            let options = TailOptions { front, ..TailOptions::default() };
            let mut tail = client.tail(session, Seq(start), options);
            let mut producer = Producer::new(client.clone(), session, &format!("accept {name}"));
            for expected in start + 1..=last {
                if expected > before {
                    // The tail has seen all that was there: the next one must come live.
                    producer.append(&event, None).await?;
                }
                match tail.next().await? {
                    Some(TailItem::Event(event)) => {
                        let seq = event.seq.0;
                        ensure!(seq == expected, "{name}: seq {seq} where {expected} was due");
                    }
                    other => anyhow::bail!("{name}: {other:?} where event {expected} was due"),
                }
            }
            ensure!(tail.repeats() == 0, "{name}: {} events came twice", tail.repeats());
            delivered += last - start;
        }
        Ok(delivered)
    })
}
