//! Rows of sessions.

use bytes::Bytes;
use tl_types::{Actor, Seq, UnixMs};

use super::event::time;
use super::{Object, string};

/// What a session still takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Events.
    Active,
    /// Reads only.
    Closed,
    /// Nothing: it was deleted and its name is still held.
    Tombstoned,
}

impl SessionState {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            SessionState::Active => "active",
            SessionState::Closed => "closed",
            SessionState::Tombstoned => "tombstoned",
        }
    }
}

/// A session as rows show it.
#[derive(Debug, Clone, Copy)]
pub struct SessionView<'a> {
    /// Id.
    pub id: &'a str,
    /// Title, if any.
    pub title: Option<&'a str>,
    /// Members as [`Members`](crate::session::Members) keeps them.
    pub metadata: &'a [(Bytes, Bytes)],
    /// Owner of the session and of its creator.
    pub tenant: &'a str,
    /// Who created it.
    pub creator: &'a Actor,
    /// When it was created.
    pub created_at: UnixMs,
    /// When its header last changed.
    pub updated_at: UnixMs,
    /// Version of its header, from 1.
    pub version: u64,
    /// Hidden from lists that do not ask for it.
    pub archived: bool,
    /// What it still takes.
    pub state: SessionState,
    /// Last position.
    pub last_seq: Seq,
    /// Everything up to here is in the archive.
    pub archived_seq: Seq,
}

/// A session's row, as create, patch and close answer it.
pub fn session_row(out: &mut Vec<u8>, view: &SessionView<'_>) {
    row(out, view).end();
}

/// A session's row with `tenant_id` as its last member, as get and list answer it.
pub fn session_row_with_tenant(out: &mut Vec<u8>, view: &SessionView<'_>) {
    let mut object = row(out, view);
    object.string("tenant_id", view.tenant);
    object.end();
}

/// A page of a list. `write_row` writes one row, as [`session_row_with_tenant`] does.
pub fn list_page<R>(
    out: &mut Vec<u8>,
    rows: impl IntoIterator<Item = R>,
    mut write_row: impl FnMut(&mut Vec<u8>, R),
    next_cursor: Option<&str>,
) {
    let mut object = Object::new(out);
    let list = object.key("sessions");
    list.push(b'[');
    for (index, row) in rows.into_iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        write_row(list, row);
    }
    list.push(b']');
    text_or_null(&mut object, "next_cursor", next_cursor);
    object.end();
}

fn row<'a>(out: &'a mut Vec<u8>, view: &SessionView<'_>) -> Object<'a> {
    let mut object = Object::new(out);
    object.string("id", view.id);
    text_or_null(&mut object, "title", view.title);
    metadata(object.key("metadata"), view.metadata);
    let mut creator = Object::new(object.key("creator_principal"));
    creator.string("tenant_id", view.tenant);
    creator.string("id", &view.creator.id);
    creator.string("type", view.creator.kind.word());
    creator.end();
    time(object.key("created_at"), view.created_at);
    time(object.key("updated_at"), view.updated_at);
    object.number("version", view.version);
    object.boolean("archived", view.archived);
    object.string("state", view.state.word());
    object.number("last_seq", view.last_seq.0);
    object.number("archived_seq", view.archived_seq.0);
    object
}

fn metadata(out: &mut Vec<u8>, members: &[(Bytes, Bytes)]) {
    out.push(b'{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b':');
        out.extend_from_slice(value);
    }
    out.push(b'}');
}

fn text_or_null(object: &mut Object<'_>, name: &'static str, text: Option<&str>) {
    match text {
        Some(text) => string(object.key(name), text),
        None => object.raw(name, b"null"),
    }
}
