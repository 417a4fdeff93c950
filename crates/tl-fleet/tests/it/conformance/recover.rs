//! Steps are taken back.

use std::collections::BTreeSet;

use tl_fleet::limits::SWEEP_MAX;
use tl_fleet::{
    Attempt, AttemptEnd, Beat, ClaimRequest, Claimant, DeadReason, Heartbeat, NewStep, Outcome,
    PageRequest, RecoverRequest, Redriven, StepState, StoreError, Unique, UniqueUntil,
};

use super::{
    LEASE_MS, World, at_once, claim_as, claim_one, completed, failed, finish, kind, numbered, pod,
    recover, register, state, step, submit,
};

pub async fn a_lost_lease_is_taken_back_with_one_attempt_charged(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    claim_as(&store, "gone", 1).await;
    world.pass(LEASE_MS - 1_000).await;
    assert_eq!(recover(&store).await, [], "not before the lease has run out");
    world.pass(1_000).await;
    let request = RecoverRequest { retry_in_ms: vec![700, 9_000], ..at_once() };
    let recovered = store.recover(request.clone()).await.unwrap().value;
    assert_eq!(recovered.len(), 1);
    let one = &recovered[0];
    assert_eq!((one.id, one.claimed_by.as_str(), one.attempt), (id, "gone", Attempt(1)));
    assert_eq!((one.charged, one.state, one.reason), (1, StepState::Scheduled, None));
    let stands = step(&store, id).await;
    assert_eq!((stands.lease_until, stands.charged), (None, 1));
    world.pass(700).await;
    claim_one(&store).await;
    world.pass(LEASE_MS).await;
    store.recover(request).await.unwrap();
    world.pass(700).await;
    assert_eq!(claim_as(&store, "w", 1).await, [], "the second wait is the longer one");
    world.pass(8_300).await;
    assert_eq!(claim_one(&store).await.attempt, Attempt(3));
    let ends: Vec<_> =
        store.attempts(id).await.unwrap().value.iter().map(|attempt| attempt.end).collect();
    assert_eq!(ends, [AttemptEnd::LeaseLost, AttemptEnd::LeaseLost, AttemptEnd::Open]);
}

pub async fn the_last_retry_really_runs(world: &impl World) {
    let store = world.store();
    let id = submit(&store, NewStep { attempts_max: 2, ..numbered(1) }).await;
    claim_one(&store).await;
    world.pass(LEASE_MS).await;
    assert_eq!(recover(&store).await[0].state, StepState::Pending);
    assert_eq!(recover(&store).await, [], "and a second look does not take it away again");
    let last = claim_one(&store).await;
    assert_eq!((last.attempt, last.charged), (Attempt(2), 1));
    finish(&store, last.key, completed("1")).await;
    assert_eq!(state(&store, id).await, StepState::Completed);
}

pub async fn a_step_given_up_is_failed_and_a_dead_letter_at_once(world: &impl World) {
    let store = world.store();
    let unique = Some(Unique { key: "u".to_owned(), until: UniqueUntil::Finished });
    let new = NewStep { attempts_max: 1, unique: unique.clone(), ..numbered(1) };
    let id = submit(&store, new).await;
    claim_as(&store, "gone", 1).await;
    world.pass(LEASE_MS).await;
    let recovered = recover(&store).await;
    assert_eq!(recovered[0].reason, Some(DeadReason::RetriesExhausted));
    let stands = step(&store, id).await;
    assert_eq!((stands.state, stands.lease_until), (StepState::Failed, None));
    assert!(stands.finished_at.is_some() && stands.last_error.is_some());
    let dead = store.dead_letters(false, PageRequest::first(10)).await.unwrap().value.items;
    assert_eq!((dead.len(), dead[0].id, dead[0].pod.as_str()), (1, id, "gone"));
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.claimed, counts.failed), (0, 1));
    let next = submit(&store, NewStep { unique, ..numbered(2) }).await;
    assert_ne!(next, id, "its unique key is free again");
}

pub async fn steps_are_found_by_their_lease_whatever_became_of_their_pod(world: &impl World) {
    let store = world.store();
    store.submit((0..4).map(numbered).collect()).await.unwrap();
    let request = |life| ClaimRequest {
        claimant: Claimant::Pod(life),
        kinds: vec![kind("work")],
        steps_max: 1,
        lease_ms: LEASE_MS,
    };
    // One pod leaves with its step, one is reaped, one is replaced under its name, and one
    // that claimed has no row at all.
    let left = register(&store, "left").await;
    store.claim(request(left.clone())).await.unwrap();
    store.leave(left).await.unwrap();
    let reaped = register(&store, "reaped").await;
    store.claim(request(reaped.clone())).await.unwrap();
    let replaced = register(&store, "replaced").await;
    store.claim(request(replaced)).await.unwrap();
    claim_as(&store, "no-row", 1).await;
    world.pass(LEASE_MS).await;
    let leader = register(&store, "replaced").await;
    let led = store.lead(leader, LEASE_MS).await.unwrap().value;
    let tl_fleet::Leadership::Led { epoch, .. } = led else { panic!("nobody else leads") };
    store.reap(epoch, 100).await.unwrap();
    // Only now, in another cycle than the one that saw them die.
    let owners: BTreeSet<_> =
        recover(&store).await.iter().map(|one| one.claimed_by.to_string()).collect();
    let expected = ["left", "no-row", "reaped", "replaced"];
    assert_eq!(owners.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

pub async fn what_was_reported_before_is_left_alone(world: &impl World) {
    let store = world.store();
    let ids: Vec<_> = store
        .submit((0..3).map(numbered).collect())
        .await
        .unwrap()
        .value
        .iter()
        .map(|submitted| submitted.id)
        .collect();
    let claims = claim_as(&store, "w", 3).await;
    world.pass(LEASE_MS).await;
    // Late, but nobody has taken the step away yet: it counts.
    finish(&store, claims[0].key, completed("1")).await;
    finish(&store, claims[1].key, failed("no", 1_000)).await;
    let recovered = recover(&store).await;
    assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [claims[2].key.id]);
    assert_eq!(state(&store, ids[0]).await, StepState::Completed);
    assert_eq!(step(&store, ids[1]).await.charged, 1, "charged once, not twice");
}

pub async fn two_that_recover_at_once_take_each_step_once(world: &impl World) {
    let store = world.store();
    store.submit((0..100).map(numbered).collect()).await.unwrap();
    claim_as(&store, "gone", 100).await;
    world.pass(LEASE_MS).await;
    let sweepers: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let request = RecoverRequest { steps_max: 9, ..at_once() };
                    let some = store.recover(request).await.unwrap().value;
                    if some.is_empty() {
                        return mine;
                    }
                    mine.extend(some);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for sweeper in sweepers {
        all.extend(sweeper.await.unwrap());
    }
    // Who finds rows locked passes them over; one more look finds what is left, if anything.
    all.extend(recover(&store).await);
    let steps: BTreeSet<_> = all.iter().map(|one| one.id).collect();
    assert_eq!((all.len(), steps.len()), (100, 100));
    assert!(all.iter().all(|one| one.charged == 1));
    assert_eq!(store.counts().await.unwrap().value.pending, 100);
}

pub async fn a_step_that_loses_its_leases_is_poison(world: &impl World) {
    let store = world.store();
    let id = submit(&store, NewStep { attempts_max: 11, ..numbered(1) }).await;
    let request = RecoverRequest { poison_after: 3, ..at_once() };
    for lost in 1..=3 {
        // Failures in between do not hide it.
        let claim = claim_one(&store).await;
        finish(&store, claim.key, failed("no", 0)).await;
        claim_one(&store).await;
        world.pass(LEASE_MS).await;
        let recovered = store.recover(request.clone()).await.unwrap().value;
        let expected = if lost < 3 { StepState::Pending } else { StepState::Failed };
        assert_eq!(recovered[0].state, expected);
    }
    let dead = store.dead_letters(false, PageRequest::first(10)).await.unwrap().value.items;
    assert_eq!((dead[0].id, dead[0].reason), (id, DeadReason::Poison));
}

pub async fn a_called_off_step_of_a_dead_pod_is_cancelled(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    claim_one(&store).await;
    store.cancel(vec![id]).await.unwrap();
    world.pass(LEASE_MS).await;
    assert_eq!(recover(&store).await[0].state, StepState::Cancelled);
    assert_eq!(state(&store, id).await, StepState::Cancelled);
    let dead = store.dead_letters(true, PageRequest::first(10)).await.unwrap().value.items;
    assert_eq!(dead, []);
    assert_eq!(store.counts().await.unwrap().value.cancelled, 1);
}

pub async fn a_hung_step_is_taken_back_though_its_pod_lives(world: &impl World) {
    let store = world.store();
    let life = register(&store, "p").await;
    let id = submit(&store, numbered(1)).await;
    let request = ClaimRequest {
        claimant: Claimant::Pod(life.clone()),
        kinds: vec![kind("work")],
        steps_max: 1,
        lease_ms: LEASE_MS,
    };
    store.claim(request).await.unwrap();
    for _ in 0..2 {
        world.pass(LEASE_MS / 2).await;
        let beat = Heartbeat {
            life: life.clone(),
            lease_ms: LEASE_MS,
            running: 1,
            prefetched: 0,
            draining: false,
            meta: None,
        };
        assert!(matches!(store.heartbeat(beat).await.unwrap().value, Beat::Alive { .. }));
    }
    assert_eq!(recover(&store).await.len(), 1, "signs of life of the pod are none of the step");
    assert_eq!(state(&store, id).await, StepState::Pending);
}

pub async fn a_dead_letter_is_redriven_with_all_attempts_before_it(world: &impl World) {
    let store = world.store();
    let id = submit(&store, NewStep { attempts_max: 2, ..numbered(1) }).await;
    for _ in 0..2 {
        let claim = claim_one(&store).await;
        finish(&store, claim.key, failed("no", 0)).await;
    }
    assert_eq!(state(&store, id).await, StepState::Failed);
    assert_eq!(store.redrive(vec![id]).await.unwrap().value, [Redriven::Now]);
    assert_eq!(
        store.redrive(vec![id]).await.unwrap().value,
        [Redriven::NotNow(StepState::Pending)]
    );
    let page = PageRequest::first(10);
    assert_eq!(store.dead_letters(false, page.clone()).await.unwrap().value.items, []);
    let all = store.dead_letters(true, page).await.unwrap().value.items;
    assert!(all[0].redriven_at.is_some(), "what has happened stays to be seen");
    for attempt in 3..=4 {
        let claim = claim_one(&store).await;
        assert_eq!(claim.attempt, Attempt(attempt), "the fencing number goes on");
        finish(&store, claim.key, failed("still no", 0)).await;
    }
    assert_eq!(state(&store, id).await, StepState::Failed);
    assert_eq!(store.attempts(id).await.unwrap().value.len(), 4);
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.failed, counts.pending), (1, 0));

    // Its name may be another's by now.
    let unique = Some(Unique { key: "u".to_owned(), until: UniqueUntil::Finished });
    let first = submit(&store, NewStep { unique: unique.clone(), ..numbered(2) }).await;
    let claim = claim_one(&store).await;
    finish(&store, claim.key, Outcome::Fatal { error: "no".to_owned() }).await;
    let second = submit(&store, NewStep { unique, ..numbered(3) }).await;
    assert_eq!(store.redrive(vec![first]).await.unwrap().value, [Redriven::KeyTaken(second)]);
    // What waits for its time may be told to run at once, what was called off to run after all.
    let later = NewStep { run_at: tl_fleet::RunAt::InMs(60_000), ..numbered(4) };
    let later = submit(&store, later).await;
    store.cancel(vec![second]).await.unwrap();
    let answers = store.redrive(vec![later, second]).await.unwrap().value;
    assert_eq!(answers, [Redriven::Now, Redriven::Now]);
    assert_eq!(claim_as(&store, "w", 10).await.len(), 2);
}

pub async fn limits_of_recovery_hold(world: &impl World) {
    let store = world.store();
    let largest =
        RecoverRequest { steps_max: SWEEP_MAX, retry_in_ms: vec![0; 11], poison_after: 1 };
    assert_eq!(store.recover(largest.clone()).await.unwrap().value, []);
    for wrong in [
        RecoverRequest { steps_max: SWEEP_MAX + 1, ..largest.clone() },
        RecoverRequest { steps_max: 0, ..largest.clone() },
        RecoverRequest { retry_in_ms: vec![0; 12], ..largest.clone() },
        RecoverRequest { retry_in_ms: Vec::new(), ..largest.clone() },
        RecoverRequest { retry_in_ms: vec![u64::MAX], ..largest.clone() },
        RecoverRequest { poison_after: 0, ..largest.clone() },
    ] {
        assert!(matches!(store.recover(wrong).await, Err(StoreError::Invalid(_))));
    }
    // No more than asked for at a time.
    store.submit((0..5).map(numbered).collect()).await.unwrap();
    claim_as(&store, pod("gone").as_str(), 5).await;
    world.pass(LEASE_MS).await;
    let some = RecoverRequest { steps_max: 3, ..at_once() };
    assert_eq!(store.recover(some.clone()).await.unwrap().value.len(), 3);
    assert_eq!(store.recover(some).await.unwrap().value.len(), 2);
}
