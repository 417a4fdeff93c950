//! `GET /v1/sessions/:id/tail`: which front, from where.
//!
//! Checks in order: is an upgrade or an event stream wanted, may this origin, cursor, batch
//! size; then the Service: does the session exist, is there room for a tail.

mod event_stream;
pub(crate) mod frames;
mod handshake;
mod websocket;

use axum::body::Body;
use http::{HeaderValue, Method, Response, header};
use tl_types::ErrorCode;

use crate::call::Call;
use crate::headers::asks_for;
use crate::problem::Problem;

/// Opens a tail.
pub async fn open(call: &mut Call) -> Result<Response<Body>, Problem> {
    if call.parts.method == Method::GET && handshake::wanted(&call.parts.headers) {
        return websocket::open(call).await;
    }
    if asks_for(&call.parts.headers, "text", "event-stream") {
        return event_stream::open(call).await;
    }
    Err(Problem::new(
        ErrorCode::InvalidWebsocketUpgrade,
        "Ask for a WebSocket upgrade, or for an event stream with Accept: text/event-stream",
    )
    .header(header::UPGRADE, HeaderValue::from_static("websocket")))
}
