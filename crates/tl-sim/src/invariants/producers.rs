//! P2: one producer position owns at most one position of the session, however often its write
//! was sent, to whichever machine, across crashes and leaders.

use std::collections::HashMap;

use tl_types::Seq;

use super::origins::Origin;
use super::{Checked, Violation};

/// Where each producer position landed.
#[derive(Debug, Default)]
pub struct Producers {
    landed: HashMap<(usize, (usize, u64), u64), Seq>,
}

impl Producers {
    /// An event stands at `seq`.
    ///
    /// # Errors
    /// Its producer position stands elsewhere too.
    pub fn landed(&mut self, origin: &Origin, seq: Seq) -> Checked {
        let key = (origin.session, origin.producer, origin.producer_seq);
        match self.landed.insert(key, seq) {
            Some(other) if other != seq => Err(Violation::new(
                "a retry adds nothing",
                format!(
                    "session {}: producer {:?} has its position {} at seq {other} and at seq {seq}",
                    origin.session, origin.producer, origin.producer_seq
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }
}
