//! One process ends, stands still, or has another calendar.

use std::path::Path;

use rustix::process::Signal;
use tl_fleet::{ClaimRequest, Claimant, StepState};

use super::{LEASE_MS, World};
use crate::conformance::{kind, pod};
use crate::pod::until;

/// Where Debian's package faketime puts it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

async fn works_and_leads(world: &World, id: tl_fleet::StepId) {
    until("it works and leads", async || {
        world.step(id).await.state == StepState::Claimed
            && world.store.leader().await.unwrap().value.is_some()
    })
    .await;
}

pub async fn killed(world: World) {
    let id = world.submit(1).await[0];
    let mut doomed = world.start("doomed", "for-ever");
    works_and_leads(&world, id).await;
    let epoch = world.store.leader().await.unwrap().value.unwrap().epoch;
    let _next = world.start("next", "done by next");
    until("both live", async || world.store.pods().await.unwrap().value.len() == 2).await;
    doomed.kill();
    until("it is done", async || world.step(id).await.state == StepState::Completed).await;
    let step = world.step(id).await;
    assert_eq!((step.attempt.0, step.charged), (2, 1));
    assert_eq!(step.result.unwrap().as_str(), r#""done by next""#);
    let leader = world.store.leader().await.unwrap().value.unwrap();
    assert_eq!((leader.life.pod.as_str(), leader.epoch.0), ("next", epoch.0 + 1));
    assert_eq!(world.store.counts().await.unwrap().value.claimed, 0);
}

pub async fn frozen(world: World) {
    let id = world.submit(1).await[0];
    let frozen = world.start("frozen", "for-ever");
    works_and_leads(&world, id).await;
    let life = world.store.leader().await.unwrap().value.unwrap().life;
    world.freeze(&frozen).await;
    let _next = world.start("next", "done by next");
    until("it is done", async || world.step(id).await.state == StepState::Completed).await;
    until("the other leads", async || {
        let leader = world.store.leader().await.unwrap().value;
        leader.is_some_and(|leader| leader.life.pod.as_str() == "next")
    })
    .await;
    let epoch = world.store.leader().await.unwrap().value.unwrap().epoch;
    frozen.signal(Signal::CONT);
    until("it begins another life", async || {
        let pods = world.store.pods().await.unwrap().value;
        pods.iter().any(|pod| pod.life.pod == life.pod && pod.life.incarnation > life.incarnation)
    })
    .await;
    let pods = world.store.pods().await.unwrap().value;
    assert_eq!(pods[0].life.pod.as_str(), "next", "it is the younger now");
    let leader = world.store.leader().await.unwrap().value.unwrap();
    assert_eq!((leader.life.pod.as_str(), leader.epoch), ("next", epoch));
    let step = world.step(id).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Completed, 2));
    assert_eq!(step.result.unwrap().as_str(), r#""done by next""#);
}

pub async fn leader(world: World) {
    const STEPS: usize = 6_000;
    world.submit(STEPS).await;
    let mut doomed = world.start("doomed", "nothing");
    until("it leads", async || world.store.leader().await.unwrap().value.is_some()).await;
    let epoch = world.store.leader().await.unwrap().value.unwrap().epoch;
    let _next = world.start("next", "nothing");
    until("both live", async || world.store.pods().await.unwrap().value.len() == 2).await;
    let mut claimed = 0;
    while claimed < STEPS {
        let request = ClaimRequest {
            claimant: Claimant::Worker(pod("gone")),
            kinds: vec![kind("work")],
            steps_max: 1_000,
            lease_ms: LEASE_MS,
        };
        claimed += world.store.claim(request).await.unwrap().value.len();
    }
    // Each sweep takes back a part.
    until("recovery has begun", async || {
        (world.store.counts().await.unwrap().value.claimed as usize) < STEPS
    })
    .await;
    doomed.kill();
    until("nothing stays with the dead", async || {
        world.store.counts().await.unwrap().value.claimed == 0
    })
    .await;
    until("the epoch moves", async || {
        let leader = world.store.leader().await.unwrap().value.unwrap();
        leader.epoch > epoch && leader.life.pod.as_str() == "next"
    })
    .await;
    let counts = world.store.counts().await.unwrap().value;
    assert_eq!((counts.pending + counts.scheduled) as usize, STEPS);
    let lost = "SELECT count(*) FROM fleet_attempts WHERE ended = 3";
    assert_eq!(world.number(lost).await as usize, STEPS, "each was taken back once");
}

/// Neither a calendar that is ahead nor one that is behind makes a pod reap the others, live
/// longer or be the eldest: those who were there before go on, and each does its share.
pub async fn skewed(world: World) {
    const STEPS: usize = 300;
    assert!(Path::new(FAKETIME).is_file(), "Debian's package faketime is installed");
    let skewed = |offset: &str| {
        let by =
            [("LD_PRELOAD", FAKETIME), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
                .map(|(name, value)| (name, value.to_owned()));
        move |world: &World, name: &str| {
            let by: Vec<(&str, &str)> = by.iter().map(|(name, it)| (*name, it.as_str())).collect();
            world.start_with(name, "effects", &by)
        }
    };
    let _right = world.start("right", "effects");
    until("it leads", async || world.store.leader().await.unwrap().value.is_some()).await;
    let led = world.store.leader().await.unwrap().value.unwrap();
    let _ahead = skewed("+600s")(&world, "ahead");
    let _behind = skewed("-600s")(&world, "behind");
    until("all live", async || world.store.pods().await.unwrap().value.len() == 3).await;
    let lives = async || {
        let pods = world.store.pods().await.unwrap().value;
        pods.into_iter().map(|pod| pod.life).collect::<Vec<_>>()
    };
    let before = lives().await;
    assert_eq!(before[0], led.life, "the eldest by the database's clock");
    world.submit(STEPS).await;
    until("all are done", async || {
        world.store.counts().await.unwrap().value.completed as usize == STEPS
    })
    .await;
    // Long enough for every lease to run out that nobody renews.
    let mut renewed = 0;
    let mut until_ms = world.store.leader().await.unwrap().value.unwrap().lease_until;
    until("leadership is renewed for three leases", async || {
        let now = world.store.leader().await.unwrap().value.unwrap().lease_until;
        renewed += now.since_ms(until_ms);
        until_ms = now;
        renewed > 3 * LEASE_MS
    })
    .await;
    assert_eq!(lives().await, before, "nobody was reaped");
    let leader = world.store.leader().await.unwrap().value.unwrap();
    assert_eq!((leader.life, leader.epoch), (led.life, led.epoch));
    let charged = "SELECT coalesce(sum(charged), 0)::bigint FROM fleet_finished";
    assert_eq!(world.number(charged).await, 0, "no lease was lost");
    let workers = "SELECT count(DISTINCT claimed_by) FROM fleet_finished";
    assert!(world.number(workers).await > 1, "more than one has worked");
}
