//! Steps come in.

use std::collections::BTreeMap;

use tl_fleet::limits::{BATCH_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX, RETRIES_MAX};
use tl_fleet::{
    Attempt, JsonText, NewStep, Outcome, PageRequest, RunAt, StepFilter, StepId, StepState,
    StoreError, Submitted, Unique, UniqueUntil,
};

use super::{
    World, claim_one, completed, failed, finish, json, kind, numbered, state, step, submit,
};

pub async fn a_submitted_step_is_pending_and_found_as_it_was_given(world: &impl World) {
    let store = world.store();
    let new = NewStep {
        args: json(r#"{"to": "ann",  "n": 1.50}"#),
        metadata: json(r#"{"trace":"x"}"#),
        priority: -7,
        attempts_max: 2,
        timeout_ms: Some(5_000),
        unique: Some(Unique { key: "mail-1".to_owned(), until: UniqueUntil::Forgotten }),
        ..NewStep::new(kind("work"))
    };
    let answer = store.submit(vec![new.clone()]).await.unwrap();
    let submitted =
        Submitted { id: new.id, state: StepState::Pending, deduped: false, differs: false };
    assert_eq!(answer.value, [submitted]);
    let found = step(&store, new.id).await;
    assert_eq!(found.args.as_str(), r#"{"to": "ann",  "n": 1.50}"#, "byte for byte");
    assert_eq!((found.kind, found.metadata), (new.kind, new.metadata));
    assert_eq!((found.priority, found.attempts_max), (-7, 2));
    assert_eq!((found.timeout_ms, found.unique), (Some(5_000), new.unique));
    assert_eq!((found.attempt, found.charged), (Attempt(0), 0));
    assert_eq!(found.created_at, answer.wall);
    assert_eq!(found.claimed_by, None);
}

pub async fn a_repeat_of_a_submission_is_answered_with_the_step_that_stands(world: &impl World) {
    let store = world.store();
    let new = numbered(1);
    submit(&store, new.clone()).await;
    let claim = claim_one(&store).await;
    let again = store.submit(vec![new.clone()]).await.unwrap().value;
    let expected =
        Submitted { id: new.id, state: StepState::Claimed, deduped: true, differs: false };
    assert_eq!(again, [expected]);
    let other = NewStep { id: new.id, ..numbered(2) };
    let again = store.submit(vec![other]).await.unwrap().value;
    assert!(again[0].deduped && again[0].differs);
    finish(&store, claim.key, completed("1")).await;
    assert_eq!(store.counts().await.unwrap().value.completed, 1, "one step in all");
}

pub async fn one_of_many_submitters_with_one_id_wins(world: &impl World) {
    let store = world.store();
    let id = StepId::fresh();
    let submitters: Vec<_> = (0..16)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let step = NewStep { id, ..numbered(number) };
                store.submit(vec![step]).await.unwrap().value.remove(0)
            })
        })
        .collect();
    let mut new = 0;
    for submitter in submitters {
        let submitted = submitter.await.unwrap();
        assert_eq!(submitted.id, id);
        new += usize::from(!submitted.deduped);
    }
    assert_eq!(new, 1);
    let page = store.list(StepFilter::default(), PageRequest::first(100)).await.unwrap().value;
    assert_eq!(page.items.len(), 1);
}

pub async fn a_unique_key_is_held_until_forgotten_or_until_finished(world: &impl World) {
    let store = world.store();
    let named = |key: &str, until| NewStep {
        unique: Some(Unique { key: key.to_owned(), until }),
        ..numbered(1)
    };
    for until in [UniqueUntil::Finished, UniqueUntil::Forgotten] {
        let key = until.word();
        let first = submit(&store, named(key, until)).await;
        let second = store.submit(vec![named(key, until)]).await.unwrap().value.remove(0);
        assert_eq!((second.id, second.deduped), (first, true));
        let claim = claim_one(&store).await;
        assert_eq!(submit(&store, named(key, until)).await, first, "also while it runs");
        finish(&store, claim.key, failed("no", 0)).await;
        assert_eq!(submit(&store, named(key, until)).await, first, "also between attempts");
        let claim = claim_one(&store).await;
        finish(&store, claim.key, completed("1")).await;
        let after = submit(&store, named(key, until)).await;
        assert_eq!(after == first, until == UniqueUntil::Forgotten);
        store.cancel(vec![after]).await.unwrap();
    }
}

pub async fn twins_in_one_batch_are_one_step(world: &impl World) {
    let store = world.store();
    let unique = Some(Unique { key: "twin".to_owned(), until: UniqueUntil::Finished });
    let one = NewStep { unique: unique.clone(), ..numbered(1) };
    let other = NewStep { unique, ..numbered(2) };
    let batch = vec![one.clone(), other, numbered(3), one.clone()];
    let answers = store.submit(batch).await.unwrap().value;
    let seen: Vec<_> = answers.iter().map(|answer| (answer.id == one.id, answer.deduped)).collect();
    assert_eq!(seen, [(true, false), (true, true), (false, false), (true, true)]);
    assert!(answers[1].differs && !answers[3].differs);
    assert_eq!(store.counts().await.unwrap().value.pending, 2);
}

/// Arguments that make a payload of exactly this many bytes.
fn payload(bytes: usize) -> NewStep {
    let empty = NewStep { args: json(r#"{"a":""}"#), ..NewStep::new(kind("work")) };
    let fill = bytes - empty.payload_bytes();
    NewStep { args: json(&format!(r#"{{"a":"{}"}}"#, "x".repeat(fill))), ..empty }
}

pub async fn limits_hold_at_and_one_past(world: &impl World) {
    let store = world.store();
    let largest = payload(PAYLOAD_BYTES_MAX);
    submit(&store, largest.clone()).await;
    assert_eq!(step(&store, largest.id).await.args, largest.args);
    assert_eq!(claim_one(&store).await.args, largest.args);

    submit(&store, NewStep { priority: PRIORITY_MAX, ..numbered(1) }).await;
    submit(&store, NewStep { priority: -PRIORITY_MAX, ..numbered(1) }).await;
    submit(&store, NewStep { attempts_max: RETRIES_MAX + 1, ..numbered(1) }).await;
    let named = |bytes: usize| {
        let unique = Unique { key: "k".repeat(bytes), until: UniqueUntil::Finished };
        NewStep { unique: Some(unique), ..numbered(1) }
    };
    submit(&store, named(255)).await;

    let refused = [
        ("payload", payload(PAYLOAD_BYTES_MAX + 1)),
        ("priority", NewStep { priority: PRIORITY_MAX + 1, ..numbered(1) }),
        ("priority", NewStep { priority: i32::MIN, ..numbered(1) }),
        ("max_retries", NewStep { attempts_max: RETRIES_MAX + 2, ..numbered(1) }),
        ("max_retries", NewStep { attempts_max: 0, ..numbered(1) }),
        ("timeout_ms", NewStep { timeout_ms: Some(0), ..numbered(1) }),
        ("delay_ms", NewStep { run_at: RunAt::InMs(u64::MAX), ..numbered(1) }),
        ("args", NewStep { args: json("[]"), ..numbered(1) }),
        ("metadata", NewStep { metadata: json("1"), ..numbered(1) }),
        ("unique_key", named(256)),
        ("unique_key", named(0)),
    ];
    let before = store.counts().await.unwrap().value;
    for (field, step) in refused {
        // Beside one that is fine: a batch is taken whole or not at all.
        match store.submit(vec![numbered(1), step]).await {
            Err(StoreError::Invalid(invalid)) => assert_eq!(invalid.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(store.counts().await.unwrap().value, before);

    let batch = |steps| (0..steps).map(numbered).collect::<Vec<_>>();
    assert_eq!(store.submit(batch(BATCH_MAX)).await.unwrap().value.len(), BATCH_MAX);
    assert!(matches!(store.submit(batch(BATCH_MAX + 1)).await, Err(StoreError::Invalid(_))));
    assert_eq!(store.submit(Vec::new()).await.unwrap().value, []);
    let heavy = (0..17).map(|_| payload(PAYLOAD_BYTES_MAX)).collect();
    assert!(matches!(store.submit(heavy).await, Err(StoreError::Invalid(_))));
}

pub async fn text_that_looks_like_sql_is_only_text(world: &impl World) {
    let store = world.store();
    let nasty = r#"'; DROP TABLE fleet_steps; -- $1 ?1 :a @b % _ \" \\ é 🦀"#;
    let quoted = JsonText::of("args", &BTreeMap::from([("a", nasty)])).unwrap();
    let new = NewStep {
        args: quoted.clone(),
        metadata: quoted.clone(),
        unique: Some(Unique { key: nasty.to_owned(), until: UniqueUntil::Forgotten }),
        ..numbered(1)
    };
    let id = submit(&store, new.clone()).await;
    let filter = StepFilter { unique_key: Some(nasty.to_owned()), ..StepFilter::default() };
    let found = store.list(filter, PageRequest::first(10)).await.unwrap().value;
    assert_eq!(found.items.len(), 1);
    let filter = StepFilter { contains: Some("'; DROP".to_owned()), ..StepFilter::default() };
    let found = store.list(filter, PageRequest::first(10)).await.unwrap().value;
    assert_eq!((found.items[0].id, &found.items[0].args), (id, &quoted));
    let filter = StepFilter { contains: Some("%".repeat(5)), ..StepFilter::default() };
    let found = store.list(filter, PageRequest::first(10)).await.unwrap().value;
    assert_eq!(found.items, [], "a search is for the text itself");
    let claim = claim_one(&store).await;
    let fatal = Outcome::Fatal { error: format!("{nasty}\0") };
    finish(&store, claim.key, fatal).await;
    assert_eq!(state(&store, id).await, StepState::Failed);
    let error = step(&store, id).await.last_error.unwrap();
    assert!(error.starts_with(nasty), "{error}");
}
