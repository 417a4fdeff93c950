//! The database is away: here, another program holds its lock.

use std::sync::Arc;

use rusqlite::Connection;
use tl_core::fleet::{BreakerSettings, BreakerState};
use tl_fleet::pod::LeftAlone;
use tl_fleet::{
    Answer, FleetService, Guard, PageRequest, PodSettings, RunningPod, StepFilter, StepState,
    StoreError,
};

use super::{Fleet, Gate, counted, echo, finished, until};

/// Keeps everybody out until dropped.
fn lock(fleet: &Fleet) -> Connection {
    let conn = Connection::open(fleet.path()).unwrap();
    conn.busy_timeout(super::PATIENCE).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

fn impatient(fleet: &Fleet, name: &str) -> PodSettings {
    let breaker = BreakerSettings { open_ms: 10, open_ms_max: 50, ..BreakerSettings::default() };
    PodSettings { call_ms: 30, breaker, ..fleet.settings(name) }
}

#[tokio::test]
async fn reports_wait_in_the_journal_and_count_when_the_database_is_back() {
    let fleet = Fleet::new();
    let ids = fleet.submit(5).await;
    let gate = Gate::shut();
    let pod = fleet.start(impatient(&fleet, "p"), gate.handlers());
    let handle = pod.handle();
    until("all run", async || gate.running() == 5).await;
    let away = lock(&fleet);
    gate.open(5);
    counted(&handle, "all reports are kept", |counted| counted.journaled == 5).await;
    assert!(handle.status().journal > 0);
    drop(away);
    for id in ids {
        let step = finished(&pod, id).await;
        assert_eq!((step.state, step.attempt.0), (StepState::Completed, 1));
    }
    counted(&handle, "the journal is empty", |counted| counted.replayed >= 5).await;
    until("nothing is in hand", async || handle.status().held.reported == 0).await;
    assert_eq!(handle.status().journal, 0);
    assert_eq!(handle.status().counted.fenced, 0);
}

#[tokio::test]
async fn a_journal_outlives_its_pod_and_is_replayed_fenced() {
    let fleet = Fleet::new();
    fleet.submit(3).await;
    let gate = Gate::shut();
    let pod = fleet.start(impatient(&fleet, "p"), gate.handlers());
    let handle = pod.handle();
    until("all run", async || gate.running() == 3).await;
    let away = lock(&fleet);
    gate.open(3);
    counted(&handle, "all reports are kept", |counted| counted.journaled == 3).await;
    drop(pod);
    drop(handle);
    drop(away);
    // The folder is free when the last task of the pod has ended.
    let mut next = None;
    until("the folder is free", async || {
        next = RunningPod::start(impatient(&fleet, "p"), fleet.store.clone(), echo()).ok();
        next.is_some()
    })
    .await;
    let next = next.unwrap();
    until("all are completed", async || fleet.store.counts().await.unwrap().value.completed == 3)
        .await;
    until("the journal is empty", async || next.handle().status().journal == 0).await;
    assert_eq!(next.handle().status().counted.claimed, 0, "nothing ran twice");
}

#[tokio::test]
async fn a_pod_that_finds_no_database_goes_on_when_it_comes_back() {
    let fleet = Fleet::new();
    let away = lock(&fleet);
    let pod = RunningPod::start(impatient(&fleet, "p"), fleet.store.clone(), echo()).unwrap();
    let handle = pod.handle();
    until("calls are held back", async || {
        matches!(handle.guard().call(|store| store.ping()).await,
            Err(StoreError::Unavailable { source }) if source.is::<LeftAlone>())
    })
    .await;
    assert_eq!(handle.status().life, None);
    let service = FleetService::beside(pod.handle());
    assert!(service.ready().await.is_err());
    drop(away);
    let id = fleet.submit(1).await[0];
    assert_eq!(finished_somehow(&pod, id).await, StepState::Completed);
    until("it is ready", async || service.ready().await.is_ok()).await;
}

/// As [`finished`], through a guard that may still hold calls back.
async fn finished_somehow(pod: &RunningPod, id: tl_fleet::StepId) -> StepState {
    until("the guard lets calls pass", async || {
        pod.handle().guard().call(|store| store.ping()).await.is_ok()
    })
    .await;
    finished(pod, id).await.state
}

#[tokio::test]
async fn a_database_that_fails_is_left_alone_and_looked_at_by_one_probe() {
    let fleet = Fleet::new();
    let settings = BreakerSettings { open_ms: 20, open_ms_max: 20, ..BreakerSettings::default() };
    let guard = Arc::new(Guard::new(fleet.store.clone(), settings, 10));
    guard.call(|store| store.ping()).await.unwrap();
    let away = lock(&fleet);
    for _ in 0..5 {
        let answer = guard.call(|store| store.ping()).await;
        assert!(matches!(answer, Err(StoreError::OutcomeUnknown { .. })), "{answer:?}");
    }
    assert!(matches!(guard.state(), BreakerState::Open { .. }));
    drop(away);
    until("a probe finds it back", async || guard.call(|store| store.ping()).await.is_ok()).await;
    assert_eq!(guard.state(), BreakerState::Closed);
    assert_eq!(guard.wait_ms(), 0);
}

fn away() -> Answer<'static, ()> {
    let source = Arc::new(std::io::Error::from(std::io::ErrorKind::NotConnected));
    Box::pin(async move { Err(StoreError::Unavailable { source }) })
}

#[tokio::test]
async fn a_probe_whose_caller_goes_away_makes_room_for_the_next_at_once() {
    let fleet = Fleet::new();
    let settings =
        BreakerSettings { failures_in_row: 1, open_ms: 1, open_ms_max: 300_000, window: 20 };
    let guard = Guard::new(fleet.store.clone(), settings, 60_000);
    assert!(guard.call(|_| away()).await.is_err());
    until("a probe may go", async || guard.wait_ms() == 0).await;
    {
        let mut hung = std::pin::pin!(guard.call(|_| {
            let never: Answer<'_, ()> = Box::pin(std::future::pending());
            never
        }));
        tokio::select! {
            biased;
            _ = &mut hung => unreachable!("nothing answers"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(guard.state(), BreakerState::HalfOpen);
    }
    guard.call(|store| store.ping()).await.unwrap();
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_refused_input_says_nothing_of_the_database() {
    let fleet = Fleet::new();
    let settings =
        BreakerSettings { failures_in_row: 2, open_ms: 300_000, open_ms_max: 300_000, window: 20 };
    let guard = Guard::new(fleet.store.clone(), settings, 60_000);
    assert!(guard.call(|_| away()).await.is_err());
    let refused =
        guard.call(|store| store.list(StepFilter::default(), PageRequest::first(0))).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    assert!(guard.call(|_| away()).await.is_err());
    assert!(matches!(guard.state(), BreakerState::Open { .. }), "two in a row");
}
