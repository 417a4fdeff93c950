//! A node that starts on nothing, and one that has nothing to do.

use std::time::Duration;

use serde::Serialize;

use super::cells::{Latency, histogram};
use super::child::Server;
use super::scratch::Scratch;
use super::{IdleArgs, StartArgs, http, system};
use crate::output::Out;

/// How long a fresh node settles before it is watched idle.
const SETTLE: Duration = Duration::from_secs(2);

/// Starts of one kind.
#[derive(Debug, Serialize)]
struct Starts {
    workload: &'static str,
    /// What the node finds: an `empty` directory, or `none`.
    directory: &'static str,
    repetitions: u16,
    /// From the start of the process to the line that says it is ready.
    #[serde(flatten)]
    ready: Latency,
    /// The most resident memory at that moment, KiB.
    resident_kib: u64,
}

/// `tl bench start`.
pub fn start(args: &StartArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let mut kinds = [("empty", histogram()?, 0), ("none", histogram()?, 0)];
    for repetition in 0..args.repetitions {
        for (directory, ready_us, resident_kib) in &mut kinds {
            let data = dir.path().join(format!("{directory}-{repetition}"));
            if *directory == "empty" {
                std::fs::create_dir(&data)?;
            }
            let node = Server::node(&data, &[])?;
            *resident_kib = system::resident_max_kib(node.pid())?.max(*resident_kib);
            ready_us.saturating_record(node.ready_after.as_micros() as u64);
            node.kill()?;
            std::fs::remove_dir_all(&data)?;
        }
    }
    for (directory, ready_us, resident_kib) in kinds {
        let (repetitions, ready) = (args.repetitions, Latency::of(&ready_us));
        let starts = Starts { workload: "start", directory, repetitions, ready, resident_kib };
        let text = format!(
            "start, directory: {directory}: ready after p50 {:.1} ms, at most {:.1} ms; resident \
             at most {:.1} MiB ({repetitions} repetitions)",
            ready.p50_us as f64 / 1e3,
            ready.max_us as f64 / 1e3,
            resident_kib as f64 / 1024.0
        );
        out.either(&starts, &text)?;
    }
    Ok(())
}

/// A node that nobody calls.
#[derive(Debug, Serialize)]
struct Idle {
    workload: &'static str,
    seconds: u64,
    /// Processor time it used, of one processor.
    cpu_ratio: f64,
    /// Resident memory at the end, KiB.
    resident_kib: u64,
    /// Syncs of its log meanwhile.
    syncs: u64,
}

/// `tl bench idle`.
pub fn idle(args: &IdleArgs, out: &Out) -> anyhow::Result<()> {
    let dir = Scratch::new(args.dir.as_deref())?;
    let node = Server::node(&dir.path().join("node"), &[])?;
    std::thread::sleep(SETTLE);
    let syncs = http::metric(node.address, "log_syncs_total")?;
    let cpu_us = system::cpu_us(node.pid())?;
    std::thread::sleep(Duration::from_secs(args.seconds));
    let used_us = system::cpu_us(node.pid())?.saturating_sub(cpu_us);
    let resident_kib = system::resident_kib(node.pid())?;
    let idle = Idle {
        workload: "idle",
        seconds: args.seconds,
        cpu_ratio: used_us as f64 / (args.seconds as f64 * 1e6),
        resident_kib,
        syncs: http::metric(node.address, "log_syncs_total")? - syncs,
    };
    let text = format!(
        "idle for {} s: {:.3} % of a processor, resident {:.1} MiB, {} syncs",
        idle.seconds,
        idle.cpu_ratio * 100.0,
        resident_kib as f64 / 1024.0,
        idle.syncs
    );
    out.either(&idle, &text)
}
