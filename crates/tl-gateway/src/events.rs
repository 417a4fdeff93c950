//! `GET /v1/sessions/:id/events`: a page of events, or a long poll.

use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};
use tl_engine::api::{EventPage, Indexed, ReadEvents};
use tl_wire::query::EventsQuery;
use tl_wire::reply::events_page;

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::{indexed, json};

/// Reads a page; with `wait_ms` it waits for the first event. A server that stops answers the
/// waiting at once.
pub async fn read(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let query = EventsQuery::parse(call.query())?;
    let wait = Duration::from_millis(query.wait_ms);
    let request = ReadEvents { cursor: query.cursor, limit: query.limit, wait };
    let caller = call.caller_waiting(wait)?;
    let service = &call.shared.service;
    let waited = tokio::select! {
        page = service.read_events(&caller, &id, request, query.freshness) => Some(page?),
        () = call.shared.draining(), if !wait.is_zero() => None,
    };
    if let Some(page) = waited {
        return Ok(answer(&page));
    }
    let at_once = ReadEvents { wait: Duration::ZERO, ..request };
    Ok(answer(&service.read_events(&caller, &id, at_once, query.freshness).await?))
}

fn answer(page: &Indexed<EventPage>) -> Response<Body> {
    let EventPage { events, next_cursor, last_seq, up_to_date } = &page.value;
    let json_bytes: usize = events.iter().map(|line| line.json.len() + 1).sum();
    let mut out = Vec::with_capacity(96 + json_bytes);
    let lines = events.iter().map(|line| &line.json[..]);
    events_page(&mut out, lines, *next_cursor, *last_seq, *up_to_date);
    indexed(json(StatusCode::OK, out), page.index)
}
