//! What SQLite said, sorted by what the caller does next.

use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::error::{InvalidInput, StoreError};

/// Why a statement or a row could not be dealt with.
#[derive(Debug)]
pub(super) enum Fault {
    /// The library said so.
    Sql(rusqlite::Error),
    /// A row holds what was never written there.
    Unreadable(&'static str),
}

impl Fault {
    pub(super) fn unreadable(what: &'static str) -> Fault {
        Fault::Unreadable(what)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<InvalidInput> for Fault {
    /// Names that come out of a row were checked on their way in.
    fn from(error: InvalidInput) -> Fault {
        Fault::Unreadable(error.field)
    }
}

/// For the files beside the database, and its threads: nothing has been written.
pub(super) fn io_error(error: std::io::Error) -> StoreError {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let is_refused =
        matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull);
    let source = Arc::new(error);
    match is_refused {
        true => StoreError::Refused { source },
        false => StoreError::Unavailable { source },
    }
}

/// For statements before the commit: nothing has been written.
pub(super) fn store_error(fault: Fault) -> StoreError {
    let error = match fault {
        Fault::Sql(error) => error,
        Fault::Unreadable(what) => {
            return StoreError::Corrupt { what: what.to_owned(), source: None };
        }
    };
    let code = error.sqlite_error_code();
    let source = Arc::new(error);
    match code {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => StoreError::Refused { source },
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed,
        ) => StoreError::Unavailable { source },
        _ => {
            StoreError::Corrupt { what: "the file or its tables".to_owned(), source: Some(source) }
        }
    }
}

/// For the commit itself: a failed write or sync leaves the outcome open.
pub(super) fn commit_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) => StoreError::OutcomeUnknown { source: Arc::new(error) },
        _ => store_error(Fault::Sql(error)),
    }
}
