//! Many steps over several pods.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tl_fleet::{PageRequest, StepFilter};

use super::World;
use crate::pod::{handlers, until};

pub async fn thousand(world: World) {
    const STEPS: usize = 1_000;
    world.submit(STEPS).await;
    let start = |number: usize| world.start(&format!("p{number}"), "effects");
    let mut pods: Vec<_> = (0..4).map(start).collect();
    for round in 1..=8 {
        until("some more are done", async || {
            world.store.counts().await.unwrap().value.completed >= round * 100
        })
        .await;
        let unlucky = fastrand::usize(..pods.len());
        pods[unlucky].kill();
        pods[unlucky] = start(unlucky);
    }
    until("all are done", async || {
        world.store.counts().await.unwrap().value.completed == STEPS as u64
    })
    .await;
    assert_eq!(world.number("SELECT count(*) FROM fleet_effects").await as usize, STEPS);
    let counts = world.store.counts().await.unwrap().value;
    assert_eq!((counts.failed, counts.claimed, counts.pending), (0, 0, 0));
}

pub async fn many(world: World) {
    const STEPS: usize = 10_000;
    let ids = world.submit(STEPS).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let mut pods = Vec::new();
    for number in 0..8 {
        let runs = Arc::clone(&runs);
        let nothing = handlers(move |_, _| {
            runs.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(serde_json::Value::Null))
        });
        // What is measured is that nobody runs what another runs, not who is slow.
        let settings = tl_fleet::PodSettings {
            pod_lease_ms: 60_000,
            step_lease_ms: 60_000,
            ..world.settings(&format!("p{number}"))
        };
        pods.push(world.start_here(settings, nothing).await);
    }
    until("all are done", async || {
        world.store.counts().await.unwrap().value.completed == STEPS as u64
    })
    .await;
    assert_eq!(runs.load(Ordering::Relaxed), STEPS);
    let (mut seen, mut after) = (0, None);
    loop {
        let page = PageRequest { after, limit: 1_000 };
        let page = world.store.list(StepFilter::default(), page).await.unwrap().value;
        assert!(page.items.iter().all(|step| (step.attempt.0, step.charged) == (1, 0)));
        seen += page.items.len();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ids.len());
}
