//! Every route, once: the router and the published description are both made from [`ROUTES`].
//!
//! Routes are matched on the path as sent, before any decoding.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodFilter, MethodRouter};
use http::{Request, Response};
use tl_types::ErrorCode;

use crate::call::Call;
use crate::problem::Problem;
use crate::shared::Shared;
use crate::{append, edge, events, health, pages, profile, sessions, tail};

/// What a request reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operations")]
pub enum Endpoint {
    CreateSession,
    ListSessions,
    GetSession,
    UpdateSession,
    DeleteSession,
    Append,
    Archive,
    Unarchive,
    Close,
    Tail,
    Events,
    Live,
    Ready,
    Metrics,
    Profile,
    OpenApi,
    Docs,
    Home,
}

impl Endpoint {
    /// Whether success is told in JSON, which `Accept` must then admit.
    #[must_use]
    pub fn answers_json(self) -> bool {
        match self {
            Endpoint::Tail
            | Endpoint::Metrics
            | Endpoint::Profile
            | Endpoint::Docs
            | Endpoint::Home => false,
            Endpoint::CreateSession
            | Endpoint::ListSessions
            | Endpoint::GetSession
            | Endpoint::UpdateSession
            | Endpoint::DeleteSession
            | Endpoint::Append
            | Endpoint::Archive
            | Endpoint::Unarchive
            | Endpoint::Close
            | Endpoint::Events
            | Endpoint::Live
            | Endpoint::Ready
            | Endpoint::OpenApi => true,
        }
    }
}

impl Endpoint {
    /// Whether it says how the node is: answered also by a node that has too much to do.
    #[must_use]
    pub fn is_for_operators(self) -> bool {
        matches!(self, Endpoint::Live | Endpoint::Ready | Endpoint::Metrics | Endpoint::Profile)
    }
}

/// A method and a path template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// In capitals.
    pub method: &'static str,
    /// With `{id}` for a session id.
    pub path: &'static str,
    /// What answers.
    pub endpoint: Endpoint,
}

const fn route(method: &'static str, path: &'static str, endpoint: Endpoint) -> Route {
    Route { method, path, endpoint }
}

/// All of them.
pub const ROUTES: [Route; 18] = [
    route("POST", "/v1/sessions", Endpoint::CreateSession),
    route("GET", "/v1/sessions", Endpoint::ListSessions),
    route("GET", "/v1/sessions/{id}", Endpoint::GetSession),
    route("PATCH", "/v1/sessions/{id}", Endpoint::UpdateSession),
    route("DELETE", "/v1/sessions/{id}", Endpoint::DeleteSession),
    route("POST", "/v1/sessions/{id}/append", Endpoint::Append),
    route("POST", "/v1/sessions/{id}/archive", Endpoint::Archive),
    route("POST", "/v1/sessions/{id}/unarchive", Endpoint::Unarchive),
    route("POST", "/v1/sessions/{id}/close", Endpoint::Close),
    route("GET", "/v1/sessions/{id}/tail", Endpoint::Tail),
    route("GET", "/v1/sessions/{id}/events", Endpoint::Events),
    route("GET", "/health/live", Endpoint::Live),
    route("GET", "/health/ready", Endpoint::Ready),
    route("GET", "/metrics", Endpoint::Metrics),
    route("GET", "/debug/pprof/profile", Endpoint::Profile),
    route("GET", "/openapi.json", Endpoint::OpenApi),
    route("GET", "/docs", Endpoint::Docs),
    route("GET", "/", Endpoint::Home),
];

/// The router over one gateway's state.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let method = http::Method::from_bytes(route.method.as_bytes()).expect("a method");
        let filter = MethodFilter::try_from(method).expect("a method that routers know");
        let handler = handler(shared, Ok(route));
        router = router.route(route.path, MethodRouter::new().on(filter, handler));
    }
    router
        .method_not_allowed_fallback(handler(shared, Err(ErrorCode::MethodNotAllowed)))
        .fallback(handler(shared, Err(ErrorCode::NotFound)))
}

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

fn handler(
    shared: &Arc<Shared>,
    aim: Result<Route, ErrorCode>,
) -> impl Fn(Request<Body>) -> Answer + Clone + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move |request| Box::pin(edge::answer(Arc::clone(&shared), aim, request))
}

/// Calls the endpoint.
pub(crate) async fn dispatch(
    endpoint: Endpoint,
    call: &mut Call,
) -> Result<Response<Body>, Problem> {
    if endpoint.answers_json() {
        call.answers_json()?;
    }
    match endpoint {
        Endpoint::CreateSession => sessions::create(call).await,
        Endpoint::ListSessions => sessions::list(call).await,
        Endpoint::GetSession => sessions::get(call).await,
        Endpoint::UpdateSession => sessions::update(call).await,
        Endpoint::DeleteSession => sessions::delete(call).await,
        Endpoint::Append => append::append(call).await,
        Endpoint::Archive => sessions::set_archived(call, true).await,
        Endpoint::Unarchive => sessions::set_archived(call, false).await,
        Endpoint::Close => sessions::close(call).await,
        Endpoint::Tail => tail::open(call).await,
        Endpoint::Events => events::read(call).await,
        Endpoint::Live => Ok(health::live()),
        Endpoint::Ready => Ok(health::ready(call)),
        Endpoint::Metrics => Ok(health::metrics(call)),
        Endpoint::Profile => profile::take(call).await,
        Endpoint::OpenApi => Ok(health::openapi()),
        Endpoint::Docs => Ok(pages::docs()),
        Endpoint::Home => Ok(pages::home()),
    }
}
