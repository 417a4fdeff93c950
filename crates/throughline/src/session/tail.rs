//! `tl session tail`

use clap::{Args, ValueEnum};
use serde_json::json;
use tl_client::{Client, EndReason, Front, TailItem, TailOptions};
use tl_types::Seq;

use super::show;
use crate::output::Out;

/// Arguments of `tl session tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Session id
    id: String,
    /// Start behind this seq; 0 is the start
    #[arg(long, default_value_t = 0, value_name = "SEQ", conflicts_with = "last")]
    cursor: u64,
    /// Start with the last N events
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Stop at the event that is the last one now
    #[arg(long)]
    no_follow: bool,
    /// How events are fetched
    #[arg(long, value_enum, default_value_t = FrontWord::Ws)]
    front: FrontWord,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FrontWord {
    /// WebSocket
    Ws,
    /// Server-sent events
    Sse,
    /// Long poll
    Poll,
}

/// Prints events until the session ends, or for ever. With `--json` every line is the event as
/// the server wrote it.
pub async fn run(client: &Client, args: TailArgs, out: &Out) -> anyhow::Result<()> {
    // Also tells at once when there is no node or no such session.
    let last = client.get(&args.id).await?.last_seq;
    let cursor = args.last.map_or(args.cursor, |count| last.saturating_sub(count));
    let front = match args.front {
        FrontWord::Ws => Front::WebSocket,
        FrontWord::Sse => Front::Sse,
        FrontWord::Poll => Front::LongPoll,
    };
    let options = TailOptions { front, ..TailOptions::default() };
    let mut tail = client.tail(&args.id, Seq(cursor), options);
    while !(args.no_follow && tail.cursor().0 >= last) {
        match tail.next().await? {
            Some(TailItem::Event(event)) if out.is_json() => {
                out.bytes(&[event.raw(), &b"\n"[..]].concat())?;
            }
            Some(TailItem::Event(event)) => out.line(&show::event(&event))?,
            Some(TailItem::Gap(gap)) => {
                let value =
                    json!({ "gap": { "reason": gap.reason, "next_cursor": gap.next_cursor } });
                let text =
                    format!("… gap ({}): goes on behind seq {}", gap.reason, gap.next_cursor);
                out.either(&value, &text)?;
            }
            None => break,
        }
    }
    match tail.ended() {
        Some(EndReason::Closed) => out.note("the session is closed"),
        Some(EndReason::Deleted) => out.note("the session was deleted"),
        None => {}
    }
    Ok(())
}
