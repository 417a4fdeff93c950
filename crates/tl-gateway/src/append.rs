//! Appending: one event, a JSON batch, or a batch with one event per line.
//!
//! The hot path of the product: the body is read in one pass without a tree, and the reply is
//! written by hand.

use axum::body::Body;
use http::{Response, StatusCode};
use tl_engine::api::{Append, Appended, Indexed, ServiceError};
use tl_types::{ErrorCode, Principal, Seq};
use tl_wire::append::{AppendBody, AppendRequest, BatchRequest, ParsedEvent, SealedEvent};
use tl_wire::query::append_expected_seq;
use tl_wire::reply::{self, append_reply, batch_reply};

use crate::call::Call;
use crate::headers::BodyKind;
use crate::problem::Problem;
use crate::reply::{held_json, indexed};

/// Bytes that a reply fits in.
pub const REPLY_BYTES: usize = 160;

/// How an append was sent, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One event.
    Single,
    /// A list of events.
    Batch,
}

/// `POST /v1/sessions/:id/append`
pub async fn append(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let (body, kind) = call.read_body().await?;
    // The producer position names the write; a request id beside it could only disagree.
    let caller = call.caller()?;
    let (request, form) = parse(&body, kind, call.query(), &caller.principal)?;
    // The events are copies; the wait is no time to hold both.
    drop(body);
    let done = call.shared.service.append(&caller, &id, request).await;
    Ok(answer(done.map_err(|error| refused(error, form))?, form, call))
}

/// Reads a body of a kind; a kind that is missing counts as JSON.
pub fn parse(
    body: &[u8],
    kind: Option<BodyKind>,
    query: &str,
    principal: &Principal,
) -> Result<(Append, Form), Problem> {
    let guard = append_expected_seq(query)?;
    match kind {
        Some(BodyKind::Lines) => {
            Ok((batch(BatchRequest::parse_lines(body, guard)?, principal)?, Form::Batch))
        }
        Some(BodyKind::Json) | None => from_json(body, guard, principal),
    }
}

/// What the Service refused. Which event of a batch is at fault means nothing for an append of
/// one.
pub fn refused(error: ServiceError, form: Form) -> Problem {
    let problem = Problem::from(error);
    match form {
        Form::Single => problem.without_fact("index"),
        Form::Batch => problem,
    }
}

/// Writes the body of a reply.
pub fn write(out: &mut Vec<u8>, done: &Appended, form: Form) {
    let Appended { first_seq, last_seq, head_seq, archived_seq, deduped, .. } = *done;
    let committed_cursor: Seq = archived_seq;
    let said = reply::Appended { first_seq, last_seq, head_seq, deduped, committed_cursor };
    match form {
        Form::Single => append_reply(out, &said),
        Form::Batch => batch_reply(out, &said),
    }
}

fn from_json(
    body: &[u8],
    guard: Option<Seq>,
    principal: &Principal,
) -> Result<(Append, Form), Problem> {
    match AppendBody::parse(body)? {
        AppendBody::Single(AppendRequest { event, expected_seq }) => {
            let expected_seq = one_guard(guard, expected_seq)?;
            Ok((Append { events: vec![event.seal(principal)?], expected_seq }, Form::Single))
        }
        AppendBody::Batch(mut request) => {
            request.expected_seq = one_guard(guard, request.expected_seq)?;
            Ok((batch(request, principal)?, Form::Batch))
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

fn answer(done: Indexed<Appended>, form: Form, call: &Call) -> Response<Body> {
    let Indexed { value, index } = done;
    let mut out = Vec::with_capacity(REPLY_BYTES);
    write(&mut out, &value, form);
    let held = call.link.held.clone();
    indexed(held_json(StatusCode::CREATED, out, value.reply_written, held), index)
}
