//! A real store whose calls can be held up by name, as a database that hangs would: before it
//! has heard of them, or after it has done them. Sweeps can be too large for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tl_fleet::{
    Answer, AttemptRecord, Beat, Cancelled, Capabilities, Claim, ClaimRequest, Counts, DeadLetter,
    DrainAsked, EffectNoted, Epoch, Finish, Finished, Forgotten, Heartbeat, Leader, LeaderWrite,
    Leadership, NewEffect, NewStep, Opening, Page, PageRequest, Pod, PodId, PodInfo, PodLife,
    ReapedPod, RecoverRequest, Recovered, Redriven, Registered, Renewal, Renewed, Retention, Step,
    StepFilter, StepId, Store, StoreError, Submitted,
};
use tokio::sync::watch;

/// Which calls are held up, and how many of each came. Shared with stores made apart.
#[derive(Debug, Default)]
pub struct Faults {
    calls_held: watch::Sender<BTreeSet<&'static str>>,
    answers_held: watch::Sender<BTreeSet<&'static str>>,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    /// Steps of one sweep that are not too many; 0 is no limit.
    sweep_max: AtomicUsize,
}

impl Faults {
    /// From now on the database does not hear of calls of this name.
    pub fn hold(&self, name: &'static str) {
        self.calls_held.send_modify(|held| {
            held.insert(name);
        });
    }

    /// From now on nobody hears what the database answers to calls of this name.
    pub fn hold_answers(&self, name: &'static str) {
        self.answers_held.send_modify(|held| {
            held.insert(name);
        });
    }

    /// From now on sweeps of more steps take longer than a statement may.
    pub fn limit_sweeps(&self, steps_max: usize) {
        self.sweep_max.store(steps_max, Ordering::SeqCst);
    }

    fn sweep(&self, steps_max: usize) -> Result<(), StoreError> {
        match self.sweep_max.load(Ordering::SeqCst) {
            most if most > 0 && steps_max > most => {
                let source = Arc::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
                Err(StoreError::Unavailable { source })
            }
            _ => Ok(()),
        }
    }

    /// All that was held up goes on.
    pub fn let_go(&self) {
        self.calls_held.send_modify(BTreeSet::clear);
        self.answers_held.send_modify(BTreeSet::clear);
    }

    /// How many calls of this name were made.
    pub fn calls(&self, name: &str) -> usize {
        self.calls.lock().get(name).copied().unwrap_or(0)
    }

    async fn before(&self, name: &'static str) {
        *self.calls.lock().entry(name).or_default() += 1;
        pass(&self.calls_held, name).await;
    }
}

async fn pass(held: &watch::Sender<BTreeSet<&'static str>>, name: &str) {
    let mut held = held.subscribe();
    held.wait_for(|held| !held.contains(name)).await.expect("the sender is borrowed");
}

/// The store.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Store>) -> (Arc<dyn Store>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (Arc::new(Faulty { inner, faults: Arc::clone(&faults) }), faults)
    }
}

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Answer<'_, $answer> {
            Box::pin(async move {
                self.faults.before(stringify!($name)).await;
                let answer = self.inner.$name($($arg),*).await;
                pass(&self.faults.answers_held, stringify!($name)).await;
                answer
            })
        })*
    };
}

impl Store for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn wakes(&self) -> watch::Receiver<u64> {
        self.inner.wakes()
    }

    fn apart(&self) -> Opening<'_> {
        Box::pin(async move {
            let inner = self.inner.apart().await?;
            let store: Arc<dyn Store> = Arc::new(Faulty { inner, faults: self.faults.clone() });
            Ok(store)
        })
    }

    fn recover(&self, request: RecoverRequest) -> Answer<'_, Vec<Recovered>> {
        Box::pin(async move {
            self.faults.before("recover").await;
            self.faults.sweep(request.steps_max)?;
            self.inner.recover(request).await
        })
    }

    fn retain(&self, epoch: Epoch, keep: Retention) -> Answer<'_, LeaderWrite<Forgotten>> {
        Box::pin(async move {
            self.faults.before("retain").await;
            self.faults.sweep(keep.steps_max)?;
            self.inner.retain(epoch, keep).await
        })
    }

    passed_on! {
        ping() -> ();
        submit(steps: Vec<NewStep>) -> Vec<Submitted>;
        claim(request: ClaimRequest) -> Vec<Claim>;
        renew(lease_ms: u64, renewals: Vec<Renewal>) -> Vec<Renewed>;
        finish(finishes: Vec<Finish>) -> Vec<Finished>;
        note_effects(effects: Vec<NewEffect>) -> Vec<EffectNoted>;
        register(info: PodInfo, lease_ms: u64) -> Registered;
        heartbeat(beat: Heartbeat) -> Beat;
        leave(life: PodLife) -> ();
        ask_drain(pods: Vec<PodId>) -> Vec<DrainAsked>;
        pods() -> Vec<Pod>;
        lead(life: PodLife, lease_ms: u64) -> Leadership;
        leader() -> Option<Leader>;
        reap(epoch: Epoch, pods_max: usize) -> LeaderWrite<Vec<ReapedPod>>;
        steps(ids: Vec<StepId>) -> Vec<Option<Step>>;
        attempts(id: StepId) -> Vec<AttemptRecord>;
        list(filter: StepFilter, page: PageRequest) -> Page<Step>;
        counts() -> Counts;
        cancel(ids: Vec<StepId>) -> Vec<Cancelled>;
        redrive(ids: Vec<StepId>) -> Vec<Redriven>;
        dead_letters(redriven: bool, page: PageRequest) -> Page<DeadLetter>;
    }
}
