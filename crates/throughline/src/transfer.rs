//! Sessions as files: one `{"session":{…}}` line, then an `{"event":{…}}` line per event.
//!
//! An import is idempotent. An event line without a producer gets the producer
//! `import:<session id>` and the event's ordinal within its session, so a second import of the
//! same file is answered from what is stored, and an import that was cut off goes on where it
//! stopped.

pub mod export;
pub mod import;
pub mod lines;
mod stored;
