//! Memory under a hard limit, a quarter above the node's own budget, and clients that want more
//! than there is: writers, tails that read nothing, and very many bodies that come slowly.

mod crowd;

use std::fmt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tl_client::verify::Via;
use tl_client::workload::{Workload, WorkloadOptions};
use tl_client::{Client, CreateSession, NewEvent, Producer, RetryPolicy};
use tokio::runtime::Runtime;

use self::crowd::Crowd;
use crate::accept::Verdict;
use crate::cgroup::Cgroup;
use crate::crash::{self, Load};
use crate::server::{Server, serve_args};
use crate::{needs, tree};

/// The node's budget; the limit is a quarter more.
const BUDGET_BYTES: u64 = 256 << 20;
const LIMIT_BYTES: u64 = BUDGET_BYTES + BUDGET_BYTES / 4;
const LOAD: Duration = Duration::from_secs(60);
const WRITERS: usize = 64;
/// How long an ordinary write may be refused once the crowd is gone.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// What the node counts of its memory, in its metrics.
const COUNTED: &str = "throughline_memory_used_bytes ";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of a hundred requests, how many may end without an answer that says why.
const UNCLEAR_PERCENT_MAX: f64 = 1.0;

/// Runs the whole line.
pub fn run() -> Result<Verdict> {
    ensure!(needs::is_root(), "only root may make a control group");
    crowd::raise_file_limit()?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let group = Cgroup::new("memory", LIMIT_BYTES)?;
    let server = start(&group, folder.path())?;
    let client = Client::new(&server.url)?;
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let options =
        WorkloadOptions { writers: WRITERS, payload_bytes: 1024, ..WorkloadOptions::default() };
    let workload = runtime.block_on(Workload::prepare(&client, options))?;
    let sessions = workload.sessions().to_vec();
    runtime.block_on(crowd::prepare(&client))?;

    let (load, stop) = Load::start(&runtime, workload);
    let most = Arc::new(Mutex::new(Look::default()));
    let watch = runtime.spawn(watch(client.clone(), server.pid(), Arc::clone(&most)));
    let crowd = runtime.block_on(Crowd::press(&server.url, &sessions, LOAD))?;
    watch.abort();
    let (acked, said) = (load.acked_events(), crowd.said());
    let most = *most.lock().map_err(|_| anyhow!("the watcher panicked"))?;
    let (kills, peak_bytes) = (group.kills()?, group.peak_bytes()?);
    ensure!(
        kills == 0,
        "the node was killed for want of memory; before, {most}; bodies: {said}; {acked} events of \
         the writers"
    );
    let ledger = load.end(&runtime, stop)?.ledger();
    let recovered_after = runtime.block_on(until_served(&client)).context(said.clone())?;
    crash::check(&runtime, &client, &ledger, Via::Pages)?;
    server.kill()?;

    ensure!(acked > 0, "the writers got nothing through: {said}");
    ensure!(crowd.refused() > 0, "nothing was refused: the crowd is too small: {said}");
    ensure!(
        crowd.unclear_percent() <= UNCLEAR_PERCENT_MAX,
        "{:.1} % of the requests ended without a clear answer: {said}",
        crowd.unclear_percent()
    );
    Ok(Verdict::Ok(format!(
        "no kill, at most {} of {} MiB with the page cache, {most}; {acked} events of the writers; bodies: \
         {said}; served again after {:.0} ms",
        peak_bytes >> 20,
        LIMIT_BYTES >> 20,
        recovered_after.as_secs_f64() * 1e3
    )))
}

fn start(group: &Cgroup, data: &std::path::Path) -> Result<Server> {
    let prefix = group.prefix();
    let (program, words) = prefix.split_first().context("a prefix names a program")?;
    let mut command = Command::new(program);
    command.args(words).arg(tree::tl()).args(serve_args(data));
    command.env("TL_ENGINE__MEMORY_BUDGET_BYTES", BUDGET_BYTES.to_string());
    Server::spawn(command)
}

/// What a node held at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    resident_bytes: u64,
    /// What it counted itself.
    counted_bytes: u64,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resident, counted) = (self.resident_bytes >> 20, self.counted_bytes >> 20);
        write!(f, "{resident} MiB resident while it counted {counted}")
    }
}

/// Keeps the look with the most resident memory, until it is stopped or the node is gone.
async fn watch(client: Client, pid: u32, most: Arc<Mutex<Look>>) -> Result<()> {
    loop {
        let metrics = client.get_raw("/metrics").await?;
        let metrics = String::from_utf8_lossy(&metrics);
        let counted = metrics.lines().find_map(|line| line.strip_prefix(COUNTED));
        let counted_bytes = counted.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok());
        let resident_bytes = kib.unwrap_or(0_u64) << 10;
        {
            let mut most = most.lock().map_err(|_| anyhow!("who asks panicked"))?;
            if resident_bytes > most.resident_bytes {
                *most = Look { resident_bytes, counted_bytes };
            }
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Waits until a session can be made and written to.
async fn until_served(client: &Client) -> Result<Duration> {
    let began = Instant::now();
    let event = NewEvent::new("after", &serde_json::json!({}))?;
    loop {
        let outcome = async {
            client.create_or_bind(&CreateSession::with_id("after")).await?;
            let producer = Producer::new(client.clone(), "after", "accept");
            producer.with_policy(RetryPolicy::once()).append(&event, None).await
        };
        match outcome.await {
            Ok(_) => return Ok(began.elapsed()),
            Err(error) if began.elapsed() > RECOVERY_MAX => {
                bail!("not served {} s after the crowd: {error:#}", RECOVERY_MAX.as_secs())
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
