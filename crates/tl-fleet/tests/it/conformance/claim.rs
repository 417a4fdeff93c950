//! Steps are taken and held.

use std::collections::BTreeSet;

use tl_fleet::limits::{BATCH_MAX, KINDS_MAX};
use tl_fleet::{
    Attempt, ClaimRequest, Claimant, NewStep, Outcome, Renewal, Renewed, RunAt, StepState,
    StoreError,
};

use super::{
    LEASE_MS, World, claim_as, claim_one, finish, json, kind, numbered, pod, recover, renewal,
    state, step, submit,
};

pub async fn claims_come_by_priority_then_age(world: &impl World) {
    let store = world.store();
    let mut ids = Vec::new();
    for (number, priority) in [(1, 0), (2, 5), (3, -5), (4, 5), (5, 0)] {
        ids.push(submit(&store, NewStep { priority, ..numbered(number) }).await);
        world.pass(10).await;
    }
    let order: Vec<_> = claim_as(&store, "w", 10).await.iter().map(|claim| claim.key.id).collect();
    assert_eq!(order, [ids[1], ids[3], ids[0], ids[4], ids[2]]);
}

pub async fn waiting_makes_up_for_priority(world: &impl World) {
    let store = world.store();
    let old = submit(&store, numbered(1)).await;
    let ageing_ms = u64::try_from(tl_core::fleet::PRIORITY_AGEING_MS).unwrap();
    world.pass(ageing_ms / 2).await;
    let sooner = submit(&store, NewStep { priority: 1, ..numbered(2) }).await;
    world.pass(ageing_ms).await;
    let later = submit(&store, NewStep { priority: 1, ..numbered(3) }).await;
    let order: Vec<_> = claim_as(&store, "w", 10).await.iter().map(|claim| claim.key.id).collect();
    assert_eq!(order, [sooner, old, later], "no step waits behind urgent ones for ever");
}

pub async fn a_step_waits_for_its_time(world: &impl World) {
    let store = world.store();
    let id = submit(&store, NewStep { run_at: RunAt::InMs(60_000), ..numbered(1) }).await;
    assert_eq!(state(&store, id).await, StepState::Scheduled);
    world.pass(50_000).await;
    assert_eq!(claim_as(&store, "w", 10).await, []);
    world.pass(10_000).await;
    assert_eq!(claim_as(&store, "w", 10).await[0].key.id, id);
    // At an instant that has passed it may run at once.
    let past = NewStep { run_at: RunAt::At(tl_types::UnixMs(1)), ..numbered(2) };
    let id = submit(&store, past).await;
    assert_eq!(state(&store, id).await, StepState::Pending);
}

pub async fn steps_of_other_kinds_stay_pending_and_are_counted(world: &impl World) {
    let store = world.store();
    let unknown = submit(&store, NewStep::new(kind("nobody-runs-this"))).await;
    let known = submit(&store, numbered(1)).await;
    let claims = claim_as(&store, "w", 10).await;
    assert_eq!(claims.iter().map(|claim| claim.key.id).collect::<Vec<_>>(), [known]);
    assert_eq!(state(&store, unknown).await, StepState::Pending);
    let counts = store.counts().await.unwrap().value;
    let count = counts.by_kind.iter().find(|count| count.kind == kind("nobody-runs-this"));
    assert_eq!(count.map(|count| count.pending), Some(1));
    assert!(count.unwrap().oldest_pending.is_some());
}

pub async fn claims_made_at_once_share_no_step(world: &impl World) {
    let store = world.store();
    store.submit((0..200).map(numbered).collect()).await.unwrap();
    let claimers: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let claims = claim_as(&store, &format!("w{number}"), 7).await;
                    if claims.is_empty() {
                        return mine;
                    }
                    mine.extend(claims);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    let steps: BTreeSet<_> = all.iter().map(|claim| claim.key.id).collect();
    assert_eq!((all.len(), steps.len()), (200, 200));
    assert!(all.iter().all(|claim| claim.attempt == Attempt(1)));
}

pub async fn more_is_asked_for_than_there_is(world: &impl World) {
    let store = world.store();
    submit(&store, numbered(1)).await;
    assert_eq!(claim_as(&store, "w", BATCH_MAX).await.len(), 1);
    assert_eq!(claim_as(&store, "w", BATCH_MAX).await, []);
    let request = |kinds: usize, steps_max, lease_ms| ClaimRequest {
        claimant: Claimant::Worker(pod("w")),
        kinds: (0..kinds).map(|number| kind(&format!("k{number}"))).collect(),
        steps_max,
        lease_ms,
    };
    assert_eq!(store.claim(request(KINDS_MAX, 1, 100)).await.unwrap().value, []);
    for (field, wrong) in [
        ("kinds", request(KINDS_MAX + 1, 1, 100)),
        ("kinds", request(0, 1, 100)),
        ("steps_max", request(1, BATCH_MAX + 1, 100)),
        ("steps_max", request(1, 0, 100)),
        ("lease_ms", request(1, 1, 99)),
        ("lease_ms", request(1, 1, 3_600_001)),
    ] {
        match store.claim(wrong).await {
            Err(StoreError::Invalid(invalid)) => assert_eq!(invalid.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

pub async fn every_claim_has_a_new_token_and_a_larger_attempt(world: &impl World) {
    let store = world.store();
    let id = submit(&store, NewStep { attempts_max: 11, ..numbered(1) }).await;
    let mut tokens = BTreeSet::new();
    for attempt in 1..=6 {
        let claim = claim_one(&store).await;
        assert_eq!((claim.key.id, claim.attempt), (id, Attempt(attempt)));
        assert!(tokens.insert(claim.key.token.0));
        match attempt % 3 {
            0 => finish(&store, claim.key, Outcome::Released).await,
            1 => finish(&store, claim.key, super::failed("no", 0)).await,
            _ => {
                world.pass(LEASE_MS).await;
                assert_eq!(recover(&store).await.len(), 1);
                continue;
            }
        };
    }
    assert_eq!(step(&store, id).await.charged, 4, "what was released is not charged");
}

pub async fn a_renewal_keeps_the_lease_and_shows_progress(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    let renew = |progress: Option<&str>| {
        let renewal = Renewal { key: claim.key, progress: progress.map(json) };
        let store = store.clone();
        async move { store.renew(LEASE_MS, vec![renewal]).await.unwrap() }
    };
    for progress in [Some(r#"{"done":1}"#), None, Some("2"), None] {
        world.pass(LEASE_MS - 1_000).await;
        let answer = renew(progress).await;
        let Renewed::Held { lease_until, cancel_asked } = answer.value[0] else {
            panic!("the lease still held")
        };
        assert_eq!((lease_until.since_ms(answer.at), cancel_asked), (LEASE_MS, false));
        assert_eq!(recover(&store).await, []);
    }
    assert_eq!(step(&store, id).await.progress, Some(json("2")), "the last that was said");
    let large = Renewal {
        progress: Some(json(&format!("\"{}\"", "x".repeat(4_095)))),
        ..renewal(claim.key)
    };
    let answer = store.renew(LEASE_MS, vec![large]).await;
    assert!(matches!(answer, Err(StoreError::Invalid(invalid)) if invalid.field == "progress"));
}
