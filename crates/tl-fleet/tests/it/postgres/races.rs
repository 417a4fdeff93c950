//! A row that two transactions want at the same time.

use std::time::{Duration, Instant};

use tl_fleet::{Finish, Finished, Leadership, Outcome, PodLife, StepState};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{client, world};
use crate::conformance::{
    LEASE_MS, World, claim_as, claim_one, completed, failed, numbered, recover, register, state,
};

/// Waits until somebody waits for a lock of the session with this process id.
pub async fn until_one_waits_for(pid: i32, looker: &Client) {
    let patience = Instant::now() + Duration::from_secs(20);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
    while looker.query_one(waiting, &[&pid]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < patience, "nobody waits");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_report_that_meets_a_renewal_counts_once_that_is_committed() {
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    let pid = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let fatal = Outcome::Fatal { error: "no".into() };
    let ends = [
        (completed("1"), StepState::Completed),
        (fatal, StepState::Failed),
        (failed("again", 0), StepState::Pending),
        (Outcome::Released, StepState::Pending),
    ];
    for (n, (outcome, ended)) in (1..).zip(ends) {
        store.submit(vec![numbered(n)]).await.unwrap();
        let claim = claim_one(&store).await;
        let renewal = format!(
            "UPDATE {}.fleet_steps SET lease_until = lease_until + 1 WHERE id = $1",
            world.schema
        );
        let tx = other.transaction().await.unwrap();
        assert_eq!(tx.execute(&renewal, &[&claim.key.id.0]).await.unwrap(), 1);
        let report = vec![Finish { key: claim.key, outcome }];
        let finishing = tokio::spawn({
            let store = world.store();
            async move { store.finish(report).await.unwrap().value }
        });
        until_one_waits_for(pid, &world.client).await;
        tx.commit().await.unwrap();
        assert_eq!(finishing.await.unwrap(), [Finished::Now(ended)], "report {n}");
        assert_eq!(state(&store, claim.key.id).await, ended, "step {n}");
        // What goes on is taken again, so that the next round claims its own.
        if ended == StepState::Pending {
            let again = claim_one(&store).await;
            let report = vec![Finish { key: again.key, outcome: completed("1") }];
            store.finish(report).await.unwrap();
        }
    }
    world.pass(LEASE_MS).await;
    assert_eq!(recover(&store).await.len(), 0, "nothing stayed behind");
}

#[tokio::test]
async fn two_recoveries_pass_each_other_without_waiting() {
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    store.submit((0..2).map(numbered).collect()).await.unwrap();
    let held = claim_as(&store, "gone", 2).await;
    world.pass(LEASE_MS).await;
    // One has taken a step back and not committed yet.
    let tx = other.transaction().await.unwrap();
    let sql = format!("SELECT id FROM {}.fleet_recover(1, 100, '{{0}}')", world.schema);
    let rows = tx.query(&sql, &[]).await.unwrap();
    let theirs: Vec<Uuid> = rows.iter().filter_map(|row| row.get(0)).collect();
    // The other takes what is left. Were it to wait, its time would run out here.
    let mine: Vec<Uuid> = recover(&store).await.iter().map(|one| one.id.0).collect();
    assert_eq!((theirs.len(), mine.len()), (1, 1));
    assert_ne!(theirs, mine);
    tx.commit().await.unwrap();
    for claim in held {
        assert_eq!(state(&store, claim.key.id).await, StepState::Pending);
    }
}

#[tokio::test]
async fn who_leads_goes_on_while_its_sweep_is_under_way_and_nobody_takes_its_place_in_it() {
    let world = world().await;
    let (store, mut other) = (world.store(), client().await);
    let (one, next) = (register(&store, "one").await, register(&store, "next").await);
    let led = async |life: &PodLife| store.lead(life.clone(), LEASE_MS).await.unwrap().value;
    let Leadership::Led { epoch, .. } = led(&one).await else { panic!("nobody else leads") };
    // As every write of a leader begins, in a transaction that does not end.
    let tx = other.transaction().await.unwrap();
    let sql = format!("SELECT {0}.fleet_leads($1, {0}.fleet_clock())", world.schema);
    let number = i64::try_from(epoch.0).unwrap();
    assert!(tx.query_one(&sql, &[&number]).await.unwrap().get::<_, bool>(0));
    world.pass(LEASE_MS / 2).await;
    // Were one of these to wait, its time would run out here.
    let Leadership::Led { epoch: still, lease_until } = led(&one).await else {
        panic!("it goes on leading")
    };
    assert_eq!((still, lease_until.0), (epoch, 1_800_000_000_000 + LEASE_MS / 2 + LEASE_MS));
    assert!(matches!(led(&next).await, Leadership::Other(leader) if leader.life == one));
    // Its lease is over, and its sweep is not.
    world.pass(LEASE_MS - 1).await;
    let next = register(&store, "next").await;
    world.pass(1).await;
    assert!(matches!(led(&next).await, Leadership::Other(leader) if leader.epoch == epoch));
    tx.commit().await.unwrap();
    let Leadership::Led { epoch: taken, .. } = led(&next).await else { panic!("it is free") };
    assert_eq!(taken.0, epoch.0 + 1);
}
