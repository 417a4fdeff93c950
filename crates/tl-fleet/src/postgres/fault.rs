//! What Postgres said, sorted by what the caller does next.

use std::io;
use std::sync::Arc;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::schema::SCHEMA_VERSION;
use crate::error::{InvalidInput, StoreError};

/// Raised by our functions when a pod's life has ended.
const REAPED: &str = "TLF01";

/// Whether a call that failed may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// It changes nothing.
    Read,
    /// It does, in one transaction.
    Write,
}

/// Two transactions waited for each other or met on a row, and the database ended this one
/// whole: it may be run again at once.
pub(super) fn may_run_again(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(code)
            if *code == SqlState::T_R_DEADLOCK_DETECTED
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
    )
}

pub(super) fn store_error(call: Call, error: Error) -> StoreError {
    let Some(code) = error.code().map(|code| code.code().to_owned()) else {
        // Not a word from the database: the connection ended, or what it said was unreadable.
        let source = Arc::new(error);
        return match call {
            Call::Read => StoreError::Unavailable { source },
            Call::Write => StoreError::OutcomeUnknown { source },
        };
    };
    let source = Arc::new(error);
    match code.as_str() {
        REAPED => StoreError::Reaped,
        // Missing tables or functions: nobody has migrated, or somebody has gone back.
        "42P01" | "42883" | "3F000" | "42703" => {
            StoreError::Schema { found: 0, wanted: SCHEMA_VERSION }
        }
        // Read-only, full, not allowed, no such database or role.
        "25006" | "53100" | "42501" | "3D000" => StoreError::Refused { source },
        // The session is ended by an operator or a crash, perhaps after the commit.
        "57P01" | "57P02" | "57P05" => match call {
            Call::Read => StoreError::Unavailable { source },
            Call::Write => StoreError::OutcomeUnknown { source },
        },
        code if code.starts_with("28") => StoreError::Refused { source },
        // Connection trouble, resources, time limits, still starting, deadlocks that came again.
        code if ["08", "53", "55", "57", "58", "40"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            StoreError::Unavailable { source }
        }
        _ => StoreError::Corrupt {
            what: "a statement that must work was refused".to_owned(),
            source: Some(source),
        },
    }
}

/// While connecting, nothing has been sent that could have an outcome.
pub(super) fn connect_error(error: Error) -> StoreError {
    store_error(Call::Read, error)
}

pub(super) fn timed_out(call: Call) -> StoreError {
    let source = Arc::new(io::Error::from(io::ErrorKind::TimedOut));
    match call {
        Call::Read => StoreError::Unavailable { source },
        Call::Write => StoreError::OutcomeUnknown { source },
    }
}

/// An error that was met behind the commit: whoever called is told that it may have happened.
pub(super) fn done_but(error: StoreError) -> StoreError {
    StoreError::OutcomeUnknown { source: Arc::new(io::Error::other(error.to_string())) }
}

/// A row that was never written so.
pub(super) fn unreadable(what: &str) -> StoreError {
    StoreError::Corrupt { what: what.to_owned(), source: None }
}

pub(super) fn wrong_type(error: Error) -> StoreError {
    StoreError::Corrupt { what: "a column".to_owned(), source: Some(Arc::new(error)) }
}

/// Names that come out of a row were checked on their way in.
pub(super) fn wrong_name(error: InvalidInput) -> StoreError {
    unreadable(error.field)
}
