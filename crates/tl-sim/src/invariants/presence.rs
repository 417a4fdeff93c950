//! Presence and absence (P10): what was made is never said to be absent to whoever begins to ask
//! once that is known. A replica that lags may show less; it may not say that there is nothing.

use super::linearizable::Known;
use super::{Checked, SessionNo, Violation};

/// A client that began to ask when `before` was known is told that a session does not exist.
///
/// # Errors
/// It was known to exist.
pub fn absent(session: SessionNo, before: &Known) -> Checked {
    if !before.exists {
        return Ok(());
    }
    let what = format!("session {session} was not found although {before:?}");
    Err(Violation::new("nothing that was made is absent", what))
}
