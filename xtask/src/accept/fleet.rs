//! A fleet over SQLite and over Postgres: safe whatever dies, and fast.

mod faults;
mod newcomer;
mod postgres;
mod speed;

use super::{Line, Run};

/// Every line, in order: the quiet ones first.
pub const LINES: &[Line] = &[
    line("sqlite-speed", "SQLite with every answer synced: at least 10,000 steps/s", speed::sqlite),
    line(
        "postgres-batched",
        "Postgres with synchronous_commit on, batched: at least 8 × pgbench's bare enqueue, \
         claim-one, finish-one at the same connections",
        speed::postgres_batched,
    ),
    line(
        "postgres-one",
        "Postgres with one step per call: at least 1.0 × the same cycle of pgbench",
        speed::postgres_one,
    ),
    line(
        "postgres-pod",
        "one pod over Postgres: 15,000 steps/s is the aim, its figure is shown",
        speed::postgres_pod,
    ),
    line(
        "claim-sqlite",
        "SQLite: a claim beside 10 M finished steps at most 1.2 × one beside none",
        speed::claim_sqlite,
    ),
    line(
        "claim-postgres",
        "Postgres: a claim beside 10 M finished steps at most 1.2 × one beside none",
        speed::claim_postgres,
    ),
    line("orphans", "10,000 orphans taken back within 2 s of their lease's end", speed::orphans),
    line(
        "scaling",
        "1, 2, 4 and 8 pods with steps of 50 ms: at least 0.9 of linear, on both stores",
        speed::scaling,
    ),
    line("idle", "an idle pod holds at most 30 MiB, on both stores", speed::idle),
    line("cached", "cached endpoints: p99 below 1 ms, on both stores", speed::cached),
    line(
        "conformance",
        "the conformance suite on SQLite and on a real Postgres",
        faults::conformance,
    ),
    line(
        "processes",
        "kill -9 in a step, frozen pods that wake, stalls shorter than the lease and of three \
         leases, skewed calendars, a leader killed in recovery, 1,000 effects under kills, 10,000 \
         steps over eight pods, on both stores",
        faults::processes,
    ),
    line(
        "outage",
        "the database away for 20 s: nothing lost, no attempt charged, on both stores",
        faults::outage,
    ),
    line(
        "takeover",
        "a killed leader's epoch moves within its lease and one heartbeat, on both stores",
        faults::takeover,
    ),
    line(
        "signals",
        "SIGTERM with steps that run, steps that run long and steps held ready, on both stores",
        faults::signals,
    ),
    line("handlers", "a hung handler is taken back; the last retry really runs", faults::handlers),
    line("planted", "guards that were taken away are noticed", faults::planted),
    line(
        "newcomer",
        "a pod with nothing installed, a step from a second terminal, its result",
        newcomer::run,
    ),
];

const fn line(
    name: &'static str,
    demand: &'static str,
    run: fn() -> anyhow::Result<super::Verdict>,
) -> Line {
    Line { name, demand, is_test_command: false, run: Run::Once(run) }
}
