//! Calls to the store behind a time limit and the breaker.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tl_core::fleet::{Admission, Breaker, BreakerSettings, BreakerState};
use tokio::sync::oneshot;

use super::clock::now_ms;
use crate::claim::{Claim, ClaimRequest, Finish, Outcome};
use crate::error::StoreError;
use crate::store::{Answer, Store};
use crate::time::Timed;

/// Least time that is given to a new connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The store as a pod or a service sees it: no call waits for ever, and a database that is
/// away is left alone for a while.
#[derive(Debug)]
pub struct Guard {
    store: Arc<dyn Store>,
    settings: BreakerSettings,
    breaker: Mutex<Breaker>,
    call: Duration,
}

/// A call that was let through, until its outcome is known. Dropped before, because its caller
/// went away, it makes room for the next probe.
struct Passed<'g> {
    breaker: &'g Mutex<Breaker>,
    /// When it went, if it is the probe.
    probe_ms: Option<u64>,
}

impl Passed<'_> {
    fn succeeded(mut self) {
        self.probe_ms = None;
        self.breaker.lock().succeeded();
    }

    fn failed(mut self) {
        self.probe_ms = None;
        self.breaker.lock().failed(now_ms(), fastrand::f64());
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        if let Some(sent_ms) = self.probe_ms {
            self.breaker.lock().abandoned(sent_ms, now_ms());
        }
    }
}

/// The breaker is open.
#[derive(Debug, thiserror::Error)]
#[error("the database is left alone for {after_ms} ms more, after calls that failed")]
pub struct LeftAlone {
    /// When to ask again.
    pub after_ms: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} ms", .0.as_millis())]
struct TooSlow(Duration);

impl Guard {
    /// Guards a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: BreakerSettings, call_ms: u64) -> Guard {
        let breaker = Mutex::new(Breaker::new(settings));
        Guard { store, settings, breaker, call: Duration::from_millis(call_ms) }
    }

    /// A guard over the same database with a connection and a breaker of its own: calls through
    /// one neither wait behind those of the other, nor are they refused because those fail.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database is left alone, or no connection came in
    /// time; what the store says.
    pub async fn apart(&self) -> Result<Guard, StoreError> {
        let after_ms = self.wait_ms();
        if after_ms > 0 {
            return Err(StoreError::Unavailable { source: Arc::new(LeftAlone { after_ms }) });
        }
        let limit = self.call.max(CONNECT);
        let store = match tokio::time::timeout(limit, self.store.apart()).await {
            Ok(store) => store?,
            Err(_) => return Err(StoreError::Unavailable { source: Arc::new(TooSlow(limit)) }),
        };
        let call_ms = u64::try_from(self.call.as_millis()).unwrap_or(u64::MAX);
        Ok(Guard::new(store, self.settings, call_ms))
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether calls pass just now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.breaker.lock().state()
    }

    /// Milliseconds until a call may pass; 0 when it may now.
    #[must_use]
    pub fn wait_ms(&self) -> u64 {
        match self.state() {
            BreakerState::Open { until_ms } => until_ms.saturating_sub(now_ms()),
            BreakerState::Closed | BreakerState::HalfOpen => 0,
        }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// What the store says; [`StoreError::Unavailable`] with [`LeftAlone`] when the breaker is
    /// open; [`StoreError::OutcomeUnknown`] when no answer came in time.
    pub async fn call<'s, T>(
        &'s self,
        call: impl FnOnce(&'s dyn Store) -> Answer<'s, T>,
    ) -> Result<Timed<T>, StoreError> {
        let sent_ms = now_ms();
        let probe_ms = match self.breaker.lock().admit(sent_ms) {
            Admission::Pass => None,
            Admission::Probe => Some(sent_ms),
            Admission::Wait { after_ms } => {
                return Err(StoreError::Unavailable { source: Arc::new(LeftAlone { after_ms }) });
            }
        };
        let passed = Passed { breaker: &self.breaker, probe_ms };
        let answer = match tokio::time::timeout(self.call, call(&*self.store)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::OutcomeUnknown { source: Arc::new(TooSlow(self.call)) }),
        };
        match &answer {
            Err(error) if error.is_outage() => passed.failed(),
            // Says nothing of the database, only of us; a probe has failed all the same.
            Err(StoreError::Busy { .. }) if passed.probe_ms.is_some() => passed.failed(),
            // Refused before the database was asked.
            Err(StoreError::Invalid(_) | StoreError::Busy { .. }) => drop(passed),
            Ok(_) | Err(_) => passed.succeeded(),
        }
        answer
    }

    /// Claims in a task of its own: when the answer comes after the guard has given up
    /// waiting, `late` has the steps, so that they do not lie claimed until their lease runs
    /// out. Beside the steps it gives when they were asked for, by the process's clock.
    ///
    /// # Errors
    /// As [`Guard::call`].
    pub(crate) async fn claim<W: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        request: ClaimRequest,
        late: impl FnOnce(Vec<Claim>, u64) -> W + Send + 'static,
    ) -> Result<(Timed<Vec<Claim>>, u64), StoreError> {
        let sent_ms = now_ms();
        let guard = Arc::clone(self);
        let claims = self.call(move |_| {
            let (reply, answer) = oneshot::channel();
            tokio::spawn(async move {
                let claims = guard.store.claim(request).await;
                if let Err(Ok(claims)) = reply.send(claims) {
                    late(claims.value, sent_ms).await;
                }
            });
            Box::pin(async move { answer.await.unwrap_or_else(|_| Err(gone())) })
        });
        Ok((claims.await?, sent_ms))
    }

    /// Gives claims back that nobody will work on.
    pub(crate) async fn give_back(&self, claims: Vec<Claim>) {
        let release = |claim: &Claim| Finish { key: claim.key, outcome: Outcome::Released };
        let finishes = claims.iter().map(release).collect();
        if let Err(error) = self.call(|store| store.finish(finishes)).await {
            tracing::warn!(%error, steps = claims.len(), "steps claimed late wait for their lease");
        }
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable { source: Arc::new(std::io::Error::other("the runtime goes down")) }
}
