//! Pods live and die, and one of them leads.

use tl_fleet::limits::{BATCH_MAX, KINDS_MAX, POD_META_BYTES_MAX};
use tl_fleet::{
    Beat, ClaimRequest, Claimant, DrainAsked, Epoch, Forgotten, Heartbeat, LeaderWrite, Leadership,
    PodInfo, PodLife, PodState, Retention, StepState, StoreError,
};

use super::{
    LEASE_MS, World, claim_one, completed, finish, info, json, kind, numbered, pod, register,
    submit,
};

fn beat(life: &PodLife) -> Heartbeat {
    Heartbeat {
        life: life.clone(),
        lease_ms: LEASE_MS,
        running: 3,
        prefetched: 4,
        draining: false,
        meta: None,
    }
}

async fn epoch_of(world: &impl World, life: &PodLife) -> Option<Epoch> {
    match world.store().lead(life.clone(), LEASE_MS).await.unwrap().value {
        Leadership::Led { epoch, .. } => Some(epoch),
        Leadership::Other(_) => None,
    }
}

pub async fn a_life_is_kept_by_heartbeats(world: &impl World) {
    let store = world.store();
    let life = register(&store, "p").await;
    for _ in 0..3 {
        world.pass(LEASE_MS - 1_000).await;
        let answer = store.heartbeat(beat(&life)).await.unwrap();
        let Beat::Alive { lease_until, .. } = answer.value else { panic!("it lives") };
        assert_eq!(lease_until.since_ms(answer.at), LEASE_MS);
    }
    let meta = Heartbeat { meta: Some(json(r#"{"v":2}"#)), draining: true, ..beat(&life) };
    store.heartbeat(meta).await.unwrap();
    store.heartbeat(Heartbeat { draining: true, ..beat(&life) }).await.unwrap();
    let pods = store.pods().await.unwrap().value;
    assert_eq!((pods.len(), &pods[0].life, pods[0].state), (1, &life, PodState::Up));
    assert_eq!((pods[0].running, pods[0].prefetched, pods[0].capacity), (3, 4, 8));
    assert_eq!((&pods[0].kinds, pods[0].draining), (&vec![kind("work")], true));
    assert_eq!(pods[0].meta, json(r#"{"v":2}"#), "what is not said again stays");
    store.leave(life.clone()).await.unwrap();
    assert_eq!(store.pods().await.unwrap().value[0].state, PodState::Down);
    assert_eq!(store.heartbeat(beat(&life)).await.unwrap().value, Beat::Reaped);

    let meta = |bytes: usize| json(&format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8)));
    let large = PodInfo { meta: meta(POD_META_BYTES_MAX), ..info("q") };
    store.register(large, LEASE_MS).await.unwrap();
    let kinds = (0..=KINDS_MAX).map(|number| kind(&format!("k{number}"))).collect();
    for wrong in [
        PodInfo { meta: meta(POD_META_BYTES_MAX + 1), ..info("q") },
        PodInfo { meta: json("[]"), ..info("q") },
        PodInfo { kinds, ..info("q") },
    ] {
        let refused = store.register(wrong, LEASE_MS).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))));
    }
}

pub async fn a_life_whose_lease_ran_out_is_over_and_the_next_is_younger(world: &impl World) {
    let store = world.store();
    let frozen = register(&store, "frozen").await;
    world.pass(10).await;
    let other = register(&store, "other").await;
    assert!(epoch_of(world, &frozen).await.is_some());
    world.pass(LEASE_MS / 2).await;
    store.heartbeat(beat(&other)).await.unwrap();
    world.pass(LEASE_MS / 2).await;
    // Nobody has reaped it; it is over all the same.
    assert_eq!(store.heartbeat(beat(&frozen)).await.unwrap().value, Beat::Reaped);
    let lead = store.lead(frozen.clone(), LEASE_MS).await;
    assert!(matches!(lead, Err(StoreError::Reaped)));
    submit(&store, numbered(1)).await;
    let request = ClaimRequest {
        claimant: Claimant::Pod(frozen.clone()),
        kinds: vec![kind("work")],
        steps_max: 1,
        lease_ms: LEASE_MS,
    };
    assert!(matches!(store.claim(request).await, Err(StoreError::Reaped)));
    assert_eq!(store.counts().await.unwrap().value.pending, 1);

    let again = register(&store, "frozen").await;
    assert!(again.incarnation > other.incarnation && again.incarnation > frozen.incarnation);
    let pods = store.pods().await.unwrap().value;
    assert_eq!((&pods[0].life, &pods[1].life), (&other, &again), "eldest first");
    assert_eq!(store.heartbeat(beat(&frozen)).await.unwrap().value, Beat::Reaped);
}

pub async fn a_name_registered_again_ends_the_earlier_life(world: &impl World) {
    let store = world.store();
    let first = register(&store, "same").await;
    let second = register(&store, "same").await;
    assert!(second.incarnation > first.incarnation);
    assert_eq!(store.heartbeat(beat(&first)).await.unwrap().value, Beat::Reaped);
    store.leave(first).await.unwrap();
    assert!(matches!(store.heartbeat(beat(&second)).await.unwrap().value, Beat::Alive { .. }));
}

pub async fn a_pod_is_told_to_drain_with_its_next_heartbeat(world: &impl World) {
    let store = world.store();
    let (asked, other) = (register(&store, "asked").await, register(&store, "other").await);
    let ask = async |names: &[&str]| {
        store.ask_drain(names.iter().map(|name| pod(name)).collect()).await.unwrap().value
    };
    let answers = ask(&["asked", "unknown", "asked"]).await;
    assert_eq!(answers, [DrainAsked::Asked, DrainAsked::NotUp, DrainAsked::Asked]);
    for (life, expected) in [(&asked, true), (&other, false)] {
        let answer = store.heartbeat(beat(life)).await.unwrap().value;
        let Beat::Alive { drain_asked, .. } = answer else { panic!("it lives") };
        assert_eq!(drain_asked, expected);
    }
    store.leave(asked).await.unwrap();
    assert_eq!(ask(&["asked"]).await, [DrainAsked::NotUp], "it has left");
    let again = register(&store, "asked").await;
    let answer = store.heartbeat(beat(&again)).await.unwrap().value;
    assert!(matches!(answer, Beat::Alive { drain_asked: false, .. }), "the wish is forgotten");
    world.pass(LEASE_MS).await;
    assert_eq!(ask(&["asked", "other"]).await, [DrainAsked::NotUp; 2], "their leases are over");
    assert_eq!(ask(&[]).await, []);
    let many = vec![pod("asked"); BATCH_MAX + 1];
    assert!(matches!(store.ask_drain(many).await, Err(StoreError::Invalid(_))));
}

pub async fn one_leads_at_a_time_and_the_epoch_grows(world: &impl World) {
    let store = world.store();
    assert_eq!(store.leader().await.unwrap().value, None);
    let (one, other) = (register(&store, "a").await, register(&store, "b").await);
    let first = epoch_of(world, &one).await.expect("nobody leads");
    assert_eq!(epoch_of(world, &other).await, None);
    assert_eq!(epoch_of(world, &one).await, Some(first), "the same leadership goes on");
    assert_eq!(store.leader().await.unwrap().value.unwrap().life, one);
    world.pass(LEASE_MS - 1_000).await;
    store.heartbeat(beat(&one)).await.unwrap();
    store.heartbeat(beat(&other)).await.unwrap();
    assert_eq!(epoch_of(world, &other).await, None, "not before the lease has run out");
    world.pass(1_000).await;
    let second = epoch_of(world, &other).await.expect("the lease has run out");
    assert_eq!(second, Epoch(first.0 + 1));
    assert_eq!(epoch_of(world, &one).await, None, "and the elder does not take it back");

    // Many at once: one wins.
    world.pass(LEASE_MS).await;
    let mut lives = Vec::new();
    for number in 0..6 {
        lives.push(register(&store, &format!("p{number}")).await);
    }
    let askers: Vec<_> = lives
        .into_iter()
        .map(|life| {
            let store = store.clone();
            tokio::spawn(async move { store.lead(life, LEASE_MS).await.unwrap().value })
        })
        .collect();
    let mut led = 0;
    for asker in askers {
        match asker.await.unwrap() {
            Leadership::Led { epoch, .. } => {
                assert_eq!(epoch, Epoch(second.0 + 1));
                led += 1;
            }
            Leadership::Other(leader) => assert_eq!(leader.epoch, Epoch(second.0 + 1)),
        }
    }
    assert_eq!(led, 1);
}

fn forget_everything() -> Retention {
    Retention { finished_ms: 0, dead_ms: 0, pods_ms: 0, steps_max: 100 }
}

pub async fn who_was_deposed_writes_nothing(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    finish(&store, claim.key, completed("1")).await;
    let one = register(&store, "a").await;
    let first = epoch_of(world, &one).await.unwrap();
    world.pass(LEASE_MS).await;
    // Its lease has run out, though nobody else leads yet.
    let deposed = store.retain(first, forget_everything()).await.unwrap().value;
    assert_eq!(deposed, LeaderWrite::Deposed);
    let other = register(&store, "b").await;
    let second = epoch_of(world, &other).await.unwrap();
    for epoch in [first, Epoch(second.0 + 1), Epoch(0)] {
        let deposed = store.retain(epoch, forget_everything()).await.unwrap().value;
        assert_eq!(deposed, LeaderWrite::Deposed);
        assert_eq!(store.reap(epoch, 10).await.unwrap().value, LeaderWrite::Deposed);
    }
    assert_eq!(super::state(&store, id).await, StepState::Completed);
    assert!(store.pods().await.unwrap().value.iter().all(|pod| pod.state == PodState::Up));
    let done = store.retain(second, forget_everything()).await.unwrap().value;
    assert!(matches!(done, LeaderWrite::Done(Forgotten { steps: 1, .. })));
}

pub async fn a_leader_that_leaves_makes_room_at_once(world: &impl World) {
    let store = world.store();
    let (one, other) = (register(&store, "a").await, register(&store, "b").await);
    let first = epoch_of(world, &one).await.unwrap();
    store.leave(one.clone()).await.unwrap();
    assert_eq!(epoch_of(world, &other).await, Some(Epoch(first.0 + 1)));
    assert_eq!(store.reap(first, 10).await.unwrap().value, LeaderWrite::Deposed);
}

pub async fn the_dead_are_reaped_and_the_living_are_not(world: &impl World) {
    let store = world.store();
    let dead = register(&store, "dead").await;
    let left = register(&store, "left").await;
    store.leave(left).await.unwrap();
    world.pass(LEASE_MS).await;
    let leader = register(&store, "leader").await;
    let epoch = epoch_of(world, &leader).await.unwrap();
    let LeaderWrite::Done(reaped) = store.reap(epoch, 10).await.unwrap().value else {
        panic!("it leads")
    };
    assert_eq!(reaped.iter().map(|pod| pod.life.clone()).collect::<Vec<_>>(), [dead]);
    let up: Vec<_> = store
        .pods()
        .await
        .unwrap()
        .value
        .into_iter()
        .filter(|pod| pod.state == PodState::Up)
        .map(|pod| pod.life)
        .collect();
    assert_eq!(up, [leader]);
    assert_eq!(store.reap(epoch, 10).await.unwrap().value, LeaderWrite::Done(Vec::new()));
    assert!(matches!(store.reap(epoch, 0).await, Err(StoreError::Invalid(_))));
}

pub async fn retention_forgets_what_is_old_and_keeps_the_rest(world: &impl World) {
    const HOUR_MS: u64 = 3_600_000;
    let store = world.store();
    let mut finished = Vec::new();
    for number in 0..3 {
        finished.push(submit(&store, numbered(number)).await);
        let claim = claim_one(&store).await;
        finish(&store, claim.key, super::failed("no", 0)).await;
        let claim = claim_one(&store).await;
        finish(&store, claim.key, completed("1")).await;
    }
    let dead = submit(&store, numbered(7)).await;
    let claim = claim_one(&store).await;
    finish(&store, claim.key, tl_fleet::Outcome::Fatal { error: "no".to_owned() }).await;
    let gone = register(&store, "gone").await;
    store.leave(gone).await.unwrap();
    world.pass(HOUR_MS).await;
    let young = submit(&store, numbered(8)).await;
    let claim = claim_one(&store).await;
    finish(&store, claim.key, completed("1")).await;
    let pending = submit(&store, numbered(9)).await;

    let leader = register(&store, "leader").await;
    let epoch = epoch_of(world, &leader).await.unwrap();
    let keep =
        Retention { finished_ms: HOUR_MS, dead_ms: 9 * HOUR_MS, pods_ms: HOUR_MS, steps_max: 2 };
    let retain = || {
        let store = store.clone();
        async move {
            match store.retain(epoch, keep).await.unwrap().value {
                LeaderWrite::Done(forgotten) => forgotten,
                LeaderWrite::Deposed => panic!("it leads"),
            }
        }
    };
    assert_eq!(retain().await, Forgotten { steps: 2, pods: 1, more: true });
    assert_eq!(retain().await, Forgotten { steps: 1, pods: 0, more: false });
    let found = store.steps([finished.clone(), vec![dead, young, pending]].concat()).await.unwrap();
    let kept: Vec<_> = found.value.iter().map(Option::is_some).collect();
    assert_eq!(kept, [false, false, false, true, true, true]);
    assert_eq!(store.attempts(finished[0]).await.unwrap().value, []);
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.completed, counts.failed, counts.pending), (1, 1, 1));

    let leader = register(&store, "leader").await;
    world.pass(LEASE_MS).await;
    drop(leader);
    let leader = register(&store, "leader").await;
    let epoch = epoch_of(world, &leader).await.unwrap();
    store.retain(epoch, forget_everything()).await.unwrap();
    let page = tl_fleet::PageRequest::first(10);
    let letters = store.dead_letters(true, page).await.unwrap().value;
    assert_eq!(letters.items, [], "a dead letter goes with its step");
    assert_eq!(store.counts().await.unwrap().value.failed, 0);
    assert_eq!(super::state(&store, pending).await, StepState::Pending);
}
