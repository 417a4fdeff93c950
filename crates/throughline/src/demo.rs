//! `tl demo`: conversations are replayed over the public interface and followed live; in the
//! middle the node is killed with SIGKILL; afterwards every event is accounted for.
//!
//! ```text
//!  conversations ─► writers ──┐                       ┌─► tails, one per session ─► screen
//!                             ├── HTTP ── tl serve ───┤
//!  ledger of acks ◄───────────┘     ✂ kill -9, again  └─► readings ─┐
//!        └────────────────────── checker ◄──────────────────────────┘
//! ```

mod child;
mod conversations;
mod replay;
mod screen;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tl_client::Client;
use tl_client::verify::{Checker, FindingKind, Report, Via, read_all};

use crate::failure::Failure;
use crate::node::stop_signal;
use crate::output::{Out, count};
use child::Child;
use conversations::Conversation;
use replay::Replay;
use screen::Screen;

/// Longest tour of the conversations that come with the binary.
const TOUR_MAX: Duration = Duration::from_secs(40);
/// Longest tour of a data set.
const DATASET_TOUR_MAX: Duration = Duration::from_secs(900);
/// Time over which the replay is spread, so that it can be watched.
const REPLAY_TIME: Duration = Duration::from_secs(6);

/// Arguments of `tl demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after the check instead of serving on; the exit code tells whether all was well
    #[arg(long)]
    exit: bool,
    /// Replay this file (as `tl session export` writes it) instead of the conversations that
    /// come with the binary
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
    /// Most conversations to replay, 1 to 10,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    conversations: Option<u32>,
}

/// What the tour found.
struct Tour {
    report: Report,
    events: u64,
    retries: u64,
    tails: u64,
    tail_events: u64,
    down: Duration,
    elapsed: Duration,
}

/// Runs the tour; Ctrl-C or SIGTERM ends it at any time and cleans up.
pub async fn run(args: DemoArgs, out: &Out) -> anyhow::Result<()> {
    let stop = stop_signal().context("listening for signals")?;
    let verified = Cell::new(false);
    let was_verified = tokio::select! {
        ended = everything(&args, out, &verified) => return ended,
        () = stop => verified.get(),
    };
    // Dropping the tour has ended the node and removed its data.
    if was_verified { Ok(()) } else { Err(Failure::Interrupted.into()) }
}

async fn everything(args: &DemoArgs, out: &Out, verified: &Cell<bool>) -> anyhow::Result<()> {
    let script = conversations::load(args.dataset.as_deref(), args.conversations)?;
    let limit = if script.is_dataset { DATASET_TOUR_MAX } else { TOUR_MAX };
    let folder = tempfile::tempdir().context("making a folder for the demo's data")?;
    let screen = Arc::new(Screen::new(*out));
    let mut node = Child::start(folder.path(), None).await?;
    let client = Client::new(&node.url)?;
    screen.say(&format!(
        "A node is up on an empty directory (process {}, {} ms to start).",
        node.id, node.took_ms
    ));
    let tour = tour(&script.conversations, &client, &mut node, &folder, &screen);
    let Ok(tour) = tokio::time::timeout(limit, tour).await else {
        let what = format!("the demo did not finish within {} s", limit.as_secs());
        return Err(Failure::Check(what).into());
    };
    let tour = tour?;
    verified.set(tour.report.is_clean());
    if !args.exit && tour.report.is_clean() {
        say_result(&tour, &node.url, out)?;
        screen.say(&next_steps(&node.url, &script.conversations));
        // Serving on, until a signal drops this future and with it the node and its data.
        let ended = node.wait().await?;
        let what = format!("the demo's node ended by itself ({ended})");
        return Err(Failure::Check(what).into());
    }
    node.stop().await?;
    say_result(&tour, &node.url, out)?;
    if tour.report.is_clean() {
        return Ok(());
    }
    Err(Failure::Check("the check found differences; the lines above name them".into()).into())
}

async fn tour(
    conversations: &[Conversation],
    client: &Client,
    node: &mut Child,
    folder: &tempfile::TempDir,
    screen: &Arc<Screen>,
) -> anyhow::Result<Tour> {
    let started = Instant::now();
    let events: u64 = conversations.iter().map(|one| one.events.len() as u64).sum();
    screen.say(&format!(
        "Replaying {} conversations, {} events, and following them live. Every tenth write is \
         sent twice on purpose.\n",
        count(conversations.len() as u64),
        count(events)
    ));
    let replay = Replay::prepare(client, conversations, REPLAY_TIME).await?;
    let mut tails = replay.follow(screen);
    let mut acked = replay.acked();
    let mut down = Duration::ZERO;
    let killed = async {
        acked.wait_for(|acked| *acked >= events / 2).await.context("the writers ended early")?;
        let acked = *acked.borrow();
        let killed_at = Instant::now();
        let old = node.kill().await?;
        screen.say(&format!(
            "\n*** kill -9 {old}: the node is gone, {} events were acknowledged, writers and \
             tails retry ***",
            count(acked)
        ));
        let (next, moved) = Child::restart(folder.path(), node).await?;
        *node = next;
        if moved {
            client.set_base(&node.url)?;
        }
        down = killed_at.elapsed();
        screen.say(&format!(
            "*** the same directory, process {}: {} log entries applied again, serving after \
             {} ms ***\n",
            node.id,
            count(node.entries_replayed),
            down.as_millis()
        ));
        anyhow::Ok(())
    };
    // The writers go on while the node is killed and started again.
    let (written, ()) = tokio::try_join!(replay.write(), killed)?;

    let mut checker = Checker::new(&written.ledger);
    let (mut tailed, mut tail_events) = (0, 0);
    while let Some(reading) = tails.join_next().await {
        let reading = reading.context("a tail broke off")??;
        tailed += 1;
        tail_events += reading.sightings.len() as u64;
        checker.partial(&reading);
    }
    for session in checker.sessions() {
        checker.complete(&read_all(client, session, Via::Pages).await?);
    }
    let report = checker.report();
    Ok(Tour {
        report,
        events,
        retries: written.retries,
        tails: tailed,
        tail_events,
        down,
        elapsed: started.elapsed(),
    })
}

fn say_result(tour: &Tour, url: &str, out: &Out) -> anyhow::Result<()> {
    let report = &tour.report;
    let value = json!({
        "verified": report.is_clean(),
        "sessions": report.sessions,
        "events": tour.events,
        "acknowledged": report.acknowledged,
        "present": report.present,
        "lost": report.count(FindingKind::Lost),
        "doubled": report.count(FindingKind::Doubled),
        "findings": report.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "retries_deduped": tour.retries,
        "tails": tour.tails,
        "tail_events": tour.tail_events,
        "kills": 1,
        "down_ms": tour.down.as_millis() as u64,
        "elapsed_ms": tour.elapsed.as_millis() as u64,
        "url": url,
    });
    let verdict = if report.is_clean() { "Verified" } else { "NOT verified" };
    let text = format!(
        "\n{verdict} after one kill -9 ({} ms until it served again): {report}; {} repeated writes \
         answered with their first position, {} live tails saw {} events, each once and in order.",
        tour.down.as_millis(),
        count(tour.retries),
        count(tour.tails),
        count(tour.tail_events),
    );
    out.either(&value, &text)
}

fn next_steps(url: &str, conversations: &[Conversation]) -> String {
    let id = conversations.first().map_or("ID", |one| one.session.id.as_str());
    format!(
        "\
The node is still serving at {url}. Try, in another terminal:

  tl session list --url {url}
  tl session tail {id} --url {url}
  curl {url}/v1/sessions/{id}/events

Ctrl-C ends it and removes its data. `tl dev` starts one that keeps them."
    )
}
