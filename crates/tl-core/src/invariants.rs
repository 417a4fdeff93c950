//! What must hold of a group's rows between entries. For tests and tools: it reads everything.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tl_types::keys::GroupField;
use tl_types::{ResourceNumber, RowKey, Seq, Table};

use crate::memory::MemoryRows;
use crate::rows::{Read, Rows};
use crate::session::directory::DirectoryRow;
use crate::session::producer::ProducerRow;
use crate::session::{SessionHeader, SessionState};

/// Checks every invariant of a group.
///
/// # Errors
/// The first one that does not hold, in words.
pub fn check(rows: &MemoryRows) -> Result<(), String> {
    let mut tables: BTreeMap<Table, Vec<(&RowKey, &Bytes)>> = BTreeMap::new();
    for (key, value) in rows.iter() {
        tables.entry(key.table()).or_default().push((key, value));
    }
    let table = |table| tables.get(&table).map_or(&[][..], Vec::as_slice);
    let mut named = directory(table(Table::Directory), counter(rows, GroupField::NextNumber, 1)?)?;
    for (key, value) in table(Table::Session) {
        let number = key.number();
        let header = SessionHeader::decode((*value).clone())
            .map_err(|error| format!("header of session {number}: {error}"))?;
        let entry = named.remove(&number).ok_or(format!("session {number} has no name"))?;
        if (entry.listing, entry.state) != (header.listing, header.state) {
            return Err(format!("session {number}: directory and header differ"));
        }
        positions(number, &header, table(Table::Event))?;
        producers(number, &header, table(Table::Producer), table(Table::ProducerAge))?;
    }
    if let Some(number) = named.keys().next() {
        return Err(format!("session {number} has a name but no header"));
    }
    requests(rows, table(Table::Request), table(Table::RequestAge))
}

type TableRows<'a> = &'a [(&'a RowKey, &'a Bytes)];

fn counter(rows: &MemoryRows, field: GroupField, first: u64) -> Result<u64, String> {
    match rows.get(&RowKey::group(field)) {
        Read::Found(row) => match <[u8; 8]>::try_from(&row[..]) {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(format!("{field:?} is not 8 bytes")),
        },
        Read::Absent => Ok(first),
        Read::Cold | Read::Damaged(_) => Err(format!("{field:?} cannot be read")),
    }
}

/// Every name has its own number, given out before.
fn directory(
    table: TableRows<'_>,
    next: u64,
) -> Result<BTreeMap<ResourceNumber, DirectoryRow>, String> {
    let mut named = BTreeMap::new();
    for (key, value) in table {
        let row = DirectoryRow::decode(value)
            .map_err(|error| format!("directory row {key:?}: {error}"))?;
        let number = row.number;
        if number.0 == 0 || number.0 >= next || named.insert(number, row).is_some() {
            return Err(format!("number {number} was not given out once"));
        }
    }
    Ok(named)
}

/// I1 and I2: positions in order, and no hole above the floor.
fn positions(
    number: ResourceNumber,
    header: &SessionHeader,
    events: TableRows<'_>,
) -> Result<(), String> {
    let (floor, archived, last) = (header.floor_seq, header.archived_seq, header.last_seq);
    if floor > archived || archived > last || header.state > SessionState::Tombstoned {
        return Err(format!("session {number}: {floor}, {archived}, {last} are out of order"));
    }
    let held: Vec<Seq> = events
        .iter()
        .filter(|(key, _)| key.number() == number)
        .filter_map(|(key, _)| key.event_seq())
        .filter(|seq| *seq > floor)
        .collect();
    let without_hole = held.iter().copied().eq((floor.0 + 1..=last.0).map(Seq));
    if without_hole {
        Ok(())
    } else {
        Err(format!("session {number} holds {held:?} above {floor}"))
    }
}

/// I3: remembered writes of a producer follow one another, and every producer has its one age.
fn producers(
    number: ResourceNumber,
    header: &SessionHeader,
    producers: TableRows<'_>,
    ages: TableRows<'_>,
) -> Result<(), String> {
    let mut expected_ages = BTreeSet::new();
    for (key, value) in producers.iter().filter(|(key, _)| key.number() == number) {
        let row =
            ProducerRow::decode(value).map_err(|error| format!("producer row {key:?}: {error}"))?;
        let follows = |pair: &[crate::session::producer::Write]| {
            pair[0].last + 1 == pair[1].first && pair[0].first_seq < pair[1].first_seq
        };
        let writes: Vec<_> = row.writes().collect();
        if !writes.windows(2).all(follows) || row.age_seq > header.last_seq {
            return Err(format!("producer row {key:?} is out of order: {row:?}"));
        }
        let id = std::str::from_utf8(key.rest()).map_err(|_| format!("producer row {key:?}"))?;
        expected_ages.insert(RowKey::producer_age(number, row.age_seq, id));
    }
    let ages: BTreeSet<RowKey> = ages
        .iter()
        .filter(|(key, _)| key.number() == number)
        .map(|(key, _)| (*key).clone())
        .collect();
    if expected_ages.len() as u64 != header.producers || ages != expected_ages {
        return Err(format!("session {number}: producers, ages and their number differ"));
    }
    Ok(())
}

/// Every remembered request has its one age, and they are counted.
fn requests(rows: &MemoryRows, requests: TableRows<'_>, ages: TableRows<'_>) -> Result<(), String> {
    let ids: BTreeSet<&[u8]> = requests.iter().map(|(key, _)| key.rest()).collect();
    let aged: BTreeSet<&[u8]> = ages.iter().filter_map(|(key, _)| key.rest().get(8..)).collect();
    let count = counter(rows, GroupField::RequestCount, 0)?;
    if ids != aged || ages.len() != ids.len() || count != ids.len() as u64 {
        return Err("remembered requests, their ages and their number differ".into());
    }
    Ok(())
}
