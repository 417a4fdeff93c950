//! What clients asked and were told, written down for the history of each session.

use tl_core::reply::{Appended, Refusal};
use tl_core::{Reason, Reply, SessionRow};

use super::World;
use crate::invariants::SessionNo;
use crate::invariants::history::{Deed, Seen};
use crate::workload::{Intent, Kind, Part};

impl World {
    /// A read was answered.
    pub(super) fn record_read(
        &mut self,
        from_us: u64,
        session: SessionNo,
        row: Option<&SessionRow>,
    ) {
        let deed = row.map_or(Deed::Absent, |row| Deed::Saw(Seen::by(&row.header)));
        self.record_one(from_us, session, deed);
    }

    /// A write was answered. `settled` says that no other attempt of it may take effect.
    pub(super) fn record(&mut self, from_us: u64, kind: &Kind, replies: &[Reply], settled: bool) {
        if let [Reply::Refused(refusal)] = replies {
            self.record_refusal(from_us, kind, refusal);
            if !settled {
                self.record_late(from_us, kind);
            }
            return;
        }
        match (kind, replies) {
            (Kind::Create { session, .. }, _) => {
                self.record_one(from_us, *session, Deed::Created);
            }
            (Kind::Header { session, updates, .. }, [Reply::Session(row)]) => {
                let seen = Seen::by(&row.header);
                let deed = if *updates { Deed::Updated { seen } } else { Deed::Saw(seen) };
                self.record_one(from_us, *session, deed);
            }
            (Kind::Close { session, .. }, [Reply::Session(row)]) => {
                self.record_one(from_us, *session, Deed::Closed);
                self.record_one(from_us, *session, Deed::Saw(Seen::by(&row.header)));
            }
            (Kind::Tombstone { session, .. }, _) => {
                self.record_one(from_us, *session, Deed::Tombstoned);
            }
            (Kind::Archive { session, .. }, _) => {
                self.record_one(from_us, *session, Deed::Exists);
            }
            (Kind::Append { parts, intent }, replies) => {
                for (part, reply) in parts.iter().zip(replies) {
                    if let Reply::Appended(appended) = reply {
                        self.record_append(from_us, part, intent, appended);
                    }
                }
            }
            _ => {}
        }
    }

    /// A retry of a new write is told the positions that an earlier attempt was given.
    fn record_append(&mut self, from_us: u64, part: &Part, intent: &Intent, told: &Appended) {
        if !told.deduped || matches!(intent, Intent::New) {
            let (first, last) = (told.first_seq, told.last_seq);
            self.record_one(from_us, part.session, Deed::Appended { first, last });
        }
        if told.deduped {
            self.record_one(from_us, part.session, Deed::Repeated { head: told.head_seq });
        }
    }

    fn record_refusal(&mut self, from_us: u64, kind: &Kind, refusal: &Refusal) {
        let session = match kind {
            Kind::Append { parts, .. } => parts[refusal.command.min(parts.len() - 1)].session,
            Kind::Create { session, .. }
            | Kind::Header { session, .. }
            | Kind::Close { session, .. }
            | Kind::Tombstone { session, .. }
            | Kind::Archive { session, .. } => *session,
            Kind::Again { .. } | Kind::Read { .. } | Kind::Probe => return,
        };
        let deed = match &refusal.reason {
            Reason::SessionNotFound => Deed::Absent,
            Reason::SessionExists => Deed::Exists,
            Reason::SessionTombstoned => Deed::IsTombstoned,
            Reason::SessionClosed => Deed::IsClosed,
            Reason::ExpectedSeq { current, .. } => Deed::EndsAt(*current),
            Reason::ExpectedVersion { current, .. } => Deed::HasVersion(*current),
            Reason::ProducerSeq { .. }
            | Reason::ProducerReplay { .. }
            | Reason::TooLarge { .. }
            | Reason::NoEvents
            | Reason::TitleTooLong => Deed::Exists,
        };
        self.record_one(from_us, session, deed);
    }

    /// What was refused may still be taken, by an attempt that nobody has answered.
    fn record_late(&mut self, from_us: u64, kind: &Kind) {
        match kind {
            Kind::Header { session, updates: true, .. } => {
                self.checks.history.may_update(*session, from_us);
            }
            Kind::Append { parts, intent: Intent::New | Intent::Conflict | Intent::Gap } => {
                for part in parts {
                    let contents = part.contents.clone();
                    self.checks.history.may_append(part.session, from_us, contents);
                }
            }
            _ => {}
        }
    }

    fn record_one(&mut self, from_us: u64, session: SessionNo, deed: Deed) {
        self.checks.history.answered(session, from_us, self.now_us, deed);
    }
}
