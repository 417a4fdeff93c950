//! A disk that fills up: a small file system in memory, a node with small files on it, and
//! something else on the same disk that goes away later.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tl_client::verify::Via;
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{
    Client, CreateSession, Front, NewEvent, Producer, RetryPolicy, TailItem, TailOptions,
};
use tl_types::Seq;
use tokio::runtime::Runtime;

use crate::accept::Verdict;
use crate::command::Call;
use crate::crash::{self, Load};
use crate::server::{Server, serve_args};
use crate::{needs, tree};

/// Size of the disk, and what something else takes of it at first.
const DISK_BYTES: u64 = 256 << 20;
const OTHERS_BYTES: usize = 96 << 20;
/// Settings that make a node fit on it.
const SETTINGS: [(&str, u64); 3] = [
    ("TL_ENGINE__LOG_SEGMENT_BYTES", 24 << 20),
    ("TL_ENGINE__MEMTABLE_BYTES", 1 << 20),
    ("TL_ENGINE__DISK_RESERVE_BYTES", 32 << 20),
];
/// Longest wait for the disk to be full.
const FULL_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for writes to go on once there is room.
const RESUME_MAX: Duration = Duration::from_secs(30);
/// Events that must be acknowledged then.
const RESUMED_EVENTS: u64 = 100;

/// Runs the whole line.
pub fn run() -> Result<Verdict> {
    ensure!(needs::is_root(), "only root may mount a file system");
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let disk = Tmpfs::mount(&folder.path().join("disk"))?;
    let others = disk.path.join("others");
    std::fs::write(&others, vec![1; OTHERS_BYTES]).context("cannot fill part of the disk")?;
    let data = disk.path.join("data");

    let server = start(&data)?;
    let client = Client::new(&server.url)?;
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let options = WorkloadOptions { payload_bytes: 8 * 1024, ..WorkloadOptions::default() };
    let workload = runtime.block_on(Workload::prepare(&client, options))?;
    let sessions = workload.sessions().to_vec();
    for id in ["probe", "victim"] {
        runtime.block_on(client.create(&CreateSession::with_id(id)))?;
        runtime.block_on(append(&client, id, 1))?;
    }

    let (load, stop) = Load::start(&runtime, workload);
    let refused_after = runtime.block_on(until_full(&client))?;
    runtime.block_on(while_full(&client, &sessions[0])).context("while the disk was full")?;
    let acked_full = load.acked_events();
    std::fs::remove_file(&others).context("cannot make room")?;
    let began = Instant::now();
    load.acked_past(&runtime, acked_full + RESUMED_EVENTS, RESUME_MAX)
        .context("writes do not go on although there is room")?;
    let resumed_after = began.elapsed();
    let ledger = load.end(&runtime, stop)?.ledger();
    crash::check(&runtime, &client, &ledger, Via::Pages)?;

    server.kill()?;
    let server = start(&data).context("the node does not start again")?;
    client.set_base(&server.url)?;
    crash::check(&runtime, &client, &ledger, Via::Tail(Front::WebSocket))?;
    server.kill()?;
    Ok(Verdict::Ok(format!(
        "disk_full after {:.0} s, reads, tails and a delete went on, writes again {:.0} ms after \
         there was room; {} events there, also after kill -9",
        refused_after.as_secs_f64(),
        resumed_after.as_secs_f64() * 1e3,
        ledger.acknowledged_events()
    )))
}

fn start(data: &Path) -> Result<Server> {
    let mut command = Command::new(tree::tl());
    command.args(serve_args(data));
    command.envs(SETTINGS.map(|(name, value)| (name, value.to_string())));
    Server::spawn(command)
}

/// One append, tried once.
async fn append(
    client: &Client,
    session: &str,
    position: u64,
) -> Result<(), tl_client::ClientError> {
    let event = NewEvent::new("probe", &serde_json::json!({}))?;
    Producer::at(client.clone(), session, "accept", position)
        .with_policy(RetryPolicy::once())
        .append(&event, None)
        .await
        .map(|_| ())
}

/// Waits until a write is refused because the disk is full.
async fn until_full(client: &Client) -> Result<Duration> {
    let began = Instant::now();
    let mut position = 2;
    loop {
        match append(client, "probe", position).await {
            Ok(()) => position += 1,
            Err(error) if error.code() == Some("disk_full") => return Ok(began.elapsed()),
            // Busy, or a time-out while the last room is taken: the position stands.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.status == 503) => {}
            Err(error) => bail!("an append before the disk was full: {error:#}"),
        }
        ensure!(began.elapsed() < FULL_MAX, "the disk was not full in {} s", FULL_MAX.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What must go on: pages, tails, the list, deletes.
async fn while_full(client: &Client, session: &str) -> Result<()> {
    let page = client.events(session, Seq(0), 10, Duration::ZERO).await.context("a page")?;
    ensure!(!page.events.is_empty(), "session {session} has no events");
    for (front, name) in [(Front::WebSocket, "WebSocket"), (Front::Sse, "event stream")] {
        let options = TailOptions { front, ..TailOptions::default() };
        match client.tail(session, Seq(0), options).next().await.context(name)? {
            Some(TailItem::Event(event)) if event.seq == Seq(1) => {}
            other => bail!("{name}: {other:?} where the first event was due"),
        }
    }
    client.get("victim").await.context("a look-up")?;
    client.delete("victim").await.context("a delete")?;
    let gone = client.get("victim").await.err().context("the deleted session is still there")?;
    let status = gone.refusal().map(|refusal| refusal.status);
    ensure!(matches!(status, Some(404 | 410)), "the deleted session answers {gone:#}");
    match append(client, "probe", u64::from(u32::MAX)).await {
        Err(error) if error.code() == Some("disk_full") => Ok(()),
        other => bail!("a write in between ended with {other:?}"),
    }
}

/// A file system in memory; unmounted when dropped.
#[derive(Debug)]
struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    fn mount(path: &Path) -> Result<Tmpfs> {
        std::fs::create_dir(path).with_context(|| path.display().to_string())?;
        let options = format!("size={DISK_BYTES}");
        Call::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).args([path]).run()?;
        Ok(Tmpfs { path: path.to_owned() })
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // The node on it may still be ending: detached now, gone with its last file.
        let _ = Call::new("umount").args(["--lazy"]).args([&self.path]).run();
    }
}
