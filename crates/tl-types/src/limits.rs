//! Every ceiling, with its unit, its reason and the code returned one past it.
//!
//! A value here is a fixed ceiling in code; amounts that an operator may change are settings
//! with these as their upper bounds.

/// Largest HTTP request body, bytes. One past: `payload_too_large`.
pub const BODY_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Largest single event (its JSON object as stored, compact), bytes. One past: `payload_too_large`.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Most events in one batch append. One past: `payload_too_large`.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Most compact event bytes in one batch append. One past: `payload_too_large`.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest log entry, bytes; fits a WAL segment whatever its size setting. One past: `payload_too_large`.
pub const ENTRY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Largest metadata object, compact bytes; the principal that the server adds does not count.
/// One past: `payload_too_large`.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of objects and arrays in a body. One past: `too_deep`.
pub const JSON_DEPTH_MAX: usize = 32;
/// Most producers remembered per session; the least recently written goes. This is the
/// producer window within which a retry is recognised.
pub const PRODUCERS_PER_SESSION_MAX: u64 = 10_000;
/// Events by which a producer's place in the order of last writes may lag behind its last write.
/// As many producers more are kept, so that no lag makes the others forgotten too early.
pub const PRODUCER_AGE_LAG_MAX: u64 = 1_000;
/// Accepted writes remembered per producer, for answering a retry with its first positions.
pub const PRODUCER_WRITES_KEPT: usize = 8;
/// Most rows or events in one page. One past: `invalid_limit`.
pub const PAGE_MAX: usize = 1_000;
/// Page length when a request names none.
pub const PAGE_DEFAULT: usize = 100;
/// Most payload bytes in one page; a page always has at least one whole event.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Directory rows looked at per group and list request; a selective filter may so return a
/// short page with a cursor.
pub const LIST_ROWS_EXAMINED_MAX: usize = 10_000;
/// Longest session id, UTF-8 bytes. One past: `invalid_session_id`.
pub const SESSION_ID_BYTES_MAX: usize = 255;
/// Longest tenant or namespace, bytes.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Longest session title, UTF-8 bytes. One past: `invalid_session`.
pub const TITLE_BYTES_MAX: usize = 1_024;
/// Longest event type, source, actor, producer id or idempotency key, UTF-8 bytes.
/// One past: `invalid_event`.
pub const FIELD_BYTES_MAX: usize = 255;
/// Largest number that the server interprets (2^53 − 1: exact in every JSON reader).
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Longest long poll, milliseconds. One past: `invalid_wait_ms`.
pub const WAIT_MS_MAX: u64 = 30_000;
/// Most events in one tail frame. One past: `invalid_tail_batch_size`.
pub const TAIL_BATCH_MAX: usize = 1_000;
/// Bytes a tail may have waiting for a slow reader before it is cut off with 1013.
pub const TAIL_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Open tails per node. One past: `too_many_tails`.
pub const TAILS_OPEN_MAX: usize = 50_000;
/// Longest request target, bytes. One past: `uri_too_long`.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// Longest WebSocket message a client may send; tails read and ignore them. One past: close 1009.
pub const WS_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Requests remembered per group for answering a repeated request id. The oldest goes.
pub const REQUESTS_PER_GROUP_MAX: u64 = 10_000;
/// How long a request id is remembered, milliseconds of the group's stamp.
pub const REQUEST_MEMORY_MS: u64 = 10 * 60 * 1000;
/// Rows one `Tick` may touch; it is repeated while work is left, so no entry is unbounded.
pub const TICK_ROWS_MAX: usize = 1_000;
/// Largest encoded list of a cluster's members, bytes. One past: `payload_too_large`.
pub const MEMBER_LIST_BYTES_MAX: usize = 16 * 1024;
/// Most commands in one entry.
pub const ENTRY_COMMANDS_MAX: usize = 1_000;
/// Most bytes proposed but not yet answered per node; a smaller memory budget allows fewer. One
/// past: `event_store_backpressure`.
pub const INFLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Proposed but not yet answered requests per node. One past: `event_store_backpressure`.
pub const INFLIGHT_REQUESTS_MAX: usize = 65_536;
/// Longest time a request may take, milliseconds, unless it names less. Past it: `raft_timeout`.
pub const REQUEST_MS_DEFAULT: u64 = 5_000;
