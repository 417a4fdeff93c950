//! What happens to steps whose lease ran out, and what stands among the dead letters.

use tl_types::UnixMs;

use crate::error::InvalidInput;
use crate::ids::{Attempt, PodId, StepId};
use crate::limits::{DELAY_MS_MAX, RETRIES_MAX, SWEEP_MAX};
use crate::step::{Kind, StepState, words};

/// How to treat steps whose lease ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverRequest {
    /// How many at most; the rest is found by the next call.
    pub steps_max: usize,
    /// The wait before the next attempt, by attempts charged including this one: entry 0 is
    /// for the first. Past its end the last entry counts. Worked out by the caller, jitter
    /// and all.
    pub retry_in_ms: Vec<u64>,
    /// Leases that a step may lose before it is taken for what kills its pods.
    pub poison_after: u32,
}

impl RecoverRequest {
    /// Holds every limit of a recovery.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the first field that is past its limit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let wrong = |field, problem: String| Err(InvalidInput::new(field, problem));
        if self.steps_max == 0 || self.steps_max > SWEEP_MAX {
            return wrong("steps_max", format!("must be from 1 to {SWEEP_MAX}"));
        }
        let longest = RETRIES_MAX as usize + 1;
        if self.retry_in_ms.is_empty() || self.retry_in_ms.len() > longest {
            return wrong("retry_in_ms", format!("must have 1 to {longest} entries"));
        }
        if self.retry_in_ms.iter().any(|ms| *ms > DELAY_MS_MAX) {
            return wrong("retry_in_ms", format!("must be at most {DELAY_MS_MAX} each"));
        }
        if self.poison_after == 0 {
            return wrong("poison_after", "must be at least 1".to_owned());
        }
        Ok(())
    }
}

/// A step that was taken from its holder because its lease had run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The step.
    pub id: StepId,
    /// Who held it.
    pub claimed_by: PodId,
    /// The attempt that was lost.
    pub attempt: Attempt,
    /// Attempts charged, this one included.
    pub charged: u32,
    /// Attempts that may be charged.
    pub attempts_max: u32,
    /// When it was claimed.
    pub claimed_at: UnixMs,
    /// Where it stands now: pending, scheduled, failed, or cancelled when that was asked.
    pub state: StepState,
    /// Why it was given up, when it was.
    pub reason: Option<DeadReason>,
}

words!(
    /// Why a step became a dead letter.
    DeadReason {
        /// Its attempts failed or were lost as often as it may.
        RetriesExhausted = 0 "max_retries_exceeded",
        /// It lost its lease so often that it is taken for what kills its pods.
        Poison = 1 "poison",
        /// Its handler said that another attempt cannot help.
        Fatal = 2 "fatal",
    }
);

/// A step that was given up. It stays until an operator redrives it or retention forgets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The step.
    pub id: StepId,
    /// The attempt after which it was given up; with the id it names the dead letter.
    pub attempt: Attempt,
    /// What sort of work.
    pub kind: Kind,
    /// Why.
    pub reason: DeadReason,
    /// What the last attempt said.
    pub error: Option<String>,
    /// Who held it last.
    pub pod: PodId,
    /// When it was given up.
    pub died_at: UnixMs,
    /// When it was put back, if it was.
    pub redriven_at: Option<UnixMs>,
}

/// What became of a wish to call a step off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It will not run.
    Now,
    /// It runs; who runs it is told at its next renewal.
    Asked,
    /// It was finished before, so.
    Finished(StepState),
    /// There is no such step.
    NotFound,
}

/// What became of a wish to run a step again, or at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    /// It is pending, with all its attempts before it again; `attempt` goes on counting.
    Now,
    /// It stands so, and is left alone: pending, claimed, or completed.
    NotNow(StepState),
    /// Its unique key is another step's by now.
    KeyTaken(StepId),
    /// There is no such step.
    NotFound,
}

/// How long finished things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Completed and cancelled steps, milliseconds since they were finished.
    pub finished_ms: u64,
    /// Failed steps with their dead letters, milliseconds since they were given up.
    pub dead_ms: u64,
    /// Rows of pods that are down, milliseconds since they were last heard of.
    pub pods_ms: u64,
    /// How many steps at most; the rest is found by the next call.
    pub steps_max: usize,
}

/// What retention forgot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Steps, with their attempts, effects and dead letters.
    pub steps: u64,
    /// Rows of pods.
    pub pods: u64,
    /// Whether there is more to forget.
    pub more: bool,
}
