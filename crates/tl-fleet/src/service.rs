//! The face of a fleet for everything that talks to people and programs: HTTP, the command
//! line, a library's user.
//!
//! Calls go through the guard of the pod beside it, so they share its view of the database.
//! What many look at often (how many stand where, who lives, who leads) is looked up once a
//! second at most, whoever asks. That and searches, which may take long, go over a connection of
//! their own beside a pod: the pod's claims neither wait behind them nor are refused when they
//! fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tl_types::UnixMs;
use tokio::sync::{Mutex, OnceCell};

use crate::claim::{Claim, ClaimRequest, Finish, Finished, Renewal, Renewed};
use crate::effects::{EffectNoted, NewEffect};
use crate::error::StoreError;
use crate::ids::{PodId, StepId};
use crate::list::{Counts, KindCount, Page, PageRequest, StepFilter};
use crate::pod::{Guard, PodHandle, RecoveryAsked};
use crate::pods::{DrainAsked, Leader, Pod, PodState};
use crate::recover::{Cancelled, DeadLetter, Redriven};
use crate::step::{AttemptRecord, NewStep, Step, Submitted};
use crate::time::{StoreTime, Timed};

/// How old an overview may be.
const OVERVIEW_AGE: Duration = Duration::from_secs(1);
/// Shortest and longest wait between looks at a step that somebody waits for.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How the fleet stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// How many steps stand where.
    pub counts: Counts,
    /// All pods that are known, eldest first.
    pub pods: Vec<Pod>,
    /// Who led last.
    pub leader: Option<Leader>,
    /// When, by the clock that deadlines are compared with.
    pub at: StoreTime,
    /// When, by the calendar.
    pub wall: UnixMs,
}

impl Overview {
    /// Pods that are up and whose lease holds.
    pub fn living(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.state == PodState::Up && pod.lease_until > self.at)
    }

    /// Who leads now.
    #[must_use]
    pub fn leading(&self) -> Option<&Leader> {
        self.leader.as_ref().filter(|leader| leader.lease_until > self.at)
    }

    /// Kinds with pending steps that no living pod can run. Workers that pull over HTTP are
    /// not known here.
    pub fn unserved(&self) -> impl Iterator<Item = &KindCount> {
        let served: BTreeSet<_> = self.living().flat_map(|pod| &pod.kinds).collect();
        let unserved = move |count: &&KindCount| count.pending > 0 && !served.contains(&count.kind);
        self.counts.by_kind.iter().filter(unserved)
    }
}

/// A fleet, seen from one process.
#[derive(Debug)]
pub struct FleetService {
    guard: Arc<Guard>,
    /// For looks at many things; made when first needed.
    looks: OnceCell<Arc<Guard>>,
    pod: Option<PodHandle>,
    overview: Mutex<Option<(Instant, Arc<Overview>)>>,
}

impl FleetService {
    /// Beside a pod.
    #[must_use]
    pub fn beside(pod: PodHandle) -> FleetService {
        let guard = Arc::clone(pod.guard());
        FleetService { guard, looks: OnceCell::new(), pod: Some(pod), overview: Mutex::new(None) }
    }

    /// Without a pod: it submits and looks, and runs nothing.
    #[must_use]
    pub fn alone(guard: Arc<Guard>) -> FleetService {
        // Nobody works here who could be hindered.
        let looks = OnceCell::new_with(Some(Arc::clone(&guard)));
        FleetService { guard, looks, pod: None, overview: Mutex::new(None) }
    }

    /// The pod in this process.
    #[must_use]
    pub fn pod(&self) -> Option<&PodHandle> {
        self.pod.as_ref()
    }

    /// The guarded store.
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    async fn looks(&self) -> Result<&Guard, StoreError> {
        let make = || async { Ok::<_, StoreError>(Arc::new(self.guard.apart().await?)) };
        Ok(&**self.looks.get_or_try_init(make).await?)
    }

    /// Whether the database answers and takes writes.
    ///
    /// # Errors
    /// [`StoreError`]: it does not.
    pub async fn ready(&self) -> Result<Timed<()>, StoreError> {
        self.guard.call(|store| store.ping()).await
    }

    /// Stores steps; see [`crate::Store::submit`].
    ///
    /// # Errors
    /// [`StoreError`]; the same steps may be submitted again.
    pub async fn submit(&self, steps: Vec<NewStep>) -> Result<Timed<Vec<Submitted>>, StoreError> {
        self.guard.call(|store| store.submit(steps)).await
    }

    /// Takes steps for a worker that pulls; see [`crate::Store::claim`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, request: ClaimRequest) -> Result<Timed<Vec<Claim>>, StoreError> {
        let guard = Arc::clone(&self.guard);
        // Who asked has been told that it failed.
        let late = move |claims, _| async move { guard.give_back(claims).await };
        Ok(self.guard.claim(request, late).await?.0)
    }

    /// Goes on holding claims; see [`crate::Store::renew`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(
        &self,
        lease_ms: u64,
        renewals: Vec<Renewal>,
    ) -> Result<Timed<Vec<Renewed>>, StoreError> {
        self.guard.call(|store| store.renew(lease_ms, renewals)).await
    }

    /// Ends claims; see [`crate::Store::finish`].
    ///
    /// # Errors
    /// [`StoreError`]; the same reports may be sent again.
    pub async fn finish(&self, finishes: Vec<Finish>) -> Result<Timed<Vec<Finished>>, StoreError> {
        self.guard.call(|store| store.finish(finishes)).await
    }

    /// Notes effects; see [`crate::Store::note_effects`].
    ///
    /// # Errors
    /// [`StoreError`]; the same effects may be noted again.
    pub async fn note_effects(
        &self,
        effects: Vec<NewEffect>,
    ) -> Result<Timed<Vec<EffectNoted>>, StoreError> {
        self.guard.call(|store| store.note_effects(effects)).await
    }

    /// One step.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn step(&self, id: StepId) -> Result<Timed<Option<Step>>, StoreError> {
        let found = self.guard.call(|store| store.steps(vec![id])).await?;
        Ok(found.map(|mut steps| steps.pop().flatten()))
    }

    /// All attempts at a step.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attempts(&self, id: StepId) -> Result<Timed<Vec<AttemptRecord>>, StoreError> {
        self.guard.call(|store| store.attempts(id)).await
    }

    /// Waits for a step to be finished, for `wait` at most; gives how it stands then, and
    /// nothing for an unknown one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait(
        &self,
        id: StepId,
        wait: Duration,
    ) -> Result<Timed<Option<Step>>, StoreError> {
        let until = tokio::time::Instant::now() + wait;
        let (mut pause, longest) = LOOK;
        loop {
            let found = self.step(id).await?;
            let waits = found.value.as_ref().is_some_and(|step| !step.state.is_finished());
            let now = tokio::time::Instant::now();
            if !waits || now >= until {
                return Ok(found);
            }
            tokio::time::sleep_until(until.min(now + pause)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Steps that pass a filter; see [`crate::Store::list`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        filter: StepFilter,
        page: PageRequest,
    ) -> Result<Timed<Page<Step>>, StoreError> {
        self.looks().await?.call(|store| store.list(filter, page)).await
    }

    /// Calls steps off; see [`crate::Store::cancel`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, ids: Vec<StepId>) -> Result<Timed<Vec<Cancelled>>, StoreError> {
        self.guard.call(|store| store.cancel(ids)).await
    }

    /// Puts steps back; see [`crate::Store::redrive`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn redrive(&self, ids: Vec<StepId>) -> Result<Timed<Vec<Redriven>>, StoreError> {
        self.guard.call(|store| store.redrive(ids)).await
    }

    /// Asks living pods to go down in good order; see [`crate::Store::ask_drain`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ask_drain(&self, pods: Vec<PodId>) -> Result<Timed<Vec<DrainAsked>>, StoreError> {
        self.guard.call(|store| store.ask_drain(pods)).await
    }

    /// Dead letters, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dead_letters(
        &self,
        redriven: bool,
        page: PageRequest,
    ) -> Result<Timed<Page<DeadLetter>>, StoreError> {
        self.looks().await?.call(|store| store.dead_letters(redriven, page)).await
    }

    /// Makes a recovery cycle now, when the pod in this process leads.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recover_now(&self) -> Result<RecoveryAsked, StoreError> {
        match &self.pod {
            Some(pod) => pod.recover_now().await,
            None => Ok(RecoveryAsked::NotLeader),
        }
    }

    /// How the fleet stands, at most a second old. Who asks while it is looked up waits for
    /// that one look.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn overview(&self) -> Result<Arc<Overview>, StoreError> {
        let mut kept = self.overview.lock().await;
        if let Some((looked, overview)) = &*kept
            && looked.elapsed() < OVERVIEW_AGE
        {
            return Ok(Arc::clone(overview));
        }
        let looks = self.looks().await?;
        let counts = looks.call(|store| store.counts()).await?.value;
        let pods = looks.call(|store| store.pods()).await?.value;
        let leader = looks.call(|store| store.leader()).await?;
        let (at, wall) = (leader.at, leader.wall);
        let overview = Arc::new(Overview { counts, pods, leader: leader.value, at, wall });
        *kept = Some((Instant::now(), Arc::clone(&overview)));
        Ok(overview)
    }
}
