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
use crate::settings::{DISCARD_BYTES_MAX, DISCARD_MS};

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
        Ok(Ok(bytes)) => Ok(bytes),
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
    let expected = body.size_hint().lower() as usize;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Stop::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + first.len() + data.len() > BODY_BYTES_MAX {
            return Err(Stop::TooLarge);
        }
        // Once there is a second piece, the length that was promised is set aside at once.
        let reserved = if first.is_empty() && all.is_empty() { 0 } else { expected };
        if !room.grow((all.len() + first.len() + data.len()).max(reserved)) {
            return Err(Stop::NoRoom);
        }
        if first.is_empty() && all.is_empty() {
            // Most bodies come in one piece, which is then the whole without a copy.
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(expected.max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large() -> Problem {
    Problem::new(
        ErrorCode::PayloadTooLarge,
        format!("the body is larger than {BODY_BYTES_MAX} bytes: send less at once"),
    )
    .fact("limit", BODY_BYTES_MAX as u64)
}

/// Reads on and drops what a refused client still sends. Closing with unread bytes would reset
/// the connection, and the client would never see why. A client that waits to be told to
/// continue sends nothing and needs no such care.
pub fn discard(headers: &HeaderMap, mut body: Body) {
    let promised = body.size_hint().lower();
    if body.is_end_stream()
        || headers.contains_key(header::EXPECT)
        || promised > DISCARD_BYTES_MAX as u64
    {
        return;
    }
    tokio::spawn(timeout(Duration::from_millis(DISCARD_MS), async move {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    }));
}
