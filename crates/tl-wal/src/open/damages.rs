//! Damaged places as they are found, of which a report names a bounded number.

use std::collections::BTreeSet;

use crate::error::{Corruption, DAMAGES_MAX, Damage, Doubt, Fault, WalError};
use crate::format::{RecordHead, RecordKind};
use crate::record::Position;

use super::files::Found;

/// Damaged places in log order, and whose they are.
#[derive(Debug)]
pub(super) struct Damages {
    list: Vec<Damage>,
    doubt: Doubt,
}

impl Default for Damages {
    fn default() -> Damages {
        Damages { list: Vec::new(), doubt: Doubt::Groups(BTreeSet::new()) }
    }
}

impl Damages {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds one that lies behind all others.
    pub fn push(&mut self, damage: Damage) {
        self.note(&damage);
        if self.list.len() == DAMAGES_MAX {
            // From here on the last one stands for all that are left out, whoever's they are: what
            // makes up for it lies behind them too.
            self.list.pop();
            self.list.push(Damage { group: None, kind: None, entry: None, ..damage });
        } else {
            self.list.push(damage);
        }
    }

    /// Adds one that lies before all others.
    pub fn push_front(&mut self, damage: Damage) {
        self.note(&damage);
        self.list.truncate(DAMAGES_MAX - 1);
        self.list.insert(0, damage);
    }

    fn note(&mut self, damage: &Damage) {
        match (damage.group, &mut self.doubt) {
            (Some(group), Doubt::Groups(groups)) => drop(groups.insert(group)),
            (None, doubt) => *doubt = Doubt::All,
            (Some(_), Doubt::All) => {}
        }
    }

    pub fn into_list(self) -> Vec<Damage> {
        self.list
    }

    /// The error that names them.
    pub fn refuse(self, durable: Position) -> WalError {
        let Damages { list: damages, doubt } = self;
        WalError::Corrupt(Box::new(Corruption { damages, doubt, durable }))
    }
}

impl From<Damage> for Damages {
    fn from(damage: Damage) -> Damages {
        let mut damages = Damages::default();
        damages.push(damage);
        damages
    }
}

/// A damaged place in a segment; `header` if that much is intact.
pub(super) fn damage(
    found: &Found,
    at: usize,
    header: Option<&RecordHead>,
    fault: Fault,
) -> Damage {
    let kind = header.and_then(|record| RecordKind::from_u8(record.kind));
    let is_own = matches!(kind, Some(RecordKind::Mark | RecordKind::Start | RecordKind::Next));
    let is_entry = kind == Some(RecordKind::Entry);
    Damage {
        segment: found.segment.spare.name.clone(),
        at_bytes: at as u64,
        position: found.segment.position(at as u64),
        // The log's own records belong to no group.
        group: header.filter(|_| !is_own).map(|record| record.group),
        kind,
        entry: header.filter(|_| is_entry).map(|record| record.index),
        fault,
    }
}
