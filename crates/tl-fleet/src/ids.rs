//! Names of steps, claims and pods as newtypes, so that one is never passed for another.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::error::InvalidInput;
use crate::limits::POD_ID_BYTES_MAX;

/// Names one step for ever: a UUID, version 7 unless the submitter brought one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub Uuid);

impl StepId {
    /// A fresh id; later ones of one process sort behind earlier ones.
    #[must_use]
    pub fn fresh() -> StepId {
        StepId(Uuid::now_v7())
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for StepId {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<StepId, InvalidInput> {
        // Only the usual form, so that one id has one spelling but for upper case.
        if text.len() != 36 {
            return Err(InvalidInput::step_id());
        }
        Uuid::try_parse(text).map(StepId).map_err(|_| InvalidInput::step_id())
    }
}

/// Proves one claim of one step: random, made anew by every claim. Who has lost the claim has
/// the wrong token, whatever name it goes by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimToken(pub Uuid);

impl ClaimToken {
    /// A token that nobody has.
    #[must_use]
    pub fn fresh() -> ClaimToken {
        ClaimToken(Uuid::new_v4())
    }
}

impl fmt::Debug for ClaimToken {
    /// A token is a secret of its holder and does not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimToken(…)")
    }
}

/// The name of a pod or of a pull worker. A restarted process may bear it again, so nothing is
/// guarded by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId(String);

impl PodId {
    /// # Errors
    /// [`InvalidInput`] when the name is empty, longer than [`POD_ID_BYTES_MAX`] or holds
    /// anything but letters, digits and `-_.:`.
    pub fn new(name: impl Into<String>) -> Result<PodId, InvalidInput> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if name.is_empty() || name.len() > POD_ID_BYTES_MAX || !name.bytes().all(plain) {
            return Err(InvalidInput::new(
                "pod_id",
                format!("must be 1 to {POD_ID_BYTES_MAX} letters, digits or any of `-_.:`"),
            ));
        }
        Ok(PodId(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counted!(
    /// One life of a pod, given out by the store at registration: larger than every earlier
    /// one of any pod. A reaped incarnation can never write again.
    Incarnation
);
counted!(
    /// Fencing number of leadership: one larger with every new leader, never back.
    Epoch
);
counted!(
    /// Claims of a step so far, from 1 at the first. It never goes back, so it is a fencing
    /// number that a handler may pass to other systems.
    Attempt
);

/// A pod in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodLife {
    /// Its name.
    pub pod: PodId,
    /// Which life.
    pub incarnation: Incarnation,
}
