//! Public bodies: what a request may say, and what a reply, an error or an event looks like.
//!
//! Everything here is a function from bytes to values or from values to bytes. A body is read
//! in one pass that checks it, removes insignificant whitespace and hashes its content; no tree
//! is built, and memory is bounded by the input.
//!
//! Absent on purpose: sockets, headers, routes, access control beyond the actor rule, and every
//! rule that needs to know what is stored.

pub mod append;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod json;
pub mod lines;
pub mod query;
pub mod reply;
pub mod session;

#[cfg(test)]
mod testing;

pub use append::{
    AppendBody, AppendRequest, BatchRequest, HASH_ALGORITHM, ParsedEvent, SealedEvent,
};
pub use error::{Fact, WireError};
pub use reply::{Appended, SessionView};
pub use session::{CreateRequest, Members, PatchRequest};
