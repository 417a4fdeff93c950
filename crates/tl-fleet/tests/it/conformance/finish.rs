//! Claims end.

use tl_fleet::limits::{EFFECTS_MAX, ERROR_BYTES_MAX, RESULT_BYTES_MAX};
use tl_fleet::{
    Attempt, AttemptEnd, Cancelled, ClaimKey, ClaimToken, DeadReason, EffectNoted, Finish,
    Finished, NewEffect, NewStep, Outcome, PageRequest, Renewed, StepId, StepState, StoreError,
};

use super::{
    LEASE_MS, World, claim_as, claim_one, completed, failed, finish, json, numbered, pod, recover,
    renewal, state, step, submit,
};

pub async fn a_result_is_kept_with_its_attempt(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    let attempts = store.attempts(id).await.unwrap().value;
    assert_eq!((attempts.len(), attempts[0].end), (1, AttemptEnd::Open));
    finish(&store, claim.key, failed("first", 0)).await;
    let claim = claim_as(&store, "w2", 1).await.remove(0);
    world.pass(5).await;
    let largest = format!("\"{}\"", "r".repeat(RESULT_BYTES_MAX - 2));
    assert_eq!(
        finish(&store, claim.key, completed(&largest)).await,
        Finished::Now(StepState::Completed)
    );
    let found = step(&store, id).await;
    assert_eq!(found.result, Some(json(&largest)));
    assert_eq!((found.claimed_by, found.lease_until), (Some(pod("w2")), None));
    assert!(found.finished_at.is_some());
    let attempts = store.attempts(id).await.unwrap().value;
    let ends: Vec<_> = attempts.iter().map(|a| (a.attempt, a.pod.as_str(), a.end)).collect();
    assert_eq!(
        ends,
        [(Attempt(1), "w", AttemptEnd::Failed), (Attempt(2), "w2", AttemptEnd::Completed)]
    );
    assert_eq!(attempts[0].error.as_deref(), Some("first"));
    assert!(attempts[1].ended_at > Some(attempts[1].claimed_at));

    submit(&store, numbered(2)).await;
    let claim = claim_one(&store).await;
    let large = completed(&format!("\"{}\"", "r".repeat(RESULT_BYTES_MAX - 1)));
    let refused = store.finish(vec![Finish { key: claim.key, outcome: large }]).await;
    assert!(matches!(refused, Err(StoreError::Invalid(invalid)) if invalid.field == "result"));
}

pub async fn a_failure_is_tried_again_after_its_wait_until_attempts_are_used_up(
    world: &impl World,
) {
    let store = world.store();
    let id = submit(&store, NewStep { attempts_max: 3, ..numbered(1) }).await;
    for attempt in 1..=3 {
        let claim = claim_one(&store).await;
        assert_eq!((claim.attempt, u64::from(claim.charged)), (Attempt(attempt), attempt - 1));
        let error = format!("error {attempt}");
        let ended = finish(&store, claim.key, failed(&error, 5_000)).await;
        if attempt < 3 {
            assert_eq!(ended, Finished::Now(StepState::Scheduled));
            assert_eq!(claim_as(&store, "w", 1).await, [], "not before its wait is over");
            world.pass(5_000).await;
        } else {
            assert_eq!(ended, Finished::Now(StepState::Failed));
        }
        assert_eq!(step(&store, id).await.last_error, Some(error));
    }
    let dead = store.dead_letters(false, PageRequest::first(10)).await.unwrap().value.items;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].id, dead[0].attempt), (id, Attempt(3)));
    assert_eq!(dead[0].reason, DeadReason::RetriesExhausted);
    assert_eq!(dead[0].error.as_deref(), Some("error 3"));
    assert_eq!(store.attempts(id).await.unwrap().value.len(), 3);
}

pub async fn a_fatal_failure_is_a_dead_letter_at_once(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    let error = "é".repeat(ERROR_BYTES_MAX);
    let ended = finish(&store, claim.key, Outcome::Fatal { error }).await;
    assert_eq!(ended, Finished::Now(StepState::Failed));
    let dead = store.dead_letters(false, PageRequest::first(10)).await.unwrap().value.items;
    assert_eq!((dead[0].id, dead[0].reason), (id, DeadReason::Fatal));
    let kept = dead[0].error.clone().unwrap();
    assert!(kept.len() <= ERROR_BYTES_MAX && kept.ends_with("é…"), "{} bytes", kept.len());
}

pub async fn a_released_step_is_pending_in_its_place_with_nothing_charged(world: &impl World) {
    let store = world.store();
    let first = submit(&store, numbered(1)).await;
    world.pass(10).await;
    submit(&store, numbered(2)).await;
    let claim = claim_one(&store).await;
    world.pass(10).await;
    let ended = finish(&store, claim.key, Outcome::Released).await;
    assert_eq!(ended, Finished::Now(StepState::Pending));
    let again = claim_one(&store).await;
    assert_eq!((again.key.id, again.attempt, again.charged), (first, Attempt(2), 0));
    let attempts = store.attempts(first).await.unwrap().value;
    assert_eq!(attempts[0].end, AttemptEnd::Released);
}

/// What somebody may try with a claim that was lost.
async fn try_everything(world: &impl World, key: ClaimKey) {
    let store = world.store();
    let outcomes = [
        completed(r#""late""#),
        failed("late", 0),
        Outcome::Fatal { error: "late".to_owned() },
        Outcome::Cancelled,
        Outcome::Released,
    ];
    for outcome in outcomes {
        assert_eq!(finish(&store, key, outcome.clone()).await, Finished::Fenced, "{outcome:?}");
    }
    let renewed = store.renew(LEASE_MS, vec![renewal(key)]).await.unwrap().value;
    assert_eq!(renewed, [Renewed::Fenced]);
    let effect = NewEffect { claim: key, key: "late".to_owned(), value: json("1") };
    assert_eq!(store.note_effects(vec![effect]).await.unwrap().value, [EffectNoted::Fenced]);
}

pub async fn who_has_lost_the_claim_can_do_nothing_to_the_step(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let zombie = claim_one(&store).await;
    world.pass(LEASE_MS).await;
    recover(&store).await;
    // While the step waits, while another holds it, and when that one is done.
    try_everything(world, zombie.key).await;
    let holder = claim_as(&store, "other", 1).await.remove(0);
    try_everything(world, zombie.key).await;
    let held = step(&store, id).await;
    assert_eq!((held.state, held.claimed_by), (StepState::Claimed, Some(pod("other"))));
    assert_eq!(
        finish(&store, holder.key, completed(r#""right""#)).await,
        Finished::Now(StepState::Completed)
    );
    try_everything(world, zombie.key).await;
    assert_eq!(step(&store, id).await.result, Some(json(r#""right""#)));
    // A token of nobody, and a step of nobody.
    let nobody = ClaimKey { id, token: ClaimToken::fresh() };
    try_everything(world, nobody).await;
    try_everything(world, ClaimKey { id: StepId::fresh(), token: holder.key.token }).await;
}

pub async fn a_name_is_no_proof(world: &impl World) {
    let store = world.store();
    submit(&store, numbered(1)).await;
    let before = claim_as(&store, "same", 1).await.remove(0);
    world.pass(LEASE_MS).await;
    recover(&store).await;
    let after = claim_as(&store, "same", 1).await.remove(0);
    try_everything(world, before.key).await;
    assert_eq!(
        finish(&store, after.key, completed("1")).await,
        Finished::Now(StepState::Completed)
    );
}

pub async fn a_report_may_come_twice(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    for _ in 0..2 {
        let ended = finish(&store, claim.key, completed("1")).await;
        assert_eq!(ended, Finished::Now(StepState::Completed));
    }
    assert_eq!(store.counts().await.unwrap().value.completed, 1);
    assert_eq!(store.attempts(id).await.unwrap().value.len(), 1);

    submit(&store, numbered(2)).await;
    let claim = claim_one(&store).await;
    let fatal = Outcome::Fatal { error: "no".to_owned() };
    for _ in 0..2 {
        let ended = finish(&store, claim.key, fatal.clone()).await;
        assert_eq!(ended, Finished::Now(StepState::Failed));
    }
    let dead = store.dead_letters(true, PageRequest::first(10)).await.unwrap().value.items;
    assert_eq!(dead.len(), 1);

    // A failure that is tried again has let its claim go: the repeat is too late and harmless.
    submit(&store, numbered(3)).await;
    let claim = claim_one(&store).await;
    finish(&store, claim.key, failed("no", 0)).await;
    assert_eq!(finish(&store, claim.key, failed("no", 0)).await, Finished::Fenced);
    assert_eq!(claim_one(&store).await.charged, 1);
}

pub async fn one_fenced_report_does_not_hinder_the_others(world: &impl World) {
    let store = world.store();
    store.submit((0..4).map(numbered).collect()).await.unwrap();
    let claims = claim_as(&store, "w", 4).await;
    let mut finishes: Vec<_> =
        claims.iter().map(|claim| Finish { key: claim.key, outcome: completed("1") }).collect();
    finishes[1].key.token = ClaimToken::fresh();
    finishes[2].outcome = failed("no", 1_000);
    let ended = store.finish(finishes).await.unwrap().value;
    let now = Finished::Now;
    assert_eq!(
        ended,
        [
            now(StepState::Completed),
            Finished::Fenced,
            now(StepState::Scheduled),
            now(StepState::Completed)
        ]
    );
    assert_eq!(state(&store, claims[1].key.id).await, StepState::Claimed);
}

pub async fn an_effect_is_noted_once_over_all_attempts(world: &impl World) {
    let store = world.store();
    submit(&store, numbered(1)).await;
    let note = |claim: ClaimKey, key: &str, value: &str| {
        let effect = NewEffect { claim, key: key.to_owned(), value: json(value) };
        let store = store.clone();
        async move { store.note_effects(vec![effect]).await.unwrap().value.remove(0) }
    };
    let claim = claim_one(&store).await;
    assert_eq!(note(claim.key, "mail", "1").await, EffectNoted::Now);
    finish(&store, claim.key, failed("no", 0)).await;
    let claim = claim_one(&store).await;
    assert_eq!(note(claim.key, "mail", "2").await, EffectNoted::Before { value: json("1") });
    assert_eq!(note(claim.key, "bill", "2").await, EffectNoted::Now);
    // Each step has its own.
    submit(&store, numbered(2)).await;
    let other = claim_one(&store).await;
    assert_eq!(note(other.key, "mail", "3").await, EffectNoted::Now);
    let long = NewEffect { claim: claim.key, key: "k".repeat(256), value: json("1") };
    assert!(matches!(store.note_effects(vec![long]).await, Err(StoreError::Invalid(_))));
}

pub async fn effects_of_one_step_have_a_limit(world: &impl World) {
    let store = world.store();
    submit(&store, numbered(1)).await;
    submit(&store, numbered(2)).await;
    let (claim, other) = (claim_one(&store).await, claim_one(&store).await);
    let effect =
        |claim: ClaimKey, n: u64| NewEffect { claim, key: format!("e{n}"), value: json("1") };
    let all = (1..=EFFECTS_MAX).map(|n| effect(claim.key, n)).collect();
    let noted = store.note_effects(all).await.unwrap().value;
    assert!(noted.iter().all(|noted| *noted == EffectNoted::Now));
    let more = vec![
        effect(claim.key, EFFECTS_MAX + 1),
        effect(claim.key, EFFECTS_MAX),
        effect(other.key, EFFECTS_MAX + 1),
    ];
    let noted = store.note_effects(more).await.unwrap().value;
    let before = EffectNoted::Before { value: json("1") };
    assert_eq!(noted, [EffectNoted::TooMany, before, EffectNoted::Now]);
}

pub async fn calling_off_stops_what_waits_and_asks_what_runs(world: &impl World) {
    let store = world.store();
    let cancel = |id: StepId| {
        let store = store.clone();
        async move { store.cancel(vec![id]).await.unwrap().value[0] }
    };
    let waits = submit(&store, numbered(1)).await;
    assert_eq!(cancel(waits).await, Cancelled::Now);
    assert_eq!(cancel(waits).await, Cancelled::Finished(StepState::Cancelled));
    assert_eq!(claim_as(&store, "w", 1).await, []);

    let ends = [
        (Outcome::Cancelled, StepState::Cancelled),
        (failed("stopped", 0), StepState::Cancelled),
        (Outcome::Released, StepState::Cancelled),
        (completed("1"), StepState::Completed),
    ];
    for (outcome, expected) in ends {
        let id = submit(&store, numbered(2)).await;
        let claim = claim_one(&store).await;
        assert_eq!(cancel(id).await, Cancelled::Asked);
        assert!(step(&store, id).await.cancel_asked);
        let renewed = store.renew(LEASE_MS, vec![renewal(claim.key)]).await.unwrap().value;
        assert!(matches!(renewed[0], Renewed::Held { cancel_asked: true, .. }));
        assert_eq!(finish(&store, claim.key, outcome).await, Finished::Now(expected));
        assert_eq!(state(&store, id).await, expected);
    }
    assert_eq!(cancel(StepId::fresh()).await, Cancelled::NotFound);
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.cancelled, counts.completed, counts.failed), (4, 1, 0));
}
