//! What clients are told, held against what they asked and knew.

use tl_core::reply::Appended;
use tl_core::{Reason, Reply};
use tl_types::Seq;

use super::World;
use crate::invariants::{Checked, SessionNo, Violation, requests};
use crate::workload::{Intent, Kind, Part, Write};

const DEDUPE: &str = "a retry is recognised";

impl World {
    /// Every command of the entry has a reply.
    pub(super) fn accepted(
        &mut self,
        client: usize,
        kind: Kind,
        entry: Vec<u8>,
        replies: &[Reply],
    ) -> Checked {
        let odd = || {
            let what = format!("client {client} asked for {kind:?} and was told {replies:?}");
            Violation::new("an answer fits its question", what)
        };
        match (&kind, replies) {
            (Kind::Create { session, known, incarnation }, [Reply::Session(row)]) => {
                if row.header.incarnation != *incarnation {
                    return Err(odd());
                }
                self.checks.linearizable.row(*session, known, Some(&row.header))?;
                self.workload.clients[client].request = Some((*session, entry, replies.to_vec()));
            }
            (Kind::Header { session, known, .. }, [Reply::Session(row)]) => {
                self.checks.linearizable.row(*session, known, Some(&row.header))?;
                self.workload.clients[client].request = Some((*session, entry, replies.to_vec()));
            }
            (Kind::Again { first }, replies) => {
                requests::repeated(client, first, replies)?;
                self.coverage.requests_repeated += 1;
            }
            (Kind::Close { session, known }, [Reply::Session(row)]) => {
                self.checks.linearizable.row(*session, known, Some(&row.header))?;
                self.coverage.closed += 1;
            }
            (Kind::Tombstone { session, .. }, [Reply::Done]) => {
                self.checks.linearizable.told_tombstoned(*session);
                self.coverage.tombstoned += 1;
            }
            (Kind::Archive { .. }, [Reply::Done, Reply::Done]) => self.coverage.trims += 1,
            (Kind::Probe, [Reply::Ticked { .. }]) => {}
            (Kind::Append { parts, intent }, replies) if replies.len() == parts.len() => {
                let mut told = Vec::new();
                for reply in replies {
                    let Reply::Appended(appended) = reply else { return Err(odd()) };
                    told.push(*appended);
                }
                self.appended(client, parts, intent, entry, &told)?;
            }
            (
                Kind::Create { .. }
                | Kind::Header { .. }
                | Kind::Close { .. }
                | Kind::Tombstone { .. }
                | Kind::Archive { .. }
                | Kind::Read { .. }
                | Kind::Probe
                | Kind::Append { .. },
                _,
            ) => return Err(odd()),
        }
        Ok(())
    }

    fn appended(
        &mut self,
        client: usize,
        parts: &[Part],
        intent: &Intent,
        entry: Vec<u8>,
        told: &[Appended],
    ) -> Checked {
        let broken = |what: &str| {
            let what = format!("client {client}, {intent:?} of {parts:?}: {what}: {told:?}");
            Err(Violation::new(DEDUPE, what))
        };
        let first_seqs: Vec<Seq> = told.iter().map(|appended| appended.first_seq).collect();
        match intent {
            Intent::New => {}
            Intent::Repeat(first) => {
                if told.iter().any(|appended| !appended.deduped) {
                    return broken("an acknowledged write was taken again");
                }
                if first_seqs != *first {
                    return broken("other positions than the first time");
                }
            }
            Intent::Conflict => return broken("a used position was taken with other content"),
            Intent::Gap => return broken("a position was left out and nobody minded"),
        }
        for (part, appended) in parts.iter().zip(told) {
            self.checks.linearizable.appended(
                part.session,
                &part.known,
                appended,
                part.expected,
            )?;
            self.coverage.dedupe_hits += u64::from(appended.deduped);
            if appended.last_seq.0 + 1 - appended.first_seq.0 != part.contents.len() as u64 {
                return broken("not as many positions as events");
            }
            for (seq, content) in (appended.first_seq.0..).map(Seq).zip(&part.contents) {
                self.checks.acknowledged.told(part.session, seq, *content)?;
            }
            if matches!(intent, Intent::New) {
                let done = part.contents.len() as u64;
                self.workload.clients[client].producer(part.session).done += done;
            }
        }
        if matches!(intent, Intent::New) {
            self.coverage.commits += u64::from(parts.len() > 1);
            self.workload.clients[client].keep(Write { entry, parts: parts.to_vec(), first_seqs });
        }
        Ok(())
    }

    /// An operation was refused. `settled` says that no other attempt of it may take effect.
    pub(super) fn refused(
        &mut self,
        client: usize,
        kind: &Kind,
        command: usize,
        reason: &Reason,
        settled: bool,
    ) -> Checked {
        let lied = |promise: &'static str| {
            let what = format!("client {client} asked for {kind:?} and was refused: {reason:?}");
            Err(Violation::new(promise, what))
        };
        let (session, known) = match kind {
            Kind::Create { session, known, incarnation } => {
                // It would have been answered with the row that its own first attempt made.
                if matches!(reason, Reason::SessionExists) && self.is_of(*session, *incarnation)? {
                    return lied("a repeated request gets its first reply");
                }
                (*session, *known)
            }
            Kind::Append { parts, intent } => {
                self.refused_append(client, parts, intent, reason, settled)?;
                let part = &parts[command.min(parts.len() - 1)];
                (part.session, part.known)
            }
            Kind::Again { .. } => return lied("a repeated request gets its first reply"),
            Kind::Header { session, known, .. }
            | Kind::Close { session, known }
            | Kind::Tombstone { session, known }
            | Kind::Archive { session, known } => (*session, *known),
            Kind::Read { .. } | Kind::Probe => return lied("an answer fits its question"),
        };
        self.checks.linearizable.refused(session, &known, reason)
    }

    fn refused_append(
        &mut self,
        client: usize,
        parts: &[Part],
        intent: &Intent,
        reason: &Reason,
        settled: bool,
    ) -> Checked {
        let out_of_line =
            matches!(reason, Reason::ProducerSeq { .. } | Reason::ProducerReplay { .. });
        self.coverage.expectations_refused +=
            u64::from(matches!(reason, Reason::ExpectedSeq { .. }));
        self.coverage.conflicts_refused += u64::from(out_of_line);
        let lie = match intent {
            Intent::New => out_of_line,
            Intent::Repeat(_) => !matches!(reason, Reason::SessionTombstoned),
            Intent::Conflict | Intent::Gap => false,
        };
        if lie {
            let what = format!("client {client}, {intent:?} of {parts:?} was refused: {reason:?}");
            return Err(Violation::new(DEDUPE, what));
        }
        match intent {
            Intent::Repeat(_) => {}
            Intent::New | Intent::Conflict | Intent::Gap if settled => {
                for content in parts.iter().flat_map(|part| &part.contents) {
                    self.checks.origins.refused(*content);
                }
            }
            Intent::New | Intent::Conflict | Intent::Gap => {
                // An earlier attempt may still be taken: these producers are not used again.
                for part in parts {
                    let producer = self.workload.clients[client].producer(part.session);
                    producer.generation += 1;
                    producer.done = 0;
                }
            }
        }
        Ok(())
    }

    /// Whether a session was made by the entry with this incarnation, as far as machine rows say.
    fn is_of(
        &mut self,
        session: SessionNo,
        incarnation: tl_types::Incarnation,
    ) -> Result<bool, Violation> {
        for machine in 0..self.plan.machines {
            if let Some(row) = self.find_sound(machine, session)? {
                return Ok(row.header.incarnation == incarnation);
            }
        }
        Ok(false)
    }
}
