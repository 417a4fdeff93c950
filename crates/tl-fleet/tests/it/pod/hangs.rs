//! Single calls hang, or are answered when nobody waits any more; all others go on.

use std::sync::Arc;

use rusqlite::Connection;
use tl_core::fleet::{BreakerSettings, BreakerState};
use tl_fleet::limits::LEASE_MS_MIN;
use tl_fleet::{
    ClaimRequest, Claimant, FleetService, Handlers, PodSettings, RecoveryAsked, Retention,
    RunningPod, Stage, StepState,
};

use super::{Fleet, Gate, counted, echo, finished, until};
use crate::conformance::{claim_as, completed, finish, kind, pod};
use crate::faulty::{Faults, Faulty};

/// A guard that stays shut once it has fallen, and falls late.
fn slow_to_anger() -> BreakerSettings {
    BreakerSettings { failures_in_row: 64, window: 64, open_ms: 300_000, open_ms_max: 300_000 }
}

fn start(fleet: &Fleet, settings: PodSettings, handlers: Handlers) -> (RunningPod, Arc<Faults>) {
    let (store, faults) = Faulty::over(Arc::clone(&fleet.store));
    (RunningPod::start(settings, store, handlers).unwrap(), faults)
}

#[tokio::test]
async fn a_pod_lets_go_of_its_steps_in_time_while_a_renewal_hangs() {
    let fleet = Fleet::new();
    let gate = Gate::shut();
    let settings = PodSettings { step_lease_ms: 600, call_ms: 120_000, ..fleet.settings("p") };
    let (pod, faults) = start(&fleet, settings, gate.handlers());
    fleet.submit(1).await;
    until("it runs", async || gate.running() == 1).await;
    faults.hold("renew");
    until("its handler is dropped", async || gate.dropped() == 1).await;
    counted(&pod.handle(), "its claim is lost", |counted| counted.lost == 1).await;
    assert!(faults.calls("renew") >= 1);
}

#[tokio::test]
async fn at_the_end_of_a_drain_whatever_was_not_answered_is_in_the_journal() {
    let fleet = Fleet::new();
    let ids = fleet.submit(8).await;
    let gate = Gate::shut();
    let settings = PodSettings {
        max_parallelism: 3,
        capacity_threshold: 1.0,
        prefetch_max: 2,
        call_ms: 120_000,
        step_lease_ms: 3_600_000,
        grace_ms: 0,
        ..fleet.settings("p")
    };
    let (pod, faults) = start(&fleet, settings.clone(), gate.handlers());
    let handle = pod.handle();
    until("three run and some wait", async || {
        let held = handle.status().held;
        held.running == 3 && held.ready > 0
    })
    .await;
    faults.hold("finish");
    gate.open(1);
    until("a report is under way", async || faults.calls("finish") == 1).await;
    // Then one behind it, and what is given back behind both.
    gate.open(1);
    until("another waits", async || handle.status().held.reported == 2).await;
    let status = pod.drain().await;
    assert_eq!(status.stage, Stage::Stopped);
    let claimed = fleet.store.counts().await.unwrap().value.claimed;
    assert!(claimed >= 4 && claimed == status.journal, "{claimed} in hand, {status:?}");
    drop(handle);
    // The folder is free when the last task of the pod has ended.
    let mut next = None;
    until("the folder is free", async || {
        next = RunningPod::start(settings.clone(), fleet.store.clone(), echo()).ok();
        next.is_some()
    })
    .await;
    let next = next.unwrap();
    for id in &ids {
        assert_eq!(finished(&next, *id).await.state, StepState::Completed);
    }
    // Nothing waited for a lease of an hour, and what was done before is not done again.
    let claimed = next.handle().status().counted.claimed;
    assert_eq!(claimed, 6, "two were done");
}

#[tokio::test]
async fn what_the_journal_has_no_room_for_is_let_go_of_and_runs_again() {
    let fleet = Fleet::new();
    let gate = Gate::shut();
    let settings = PodSettings {
        call_ms: 100,
        step_lease_ms: 1_000,
        breaker: slow_to_anger(),
        ..fleet.settings("p")
    };
    let folder = settings.local_dir.clone();
    let (pod, faults) = start(&fleet, settings, gate.handlers());
    let id = fleet.submit(1).await[0];
    until("it runs", async || gate.running() == 1).await;
    faults.hold("finish");
    // One report takes all the room that there is.
    let journal = Connection::open(folder.join("pod.db")).unwrap();
    journal.busy_timeout(super::PATIENCE).unwrap();
    journal
        .execute(
            "INSERT INTO journal (step_id, token, outcome, text)
             VALUES (?1, zeroblob(16), 3, hex(zeroblob(33554432)))",
            [tl_fleet::StepId::fresh().to_string()],
        )
        .unwrap();
    gate.open(2);
    counted(&pod.handle(), "there is no room", |counted| counted.journal_full == 1).await;
    faults.let_go();
    // Renewals went through all the time: its lease runs out because it is let go of.
    let step = finished(&pod, id).await;
    assert_eq!(step.state, StepState::Completed);
    // On a busy machine the short lease may be lost once more.
    assert!(step.attempt.0 >= 2, "{step:?}");
}

#[tokio::test]
async fn a_report_that_no_store_takes_does_not_hold_up_the_journal() {
    let fleet = Fleet::new();
    let settings = fleet.settings("p");
    let pod = fleet.start(settings.clone(), Handlers::new());
    pod.drain().await;
    let journal = Connection::open(settings.local_dir.join("pod.db")).unwrap();
    let mut insert = journal
        .prepare(
            "INSERT INTO journal (step_id, token, outcome, text) VALUES (?1, zeroblob(16), 0, ?2)",
        )
        .unwrap();
    for text in [format!("\"{}\"", "x".repeat(1 << 20)), "1".to_owned()] {
        insert.execute([tl_fleet::StepId::fresh().to_string(), text]).unwrap();
    }
    let mut next = None;
    until("the folder is free", async || {
        next = RunningPod::start(settings.clone(), fleet.store.clone(), Handlers::new()).ok();
        next.is_some()
    })
    .await;
    let next = next.unwrap();
    until("the journal is empty", async || next.handle().status().journal == 0).await;
    let counted = next.handle().status().counted;
    assert_eq!((counted.journal_full, counted.fenced), (1, 1));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_takes_no_other_report_with_it() {
    let fleet = Fleet::new();
    let ids = fleet.submit(3).await;
    let gate = Gate::shut();
    let (pod, faults) = start(&fleet, fleet.settings("p"), gate.handlers());
    let handle = pod.handle();
    until("all run", async || gate.running() == 3).await;
    faults.hold("finish");
    gate.open(1);
    until("a report is under way", async || faults.calls("finish") == 1).await;
    gate.open(2);
    until("two are behind it", async || handle.status().held.reported == 3).await;
    // Damage to one of the two that will share the next call.
    let conn = Connection::open(fleet.path()).unwrap();
    let damage = "UPDATE fleet_steps SET state = 77 WHERE seq = (SELECT max(seq) FROM fleet_steps)";
    conn.execute(damage, []).unwrap();
    faults.let_go();
    until("the others are done", async || {
        fleet.store.counts().await.is_ok_and(|counts| counts.value.completed == 2)
    })
    .await;
    until("the journal is empty", async || handle.status().journal == 0).await;
    assert_eq!(handle.status().counted.fenced, 1);
    assert_eq!(fleet.step(ids[0]).await.attempt.0, 1);
}

#[tokio::test]
async fn what_a_leader_does_for_all_may_hang_and_heartbeats_go_on() {
    let fleet = Fleet::new();
    let breaker = BreakerSettings { failures_in_row: 5, ..slow_to_anger() };
    let settings =
        PodSettings { heartbeat_ms: 1_000, call_ms: 100, breaker, ..fleet.settings("p") };
    let (store, faults) = Faulty::over(Arc::clone(&fleet.store));
    faults.hold("reap");
    let _pod = RunningPod::start(settings, store, Handlers::new()).unwrap();
    until("the leader is left alone", async || faults.calls("reap") >= 5).await;
    let beats = faults.calls("heartbeat");
    until("heartbeats go on", async || faults.calls("heartbeat") >= beats + 3).await;
}

#[tokio::test]
async fn a_sweep_that_takes_too_long_is_tried_with_fewer_steps() {
    const LOST: usize = 20;
    const DONE: usize = 4;
    let fleet = Fleet::new();
    fleet.submit(LOST).await;
    claim_briefly(&fleet, LOST).await;
    fleet.submit(DONE).await;
    for claim in claim_as(&fleet.store, "w", DONE).await {
        finish(&fleet.store, claim.key, completed("1")).await;
    }
    let (store, faults) = Faulty::over(Arc::clone(&fleet.store));
    faults.limit_sweeps(3);
    let keep = PodSettings::new(pod("p"), fleet.path()).retention;
    let retention = Retention { finished_ms: 0, steps_max: 5, ..keep };
    let settings = PodSettings { retention, breaker: slow_to_anger(), ..fleet.settings("p") };
    let pod = RunningPod::start(settings, store, Handlers::new()).unwrap();
    counted(&pod.handle(), "all are taken back", |counted| counted.recovered == LOST as u64).await;
    counted(&pod.handle(), "all are forgotten", |counted| counted.forgotten == DONE as u64).await;
}

/// Takes steps with the shortest lease, and waits until it is over.
async fn claim_briefly(fleet: &Fleet, steps: usize) {
    let request = ClaimRequest {
        claimant: Claimant::Worker(pod("gone")),
        kinds: vec![kind("work")],
        steps_max: steps,
        lease_ms: LEASE_MS_MIN,
    };
    let claims = fleet.store.claim(request).await.unwrap().value;
    assert_eq!(claims.len(), steps);
    let last = claims.iter().map(|claim| claim.lease_until).max();
    until("the leases are over", async || {
        fleet.store.ping().await.is_ok_and(|now| Some(now.at) >= last)
    })
    .await;
}

#[tokio::test]
async fn looks_that_hang_hold_up_no_claim() {
    let fleet = Fleet::new();
    let breaker = BreakerSettings { failures_in_row: 1, ..slow_to_anger() };
    let settings = PodSettings { call_ms: 2_000, breaker, ..fleet.settings("p") };
    let (pod, faults) = start(&fleet, settings, echo());
    let service = FleetService::beside(pod.handle());
    service.overview().await.unwrap();
    for name in ["counts", "list", "dead_letters"] {
        faults.hold(name);
    }
    let page = || tl_fleet::PageRequest::first(10);
    assert!(service.list(tl_fleet::StepFilter::default(), page()).await.is_err());
    assert!(service.dead_letters(true, page()).await.is_err(), "looks are left alone now");
    assert_eq!(pod.handle().status().breaker, BreakerState::Closed);
    let id = fleet.submit(1).await[0];
    assert_eq!(finished(&pod, id).await.state, StepState::Completed);
}

#[tokio::test]
async fn claims_that_are_answered_late_do_not_take_more_than_there_is_room_for() {
    let fleet = Fleet::new();
    fleet.submit(10).await;
    let gate = Gate::shut();
    let settings = PodSettings {
        max_parallelism: 2,
        capacity_threshold: 1.0,
        prefetch_max: 0,
        call_ms: 200,
        breaker: slow_to_anger(),
        ..fleet.settings("p")
    };
    let (store, faults) = Faulty::over(Arc::clone(&fleet.store));
    faults.hold_answers("claim");
    let pod = RunningPod::start(settings, store, gate.handlers()).unwrap();
    let claimed = async || fleet.store.counts().await.unwrap().value.claimed;
    until("two claims were made", async || claimed().await >= 4).await;
    faults.let_go();
    until("the rest is given back", async || claimed().await == 2).await;
    until("two run", async || gate.running() == 2).await;
    let status = pod.handle().status();
    assert_eq!((status.held.running, status.held.ready), (2, 0));
    assert!(status.counted.released >= 2, "{status:?}");
    gate.open(10);
    counted(&pod.handle(), "all are done", |counted| counted.completed == 10).await;
}

#[tokio::test]
async fn a_recovery_that_is_asked_for_while_one_runs_is_refused() {
    let fleet = Fleet::new();
    let (pod, faults) = start(&fleet, fleet.settings("p"), Handlers::new());
    let handle = pod.handle();
    until("it leads", async || handle.status().epoch.is_some()).await;
    faults.hold("recover");
    let mut first = std::pin::pin!(handle.recover_now());
    tokio::select! {
        biased;
        done = &mut first => panic!("it did not wait: {done:?}"),
        () = std::future::ready(()) => {}
    }
    assert!(matches!(handle.recover_now().await, Ok(RecoveryAsked::Runs)));
    faults.let_go();
    assert!(matches!(first.await, Ok(RecoveryAsked::Done(_))));
    assert!(matches!(handle.recover_now().await, Ok(RecoveryAsked::Done(_))));
}
