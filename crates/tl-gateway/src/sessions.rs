//! Sessions: create, read, list, change, hide, close, delete.

use axum::body::Body;
use http::{Response, StatusCode};
use tl_engine::api::{CreateSession, Indexed, ListSessions, Session, UpdateSession};
use tl_wire::query::Freshness;
use tl_wire::reply::list_page;

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::{empty, indexed, json};

/// Bytes that a row usually fits in.
const ROW_BYTES: usize = 512;

/// `POST /v1/sessions`
pub async fn create(call: &mut Call) -> Result<Response<Body>, Problem> {
    let body = call.read_json().await?;
    let request = CreateSession::parse(&body)?;
    let caller = call.writer(&body)?;
    let created = call.shared.service.create_session(&caller, request).await?;
    Ok(row(StatusCode::CREATED, &created, false))
}

/// `GET /v1/sessions/:id`
pub async fn get(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let fresh = Freshness::parse(call.query())?;
    let found = call.shared.service.get_session(&call.caller()?, &id, fresh).await?;
    Ok(row(StatusCode::OK, &found, true))
}

/// `GET /v1/sessions`
pub async fn list(call: &mut Call) -> Result<Response<Body>, Problem> {
    let request = ListSessions::parse(call.query())?;
    let caller = call.caller()?;
    let room = call.shared.page_room(caller.deadline).await?;
    let page = call.shared.service.list_sessions(&caller, request).await?;
    let mut out = Vec::with_capacity(64 + page.sessions.len() * ROW_BYTES);
    let write_row = |out: &mut Vec<u8>, session: &Session| session.write_json(out, true);
    list_page(&mut out, &page.sessions, write_row, page.next_cursor.as_deref());
    Ok(json(StatusCode::OK, room.hold(out)))
}

/// `PATCH /v1/sessions/:id`
pub async fn update(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let body = call.read_json().await?;
    let request = UpdateSession::parse(&body)?;
    let caller = call.writer(&body)?;
    let updated = call.shared.service.update_session(&caller, &id, request).await?;
    Ok(row(StatusCode::OK, &updated, false))
}

/// `POST /v1/sessions/:id/archive` and `/unarchive`
pub async fn set_archived(call: &mut Call, archived: bool) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let caller = call.writer(&[])?;
    let changed = call.shared.service.set_archived(&caller, &id, archived).await?;
    Ok(row(StatusCode::OK, &changed, true))
}

/// `POST /v1/sessions/:id/close`
pub async fn close(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let caller = call.writer(&[])?;
    let closed = call.shared.service.close_session(&caller, &id).await?;
    Ok(row(StatusCode::OK, &closed, true))
}

/// `DELETE /v1/sessions/:id`
pub async fn delete(call: &mut Call) -> Result<Response<Body>, Problem> {
    let id = call.session_id()?;
    let caller = call.writer(&[])?;
    let deleted = call.shared.service.delete_session(&caller, &id).await?;
    Ok(indexed(empty(StatusCode::NO_CONTENT), deleted.index))
}

fn row(status: StatusCode, session: &Indexed<Session>, with_tenant: bool) -> Response<Body> {
    let mut out = Vec::with_capacity(ROW_BYTES);
    session.value.write_json(&mut out, with_tenant);
    indexed(json(status, out), session.index)
}
