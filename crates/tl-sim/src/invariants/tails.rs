//! P4: a tail gets every event after its cursor exactly once, in order, whichever machine it
//! reads from; where it cannot, it is told of the gap, which only a trim makes.

use tl_types::Seq;

use super::{Checked, SessionNo, Violation};

/// A cursor that is moved by what a tail was given.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// Whose.
    pub session: SessionNo,
    /// The last event handled.
    pub at: Seq,
}

const PROMISE: &str = "a tail gets everything once, in order";

impl Cursor {
    /// The next event is given.
    ///
    /// # Errors
    /// It is not the next one.
    pub fn given(&mut self, seq: Seq) -> Checked {
        if seq != self.at.next() {
            return Err(Violation::new(
                PROMISE,
                format!("session {}: after seq {} came seq {seq}", self.session, self.at),
            ));
        }
        self.at = seq;
        Ok(())
    }

    /// The tail is told that events before `earliest` are gone.
    ///
    /// # Errors
    /// Nobody had asked for a trim that far.
    pub fn gap(&mut self, earliest: Seq, trim_asked: Seq) -> Checked {
        if earliest <= self.at || earliest.0 > trim_asked.0 + 1 {
            return Err(Violation::new(
                PROMISE,
                format!(
                    "session {}: a gap up to {earliest} after seq {}, trimmed up to {trim_asked}",
                    self.session, self.at
                ),
            ));
        }
        self.at = Seq(earliest.0 - 1);
        Ok(())
    }

    /// Nothing more will come.
    ///
    /// # Errors
    /// The tail has not got everything.
    pub fn ended(&self, last: Seq) -> Checked {
        if self.at == last {
            return Ok(());
        }
        Err(Violation::new(
            PROMISE,
            format!("session {}: the tail ended at seq {} of {last}", self.session, self.at),
        ))
    }
}
