//! Calls that wait at the same time share a statement, and are none the worse for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tl_fleet::limits::PAYLOAD_BYTES_MAX;
use tl_fleet::postgres::{PostgresOptions, PostgresStore};
use tl_fleet::{
    ClaimRequest, Claimant, Finish, Finished, NewStep, Outcome, StepId, StepState, Store,
    StoreError, Submitted, Unique, UniqueUntil,
};
use tokio::task::JoinSet;

use super::proxy::Proxy;
use super::races::until_one_waits_for;
use super::{PostgresWorld, client, world};
use crate::conformance::{
    LEASE_MS, World, claim_as, completed, failed, json, kind, numbered, pod, state, step, submit,
};

/// Has all of them under way at once.
async fn at_once<T: Send + 'static>(calls: Vec<tl_fleet::Answer<'static, T>>) -> Vec<T> {
    let mut set = JoinSet::new();
    for (number, call) in calls.into_iter().enumerate() {
        set.spawn(async move { (number, call.await.unwrap().value) });
    }
    let mut all = set.join_all().await;
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, value)| value).collect()
}

fn submitting(store: &Arc<dyn Store>, step: NewStep) -> tl_fleet::Answer<'static, StepId> {
    let store = Arc::clone(store);
    Box::pin(async move { Ok(store.submit(vec![step]).await?.map(|all| all[0].id)) })
}

fn claiming(store: &Arc<dyn Store>, name: &str) -> tl_fleet::Answer<'static, Vec<tl_fleet::Claim>> {
    let (store, claimant) = (Arc::clone(store), Claimant::Worker(pod(name)));
    let request =
        ClaimRequest { claimant, kinds: vec![kind("work")], steps_max: 2, lease_ms: LEASE_MS };
    Box::pin(async move { store.claim(request).await })
}

/// How many transactions wrote the rows of a table.
async fn transactions(world: &PostgresWorld, table: &str) -> i64 {
    let sql = format!("SELECT count(DISTINCT xmin::text) FROM {}.{table}", world.schema);
    world.client.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn calls_made_at_once_share_transactions_and_each_has_its_answer() {
    const CALLS: usize = 60;
    let world = world().await;
    let store = world.store();
    let steps: Vec<NewStep> = (0..CALLS).map(numbered).collect();
    let ids: Vec<StepId> = steps.iter().map(|step| step.id).collect();
    let calls = steps.iter().map(|step| submitting(&store, step.clone())).collect();
    assert_eq!(at_once(calls).await, ids);
    assert!(transactions(&world, "fleet_steps").await <= 4);

    // Half of the workers find two steps each; there are none left for the others.
    let names: Vec<String> = (0..CALLS).map(|number| format!("w{number}")).collect();
    let claims = at_once(names.iter().map(|name| claiming(&store, name)).collect()).await;
    assert!(transactions(&world, "fleet_steps").await <= 4);
    let taken: BTreeSet<StepId> = claims.iter().flatten().map(|claim| claim.key.id).collect();
    assert_eq!(taken, ids.into_iter().collect());
    assert_eq!(claims.iter().filter(|share| share.len() == 2).count(), CALLS / 2);
    for (name, share) in names.iter().zip(&claims) {
        for claim in share {
            let holder = step(&store, claim.key.id).await.claimed_by;
            assert_eq!(holder.unwrap().as_str(), name);
        }
    }

    // Reports of all sorts, and one under a claim that is nobody's.
    let reports = claims.iter().flatten().enumerate().map(|(number, claim)| {
        let outcome = match number % 3 {
            0 => completed(&number.to_string()),
            1 => failed("no", 1_000),
            _ => Outcome::Released,
        };
        let mut key = claim.key;
        if number == 0 {
            key.token = tl_fleet::ClaimToken::fresh();
        }
        let store = Arc::clone(&store);
        let finish = vec![Finish { key, outcome }];
        let call: tl_fleet::Answer<'static, Vec<Finished>> =
            Box::pin(async move { store.finish(finish).await });
        call
    });
    let answers = at_once(reports.collect()).await;
    for (number, answer) in answers.iter().enumerate() {
        let expected = match number {
            0 => Finished::Fenced,
            _ if number % 3 == 0 => Finished::Now(StepState::Completed),
            _ if number % 3 == 1 => Finished::Now(StepState::Scheduled),
            _ => Finished::Now(StepState::Pending),
        };
        assert_eq!(answer, &[expected], "report {number}");
    }
    assert!(transactions(&world, "fleet_finished").await <= 4);
}

#[tokio::test]
async fn one_call_that_cannot_succeed_does_not_take_others_with_it() {
    let world = world().await;
    let store = world.store();
    let refuse = format!(
        "CREATE FUNCTION {0}.refuse() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN RAISE EXCEPTION ''not this one''; END';
         CREATE TRIGGER refuse BEFORE INSERT ON {0}.fleet_steps FOR EACH ROW
           WHEN (NEW.priority = 13) EXECUTE FUNCTION {0}.refuse()",
        world.schema
    );
    world.client.batch_execute(&refuse).await.unwrap();
    let mut set = JoinSet::new();
    for number in 0..20 {
        let (store, priority) = (Arc::clone(&store), number);
        let step = NewStep { priority, ..numbered(usize::try_from(number).unwrap()) };
        set.spawn(async move { (number, store.submit(vec![step]).await) });
    }
    for (number, answer) in set.join_all().await {
        match answer {
            Ok(answer) => assert!(number != 13 && !answer.value[0].deduped),
            Err(error) => {
                assert!(number == 13 && matches!(error, StoreError::Corrupt { .. }), "{error}");
            }
        }
    }
    assert_eq!(store.counts().await.unwrap().value.pending, 19);
}

#[tokio::test]
async fn twins_in_calls_that_share_a_statement_are_one_step() {
    let world = world().await;
    let store = world.store();
    let new = numbered(1);
    let mut set = JoinSet::new();
    for _ in 0..10 {
        let (store, new) = (Arc::clone(&store), new.clone());
        set.spawn(async move { store.submit(vec![new]).await.unwrap().value.remove(0) });
    }
    let answers = set.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !answer.deduped).count(), 1);
    assert!(answers.iter().all(|answer| answer.id == new.id));
    assert_eq!(claim_as(&store, "w", 10).await.len(), 1);
}

#[tokio::test]
async fn what_was_claimed_for_who_has_gone_is_given_back() {
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    let id = submit(&store, numbered(1)).await;
    let pid = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let tx = other.transaction().await.unwrap();
    let lock = format!("LOCK TABLE {}.fleet_steps IN EXCLUSIVE MODE", world.schema);
    tx.batch_execute(&lock).await.unwrap();
    let asking = tokio::spawn(claiming(&store, "gone"));
    until_one_waits_for(pid, &world.client).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    tx.commit().await.unwrap();
    // The attempt tells that it was claimed.
    let given_back = async {
        while step(&store, id).await.attempt.0 == 0 || state(&store, id).await != StepState::Pending
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), given_back).await.expect("given back");
    assert_eq!(step(&store, id).await.charged, 0);
}

#[tokio::test]
async fn who_gives_up_before_the_statement_is_sent_finds_nothing_claimed_later() {
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    let pid = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let ids = [submit(&store, numbered(1)).await, submit(&store, numbered(2)).await];
    let tx = other.transaction().await.unwrap();
    let lock = format!("LOCK TABLE {}.fleet_steps IN EXCLUSIVE MODE", world.schema);
    tx.batch_execute(&lock).await.unwrap();
    let first = tokio::spawn({
        let (store, claimant) = (Arc::clone(&store), Claimant::Worker(pod("first")));
        let kinds = vec![kind("work")];
        let request = ClaimRequest { claimant, kinds, steps_max: 1, lease_ms: LEASE_MS };
        async move { store.claim(request).await.unwrap().value }
    });
    until_one_waits_for(pid, &world.client).await;
    // Claims go one behind the other, so this one is still in the queue.
    let second = tokio::spawn(claiming(&store, "second"));
    tokio::task::yield_now().await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    tx.commit().await.unwrap();
    assert_eq!(first.await.unwrap()[0].key.id, ids[0]);
    assert_eq!(claim_as(&store, "third", 5).await[0].attempt.0, 1);
}

#[tokio::test]
async fn small_calls_of_every_sort_share_one_transaction() {
    let world = world().await;
    let store = world.store();
    submit(&store, numbered(1)).await;
    let held = claim_as(&store, "w", 1).await.remove(0);
    submit(&store, numbered(2)).await;
    let mut set = JoinSet::new();
    let finishing = Arc::clone(&store);
    set.spawn(async move {
        let report = vec![Finish { key: held.key, outcome: completed("1") }];
        finishing.finish(report).await.unwrap();
    });
    let submitting = Arc::clone(&store);
    set.spawn(async move { drop(submitting.submit(vec![numbered(3)]).await.unwrap()) });
    let claims = claiming(&store, "w");
    set.spawn(async move { assert_eq!(claims.await.unwrap().value.len(), 2) });
    set.join_all().await;
    let sql = format!(
        "SELECT count(DISTINCT x) FROM (SELECT xmin::text AS x FROM {0}.fleet_steps
         UNION ALL SELECT xmin::text FROM {0}.fleet_finished) AS written",
        world.schema
    );
    assert_eq!(world.client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_call_that_has_to_wait_for_somebody_does_not_keep_others_waiting() {
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    // Somebody's open transaction has the id that one of the calls brings.
    let new = numbered(1);
    let tx = other.transaction().await.unwrap();
    world.store.submit_in(&tx, std::slice::from_ref(&new)).await.unwrap();
    let waits = tokio::spawn({
        let (store, new) = (Arc::clone(&store), new.clone());
        async move { store.submit(vec![new]).await.unwrap().value.remove(0) }
    });
    // Together with it and behind it.
    let beside = at_once((2..9).map(|number| submitting(&store, numbered(number))).collect()).await;
    assert_eq!(beside.len(), 7);
    assert_eq!(claim_as(&store, "w", 20).await.len(), 7);
    assert!(!waits.is_finished());
    tx.commit().await.unwrap();
    assert!(waits.await.unwrap().deduped);
}

/// A report, a submission and a claim of at most two steps, in one group.
async fn all_sorts(
    store: &Arc<dyn Store>,
    report: Finish,
    steps: Vec<NewStep>,
) -> (
    Result<Vec<Finished>, StoreError>,
    Result<Vec<Submitted>, StoreError>,
    Result<Vec<tl_fleet::Claim>, StoreError>,
) {
    let (finished, submitted, claims) =
        tokio::join!(store.finish(vec![report]), store.submit(steps), claiming(store, "w"));
    (
        finished.map(|answer| answer.value),
        submitted.map(|answer| answer.value),
        claims.map(|answer| answer.value),
    )
}

/// A store behind a proxy, and a claim beside one more step.
async fn behind_a_proxy(world: &PostgresWorld) -> (Arc<dyn Store>, Proxy, tl_fleet::Claim) {
    let proxy = Proxy::start();
    let options = PostgresOptions::parse(&proxy.url()).unwrap().schema(&world.schema).unwrap();
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(options).await.unwrap());
    submit(&store, numbered(1)).await;
    let held = claim_as(&store, "w", 1).await.remove(0);
    submit(&store, numbered(2)).await;
    (store, proxy, held)
}

#[tokio::test]
async fn calls_whose_transaction_did_not_begin_hear_what_they_did() {
    let world = world().await;
    let (store, proxy, held) = behind_a_proxy(&world).await;
    proxy.spoil_a_beginning();
    let report = Finish { key: held.key, outcome: completed("1") };
    let (finished, submitted, claims) = all_sorts(&store, report, vec![numbered(3)]).await;
    assert_eq!(proxy.spoiled(), 1);
    assert_eq!(finished.unwrap(), [Finished::Now(StepState::Completed)]);
    assert!(!submitted.unwrap()[0].deduped, "it went in by this very call");
    assert_eq!(claims.unwrap().len(), 2);
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.pending, counts.claimed, counts.completed), (0, 2, 1));
}

#[tokio::test]
async fn calls_whose_transaction_did_not_begin_never_hear_that_nothing_was_done_when_some_was() {
    let world = world().await;
    let (store, proxy, held) = behind_a_proxy(&world).await;
    let refuse = format!(
        "CREATE FUNCTION {0}.refuse() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN RAISE EXCEPTION ''not this one''; END';
         CREATE TRIGGER refuse BEFORE INSERT ON {0}.fleet_steps FOR EACH ROW
           WHEN (NEW.priority = 13) EXECUTE FUNCTION {0}.refuse()",
        world.schema
    );
    world.client.batch_execute(&refuse).await.unwrap();
    proxy.spoil_a_beginning();
    let report = Finish { key: held.key, outcome: completed("1") };
    let refused = NewStep { priority: 13, ..numbered(3) };
    let (finished, submitted, claims) = all_sorts(&store, report.clone(), vec![refused]).await;
    assert_eq!(proxy.spoiled(), 1);
    let errors = [finished.map(drop), submitted.map(drop), claims.map(drop)];
    for error in errors {
        assert!(matches!(error, Err(StoreError::OutcomeUnknown { .. })), "{error:?}");
    }
    // The same write may be repeated, as always.
    let again = store.finish(vec![report]).await.unwrap().value;
    assert_eq!(again, [Finished::Now(StepState::Completed)]);
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.claimed, counts.pending), (0, 1), "what nobody heard of is given back");
}

#[tokio::test]
async fn a_key_that_is_forgotten_in_the_moment_it_is_met_is_free_and_calls_beside_it_count_once() {
    let world = world().await;
    let store = world.store();
    let keyed = |number, key: &str| {
        let unique = Some(Unique { key: key.to_owned(), until: UniqueUntil::Forgotten });
        NewStep { unique, ..numbered(number) }
    };
    let holder = submit(&store, keyed(1, "met")).await;
    let claim = claim_as(&store, "w", 1).await.remove(0);
    submit(&store, numbered(2)).await;
    let held = claim_as(&store, "w", 1).await.remove(0);
    let waiting = submit(&store, numbered(3)).await;
    store.finish(vec![Finish { key: claim.key, outcome: completed("1") }]).await.unwrap();
    // Between meeting the first key and looking for whose it is, the submission stands still.
    let gate = format!(
        "CREATE TABLE {0}.gate (is_open boolean);
         CREATE FUNCTION {0}.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS '
           BEGIN
             WHILE NOT EXISTS (SELECT FROM {0}.gate) LOOP PERFORM pg_sleep(0.005); END LOOP;
             RETURN NEW;
           END';
         CREATE TRIGGER wait_at_gate BEFORE INSERT ON {0}.fleet_unique FOR EACH ROW
           WHEN (NEW.key = 'next') EXECUTE FUNCTION {0}.wait_at_gate()",
        world.schema
    );
    world.client.batch_execute(&gate).await.unwrap();
    let (met, next) = (keyed(4, "met"), keyed(5, "next"));
    let (first, second) = (met.id, next.id);
    let calls = tokio::spawn({
        let store = Arc::clone(&store);
        let report = Finish { key: held.key, outcome: completed("1") };
        async move { all_sorts(&store, report, vec![met, next]).await }
    });
    let stands = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                 WHERE wait_event = 'PgSleep' AND query LIKE '%\"' || $1 || '\".%')";
    while !world.client.query_one(stands, &[&world.schema]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    // As retention forgets.
    let forget = format!(
        "DELETE FROM {0}.fleet_unique WHERE key = 'met';
         DELETE FROM {0}.fleet_finished WHERE id = '{1}';
         INSERT INTO {0}.gate VALUES (true)",
        world.schema, holder.0
    );
    world.client.batch_execute(&forget).await.unwrap();
    let (finished, submitted, claims) = calls.await.unwrap();
    assert_eq!(finished.unwrap(), [Finished::Now(StepState::Completed)]);
    let submitted = submitted.unwrap();
    let ids: Vec<_> = submitted.iter().map(|one| (one.id, one.deduped)).collect();
    assert_eq!(ids, [(first, false), (second, false)], "both are new, one by the second try");
    let claims = claims.unwrap();
    let taken: Vec<_> = claims.iter().map(|claim| (claim.key.id, claim.attempt.0)).collect();
    assert_eq!(taken, [(waiting, 1), (second, 1)]);
    assert_eq!(claim_as(&store, "w", 9).await[0].key.id, first);
}

#[tokio::test]
async fn bytes_of_calls_count_until_they_are_answered() {
    const HELD: usize = 64;
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    let pid = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let tx = other.transaction().await.unwrap();
    let lock = format!("LOCK TABLE {}.fleet_steps IN EXCLUSIVE MODE", world.schema);
    tx.batch_execute(&lock).await.unwrap();
    // As large as a step may be.
    let large = || {
        let room = PAYLOAD_BYTES_MAX - NewStep::new(kind("work")).payload_bytes();
        let text = "x".repeat(room + r"{}".len() - r#"{"a":""}"#.len());
        NewStep { args: json(&format!(r#"{{"a":"{text}"}}"#)), ..NewStep::new(kind("work")) }
    };
    assert_eq!(large().payload_bytes(), PAYLOAD_BYTES_MAX);
    let mut calls = JoinSet::new();
    for _ in 0..HELD {
        calls.spawn(submitting(&store, large()));
    }
    // Some are under way, and the database does not answer.
    until_one_waits_for(pid, &world.client).await;
    let refused = store.submit(vec![large()]).await;
    assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    tx.commit().await.unwrap();
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    store.submit(vec![large()]).await.unwrap();
}
