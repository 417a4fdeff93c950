//! `tl session export`: sessions in the order of their ids, each up to its last event of the
//! moment in which its row was read. The same sessions give the same bytes.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tl_client::{Client, ClientError, Event, ListQuery, RetryPolicy, Session};
use tl_types::Seq;
use tl_types::limits::PAGE_MAX;

use super::lines::{EventLine, SessionLine};
use crate::output::{Out, count};
use crate::session::Archived;

/// Sessions whose first page is fetched ahead.
const SESSIONS_AHEAD: usize = 8;

/// Arguments of `tl session export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Session ids
    #[arg(required_unless_present = "all")]
    ids: Vec<String>,
    /// All sessions
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Write to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only what an import needs: leaves out what the server adds (seq, times, version, …)
    #[arg(long)]
    lean: bool,
    /// With --all: which sessions
    #[arg(long, value_enum, default_value_t = Archived::All, conflicts_with = "ids")]
    archived: Archived,
}

#[derive(Default)]
struct Counts {
    sessions: u64,
    events: u64,
}

/// Exports and prints the counts: on stderr when the lines go to stdout.
pub async fn run(client: &Client, args: ExportArgs, out: &Out) -> anyhow::Result<()> {
    let bar = progress_bar(out);
    let Some(path) = &args.out else {
        let mut stdout = BufWriter::new(std::io::stdout().lock());
        let counts = export(client, &args, &mut stdout, &bar).await?;
        bar.finish_and_clear();
        out.note(&summary(&counts));
        return Ok(());
    };
    // Whoever sees the file sees all of it.
    let partial = partial_path(path);
    let file = File::create(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let exported = export(client, &args, &mut writer, &bar).await;
    bar.finish_and_clear();
    let counts = match exported {
        Ok(counts) => counts,
        Err(error) => {
            // The partial file is of no use to anybody.
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
    };
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all().with_context(|| format!("writing {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("naming {}", path.display()))?;
    let value = json!({ "sessions": counts.sessions, "events": counts.events, "out": path });
    out.either(&value, &summary(&counts))
}

fn summary(counts: &Counts) -> String {
    format!("{} sessions, {} events exported", count(counts.sessions), count(counts.events))
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

async fn export(
    client: &Client,
    args: &ExportArgs,
    to: &mut impl Write,
    bar: &ProgressBar,
) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    if !args.all {
        let mut rows = Vec::with_capacity(args.ids.len());
        for id in &args.ids {
            rows.push(client.get(id).await.with_context(|| format!("session {id}"))?);
        }
        write_sessions(client, rows, args.lean, to, &mut counts, bar).await?;
        return Ok(counts);
    }
    let mut query = ListQuery {
        limit: Some(PAGE_MAX as u32),
        archived: Some(args.archived.word().to_owned()),
        // All means all, whichever node is asked.
        consistent: true,
        ..ListQuery::default()
    };
    loop {
        let page = client.list(&query).await?;
        write_sessions(client, page.sessions, args.lean, to, &mut counts, bar).await?;
        match page.next_cursor {
            Some(next) => query.cursor = Some(next),
            None => return Ok(counts),
        }
    }
}

async fn write_sessions(
    client: &Client,
    rows: Vec<Session>,
    lean: bool,
    to: &mut impl Write,
    counts: &mut Counts,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    // First pages are fetched ahead, in order; most sessions end with theirs.
    let mut sessions = futures_util::stream::iter(rows)
        .map(|row| async move {
            let page = if row.last_seq == 0 {
                VecDeque::new()
            } else {
                page(client, &row.id, Seq(0)).await?
            };
            anyhow::Ok((row, page))
        })
        .buffered(SESSIONS_AHEAD);
    while let Some((row, first_page)) = sessions.try_next().await? {
        write_session(client, &row, first_page, lean, to)
            .await
            .with_context(|| format!("session {}", row.id))?;
        counts.sessions += 1;
        counts.events += row.last_seq;
        bar.set_position(counts.sessions);
        bar.set_message(count(counts.events));
    }
    to.flush()?;
    Ok(())
}

async fn write_session(
    client: &Client,
    row: &Session,
    mut events: VecDeque<Event>,
    lean: bool,
    to: &mut impl Write,
) -> anyhow::Result<()> {
    if lean {
        serde_json::to_writer(&mut *to, &line("session", &SessionLine::lean(row)))?;
    } else {
        serde_json::to_writer(&mut *to, &line("session", row))?;
    }
    to.write_all(b"\n")?;
    let mut cursor = Seq(0);
    while cursor.0 < row.last_seq {
        if events.is_empty() {
            events = page(client, &row.id, cursor).await?;
        }
        let event = events.pop_front().with_context(|| {
            format!("events behind seq {cursor} of {} are missing", row.last_seq)
        })?;
        cursor = event.seq;
        if lean {
            let event_line = EventLine::lean(&event, &row.id, event.seq.0)?;
            serde_json::to_writer(&mut *to, &line("event", &event_line))?;
        } else {
            to.write_all(b"{\"event\":")?;
            to.write_all(event.raw())?;
            to.write_all(b"}")?;
        }
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// `{"<name>": value}` as it stands in a file.
fn line<'a, T>(name: &'static str, value: &'a T) -> BTreeMap<&'static str, &'a T> {
    [(name, value)].into()
}

async fn page(client: &Client, id: &str, after: Seq) -> Result<VecDeque<Event>, ClientError> {
    let mut attempts = RetryPolicy::default().start();
    loop {
        match client.events(id, after, PAGE_MAX as u32, Duration::ZERO).await {
            Ok(page) => return Ok(page.events.into()),
            Err(failure) => attempts.again(failure).await?,
        }
    }
}

fn progress_bar(out: &Out) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let template = "{spinner} {pos} sessions  {msg} events  {elapsed}";
    let style = ProgressStyle::with_template(template).expect("a template of known keys");
    ProgressBar::new_spinner().with_style(style)
}
