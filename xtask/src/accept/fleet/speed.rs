//! What `tl fleet bench` measures, held to its bounds; and pgbench as the peer.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::postgres::Postgres;
use crate::accept::bounds::Bounds;
use crate::accept::{Verdict, judge, quiet};
use crate::command::Call;
use crate::tree;

/// Callers of either side.
const CONNECTIONS: &str = "8";
/// Length of a timed cell, seconds.
const SECONDS: &str = "10";
/// Finished steps beside which a claim is timed.
const FINISHED: &str = "10000000";

/// The cycle as anybody would write it: put one in, take one, mark it as done; each its own
/// transaction, and a partial index on what waits.
const CYCLE: &str = "\
INSERT INTO bare (payload) VALUES ('{}');
WITH one AS (
  UPDATE bare SET state = 1 WHERE id = (
    SELECT id FROM bare WHERE state = 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
  RETURNING id) SELECT coalesce((SELECT id FROM one), 0) AS id \\gset
UPDATE bare SET state = 2 WHERE id = :id;
";
const TABLE: &str = "\
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (id bigserial PRIMARY KEY, state smallint NOT NULL DEFAULT 0, payload text);
CREATE INDEX bare_waiting ON bare (id) WHERE state = 0;
";

/// One line of the bench; what was not measured is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Figures {
    durability: String,
    steps_per_s: Option<f64>,
    batch_steps_per_s: Option<f64>,
    one_steps_per_s: Option<f64>,
    submit_to_start_p50_ms: Option<f64>,
    submit_to_start_p99_ms: Option<f64>,
    claim_empty_p50_ms: Option<f64>,
    claim_full_p50_ms: Option<f64>,
    claim_ratio: Option<f64>,
    orphans_recovered_ms: Option<f64>,
    scaling_2_ratio: Option<f64>,
    scaling_4_ratio: Option<f64>,
    scaling_8_ratio: Option<f64>,
    idle_mib: Option<f64>,
    cached_p99_ms: Option<f64>,
}

/// Where a bench runs.
enum Place<'p> {
    Sqlite,
    Postgres(&'p Postgres),
}

fn bench(place: &Place<'_>, cells: &str, more: &[&str]) -> Result<Figures> {
    let mut words = vec!["fleet", "bench", "--json", "--only", cells, "--seconds", SECONDS];
    words.extend(["--connections", CONNECTIONS]);
    words.extend(more);
    let url = match place {
        Place::Sqlite => None,
        Place::Postgres(server) => Some(server.url()),
    };
    match &url {
        Some(url) => words.extend(["--url", url]),
        None => words.extend(["--store", "sqlite"]),
    }
    let printed = Call::new(tree::built_tl()?).args(words).output()?;
    serde_json::from_str(printed.trim()).with_context(|| format!("a figure is {printed}"))
}

fn some(figure: Option<f64>, name: &str) -> Result<f64> {
    figure.with_context(|| format!("the bench gave no {name}"))
}

pub fn sqlite() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let found = bench(&Place::Sqlite, "batch,one,pod,start", &[])?;
    let rate = some(found.steps_per_s, "steps_per_s")?;
    let mut bounds = Bounds::default();
    bounds.at_least("steps/s", rate, 10_000.0);
    let figures = format!("{rate:.0} steps/s by one pod, {}", others(&found));
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}

/// What is shown beside a figure that is judged.
fn others(found: &Figures) -> String {
    let mut said = Vec::new();
    let mut say = |name: &str, unit: &str, figure: Option<f64>| {
        said.extend(figure.map(|figure| format!("{name} {figure:.1}{unit}")));
    };
    say("batched", "/s", found.batch_steps_per_s);
    say("one by one", "/s", found.one_steps_per_s);
    say("submit to start p50", " ms", found.submit_to_start_p50_ms);
    say("p99", " ms", found.submit_to_start_p99_ms);
    said.push(found.durability.clone());
    said.join(", ")
}

/// Cycles per second of pgbench.
fn pgbench(server: &Postgres) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("cycle.sql");
    std::fs::write(&script, CYCLE)?;
    let port = server.port().to_string();
    let at = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let programs = server.programs();
    Call::new(programs.join("psql")).args(at).args(["-q", "-c", TABLE, "postgres"]).run()?;
    let script = script.to_string_lossy().into_owned();
    let printed = Call::new(programs.join("pgbench"))
        .args(at)
        .args(["-n", "-c", CONNECTIONS, "-j", "2", "-M", "prepared", "-T", SECONDS, "-f", &script])
        .args(["postgres"])
        .output()?;
    let rate = printed.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    rate.with_context(|| format!("pgbench said {printed}"))
}

/// By turns, so that whatever else the machine does meets both.
fn against_pgbench(cell: &str, least: f64, pick: fn(&Figures) -> Option<f64>) -> Result<Verdict> {
    const ROUNDS: usize = 3;
    let busy = quiet::wait()?;
    let server = Postgres::start()?;
    let mut ratios = Vec::new();
    let mut said = Vec::new();
    for _ in 0..ROUNDS {
        let bare = pgbench(&server)?;
        let ours = bench(&Place::Postgres(&server), cell, &[])?;
        let rate = some(pick(&ours), cell)?;
        ratios.push(rate / bare);
        said.push(format!("{rate:.0} of {bare:.0} = {:.2}", rate / bare));
        if said.len() == ROUNDS {
            said.push(ours.durability);
        }
    }
    server.stop()?;
    ratios.sort_by(f64::total_cmp);
    let mut bounds = Bounds::default();
    bounds.at_least("the median ratio", ratios[ROUNDS / 2], least);
    judge(busy.map(quiet::stayed_busy), &said.join(", "), &bounds.0)
}

pub fn postgres_batched() -> Result<Verdict> {
    against_pgbench("batch", 8.0, |found| found.batch_steps_per_s)
}

pub fn postgres_one() -> Result<Verdict> {
    against_pgbench("one", 1.0, |found| found.one_steps_per_s)
}

pub fn postgres_pod() -> Result<Verdict> {
    let busy = quiet::wait()?;
    let server = Postgres::start()?;
    let found = bench(&Place::Postgres(&server), "pod,start", &[])?;
    server.stop()?;
    let rate = some(found.steps_per_s, "steps_per_s")?;
    judge(busy.map(quiet::stayed_busy), &format!("{rate:.0} steps/s, {}", others(&found)), &[])
}

fn claim(place: &Place<'_>) -> Result<Verdict> {
    let busy = quiet::wait()?;
    let found = bench(place, "claim", &["--finished", FINISHED])?;
    let ratio = some(found.claim_ratio, "claim_ratio")?;
    let (empty, full) = (
        some(found.claim_empty_p50_ms, "claim_empty_p50_ms")?,
        some(found.claim_full_p50_ms, "claim_full_p50_ms")?,
    );
    let mut bounds = Bounds::default();
    bounds.at_most("the ratio of medians", ratio, 1.2);
    let figures = format!("{full:.3} ms of {empty:.3} ms = {ratio:.2}");
    judge(busy.map(quiet::stayed_busy), &figures, &bounds.0)
}

pub fn claim_sqlite() -> Result<Verdict> {
    claim(&Place::Sqlite)
}

pub fn claim_postgres() -> Result<Verdict> {
    let server = Postgres::start()?;
    let verdict = claim(&Place::Postgres(&server));
    server.stop()?;
    verdict
}

/// The same cells on both stores, each held to the same bounds.
fn on_both(cell: &str, judge_one: fn(&Figures, &mut Bounds) -> Result<String>) -> Result<Verdict> {
    let busy = quiet::wait()?;
    let (mut bounds, mut said) = (Bounds::default(), Vec::new());
    let found = bench(&Place::Sqlite, cell, &[])?;
    said.push(format!("SQLite {}", judge_one(&found, &mut bounds)?));
    let server = Postgres::start()?;
    let found = bench(&Place::Postgres(&server), cell, &[])?;
    server.stop()?;
    said.push(format!("Postgres {}", judge_one(&found, &mut bounds)?));
    judge(busy.map(quiet::stayed_busy), &said.join("; "), &bounds.0)
}

pub fn orphans() -> Result<Verdict> {
    on_both("orphans", |found, bounds| {
        let ms = some(found.orphans_recovered_ms, "orphans_recovered_ms")?;
        bounds.at_most("ms", ms, 2_000.0);
        Ok(format!("{ms:.0} ms"))
    })
}

pub fn scaling() -> Result<Verdict> {
    on_both("scaling", |found, bounds| {
        let ratios = [found.scaling_2_ratio, found.scaling_4_ratio, found.scaling_8_ratio];
        let mut said = Vec::new();
        for (pods, ratio) in ["2", "4", "8"].into_iter().zip(ratios) {
            let ratio = some(ratio, "scaling ratio")?;
            bounds.at_least(&format!("{pods} pods"), ratio, 0.9);
            said.push(format!("{pods} pods {ratio:.2}"));
        }
        Ok(said.join(", "))
    })
}

pub fn idle() -> Result<Verdict> {
    on_both("idle", |found, bounds| {
        let mib = some(found.idle_mib, "idle_mib")?;
        bounds.at_most("MiB", mib, 30.0);
        Ok(format!("{mib:.1} MiB"))
    })
}

pub fn cached() -> Result<Verdict> {
    on_both("cached", |found, bounds| {
        let ms = some(found.cached_p99_ms, "cached_p99_ms")?;
        bounds.at_most("p99 ms", ms, 1.0);
        Ok(format!("p99 {ms:.3} ms"))
    })
}
