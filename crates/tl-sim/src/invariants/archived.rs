//! What is archived stays archived: the position up to which a session is durable elsewhere never
//! moves back for whoever asks later, and never passes the session's end. Events below it may be
//! gone from here, so a position that falls would promise what nobody has.

use tl_types::Seq;

use super::{Checked, SessionNo, Violation};

/// A client that began to ask when `before` was known is told that a session with this `last`
/// position is archived up to `told`.
///
/// # Errors
/// The position fell, or lies behind the end.
pub fn told(session: SessionNo, before: Seq, told: Seq, last: Seq) -> Checked {
    if before <= told && told <= last {
        return Ok(());
    }
    Err(Violation::new(
        "the archived position never falls",
        format!("session {session}: archived up to {told} of {last}, and {before} was known"),
    ))
}
