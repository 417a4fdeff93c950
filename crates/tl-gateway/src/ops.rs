//! What operators ask over HTTP: `/v1/ops/…`.
//!
//! As long as there is no access control, only callers on this computer are answered, and what
//! changes something never comes from a web page: a page that somebody looks at here could
//! otherwise drain the node behind it.

use std::time::Duration;

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use tl_engine::service::{Awaited, WAIT_MAX};
use tl_types::{ErrorCode, GroupId};

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::json;

/// How long `wait-ready` and `wait-drained` wait when the caller does not say.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest name of a node in a request, bytes.
const NAME_BYTES_MAX: usize = 64;

/// Refuses callers who may not operate this node.
pub fn check_caller(is_local: bool, parts: &Parts) -> Result<(), Problem> {
    if !is_local {
        return Err(Problem::new(
            ErrorCode::OpsNotLocal,
            "This node has no access control, so it is operated from its own computer only: call \
             it there through a loopback address",
        ));
    }
    if parts.method != Method::GET && parts.headers.contains_key(header::ORIGIN) {
        return Err(Problem::new(
            ErrorCode::ForbiddenOrigin,
            "Web pages may not operate a node; use `tl ops`",
        ));
    }
    Ok(())
}

/// `GET /v1/ops/status`
pub async fn status(call: &mut Call) -> Result<Response<Body>, Problem> {
    answer(&call.shared.service.ops_status().await)
}

/// `GET /v1/ops/nodes`
pub async fn nodes(call: &mut Call) -> Result<Response<Body>, Problem> {
    let nodes = call.shared.service.ops_nodes().await;
    answer(&serde_json::json!({ "nodes": nodes }))
}

/// `GET /v1/ops/ready-nodes`
pub async fn ready_nodes(call: &mut Call) -> Result<Response<Body>, Problem> {
    let status = call.shared.service.ops_status().await;
    answer(&serde_json::json!({ "ready_nodes": status.observer.ready_nodes }))
}

/// `GET /v1/ops/groups`
pub async fn groups(call: &mut Call) -> Result<Response<Body>, Problem> {
    let groups = call.shared.service.ops_groups().await;
    answer(&serde_json::json!({ "groups": groups }))
}

/// `GET /v1/ops/groups/{id}`
pub async fn group(call: &mut Call) -> Result<Response<Body>, Problem> {
    let text = call.parts.uri.path().rsplit('/').next().unwrap_or_default();
    let group = text.parse().map(GroupId).map_err(|_| bad("The group must be a number"))?;
    answer(&call.shared.service.ops_group(group).await?)
}

/// The member that is meant; the node that is asked when none is named.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DrainRequest {
    node: Option<String>,
}

/// `POST /v1/ops/drain` and `/undrain`
pub async fn drain(call: &mut Call, on: bool) -> Result<Response<Body>, Problem> {
    let request: DrainRequest = body(call).await?.unwrap_or_default();
    let node = request.node.as_deref().map(name).transpose()?;
    answer(&call.shared.service.ops_drain(node, on).await?)
}

/// A group and who shall lead it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferRequest {
    group: u16,
    to: String,
}

/// `POST /v1/ops/transfer`
pub async fn transfer(call: &mut Call) -> Result<Response<Body>, Problem> {
    let missing = || bad("The body must be {\"group\": number, \"to\": name of a node}");
    let request: TransferRequest = body(call).await?.ok_or_else(missing)?;
    let TransferRequest { group, to } = request;
    answer(&call.shared.service.ops_transfer(GroupId(group), name(&to)?).await?)
}

/// A member whose disk is lost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceRequest {
    node: String,
    #[serde(default)]
    force: bool,
}

/// `POST /v1/ops/replace`
pub async fn replace(call: &mut Call) -> Result<Response<Body>, Problem> {
    let missing = || bad("The body must be {\"node\": name of a node}");
    let request: ReplaceRequest = body(call).await?.ok_or_else(missing)?;
    let ReplaceRequest { node, force } = request;
    answer(&call.shared.service.ops_replace(name(&node)?, force).await?)
}

/// A group, and the member that is meant; the node that is asked when none is named.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairRequest {
    group: u16,
    #[serde(default)]
    node: Option<String>,
}

/// `POST /v1/ops/repair`
pub async fn repair(call: &mut Call) -> Result<Response<Body>, Problem> {
    let missing = || bad("The body must be {\"group\": number, \"node\": name of a node}");
    let request: RepairRequest = body(call).await?.ok_or_else(missing)?;
    let node = request.node.as_deref().map(name).transpose()?;
    answer(&call.shared.service.ops_repair(GroupId(request.group), node).await?)
}

/// Nothing to say yet.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RaiseLevelRequest {}

/// `POST /v1/ops/raise-level`
pub async fn raise_level(call: &mut Call) -> Result<Response<Body>, Problem> {
    let RaiseLevelRequest {} = body(call).await?.unwrap_or_default();
    answer(&call.shared.service.ops_raise_level().await?)
}

/// `GET /v1/ops/wait-ready` and `/wait-drained`
pub async fn wait(call: &mut Call, awaited: Awaited) -> Result<Response<Body>, Problem> {
    let Asked { node, timeout } = asked(call.query())?;
    let service = &call.shared.service;
    let page = tokio::select! {
        page = service.ops_wait(node.as_deref(), awaited, timeout) => page?,
        // The server stops: whoever waits hears what became of it by asking again.
        () = call.shared.draining() => {
            return Err(Problem::new(ErrorCode::RaftUnavailable, "This node is stopping"));
        }
    };
    let word = match awaited {
        Awaited::Ready => "local_ready",
        Awaited::Drained => "local_drained",
    };
    let mut body = serde_json::json!({ "node": page.node, "state": page.state });
    if page.local {
        body[word] = true.into();
    }
    answer(&body)
}

/// What a wait is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    node: Option<String>,
    timeout: Duration,
}

fn asked(query: &str) -> Result<Asked, Problem> {
    let mut asked = Asked { node: None, timeout: WAIT_DEFAULT };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "node" => asked.node = Some(name(&value)?.to_owned()),
            "timeout_ms" => {
                let timeout = value.parse().map(Duration::from_millis);
                asked.timeout = timeout.ok().filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
                    bad(format!("timeout_ms must be from 0 to {}", WAIT_MAX.as_millis()))
                        .fact("limit", WAIT_MAX.as_millis() as u64)
                })?;
            }
            _ => {}
        }
    }
    Ok(asked)
}

fn name(text: &str) -> Result<&str, Problem> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    fits.then_some(text).ok_or_else(|| {
        bad(format!("The name of a node has from 1 to {NAME_BYTES_MAX} bytes"))
            .fact("limit", NAME_BYTES_MAX as u64)
    })
}

/// The body, if there is one.
async fn body<T: for<'a> Deserialize<'a>>(call: &mut Call) -> Result<Option<T>, Problem> {
    let bytes = call.read_json().await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| bad(format!("The body is not what this operation takes: {error}")))
}

fn bad(what: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(ErrorCode::InvalidOpsRequest, what)
}

fn answer(page: &impl Serialize) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(page).map_err(|error| {
        tracing::error!(%error, "a page for operators cannot be written");
        Problem::of(ErrorCode::InternalError)
    })?;
    Ok(json(StatusCode::OK, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(is_local: bool, method: &str, origin: Option<&str>) -> Option<ErrorCode> {
        let mut request = http::Request::builder().method(method).uri("/v1/ops/drain");
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        check_caller(is_local, &parts).err().map(|problem| problem.code())
    }

    #[test]
    fn only_this_computer_operates_and_no_web_page() {
        assert_eq!(refused(true, "POST", None), None);
        assert_eq!(refused(false, "GET", None), Some(ErrorCode::OpsNotLocal));
        let page = Some("https://example.com");
        assert_eq!(refused(true, "POST", page), Some(ErrorCode::ForbiddenOrigin));
        assert_eq!(refused(true, "GET", page), None, "looking changes nothing");
    }

    #[test]
    fn waits_have_a_limit_and_names_too() {
        let default = Asked { node: None, timeout: WAIT_DEFAULT };
        assert_eq!(asked(""), Ok(default));
        let both = Asked { node: Some("node-2".to_owned()), timeout: WAIT_MAX };
        assert_eq!(asked("node=node-2&timeout_ms=600000&else=1"), Ok(both));
        let long = format!("node={}", "n".repeat(NAME_BYTES_MAX));
        assert!(asked(&long).is_ok());
        let too_long = long + "n";
        for bad in
            ["timeout_ms=600001", "timeout_ms=-1", "timeout_ms=x", "node=", too_long.as_str()]
        {
            let problem = asked(bad).expect_err(bad);
            assert_eq!(problem.code(), ErrorCode::InvalidOpsRequest, "{bad}");
        }
    }
}
