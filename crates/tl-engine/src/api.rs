//! The Service face: who calls, what may be asked, what comes back.
//!
//! Every front translates its protocol into these types and decides nothing itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tl_core::SessionRow;
use tl_types::{Actor, Namespace, Principal, RequestId, Seq, UnixMs};
use tl_wire::SessionView;
use tl_wire::reply::SessionState;

/// Who asks, where, until when, and under which name for a repeat.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the edge proved.
    pub principal: Principal,
    /// Folder of names.
    pub namespace: Namespace,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The client's own name for this request (`Idempotency-Key`): a repeat gets the first reply.
    pub request_id: Option<RequestId>,
}

/// A refusal or failure, ready for any face: `code` gives word, status and retry class, `facts`
/// become members of the error body.
pub type ServiceError = tl_wire::WireError;

/// `POST /v1/sessions`; without an id the server makes `ses_` + 16 characters.
pub use tl_wire::CreateRequest as CreateSession;
/// `PATCH /v1/sessions/:id`.
pub use tl_wire::PatchRequest as UpdateSession;
/// `GET /v1/sessions`.
pub use tl_wire::query::ListQuery as ListSessions;

/// One or more events, all or nothing.
#[derive(Debug, Clone)]
pub struct Append {
    /// Checked and sealed by the edge.
    pub events: Vec<tl_wire::SealedEvent>,
    /// Append only if the session's last seq equals this.
    pub expected_seq: Option<Seq>,
}

/// What an append was given.
#[derive(Debug)]
pub struct Appended {
    /// Seq of the first event of this write.
    pub first_seq: Seq,
    /// Seq of the last event of this write.
    pub last_seq: Seq,
    /// The session's last seq when the reply was made.
    pub head_seq: Seq,
    /// All events up to here are in the archive tier.
    pub archived_seq: Seq,
    /// True when the write had been accepted before.
    pub deduped: bool,
    /// Holds these events back from tails on this node until the reply is on its way: the front
    /// drops it after the reply's bytes were written.
    pub reply_written: Option<ReplyGuard>,
}

pub use crate::hub::ReplyGuard;

/// One page of a list.
#[derive(Debug, Clone)]
pub struct SessionPage {
    /// Rows in order of id.
    pub sessions: Vec<Session>,
    /// Where the next page begins, if there may be one.
    pub next_cursor: Option<String>,
}

/// A session as every operation gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session(pub Box<SessionRow>);

impl Session {
    /// Writes the row's JSON; lists and single reads show the tenant too.
    pub fn write_json(&self, out: &mut Vec<u8>, with_tenant: bool) {
        self.with_view(|view| {
            if with_tenant {
                tl_wire::reply::session_row_with_tenant(out, &view);
            } else {
                tl_wire::reply::session_row(out, &view);
            }
        });
    }

    /// Lends the row in the shape that bodies are written from.
    pub fn with_view<T>(&self, look: impl FnOnce(SessionView<'_>) -> T) -> T {
        let SessionRow { path, header, .. } = &*self.0;
        let creator = Actor::parse(header.creator.as_str())
            .expect("a session's creator was an actor when the session was made");
        let metadata = header.metadata.members();
        look(SessionView {
            id: path.name.as_str(),
            title: header.title.as_ref().map(tl_core::Text::as_str),
            metadata: &metadata,
            tenant: path.tenant.as_str(),
            creator: &creator,
            created_at: header.created_at,
            updated_at: header.updated_at,
            version: header.version,
            archived: header.listing == tl_core::Listing::Archived,
            state: match header.state {
                tl_core::SessionState::Active => SessionState::Active,
                tl_core::SessionState::Closed => SessionState::Closed,
                tl_core::SessionState::Tombstoned => SessionState::Tombstoned,
            },
            last_seq: header.last_seq,
            archived_seq: header.archived_seq,
        })
    }
}

/// `GET /v1/sessions/:id/events`.
#[derive(Debug, Clone, Copy)]
pub struct ReadEvents {
    /// Exclusive.
    pub cursor: Seq,
    /// 1..=1000.
    pub limit: usize,
    /// How long to wait for the first event when there is none.
    pub wait: Duration,
}

/// One page of events, each as its JSON on one line.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// Contiguous events after the cursor.
    pub events: Vec<EventLine>,
    /// Cursor behind the last event here.
    pub next_cursor: Seq,
    /// The session's last seq.
    pub last_seq: Seq,
    /// True when nothing is known to follow.
    pub up_to_date: bool,
}

/// An event serialised once for all its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLine {
    /// Its position.
    pub seq: Seq,
    /// The event JSON on one line, without a line end.
    pub json: Bytes,
}

/// Where a tail starts.
pub use tl_wire::query::TailStart as TailFrom;
/// Notice that events cannot be given.
pub use tl_wire::reply::Gap;

/// What a tail gives next.
#[derive(Debug, Clone)]
pub enum TailItem {
    /// At least one event, contiguous after the tail's cursor.
    Events(Vec<EventLine>),
    /// Events after the cursor cannot be given; the tail goes on from `next_cursor`.
    Gap(Gap),
    /// Nothing will follow.
    End(TailEnd),
}

/// Why nothing will follow on a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailEnd {
    /// The session was closed; all its events were given.
    Closed,
    /// The session was deleted; all its events were given.
    Tombstoned,
    /// The node stops or drains: resume elsewhere from the cursor.
    Shutdown,
}

/// Whether the node can serve, in the contract's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// True: 200.
    pub ready: bool,
    /// `draining`, `raft_sync`, … when not ready.
    pub reason: Option<&'static str>,
    /// Named details.
    pub detail: Vec<(&'static str, String)>,
}

/// When this node started, for pages and metrics.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Name.
    pub name: Arc<str>,
    /// Wall time of the start.
    pub started_at: UnixMs,
}

/// A value and the log index from which every replica has it (`x-throughline-index`).
#[derive(Debug, Clone)]
pub struct Indexed<T> {
    /// What was asked for.
    pub value: T,
    /// Read-your-writes elsewhere: pass it as `min_index`.
    pub index: tl_types::Index,
}

/// How fresh a read must be.
pub use tl_wire::query::Freshness;
