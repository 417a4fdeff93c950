//! The keeper: heartbeats and renewals, on a thread and a connection of their own, so that
//! neither handlers that block the runtime nor slow statements make a living pod look dead.
//! What the leader does for all runs on the same thread, over another connection.

use std::sync::Arc;
use std::time::Duration;

use tl_core::fleet::{Candidate, Fence, LeadRow, may_lead};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::clock::now_ms;
use super::duties::{self, Ask};
use super::guard::Guard;
use super::shared::{Shared, Stage};
use crate::claim::Renewed;
use crate::error::StoreError;
use crate::ids::PodLife;
use crate::limits::BATCH_MAX;
use crate::pods::{Beat, Heartbeat, Leader, Leadership, PodInfo, PodState};
use crate::run::Stop;
use crate::time::{StoreTime, Timed};

/// Wait before another try to reach the database for a connection or a new life.
const RETRY: Duration = Duration::from_millis(200);
/// Leases of a step for which one is renewed whose report is not answered.
const REPORTED_LEASES: u64 = 3;

pub(super) fn start(
    shared: Arc<Shared>,
    asks: Receiver<Ask>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keeper = std::thread::Builder::new().name("fleet-keeper".to_owned());
    keeper.spawn(move || {
        runtime.block_on(async {
            let mut stage = shared.stage.subscribe();
            let stopped = async {
                // An error means that the pod is gone.
                drop(stage.wait_for(|stage| *stage == Stage::Stopped).await);
            };
            tokio::select! {
                () = keep(&shared, asks) => {}
                () = stopped => {}
            }
        });
    })
}

async fn keep(shared: &Arc<Shared>, asks: Receiver<Ask>) {
    let guard = connect(shared).await;
    tokio::join!(
        beat(shared, &guard),
        renew(shared, &guard),
        fence(shared),
        duties::run(shared, asks)
    );
}

async fn connect(shared: &Shared) -> Guard {
    loop {
        match shared.guard.apart().await {
            Ok(guard) => return guard,
            Err(error) => tracing::warn!(%error, "no connection for heartbeats yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn beat(shared: &Arc<Shared>, guard: &Guard) {
    let mut stage = shared.stage.subscribe();
    loop {
        let mut seen = Seen::default();
        let went_well = match shared.life() {
            Some(life) => heartbeat(shared, guard, life, &mut seen).await,
            None => register(shared, guard, &mut seen).await,
        };
        let pause = if went_well {
            Duration::from_millis(shared.settings.heartbeat_ms)
        } else {
            RETRY.min(Duration::from_millis(shared.settings.heartbeat_ms))
        };
        let next = Instant::now() + pause;
        loop {
            // Whose lease of leadership runs out before the next heartbeat is looked at then.
            let free_at = seen.leader_until.filter(|until| *until < next);
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                () = shared.beat_now.notified() => break,
                _ = stage.changed() => break,
                () = tokio::time::sleep_until(free_at.unwrap_or(next)), if free_at.is_some() => {
                    seen = Seen::default();
                    if let Some(life) = shared.life() {
                        lead(shared, guard, &life, &mut seen).await;
                    }
                }
            }
        }
    }
}

/// What the last look at leadership has shown.
#[derive(Debug, Default)]
struct Seen {
    /// Until when another leads, by this process's clock.
    leader_until: Option<Instant>,
}

impl Seen {
    /// Another leads, and did so at `at` by the store's clock.
    fn another(&mut self, leader: &Leader, at: StoreTime) {
        let left_ms = leader.lease_until.since_ms(at);
        // A lease that is over has been looked at: the next heartbeat looks again.
        if left_ms > 0 {
            self.leader_until = Some(Instant::now() + Duration::from_millis(left_ms + 1));
        }
    }
}

async fn register(shared: &Arc<Shared>, guard: &Guard, seen: &mut Seen) -> bool {
    if shared.stage() != Stage::Running {
        // A pod that goes down begins no other life.
        return true;
    }
    let settings = &shared.settings;
    let info = PodInfo {
        pod: settings.pod.clone(),
        capacity: shared.capacity(),
        kinds: shared.handlers.kinds(),
        meta: settings.meta.clone(),
    };
    let sent_ms = now_ms();
    match guard.call(|store| store.register(info, settings.pod_lease_ms)).await {
        Ok(registered) => {
            let incarnation = registered.value.incarnation;
            tracing::info!(pod = %settings.pod, %incarnation, "registered");
            let life = PodLife { pod: settings.pod.clone(), incarnation };
            shared.begin_life(life.clone(), Fence::new(sent_ms, settings.pod_lease_ms));
            lead(shared, guard, &life, seen).await;
            true
        }
        Err(error) => {
            tracing::warn!(%error, "cannot register yet");
            false
        }
    }
}

async fn heartbeat(shared: &Arc<Shared>, guard: &Guard, life: PodLife, seen: &mut Seen) -> bool {
    let (counts, lease_ms) = (shared.held.counts(), shared.settings.pod_lease_ms);
    let beat = Heartbeat {
        life: life.clone(),
        lease_ms,
        running: counts.running,
        prefetched: counts.ready,
        draining: shared.stage() != Stage::Running,
        meta: None,
    };
    let sent_ms = now_ms();
    match guard.call(|store| store.heartbeat(beat)).await {
        Ok(answer) => match answer.value {
            Beat::Alive { drain_asked, .. } => {
                if drain_asked {
                    shared.drain_asked.send_replace(true);
                }
                shared.confirm_life(sent_ms, lease_ms);
                shared.measure();
                lead(shared, guard, &life, seen).await;
                true
            }
            // It has said goodbye itself.
            Beat::Reaped if shared.stage() == Stage::Stopped => true,
            Beat::Reaped => {
                tracing::warn!(pod = %life.pod, incarnation = %life.incarnation,
                    "this life is over; its work is dropped");
                shared.end_life();
                // At once into the next one.
                register(shared, guard, seen).await
            }
        },
        Err(error) => {
            shared.counters.heartbeats_failed.add(1);
            tracing::warn!(%error, "heartbeat failed");
            false
        }
    }
}

/// Goes on leading, or asks to lead when this pod is the one to.
async fn lead(shared: &Shared, guard: &Guard, life: &PodLife, seen: &mut Seen) {
    if shared.stage() != Stage::Running {
        return;
    }
    let lease_ms = shared.settings.pod_lease_ms;
    let asked: Result<(), StoreError> = async {
        let pods = guard.call(|store| store.pods()).await?.value;
        let Timed { value: leader, at, .. } = guard.call(|store| store.leader()).await?;
        let candidates: Vec<Candidate<'_>> = pods
            .iter()
            .map(|pod| Candidate {
                pod: pod.life.pod.as_str(),
                incarnation: pod.life.incarnation.0,
                birth_ms: pod.birth.0,
                lease_until_ms: pod.lease_until.0,
                up: pod.state == PodState::Up && !pod.draining,
            })
            .collect();
        let row = leader.as_ref().map(|leader| LeadRow {
            incarnation: leader.life.incarnation.0,
            epoch: leader.epoch.0,
            lease_until_ms: leader.lease_until.0,
        });
        if !may_lead(life.incarnation.0, &candidates, row, at.0, lease_ms) {
            shared.lead_is_over();
            if let Some(leader) = &leader {
                seen.another(leader, at);
            }
            return Ok(());
        }
        let sent_ms = now_ms();
        let asked = guard.call(|store| store.lead(life.clone(), lease_ms)).await?;
        match asked.value {
            Leadership::Led { epoch, .. } => shared.leads(epoch, sent_ms, lease_ms),
            Leadership::Other(leader) => {
                shared.lead_is_over();
                seen.another(&leader, asked.at);
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = asked {
        // Its fence ends the leadership if this goes on.
        tracing::debug!(%error, "leadership was not asked for");
    }
}

async fn renew(shared: &Arc<Shared>, guard: &Guard) {
    let lease_ms = shared.settings.step_lease_ms;
    // A breaker that is open holds reports up, and not renewals, which have one of their own.
    let reported_ms = REPORTED_LEASES * lease_ms + 2 * shared.settings.breaker.open_ms_max;
    loop {
        let due = shared.held.due(now_ms(), lease_ms, reported_ms, BATCH_MAX);
        if !due.is_empty() {
            let (sent_ms, keys) = (now_ms(), due.iter().map(|one| one.key).collect::<Vec<_>>());
            match guard.call(|store| store.renew(lease_ms, due)).await {
                Ok(renewed) => {
                    for (key, renewed) in keys.iter().zip(renewed.value) {
                        match renewed {
                            Renewed::Held { cancel_asked, .. } => {
                                shared.held.confirm(key, sent_ms, lease_ms);
                                if cancel_asked {
                                    shared.held.stop(key, Stop::CalledOff);
                                }
                            }
                            Renewed::Fenced => shared.held.lost(key),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, claims = keys.len(), "renewal failed"),
            }
        }
        tokio::time::sleep(tick(lease_ms)).await;
    }
}

/// Whatever the database does, and while a renewal still waits for it: who cannot be sure to
/// hold a step lets it go.
async fn fence(shared: &Shared) {
    loop {
        let lost = shared.held.fence(now_ms());
        if lost > 0 {
            tracing::warn!(claims = lost, "leases may have run out; the work is dropped");
            shared.room.notify_one();
        }
        tokio::time::sleep(tick(shared.settings.step_lease_ms)).await;
    }
}

/// Between two looks at leases of this length.
fn tick(lease_ms: u64) -> Duration {
    Duration::from_millis((lease_ms / 20).clamp(5, 500))
}
