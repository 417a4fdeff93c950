//! A node that starts on nothing.

use serde::Serialize;

use super::cells::{Latency, histogram};
use super::child::Server;
use super::scratch::Scratch;
use super::{StartArgs, system};
use crate::output::Out;

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
