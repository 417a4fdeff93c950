//! A tail that starts in the middle sees every later event exactly once, in order, on each
//! front: by the command line up to the end, and by the client across what is there already
//! and what is appended while it is open.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tl_client::{Client, Event, Front, NewEvent, Producer, Tail, TailItem, TailOptions};
use tl_types::Seq;

use crate::command::Call;
use crate::tree;

/// Events appended while each tail is open.
const LIVE_EVENTS: u64 = 20;

/// Every front, with its word on the command line.
pub const FRONTS: [(Front, &str); 3] =
    [(Front::WebSocket, "ws"), (Front::Sse, "sse"), (Front::LongPoll, "poll")];

/// Prints `session`, which holds `last` events, from its middle with `tl session tail` on every
/// front; returns how many events were printed.
pub fn by_command(url: &str, session: &str, last: u64) -> Result<u64> {
    let start = last / 2;
    let cursor = start.to_string();
    for (_, front) in FRONTS {
        let words = ["session", "tail", session, "--cursor", &cursor, "--front", front];
        let printed = Call::new(tree::tl())
            .args(words)
            .args(["--no-follow", "--json", "--url", url])
            .output()?;
        let mut expected = start;
        for line in printed.lines() {
            expected += 1;
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(event["seq"] == expected, "{front}: {} where {expected} was due", event["seq"]);
        }
        ensure!(expected == last, "{front}: ended at {expected} of {last}");
    }
    Ok((last - start) * FRONTS.len() as u64)
}

/// Tails `session` from its middle on every front; returns how many events were delivered.
pub async fn from_the_middle(client: &Client, session: &str) -> Result<u64> {
    let event = NewEvent::new("accept", &serde_json::json!({ "live": true }))?;
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
            next_event(&mut tail, expected).await.with_context(|| name.to_owned())?;
        }
        ensure!(tail.repeats() == 0, "{name}: {} events came twice", tail.repeats());
        delivered += last - start;
    }
    Ok(delivered)
}

/// The next event of a tail, which must be the one at `seq`.
pub async fn next_event(tail: &mut Tail, seq: u64) -> Result<Event> {
    match tail.next().await? {
        Some(TailItem::Event(event)) if event.seq == Seq(seq) => Ok(event),
        other => anyhow::bail!("{other:?} where event {seq} was due"),
    }
}
