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
use tl_engine::service::Awaited;
use tl_types::ErrorCode;

use crate::call::Call;
use crate::problem::Problem;
use crate::shared::Shared;
use crate::{append, edge, events, health, ops, pages, profile, sessions, tail};

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
    OpsStatus,
    OpsNodes,
    OpsReadyNodes,
    OpsGroups,
    OpsGroup,
    OpsWaitReady,
    OpsDrain,
    OpsWaitDrained,
    OpsUndrain,
    OpsTransfer,
    OpsReplace,
    OpsRepair,
    OpsRaiseLevel,
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
            | Endpoint::OpsStatus
            | Endpoint::OpsNodes
            | Endpoint::OpsReadyNodes
            | Endpoint::OpsGroups
            | Endpoint::OpsGroup
            | Endpoint::OpsWaitReady
            | Endpoint::OpsDrain
            | Endpoint::OpsWaitDrained
            | Endpoint::OpsUndrain
            | Endpoint::OpsTransfer
            | Endpoint::OpsReplace
            | Endpoint::OpsRepair
            | Endpoint::OpsRaiseLevel
            | Endpoint::OpenApi => true,
        }
    }
}

impl Endpoint {
    /// Whether it says or changes how the node is: answered also by a node that has too much to
    /// do.
    #[must_use]
    pub fn is_for_operators(self) -> bool {
        self.is_ops()
            || matches!(
                self,
                Endpoint::Live | Endpoint::Ready | Endpoint::Metrics | Endpoint::Profile
            )
    }

    /// Whether only callers on this computer may use it, as long as there is no access control.
    #[must_use]
    pub fn is_ops(self) -> bool {
        matches!(
            self,
            Endpoint::OpsStatus
                | Endpoint::OpsNodes
                | Endpoint::OpsReadyNodes
                | Endpoint::OpsGroups
                | Endpoint::OpsGroup
                | Endpoint::OpsWaitReady
                | Endpoint::OpsDrain
                | Endpoint::OpsWaitDrained
                | Endpoint::OpsUndrain
                | Endpoint::OpsTransfer
                | Endpoint::OpsReplace
                | Endpoint::OpsRepair
                | Endpoint::OpsRaiseLevel
        )
    }
}

/// A method and a path template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// In capitals.
    pub method: &'static str,
    /// With `{id}` for a session id or a group.
    pub path: &'static str,
    /// What answers.
    pub endpoint: Endpoint,
}

const fn route(method: &'static str, path: &'static str, endpoint: Endpoint) -> Route {
    Route { method, path, endpoint }
}

/// All of them.
pub const ROUTES: [Route; 31] = [
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
    route("GET", "/v1/ops/status", Endpoint::OpsStatus),
    route("GET", "/v1/ops/nodes", Endpoint::OpsNodes),
    route("GET", "/v1/ops/ready-nodes", Endpoint::OpsReadyNodes),
    route("GET", "/v1/ops/groups", Endpoint::OpsGroups),
    route("GET", "/v1/ops/groups/{id}", Endpoint::OpsGroup),
    route("GET", "/v1/ops/wait-ready", Endpoint::OpsWaitReady),
    route("POST", "/v1/ops/drain", Endpoint::OpsDrain),
    route("GET", "/v1/ops/wait-drained", Endpoint::OpsWaitDrained),
    route("POST", "/v1/ops/undrain", Endpoint::OpsUndrain),
    route("POST", "/v1/ops/transfer", Endpoint::OpsTransfer),
    route("POST", "/v1/ops/replace", Endpoint::OpsReplace),
    route("POST", "/v1/ops/repair", Endpoint::OpsRepair),
    route("POST", "/v1/ops/raise-level", Endpoint::OpsRaiseLevel),
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
    if endpoint.is_ops() {
        ops::check_caller(call.link.place.is_local, &call.parts)?;
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
        Endpoint::OpsStatus => ops::status(call).await,
        Endpoint::OpsNodes => ops::nodes(call).await,
        Endpoint::OpsReadyNodes => ops::ready_nodes(call).await,
        Endpoint::OpsGroups => ops::groups(call).await,
        Endpoint::OpsGroup => ops::group(call).await,
        Endpoint::OpsWaitReady => ops::wait(call, Awaited::Ready).await,
        Endpoint::OpsDrain => ops::drain(call, true).await,
        Endpoint::OpsWaitDrained => ops::wait(call, Awaited::Drained).await,
        Endpoint::OpsUndrain => ops::drain(call, false).await,
        Endpoint::OpsTransfer => ops::transfer(call).await,
        Endpoint::OpsReplace => ops::replace(call).await,
        Endpoint::OpsRepair => ops::repair(call).await,
        Endpoint::OpsRaiseLevel => ops::raise_level(call).await,
        Endpoint::OpenApi => Ok(health::openapi()),
        Endpoint::Docs => Ok(pages::docs()),
        Endpoint::Home => Ok(pages::home()),
    }
}
