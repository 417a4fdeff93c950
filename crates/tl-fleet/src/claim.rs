//! Holding a step: claim, renew, finish.

use crate::error::InvalidInput;
use crate::ids::{Attempt, ClaimToken, PodId, PodLife, StepId};
use crate::json::JsonText;
use crate::limits::{
    BATCH_MAX, ERROR_BYTES_MAX, KINDS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, PROGRESS_BYTES_MAX,
    RESULT_BYTES_MAX,
};
use crate::step::{Kind, StepState};
use crate::time::StoreTime;

/// Who asks for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimant {
    /// A registered pod in one of its lives; refused with [`crate::StoreError::Reaped`] when
    /// that life has ended.
    Pod(PodLife),
    /// A worker that pulls over HTTP and is known by its claims alone.
    Worker(PodId),
}

impl Claimant {
    /// The name that the step's row will bear.
    #[must_use]
    pub fn name(&self) -> &PodId {
        match self {
            Claimant::Pod(life) => &life.pod,
            Claimant::Worker(name) => name,
        }
    }
}

/// A wish for steps. Fewer than `steps_max`, or none, is an ordinary answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Who asks.
    pub claimant: Claimant,
    /// What it can run; steps of other kinds stay pending.
    pub kinds: Vec<Kind>,
    /// How many at most.
    pub steps_max: usize,
    /// How long each is held without a renewal.
    pub lease_ms: u64,
}

impl ClaimRequest {
    /// Holds every limit of a claim.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the first field that is past its limit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        if self.kinds.is_empty() || self.kinds.len() > KINDS_MAX {
            return Err(InvalidInput::new("kinds", format!("must name 1 to {KINDS_MAX}")));
        }
        if self.steps_max == 0 || self.steps_max > BATCH_MAX {
            return Err(InvalidInput::new("steps_max", format!("must be from 1 to {BATCH_MAX}")));
        }
        check_lease(self.lease_ms)
    }
}

/// Holds the limits of a lease.
///
/// # Errors
/// [`InvalidInput`] when it is shorter or longer than the limits.
pub fn check_lease(lease_ms: u64) -> Result<(), InvalidInput> {
    if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ms) {
        return Err(InvalidInput::new(
            "lease_ms",
            format!("must be from {LEASE_MS_MIN} to {LEASE_MS_MAX}"),
        ));
    }
    Ok(())
}

/// Names one claim: everything done to it carries this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimKey {
    /// The step.
    pub id: StepId,
    /// The proof.
    pub token: ClaimToken,
}

/// A step that the asker now holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name and proof.
    pub key: ClaimKey,
    /// Which attempt this is; larger than every earlier one.
    pub attempt: Attempt,
    /// Attempts that have failed or lost their lease before.
    pub charged: u32,
    /// Attempts that may be charged before it is given up.
    pub attempts_max: u32,
    /// What sort of work.
    pub kind: Kind,
    /// What the handler is given.
    pub args: JsonText,
    /// What goes along with it.
    pub metadata: JsonText,
    /// Larger is sooner.
    pub priority: i32,
    /// Longest run of this attempt, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Until when it is held unless renewed.
    pub lease_until: StoreTime,
}

/// A wish to go on holding a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Which claim.
    pub key: ClaimKey,
    /// What to show of the attempt, when there is something new.
    pub progress: Option<JsonText>,
}

impl Renewal {
    /// Holds every limit of a renewal.
    ///
    /// # Errors
    /// [`InvalidInput`] when the progress is too large.
    pub fn check(&self) -> Result<(), InvalidInput> {
        match &self.progress {
            Some(json) if json.len_bytes() > PROGRESS_BYTES_MAX => Err(InvalidInput::new(
                "progress",
                format!("has {} bytes, more than {PROGRESS_BYTES_MAX}", json.len_bytes()),
            )),
            _ => Ok(()),
        }
    }
}

/// What became of a wish to go on holding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Held until then.
    Held {
        /// The new deadline.
        lease_until: StoreTime,
        /// Whether the step is to be called off: stop, then finish with
        /// [`Outcome::Cancelled`], or with what was achieved.
        cancel_asked: bool,
    },
    /// The claim is lost: stop, and report nothing.
    Fenced,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Completed {
        /// What it gave.
        result: JsonText,
    },
    /// It failed. Another attempt follows `retry_in_ms` later while attempts are left; else
    /// the step becomes a dead letter.
    Failed {
        /// Why.
        error: String,
        /// The wait that the pod has worked out, jitter and all.
        retry_in_ms: u64,
    },
    /// It failed in a way that another attempt cannot mend: a dead letter at once.
    Fatal {
        /// Why.
        error: String,
    },
    /// It stopped because it was called off.
    Cancelled,
    /// Given back, to be claimed again at once; no attempt is charged.
    Released,
}

impl Outcome {
    /// Bytes of the result, if there is one.
    #[must_use]
    pub fn result_bytes(&self) -> usize {
        match self {
            Outcome::Completed { result } => result.len_bytes(),
            Outcome::Failed { .. }
            | Outcome::Fatal { .. }
            | Outcome::Cancelled
            | Outcome::Released => 0,
        }
    }
}

/// The end of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Which claim.
    pub key: ClaimKey,
    /// How it ended.
    pub outcome: Outcome,
}

impl Finish {
    /// Holds every limit of an outcome. Error texts are cut by the store and never refused.
    ///
    /// # Errors
    /// [`InvalidInput`] when the result is too large or the wait too long.
    pub fn check(&self) -> Result<(), InvalidInput> {
        match &self.outcome {
            Outcome::Completed { result } if result.len_bytes() > RESULT_BYTES_MAX => {
                Err(InvalidInput::new(
                    "result",
                    format!("has {} bytes, more than {RESULT_BYTES_MAX}", result.len_bytes()),
                ))
            }
            Outcome::Failed { retry_in_ms, .. } if *retry_in_ms > crate::limits::DELAY_MS_MAX => {
                Err(InvalidInput::new("retry_in_ms", "is longer than a step may wait"))
            }
            _ => Ok(()),
        }
    }
}

/// What became of a report about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It counts; the step now stands so. A repeat of a report that finished the step is
    /// answered alike, for as long as the step is not put back.
    Now(StepState),
    /// The claim was lost before; the report is dropped.
    Fenced,
}

/// Cuts an error's text to what is kept, at a character's border.
#[must_use]
pub fn cut_error(text: &str) -> String {
    // Postgres cannot keep a zero byte in text, so no store does.
    let mut text = text.replace('\0', "\u{fffd}");
    if text.len() > ERROR_BYTES_MAX {
        let mut end = ERROR_BYTES_MAX - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
