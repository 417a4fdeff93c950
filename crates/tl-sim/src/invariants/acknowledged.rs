//! P2: what was acknowledged is there. Every acknowledged event must be at the position that the
//! acknowledgement named, on every machine, once trouble has ended; only a trim, which needs an
//! archive's ack, may have taken it.

use std::collections::BTreeMap;

use tl_types::Seq;

use super::{Checked, SessionNo, Violation};

/// Acknowledged events: content hash by session and position.
#[derive(Debug, Default)]
pub struct Acknowledged {
    events: BTreeMap<(SessionNo, Seq), u64>,
}

const PROMISE: &str = "acknowledged is never lost";

impl Acknowledged {
    /// A client was told that its event stands at `seq`.
    ///
    /// # Errors
    /// Another client was told so of another event.
    pub fn told(&mut self, session: SessionNo, seq: Seq, content: u64) -> Checked {
        match self.events.insert((session, seq), content) {
            Some(other) if other != content => Err(Violation::new(
                PROMISE,
                format!("session {session}, seq {seq} was acknowledged for two events"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// What a machine holds of a session in the end: its floor, its last position, and the
    /// content hash of each event in between.
    ///
    /// # Errors
    /// Something acknowledged is missing or is something else.
    pub fn hold(
        &self,
        machine: usize,
        session: SessionNo,
        floor: Seq,
        events: &BTreeMap<Seq, u64>,
    ) -> Checked {
        let acknowledged = self.events.range((session, floor.next())..(session + 1, Seq(0)));
        for ((_, seq), content) in acknowledged {
            let found = events.get(seq);
            if found != Some(content) {
                let what = if found.is_none() { "is gone" } else { "became another event" };
                return Err(Violation::new(
                    PROMISE,
                    format!(
                        "session {session}, seq {seq} was acknowledged and {what} on machine {machine}"
                    ),
                ));
            }
        }
        Ok(())
    }
}
