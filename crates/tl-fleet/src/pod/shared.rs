//! What the tasks of a pod share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tl_core::fleet::{Fence, Pressure, capacity, prefetch_max};
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, watch};

use super::clock::now_ms;
use super::counters::Counters;
use super::duties::Ask;
use super::guard::Guard;
use super::held::Held;
use super::local::Local;
use super::pressure::Meter;
use super::settings::PodSettings;
use crate::claim::Finish;
use crate::ids::{Epoch, PodLife};
use crate::run::Handlers;

/// Where a pod is between start and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It claims and runs.
    Running,
    /// It claims no more and lets run what runs.
    Draining,
    /// It has ended.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: PodSettings,
    pub(super) guard: Arc<Guard>,
    pub(super) handlers: Handlers,
    pub(super) local: Arc<Local>,
    pub(super) held: Held,
    pub(super) counters: Counters,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) lives: watch::Sender<Option<PodLife>>,
    /// Somebody asked, through the database, that the pod go down.
    pub(super) drain_asked: watch::Sender<bool>,
    pub(super) reports: mpsc::Sender<Finish>,
    /// Who asks the leader's task for a recovery cycle; one at a time, who holds it has asked.
    pub(super) asks: AsyncMutex<mpsc::Sender<Ask>>,
    /// A step has ended.
    pub(super) room: Notify,
    /// Do not wait for the next heartbeat.
    pub(super) beat_now: Notify,
    /// A leadership has begun, or goes on after a doubt.
    pub(super) leads_now: Notify,
    /// The journal has something.
    pub(super) replay: Notify,
    life_fence: Mutex<Option<Fence>>,
    lead: Mutex<Option<(Epoch, Fence)>>,
    meter: Meter,
    capacity: AtomicU32,
    /// How long attempts take of late, milliseconds.
    run_ms: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        settings: PodSettings,
        guard: Arc<Guard>,
        handlers: Handlers,
        local: Local,
        reports: mpsc::Sender<Finish>,
        asks: mpsc::Sender<Ask>,
    ) -> Shared {
        // Nothing is known of the steps yet: few are held ready until some have ended.
        let run_ms = AtomicU64::new(settings.step_lease_ms / 3);
        let shared = Shared {
            settings,
            guard,
            handlers,
            local: Arc::new(local),
            held: Held::default(),
            counters: Counters::default(),
            stage: watch::Sender::new(Stage::Running),
            lives: watch::Sender::new(None),
            drain_asked: watch::Sender::new(false),
            reports,
            asks: AsyncMutex::new(asks),
            room: Notify::new(),
            beat_now: Notify::new(),
            leads_now: Notify::new(),
            replay: Notify::new(),
            life_fence: Mutex::new(None),
            lead: Mutex::new(None),
            meter: Meter::new(),
            capacity: AtomicU32::new(1),
            run_ms,
        };
        shared.measure();
        shared
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(super) fn life(&self) -> Option<PodLife> {
        self.lives.borrow().clone()
    }

    /// Whether the pod is in its life, as far as it can know: registered, and its lease
    /// confirmed a short while ago.
    pub(super) fn may_claim(&self) -> bool {
        self.life_fence.lock().is_some_and(|fence| !fence.is_past(now_ms()))
    }

    pub(super) fn begin_life(&self, life: PodLife, fence: Fence) {
        *self.life_fence.lock() = Some(fence);
        self.lives.send_replace(Some(life));
    }

    pub(super) fn confirm_life(&self, sent_ms: u64, lease_ms: u64) {
        if let Some(fence) = &mut *self.life_fence.lock() {
            fence.confirm(sent_ms, lease_ms);
        }
    }

    /// Drops all work: whoever reaped this life may have given it to others.
    pub(super) fn end_life(&self) {
        *self.life_fence.lock() = None;
        self.lead_is_over();
        self.lives.send_replace(None);
        self.counters.reaped.add(1);
        self.held.lose_all();
        self.room.notify_one();
    }

    pub(super) fn leads(&self, epoch: Epoch, sent_ms: u64, lease_ms: u64) {
        let before = self.lead.lock().replace((epoch, Fence::new(sent_ms, lease_ms)));
        self.leads_now.notify_one();
        if before.is_none_or(|(before, _)| before != epoch) {
            tracing::info!(%epoch, "leads");
        }
    }

    pub(super) fn lead_is_over(&self) {
        if let Some((epoch, _)) = self.lead.lock().take() {
            tracing::info!(%epoch, "leads no more");
        }
    }

    /// The epoch under which this pod leads, as far as it can know.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let lead = *self.lead.lock();
        lead.filter(|(_, fence)| !fence.is_past(now_ms())).map(|(epoch, _)| epoch)
    }

    /// Looks at the pressure anew.
    pub(super) fn measure(&self) {
        let settings = &self.settings;
        let pressure = if settings.heed_pressure { self.meter.read() } else { Pressure::default() };
        let now = capacity(settings.max_parallelism, settings.capacity_threshold, pressure);
        self.capacity.store(now, Ordering::Relaxed);
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(super) fn prefetch_max(&self, capacity: u32) -> u32 {
        let run_ms = self.run_ms.load(Ordering::Relaxed);
        prefetch_max(self.settings.prefetch_max, capacity, self.settings.step_lease_ms, run_ms)
    }

    /// An attempt took this long. The mean moves by an eighth; two at once may lose one.
    pub(super) fn ran_for(&self, ms: u64) {
        let before = self.run_ms.load(Ordering::Relaxed);
        self.run_ms.store((before * 7 + ms) / 8, Ordering::Relaxed);
    }
}
