//! Several nodes as one cluster: quorum, routing, fail-over, nothing lost.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

mod import;
mod large_group;
mod members;
mod speed;

use super::{Line, Run, Verdict};
use crate::command::Call;
use crate::{chaos, faces, soak, tree};

/// Every line, in order.
pub const LINES: &[Line] = &[
    line("simulation", "1,000 simulated clusters of three to five keep every promise", simulation),
    line("engines", "three engines: any member answers, members come and go, minority", engines),
    line(
        "import",
        "the data set through three nodes in turn, each killed and started again: the same on all",
        import::run,
    ),
    line("processes", "three processes, encrypted: kill -9 of each loses nothing", processes),
    line(
        "append",
        "appends to three nodes: 256 clients at least 0.4 of the replicated ceiling, 1 client p50 \
         at most 1.5 of its",
        speed::append,
    ),
    Line {
        name: "faults",
        demand: "process faults of a minute each under 33 writers and 18 tails",
        is_test_command: false,
        run: Run::Minutes(8, faults),
    },
    line(
        "dev",
        "`tl dev --nodes 3` under `cargo xtask chaos`: a minute of blows loses nothing",
        dev,
    ),
    line("rows", "kill -9 of whoever takes or gives whole groups, in the middle of it", rows),
    line(
        "large-group",
        "a group of 2 GiB is given to a member that has nothing of it and is killed half-way, while writes \
         go on, each member limited to a budget of 256 MiB + 25 %",
        large_group::run,
    ),
    line("survivor", "with two of three dead the last gives what it holds", survivor),
    line("rolling", "rolling restart with drains under load", rolling),
    line("wiped", "a wiped disk while a second node lags and the third is killed", wiped),
    line("failover", "first write after a leader's death within 1.5 s at p99", speed::failover),
    line(
        "idle",
        "three idle nodes, and with one killed: at most 3 % of a core and 120 MiB in all",
        speed::idle,
    ),
];

/// Seeds behind those that the test command runs.
const SEEDS: std::ops::Range<u64> = 1_000..2_000;

const fn line(name: &'static str, demand: &'static str, run: fn() -> Result<Verdict>) -> Line {
    Line { name, demand, is_test_command: false, run: Run::Once(run) }
}

fn simulation() -> Result<Verdict> {
    let seeds = format!("{}..{}", SEEDS.start, SEEDS.end);
    let printed = Call::new(tree::tl()).args(["sim", "--seeds", &seeds, "--json"]).output()?;
    let last = printed.lines().next_back().context("the simulator printed nothing")?;
    let last: Value = serde_json::from_str(last).context("the last line is not JSON")?;
    let count = SEEDS.end - SEEDS.start;
    ensure!(last["seeds"] == count, "{} seeds ran instead of {count}", last["seeds"]);
    let coverage = last["coverage"].as_object().context("the last line has no coverage")?;
    let never: Vec<&String> =
        coverage.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
    ensure!(!coverage.is_empty() && never.is_empty(), "never happened: {never:?}");
    Ok(Verdict::Ok(format!("{count} seeds, {} elections", coverage["elections"])))
}

fn engines() -> Result<Verdict> {
    passed("tl-engine", &["cluster::"])
}

fn processes() -> Result<Verdict> {
    passed("throughline", &["cluster::"])
}

fn faults(minutes: u32) -> Result<Verdict> {
    soak::for_minutes(minutes)?;
    Ok(Verdict::Ok(format!("{minutes} minutes, no violation")))
}

fn dev() -> Result<Verdict> {
    let options = chaos::Options { nodes: 3, seconds: 60, writers: 8, seed: None };
    let (blows, events) = chaos::run(&options)?;
    Ok(Verdict::Ok(format!("{blows} blows, {events} events, none lost")))
}

fn rows() -> Result<Verdict> {
    process_test("rows::members_killed_while_rows_are_given_lose_nothing")
}

fn survivor() -> Result<Verdict> {
    process_test("ops::the_last_of_three_gives_what_it_holds_and_claims_nothing_else")
}

fn rolling() -> Result<Verdict> {
    process_test("ops::members_are_drained_and_restarted_in_turn_and_nobody_notices")
}

fn process_test(name: &str) -> Result<Verdict> {
    passed("throughline", &[name, "--exact"])
}

fn passed(package: &str, words: &[&str]) -> Result<Verdict> {
    Ok(Verdict::Ok(format!("{} test(s) pass", faces::passed(package, words)?)))
}

fn wiped() -> Result<Verdict> {
    process_test(
        "wiped::a_wiped_disk_while_a_second_node_lags_and_the_third_is_killed_costs_no_event",
    )
}
