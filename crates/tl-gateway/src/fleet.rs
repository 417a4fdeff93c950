//! The HTTP face of a fleet, over one `FleetService`.
//!
//! ```text
//!   request ──> door ──> route ──> endpoint ──> FleetService ──> reply
//!                                     └── Problem ──> envelope {detail, error_type, timestamp, path}
//! ```
//!
//! Two sets of endpoints: short ones that say what a fleet is and how it does (`/submit`,
//! `/status`, `/admin/…`), and `/v1`, which can do everything. `/health/live` never asks the
//! database; `/health` and `/health/ready` do, and say 503 when it is away.
//!
//! Absent on purpose: access control, and so it listens beyond this machine only when forced.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::routing::{get, post};
use http::{Response, StatusCode};
use tl_fleet::FleetService;
use tl_fleet::limits::BATCH_BYTES_MAX;
use tokio::net::TcpListener;

use self::problem::Problem;

mod ask;
mod classic;
mod exposition;
mod limits;
mod openapi;
mod pods;
mod problem;
mod replies;
mod serve;
mod shapes;
mod steps;
mod workers;

pub use openapi::document as openapi_document;
pub use serve::{ConnectionLimits, Door, serve};
pub use shapes::{
    PodShape, StepShape, attempt as attempt_json, dead_letter as dead_letter_json,
    submitted as submitted_json,
};

/// Largest body: a batch at its limit, with room for what stands around its items.
const BODY_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) service: Arc<FleetService>,
    pub(crate) started: Instant,
}

type Shared = State<Arc<Face>>;
type Reply = Result<Response<Body>, Problem>;

/// A way to one endpoint, as the description lists it too.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("POST", "/submit"),
    ("GET", "/status/{step_id}"),
    ("GET", "/idempotency/{step_id}"),
    ("GET", "/admin/queue"),
    ("GET", "/admin/leader"),
    ("POST", "/admin/recovery/run"),
    ("POST", "/v1/steps"),
    ("GET", "/v1/steps"),
    ("POST", "/v1/steps/batch"),
    ("POST", "/v1/steps/claim"),
    ("GET", "/v1/steps/{step_id}"),
    ("GET", "/v1/steps/{step_id}/attempts"),
    ("GET", "/v1/steps/{step_id}/result"),
    ("POST", "/v1/steps/{step_id}/cancel"),
    ("POST", "/v1/steps/{step_id}/retry"),
    ("POST", "/v1/steps/{step_id}/renew"),
    ("POST", "/v1/steps/{step_id}/complete"),
    ("POST", "/v1/steps/{step_id}/fail"),
    ("POST", "/v1/steps/{step_id}/release"),
    ("GET", "/v1/dead-letters"),
    ("POST", "/v1/dead-letters/{step_id}/retry"),
    ("GET", "/v1/pods"),
];

/// The router over a service.
pub fn router(service: Arc<FleetService>) -> Router {
    let face = Arc::new(Face { service, started: Instant::now() });
    let limits = limits::Limits::new();
    Router::new()
        .route("/", get(classic::home))
        .route("/health", get(classic::health))
        .route("/health/live", get(classic::live))
        .route("/health/ready", get(classic::ready))
        .route("/metrics", get(exposition::metrics))
        .route("/openapi.json", get(openapi::get))
        .route("/submit", post(classic::submit))
        .route("/status/{step_id}", get(classic::status))
        .route("/idempotency/{step_id}", get(classic::idempotency))
        .route("/admin/queue", get(classic::queue))
        .route("/admin/leader", get(classic::leader))
        .route("/admin/recovery/run", post(classic::recover))
        .route("/v1/steps", post(steps::submit).get(steps::list))
        .route("/v1/steps/batch", post(steps::batch))
        .route("/v1/steps/claim", post(workers::claim))
        .route("/v1/steps/{step_id}", get(steps::get))
        .route("/v1/steps/{step_id}/attempts", get(steps::attempts))
        .route("/v1/steps/{step_id}/result", get(steps::result))
        .route("/v1/steps/{step_id}/cancel", post(steps::cancel))
        .route("/v1/steps/{step_id}/retry", post(steps::retry))
        .route("/v1/steps/{step_id}/renew", post(workers::renew))
        .route("/v1/steps/{step_id}/complete", post(workers::complete))
        .route("/v1/steps/{step_id}/fail", post(workers::fail))
        .route("/v1/steps/{step_id}/release", post(workers::release))
        .route("/v1/dead-letters", get(steps::dead_letters))
        .route("/v1/dead-letters/{step_id}/retry", post(steps::retry))
        .route("/v1/pods", get(pods::list))
        .fallback(|| async { Problem::not_found("There is nothing at this path") })
        .method_not_allowed_fallback(|| async { Problem::method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(limits, limits::admit))
        .layer(from_fn(envelope))
        .with_state(face)
}

/// Puts the path and the time around whatever went wrong.
async fn envelope(request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.response(&path),
        // What the router itself refuses.
        None if response.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::too_large(BODY_BYTES_MAX).response(&path)
        }
        None => response,
    }
}

/// Why a fleet's face could not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetFaceError {
    /// It would be open to other machines without access control.
    #[error(
        "{0} is open to other machines, and there is no access control yet; force it if something in front guards it"
    )]
    Open(SocketAddr),
    /// Choose another address, or end what holds it.
    #[error("failed to listen on {listen}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Listens; beyond this machine only when forced.
///
/// # Errors
/// [`FleetFaceError`].
pub async fn listen(address: SocketAddr, forced: bool) -> Result<TcpListener, FleetFaceError> {
    if !address.ip().is_loopback() && !forced {
        return Err(FleetFaceError::Open(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| FleetFaceError::Listen { listen: address, source })
}
