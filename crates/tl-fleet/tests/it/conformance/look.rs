//! People look.

use tl_fleet::limits::{ATTEMPTS_SHOWN_MAX, LOOKUP_MAX, PAGE_MAX};
use tl_fleet::{
    NewStep, PageRequest, PageToken, Redriven, RunAt, StepFilter, StepId, StepState, StoreError,
    Unique, UniqueUntil,
};

use super::{
    World, claim_as, claim_one, completed, failed, finish, json, kind, numbered, pod, submit,
};

pub async fn pages_hold_every_step_once_newest_first(world: &impl World) {
    let store = world.store();
    let mut ids = Vec::new();
    for number in 0..25 {
        ids.push(submit(&store, numbered(number)).await);
        world.pass(1).await;
    }
    ids.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let request = PageRequest { after, limit: 10 };
        let page = store.list(StepFilter::default(), request).await.unwrap().value;
        assert!(page.items.len() <= 10);
        seen.extend(page.items.iter().map(|step| step.id));
        // What comes in between moves nothing.
        submit(&store, numbered(99)).await;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ids);

    for error in ["a", "b", "c"] {
        let claim = claim_one(&store).await;
        let fatal = tl_fleet::Outcome::Fatal { error: error.to_owned() };
        finish(&store, claim.key, fatal).await;
    }
    let first = store.dead_letters(false, PageRequest::first(2)).await.unwrap().value;
    let rest = PageRequest { after: first.next.clone(), limit: 2 };
    let rest = store.dead_letters(false, rest).await.unwrap().value;
    let errors: Vec<_> =
        first.items.iter().chain(&rest.items).map(|letter| letter.error.clone().unwrap()).collect();
    assert_eq!((errors, rest.next), (vec!["c".to_owned(), "b".into(), "a".into()], None));
}

pub async fn filters_let_pass_what_they_say(world: &impl World) {
    let store = world.store();
    let done = submit(&store, numbered(1)).await;
    let claim = claim_as(&store, "w1", 1).await.remove(0);
    finish(&store, claim.key, completed("1")).await;
    world.pass(1_000).await;
    let held = submit(&store, numbered(2)).await;
    claim_as(&store, "w2", 1).await;
    world.pass(1_000).await;
    let unique = Some(Unique { key: "u".to_owned(), until: UniqueUntil::Forgotten });
    let other = NewStep { unique, metadata: json(r#"{"team":"blue"}"#), ..NewStep::new(kind("o")) };
    let other = submit(&store, other).await;

    let all = StepFilter::default;
    let created = store.steps(vec![held]).await.unwrap().value[0].clone().unwrap().created_at;
    let cases = [
        (all(), vec![other, held, done]),
        (StepFilter { states: vec![StepState::Completed], ..all() }, vec![done]),
        (
            StepFilter { states: vec![StepState::Completed, StepState::Claimed], ..all() },
            vec![held, done],
        ),
        (StepFilter { kind: Some(kind("o")), ..all() }, vec![other]),
        (StepFilter { pod: Some(pod("w2")), ..all() }, vec![held]),
        (StepFilter { pod: Some(pod("w1")), ..all() }, vec![done]),
        (StepFilter { unique_key: Some("u".to_owned()), ..all() }, vec![other]),
        (StepFilter { contains: Some("blue".to_owned()), ..all() }, vec![other]),
        (StepFilter { contains: Some(r#""n":2"#.to_owned()), ..all() }, vec![held]),
        (StepFilter { created_from: Some(created), ..all() }, vec![other, held]),
        (StepFilter { created_before: Some(created), ..all() }, vec![done]),
        (StepFilter { contains: Some("BLUE".to_owned()), ..all() }, vec![]),
    ];
    for (filter, expected) in cases {
        let page = store.list(filter.clone(), PageRequest::first(10)).await.unwrap().value;
        let found: Vec<_> = page.items.iter().map(|step| step.id).collect();
        assert_eq!(found, expected, "{filter:?}");
        assert_eq!(page.next, None);
    }
    let long = StepFilter { contains: Some("x".repeat(256)), ..all() };
    let refused = store.list(long, PageRequest::first(10)).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))));
}

pub async fn counts_say_how_many_stand_where(world: &impl World) {
    let store = world.store();
    for (number, priority) in [(0, 2), (1, 2), (2, 1), (3, 0), (4, 0), (5, 0)] {
        submit(&store, NewStep { priority, ..numbered(number) }).await;
    }
    submit(&store, NewStep { run_at: RunAt::InMs(5_000), ..NewStep::new(kind("late")) }).await;
    let claims = claim_as(&store, "w", 4).await;
    finish(&store, claims[0].key, completed("1")).await;
    finish(&store, claims[1].key, failed("no", 60_000)).await;
    store.cancel(vec![claims[3].key.id]).await.unwrap();
    finish(&store, claims[3].key, tl_fleet::Outcome::Cancelled).await;
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.scheduled, counts.pending, counts.claimed), (2, 2, 1));
    assert_eq!((counts.completed, counts.failed, counts.cancelled), (1, 0, 1));
    assert_eq!(counts.pending_by_priority, [(0, 2)]);
    let mut by_kind: Vec<_> = counts
        .by_kind
        .iter()
        .map(|count| (count.kind.as_str(), count.scheduled, count.pending, count.claimed))
        .collect();
    by_kind.sort_unstable();
    assert_eq!(by_kind, [("late", 1, 0, 0), ("work", 1, 2, 1)]);
}

pub async fn unknown_ids_are_answered_and_not_errors(world: &impl World) {
    let store = world.store();
    let known = submit(&store, numbered(1)).await;
    let unknown = StepId::fresh();
    let found = store.steps(vec![unknown, known, unknown]).await.unwrap().value;
    let there: Vec<_> = found.iter().map(Option::is_some).collect();
    assert_eq!(there, [false, true, false]);
    assert_eq!(store.attempts(unknown).await.unwrap().value, []);
    assert_eq!(store.redrive(vec![unknown]).await.unwrap().value, [Redriven::NotFound]);
    assert_eq!(store.steps(Vec::new()).await.unwrap().value, []);
}

pub async fn a_foreign_page_token_is_refused(world: &impl World) {
    let store = world.store();
    for text in ["", "x", "-1", "1 OR 1=1", "99999999999999999999999999"] {
        let page = PageRequest { after: Some(PageToken(text.to_owned())), limit: 1 };
        let answer = store.list(StepFilter::default(), page.clone()).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{text:?}");
        let answer = store.dead_letters(true, page).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{text:?}");
    }
    for (limit, fine) in [(1, true), (PAGE_MAX, true), (0, false), (PAGE_MAX + 1, false)] {
        let answer = store.list(StepFilter::default(), PageRequest::first(limit)).await;
        assert_eq!(answer.is_ok(), fine, "{limit}");
    }
}

pub async fn a_store_apart_sees_the_same(world: &impl World) {
    let store = world.store();
    let apart = store.apart().await.unwrap();
    let id = submit(&apart, numbered(1)).await;
    let claim = claim_one(&store).await;
    assert_eq!(claim.key.id, id);
    finish(&apart, claim.key, completed("1")).await;
    assert_eq!(super::state(&store, id).await, StepState::Completed);
    let (here, there) = (store.ping().await.unwrap(), apart.ping().await.unwrap());
    assert!(there.at >= here.at, "one clock");
}

pub async fn who_waits_for_work_is_told(world: &impl World) {
    let store = world.store();
    let mut wakes = store.wakes();
    wakes.mark_unchanged();
    submit(&store, numbered(1)).await;
    wakes.changed().await.unwrap();
}

pub async fn a_page_and_a_lookup_have_a_limit_of_bytes(world: &impl World) {
    let store = world.store();
    let half = format!(r#"{{"a":"{}"}}"#, "x".repeat(500_000));
    let mut ids = Vec::new();
    for _ in 0..5 {
        let steps: Vec<_> =
            (0..10).map(|_| NewStep { args: json(&half), ..NewStep::new(kind("large")) }).collect();
        ids.extend(steps.iter().map(|step| step.id));
        store.submit(steps).await.unwrap();
    }
    let first = store.list(StepFilter::default(), PageRequest::first(100)).await.unwrap().value;
    assert!((1..50).contains(&first.items.len()), "{} of 50", first.items.len());
    let rest = PageRequest { after: first.next.clone(), limit: 100 };
    let rest = store.list(StepFilter::default(), rest).await.unwrap().value;
    assert_eq!(first.items.len() + rest.items.len(), 50);
    // What a search looks into counts too, found or not.
    let nowhere = StepFilter { contains: Some("nowhere".to_owned()), ..StepFilter::default() };
    let none = store.list(nowhere, PageRequest::first(100)).await.unwrap().value;
    assert!(none.items.is_empty() && none.next.is_some());
    assert_eq!(store.steps(ids[..LOOKUP_MAX].to_vec()).await.unwrap().value.len(), LOOKUP_MAX);
    let many = store.steps(ids[..=LOOKUP_MAX].to_vec()).await;
    assert!(matches!(many, Err(StoreError::Invalid(invalid)) if invalid.field == "ids"));
}

pub async fn of_many_attempts_the_newest_are_shown(world: &impl World) {
    let store = world.store();
    let id = submit(&store, numbered(1)).await;
    for _ in 0..ATTEMPTS_SHOWN_MAX {
        let claim = claim_one(&store).await;
        finish(&store, claim.key, tl_fleet::Outcome::Released).await;
    }
    let first_and_last = async || {
        let attempts = store.attempts(id).await.unwrap().value;
        let numbers: Vec<u64> = attempts.iter().map(|attempt| attempt.attempt.0).collect();
        (numbers[0], numbers[numbers.len() - 1])
    };
    let most = ATTEMPTS_SHOWN_MAX as u64;
    assert_eq!(first_and_last().await, (1, most));
    let claim = claim_one(&store).await;
    assert_eq!(first_and_last().await, (2, most + 1), "with the one under way");
    finish(&store, claim.key, tl_fleet::Outcome::Released).await;
    assert_eq!(first_and_last().await, (2, most + 1));
}
