//! The good end.

use tl_fleet::{AttemptEnd, PodSettings, PodState, Stage, StepState};

use super::{Fleet, Gate, echo, finished, until};

#[tokio::test]
async fn a_pod_that_goes_down_gives_everything_back_at_once() {
    let (fleet, _clock) = Fleet::by_hand();
    let ids = fleet.submit(10).await;
    let gate = Gate::shut();
    let settings = PodSettings {
        max_parallelism: 2,
        capacity_threshold: 1.0,
        prefetch_max: 3,
        grace_ms: 0,
        ..fleet.settings("p")
    };
    let pod = fleet.start(settings, gate.handlers());
    let handle = pod.handle();
    until("steps run and wait", async || {
        let held = handle.status().held;
        (held.running, held.ready) == (2, 2)
    })
    .await;
    let status = pod.drain().await;
    assert_eq!((status.stage, status.counted.released), (Stage::Stopped, 4));
    assert_eq!(gate.dropped(), 2);
    let counts = fleet.store.counts().await.unwrap().value;
    assert_eq!((counts.pending, counts.claimed), (10, 0), "no lease has to run out");
    for id in &ids[..4] {
        let attempts = fleet.store.attempts(*id).await.unwrap().value;
        assert_eq!(attempts[0].end, AttemptEnd::Released);
        assert_eq!(fleet.step(*id).await.charged, 0);
    }
    assert_eq!(fleet.store.pods().await.unwrap().value[0].state, PodState::Down);

    let next = fleet.start(fleet.settings("q"), echo());
    for id in ids {
        assert_eq!(finished(&next, id).await.state, StepState::Completed);
    }
}

#[tokio::test]
async fn what_has_not_started_is_given_back_while_the_rest_still_runs() {
    let fleet = Fleet::new();
    fleet.submit(10).await;
    let gate = Gate::shut();
    let settings = PodSettings {
        max_parallelism: 2,
        capacity_threshold: 1.0,
        prefetch_max: 3,
        ..fleet.settings("p")
    };
    let pod = fleet.start(settings, gate.handlers());
    let handle = pod.handle();
    until("steps run and wait", async || {
        let held = handle.status().held;
        (held.running, held.ready) == (2, 2)
    })
    .await;
    let drain = tokio::spawn(pod.drain());
    until("the waiting ones are back", async || {
        fleet.store.counts().await.unwrap().value.pending == 8
    })
    .await;
    assert_eq!((gate.running(), gate.dropped()), (2, 0), "nothing else was started");
    gate.open(10);
    let counted = drain.await.unwrap().counted;
    assert_eq!((counted.completed, counted.released), (2, 2));
}

#[tokio::test]
async fn what_ends_within_the_grace_counts() {
    let fleet = Fleet::new();
    let ids = fleet.submit(2).await;
    let gate = Gate::shut();
    let pod = fleet.start(fleet.settings("p"), gate.handlers());
    until("both run", async || gate.running() == 2).await;
    let handle = pod.handle();
    let drain = tokio::spawn(pod.drain());
    until("it drains", async || handle.status().stage == Stage::Draining).await;
    until("the store knows", async || fleet.store.pods().await.unwrap().value[0].draining).await;
    let late = fleet.submit(1).await[0];
    gate.open(2);
    let status = drain.await.unwrap();
    assert_eq!((status.counted.completed, status.counted.released), (2, 0));
    for id in ids {
        assert_eq!(fleet.step(id).await.state, StepState::Completed);
    }
    assert_eq!(fleet.step(late).await.state, StepState::Pending, "it claims no more");
}

#[tokio::test]
async fn a_leader_that_goes_down_makes_room_for_the_next() {
    let fleet = Fleet::new();
    let first = fleet.start(fleet.settings("a"), echo());
    until("it leads", async || first.handle().status().epoch.is_some()).await;
    let epoch = first.handle().status().epoch.unwrap();
    let second = fleet.start(fleet.settings("b"), echo());
    until("it lives", async || second.handle().status().life.is_some()).await;
    first.drain().await;
    until("the other leads", async || second.handle().status().epoch.is_some()).await;
    assert_eq!(second.handle().status().epoch.unwrap().0, epoch.0 + 1);
}
