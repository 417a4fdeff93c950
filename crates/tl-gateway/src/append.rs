//! Appending: one event, a JSON batch, or a batch with one event per line.
//!
//! The hot path of the product: the body is read in one pass without a tree, and the reply is
//! written by hand.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use tl_engine::api::{Append, Appended, Indexed};
use tl_types::{ErrorCode, Principal, Seq};
use tl_wire::append::{AppendBody, AppendRequest, BatchRequest, ParsedEvent, SealedEvent};
use tl_wire::query::append_expected_seq;
use tl_wire::reply::{self, append_reply, batch_reply};

use crate::call::Call;
use crate::headers::BodyKind;
use crate::problem::Problem;
use crate::reply::{held_json, indexed};

/// Bytes that a reply fits in.
const REPLY_BYTES: usize = 160;

/// `POST /v1/sessions/:id/append`
pub async fn append(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let (body, kind) = call.read_body().await?;
    // The producer position names the write; a request id beside it could only disagree.
    let caller = call.caller()?;
    let guard = append_expected_seq(call.query())?;
    let (request, single) = match kind {
        Some(BodyKind::Lines) => {
            (batch(BatchRequest::parse_lines(&body, guard)?, &caller.principal)?, false)
        }
        Some(BodyKind::Json) | None => from_json(&body, guard, &caller.principal)?,
    };
    let done = call.shared.service.append(&caller, &id, request).await.map_err(|error| {
        let problem = Problem::from(error);
        // Which event of a batch is at fault means nothing for an append of one.
        if single { problem.without_fact("index") } else { problem }
    })?;
    Ok(answer(done, single, call))
}

fn from_json(
    body: &Bytes,
    guard: Option<Seq>,
    principal: &Principal,
) -> Result<(Append, bool), Problem> {
    match AppendBody::parse(body)? {
        AppendBody::Single(AppendRequest { event, expected_seq }) => {
            let expected_seq = one_guard(guard, expected_seq)?;
            Ok((Append { events: vec![event.seal(principal)?], expected_seq }, true))
        }
        AppendBody::Batch(mut request) => {
            request.expected_seq = one_guard(guard, request.expected_seq)?;
            Ok((batch(request, principal)?, false))
        }
    }
}

/// A guard may stand in the query or in the body. One that was sent is never passed over.
fn one_guard(query: Option<Seq>, body: Option<Seq>) -> Result<Option<Seq>, Problem> {
    match (query, body) {
        (Some(query), Some(body)) if query != body => Err(Problem::new(
            ErrorCode::InvalidEvent,
            format!("expected_seq is {query} in the query and {body} in the body: send it once"),
        )),
        (query, body) => Ok(query.or(body)),
    }
}

fn batch(request: BatchRequest, principal: &Principal) -> Result<Append, Problem> {
    let BatchRequest { events, expected_seq } = request;
    let seal = |(index, event): (usize, ParsedEvent)| -> Result<SealedEvent, Problem> {
        Ok(event.seal(principal).map_err(|error| error.at_index(index))?)
    };
    let events = events.into_iter().enumerate().map(seal).collect::<Result<_, _>>()?;
    Ok(Append { events, expected_seq })
}

fn answer(done: Indexed<Appended>, single: bool, call: &Call) -> Response<Body> {
    let Indexed { value, index } = done;
    let Appended { first_seq, last_seq, head_seq, archived_seq, deduped, reply_written } = value;
    let committed_cursor: Seq = archived_seq;
    let said = reply::Appended { first_seq, last_seq, head_seq, deduped, committed_cursor };
    let mut out = Vec::with_capacity(REPLY_BYTES);
    if single {
        append_reply(&mut out, &said);
    } else {
        batch_reply(&mut out, &said);
    }
    let held = call.link.held.clone();
    indexed(held_json(StatusCode::CREATED, out, reply_written, held), index)
}
