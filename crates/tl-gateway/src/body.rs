//! Reading a request's body: never more than the limit, never longer than the deadline.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tl_types::ErrorCode;
use tl_types::limits::BODY_BYTES_MAX;
use tokio::time::timeout;

use crate::problem::Problem;
use crate::room::Room;
use crate::settings::{LINGER_MS, SKIPPED_BYTES_MAX};

/// Reads the whole body.
///
/// # Errors
/// `event_store_backpressure` when all bodies together have no room for this one,
/// `payload_too_large` as soon as the length says so or the bytes pass the limit,
/// `request_timeout` when they do not arrive in time.
pub async fn read(body: &mut Body, limit: Duration, room: &mut Room) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match timeout(limit, collect(body, room)).await {
        Ok(Ok(bytes)) => {
            // Nothing is left of it, which a body without a length does not say by itself.
            *body = Body::empty();
            Ok(bytes)
        }
        Ok(Err(Stop::NoRoom)) => Err(Problem::new(
            ErrorCode::EventStoreBackpressure,
            "This node holds as many request bodies as it may; repeat the request after the wait",
        )),
        Ok(Err(Stop::TooLarge)) => Err(too_large()),
        // The peer left in the middle, or broke the framing: nobody can be told.
        Ok(Err(Stop::Broken)) => {
            Err(Problem::new(ErrorCode::InvalidJson, "The body ended before it was complete"))
        }
        Err(_) => Err(Problem::new(
            ErrorCode::RequestTimeout,
            "The body did not arrive in time: send it in one go",
        )
        .header(header::CONNECTION, HeaderValue::from_static("close"))),
    }
}

enum Stop {
    NoRoom,
    TooLarge,
    Broken,
}

async fn collect(body: &mut Body, room: &mut Room) -> Result<Bytes, Stop> {
    // Nothing is read before all that was promised has its room: a body that is refused then
    // costs no more than its head.
    let promised = body.size_hint().lower() as usize;
    if !room.grow(promised) {
        return Err(Stop::NoRoom);
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Stop::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = all.len() + data.len();
        if bytes > BODY_BYTES_MAX {
            return Err(Stop::TooLarge);
        }
        if all.is_empty() && bytes == promised {
            // Most bodies come in one piece, which is then the whole without a copy.
            return Ok(data);
        }
        if !room.grow(bytes) {
            return Err(Stop::NoRoom);
        }
        // A piece is a slice of the connection's buffer, which is held as long as the piece.
        all.reserve(promised.saturating_sub(all.len()).max(data.len()));
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

fn too_large() -> Problem {
    Problem::new(
        ErrorCode::PayloadTooLarge,
        format!("the body is larger than {BODY_BYTES_MAX} bytes: send less at once"),
    )
    .fact("limit", BODY_BYTES_MAX as u64)
}

/// What becomes of a body that was not read because its request is answered already.
///
/// Closing with unread bytes would reset the connection, and the client would never see why. So
/// a short rest is read and dropped, and the connection goes on; behind a long one the connection
/// ends, and whatever still comes is dropped at the socket. A client that waits to be told to
/// continue, and was not told, as reading has not `begun`, sends nothing and needs no such care.
/// True when the connection has to end.
pub fn leave(headers: &HeaderMap, mut body: Body, begun: bool) -> bool {
    if body.is_end_stream() || (headers.contains_key(header::EXPECT) && !begun) {
        return false;
    }
    let rest = body.size_hint();
    if rest.upper().is_none_or(|bytes| bytes > SKIPPED_BYTES_MAX) {
        return true;
    }
    tokio::spawn(timeout(Duration::from_millis(LINGER_MS), async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
    false
}
