//! Deadlines and the calendar.

use tl_fleet::{Beat, Heartbeat, LeaderWrite, Leadership, StepState};
use tl_types::UnixMs;

use super::world;
use crate::conformance::{
    LEASE_MS, World, claim_one, completed, finish, numbered, recover, register, state, submit,
};

const TEN_MINUTES_MS: u64 = 600_000;

#[tokio::test]
async fn a_calendar_that_jumps_moves_no_deadline() {
    let world = world().await;
    let store = world.store();
    let life = register(&store, "p").await;
    let id = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;
    let now = store.ping().await.unwrap().wall.0;
    for wall in [now + TEN_MINUTES_MS, now - TEN_MINUTES_MS, 0] {
        world.clock.set_wall(UnixMs(wall));
        assert_eq!(recover(&store).await, [], "the lease holds");
        let beat = Heartbeat {
            life: life.clone(),
            lease_ms: LEASE_MS,
            running: 0,
            prefetched: 0,
            draining: false,
            meta: None,
        };
        assert!(matches!(store.heartbeat(beat).await.unwrap().value, Beat::Alive { .. }));
    }
    finish(&store, claim.key, completed("1")).await;
    assert_eq!(state(&store, id).await, StepState::Completed);

    // Nor does it keep one that has run out.
    let id = submit(&store, numbered(2)).await;
    for wall in [now + TEN_MINUTES_MS, now - TEN_MINUTES_MS, 0] {
        world.clock.set_wall(UnixMs(wall));
        claim_one(&store).await;
        world.pass(LEASE_MS - 1).await;
        assert_eq!(recover(&store).await, []);
        world.pass(1).await;
        let recovered = recover(&store).await;
        assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [id]);
    }
}

#[tokio::test]
async fn another_start_of_the_machine_ends_every_lease_whatever_its_clock_says() {
    let world = world().await;
    let store = world.store();
    let life = register(&store, "p").await;
    let Leadership::Led { epoch, .. } = store.lead(life.clone(), LEASE_MS).await.unwrap().value
    else {
        panic!("nobody else leads")
    };
    submit(&store, numbered(1)).await;
    claim_one(&store).await;
    drop(store);
    // Shortly after the start, when the deadlines in the file seem far in the future.
    world.clock.restart_machine(5);
    let store = world.open_again();
    assert_eq!(recover(&store).await.len(), 1);
    assert!(matches!(store.lead(life, LEASE_MS).await, Err(tl_fleet::StoreError::Reaped)));
    assert_eq!(store.reap(epoch, 10).await.unwrap().value, LeaderWrite::Deposed);
    let next = register(&store, "p").await;
    let Leadership::Led { epoch: later, .. } = store.lead(next, LEASE_MS).await.unwrap().value
    else {
        panic!("nobody else leads")
    };
    assert!(later > epoch);
}

#[tokio::test]
async fn no_life_is_given_out_twice_after_a_restore_from_an_older_copy() {
    let world = world().await;
    let store = world.store();
    register(&store, "old").await;
    let copy = world.folder.path().join("copy.db");
    let from = rusqlite::Connection::open(world.options().path).unwrap();
    from.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    world.clock.advance(1_000);
    let after = register(&store, "after-the-copy").await;
    let submitted = submit(&store, numbered(1)).await;
    let claim = claim_one(&store).await;

    world.clock.advance(1_000);
    let options = tl_fleet::sqlite::SqliteOptions { path: copy, ..world.options() };
    let restored: std::sync::Arc<dyn tl_fleet::Store> =
        std::sync::Arc::new(tl_fleet::sqlite::SqliteStore::open(options).unwrap());
    let next = register(&restored, "new").await;
    assert!(next.incarnation > after.incarnation);
    let beat = Heartbeat {
        life: after,
        lease_ms: LEASE_MS,
        running: 0,
        prefetched: 0,
        draining: false,
        meta: None,
    };
    assert_eq!(restored.heartbeat(beat).await.unwrap().value, Beat::Reaped);
    // The report of a step that the copy does not know is dropped, and its submission can be
    // repeated.
    let fenced = finish(&restored, claim.key, completed("1")).await;
    assert_eq!(fenced, tl_fleet::Finished::Fenced);
    let mut again = numbered(1);
    again.id = submitted;
    assert!(!restored.submit(vec![again]).await.unwrap().value[0].deduped);
}
