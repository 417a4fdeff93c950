//! The tail as server-sent events.
//!
//! ```text
//! id: 42            id: 50                     event: end                : 42
//! event: event      event: gap                 data: {"type":"end",…}    (heartbeat)
//! data: {…}         data: {"type":"gap",…}
//! ```
//!
//! The body is pulled: events are taken from the tail when hyper has room for them, and the
//! socket's stall limit ends a reader that takes nothing. A reader that reconnects sends
//! `Last-Event-ID`, which wins over `cursor` and `from`. When the server stops, the stream just
//! ends, and readers come back with their last id.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tl_engine::api::{EventLine, Gap, TailEnd, TailItem};
use tl_engine::service::Tail;
use tl_types::Seq;
use tl_wire::query::TailQuery;
use tl_wire::reply::{SessionState, end_json, gap_json};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::call::Call;
use crate::metrics::Front;
use crate::problem::Problem;
use crate::reply;
use crate::settings::TAIL_TAKE_MAX;
use crate::shared::{Phase, Place, TailPlace};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Keeps proxies that buffer replies from holding events back.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Opens the tail and answers with its stream.
pub async fn open(call: &mut Call) -> Result<Response<Body>, Problem> {
    let mut query = TailQuery::parse(call.query())?;
    if let Some(id) = call.parts.headers.get(LAST_EVENT_ID) {
        query = query.resume_after(&String::from_utf8_lossy(id.as_bytes()))?;
    }
    let id = call.session_id()?;
    let caller = call.caller()?;
    let place = call.shared.tail(Front::EventStream)?;
    let service = &call.shared.service;
    let mut tail = service.open_tail(&caller, &id, query.start, query.freshness).await?;
    tail.report_gaps(true);
    let wait = Duration::from_millis(call.shared.settings.heartbeat_ms);
    let mut heartbeat = interval_at(Instant::now() + wait, wait);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower {
        tail,
        heartbeat,
        phase: call.shared.phase.subscribe(),
        ended: false,
        connection: Arc::clone(&call.link.place),
        place,
    };
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    let content_type = HeaderValue::from_static("text/event-stream");
    let mut response = reply::typed(StatusCode::OK, content_type, Body::from_stream(chunks));
    response.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// One open stream.
struct Follower {
    tail: Tail,
    heartbeat: Interval,
    phase: watch::Receiver<Phase>,
    ended: bool,
    #[expect(dead_code, reason = "counts the connection as open")]
    connection: Arc<Place>,
    #[expect(dead_code, reason = "counts the tail as open")]
    place: TailPlace,
}

impl Follower {
    /// The next bytes of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended || *self.phase.borrow_and_update() >= Phase::Draining {
            return None;
        }
        let item = tokio::select! {
            _ = self.phase.changed() => return None,
            _ = self.heartbeat.tick() => return Some(heartbeat(self.tail.last_seq())),
            item = self.tail.next(TAIL_TAKE_MAX) => item,
        };
        match item {
            Ok(TailItem::Events(lines)) => Some(events(&lines)),
            Ok(TailItem::Gap(gap)) => Some(gap_event(&gap)),
            Ok(TailItem::End(end)) => {
                self.ended = true;
                end_event(end, self.tail.last_seq())
            }
            Err(error) => {
                tracing::warn!(%error, "an event stream ended early");
                None
            }
        }
    }
}

fn heartbeat(last_seq: Seq) -> Bytes {
    format!(": {last_seq}\n\n").into()
}

fn events(lines: &[EventLine]) -> Bytes {
    let json: usize = lines.iter().map(|line| line.json.len()).sum();
    let mut out = Vec::with_capacity(json + lines.len() * 48);
    for line in lines {
        // Writing to a `Vec` cannot fail.
        let _ = write!(out, "id: {}\nevent: event\ndata: ", line.seq);
        out.extend_from_slice(&line.json);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

/// The id makes a reader that reconnects go on where the tail went on.
fn gap_event(gap: &Gap) -> Bytes {
    let mut out = format!("id: {}\nevent: gap\ndata: ", gap.next_cursor).into_bytes();
    gap_json(&mut out, gap);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// Only a session's own end is told; a server that stops says nothing, so that readers return.
fn end_event(end: TailEnd, last_seq: Seq) -> Option<Bytes> {
    let state = match end {
        TailEnd::Closed => SessionState::Closed,
        TailEnd::Tombstoned => SessionState::Tombstoned,
        TailEnd::Shutdown => return None,
    };
    let mut out = b"event: end\ndata: ".to_vec();
    end_json(&mut out, state, last_seq);
    out.extend_from_slice(b"\n\n");
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_gaps_and_ends_are_written_as_readers_expect() {
        let line = EventLine { seq: Seq(7), json: Bytes::from_static(b"{\"seq\":7}") };
        assert_eq!(events(&[line]), "id: 7\nevent: event\ndata: {\"seq\":7}\n\n");
        let gap = Gap {
            reason: tl_wire::reply::GapReason::CursorExpired,
            from_cursor: Seq(1),
            next_cursor: Seq(4),
            committed_cursor: Seq(9),
            earliest_available_cursor: Seq(5),
        };
        assert_eq!(
            gap_event(&gap),
            "id: 4\nevent: gap\ndata: {\"type\":\"gap\",\"reason\":\"cursor_expired\",\"from_cursor\":1,\
             \"next_cursor\":4,\"committed_cursor\":9,\"earliest_available_cursor\":5}\n\n"
        );
        assert_eq!(
            end_event(TailEnd::Closed, Seq(3)).expect("told"),
            "event: end\ndata: {\"type\":\"end\",\"reason\":\"closed\",\"last_seq\":3}\n\n"
        );
        assert_eq!(end_event(TailEnd::Shutdown, Seq(3)), None);
        assert_eq!(heartbeat(Seq(3)), ": 3\n\n");
    }
}
