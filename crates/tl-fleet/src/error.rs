//! Why something could not be done, sorted by what the caller does next.

use std::sync::Arc;

/// One field of a request is wrong; the same request will never be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidInput {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it, to be read after the field's name.
    pub problem: String,
}

impl InvalidInput {
    /// Names a field and what is wrong with it.
    pub fn new(field: &'static str, problem: impl Into<String>) -> InvalidInput {
        InvalidInput { field, problem: problem.into() }
    }

    pub(crate) fn step_id() -> InvalidInput {
        InvalidInput::new("step_id", "must be a UUID in its usual form")
    }
}

/// What the driver said, shared because one failure may end many calls.
type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a store did not do what was asked.
///
/// Every write may be repeated after any of these: submissions carry their ids, and what is
/// done to a claim carries its token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The request itself is wrong; never repeat it.
    #[error("invalid request: {0}")]
    Invalid(#[from] InvalidInput),

    /// The pod's life has ended: drop its work, register again.
    #[error("this incarnation of the pod was reaped or has let its lease run out")]
    Reaped,

    /// The database is away or too slow; nothing was written. Try again after a wait.
    #[error("the database does not answer")]
    Unavailable {
        /// What the driver said.
        source: Cause,
    },

    /// The connection ended while writing: it may have happened or not. Repeat the same write.
    #[error("the database went away before it confirmed")]
    OutcomeUnknown {
        /// What the driver said.
        source: Cause,
    },

    /// Too many calls wait for this store already; nothing was written. Try again after a wait.
    #[error("{waiting} calls wait for the database already, the limit")]
    Busy {
        /// How many wait.
        waiting: usize,
    },

    /// The database takes no writes (full disk, read-only, missing rights); an operator must
    /// look. Nothing was written.
    #[error("the database refuses writes")]
    Refused {
        /// What the driver said.
        source: Cause,
    },

    /// The tables are of another version than this program; an operator must migrate or
    /// update.
    #[error("the database has schema version {found}, this program needs {wanted}")]
    Schema {
        /// What the database holds; 0 when there are no tables.
        found: u64,
        /// What this program works with.
        wanted: u64,
    },

    /// What the database holds cannot be read, or it refused a statement that must work.
    #[error("the database holds something unreadable: {what}")]
    Corrupt {
        /// Where.
        what: String,
        /// What the driver said, when it was the driver.
        source: Option<Cause>,
    },
}

impl StoreError {
    /// Whether the database as a whole is in trouble, so that a breaker should count it.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            StoreError::Unavailable { .. }
            | StoreError::OutcomeUnknown { .. }
            | StoreError::Refused { .. }
            | StoreError::Schema { .. }
            | StoreError::Corrupt { .. } => true,
            StoreError::Invalid(_) | StoreError::Reaped | StoreError::Busy { .. } => false,
        }
    }
}
