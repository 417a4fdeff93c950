//! The single node: durable sessions, create → append → tail.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tl_client::Client;
use tl_client::verify::Via;
use tl_client::workload::{Workload, WorkloadOptions};
use tokio::runtime::Runtime;

use super::export::Contents;
use super::{Line, Verdict, quiet, tails};
use crate::command::{Call, cargo, last_lines};
use crate::crash::{self, Load};
use crate::server::Server;
use crate::{cage, dataset, planted, sync_order, tree};

/// Every line, in order.
pub const LINES: &[Line] = &[
    line("demo", "clean clone, network cut off: the demo ends by itself", demo),
    Line {
        is_test_command: true,
        ..line("test", "clean clone: the test command passes", test_command)
    },
    line("dataset", "data set in, again without effect, out the same; tails from the middle", data),
    line("crash", "30 kills under 64 writers: nothing lost, doubled or reordered", crash_rounds),
    line("sync-order", "the reply of an append follows its finished sync", sync),
    line("simulation", "simulated seeds pass with every fault covered", simulation),
    line("planted", "every planted bug is found", planted_bugs),
    line("restart", "ready again after kill -9 behind 1 GiB of appends", restart),
    line("speed", "append speed beside the raw ceiling at 1, 16, 64, 256 clients", speed),
];

/// Bytes appended before the restart that is timed.
const RESTART_BYTES: u64 = 1 << 30;
const RESTART_PAYLOAD_BYTES: usize = 8 * 1024;
const RESTART_LOAD_MAX: Duration = Duration::from_secs(600);
/// Longest run of the demo, seconds; it may have to link the binary.
const DEMO_SECONDS_MAX: u32 = 300;

const fn line(name: &'static str, demand: &'static str, run: fn() -> Result<Verdict>) -> Line {
    Line { name, demand, is_test_command: false, run }
}

/// A clone of the committed tree with a build folder of its own.
fn clone() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("cannot make a folder for the clone")?;
    Call::new("git").args(["clone", "--quiet"]).args([tree::root(), folder.path()]).run()?;
    Ok(folder)
}

fn in_clone(folder: &Path, words: &str) -> Call {
    cargo(words.split(' ')).dir(folder).env("CARGO_TARGET_DIR", folder.join("target"))
}

fn demo() -> Result<Verdict> {
    let clone = clone()?;
    in_clone(clone.path(), "build --release --locked").run()?;
    let words = ["run", "--release", "--", "demo", "--exit"];
    let (status, printed) = cage::call(DEMO_SECONDS_MAX, clone.path(), Path::new("cargo"), &words)
        .env("CARGO_TARGET_DIR", clone.path().join("target"))
        .verdict()?;
    ensure!(status.success(), "it ended with {status}: {}", last_lines(&printed, 10));
    let last = last_lines(printed.trim_end(), 1);
    ensure!(last.chars().any(|c| c.is_ascii_digit()), "its last line has no counts: {last}");
    Ok(Verdict::Ok(last))
}

fn test_command() -> Result<Verdict> {
    let clone = clone()?;
    let began = std::time::Instant::now();
    in_clone(clone.path(), "xtask test").run()?;
    Ok(Verdict::Ok(format!("{:.0} s with the build", began.elapsed().as_secs_f64())))
}

/// `tl` with these words, talking to the node at `url`.
fn tl(url: &str, words: &[&str]) -> Call {
    Call::new(tree::tl()).args(words).args(["--url", url])
}

fn import(url: &str, path: &Path) -> Result<Value> {
    let path = path.to_string_lossy();
    let printed = tl(url, &["session", "import", &path, "--json"]).output()?;
    let last = printed.lines().next_back().context("the import printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("the import's last line is {last}"))
}

fn data() -> Result<Verdict> {
    let set = dataset::run()?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let node = folder.path().join("data");
    let server = Server::start(&node)?;

    let first = import(&server.url, &set.path)?;
    ensure!(first["appended"] == set.events, "the first import says {first}");
    let second = import(&server.url, &set.path)?;
    ensure!(second["appended"] == 0, "the second import says {second}");

    let out = folder.path().join("export.jsonl");
    let out_word = out.to_string_lossy();
    tl(&server.url, &["session", "export", "--all", "--out", &out_word]).run()?;
    let (imported, exported) = (Contents::read(&set.path)?, Contents::read(&out)?);
    imported.same_as(&exported).context("the export differs")?;

    let longest = imported.sessions.iter().max_by_key(|(_, events)| events.len());
    let (id, events) = longest.context("the data set is empty")?;
    let delivered = tails::by_command(&server.url, id, events.len() as u64)?
        + tails::from_the_middle(&server.url, id)?;

    // The same events must be there after a crash, and the runs on disk must be sound.
    server.kill()?;
    scrub(&node)?;
    Ok(Verdict::Ok(format!(
        "{} sessions, {} events; {delivered} events tailed on three fronts; runs sound",
        set.sessions,
        exported.events()
    )))
}

/// Reads every row of the store's runs and checks the rules of the key space.
fn scrub(data: &Path) -> Result<()> {
    let data = data.to_string_lossy();
    Call::new(tree::tl()).args(["debug", "run", "--scrub", "--data", &data]).run()
}

fn crash_rounds() -> Result<Verdict> {
    let options = crash::Options { rounds: 30, writers: 64, seconds: 2.0, seed: None };
    crash::run(&options)?;
    Ok(Verdict::Ok("30 rounds".into()))
}

fn sync() -> Result<Verdict> {
    sync_order::run()?;
    Ok(Verdict::Ok("write, sync, reply".into()))
}

fn simulation() -> Result<Verdict> {
    let printed = Call::new(tree::tl()).args(["sim", "--seeds", "20"]).output()?;
    Ok(Verdict::Ok(last_lines(printed.trim_end(), 1)))
}

fn planted_bugs() -> Result<Verdict> {
    let found = planted::run_all()?;
    Ok(Verdict::Ok(format!("{found} found")))
}

fn restart() -> Result<Verdict> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let runtime = Runtime::new()?;
    let server = Server::start(folder.path())?;
    let client = Client::new(&server.url)?;
    let options = WorkloadOptions {
        batch_ratio: 1.0,
        payload_bytes: RESTART_PAYLOAD_BYTES,
        ..WorkloadOptions::default()
    };
    let workload = runtime.block_on(Workload::prepare(&client, options))?;
    let (load, stop) = Load::start(&runtime, workload);
    load.acked_past(&runtime, RESTART_BYTES / RESTART_PAYLOAD_BYTES as u64, RESTART_LOAD_MAX)?;
    server.kill()?;
    let ledger = load.end(&runtime, stop)?.ledger();

    let server = Server::start(folder.path())?;
    client.set_base(&server.url)?;
    crash::check(&runtime, &client, &ledger, Via::Pages)?;
    let ready_after = server.ready_after;
    server.kill()?;
    scrub(folder.path())?;
    let events = ledger.acknowledged_events();
    Ok(Verdict::Ok(format!("{:.0} ms, {events} events there", ready_after.as_secs_f64() * 1e3)))
}

fn speed() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let printed = Call::new(tree::tl())
        .args(["bench", "append", "--against", "ceiling", "--conns", "1,16,64,256", "--json"])
        .output()?;
    let mut figures = Vec::new();
    let mut void = busy.map(|load| format!("the load stayed at {load}"));
    for line in printed.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).context("a figure is not JSON")?;
        let number = |name: &str| line[name].as_f64().with_context(|| format!("{name} in {line}"));
        let clients = line["conns"].as_u64().with_context(|| format!("conns in {line}"))?;
        let (ceiling, rate, ratio) = (number("ceiling_rate")?, number("rate")?, number("ratio")?);
        let (p50, ceiling_p50) = (number("p50_us")?, number("ceiling_p50_us")?);
        void = void.or_else(|| quiet::too_slow(clients, ceiling));
        figures.push(format!(
            "{clients} clients {rate:.0}/s of {ceiling:.0}/s = {ratio:.2}, p50 {p50:.0} of {ceiling_p50:.0} µs"
        ));
    }
    ensure!(figures.len() == 4, "expected four figures: {printed}");
    let figures = figures.join("; ");
    Ok(match void {
        Some(reason) => Verdict::Void(format!("{figures} ({reason})")),
        None => Verdict::Ok(figures),
    })
}
