//! Pods in this process: how much one does, how soon, how many do more, and what is taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tl_fleet::{
    ClaimRequest, Claimant, Handlers, JsonText, NewStep, PodId, PodSettings, Run, RunningPod, Store,
};

use super::{Bench, histogram, kind, percentiles, steps};

/// Steps that wait at most while a pod is kept busy.
const WAITING_MAX: u64 = 20_000;
/// Time that a step of `scaling` takes.
const SLEEP: Duration = Duration::from_millis(50);
/// Steps that a pod of `scaling` runs at once.
const PARALLEL: u32 = 10;
/// Time between two looks at what is done.
const LOOK: Duration = Duration::from_millis(10);
/// Lease of steps whose holder goes away.
const ORPHAN_LEASE_MS: u64 = 3_000;

fn settings(bench: &Bench, name: &str) -> anyhow::Result<PodSettings> {
    let folder = bench.folder.join("pods").join(name);
    Ok(PodSettings {
        capacity_threshold: 1.0,
        // What is measured is the fleet, whatever else the machine does.
        heed_pressure: false,
        ..PodSettings::new(PodId::new(name)?, folder)
    })
}

/// A pod that does nothing, as fast as it can, fed by batches.
pub async fn throughput(bench: &Bench) -> anyhow::Result<Value> {
    let done = Arc::new(AtomicU64::new(0));
    let mut handlers = Handlers::new();
    let counts = Arc::clone(&done);
    handlers.typed(kind(), move |_: Value, _: Run| {
        counts.fetch_add(1, Ordering::Relaxed);
        async { Ok(Value::Null) }
    })?;
    let store = bench.store().await?;
    let settings =
        PodSettings { max_parallelism: 100, prefetch_max: 900, ..settings(bench, "throughput")? };
    let pod = RunningPod::start(settings, Arc::clone(&store), handlers)?;
    let batch = usize::from(bench.args.batch);
    let length = Duration::from_secs(bench.args.seconds.into());
    let mut submitted = 0_u64;
    let mut began = None;
    let (mut at_start, began) = loop {
        while submitted - done.load(Ordering::Relaxed).min(submitted) < WAITING_MAX {
            store.submit(steps(batch)).await?;
            submitted += batch as u64;
        }
        // The clock starts when the pod has found its stride.
        let so_far = pod.handle().status().counted.completed;
        match began {
            None if so_far > WAITING_MAX / 2 => began = Some((so_far, Instant::now())),
            Some((at_start, at)) if Instant::elapsed(&at) >= length => break (at_start, at),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let took = began.elapsed();
    at_start = pod.handle().status().counted.completed - at_start;
    let rate = at_start as f64 / took.as_secs_f64();
    drop(pod);
    Ok(json!({ "steps_per_s": rate.round() }))
}

/// When single submissions start, at half of the speed that a pod can do.
pub async fn start(bench: &Bench) -> anyhow::Result<Value> {
    let at_most = throughput(bench).await?["steps_per_s"].as_f64().context("a rate")?;
    bench.clear().await?;
    // One caller submits step by step, which is slower than batches: the load is what fits.
    let started: Arc<Mutex<Vec<(tl_fleet::StepId, Instant)>>> = Arc::default();
    let mut handlers = Handlers::new();
    let notes = Arc::clone(&started);
    handlers.typed(kind(), move |_: Value, run: Run| {
        notes.lock().push((run.claim.key.id, Instant::now()));
        async { Ok(Value::Null) }
    })?;
    let store = bench.store().await?;
    let pod = RunningPod::start(
        PodSettings { max_parallelism: 100, ..settings(bench, "start")? },
        Arc::clone(&store),
        handlers,
    )?;
    let mut lives = pod.handle().lives();
    lives.wait_for(Option::is_some).await?;
    let single = single_rate(&*store).await?;
    let rate = (at_most / 2.0).min(single / 2.0);
    let between = Duration::from_secs_f64(1.0 / rate);
    let length = Duration::from_secs(bench.args.seconds.into());
    let mut sent = std::collections::HashMap::new();
    let (began, mut due) = (Instant::now(), Instant::now());
    while began.elapsed() < length {
        tokio::time::sleep_until(due.into()).await;
        // From when it should have been sent: a slow answer must not hide the next one's wait.
        let step = NewStep::new(kind());
        sent.insert(step.id, due);
        store.submit(vec![step]).await?;
        due += between;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut times = histogram();
    loop {
        for (id, at) in started.lock().drain(..) {
            if let Some(sent) = sent.remove(&id) {
                let waited = at.saturating_duration_since(sent).as_micros();
                times.record(u64::try_from(waited).unwrap_or(u64::MAX).max(1))?;
            }
        }
        if sent.is_empty() {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "{} steps did not start", sent.len());
        tokio::time::sleep(LOOK).await;
    }
    drop(pod);
    let mut report = percentiles("submit_to_start", &times);
    report.insert("submit_to_start_steps_per_s".to_owned(), json!(rate.round()));
    Ok(Value::Object(report))
}

/// Single submissions per second of one caller.
async fn single_rate(store: &dyn Store) -> anyhow::Result<f64> {
    const STEPS: u32 = 200;
    let began = Instant::now();
    for _ in 0..STEPS {
        store.submit(steps(1)).await?;
    }
    Ok(f64::from(STEPS) / began.elapsed().as_secs_f64())
}

/// Steps are claimed by one that goes away; a pod that leads takes them back.
pub async fn orphans(bench: &Bench) -> anyhow::Result<Value> {
    let store = bench.store().await?;
    // It runs nothing, so what it takes back stays where it is.
    let pod = RunningPod::start(settings(bench, "leader")?, Arc::clone(&store), Handlers::new())?;
    while pod.handle().status().epoch.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    let orphans = bench.args.orphans;
    for first in (0..orphans).step_by(1_000) {
        let count = usize::try_from((orphans - first).min(1_000))?;
        store.submit(steps(count)).await?;
    }
    let gone = Claimant::Worker(PodId::new("gone")?);
    let (mut claimed, mut last) = (0, Instant::now());
    while claimed < orphans {
        let request = ClaimRequest {
            claimant: gone.clone(),
            kinds: vec![kind()],
            steps_max: 1_000,
            lease_ms: ORPHAN_LEASE_MS,
        };
        claimed += store.claim(request).await?.value.len() as u64;
        last = Instant::now();
    }
    let expired = last + Duration::from_millis(ORPHAN_LEASE_MS);
    tokio::time::sleep_until(expired.into()).await;
    while store.counts().await?.value.claimed > 0 {
        tokio::time::sleep(LOOK).await;
    }
    let took_ms = expired.elapsed().as_secs_f64() * 1e3;
    drop(pod);
    Ok(json!({ "orphans": orphans, "orphans_recovered_ms": took_ms.round() }))
}

/// How much more several pods do than one.
pub async fn scaling(bench: &Bench) -> anyhow::Result<Value> {
    let mut report = Map::new();
    let mut alone = 0.0;
    for pods in [1_u32, 2, 4, 8] {
        bench.clear().await?;
        let rate = sleepers(bench, pods).await?;
        if pods == 1 {
            alone = rate;
        }
        report.insert(format!("scaling_{pods}_steps_per_s"), json!(rate.round()));
        report.insert(format!("scaling_{pods}_ratio"), json!(rate / (alone * f64::from(pods))));
    }
    Ok(Value::Object(report))
}

async fn sleepers(bench: &Bench, pods: u32) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for number in 0..pods {
        let mut handlers = Handlers::new();
        let counts = Arc::clone(&done);
        handlers.add(kind(), Sleeper(counts))?;
        let settings = PodSettings {
            max_parallelism: PARALLEL,
            ..settings(bench, &format!("sleeper-{number}"))?
        };
        running.push(RunningPod::start(settings, bench.store().await?, handlers)?);
    }
    for pod in &running {
        pod.handle().lives().wait_for(Option::is_some).await?;
    }
    let store = bench.store().await?;
    let per_second = f64::from(pods * PARALLEL) / SLEEP.as_secs_f64();
    // A second to find the stride, the length that counts, and enough that none runs dry.
    let length = Duration::from_secs(bench.args.seconds.into());
    let enough = (per_second * (length.as_secs_f64() + 3.0)) as usize;
    for first in (0..enough).step_by(1_000) {
        store.submit(steps((enough - first).min(1_000))).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(length).await;
    let (after, took) = (done.load(Ordering::Relaxed), began.elapsed());
    drop(running);
    Ok((after - before) as f64 / took.as_secs_f64())
}

struct Sleeper(Arc<AtomicU64>);

impl tl_fleet::Handler for Sleeper {
    fn run(&self, _: Run) -> tl_fleet::run::Handled {
        let done = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::time::sleep(SLEEP).await;
            done.fetch_add(1, Ordering::Relaxed);
            Ok(JsonText::null())
        })
    }
}
