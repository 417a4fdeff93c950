//! The database stalls in the middle of whatever it does, and goes on.

use std::time::{Duration, Instant};

use tl_core::fleet::BreakerSettings;
use tl_fleet::{PodSettings, StepState};

use super::{LEASE_MS, World};
use crate::pod::{Gate, counted, until};

fn impatient(settings: PodSettings) -> PodSettings {
    let breaker = BreakerSettings { open_ms: 10, open_ms_max: 50, ..BreakerSettings::default() };
    PodSettings { call_ms: 100, breaker, ..settings }
}

pub async fn short(world: World) {
    const STEPS: usize = 5;
    let ids = world.submit(STEPS).await;
    let gate = Gate::shut();
    let settings = PodSettings {
        pod_lease_ms: 600_000,
        step_lease_ms: 600_000,
        ..impatient(world.settings("p"))
    };
    let pod = world.start_here(settings, gate.handlers()).await;
    let handle = pod.handle();
    until("all run", async || gate.running() == STEPS).await;
    let stall = world.stall();
    gate.open(STEPS);
    counted(&handle, "all reports are kept", |counted| counted.journaled == STEPS as u64).await;
    drop(stall);
    until("all are done", async || {
        // The first call over a connection that stalled may still fail.
        world.store.counts().await.is_ok_and(|counts| counts.value.completed == STEPS as u64)
    })
    .await;
    for id in ids {
        let step = world.step(id).await;
        assert_eq!((step.state, step.attempt.0, step.charged), (StepState::Completed, 1, 0));
    }
    until("nothing is in hand", async || handle.status().held.reported == 0).await;
    let counted = handle.status().counted;
    assert_eq!((counted.reaped, counted.fenced, counted.lost), (0, 0, 0));
}

pub async fn long(world: World) {
    const STEPS: usize = 5;
    let ids = world.submit(STEPS).await;
    let gate = Gate::shut();
    let pod = world.start_here(impatient(world.settings("p")), gate.handlers()).await;
    let handle = pod.handle();
    until("all run", async || gate.running() == STEPS).await;
    let life = handle.status().life.unwrap();
    let stall = world.stall();
    let began = Instant::now();
    counted(&handle, "it lets all go by itself", |counted| counted.lost >= STEPS as u64).await;
    assert_eq!(gate.running(), 0, "the handlers were stopped");
    until("three leases are over", async || began.elapsed() > Duration::from_millis(3 * LEASE_MS))
        .await;
    gate.open(usize::MAX >> 4);
    drop(stall);
    until("all are done", async || {
        world.store.counts().await.is_ok_and(|counts| counts.value.completed == STEPS as u64)
    })
    .await;
    for id in ids {
        let step = world.step(id).await;
        assert!(step.attempt.0 > 1 && step.charged >= 1, "the first attempt was lost: {step:?}");
        assert_eq!(step.state, StepState::Completed);
    }
    until("another life", async || {
        handle.status().life.is_some_and(|now| now.incarnation > life.incarnation)
    })
    .await;
    let counts = world.store.counts().await.unwrap().value;
    assert_eq!((counts.pending, counts.claimed, counts.failed), (0, 0, 0));
}
