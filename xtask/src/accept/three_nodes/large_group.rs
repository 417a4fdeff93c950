//! One group of gigabytes, and a member that has nothing of it: it is given all of it while writes go
//! on, and no member may have more memory than its budget and a quarter. Half-way the member is killed,
//! and what it had by then may not travel again.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tl_client::Client;
use tl_client::verify::{Ledger, Via};
use tl_client::workload::{Workload, WorkloadOptions};
use tokio::runtime::Runtime;

use super::members::{Cluster, NAMES, joined};
use crate::accept::Verdict;
use crate::cgroup::Cgroup;
use crate::crash::{self, Load};
use crate::needs;
use crate::server::Server;

const BUDGET_BYTES: u64 = 256 << 20;
const LIMIT_BYTES: u64 = BUDGET_BYTES + BUDGET_BYTES / 4;
/// Bytes of events in the group, in events of this size.
const GROUP_BYTES: u64 = 2 << 30;
const PAYLOAD_BYTES: usize = 60_000;
/// The member is killed once it was sent so much of the group.
const CUT_OFF_BYTES: u64 = GROUP_BYTES / 2;
/// Least that it must have kept of this: what its memory held is lost, and the flush under way.
const REUSED_BYTES_MIN: u64 = GROUP_BYTES / 4;
/// Longest wait for all of it to be written.
const WRITTEN_MAX: Duration = Duration::from_secs(1_800);
/// Longest wait for the member to have it, and for its first event of the group.
const GIVEN_MAX: Duration = Duration::from_secs(1_800);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the whole line.
pub fn run() -> Result<Verdict> {
    ensure!(needs::is_root(), "only root may make a control group");
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let cluster = Cluster::found(folder.path(), &["--groups", "1"])?;
    let cages: Vec<Cgroup> =
        NAMES.iter().map(|name| Cgroup::new(name, LIMIT_BYTES)).collect::<Result<_>>()?;
    let settings = [("TL_ENGINE__MEMORY_BUDGET_BYTES", BUDGET_BYTES.to_string())];
    let begin = |no: usize| cluster.begin(NAMES[no], &cages[no].prefix(), &settings);
    let begun = [begin(0), begin(1)];
    let others: Vec<Server> = begun.into_iter().map(joined).collect::<Result<_>>()?;

    let runtime = Runtime::new().context("cannot start a runtime")?;
    let mut ledger = Ledger::default();
    let client = Client::new(&others[0].url)?;
    let options = WorkloadOptions {
        sessions: 8,
        batch_ratio: 0.0,
        payload_bytes: PAYLOAD_BYTES,
        writes_max: usize::MAX,
        ..WorkloadOptions::default()
    };
    let began = Instant::now();
    let workload = runtime.block_on(Workload::prepare(&client, options.clone()))?;
    let (load, stop) = Load::start(&runtime, workload);
    load.acked_past(&runtime, GROUP_BYTES / PAYLOAD_BYTES as u64, WRITTEN_MAX)?;
    ledger.merge(load.end(&runtime, stop)?.ledger());
    let written_s = began.elapsed().as_secs_f64();

    let few = WorkloadOptions { writers: 2, seed: 2, payload_bytes: 1_000, ..options };
    let workload = runtime.block_on(Workload::prepare(&client, few))?;
    let (load, stop) = Load::start(&runtime, workload);
    let began = Instant::now();
    // It is ready when it has been given the group: nobody waits for that here.
    let mut first = cluster.command(NAMES[2], &cages[2].prefix(), &settings);
    let mut first = first.stdout(Stdio::null()).spawn().context("cannot start the member")?;
    let given = || -> Result<u64> {
        let each = others
            .iter()
            .map(|other| counted(&runtime, &Client::new(&other.url)?, "snapshot_bytes_total"));
        each.sum()
    };
    let sent = loop {
        let sent = given();
        if began.elapsed() >= GIVEN_MAX || !matches!(sent, Ok(sent) if sent < CUT_OFF_BYTES) {
            break sent;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    first.kill().context("cannot kill the member")?;
    first.wait().context("cannot wait for the member")?;
    let sent = sent?;
    ensure!(sent >= CUT_OFF_BYTES, "half not given within {} s", GIVEN_MAX.as_secs());
    let late = joined(begin(2))?;
    let its = Client::new(&late.url)?;
    while counted(&runtime, &its, "snapshots_taken_total")? == 0 {
        ensure!(began.elapsed() < GIVEN_MAX, "not given within {} s", GIVEN_MAX.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
    let given_s = began.elapsed().as_secs_f64();
    let meanwhile = load.acked_events();
    ledger.merge(load.end(&runtime, stop)?.ledger());
    crash::check(&runtime, &its, &ledger, Via::Pages).context("read from the late member")?;

    let (given_bytes, reused_bytes) =
        (given()?, counted(&runtime, &its, "snapshot_bytes_reused_total")?);
    let taken = counted(&runtime, &its, "snapshots_taken_total")?;
    let mut peaks = Vec::new();
    for (cage, name) in cages.iter().zip(NAMES) {
        ensure!(cage.kills()? == 0, "{name} was killed for want of memory");
        peaks.push((cage.peak_bytes()? >> 20).to_string());
    }
    for node in others.into_iter().chain([late]) {
        node.kill()?;
    }
    ensure!(meanwhile > 0, "nothing was written while rows travelled");
    ensure!(
        reused_bytes >= REUSED_BYTES_MIN,
        "killed after {} MiB, and only {} MiB did not travel again",
        sent >> 20,
        reused_bytes >> 20
    );
    Ok(Verdict::Ok(format!(
        "written in {written_s:.0} s, given in {given_s:.0} s with one kill -9 half-way: {} MiB of rows sent, {} MiB \
         not sent again, {taken} transfer(s) to the end, {meanwhile} events written meanwhile; at most {} of {} MiB \
         with the page cache",
        given_bytes >> 20,
        reused_bytes >> 20,
        peaks.join(", "),
        LIMIT_BYTES >> 20
    )))
}

/// A counter in a node's metrics.
fn counted(runtime: &Runtime, client: &Client, name: &str) -> Result<u64> {
    let metrics = runtime.block_on(client.get_raw("/metrics"))?;
    let metrics = String::from_utf8_lossy(&metrics);
    let name = format!("throughline_{name} ");
    let text = metrics.lines().find_map(|line| line.strip_prefix(&name));
    text.with_context(|| format!("no {name}in the metrics"))?.trim().parse().context("a counter")
}
