//! The node at its limits: speed beside the raw ceilings, memory under a budget, a full disk,
//! abuse, and steadiness.

mod abuse;
mod disk;
mod memory;
mod speed;
mod steady;
mod weight;

use super::{Line, Run};

/// Every line, in order: the quiet ones first, for after the others the disk has work to do.
pub const LINES: &[Line] = &[
    line(
        "append",
        "appends of 1 KiB: 256 and 64 clients at least 0.5 of the ceiling, 16 at least 0.6, 1 \
         client p50 at most 100 µs above it",
        Run::Once(speed::append),
    ),
    line(
        "sustained",
        "60 s at 256 clients: at least 0.45 of the ceiling, device bytes at most 2.5 × bodies, \
         p99.9 at most 30 ms",
        Run::Once(speed::sustained),
    ),
    line(
        "compare",
        "ahead of Redis XADD (always) at 16 to 256 clients, at least 3 × Postgres INSERT at 64 and \
         256",
        Run::Once(speed::compare),
    ),
    line(
        "batch",
        "batches of 64 × 100 B at least 0.3 of the pipelined ceiling",
        Run::Once(speed::batch),
    ),
    line(
        "fanout",
        "1 event to 1,000 WebSockets: p99 of the last delivery at most 1.5 × raw fan-out",
        Run::Once(speed::fanout),
    ),
    line(
        "tail",
        "from an append's answer to an open tail: p50 at most 100 µs",
        Run::Once(speed::tail),
    ),
    line(
        "replay",
        "replay from disk as JSON at least 0.25 of raw replay",
        Run::Once(speed::replay),
    ),
    line(
        "start",
        "start on an empty directory and on none: at most 50 ms and 30 MiB",
        Run::Once(weight::start),
    ),
    line(
        "restart",
        "1 GiB of log that was not flushed: ready in at most 1.5 × reading and checking it, warm \
         and cold",
        Run::Once(weight::restart),
    ),
    line(
        "sessions",
        "1,000,000 sessions: at most 512 B each; cold appends p50 at most 2 × hot ones",
        Run::Once(weight::sessions),
    ),
    line(
        "memory",
        "memory limited to budget + 25 %, 64 writers, 200 stalled tails, 2,000 slow bodies, 60 s: \
         no kill, clear refusals, recovered within 5 s",
        Run::Once(memory::run),
    ),
    line(
        "disk-full",
        "a full disk: refused as disk_full, readable, nothing lost; with room again writes go on",
        Run::Once(disk::run),
    ),
    line("abuse", "the list of abuses, as tests", Run::Once(abuse::tests)),
    line("fuzz", "every fuzz body for its minutes", Run::Minutes(2, abuse::fuzz)),
    line(
        "steady",
        "full load: memory does not grow, p99.9 at most 5 × p99, no cliff",
        Run::Minutes(10, steady::run),
    ),
];

const fn line(name: &'static str, demand: &'static str, run: Run) -> Line {
    Line { name, demand, is_test_command: false, run }
}
