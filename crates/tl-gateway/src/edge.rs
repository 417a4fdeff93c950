//! What happens to every request around its endpoint: limits of the line, preflights, panics,
//! leftovers of the body, cross-origin headers, counting.
//!
//! Logs and metrics name routes and paths, never queries: a query may carry a token.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tl_types::ErrorCode;
use tl_types::limits::URI_BYTES_MAX;

use crate::body::leave;
use crate::call::Call;
use crate::problem::Problem;
use crate::routes::{Route, dispatch};
use crate::shared::{Link, Shared};

/// The label of requests that reach no endpoint.
const UNMATCHED: &str = "unmatched";

/// Answers a request that reached a route, or a refusal of the router.
pub async fn answer(
    shared: Arc<Shared>,
    aim: Result<Route, ErrorCode>,
    request: Request<Body>,
) -> Response<Body> {
    let started = Instant::now();
    let _under_way = shared.metrics.request();
    let (mut parts, body) = request.into_parts();
    let method = method_label(&parts.method);
    let route = aim.map_or(UNMATCHED, |route| route.path);
    if let Some(response) = shared.origins.preflight(&parts.method, &parts.headers) {
        shared.metrics.answered(method, route, response.status().as_u16(), started.elapsed());
        return response;
    }
    let origin = parts.headers.get(header::ORIGIN).cloned();
    let link: Link = parts.extensions.remove().expect("every connection adds its link");
    let room = shared.bodies.room(body.size_hint().upper());
    let mut call = Call { shared, link, parts, body, begun: false, room, turn: None };

    let target = call.parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let outcome = match aim {
        _ if target > URI_BYTES_MAX => Err(Problem::new(
            ErrorCode::UriTooLong,
            format!("The request target has {target} bytes; the limit is {URI_BYTES_MAX}"),
        )
        .fact("limit", URI_BYTES_MAX as u64)),
        Err(code) => Err(Problem::of(code)),
        Ok(route) => match begin(route, &mut call) {
            Ok(()) => unpanicked(route, dispatch(route.endpoint, &mut call)).await,
            Err(problem) => Err(problem),
        },
    };
    let Call { shared, link, parts, body, begun, .. } = call;
    let mut response = outcome.unwrap_or_else(|problem| {
        shared.metrics.refused(problem.code());
        problem.reply()
    });
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if leave(&parts.headers, body, begun) && !is_upgraded {
        link.unread.leave();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    shared.origins.mark(origin.as_ref(), response.headers_mut());
    let (status, took) = (response.status().as_u16(), started.elapsed());
    shared.metrics.answered(method, route, status, took);
    tracing::debug!(method, path = parts.uri.path(), status, ?took, "answered");
    response
}

/// Takes a place among the requests that are worked on; what operators look at needs none.
fn begin(route: Route, call: &mut Call) -> Result<(), Problem> {
    if !route.endpoint.is_for_operators() {
        call.turn = Some(call.shared.turn()?);
    }
    Ok(())
}

/// A bug in one request is that request's failure; the connection and the node go on.
async fn unpanicked<T>(
    route: Route,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(method = route.method, route = route.path, "an endpoint panicked");
        Err(Problem::of(ErrorCode::InternalError))
    })
}

/// Methods as a bounded set of labels.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ROUTES;

    #[tokio::test]
    async fn a_panic_is_an_internal_error_of_one_request() {
        let problem = unpanicked::<()>(ROUTES[0], async { panic!("a bug") }).await;
        assert_eq!(problem, Err(Problem::of(ErrorCode::InternalError)));
    }

    #[test]
    fn invented_methods_share_one_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").expect("a token")), "other");
    }
}
