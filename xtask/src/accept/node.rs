//! The single node: durable sessions, create → append → tail.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tl_client::Client;
use tl_client::verify::Via;
use tl_client::workload::{Workload, WorkloadOptions};
use tokio::runtime::Runtime;

use super::{Line, Run, Verdict, data, judge, quiet, scrub};
use crate::command::{Call, cargo, last_lines};
use crate::crash::{self, Load};
use crate::figures::{self, Cell};
use crate::server::Server;
use crate::{cage, planted, sync_order, tree};

/// Every line, in order.
pub const LINES: &[Line] = &[
    line("demo", "clean clone, network cut off: the demo ends by itself", demo),
    Line {
        is_test_command: true,
        ..line("test", "clean clone: the test command passes", test_command)
    },
    line(
        "dataset",
        "data set in, again without effect, out the same; tails from the middle, live and after",
        data::run,
    ),
    line("crash", "30 kills under 64 writers: nothing lost, doubled or reordered", crash_rounds),
    line("sync-order", "the reply of an append follows its finished sync", sync),
    line("simulation", "200 simulated seeds pass with every fault covered", simulation),
    line("planted", "every planted bug is found", planted_bugs),
    line("restart", "ready again after kill -9 behind 1 GiB of appends", restart),
    line("speed", "append speed beside the raw ceiling at 1, 16, 64, 256 clients", speed),
];

/// Bytes appended before the restart that is timed.
const RESTART_BYTES: u64 = 1 << 30;
const RESTART_PAYLOAD_BYTES: usize = 8 * 1024;
const RESTART_LOAD_MAX: Duration = Duration::from_secs(600);
/// Longest run of the demo, seconds, once it is built.
const DEMO_SECONDS_MAX: u32 = 45;
/// Simulated seeds: the ones behind those that `cargo test` runs.
const SEEDS: Range<u64> = 400..600;

const fn line(name: &'static str, demand: &'static str, run: fn() -> Result<Verdict>) -> Line {
    Line { name, demand, is_test_command: false, run: Run::Once(run) }
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
    let began = Instant::now();
    let (status, printed) = cage::call(DEMO_SECONDS_MAX, clone.path(), Path::new("cargo"), &words)
        .env("CARGO_TARGET_DIR", clone.path().join("target"))
        .verdict()?;
    let took = began.elapsed();
    // The cage kills what takes longer than its time; that, too, is an end without success.
    ensure!(
        status.success(),
        "it ended with {status} after {:.0} s: {}",
        took.as_secs_f64(),
        last_lines(&printed, 10)
    );
    let verified = verified(&printed)?;
    Ok(Verdict::Ok(format!("{:.0} s: {verified}", took.as_secs_f64())))
}

/// The line in which the demo says what it found, which must be nothing.
fn verified(printed: &str) -> Result<&str> {
    let line = printed.lines().find(|line| line.starts_with("Verified "));
    let line =
        line.with_context(|| format!("nothing was verified: {}", last_lines(printed, 10)))?;
    for none in [" 0 lost", " 0 doubled"] {
        ensure!(line.contains(none), "it does not say{none}: {line}");
    }
    Ok(line)
}

fn test_command() -> Result<Verdict> {
    let clone = clone()?;
    let began = Instant::now();
    in_clone(clone.path(), "xtask test").run()?;
    Ok(Verdict::Ok(format!("{:.0} s with the build", began.elapsed().as_secs_f64())))
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
    let seeds = format!("{}..{}", SEEDS.start, SEEDS.end);
    let printed = Call::new(tree::tl()).args(["sim", "--seeds", &seeds, "--json"]).output()?;
    let last = printed.lines().next_back().context("the simulator printed nothing")?;
    Ok(Verdict::Ok(covered(last)?))
}

/// Reads the simulator's last line: all seeds ran, and nothing that it can do never happened.
fn covered(line: &str) -> Result<String> {
    let line: Value = serde_json::from_str(line).context("the last line is not JSON")?;
    let seeds = SEEDS.end - SEEDS.start;
    ensure!(line["seeds"] == seeds, "{} seeds ran instead of {seeds}", line["seeds"]);
    let coverage = line["coverage"].as_object().context("the last line has no coverage")?;
    let never: Vec<&String> =
        coverage.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
    ensure!(!coverage.is_empty() && never.is_empty(), "never happened: {never:?}");
    Ok(format!("{seeds} seeds, {} operations", coverage["operations"]))
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
    let (ready_after, entries_replayed) = (server.ready_after, server.entries_replayed);
    server.kill()?;
    let log_bytes = bytes_in(&folder.path().join("log"))?;
    scrub(folder.path())?;
    Ok(Verdict::Ok(format!(
        "{:.0} ms, {entries_replayed} entries replayed, log of {:.0} MiB, {} events there",
        ready_after.as_secs_f64() * 1e3,
        log_bytes as f64 / (1 << 20) as f64,
        ledger.acknowledged_events()
    )))
}

/// Bytes of the files in a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn speed() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let words = ["append", "--against", "ceiling", "--conns", "1,16,64,256"];
    let cells: Vec<Cell> = figures::bench(&words)?;
    let mut figures = Vec::new();
    let mut void = busy.map(quiet::stayed_busy);
    for cell in &cells {
        let other = cell.against()?;
        void = void.or_else(|| quiet::too_slow(cell.conns, other.against_rate));
        figures.push(format!(
            "{} clients {:.0}/s of {:.0}/s = {:.2}, p50 {:.0} of {:.0} µs",
            cell.conns,
            cell.rate,
            other.against_rate,
            other.ratio,
            cell.p50_us,
            other.against_p50_us
        ));
    }
    ensure!(cells.len() == 4, "expected four cells, got {}", cells.len());
    judge(void, &figures.join("; "), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_must_say_that_nothing_was_lost_or_doubled() {
        let said = "Verified after one kill -9: 8 sessions, 90 present, 0 lost, 0 doubled; fine";
        assert_eq!(verified(&format!("up\n{said}\nmore")).unwrap(), said);
        assert!(verified(&said.replace(" 0 lost", " 10 lost")).is_err());
        assert!(verified(&said.replace(" 0 doubled", " 1 doubled")).is_err());
        assert!(verified(&format!("NOT {said}")).is_err());
    }

    #[test]
    fn a_simulation_covers_all_seeds_and_every_kind_of_trouble() {
        let line = r#"{"seeds":200,"coverage":{"kills":3,"operations":7}}"#;
        assert_eq!(covered(line).unwrap(), "200 seeds, 7 operations");
        assert!(covered(&line.replace("200", "199")).is_err());
        assert!(covered(&line.replace('3', "0")).is_err());
        assert!(covered(r#"{"seeds":200}"#).is_err());
    }
}
