//! A step: one piece of work, as it is submitted and as it stands.
//!
//! ```text
//!   submit ──> scheduled ──(run_at)──> pending <──────────────┐ release, retry with backoff,
//!      └─────────────────────────────────┘ │                  │ lease lost
//!                                        claim ──> claimed ───┤
//!   cancel: scheduled, pending ──> cancelled          │       └──> failed (a dead letter)
//!           claimed ──> asked to stop                 └──> completed, cancelled
//! ```
//!
//! Invariants, for every store:
//!  - F1 a step is claimed by at most one token; `attempt` grows with each claim and never
//!    goes back.
//!  - F2 what is done to a claim happens only while its token is the step's token and the
//!    step is claimed.
//!  - F3 a step is failed if and only if a dead letter of it that was not redriven stands.

use std::fmt;

use tl_types::UnixMs;

use crate::error::InvalidInput;
use crate::ids::{Attempt, PodId, StepId};
use crate::json::JsonText;
use crate::limits::{
    DELAY_MS_MAX, KEY_BYTES_MAX, KIND_BYTES_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX, RETRIES_DEFAULT,
    RETRIES_MAX, TIMEOUT_MS_MAX,
};
use crate::time::StoreTime;

/// What sort of work a step is, which decides who can run it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(String);

impl Kind {
    /// # Errors
    /// [`InvalidInput`] when the word is empty, longer than [`KIND_BYTES_MAX`] or holds
    /// anything but letters, digits, `_` and `-`.
    pub fn new(word: impl Into<String>) -> Result<Kind, InvalidInput> {
        let word = word.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if word.is_empty() || word.len() > KIND_BYTES_MAX || !word.bytes().all(plain) {
            return Err(InvalidInput::new(
                "type",
                format!("must be 1 to {KIND_BYTES_MAX} letters, digits, `_` or `-`"),
            ));
        }
        Ok(Kind(word))
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word on the wire.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The number in the stores; a number once given out is never reused.
            #[must_use]
            pub fn number(self) -> i16 {
                match self { $($name::$variant => $number,)* }
            }

            /// The one with this number.
            #[must_use]
            pub fn from_number(number: i64) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }

            /// The one with this word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use words;

words!(
    /// Where a step stands.
    StepState {
        /// Waits for its time.
        Scheduled = 0 "scheduled",
        /// May be claimed.
        Pending = 1 "pending",
        /// Somebody works on it, or holds it ready.
        Claimed = 2 "claimed",
        /// Done; its result is kept.
        Completed = 3 "completed",
        /// Given up; it stands among the dead letters.
        Failed = 4 "failed",
        /// Called off.
        Cancelled = 5 "cancelled",
    }
);

impl StepState {
    /// Whether nothing more will happen to it by itself.
    #[must_use]
    pub fn is_finished(self) -> bool {
        match self {
            StepState::Completed | StepState::Failed | StepState::Cancelled => true,
            StepState::Scheduled | StepState::Pending | StepState::Claimed => false,
        }
    }
}

/// When a step may first run, by the store's calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAt {
    /// At once.
    Now,
    /// So many milliseconds after it is stored.
    InMs(u64),
    /// At this instant, or at once when it has passed.
    At(UnixMs),
}

words!(
    /// How long a unique key keeps others out.
    UniqueUntil {
        /// Until the step is finished: one of its like waits or runs at a time.
        Finished = 0 "finished",
        /// Until retention forgets the step: a submission is done once.
        Forgotten = 1 "forgotten",
    }
);

/// A caller's own name for a step. While one step holds it, a submission with the same name is
/// answered with that step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The name, one name space for all kinds.
    pub key: String,
    /// How long it counts.
    pub until: UniqueUntil,
}

/// A step to be stored. Its id is given before it is sent, so that a repeat is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    /// Its name for ever.
    pub id: StepId,
    /// What sort of work.
    pub kind: Kind,
    /// What the handler is given: a JSON object.
    pub args: JsonText,
    /// What goes along with it: a JSON object.
    pub metadata: JsonText,
    /// Larger is sooner; see `tl_core::fleet::rank` for how waiting makes up for it.
    pub priority: i32,
    /// Attempts that may fail before it is given up: retries and one.
    pub attempts_max: u32,
    /// When it may first run.
    pub run_at: RunAt,
    /// Longest run of one attempt, milliseconds; the pod's own default when absent.
    pub timeout_ms: Option<u64>,
    /// A caller's own name for it.
    pub unique: Option<Unique>,
}

impl NewStep {
    /// A step of this kind with no arguments and every default.
    #[must_use]
    pub fn new(kind: Kind) -> NewStep {
        NewStep {
            id: StepId::fresh(),
            kind,
            args: JsonText::empty_object(),
            metadata: JsonText::empty_object(),
            priority: 0,
            attempts_max: RETRIES_DEFAULT + 1,
            run_at: RunAt::Now,
            timeout_ms: None,
            unique: None,
        }
    }

    /// Bytes that count against the limit of one payload: kind, arguments and metadata as one
    /// JSON object `{"type":…,"args":…,"metadata":…}`.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        const FRAME_BYTES: usize = r#"{"type":"","args":,"metadata":}"#.len();
        FRAME_BYTES + self.kind.as_str().len() + self.args.len_bytes() + self.metadata.len_bytes()
    }

    /// Holds every limit of a step.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the first field that is past its limit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let wrong = |field, problem| Err(InvalidInput::new(field, problem));
        let bytes = self.payload_bytes();
        if bytes > PAYLOAD_BYTES_MAX {
            return wrong(
                "payload",
                format!("has {bytes} bytes, more than the limit of {PAYLOAD_BYTES_MAX}"),
            );
        }
        if !self.args.as_str().starts_with('{') {
            return wrong("args", "must be a JSON object".to_owned());
        }
        if !self.metadata.as_str().starts_with('{') {
            return wrong("metadata", "must be a JSON object".to_owned());
        }
        if self.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
            return wrong("priority", format!("must be from -{PRIORITY_MAX} to {PRIORITY_MAX}"));
        }
        if self.attempts_max == 0 || self.attempts_max > RETRIES_MAX + 1 {
            return wrong("max_retries", format!("must be from 0 to {RETRIES_MAX}"));
        }
        if matches!(self.run_at, RunAt::InMs(ms) if ms > DELAY_MS_MAX) {
            return wrong("delay_ms", format!("must be at most {DELAY_MS_MAX}"));
        }
        if self.timeout_ms.is_some_and(|ms| ms == 0 || ms > TIMEOUT_MS_MAX) {
            return wrong("timeout_ms", format!("must be from 1 to {TIMEOUT_MS_MAX}"));
        }
        match &self.unique {
            Some(unique) => check_key("unique_key", &unique.key),
            None => Ok(()),
        }
    }
}

/// Holds the limits of a unique key or an effect's key.
pub(crate) fn check_key(field: &'static str, key: &str) -> Result<(), InvalidInput> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0') {
        return Err(InvalidInput::new(
            field,
            format!("must be 1 to {KEY_BYTES_MAX} bytes without a zero byte"),
        ));
    }
    Ok(())
}

/// What became of one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The step that stands: the new one, or the one that was there.
    pub id: StepId,
    /// Where it stands now.
    pub state: StepState,
    /// Whether it was there before, by its id or its unique key.
    pub deduped: bool,
    /// Whether the one that was there has another kind or other arguments.
    pub differs: bool,
}

/// A step as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name for ever.
    pub id: StepId,
    /// What sort of work.
    pub kind: Kind,
    /// What the handler is given.
    pub args: JsonText,
    /// What goes along with it.
    pub metadata: JsonText,
    /// Where it stands.
    pub state: StepState,
    /// Larger is sooner.
    pub priority: i32,
    /// Claims so far.
    pub attempt: Attempt,
    /// Attempts that failed or lost their lease since it was submitted or last redriven.
    pub charged: u32,
    /// Attempts that may be charged before it is given up.
    pub attempts_max: u32,
    /// Longest run of one attempt, milliseconds.
    pub timeout_ms: Option<u64>,
    /// When it may run, or was first allowed to.
    pub run_at: UnixMs,
    /// Who holds the claim, or held the last one.
    pub claimed_by: Option<PodId>,
    /// Until when the claim holds unless renewed; only while claimed.
    pub lease_until: Option<StoreTime>,
    /// Whether the one who works on it was asked to stop.
    pub cancel_asked: bool,
    /// What the running attempt last said of itself.
    pub progress: Option<JsonText>,
    /// A caller's own name for it.
    pub unique: Option<Unique>,
    /// What it gave, when completed.
    pub result: Option<JsonText>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it was submitted.
    pub created_at: UnixMs,
    /// When its state last changed.
    pub updated_at: UnixMs,
    /// When it was finished.
    pub finished_at: Option<UnixMs>,
}

words!(
    /// How an attempt ended.
    AttemptEnd {
        /// It runs or waits in a pod.
        Open = 0 "open",
        /// The step is done.
        Completed = 1 "completed",
        /// The handler failed.
        Failed = 2 "failed",
        /// The lease ran out without a word.
        LeaseLost = 3 "lease_lost",
        /// Given back unstarted or at a drain; it does not count.
        Released = 4 "released",
        /// The step was called off.
        Cancelled = 5 "cancelled",
    }
);

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Which, from 1.
    pub attempt: Attempt,
    /// Who.
    pub pod: PodId,
    /// When it was claimed.
    pub claimed_at: UnixMs,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// How it ended.
    pub end: AttemptEnd,
    /// Why it failed.
    pub error: Option<String>,
}
