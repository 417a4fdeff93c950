//! How much the face holds at once: requests, their bodies, and their time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::IntoResponse;
use http::Response;
use http_body::Body as _;
use tokio::sync::Semaphore;

use super::BODY_BYTES_MAX;
use super::problem::Problem;

/// Requests that may be worked on at a time, those that wait for a result among them.
pub(super) const REQUESTS_MAX: usize = 1_024;
/// Bytes that all bodies under way may take together.
pub(super) const BODIES_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// Longest time of a request, the arrival of its body and a wait for a result included.
const REQUEST: Duration = Duration::from_secs(75);
/// These are answered whatever the load: they hold next to nothing.
const ALWAYS: [&str; 2] = ["/health/live", "/metrics"];

/// What is free.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Semaphore,
    bodies_kib: Semaphore,
}

impl Limits {
    pub(super) fn new() -> Arc<Limits> {
        Arc::new(Limits {
            requests: Semaphore::new(REQUESTS_MAX),
            bodies_kib: Semaphore::new(BODIES_BYTES_MAX / 1024),
        })
    }
}

/// Lets a request through when there is room for it and its body; else it is told to come again.
pub(super) async fn admit(
    State(limits): State<Arc<Limits>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if ALWAYS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Ok(_place) = limits.requests.try_acquire() else {
        return Problem::busy("This pod works on as many requests as it may").into_response();
    };
    // A body that does not say how long it is may become as long as any.
    let hint = request.body().size_hint().upper().unwrap_or(u64::MAX);
    let kib = hint.min(BODY_BYTES_MAX as u64).div_ceil(1024);
    let kib = u32::try_from(kib).expect("a body's limit in KiB fits");
    let Ok(_room) = limits.bodies_kib.try_acquire_many(kib) else {
        return Problem::busy("This pod holds as many bodies as it may").into_response();
    };
    match tokio::time::timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow().into_response(),
    }
}
