//! Whole nodes in one thread: simulated clocks, disks and network around the shipped
//! [`Node`](tl_engine::node::Node), a workload that knows what it was told, and the promises
//! checked at every step.
//!
//! ```text
//!  clients, tails ──► World: one queue of events by virtual time, one seeded generator
//!                        │
//!       Machine × 3..5: Node + Wal on MemDisk + MemStore  Links: delay, loss, splits
//!                        │
//!                   invariants, one file each: the first that breaks ends the run
//! ```
//!
//! One seed is one run: the same seed gives the same events in the same order, bit for bit. A
//! seed that broke something is all that is needed to see it again.
//!
//! A run goes through three phases. *Trouble*: crashes, kills, sync errors, full disks, splits,
//! lost and late frames, jumping wall clocks, while clients write and read. *Healing*: every
//! machine is up and the network clean, and every group must take a write within
//! [`options::HEAL_WITHIN_MS`]. *Reckoning*: all replicas hold the same, and all that was
//! acknowledged.
//!
//! In about a third of the seeds machines keep little of log and entries, as little as their own rows
//! allow: whoever is away for long comes back by rows of whole groups, over the messages of the
//! shipped node. In the others the log is kept until every replica has flushed past it.
//!
//! In a third of the seeds disks are lost: the machine comes back with nothing under another number,
//! and whoever leads a group lets that take the place of the lost one, by the shipped planner and by
//! the list of members that it has heard of. A new disk may be lost again before it counts, of five
//! machines a second one's meanwhile, and what was replaced may go on running. In a quarter rows rot on one machine, in another quarter a
//! machine's log rots while that is down, in a third wall clocks
//! go a day forward on whoever leads, and back, and in another disks are slow for seconds.
//!
//! Absent: logs that cannot be gone on from, with which a node refuses to start (the log's own tests
//! cover that), and the hub between rows and tails, which has threads (the engine's tests cover
//! it).

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

pub mod coverage;
pub mod invariants;
pub mod options;
pub mod report;

mod links;
mod machine;
mod queue;
mod shadow;
mod trace;
mod workload;
mod world;

pub use coverage::Coverage;
pub use invariants::Violation;
pub use options::Options;
pub use report::{Report, Summary};

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    world::run(seed, options)
}

/// Seeds that one thread has before it; a thread that is done with its own waits for no other until
/// all of them are.
const SEEDS_PER_THREAD: u64 = 16;

/// Runs many seeds on some threads, and says after each what it gave, in the order of the seeds.
/// Stops at the first broken promise: what is said does not depend on the number of threads.
pub fn run_many(
    mut seeds: Range<u64>,
    options: &Options,
    threads: NonZero<u16>,
    mut each: impl FnMut(&Report),
) -> Summary {
    let mut summary = Summary::default();
    while !seeds.is_empty() {
        let end = seeds.end.min(seeds.start + u64::from(threads.get()) * SEEDS_PER_THREAD);
        for report in run_some(seeds.start..end, options, threads) {
            each(&report);
            let broken = report.violation.is_some();
            summary.add(report);
            if broken {
                return summary;
            }
        }
        seeds.start = end;
    }
    summary
}

/// The reports of a few seeds, in order.
fn run_some(seeds: Range<u64>, options: &Options, threads: NonZero<u16>) -> Vec<Report> {
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let work = || {
        let taken = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end);
        std::iter::from_fn(taken).map(|seed| run(seed, options)).collect::<Vec<_>>()
    };
    let mut reports: Vec<Report> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
        let done = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        // A seed that panics is a bug of ours, and the whole run says so.
        done.flat_map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    reports.sort_unstable_by_key(|report| report.seed);
    reports
}
