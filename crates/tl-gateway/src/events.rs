//! `GET /v1/sessions/:id/events`: a page of events, or a long poll.
//!
//! ```text
//!  read a page ──► something, or no wait asked for: answer
//!      │ nothing                                      ▲
//!      ▼                                              │
//!  wait as a tail does: a tail's place, no room ──► read again
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Response, StatusCode};
use tl_engine::api::{Caller, EventPage, Indexed, ReadEvents};
use tl_types::SessionId;
use tl_wire::query::EventsQuery;
use tl_wire::reply::events_page;

use crate::call::Call;
use crate::metrics::Front;
use crate::problem::Problem;
use crate::reply::{indexed, json};
use crate::room::Room;
use crate::shared::Shared;

/// Reads a page; with `wait_ms` it waits for the first event. A server that stops answers the
/// waiting at once.
pub async fn read(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let query = EventsQuery::parse(call.query())?;
    let wait = Duration::from_millis(query.wait_ms);
    let until = Instant::now() + wait;
    let (room, page) = read_page(&call.shared, &call.caller()?, &id, query).await?;
    if wait.is_zero() || !page.value.events.is_empty() {
        return Ok(answer(&page, room));
    }
    drop((room, page));
    let place = call.shared.tail(Front::LongPoll)?;
    call.turn = None;
    let left = until.saturating_duration_since(Instant::now());
    // What wakes it may be anything from one event on: the page is read when there is room.
    let first = ReadEvents { cursor: query.cursor, limit: 1, wait: left };
    let caller = call.caller_waiting(left)?;
    let woken = tokio::select! {
        woken = call.shared.service.read_events(&caller, &id, first, query.freshness) => {
            Some(woken?)
        }
        () = call.shared.draining() => None,
    };
    drop(place);
    if let Some(page) = woken.filter(|page| page.value.events.is_empty()) {
        return Ok(answer(&page, Room::new(Arc::clone(&call.shared.pages))));
    }
    call.turn = Some(call.shared.turn()?);
    let (room, page) = read_page(&call.shared, &call.caller()?, &id, query).await?;
    Ok(answer(&page, room))
}

/// What there is after the cursor now, with the room that it takes.
async fn read_page(
    shared: &Shared,
    caller: &Caller,
    id: &SessionId,
    query: EventsQuery,
) -> Result<(Room, Indexed<EventPage>), Problem> {
    let room = shared.page_room(caller.deadline).await?;
    let request = ReadEvents { cursor: query.cursor, limit: query.limit, wait: Duration::ZERO };
    let page = shared.service.read_events(caller, id, request, query.freshness).await?;
    Ok((room, page))
}

fn answer(page: &Indexed<EventPage>, room: Room) -> Response<Body> {
    let EventPage { events, next_cursor, last_seq, up_to_date } = &page.value;
    let json_bytes: usize = events.iter().map(|line| line.json.len() + 1).sum();
    let mut out = Vec::with_capacity(96 + json_bytes);
    let lines = events.iter().map(|line| &line.json[..]);
    events_page(&mut out, lines, *next_cursor, *last_seq, *up_to_date);
    indexed(json(StatusCode::OK, room.hold(out)), page.index)
}
