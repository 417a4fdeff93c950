//! The group's time: commit times never go back along a session, and never run faster than one
//! part in twenty over time that really passed, whatever wall clocks do. Only where a majority of wall
//! clocks agrees may it step forward, and no further than these say.

use std::collections::BTreeMap;

use tl_types::{GroupId, Seq, UnixMs};

use super::{Checked, SessionNo, Violation};

/// One part in this many is how much faster than real time a group's time may run.
const FAST_PARTS: u64 = 20;
/// Whole milliseconds, rounded up at each of the clocks that follow one another.
const ROUNDING_MS: u64 = 50;

/// The newest commit time of each session.
#[derive(Debug, Default)]
pub struct Stamps {
    newest: BTreeMap<SessionNo, (Seq, UnixMs)>,
    /// The latest time that any group may have, and when that was so.
    latest: (u64, u64),
}

impl Stamps {
    /// A majority of wall clocks agrees on this time: groups may go on from there.
    pub fn agreed(&mut self, wall_ms: u64, passed_ms: u64) {
        self.latest = (self.latest_at(passed_ms).max(wall_ms), passed_ms);
    }

    fn latest_at(&self, passed_ms: u64) -> u64 {
        let (latest, at_ms) = self.latest;
        let since_ms = passed_ms - at_ms;
        latest + since_ms + since_ms.div_ceil(FAST_PARTS)
    }

    /// A session's next event, shown for the first time.
    ///
    /// # Errors
    /// Its time is before that of the event before it, or ahead of what time allows.
    pub fn shown(
        &mut self,
        group: GroupId,
        session: SessionNo,
        seq: Seq,
        at: UnixMs,
        passed_ms: u64,
    ) -> Checked {
        let broken = |what: String| Err(Violation::new("the group's time keeps its pace", what));
        if at.0 > self.latest_at(passed_ms) + ROUNDING_MS {
            return broken(format!(
                "group {group}, session {session}, seq {seq}: commit time {} ms after {passed_ms} ms",
                at.0
            ));
        }
        match self.newest.insert(session, (seq, at)) {
            Some((before, earlier)) if before < seq && at < earlier => broken(format!(
                "session {session}: seq {before} has commit time {}, seq {seq} has {}",
                earlier.0, at.0
            )),
            Some(_) | None => Ok(()),
        }
    }
}
