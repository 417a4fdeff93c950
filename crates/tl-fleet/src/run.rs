//! What runs: handlers by kind.
//!
//! A handler is given a step and gives a result or an error. It may run more than once for one
//! step (delivery is at least once), so what it does elsewhere should be harmless when done
//! again: with [`Run::note_effect`], with [`Run::idempotency_key`] sent along, or by rows of its
//! own that are committed together with the completion.
//!
//! A handler is stopped by dropping it at its next `await`. One that blocks its thread cannot be
//! stopped; it belongs on `tokio::task::spawn_blocking`, or into a process of its own
//! ([`Exec`]).

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::claim::Claim;
use crate::effects::{EffectNoted, NewEffect};
use crate::error::{InvalidInput, StoreError};
use crate::json::JsonText;
use crate::limits::{KINDS_MAX, PROGRESS_BYTES_MAX};
use crate::pod::Guard;
use crate::step::Kind;

mod exec;
mod orphans;

pub use exec::Exec;
pub use orphans::take_charge_of_orphans;

/// Why a handler did not give a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    /// What happened; kept with the attempt.
    pub error: String,
    /// Whether another attempt cannot help.
    pub fatal: bool,
    /// The wait before the next attempt; the pod's backoff when absent.
    pub retry_in_ms: Option<u64>,
}

impl HandlerError {
    /// Another attempt may help.
    pub fn retry(error: impl fmt::Display) -> HandlerError {
        HandlerError { error: error.to_string(), fatal: false, retry_in_ms: None }
    }

    /// Another attempt cannot help.
    pub fn fatal(error: impl fmt::Display) -> HandlerError {
        HandlerError { error: error.to_string(), fatal: true, retry_in_ms: None }
    }
}

/// Why a running step is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is not.
    Go,
    /// Somebody called the step off.
    CalledOff,
    /// The claim is lost, or may be by now: whatever is done from here on is done beside
    /// another.
    Lost,
    /// The pod goes down and gives the step back.
    Drained,
}

/// One attempt at a step, as its handler sees it.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was claimed.
    pub claim: Arc<Claim>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) progress: watch::Sender<Option<JsonText>>,
}

impl Run {
    /// A name for the step's effect elsewhere, alike over all its attempts. Together with
    /// `claim.attempt`, which only grows, another system can refuse a late attempt.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("idempotent_{}", self.claim.key.id)
    }

    /// Notes an effect under the step, or tells what was noted before.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was noted, or it is not known and may be repeated.
    pub async fn note_effect(&self, key: &str, value: JsonText) -> Result<EffectNoted, StoreError> {
        let effect = NewEffect { claim: self.claim.key, key: key.to_owned(), value };
        let mut noted = self.guard.call(|store| store.note_effects(vec![effect])).await?.value;
        noted.pop().ok_or_else(|| StoreError::Corrupt {
            what: "an answer without items".to_owned(),
            source: None,
        })
    }

    /// Shows something of the attempt; sent with its next renewal, the last word counts.
    ///
    /// # Errors
    /// [`InvalidInput`] when it is larger than [`PROGRESS_BYTES_MAX`].
    pub fn progress(&self, progress: JsonText) -> Result<(), InvalidInput> {
        if progress.len_bytes() > PROGRESS_BYTES_MAX {
            return Err(InvalidInput::new(
                "progress",
                format!("must be at most {PROGRESS_BYTES_MAX} bytes"),
            ));
        }
        self.progress.send_replace(Some(progress));
        Ok(())
    }

    /// Waits until the step is to stop, for handlers that have something to tidy up. The
    /// handler is dropped right after, so this is for work that others do on its behalf.
    pub async fn stopped(&mut self) -> Stop {
        match self.stop.wait_for(|stop| *stop != Stop::Go).await {
            Ok(stop) => *stop,
            Err(_) => Stop::Lost,
        }
    }
}

/// What a handler gives.
pub type Handled = Pin<Box<dyn Future<Output = Result<JsonText, HandlerError>> + Send>>;

/// Runs steps of one kind.
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt. Dropping the future must end it.
    fn run(&self, run: Run) -> Handled;
}

/// The handlers of a pod: what it can run.
#[derive(Clone, Default)]
pub struct Handlers(BTreeMap<Kind, Arc<dyn Handler>>);

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Handlers {
    /// None yet.
    #[must_use]
    pub fn new() -> Handlers {
        Handlers::default()
    }

    /// Adds a handler; a later one for the same kind takes its place.
    ///
    /// # Errors
    /// [`InvalidInput`] for more than [`KINDS_MAX`] kinds.
    pub fn add(&mut self, kind: Kind, handler: impl Handler) -> Result<(), InvalidInput> {
        if !self.0.contains_key(&kind) && self.0.len() >= KINDS_MAX {
            return Err(InvalidInput::new("kinds", format!("must be at most {KINDS_MAX}")));
        }
        self.0.insert(kind, Arc::new(handler));
        Ok(())
    }

    /// Adds an async function whose arguments and result are types of the program. Arguments
    /// that do not fit are a fatal error: another attempt would find the same.
    ///
    /// # Errors
    /// As [`Handlers::add`].
    pub fn typed<A, R, F, W>(&mut self, kind: Kind, work: F) -> Result<(), InvalidInput>
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(A, Run) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, HandlerError>> + Send + 'static,
    {
        self.add(kind, Typed { work, types: std::marker::PhantomData::<fn(A) -> R> })
    }

    /// The handler of a kind.
    #[must_use]
    pub fn get(&self, kind: &Kind) -> Option<Arc<dyn Handler>> {
        self.0.get(kind).cloned()
    }

    /// What can be run.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        self.0.keys().cloned().collect()
    }
}

struct Typed<F, T> {
    work: F,
    types: std::marker::PhantomData<T>,
}

impl<A, R, F, W> Handler for Typed<F, fn(A) -> R>
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(A, Run) -> W + Send + Sync + 'static,
    W: Future<Output = Result<R, HandlerError>> + Send + 'static,
{
    fn run(&self, run: Run) -> Handled {
        let args = match serde_json::from_str(run.claim.args.as_str()) {
            Ok(args) => args,
            Err(error) => {
                let error = HandlerError::fatal(format!("the arguments do not fit: {error}"));
                return Box::pin(std::future::ready(Err(error)));
            }
        };
        let work = (self.work)(args, run);
        Box::pin(async move {
            let result = work.await?;
            JsonText::of("result", &result).map_err(HandlerError::fatal)
        })
    }
}
