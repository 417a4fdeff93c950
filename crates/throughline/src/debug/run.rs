//! `tl debug run`

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tl_core::memory::MemoryRows;
use tl_engine::lock::{DirLock, LockError};
use tl_store::{Applied, LsmStore, OrderedStore, StoreOptions};
use tl_types::{GroupId, ResourceNumber, RowKey, Table};

use crate::failure::Failure;
use crate::output::{Out, count};

/// Rows read at a time.
const PAGE_ROWS: usize = 4_096;
/// Bytes read at a time.
const PAGE_BYTES: usize = 16 << 20;

/// Arguments of `tl debug run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value = "./tl-data")]
    data: PathBuf,
    /// Read every byte and compare it with its checksum, and check every group's rows against
    /// the rules of the key space
    #[arg(long)]
    scrub: bool,
}

/// Prints what the runs hold; with `--scrub` damage is a failed check.
pub fn run(args: &RunArgs, out: &Out) -> anyhow::Result<()> {
    let dir = args.data.join("store");
    ensure!(dir.is_dir(), "there is no store in {}", args.data.display());
    // Opening a store tidies its directory, which would be the end of a running node's files.
    let _lock = DirLock::take(&args.data).map_err(|error| match error {
        LockError::InUse { dir } => Failure::WithAdvice {
            what: format!("a node runs on {}", dir.display()),
            advice: "stop it first; `tl debug log` can look in while it runs".to_owned(),
        },
        LockError::Io { .. } => Failure::WithAdvice {
            what: format!("cannot lock {}", args.data.display()),
            advice: "run it as the user that the data belongs to".to_owned(),
        },
    })?;
    let store = LsmStore::open(&dir, StoreOptions::default())
        .with_context(|| format!("opening {}", dir.display()))?;
    let stats = store.stats();
    let groups = store.durable_applied();
    let entries: u64 = groups.iter().map(|(_, applied)| applied.index.0).sum();
    let value = json!({
        "tables": stats.tables,
        "blob_files": stats.blob_files,
        "disk_bytes": stats.disk_bytes,
        "groups": groups.len(),
        "entries_applied": entries,
    });
    let text = format!(
        "{} tables, {} blob files, {} bytes; {} groups, {} log entries in them",
        stats.tables,
        stats.blob_files,
        count(stats.disk_bytes),
        groups.len(),
        count(entries)
    );
    out.either(&value, &text)?;
    if args.scrub { scrub(&store, &groups, out) } else { Ok(()) }
}

fn scrub(store: &LsmStore, groups: &[(GroupId, Applied)], out: &Out) -> anyhow::Result<()> {
    let bar = if out.shows_progress() {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files  {elapsed}")
            .expect("a template of known keys");
        ProgressBar::new(0).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let report = store.scrub(&mut |progress| {
        bar.set_length(progress.files_total as u64);
        bar.set_position(progress.files_done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let mut damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    // Rows behind damaged bytes cannot be judged.
    let mut rows = 0;
    if damage.is_empty() {
        for (group, applied) in groups {
            let of_group = group_rows(store, *group, applied)?;
            rows += of_group.len() as u64;
            if let Err(broken) = tl_core::invariants::check(&of_group) {
                damage.push(format!("group {group}: {broken}"));
            }
        }
    }
    let value = json!({
        "files": report.files,
        "bytes": report.bytes,
        "rows": rows,
        "damage": damage,
    });
    let text = format!(
        "scrubbed {} files, {} bytes, {} rows: {}",
        report.files,
        count(report.bytes),
        count(rows),
        if damage.is_empty() { "sound".to_owned() } else { format!("{} findings", damage.len()) }
    );
    out.either(&value, &text)?;
    for finding in &damage {
        out.note(&format!("  {finding}"));
    }
    match damage.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Check(first.clone()).into()),
    }
}

/// All live rows of one group; a group is small enough to be held.
fn group_rows(store: &LsmStore, group: GroupId, applied: &Applied) -> anyhow::Result<MemoryRows> {
    let mut rows = MemoryRows::default();
    for table in Table::ALL {
        if table == Table::Applied {
            continue;
        }
        let mut start = RowKey::table_start(table, ResourceNumber(0));
        let end = RowKey::table_end(table, ResourceNumber(u64::MAX));
        loop {
            let page: Vec<(RowKey, Bytes)> =
                store.range(group, applied.generation, &start, &end, PAGE_ROWS, PAGE_BYTES)?;
            let Some((last, _)) = page.last() else { break };
            // The smallest key behind the last one.
            start = last.with(&[0]);
            rows.write(page.into_iter().map(|(key, value)| (key, Some(value))).collect());
        }
    }
    Ok(rows)
}
