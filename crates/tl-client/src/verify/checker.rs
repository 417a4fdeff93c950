//! Holding readings against a ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use tl_types::Seq;

use super::ledger::{Ledger, Reading, Sighting};
use crate::content::ContentHash;

/// Findings described in a report, per kind; the rest are only counted.
pub const FINDINGS_KEPT_MAX: usize = 20;

/// What is wrong with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// Acknowledged and not there.
    Lost,
    /// One producer position stands at two positions, or one position was read twice.
    Doubled,
    /// Out of order: by position, or within its producer.
    Reordered,
    /// Positions before this one are missing.
    Gap,
    /// Not the content that was sent, or not what another reader saw.
    Different,
    /// Acknowledged at another position.
    Moved,
    /// A batch is there in part, or not side by side.
    Torn,
    /// Nobody attempted it.
    Stranger,
}

impl FindingKind {
    /// The word for reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            FindingKind::Lost => "lost",
            FindingKind::Doubled => "doubled",
            FindingKind::Reordered => "reordered",
            FindingKind::Gap => "gap",
            FindingKind::Different => "different content",
            FindingKind::Moved => "moved",
            FindingKind::Torn => "torn batch",
            FindingKind::Stranger => "never sent",
        }
    }
}

/// One thing found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// Where.
    pub session: Arc<str>,
    /// At which position; 0 for a lost event of unknown position.
    pub seq: Seq,
    /// Whose event.
    pub producer_id: Box<str>,
    /// Which of its events.
    pub producer_seq: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { kind, session, seq, producer_id, producer_seq } = self;
        let kind = kind.word();
        write!(f, "{kind}: session {session} seq {seq} producer {producer_id} {producer_seq}")
    }
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Sessions read.
    pub sessions: u64,
    /// Events acknowledged, by the ledger.
    pub acknowledged: u64,
    /// Events that stand in the sessions.
    pub present: u64,
    /// Events that are there although their write was never acknowledged: allowed, once each.
    pub unacknowledged_present: u64,
    /// How many findings of each kind.
    pub counts: BTreeMap<FindingKind, u64>,
    /// The first findings of each kind.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many findings of one kind.
    #[must_use]
    pub fn count(&self, kind: FindingKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    fn find(&mut self, kind: FindingKind, session: &Arc<str>, at: &Sighting) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= FINDINGS_KEPT_MAX as u64 {
            self.findings.push(Finding {
                kind,
                session: session.clone(),
                seq: at.seq,
                producer_id: at.producer_id.clone(),
                producer_seq: at.producer_seq,
            });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sessions, {} events acknowledged, {} present ({} of them never acknowledged), {} lost, {} doubled",
            self.sessions,
            self.acknowledged,
            self.present,
            self.unacknowledged_present,
            self.count(FindingKind::Lost),
            self.count(FindingKind::Doubled),
        )?;
        let others = self
            .counts
            .iter()
            .filter(|(kind, _)| !matches!(kind, FindingKind::Lost | FindingKind::Doubled));
        for (kind, count) in others {
            write!(f, ", {count} {}", kind.word())?;
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

/// Where an event was expected.
struct Expected {
    hash: ContentHash,
    seq: Option<Seq>,
}

/// The events of one write, for the all-or-none rule.
struct Batch {
    producer_id: Arc<str>,
    producer_seq: u64,
    events: u64,
}

#[derive(Default)]
struct SessionCheck {
    expected: HashMap<Box<str>, BTreeMap<u64, Expected>>,
    batches: Vec<Batch>,
    /// What readers agreed on so far.
    known: HashMap<Seq, Sighting>,
}

/// Holds readings against a ledger, session by session.
pub struct Checker {
    sessions: BTreeMap<Arc<str>, SessionCheck>,
    report: Report,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Checker {
    /// A checker of everything in the ledger.
    #[must_use]
    pub fn new(ledger: &Ledger) -> Checker {
        let mut sessions: BTreeMap<Arc<str>, SessionCheck> = BTreeMap::new();
        for write in ledger.writes() {
            let check = sessions.entry(write.session.clone()).or_default();
            let of_producer = check.expected.entry((*write.producer_id).into()).or_default();
            for (at, hash) in (0u64..).zip(&write.hashes) {
                let seq = write.first_seq.map(|first| Seq(first.0 + at));
                of_producer.insert(write.producer_seq + at, Expected { hash: *hash, seq });
            }
            if write.hashes.len() > 1 {
                check.batches.push(Batch {
                    producer_id: write.producer_id.clone(),
                    producer_seq: write.producer_seq,
                    events: write.hashes.len() as u64,
                });
            }
        }
        let acknowledged = ledger.acknowledged_events();
        Checker { sessions, report: Report { acknowledged, ..Report::default() } }
    }

    /// The sessions that the ledger knows.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<str>> {
        self.sessions.keys().cloned().collect()
    }

    /// Takes a reading that need not reach the end, such as a tail that was watched for a while.
    pub fn partial(&mut self, reading: &Reading) {
        let check = self.sessions.entry(reading.session.clone()).or_default();
        in_order(check, reading, &mut self.report);
    }

    /// Takes a reading of a whole session, made after all writes: what is missing in it is lost.
    pub fn complete(&mut self, reading: &Reading) {
        let check = self.sessions.entry(reading.session.clone()).or_default();
        in_order(check, reading, &mut self.report);
        all_there(check, reading, &mut self.report);
    }

    /// The verdict over everything taken so far.
    #[must_use]
    pub fn report(self) -> Report {
        self.report
    }
}

/// Order, doubles, content and agreement with other readings.
fn in_order(check: &mut SessionCheck, reading: &Reading, report: &mut Report) {
    let session = &reading.session;
    let mut last = reading.from;
    let mut last_of: HashMap<&str, u64> = HashMap::new();
    let mut positions: HashSet<(&str, u64)> = HashSet::new();
    for seen in &reading.sightings {
        let first_time = positions.insert((&seen.producer_id, seen.producer_seq));
        let before = last_of.entry(&seen.producer_id).or_insert(0);
        let in_producer_order = seen.producer_seq > *before;
        *before = seen.producer_seq.max(*before);
        if !first_time {
            report.find(FindingKind::Doubled, session, seen);
        } else if seen.seq <= last || !in_producer_order {
            report.find(FindingKind::Reordered, session, seen);
        } else if seen.seq != last.next() {
            report.find(FindingKind::Gap, session, seen);
        }
        last = last.max(seen.seq);

        let of_producer = check.expected.get(&seen.producer_id);
        match of_producer.and_then(|known| known.get(&seen.producer_seq)) {
            None => report.find(FindingKind::Stranger, session, seen),
            Some(expected) if expected.hash != seen.hash => {
                report.find(FindingKind::Different, session, seen);
            }
            Some(expected) if expected.seq.is_some_and(|seq| seq != seen.seq) => {
                // The second of two is already counted as doubled.
                if first_time {
                    report.find(FindingKind::Moved, session, seen);
                }
            }
            Some(_) => {}
        }
        let agreed = check.known.entry(seen.seq).or_insert_with(|| seen.clone());
        if agreed != seen {
            report.find(FindingKind::Different, session, seen);
        }
    }
}

/// Everything acknowledged is there, and batches are whole.
fn all_there(check: &SessionCheck, reading: &Reading, report: &mut Report) {
    let session = &reading.session;
    let mut present: HashMap<(&str, u64), Seq> = HashMap::new();
    for seen in &reading.sightings {
        present.entry((&seen.producer_id, seen.producer_seq)).or_insert(seen.seq);
    }
    for (producer_id, events) in &check.expected {
        for (&producer_seq, expected) in events {
            let there = present.contains_key(&(&**producer_id, producer_seq));
            match (expected.seq, there) {
                (Some(seq), false) => {
                    let (producer_id, hash) = (producer_id.clone(), expected.hash);
                    let lost = Sighting { seq, producer_id, producer_seq, hash };
                    report.find(FindingKind::Lost, session, &lost);
                }
                (None, true) => report.unacknowledged_present += 1,
                (Some(_), true) | (None, false) => {}
            }
        }
    }
    for batch in &check.batches {
        let places: Vec<Option<Seq>> = (batch.producer_seq..batch.producer_seq + batch.events)
            .map(|position| present.get(&(&*batch.producer_id, position)).copied())
            .collect();
        let side_by_side =
            places.windows(2).all(|pair| pair[0].map(Seq::next) == pair[1] || pair == [None, None]);
        if !side_by_side {
            let torn = Sighting {
                seq: places.iter().flatten().next().copied().unwrap_or_default(),
                producer_id: (*batch.producer_id).into(),
                producer_seq: batch.producer_seq,
                hash: ContentHash(0),
            };
            report.find(FindingKind::Torn, session, &torn);
        }
    }
    report.sessions += 1;
    report.present += reading.sightings.len() as u64;
}

#[cfg(test)]
mod tests;
