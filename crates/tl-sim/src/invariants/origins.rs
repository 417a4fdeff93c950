//! Nothing is made up: every event was asked for by a client, in that session; and what was
//! refused, with no other attempt under way, never appears (P2, P6).

use std::collections::HashMap;

use super::{SessionNo, Violation};

/// Who asked for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The session it was meant for.
    pub session: SessionNo,
    /// Client and generation: names the producer.
    pub producer: (usize, u64),
    /// The producer's own position.
    pub producer_seq: u64,
    /// The commit that it is half of.
    pub commit: Option<u64>,
    /// It was refused for good.
    pub refused: bool,
}

/// All events ever asked for, by a hash of their bytes.
#[derive(Debug, Default)]
pub struct Origins {
    asked: HashMap<u64, Origin>,
}

impl Origins {
    /// A client is going to ask for an event.
    pub fn asked(&mut self, content: u64, origin: Origin) {
        self.asked.insert(content, origin);
    }

    /// The only attempt was refused.
    pub fn refused(&mut self, content: u64) {
        if let Some(origin) = self.asked.get_mut(&content) {
            origin.refused = true;
        }
    }

    /// An event is there: where from?
    ///
    /// # Errors
    /// Nobody asked for it, or it was refused.
    pub fn of(&self, session: SessionNo, seq: u64, content: u64) -> Result<Origin, Violation> {
        let made_up = |what: &str| {
            Err(Violation::new(
                "only what was asked for and not refused",
                format!("session {session}, seq {seq}: {what}"),
            ))
        };
        match self.asked.get(&content) {
            None => made_up("no client asked for this event"),
            Some(origin) if origin.session != session => {
                made_up("the event was asked for in another session")
            }
            Some(origin) if origin.refused => made_up("the event had been refused"),
            Some(origin) => Ok(*origin),
        }
    }
}
