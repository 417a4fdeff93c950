//! One request on its way to an endpoint, and what most endpoints need from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;
use tl_engine::api::Caller;
use tl_types::limits::{FIELD_BYTES_MAX, REQUEST_MS_DEFAULT};
use tl_types::{ErrorCode, Namespace, Principal, RequestId, SessionId};
use xxhash_rust::xxh3::Xxh3;

use crate::body;
use crate::headers::{BodyKind, accepts, body_kind, is_encoded};
use crate::problem::Problem;
use crate::room::Room;
use crate::shared::{Link, Shared, Turn};

const NAMESPACE: HeaderName = HeaderName::from_static("x-throughline-namespace");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One request.
pub struct Call {
    /// The gateway's state.
    pub shared: Arc<Shared>,
    /// The connection it came on.
    pub link: Link,
    /// Line and headers.
    pub parts: Parts,
    /// Body, until taken.
    pub body: Body,
    /// Its reading has begun, whatever came of it.
    pub begun: bool,
    /// The body's part of what all bodies together may take; given back with the request.
    pub room: Room,
    /// Its place among the requests that are worked on; a request that only waits gives it back.
    pub turn: Option<Turn>,
}

impl Call {
    /// Who asks, where, until when. Without access control everybody is the node's one
    /// principal, whatever an `Authorization` header says.
    pub fn caller(&self) -> Result<Caller, Problem> {
        self.caller_waiting(Duration::ZERO)
    }

    /// The same for a request that may wait on purpose before its work begins.
    pub fn caller_waiting(&self, wait: Duration) -> Result<Caller, Problem> {
        let principal = Principal::open_access();
        let namespace = match self.parts.headers.get(NAMESPACE) {
            None => Namespace::default_namespace(),
            Some(value) => {
                value.to_str().ok().and_then(Namespace::new).ok_or_else(invalid_namespace)?
            }
        };
        let deadline = Instant::now() + wait + Duration::from_millis(REQUEST_MS_DEFAULT);
        Ok(Caller { principal, namespace, deadline, request_id: None })
    }

    /// The caller of a write that has no position or version of its own; it may carry the
    /// client's name for the request. The same key with another body is another request.
    pub fn writer(&self, body: &[u8]) -> Result<Caller, Problem> {
        let mut caller = self.caller()?;
        if let Some(key) = self.parts.headers.get(IDEMPOTENCY_KEY) {
            let key = key.as_bytes();
            if key.is_empty() || key.len() > FIELD_BYTES_MAX {
                return Err(Problem::new(
                    ErrorCode::InvalidSession,
                    format!("Idempotency-Key must have 1 to {FIELD_BYTES_MAX} bytes"),
                ));
            }
            let place = (&caller.principal.tenant, &caller.namespace);
            caller.request_id = Some(request_id(
                [place.0.as_str(), place.1.as_str(), self.parts.method.as_str()],
                self.parts.uri.path(),
                key,
                body,
            ));
        }
        Ok(caller)
    }

    /// The session id: the third segment of the path, decoded after routing, so that an encoded
    /// slash is part of it.
    pub fn session_id(&self) -> Result<SessionId, Problem> {
        let segment = self.parts.uri.path().split('/').nth(3).unwrap_or_default();
        Ok(tl_wire::query::session_id(segment)?)
    }

    /// The text behind the question mark.
    pub fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// Refuses callers that cannot read JSON.
    pub fn answers_json(&self) -> Result<(), Problem> {
        if accepts(&self.parts.headers, "application", "json") {
            return Ok(());
        }
        Err(Problem::of(ErrorCode::NotAcceptable))
    }

    /// Takes the body and its kind; an absent body has none.
    pub async fn read_body(&mut self) -> Result<(Bytes, Option<BodyKind>), Problem> {
        let kind = body_kind(&self.parts.headers);
        if kind.is_none() && !http_body::Body::is_end_stream(&self.body) {
            return Err(match is_encoded(&self.parts.headers) {
                true => Problem::new(
                    ErrorCode::UnsupportedMediaType,
                    "The body must not be compressed: send it without content-encoding",
                ),
                false => Problem::of(ErrorCode::UnsupportedMediaType),
            });
        }
        let limit = Duration::from_millis(self.shared.settings.body_read_ms);
        self.begun = true;
        Ok((body::read(&mut self.body, limit, &mut self.room).await?, kind))
    }

    /// Takes a JSON body; lines are refused.
    pub async fn read_json(&mut self) -> Result<Bytes, Problem> {
        match self.read_body().await? {
            (bytes, Some(BodyKind::Json) | None) => Ok(bytes),
            (_, Some(BodyKind::Lines)) => Err(Problem::of(ErrorCode::UnsupportedMediaType)),
        }
    }
}

fn invalid_namespace() -> Problem {
    Problem::new(
        ErrorCode::InvalidNamespace,
        "x-throughline-namespace must have 1 to 64 ASCII letters, digits, or -_.",
    )
}

/// The same key on another place, method or path, or with another body, names another request.
fn request_id(place: [&str; 3], path: &str, key: &[u8], body: &[u8]) -> RequestId {
    let mut hash = Xxh3::new();
    for part in place.map(str::as_bytes).into_iter().chain([path.as_bytes(), key, body]) {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    RequestId(hash.digest128().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_names_key_place_and_path() {
        let id = |place, path, key: &str| request_id(place, path, key.as_bytes(), b"{}");
        let place = ["default", "default", "POST"];
        let one = id(place, "/v1/sessions", "k");
        assert_eq!(one, id(place, "/v1/sessions", "k"));
        let others = [
            id(place, "/v1/sessions", "l"),
            id(place, "/v1/sessions/x/append", "k"),
            id(["default", "other", "POST"], "/v1/sessions", "k"),
            id(["default", "defaultPO", "ST"], "/v1/sessions", "k"),
        ];
        assert!(others.iter().all(|other| *other != one));
        assert_ne!(request_id(place, "/v1/sessions", b"k", b"{ }"), one);
    }
}
