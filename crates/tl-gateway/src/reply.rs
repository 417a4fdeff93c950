//! Replies: JSON with its length, the log index from which it can be read elsewhere, and the
//! guard of an append.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tl_engine::api::ReplyGuard;
use tl_types::Index;

use crate::held::{Held, HeldBody};

/// The log index from which every replica has what the reply speaks of.
pub const INDEX: HeaderName = HeaderName::from_static("x-throughline-index");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A JSON reply.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    typed(status, JSON, Body::from(body.into()))
}

/// A JSON reply whose body is one piece of memory.
pub fn whole_json(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    typed(status, JSON, body)
}

/// A reply of another content type.
pub fn typed<B>(status: StatusCode, content_type: HeaderValue, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// A reply without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A JSON reply whose events stay hidden from tails until its bytes are written.
pub fn held_json(
    status: StatusCode,
    body: Vec<u8>,
    guard: Option<ReplyGuard>,
    held: Arc<Held>,
) -> Response<Body> {
    match guard {
        None => json(status, body),
        Some(guard) => typed(status, JSON, Body::new(HeldBody::new(body.into(), guard, held))),
    }
}

/// Adds the index.
pub fn indexed(mut response: Response<Body>, index: Index) -> Response<Body> {
    response.headers_mut().insert(INDEX, HeaderValue::from(index.0));
    response
}
