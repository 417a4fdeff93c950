//! Adding events: one rule for a single event and a batch.
//!
//! Checked in this order: the session exists, is not deleted, the write is an exact duplicate
//! (answered even on a closed session and before `expected_seq`, so that a retry of an accepted
//! write always learns its positions), the session is open, `expected_seq`, the producers.
//!
//! A batch is judged per producer. The events of one producer in a batch are its *run*; a run
//! must be contiguous in producer positions. The batch is new when every run is, a duplicate
//! when every run is one and all lie where this batch would have put them, else refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::event::StoredEvent;
use tl_types::limits::{
    BATCH_EVENTS_MAX, EVENT_BYTES_MAX, PRODUCER_AGE_LAG_MAX, PRODUCERS_PER_SESSION_MAX,
};
use tl_types::{ResourceNumber, RowKey, Seq, Table, UnixMs};
use xxhash_rust::xxh3::xxh3_128;

use super::header::SessionState;
use super::producer::{ProducerRow, Verdict, Write};
use super::{Fault, head};
use crate::effect::Effect;
use crate::entry::{Append, ContentHash, NewEvent};
use crate::reply::{Appended, Reason, Reply};
use crate::text::Text;
use crate::view::View;

/// What an envelope may have over the event's own limit: tags, lengths, and the principal that
/// the server adds.
const ENVELOPE_SLACK_BYTES: usize = 8 * 1024;
/// Bytes of an envelope from which on its row is a slice of the entry.
const SLICED_BYTES_MIN: usize = 512;
/// Producers remembered: those promised, and room for ages that lag.
const PRODUCERS_KEPT_MAX: u64 = PRODUCERS_PER_SESSION_MAX + PRODUCER_AGE_LAG_MAX;

/// The events of one producer in one append.
struct Run {
    producer_id: Text,
    /// Producer positions.
    first: u64,
    last: u64,
    /// Positions in the append of its first and last event.
    first_at: usize,
    last_at: usize,
    hash: ContentHash,
    /// What is remembered of the producer.
    row: Option<ProducerRow>,
}

type Runs = SmallVec<[Run; 1]>;

pub(super) fn append(
    view: &mut View<'_>,
    at: UnixMs,
    append: Append,
    raw: &Bytes,
    effects: &mut Vec<Effect>,
) -> Result<Reply, Fault> {
    let (number, mut session) = head::open(view, &append.path)?;
    check_sizes(&append.events)?;
    let head = session.last_seq;
    let (mut runs, broken) = runs_of(&append.events);
    if session.producers > 0 {
        for run in &mut runs {
            run.row = load_producer(view, number, run.producer_id.as_str());
        }
    }
    if broken.is_none()
        && let Some(first_seq) = duplicate_of(&runs)
    {
        return Ok(Reply::Appended(Appended {
            first_seq,
            last_seq: Seq(first_seq.0 + append.events.len() as u64 - 1),
            head_seq: head,
            archived_seq: session.archived_seq,
            deduped: true,
        }));
    }
    if session.state == SessionState::Closed {
        return Err(Reason::SessionClosed.into());
    }
    if let Some(expected) = append.expected_seq
        && expected != head
    {
        return Err(Reason::ExpectedSeq { expected, current: head }.into());
    }
    check_producers(&runs, broken)?;

    let source = sliceable(&append.events, raw);
    for (seq, event) in (head.0 + 1..).zip(&append.events) {
        let row = event_row(at, &event.envelope, source);
        view.put(RowKey::event(number, Seq(seq)), row);
    }
    session.last_seq = Seq(head.0 + append.events.len() as u64);
    remember(view, number, &mut session.producers, runs, head);
    let appended = Appended {
        first_seq: head.next(),
        last_seq: session.last_seq,
        head_seq: session.last_seq,
        archived_seq: session.archived_seq,
        deduped: false,
    };
    session.save(view, number);
    effects.push(Effect::Publish {
        number,
        path: append.path,
        first_seq: appended.first_seq,
        last_seq: appended.last_seq,
    });
    Ok(Reply::Appended(appended))
}

/// The entry, if rows may be slices of it: they keep all of it in memory, so they must be the
/// larger part of it.
fn sliceable<'a>(events: &[NewEvent], raw: &'a Bytes) -> Option<&'a Bytes> {
    let large = events.iter().map(|event| event.envelope.len()).filter(|n| *n >= SLICED_BYTES_MIN);
    (large.sum::<usize>() * 2 >= raw.len()).then_some(raw)
}

/// An event's row: stamp and envelope. Where they stand side by side in the entry, a large row is
/// a slice of it.
fn event_row(at: UnixMs, envelope: &Bytes, source: Option<&Bytes>) -> Bytes {
    let stamp = at.0.to_be_bytes();
    let slice = source.filter(|_| envelope.len() >= SLICED_BYTES_MIN).and_then(|raw| {
        let place = (envelope.as_ptr() as usize).checked_sub(raw.as_ptr() as usize)?;
        let start = place.checked_sub(stamp.len())?;
        let row = raw.get(start..place + envelope.len())?;
        row.starts_with(&stamp).then(|| raw.slice_ref(row))
    });
    slice.unwrap_or_else(|| StoredEvent::encode_row(at, envelope))
}

fn check_sizes(events: &[NewEvent]) -> Result<(), Fault> {
    let (count, max) = (events.len(), BATCH_EVENTS_MAX);
    if count == 0 {
        return Err(Reason::NoEvents.into());
    }
    if count > max {
        let limit = "batch_events_max";
        return Err(Reason::TooLarge { limit, max: max as u64, got: count as u64 }.into());
    }
    for (index, event) in events.iter().enumerate() {
        let got = event.envelope.len();
        if got > EVENT_BYTES_MAX + ENVELOPE_SLACK_BYTES {
            let (limit, max) = ("event_bytes_max", EVENT_BYTES_MAX as u64);
            let reason = Reason::TooLarge { limit, max, got: got as u64 };
            return Err(Fault { event: Some(index), reason });
        }
    }
    Ok(())
}

/// The runs of an append, by first event, and the first event that breaks its run.
fn runs_of(events: &[NewEvent]) -> (Runs, Option<Fault>) {
    let mut runs = Runs::new();
    let mut by_producer = BTreeMap::new();
    let mut newest = 0;
    for (index, event) in events.iter().enumerate() {
        let same = runs.get(newest).is_some_and(|run| run.producer_id == event.producer_id);
        let known = if same { Some(newest) } else { by_producer.get(&event.producer_id).copied() };
        let Some(known) = known else {
            newest = runs.len();
            if events.len() > 1 {
                by_producer.insert(&event.producer_id, newest);
            }
            runs.push(Run {
                producer_id: event.producer_id.clone(),
                first: event.producer_seq,
                last: event.producer_seq,
                first_at: index,
                last_at: index,
                hash: event.hash,
                row: None,
            });
            continue;
        };
        newest = known;
        let run = &mut runs[known];
        let expected = run.last.saturating_add(1);
        if event.producer_seq != expected {
            let reason = Reason::ProducerSeq {
                producer_id: event.producer_id.clone(),
                expected,
                got: event.producer_seq,
            };
            return (runs, Some(Fault { event: Some(index), reason }));
        }
        run.hash = chain(run.hash, index - run.first_at, event.hash);
        run.last = event.producer_seq;
        run.last_at = index;
    }
    (runs, None)
}

/// The hash of a run with one more event. The place in the batch counts too, so that a run
/// which lay differently between other producers' events is not taken for the same write.
fn chain(run: ContentHash, place: usize, event: ContentHash) -> ContentHash {
    let mut bytes = [0; 37];
    bytes[..16].copy_from_slice(&run.value.to_be_bytes());
    bytes[16..20].copy_from_slice(&(place as u32).to_be_bytes());
    bytes[20] = event.algorithm;
    bytes[21..].copy_from_slice(&event.value.to_be_bytes());
    ContentHash { algorithm: run.algorithm, value: xxh3_128(&bytes) }
}

fn load_producer(view: &mut View<'_>, number: ResourceNumber, id: &str) -> Option<ProducerRow> {
    let row = view.get(&RowKey::producer(number, id))?;
    match ProducerRow::decode(&row) {
        Ok(row) => Some(row),
        Err(error) => {
            view.damaged(format!("producer {id:?} of session {number}: {error}"));
            None
        }
    }
}

/// Where the same append landed before, if every run of it did and all still fit together.
fn duplicate_of(runs: &Runs) -> Option<Seq> {
    let mut base = None;
    for run in runs {
        let verdict = run.verdict();
        let Verdict::Duplicate(seq) = verdict else { return None };
        let start = seq.0.checked_sub(run.first_at as u64)?;
        if *base.get_or_insert(start) != start {
            return None;
        }
    }
    base.map(Seq)
}

/// Refuses unless every run is next in line.
fn check_producers(runs: &Runs, broken: Option<Fault>) -> Result<(), Fault> {
    for run in runs {
        let verdict = run.verdict();
        let reason = match verdict {
            Verdict::New => continue,
            // The content of a run that breaks off says nothing.
            Verdict::Replay if broken.is_none() => Reason::ProducerReplay {
                producer_id: run.producer_id.clone(),
                producer_seq: run.first,
            },
            // A duplicate here stands in a batch that as a whole is none.
            Verdict::Duplicate(_) | Verdict::Replay | Verdict::OutOfLine => Reason::ProducerSeq {
                producer_id: run.producer_id.clone(),
                expected: ProducerRow::expected(run.row.as_ref()),
                got: run.first,
            },
        };
        let fault = Fault { event: Some(run.first_at), reason };
        return Err(match broken {
            Some(broken) if broken.event < fault.event => broken,
            Some(_) | None => fault,
        });
    }
    broken.map_or(Ok(()), Err)
}

impl Run {
    fn verdict(&self) -> Verdict {
        ProducerRow::judge(self.row.as_ref(), self.first, self.last, self.hash)
    }
}

/// Remembers each run with its producer, and forgets producers past the limit.
fn remember(
    view: &mut View<'_>,
    number: ResourceNumber,
    producers: &mut u64,
    runs: Runs,
    head: Seq,
) {
    let seq_of = |place: usize| Seq(head.0 + 1 + place as u64);
    for run in runs {
        let id = run.producer_id.as_str();
        let last_seq = seq_of(run.last_at);
        let age_seq = match run.row.as_ref().map(|row| row.age_seq) {
            Some(age_seq) if last_seq.0.saturating_sub(age_seq.0) < PRODUCER_AGE_LAG_MAX => age_seq,
            old => {
                match old {
                    Some(old) => view.delete(RowKey::producer_age(number, old, id)),
                    None => *producers += 1,
                }
                view.put(RowKey::producer_age(number, last_seq, id), Bytes::new());
                last_seq
            }
        };
        let write = Write {
            first: run.first,
            last: run.last,
            first_seq: seq_of(run.first_at),
            hash: run.hash,
        };
        let row = ProducerRow::encode_with(run.row.as_ref(), age_seq, write);
        view.put(RowKey::producer(number, id), row);
    }
    forget_oldest(view, number, producers);
}

/// Drops the producers that wrote longest ago, as far as their ages tell. One append brings at
/// most as many as a batch has events, so this is bounded.
///
/// An age is written anew only when it lags by [`PRODUCER_AGE_LAG_MAX`] events, since two rows
/// per append would be dear. Whoever is dropped has at least [`PRODUCERS_KEPT_MAX`] younger ages
/// behind its own; at most the lag of them stand before its last write, so at least
/// [`PRODUCERS_PER_SESSION_MAX`] other producers have written after it.
fn forget_oldest(view: &mut View<'_>, number: ResourceNumber, producers: &mut u64) {
    let excess = producers.saturating_sub(PRODUCERS_KEPT_MAX);
    if excess == 0 {
        return;
    }
    let start = RowKey::table_start(Table::ProducerAge, number);
    let end = RowKey::table_end(Table::ProducerAge, number);
    let oldest = view.range(&start, &end, excess as usize);
    if oldest.len() as u64 != excess {
        view.damaged(format!("session {number} has fewer producer ages than producers"));
    }
    for (age, _) in oldest {
        match age.rest().get(8..).map(std::str::from_utf8) {
            Some(Ok(id)) => view.delete(RowKey::producer(number, id)),
            Some(Err(_)) | None => {
                view.damaged(format!("producer age of session {number} names no producer"));
            }
        }
        view.delete(age);
    }
    *producers = PRODUCERS_KEPT_MAX;
}
