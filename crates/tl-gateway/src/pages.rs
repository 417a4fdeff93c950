//! The two pages for people: where to go from here, and the published description.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use crate::reply::typed;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// A page has everything in itself, and may load nothing but this node's own documents.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
);

/// `GET /`: links and first commands.
pub fn home() -> Response<Body> {
    page(include_str!("pages/home.html").replace("{{version}}", env!("CARGO_PKG_VERSION")))
}

/// `GET /docs`: a page that renders the description.
pub fn docs() -> Response<Body> {
    page(include_str!("pages/docs.html"))
}

fn page(text: impl Into<Body>) -> Response<Body> {
    let mut response = typed(StatusCode::OK, HTML, text.into());
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response
}
