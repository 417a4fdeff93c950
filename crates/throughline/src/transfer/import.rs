//! `tl session import`: a reader of the file, and a bounded number of sessions written at once.
//!
//! ```text
//!  file ─ lines ─ batches ──(bounded)──► coordinator ──(bounded)──► one task per session
//!  blocking thread                                                  append, or compare
//! ```

mod one;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tl_client::Client;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::lines::Positioned;
use crate::failure::Failure;
use crate::output::{Out, count};
use one::{Difference, SessionOutcome};
use source::Piece;

/// Most sessions written at the same time, whatever is asked for.
const SESSIONS_IN_FLIGHT_MAX: usize = 256;
/// Batches waiting for one session's task.
const BATCHES_WAITING: usize = 2;
/// Differences printed; the rest are counted.
const DIFFERENCES_PRINTED_MAX: usize = 20;

/// Arguments of `tl session import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File of JSON lines, as `tl session export` writes them; `-` reads stdin
    file: PathBuf,
    /// Sessions written at the same time, 1 to 256
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

/// What an import did.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportCounts {
    /// Sessions in the file.
    pub sessions: u64,
    /// Events in the file.
    pub events: u64,
    /// Events appended now.
    pub appended: u64,
    /// Events that were stored before.
    pub already_there: u64,
}

/// What the tasks have done so far, for the progress bar.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub events: AtomicU64,
}

/// Imports the file and prints the counts.
pub async fn run(client: &Client, args: ImportArgs, out: &Out) -> anyhow::Result<()> {
    let started = Instant::now();
    let source = source::open(&args.file)?;
    let bar = progress_bar(out, source.length);
    let outcome = import(client, source, usize::from(args.concurrency), &bar).await;
    bar.finish_and_clear();
    let (counts, differences) =
        outcome.with_context(|| format!("importing {}", args.file.display()))?;

    for difference in differences.iter().take(DIFFERENCES_PRINTED_MAX) {
        out.note(&difference.to_string());
    }
    let ImportCounts { sessions, events, appended, already_there } = &counts;
    let text = format!(
        "{} sessions, {} events: {} appended, {} already there ({:.1} s)",
        count(*sessions),
        count(*events),
        count(*appended),
        count(*already_there),
        started.elapsed().as_secs_f64()
    );
    out.either(&counts, &text)?;
    match differences.first() {
        None => Ok(()),
        Some(first) => {
            let more = differences.len() - 1;
            let others = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            Err(Failure::Check(format!("{first}{others}")).into())
        }
    }
}

/// Imports everything that `source` gives.
///
/// # Errors
/// The first failure that is not a difference of content; what was imported until then stays, and
/// another import goes on behind it.
async fn import(
    client: &Client,
    source: source::Source,
    concurrency: usize,
    bar: &ProgressBar,
) -> anyhow::Result<(ImportCounts, Vec<Difference>)> {
    let slots = Arc::new(Semaphore::new(concurrency.min(SESSIONS_IN_FLIGHT_MAX)));
    let done = Arc::new(Done::default());
    let mut pieces = source::read(source);
    let mut tasks: JoinSet<anyhow::Result<SessionOutcome>> = JoinSet::new();
    let mut totals = Totals::default();
    let mut current: Option<mpsc::Sender<Vec<Positioned>>> = None;
    while let Some(piece) = pieces.recv().await {
        match piece? {
            Piece::Session(line) => {
                // Ends the session before: its task gives back its slot when its channel is closed.
                drop(current.take());
                let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
                while let Some(ended) = tasks.try_join_next() {
                    totals.add(ended)?;
                }
                let (batches, waiting) = mpsc::channel(BATCHES_WAITING);
                let (client, done) = (client.clone(), Arc::clone(&done));
                tasks.spawn(async move {
                    let outcome = one::import_session(&client, line, waiting, &done).await;
                    drop(slot);
                    outcome
                });
                current = Some(batches);
            }
            Piece::Events { events, file_bytes } => {
                let batches = current.as_ref().expect("the source refuses events before a session");
                // A task that ended early has failed or found a difference: it says so itself.
                let _ = batches.send(events).await;
                bar.set_position(file_bytes);
                bar.set_message(count(done.events.load(Ordering::Relaxed)));
            }
        }
    }
    drop(current);
    while let Some(ended) = tasks.join_next().await {
        totals.add(ended)?;
        bar.set_message(count(done.events.load(Ordering::Relaxed)));
    }
    Ok((totals.counts, totals.differences))
}

#[derive(Default)]
struct Totals {
    counts: ImportCounts,
    differences: Vec<Difference>,
}

impl Totals {
    fn add(
        &mut self,
        ended: Result<anyhow::Result<SessionOutcome>, tokio::task::JoinError>,
    ) -> anyhow::Result<()> {
        let outcome = ended.context("a task of the import broke off")??;
        self.counts.sessions += 1;
        self.counts.events += outcome.events;
        self.counts.appended += outcome.appended;
        self.counts.already_there += outcome.already_there;
        self.differences.extend(outcome.difference);
        Ok(())
    }
}

fn progress_bar(out: &Out, length: Option<u64>) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:30} {bytes}/{total_bytes}  {msg} events  {elapsed} (about {eta} left)",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg} events  {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a template of known keys"))
}
