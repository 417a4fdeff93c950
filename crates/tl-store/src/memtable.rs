//! The memtable: rows written since the last rotation.
//!
//! ```text
//!   (group, generation) ─► span ─► slot of a number ─► header, events first_seq.., producers
//!                               ├► counters of the group
//!                               └► plain ordered map: every other table, events out of order,
//!                                  producers past the first few of a session
//! ```
//!
//! Appends are what a session sees most: the four rows that one writes are found by index
//! arithmetic, one look-up by number and a short search, and a row that changes is overwritten
//! in place instead of piling up versions. Values are kept as given, never copied.
//!
//! Invariants:
//!  - M1 a row is in one place: an event is in its vector or in the plain map, never in both,
//!    and so is a producer.
//!  - M2 a vector of events has no holes: its seqs are `first_seq ..` and one more for each item.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use rustc_hash::FxBuildHasher;
use tl_types::keys::ROW_HEAD_BYTES;
use tl_types::{Generation, GroupId, ResourceNumber, RowKey, Seq, Table};

use crate::applied::Applied;

/// Bytes counted for a row beyond its key and value: map and vector entries, the handle.
const ROW_OVERHEAD_BYTES: usize = 64;
/// Bytes counted for an event's key: it is not stored, its place in the vector is.
const EVENT_KEY_BYTES: usize = 0;
/// Producers kept with their session; most sessions have fewer.
const PRODUCERS_NEAR_MAX: usize = 4;

/// A row as a memtable holds it: a value, or `None` for a delete.
pub(crate) type Slot = Option<Bytes>;

/// Rows by group and generation, and how far each group's rows follow its log.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memtable {
    /// By group number; the generations of a group, nearly always one, in order.
    spans: Vec<Vec<(Generation, Span)>>,
    applied: Vec<Applied>,
    bytes: usize,
    touched: bool,
}

impl Memtable {
    /// An empty memtable that continues from these applied indexes.
    pub(crate) fn following(applied: Vec<Applied>) -> Memtable {
        Memtable { applied, ..Memtable::default() }
    }

    /// Puts one row in place, over what was there.
    pub(crate) fn put(&mut self, group: GroupId, generation: Generation, key: RowKey, value: Slot) {
        let span = self.span_mut(group, generation);
        let (added, removed) = span.put(key, value);
        self.bytes = (self.bytes + added).saturating_sub(removed);
        self.touched = true;
    }

    fn span(&self, group: GroupId, generation: Generation) -> Option<&Span> {
        let spans = self.spans.get(usize::from(group.0))?;
        spans.iter().find(|(of, _)| *of == generation).map(|(_, span)| span)
    }

    fn span_mut(&mut self, group: GroupId, generation: Generation) -> &mut Span {
        let at = usize::from(group.0);
        if at >= self.spans.len() {
            self.spans.resize_with(at + 1, Vec::new);
        }
        let spans = &mut self.spans[at];
        let at = spans.partition_point(|(of, _)| *of < generation);
        if spans.get(at).is_none_or(|(of, _)| *of != generation) {
            spans.insert(at, (generation, Span::default()));
        }
        &mut spans[at].1
    }

    /// Notes the last entry applied to a group.
    pub(crate) fn set_applied(&mut self, group: GroupId, applied: Applied) {
        let at = usize::from(group.0);
        if at >= self.applied.len() {
            self.applied.resize(at + 1, Applied::default());
        }
        self.applied[at] = applied;
        self.touched = true;
    }

    /// Notes that rows of this span came by themselves, not by entries in their order.
    pub(crate) fn set_loaded(&mut self, group: GroupId, generation: Generation) {
        self.span_mut(group, generation).is_loaded = true;
        self.touched = true;
    }

    /// The generations of a group that were written here.
    pub(crate) fn generations(&self, group: GroupId) -> impl Iterator<Item = Generation> + '_ {
        let spans = self.spans.get(usize::from(group.0)).into_iter().flatten();
        spans.map(|(generation, _)| *generation)
    }

    pub(crate) fn applied(&self, group: GroupId) -> Applied {
        self.applied.get(usize::from(group.0)).copied().unwrap_or_default()
    }

    /// Applied indexes by group number.
    pub(crate) fn all_applied(&self) -> &[Applied] {
        &self.applied
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether anything was written here.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched
    }

    /// The row, if it was written here: `Some(None)` is a delete.
    pub(crate) fn get(
        &self,
        group: GroupId,
        generation: Generation,
        key: &RowKey,
    ) -> Option<&Slot> {
        self.span(group, generation)?.get(key)
    }

    /// At most `limit` rows from `start` to `end` (exclusive), in order.
    pub(crate) fn chunk(
        &self,
        group: GroupId,
        generation: Generation,
        start: Bound<&RowKey>,
        end: &RowKey,
        limit: usize,
    ) -> Vec<(RowKey, Slot)> {
        match self.span(group, generation) {
            Some(span) => span.rows(start, Bound::Excluded(end)).take(limit).collect(),
            None => Vec::new(),
        }
    }

    /// The seqs of the vector of events of a session, `first..next`, if there is one and it came
    /// by entries: of loaded rows nobody knows which came before.
    pub(crate) fn event_seqs(
        &self,
        group: GroupId,
        generation: Generation,
        number: ResourceNumber,
    ) -> Option<(Seq, Seq)> {
        let span = self.span(group, generation).filter(|span| !span.is_loaded)?;
        let session = span.session(number)?;
        let count = session.events.len() as u64;
        (count > 0).then(|| (Seq(session.first_seq), Seq(session.first_seq + count)))
    }

    /// Whether the row is one of the group's own or of a session that got events here. Of a
    /// session that was only made or changed nobody knows that it is needed again soon.
    pub(crate) fn is_active(&self, group: GroupId, generation: Generation, key: &RowKey) -> bool {
        match key.table() {
            Table::Group => true,
            Table::Session | Table::Producer => self
                .span(group, generation)
                .and_then(|span| span.session(key.number()))
                .is_some_and(|session| !session.events.is_empty()),
            _ => false,
        }
    }

    /// All rows in key order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (GroupId, Generation, RowKey, Slot)> + '_ {
        (0..).map(GroupId).zip(&self.spans).flat_map(|(group, spans)| {
            spans.iter().flat_map(move |&(generation, ref span)| {
                span.rows(Bound::Unbounded, Bound::Unbounded)
                    .map(move |(key, value)| (group, generation, key, value))
            })
        })
    }
}

/// Rows of one group and generation.
#[derive(Debug, Default, Clone)]
struct Span {
    sessions: Vec<Session>,
    by_number: HashMap<u64, u32, FxBuildHasher>,
    in_order: BTreeMap<u64, u32>,
    /// Rows of the `Group` table, in order.
    counters: Vec<(RowKey, Slot)>,
    plain: BTreeMap<RowKey, Slot>,
    /// Events in `plain`; while there is none, an append need not look there.
    plain_events: usize,
    is_loaded: bool,
}

/// What the memtable has of one session.
#[derive(Debug, Default, Clone)]
struct Session {
    header: Option<Slot>,
    first_seq: u64,
    events: Vec<Slot>,
    /// In order of their keys; the first few that were written, the others are plain rows.
    producers: Vec<(RowKey, Slot)>,
}

impl Span {
    fn session(&self, number: ResourceNumber) -> Option<&Session> {
        Some(&self.sessions[*self.by_number.get(&number.0)? as usize])
    }

    fn session_mut(&mut self, number: ResourceNumber) -> &mut Session {
        let next = self.sessions.len() as u32;
        let at = *self.by_number.entry(number.0).or_insert(next);
        if at == next {
            self.in_order.insert(number.0, at);
            self.sessions.push(Session::default());
        }
        &mut self.sessions[at as usize]
    }

    fn get(&self, key: &RowKey) -> Option<&Slot> {
        match place_of(key) {
            Place::Header(number) => self.session(number)?.header.as_ref(),
            Place::Event(number, seq) => self
                .session(number)
                .and_then(|session| session.event(seq))
                .or_else(|| self.plain.get(key)),
            Place::Producer(number) => {
                let session = self.session(number)?;
                let near = find(&session.producers, key).ok().map(|at| &session.producers[at].1);
                // While there is room near the session, no producer of it is anywhere else.
                near.or_else(|| session.has_far_producers().then(|| self.plain.get(key))?)
            }
            Place::Counter => find(&self.counters, key).ok().map(|at| &self.counters[at].1),
            Place::Plain => self.plain.get(key),
        }
    }

    /// Puts a row; returns the bytes added and those freed.
    fn put(&mut self, key: RowKey, value: Slot) -> (usize, usize) {
        let value_bytes = slot_bytes(&value);
        match place_of(&key) {
            Place::Header(number) => {
                let old = self.session_mut(number).header.replace(value);
                swapped(ROW_HEAD_BYTES, value_bytes, old.as_ref())
            }
            Place::Event(number, seq) => self.put_event(key, number, seq, value),
            Place::Producer(number) => {
                let producers = &mut self.session_mut(number).producers;
                match find(producers, &key) {
                    Err(_) if producers.len() >= PRODUCERS_NEAR_MAX => self.put_plain(key, value),
                    found => put_at(producers, found, key, value),
                }
            }
            Place::Counter => {
                let found = find(&self.counters, &key);
                put_at(&mut self.counters, found, key, value)
            }
            Place::Plain => self.put_plain(key, value),
        }
    }

    fn put_plain(&mut self, key: RowKey, value: Slot) -> (usize, usize) {
        let (key_bytes, value_bytes) = (key.as_bytes().len(), slot_bytes(&value));
        let old = self.plain.insert(key, value);
        swapped(key_bytes, value_bytes, old.as_ref())
    }

    fn put_event(
        &mut self,
        key: RowKey,
        number: ResourceNumber,
        seq: Seq,
        value: Slot,
    ) -> (usize, usize) {
        let value_bytes = slot_bytes(&value);
        let key_bytes = key.as_bytes().len();
        let session = self.session_mut(number);
        if session.events.is_empty() {
            session.first_seq = seq.0;
        }
        match seq.0.checked_sub(session.first_seq).map(|at| at as usize) {
            Some(at) if at < session.events.len() => {
                let old = std::mem::replace(&mut session.events[at], value);
                swapped(EVENT_KEY_BYTES, value_bytes, Some(&old))
            }
            Some(at) if at == session.events.len() => {
                session.events.push(value);
                let stray = if self.plain_events > 0 { self.plain.remove(&key) } else { None };
                let freed = stray.map_or(0, |old| {
                    self.plain_events -= 1;
                    key_bytes + slot_bytes(&old) + ROW_OVERHEAD_BYTES
                });
                (EVENT_KEY_BYTES + value_bytes + ROW_OVERHEAD_BYTES, freed)
            }
            _ => {
                let old = self.plain.insert(key, value);
                self.plain_events += usize::from(old.is_none());
                swapped(key_bytes, value_bytes, old.as_ref())
            }
        }
    }

    /// Rows in key order: plain ones merged with those of sessions, behind the group's counters.
    fn rows<'a>(
        &'a self,
        start: Bound<&'a RowKey>,
        end: Bound<&'a RowKey>,
    ) -> impl Iterator<Item = (RowKey, Slot)> + 'a {
        let mut plain = self
            .plain
            .range::<RowKey, _>(ordered(start, end))
            .map(|(key, value)| (key.clone(), value.clone()))
            .peekable();
        let mut sessions = self.session_rows(start, end).peekable();
        let counters = self.counters.iter().cloned();
        within(counters, start, end).chain(std::iter::from_fn(move || {
            match (plain.peek(), sessions.peek()) {
                (Some((left, _)), Some((right, _))) if left < right => plain.next(),
                (Some(_), None) => plain.next(),
                _ => sessions.next(),
            }
        }))
    }

    fn session_rows<'a>(
        &'a self,
        start: Bound<&'a RowKey>,
        end: Bound<&'a RowKey>,
    ) -> impl Iterator<Item = (RowKey, Slot)> + 'a {
        let headers = self.numbers_from(start, Table::Session).filter_map(|(number, session)| {
            let header = session.header.as_ref()?;
            Some((RowKey::session(number), header.clone()))
        });
        let events = self.numbers_from(start, Table::Event).flat_map(move |(number, session)| {
            let skip = first_wanted(start, number).saturating_sub(session.first_seq);
            let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(session.events.len());
            session.events[skip..].iter().enumerate().map(move |(at, value)| {
                let seq = Seq(session.first_seq + (skip + at) as u64);
                (RowKey::event(number, seq), value.clone())
            })
        });
        let producers = self
            .numbers_from(start, Table::Producer)
            .flat_map(|(_, session)| session.producers.iter().cloned());
        within(headers.chain(events).chain(producers), start, end)
    }

    /// Sessions in order of number, from the first that may have rows of `table` in range.
    fn numbers_from(
        &self,
        start: Bound<&RowKey>,
        table: Table,
    ) -> impl Iterator<Item = (ResourceNumber, &Session)> {
        let from = first_number(start, table);
        let numbers = from.map(|from| self.in_order.range(from..));
        numbers
            .into_iter()
            .flatten()
            .map(|(&number, &at)| (ResourceNumber(number), &self.sessions[at as usize]))
    }
}

impl Session {
    fn event(&self, seq: Seq) -> Option<&Slot> {
        let at = usize::try_from(seq.0.checked_sub(self.first_seq)?).ok()?;
        self.events.get(at)
    }

    /// Whether there may be producers of this session among the plain rows.
    fn has_far_producers(&self) -> bool {
        self.producers.len() >= PRODUCERS_NEAR_MAX
    }
}

/// Of rows in key order, those in range.
fn within<'a>(
    rows: impl Iterator<Item = (RowKey, Slot)> + 'a,
    start: Bound<&'a RowKey>,
    end: Bound<&'a RowKey>,
) -> impl Iterator<Item = (RowKey, Slot)> + 'a {
    rows.skip_while(move |(key, _)| is_before(key, start))
        .take_while(move |(key, _)| !is_behind(key, end))
}

/// The place of a key in a short list in key order.
fn find(rows: &[(RowKey, Slot)], key: &RowKey) -> Result<usize, usize> {
    rows.binary_search_by(|(of, _)| of.cmp(key))
}

/// Puts a row where [`find`] said; returns the bytes added and those freed.
fn put_at(
    rows: &mut Vec<(RowKey, Slot)>,
    found: Result<usize, usize>,
    key: RowKey,
    value: Slot,
) -> (usize, usize) {
    let (key_bytes, value_bytes) = (key.as_bytes().len(), slot_bytes(&value));
    let old = match found {
        Ok(at) => Some(std::mem::replace(&mut rows[at].1, value)),
        Err(at) => {
            rows.insert(at, (key, value));
            None
        }
    };
    swapped(key_bytes, value_bytes, old.as_ref())
}

/// Where a row lives.
enum Place {
    Header(ResourceNumber),
    Event(ResourceNumber, Seq),
    Producer(ResourceNumber),
    Counter,
    Plain,
}

fn place_of(key: &RowKey) -> Place {
    match key.table() {
        Table::Session if key.rest().is_empty() => Place::Header(key.number()),
        Table::Event => match key.event_seq() {
            Some(seq) => Place::Event(key.number(), seq),
            None => Place::Plain,
        },
        Table::Producer => Place::Producer(key.number()),
        Table::Group => Place::Counter,
        _ => Place::Plain,
    }
}

fn slot_bytes(slot: &Slot) -> usize {
    slot.as_ref().map_or(0, Bytes::len)
}

/// Bytes added and freed when a value takes the place of an old one, or a new row is made.
fn swapped(key_bytes: usize, value_bytes: usize, old: Option<&Slot>) -> (usize, usize) {
    match old {
        Some(old) => (value_bytes, slot_bytes(old)),
        None => (key_bytes + value_bytes + ROW_OVERHEAD_BYTES, 0),
    }
}

/// Bounds that a map accepts: a start behind the end would make it panic.
fn ordered<'a>(
    start: Bound<&'a RowKey>,
    end: Bound<&'a RowKey>,
) -> (Bound<&'a RowKey>, Bound<&'a RowKey>) {
    match (start, end) {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) if from >= to => {
            (Bound::Included(to), Bound::Excluded(to))
        }
        _ => (start, end),
    }
}

fn is_before(key: &RowKey, start: Bound<&RowKey>) -> bool {
    match start {
        Bound::Included(start) => key < start,
        Bound::Excluded(start) => key <= start,
        Bound::Unbounded => false,
    }
}

fn is_behind(key: &RowKey, end: Bound<&RowKey>) -> bool {
    match end {
        Bound::Included(end) => key > end,
        Bound::Excluded(end) => key >= end,
        Bound::Unbounded => false,
    }
}

/// The table byte and the number of a bound; ends of ranges may be shorter than a row key.
fn head(bound: &RowKey) -> (u8, u64) {
    let bytes = bound.as_bytes();
    let mut number = [0; 8];
    let present = bytes.get(1..).unwrap_or(&[]);
    let length = present.len().min(number.len());
    number[..length].copy_from_slice(&present[..length]);
    (bytes.first().copied().unwrap_or(0), u64::from_be_bytes(number))
}

/// The first number whose rows of `table` may be at or behind `start`; `None` when none are.
fn first_number(start: Bound<&RowKey>, table: Table) -> Option<u64> {
    let (Bound::Included(start) | Bound::Excluded(start)) = start else { return Some(0) };
    let (at, number) = head(start);
    match at.cmp(&(table as u8)) {
        std::cmp::Ordering::Less => Some(0),
        std::cmp::Ordering::Equal => Some(number),
        std::cmp::Ordering::Greater => None,
    }
}

/// The first seq of this session that may be at or behind `start`.
fn first_wanted(start: Bound<&RowKey>, number: ResourceNumber) -> u64 {
    let (Bound::Included(start) | Bound::Excluded(start)) = start else { return 0 };
    if head(start) != (Table::Event as u8, number.0) || start.as_bytes().len() < ROW_HEAD_BYTES {
        return 0;
    }
    start.event_seq().map_or(0, |seq| seq.0)
}

#[cfg(test)]
mod tests;
