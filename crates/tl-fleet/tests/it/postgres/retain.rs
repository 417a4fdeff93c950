//! Finished steps lie in parts, which are dropped whole.

use tl_fleet::{
    Cancelled, EffectNoted, Forgotten, LeaderWrite, Leadership, NewEffect, NewStep, Redriven,
    Retention, StepId, Unique, UniqueUntil,
};

use super::{PostgresWorld, world};
use crate::conformance::{
    LEASE_MS, World, claim_one, completed, failed, finish, json, numbered, register, submit,
};

const HOUR_MS: u64 = 3_600_000;
const KEEP: Retention =
    Retention { finished_ms: 8 * HOUR_MS, dead_ms: 99 * HOUR_MS, pods_ms: HOUR_MS, steps_max: 10 };

/// Lets the clock begin now, so that it meets the parts that were made when the tables were.
async fn begin_now(world: &PostgresWorld) {
    let now = format!(
        "UPDATE {}.clock SET now = floor(date_part('epoch', clock_timestamp()) * 1000)::bigint",
        world.schema
    );
    world.client.batch_execute(&now).await.unwrap();
}

async fn retain(world: &PostgresWorld) -> Forgotten {
    retain_as(world, KEEP).await
}

async fn retain_as(world: &PostgresWorld, keep: Retention) -> Forgotten {
    let store = world.store();
    let life = register(&store, "leader").await;
    let Leadership::Led { epoch, .. } = store.lead(life.clone(), LEASE_MS).await.unwrap().value
    else {
        panic!("nobody else leads")
    };
    let answer = store.retain(epoch, keep).await.unwrap().value;
    store.leave(life).await.unwrap();
    match answer {
        LeaderWrite::Done(forgotten) => forgotten,
        LeaderWrite::Deposed => panic!("it leads"),
    }
}

/// One that failed once, noted an effect, bears a key, and is completed.
async fn worked_off(world: &PostgresWorld, number: usize) -> StepId {
    let store = world.store();
    let unique = Unique { key: format!("k{number}"), until: UniqueUntil::Forgotten };
    let id = submit(&store, NewStep { unique: Some(unique), ..numbered(number) }).await;
    let claim = claim_one(&store).await;
    let effect = NewEffect { claim: claim.key, key: "e".to_owned(), value: json("1") };
    store.note_effects(vec![effect]).await.unwrap();
    finish(&store, claim.key, failed("no", 0)).await;
    finish(&store, claim_one(&store).await.key, completed("1")).await;
    id
}

async fn parts(world: &PostgresWorld) -> Vec<String> {
    let sql = format!(
        "SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
         WHERE i.inhparent = '{}.fleet_finished'::regclass ORDER BY 1",
        world.schema
    );
    world.client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn rows(world: &PostgresWorld, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {}.{table}", world.schema);
    world.client.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn old_parts_are_dropped_with_all_that_hangs_on_their_steps() {
    let world = world().await;
    begin_now(&world).await;
    let store = world.store();
    let mut old = Vec::new();
    for number in 0..3 {
        old.push(worked_off(&world, number).await);
    }
    assert_eq!(rows(&world, "fleet_finished_rest").await, 0, "each has found its part");
    assert_eq!(rows(&world, "fleet_finished_first").await, 0);
    let dead = submit(&store, numbered(9)).await;
    let claim = claim_one(&store).await;
    finish(&store, claim.key, tl_fleet::Outcome::Fatal { error: "no".to_owned() }).await;
    let before = parts(&world).await;

    // The part is as long as an hour, which is an eighth of what is kept.
    world.pass(HOUR_MS).await;
    assert_eq!(retain(&world).await, Forgotten { steps: 0, pods: 0, more: false });
    let ahead = parts(&world).await;
    assert_eq!(ahead.len(), before.len() + 1, "{ahead:?}");
    let young = worked_off(&world, 4).await;
    assert_eq!(rows(&world, "fleet_finished_rest").await, 0);

    world.pass(7 * HOUR_MS + HOUR_MS / 2).await;
    assert_eq!(retain(&world).await.steps, 0, "some of its steps are not old enough yet");
    world.pass(HOUR_MS / 2).await;
    assert_eq!(retain(&world).await, Forgotten { steps: 3, pods: 0, more: false });
    let left = parts(&world).await;
    assert!(before.iter().any(|part| !left.contains(part)), "{left:?}");
    let found = store.steps([old.clone(), vec![dead, young]].concat()).await.unwrap().value;
    let kept: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(kept, [false, false, false, true, true]);
    for (table, remains) in [("fleet_attempts", 2), ("fleet_effects", 1), ("fleet_unique", 1)] {
        assert_eq!(rows(&world, table).await, remains, "{table}");
    }
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.completed, counts.failed), (1, 1));
}

#[tokio::test]
async fn a_large_part_is_gone_through_in_slices_before_it_is_dropped() {
    let world = world().await;
    begin_now(&world).await;
    let fill = format!(
        "INSERT INTO {0}.fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
             attempts_max, cancel_asked, created_at, updated_at, finished_at, args, metadata)
         SELECT nextval('{0}.fleet_seq'), gen_random_uuid(), 'work', 3, 0, 0, 1, 0, 4, false, 0, 0,
                now + n, '{{}}', '{{}}' FROM {0}.clock, generate_series(1, 500) AS n;
         INSERT INTO {0}.fleet_totals (state, steps) VALUES (3, 500)",
        world.schema
    );
    world.client.batch_execute(&fill).await.unwrap();
    world.pass(32 * HOUR_MS).await;
    // Twenty times as many as would be taken one by one.
    let slices = [retain(&world).await, retain(&world).await, retain(&world).await];
    let steps: Vec<(u64, bool)> = slices.iter().map(|slice| (slice.steps, slice.more)).collect();
    assert_eq!(steps, [(200, true), (200, true), (100, false)]);
    assert_eq!(rows(&world, "fleet_finished").await, 0);
    assert_eq!(world.store().counts().await.unwrap().value.completed, 0);
}

#[tokio::test]
async fn a_part_that_somebody_reads_is_dropped_later() {
    let world = world().await;
    begin_now(&world).await;
    worked_off(&world, 1).await;
    let before = parts(&world).await;
    world.pass(32 * HOUR_MS).await;
    let mut reader = super::client().await;
    let tx = reader.transaction().await.unwrap();
    tx.execute(&format!("SELECT FROM {}.fleet_finished", world.schema), &[]).await.unwrap();
    assert_eq!(retain(&world).await, Forgotten { steps: 1, pods: 0, more: false });
    assert_eq!(parts(&world).await, before, "it waits for nobody");
    tx.rollback().await.unwrap();
    assert_eq!(retain(&world).await, Forgotten { steps: 0, pods: 0, more: false });
    let left = parts(&world).await;
    assert_eq!(before.iter().filter(|part| !left.contains(part)).count(), 1, "{left:?}");
    assert_eq!(world.store().counts().await.unwrap().value.completed, 0, "counted out once");
}

/// Two minutes: parts of an hour are far too long.
const KEEP_BRIEFLY: Retention = Retention { finished_ms: 120_000, ..KEEP };

#[tokio::test]
async fn steps_of_a_part_that_is_too_long_are_forgotten_as_they_come_due() {
    let world = world().await;
    begin_now(&world).await;
    let mut old = Vec::new();
    for number in 0..3 {
        old.push(worked_off(&world, number).await);
    }
    let before = parts(&world).await;
    world.pass(60_000).await;
    let young = worked_off(&world, 3).await;
    assert_eq!(retain_as(&world, KEEP_BRIEFLY).await.steps, 0);
    world.pass(60_000).await;
    let forgotten = retain_as(&world, KEEP_BRIEFLY).await;
    assert_eq!(forgotten, Forgotten { steps: 3, pods: 0, more: false });
    let found = world.store().steps([old, vec![young]].concat()).await.unwrap().value;
    let kept: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(kept, [false, false, false, true]);
    for table in ["fleet_attempts", "fleet_effects", "fleet_unique"] {
        assert_eq!(rows(&world, table).await, 1, "{table}");
    }
    assert_eq!(world.store().counts().await.unwrap().value.completed, 1);
    assert_eq!(parts(&world).await, before, "their part is still in use");
    world.pass(60_000).await;
    assert_eq!(retain_as(&world, KEEP_BRIEFLY).await.steps, 1);
    assert_eq!(world.store().counts().await.unwrap().value.completed, 0);
}

#[tokio::test]
async fn a_large_part_that_is_too_long_is_gone_through_as_its_steps_come_due() {
    let world = world().await;
    begin_now(&world).await;
    let fill = format!(
        "INSERT INTO {0}.fleet_finished (seq, id, kind, state, priority, run_at, attempt, charged,
             attempts_max, cancel_asked, created_at, updated_at, finished_at, args, metadata)
         SELECT nextval('{0}.fleet_seq'), gen_random_uuid(), 'work', 3, 0, 0, 1, 0, 4, false, 0, 0,
                now + n, '{{}}', '{{}}' FROM {0}.clock, generate_series(1, 3000) AS n;
         INSERT INTO {0}.fleet_totals (state, steps) VALUES (3, 3000)",
        world.schema
    );
    world.client.batch_execute(&fill).await.unwrap();
    let keep = Retention { steps_max: 1_000, ..KEEP_BRIEFLY };
    world.pass(keep.finished_ms + 1_500).await;
    let mut slices = Vec::new();
    for pass_ms in [0, 0, 0, 1_500, 0, 0] {
        world.pass(pass_ms).await;
        let slice = retain_as(&world, keep).await;
        slices.push((slice.steps, slice.more));
    }
    let due = [(1_000, true), (500, false), (0, false)];
    assert_eq!(slices, [due, due].concat());
    assert_eq!(rows(&world, "fleet_finished").await, 0);
    assert_eq!(world.store().counts().await.unwrap().value.completed, 0);
}

/// One that failed once, noted an effect, bears a key, and was called off.
async fn called_off(world: &PostgresWorld) -> StepId {
    let store = world.store();
    let unique = Unique { key: "off".to_owned(), until: UniqueUntil::Forgotten };
    let id = submit(&store, NewStep { unique: Some(unique), ..numbered(7) }).await;
    let claim = claim_one(&store).await;
    let effect = NewEffect { claim: claim.key, key: "e".to_owned(), value: json("1") };
    store.note_effects(vec![effect]).await.unwrap();
    finish(&store, claim.key, failed("no", 0)).await;
    assert_eq!(store.cancel(vec![id]).await.unwrap().value, [Cancelled::Now]);
    id
}

#[tokio::test]
async fn a_step_that_is_put_back_while_its_part_is_swept_keeps_what_hangs_on_it() {
    let world = world().await;
    begin_now(&world).await;
    let store = world.store();
    let id = called_off(&world).await;
    worked_off(&world, 1).await;
    world.pass(32 * HOUR_MS).await;
    // It is put back, and that is not committed yet.
    let mut other = super::client().await;
    let tx = other.transaction().await.unwrap();
    let sql = format!("SELECT what FROM {}.fleet_redrive($1) WHERE item = 1", world.schema);
    assert_eq!(tx.query_one(&sql, &[&vec![id.0]]).await.unwrap().get::<_, i16>(0), 1);
    assert_eq!(retain(&world).await.steps, 0, "the part is left to the next look");
    tx.commit().await.unwrap();
    assert_eq!(retain(&world).await.steps, 1, "the other one");
    for table in ["fleet_attempts", "fleet_effects", "fleet_unique"] {
        assert_eq!(rows(&world, table).await, 1, "{table}");
    }
    let claim = claim_one(&store).await;
    let effect = NewEffect { claim: claim.key, key: "e".to_owned(), value: json("2") };
    let noted = store.note_effects(vec![effect]).await.unwrap().value;
    assert_eq!(noted, [EffectNoted::Before { value: json("1") }]);
    let counts = store.counts().await.unwrap().value;
    assert_eq!((counts.claimed, counts.completed, counts.cancelled), (1, 0, 0));
}

#[tokio::test]
async fn what_retention_has_come_past_cannot_be_put_back() {
    let world = world().await;
    begin_now(&world).await;
    let id = called_off(&world).await;
    world.pass(32 * HOUR_MS).await;
    // Somebody reads, so that the part is swept and not dropped yet.
    let mut reader = super::client().await;
    let tx = reader.transaction().await.unwrap();
    tx.execute(&format!("SELECT FROM {}.fleet_finished", world.schema), &[]).await.unwrap();
    assert_eq!(retain(&world).await.steps, 1);
    let answer = world.store().redrive(vec![id]).await.unwrap().value;
    assert_eq!(answer, [Redriven::NotFound], "what hung on it is gone");
    tx.rollback().await.unwrap();
    assert_eq!(retain(&world).await.steps, 0);
    let counts = world.store().counts().await.unwrap().value;
    assert_eq!((counts.pending, counts.cancelled), (0, 0));
}
