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

/// The store as a pod or a service sees it: no call waits for ever, and a database that is
/// away is left alone for a while.
#[derive(Debug)]
pub struct Guard {
    store: Arc<dyn Store>,
    breaker: Mutex<Breaker>,
    call: Duration,
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
        Guard { store, breaker, call: Duration::from_millis(call_ms) }
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
        match self.breaker.lock().admit(now_ms()) {
            Admission::Pass | Admission::Probe => {}
            Admission::Wait { after_ms } => {
                return Err(StoreError::Unavailable { source: Arc::new(LeftAlone { after_ms }) });
            }
        }
        let answer = match tokio::time::timeout(self.call, call(&*self.store)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::OutcomeUnknown { source: Arc::new(TooSlow(self.call)) }),
        };
        match &answer {
            Err(error) if error.is_outage() => {
                self.breaker.lock().failed(now_ms(), fastrand::f64());
            }
            // Says nothing of the database, only of us; a probe has failed all the same.
            Err(StoreError::Busy { .. }) => {
                let mut breaker = self.breaker.lock();
                if breaker.state() == BreakerState::HalfOpen {
                    breaker.failed(now_ms(), fastrand::f64());
                }
            }
            Ok(_) | Err(_) => self.breaker.lock().succeeded(),
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
