//! P3: `seq` counts from 1 without a hole, and a position of one life of a session, once shown
//! to anybody by any machine, names the same event for ever, commit time included.

use tl_types::{Incarnation, Seq};

use super::{Checked, SessionNo, Violation};

#[derive(Debug, Default, Clone)]
struct Shown {
    incarnation: Option<Incarnation>,
    /// A hash of the event at `seq - 1`.
    events: Vec<Option<u64>>,
}

/// What was shown, by session and position.
#[derive(Debug, Default)]
pub struct Positions {
    sessions: Vec<Shown>,
}

const PROMISE: &str = "a position names one event for ever";

impl Positions {
    /// A session was seen in this life; names are given out once, so it has only one.
    ///
    /// # Errors
    /// It was seen in another.
    pub fn lives(&mut self, session: SessionNo, incarnation: Incarnation) -> Checked {
        let shown = self.of(session);
        match shown.incarnation.replace(incarnation) {
            Some(other) if other != incarnation => Err(Violation::new(
                PROMISE,
                format!("session {session} was made twice: as {other} and as {incarnation}"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Somebody was shown this event. Returns whether it is the first time.
    ///
    /// # Errors
    /// The position named another event before.
    pub fn show(&mut self, session: SessionNo, seq: Seq, event: u64) -> Result<bool, Violation> {
        let events = &mut self.of(session).events;
        let at = seq.0 as usize - 1;
        if events.len() <= at {
            events.resize(at + 1, None);
        }
        match events[at].replace(event) {
            None => Ok(true),
            Some(other) if other == event => Ok(false),
            Some(_) => Err(Violation::new(
                PROMISE,
                format!("session {session}, seq {seq}: another event stands there than before"),
            )),
        }
    }

    fn of(&mut self, session: SessionNo) -> &mut Shown {
        if self.sessions.len() <= session {
            self.sessions.resize(session + 1, Shown::default());
        }
        &mut self.sessions[session]
    }
}
