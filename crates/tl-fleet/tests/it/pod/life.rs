//! Lives that end without a goodbye.

use std::sync::mpsc;

use tl_fleet::{AttemptEnd, PodSettings, RecoveryAsked, StepState};

use super::{Fleet, Gate, counted, echo, finished, handlers, until};
use crate::conformance::{claim_as, completed, finish};

#[tokio::test]
async fn a_pod_whose_life_ran_out_drops_its_work_and_begins_another() {
    let (fleet, clock) = Fleet::by_hand();
    let id = fleet.submit(1).await[0];
    let gate = Gate::shut();
    let frozen = fleet.start(fleet.settings("frozen"), gate.handlers());
    let handle = frozen.handle();
    until("it leads and works", async || gate.running() == 1 && handle.status().epoch.is_some())
        .await;
    let (life, epoch) = (handle.status().life.unwrap(), handle.status().epoch.unwrap());
    let mut lives = handle.lives();
    // To the store it looks as if nothing had been heard for longer than its lease.
    clock.advance(30_000);
    lives.wait_for(|now| now.as_ref().is_some_and(|now| *now != life)).await.unwrap();
    assert!(handle.status().life.unwrap().incarnation > life.incarnation);
    until("its work is dropped", async || gate.dropped() == 1).await;
    counted(&handle, "its claim is lost", |counted| counted.lost == 1).await;
    until("under a new epoch at most", async || {
        handle.status().epoch.is_some_and(|now| now > epoch)
    })
    .await;
    // It takes the step back as leader and, with the gate open, runs it again after its wait.
    counted(&handle, "the step is taken back", |counted| counted.recovered == 1).await;
    clock.advance(100);
    gate.open(1);
    let step = finished(&frozen, id).await;
    assert_eq!((step.state, step.attempt.0), (StepState::Completed, 2));
    let attempts = fleet.store.attempts(id).await.unwrap().value;
    assert_eq!(attempts[0].end, AttemptEnd::LeaseLost);
    assert_eq!(handle.ledger(10).unwrap()[0].step_id, id.to_string());
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_does_not_make_its_pod_look_dead() {
    let fleet = Fleet::new();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Arc::new(parking_lot::Mutex::new(released));
    let (entered, has_entered) = mpsc::channel::<()>();
    let blocking = handlers(move |args, _| {
        let (released, entered) = (released.clone(), entered.clone());
        async move {
            entered.send(()).unwrap();
            // Takes the one thread of this runtime.
            released.lock().recv().unwrap();
            Ok(args)
        }
    });
    let id = fleet.submit(1).await[0];
    let settings = PodSettings { pod_lease_ms: 600, step_lease_ms: 600, ..fleet.settings("p") };
    let path = fleet.path();
    let watcher = std::thread::spawn(move || {
        has_entered.recv().unwrap();
        // While it is blocked, its leases are renewed again and again.
        let conn = rusqlite::Connection::open(path).unwrap();
        conn.busy_timeout(super::PATIENCE).unwrap();
        let leases = || -> (i64, i64) {
            conn.query_row(
                "SELECT (SELECT lease_until FROM fleet_pods),
                        (SELECT lease_until FROM fleet_steps)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap()
        };
        let (began, first) = (std::time::Instant::now(), leases());
        // Longer than both leases were at first: without renewals they would be over.
        let are_longer = || {
            let now = leases();
            now.0 > first.0 + 700 && now.1 > first.1 + 700
        };
        let mut renewed = are_longer();
        while !renewed && began.elapsed() < super::PATIENCE {
            std::thread::yield_now();
            renewed = are_longer();
        }
        release.send(()).unwrap();
        renewed
    });
    let pod = fleet.start(settings, blocking);
    let step = finished(&pod, id).await;
    assert!(watcher.join().unwrap(), "leases are renewed while the thread is blocked");
    assert_eq!((step.state, step.attempt.0), (StepState::Completed, 1));
    assert_eq!(pod.handle().status().counted.reaped, 0);
}

#[tokio::test]
async fn what_a_crashed_leader_held_is_taken_back_by_the_next() {
    let fleet = Fleet::new();
    let ids = fleet.submit(5).await;
    let gate = Gate::shut();
    let short =
        |name| PodSettings { pod_lease_ms: 400, step_lease_ms: 400, ..fleet.settings(name) };
    let doomed = fleet.start(short("doomed"), gate.handlers());
    until("it leads and works", async || {
        gate.running() == 5 && doomed.handle().status().epoch.is_some()
    })
    .await;
    let epoch = doomed.handle().status().epoch.unwrap();
    let next = fleet.start(short("next"), echo());
    until("the next lives", async || next.handle().status().life.is_some()).await;
    drop(doomed);
    for id in &ids {
        let step = finished(&next, *id).await;
        assert_eq!((step.state, step.attempt.0, step.charged), (StepState::Completed, 2, 1));
    }
    let status = next.handle().status();
    assert_eq!(status.epoch.map(|epoch| epoch.0), Some(epoch.0 + 1));
    assert_eq!(status.counted.recovered, 5);
    let ledger = next.handle().ledger(10).unwrap();
    assert_eq!(ledger.len(), 5);
    assert!(ledger.iter().all(|row| row.claimed_by == "doomed" && row.action == "requeue"));
    let service = tl_fleet::FleetService::beside(next.handle());
    match service.recover_now().await.unwrap() {
        RecoveryAsked::Done(cycle) => assert_eq!(cycle.recovered, []),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_place_of_a_leader_is_taken_when_its_lease_ends_and_not_a_heartbeat_later() {
    let (fleet, clock) = Fleet::by_hand();
    // Nobody's heartbeat comes while the test goes on.
    let rare = |name| PodSettings {
        heartbeat_ms: 600_000,
        pod_lease_ms: 1_200_000,
        ..fleet.settings(name)
    };
    let first = fleet.start(rare("first"), echo());
    until("it leads", async || first.handle().status().epoch.is_some()).await;
    let epoch = first.handle().status().epoch.unwrap();
    drop(first);
    let lock = std::fs::File::open(fleet.folder.path().join("first/pod.lock")).unwrap();
    until("its last word is said", async || lock.try_lock().is_ok()).await;
    clock.advance(1_200_000 - 200);
    let second = fleet.start(rare("second"), echo());
    until("it lives", async || second.handle().status().life.is_some()).await;
    clock.advance(200);
    until("it leads", async || second.handle().status().epoch.is_some()).await;
    assert_eq!(second.handle().status().epoch.unwrap().0, epoch.0 + 1);
}

#[tokio::test]
async fn a_report_that_comes_too_late_is_dropped_and_counted() {
    let (fleet, clock) = Fleet::by_hand();
    let id = fleet.submit(1).await[0];
    let gate = Gate::shut();
    // It hears of nothing: no heartbeat, no renewal, no claim while the test goes on.
    let deaf = PodSettings {
        max_parallelism: 1,
        capacity_threshold: 1.0,
        prefetch_max: 0,
        heartbeat_ms: 600_000,
        pod_lease_ms: 3_600_000,
        step_lease_ms: 3_600_000,
        ..fleet.settings("deaf")
    };
    let pod = fleet.start(deaf, gate.handlers());
    until("it works", async || gate.running() == 1).await;
    let held = fleet.step(id).await;
    assert_eq!(held.claimed_by.unwrap().as_str(), "deaf");
    clock.advance(3_600_000);
    crate::conformance::recover(&fleet.store).await;
    let other = claim_as(&fleet.store, "other", 1).await.remove(0);
    gate.open(1);
    counted(&pod.handle(), "its report is fenced", |counted| counted.fenced == 1).await;
    assert_eq!(fleet.step(id).await.claimed_by.unwrap().as_str(), "other");
    finish(&fleet.store, other.key, completed(r#""right""#)).await;
    assert_eq!(fleet.step(id).await.result.unwrap().as_str(), r#""right""#);
    assert_eq!(pod.handle().status().counted.completed, 0);
}

#[tokio::test]
async fn a_step_past_its_time_on_a_blocked_thread_is_let_go_by_its_own_pod() {
    let fleet = Fleet::new();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Arc::new(parking_lot::Mutex::new(released));
    let blocking = handlers(move |args, _| {
        let released = released.clone();
        async move {
            // Takes the one thread of this runtime, so that nobody here can end the attempt.
            let _ = released.lock().recv();
            Ok(args)
        }
    });
    let id = fleet.submit(1).await[0];
    let settings = PodSettings { timeout_ms: 50, step_lease_ms: 300, ..fleet.settings("p") };
    let path = fleet.path();
    let watcher = std::thread::spawn(move || {
        let conn = rusqlite::Connection::open(path).unwrap();
        conn.busy_timeout(super::PATIENCE).unwrap();
        let began = std::time::Instant::now();
        let lost = || -> i64 {
            let lost = "SELECT count(*) FROM fleet_attempts WHERE ended = 3";
            conn.query_row(lost, [], |row| row.get(0)).unwrap()
        };
        while lost() == 0 && began.elapsed() < super::PATIENCE {
            std::thread::yield_now();
        }
        let lost = lost();
        drop(release);
        lost
    });
    let pod = fleet.start(settings, blocking);
    let step = finished(&pod, id).await;
    assert_eq!(watcher.join().unwrap(), 1, "it was taken back while it was blocked");
    assert!(step.state == StepState::Completed && step.attempt.0 > 1, "{step:?}");
}
