//! What goes wrong, in the one envelope: `{detail, error_type, timestamp, path}`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::IntoResponse;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tl_fleet::pod::LeftAlone;
use tl_fleet::{InvalidInput, StoreError};
use tl_types::UnixMs;

use crate::reply;

/// Seconds to wait before asking a database again that did not answer.
const AGAIN_S: u64 = 1;

/// The sort of a problem: what the caller does next. The words are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Correct the request.
    Validation,
    /// There is no such thing.
    NotFound,
    /// Ask somebody else.
    PermissionDenied,
    /// It is too late, or the wrong moment.
    Conflict,
    /// A fault of ours.
    Internal,
    /// The database: try again.
    Database,
}

impl Sort {
    pub(super) const ALL: [Sort; 6] = [
        Sort::Validation,
        Sort::NotFound,
        Sort::PermissionDenied,
        Sort::Conflict,
        Sort::Internal,
        Sort::Database,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Sort::Validation => "validation_error",
            Sort::NotFound => "not_found",
            Sort::PermissionDenied => "permission_denied",
            Sort::Conflict => "conflict",
            Sort::Internal => "internal_error",
            Sort::Database => "database_error",
        }
    }
}

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    sort: Sort,
    detail: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, sort: Sort, detail: impl Into<String>) -> Problem {
        Problem { status, sort, detail: detail.into(), retry_after_s: None }
    }

    /// The body is not of the right shape.
    pub(super) fn shape(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Sort::Validation, detail)
    }

    /// The shape is right and a value is not.
    pub(super) fn rule(invalid: &InvalidInput) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, Sort::Validation, invalid.to_string())
    }

    pub(super) fn too_large(limit_bytes: usize) -> Problem {
        let detail = format!("The body has more than {limit_bytes} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Sort::Validation, detail)
    }

    pub(super) fn method() -> Problem {
        let detail = "This path does not take this method";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, Sort::Validation, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, Sort::NotFound, detail)
    }

    pub(super) fn step_not_found(id: impl std::fmt::Display) -> Problem {
        Problem::not_found(format!("Step {id} not found"))
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, Sort::PermissionDenied, detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, Sort::Conflict, detail)
    }

    pub(super) fn fenced() -> Problem {
        Problem::conflict("This claim is lost: drop the work and report nothing")
    }

    fn database(detail: impl Into<String>, retry_after_s: u64) -> Problem {
        Problem {
            retry_after_s: Some(retry_after_s),
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, Sort::Database, detail)
        }
    }

    /// This pod has enough to do; others may not.
    pub(super) fn busy(detail: &str) -> Problem {
        Problem::database(format!("{detail}; nothing was done"), AGAIN_S)
    }

    /// There is no fleet behind the door yet.
    pub(super) fn waits(why: &str) -> Problem {
        Problem::database(format!("This pod waits for its database: {why}"), AGAIN_S)
    }

    pub(super) fn too_slow() -> Problem {
        let detail = "The request did not arrive, or was not answered, in time";
        Problem::new(StatusCode::REQUEST_TIMEOUT, Sort::Validation, detail)
    }

    /// The envelope.
    pub(super) fn response(&self, path: &str) -> Response<Body> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let body = json!({
            "detail": self.detail,
            "error_type": self.sort.word(),
            "timestamp": UnixMs(u64::try_from(now.as_millis()).unwrap_or(0)).to_string(),
            "path": path,
        });
        let mut response = reply::json(self.status, body.to_string());
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Only carried here; the envelope is made where the path is known.
    fn into_response(self) -> Response<Body> {
        let mut response = reply::empty(self.status);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<InvalidInput> for Problem {
    fn from(invalid: InvalidInput) -> Problem {
        Problem::rule(&invalid)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match &error {
            StoreError::Invalid(invalid) => Problem::rule(invalid),
            StoreError::Reaped => Problem::conflict(error.to_string()),
            StoreError::Busy { .. } => Problem::database(error.to_string(), AGAIN_S),
            StoreError::Unavailable { source } => {
                let after_s = match source.downcast_ref::<LeftAlone>() {
                    Some(left_alone) => left_alone.after_ms.div_ceil(1_000).max(AGAIN_S),
                    None => AGAIN_S,
                };
                Problem::database("The database does not answer; nothing was written", after_s)
            }
            StoreError::OutcomeUnknown { .. } => Problem::database(
                "The database went away before it confirmed; send the same request again",
                AGAIN_S,
            ),
            StoreError::Refused { .. } | StoreError::Schema { .. } => {
                Problem::database(error.to_string(), 30)
            }
            StoreError::Corrupt { .. } => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store is in trouble"
                );
                let detail = "The database holds something unreadable; the log says what";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Sort::Internal, detail)
            }
        }
    }
}
