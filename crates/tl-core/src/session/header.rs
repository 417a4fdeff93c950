//! A session's header row: `version u8 ‖ tagged fields`.
//!
//! Numbers that are zero are left out, so the row of an idle session stays small. Unknown tags
//! are kept out of the decoded form but a rewrite would lose them: a field that must survive
//! an older release takes a new version byte.

use bytes::Bytes;
use tl_types::bytes_codec::{DecodeError, Scan, put_field};
use tl_types::{Incarnation, ResourceNumber, ResourcePath, Seq, UnixMs};

use crate::metadata::Metadata;
use crate::text::Text;

const VERSION: u8 = 1;

/// Most bytes of a header beside its texts.
const NUMBERS_BYTES_MAX: usize = 128;

/// Field tags. Numbers once given out are never reused.
pub(super) mod tag {
    pub const INCARNATION: u8 = 1;
    pub const TITLE: u8 = 2;
    pub const METADATA: u8 = 3;
    pub const CREATOR: u8 = 4;
    pub const CREATED_AT: u8 = 5;
    pub const UPDATED_AT: u8 = 6;
    pub const HEADER_VERSION: u8 = 7;
    pub const LISTING: u8 = 8;
    pub const STATE: u8 = 9;
    pub const LAST_SEQ: u8 = 10;
    pub const ARCHIVED_SEQ: u8 = 11;
    pub const FLOOR_SEQ: u8 = 12;
    pub const PRODUCERS: u8 = 13;
}

/// Whether default lists show a session. Numbers are stored and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Listing {
    /// Shown.
    #[default]
    Active = 0,
    /// Hidden; everything else works as before.
    Archived = 1,
}

impl Listing {
    /// The listing with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Listing> {
        match number {
            0 => Some(Listing::Active),
            1 => Some(Listing::Archived),
            _ => None,
        }
    }
}

/// Where a session is in its life; it only moves down. Numbers are stored and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum SessionState {
    /// Takes events.
    #[default]
    Active = 0,
    /// Readable, takes no more events.
    Closed = 1,
    /// Deleted; the name stays taken.
    Tombstoned = 2,
}

impl SessionState {
    /// The word used on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            SessionState::Active => "active",
            SessionState::Closed => "closed",
            SessionState::Tombstoned => "tombstoned",
        }
    }

    /// The state with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<SessionState> {
        match number {
            0 => Some(SessionState::Active),
            1 => Some(SessionState::Closed),
            2 => Some(SessionState::Tombstoned),
            _ => None,
        }
    }
}

/// A session's header, decoded; fields stand in the order in which the wire shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionHeader {
    /// This life of the name.
    pub incarnation: Incarnation,
    /// Title, if any.
    pub title: Option<Text>,
    /// Metadata.
    pub metadata: Metadata,
    /// Who made it: `<user|agent|service>:<id>`.
    pub creator: Text,
    /// When it was made, by the group's stamp.
    pub created_at: UnixMs,
    /// When the header last changed; appends do not change it.
    pub updated_at: UnixMs,
    /// From 1; each update of title or metadata adds one.
    pub version: u64,
    /// Whether default lists show it.
    pub listing: Listing,
    /// Where it is in its life.
    pub state: SessionState,
    /// Last position given out.
    pub last_seq: Seq,
    /// Durable in the archive tier up to here.
    pub archived_seq: Seq,
    /// Events up to here are gone from this tier.
    pub floor_seq: Seq,
    /// Producers remembered.
    pub producers: u64,
}

/// A session as replies and reads give it: its name and its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its name.
    pub path: ResourcePath,
    /// Its number in the group.
    pub number: ResourceNumber,
    /// The rest.
    pub header: SessionHeader,
}

impl SessionHeader {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let title = self.title.as_ref().map_or(0, |title| title.bytes().len());
        let texts = title + self.metadata.encoded().len() + self.creator.bytes().len();
        let mut out = Vec::with_capacity(NUMBERS_BYTES_MAX + texts);
        out.push(VERSION);
        put_field(&mut out, tag::INCARNATION, &self.incarnation.0);
        if let Some(title) = &self.title {
            put_field(&mut out, tag::TITLE, title.bytes());
        }
        put_field(&mut out, tag::METADATA, self.metadata.encoded());
        put_field(&mut out, tag::CREATOR, self.creator.bytes());
        let numbers = [
            (tag::CREATED_AT, self.created_at.0),
            (tag::UPDATED_AT, self.updated_at.0),
            (tag::HEADER_VERSION, self.version),
            (tag::LAST_SEQ, self.last_seq.0),
            (tag::ARCHIVED_SEQ, self.archived_seq.0),
            (tag::FLOOR_SEQ, self.floor_seq.0),
            (tag::PRODUCERS, self.producers),
        ];
        for (tag, number) in numbers {
            if number != 0 {
                put_field(&mut out, tag, &number.to_be_bytes());
            }
        }
        for (tag, number) in [(tag::LISTING, self.listing as u8), (tag::STATE, self.state as u8)] {
            if number != 0 {
                put_field(&mut out, tag, &[number]);
            }
        }
        out.into()
    }

    /// Reads a row's value; texts are slices of `row`.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a header of a known version.
    pub fn decode(row: Bytes) -> Result<SessionHeader, DecodeError> {
        let mut scan = Scan::new(&row);
        check::version(&mut scan)?;
        let mut header = SessionHeader::default();
        while let Some((tag, part)) = scan.field()? {
            match tag {
                tag::INCARNATION => header.incarnation = Incarnation(scan.within(part).array()?),
                tag::TITLE => header.title = Some(text(scan.shared(part))?),
                tag::METADATA => header.metadata = Metadata::from_encoded(scan.shared(part))?,
                tag::CREATOR => header.creator = text(scan.shared(part))?,
                tag::CREATED_AT => header.created_at = UnixMs(number(part)?),
                tag::UPDATED_AT => header.updated_at = UnixMs(number(part)?),
                tag::HEADER_VERSION => header.version = number(part)?,
                tag::LISTING => {
                    header.listing = byte(part)
                        .and_then(Listing::from_number)
                        .ok_or(DecodeError::Malformed("listing"))?;
                }
                tag::STATE => header.state = state(part)?,
                tag::LAST_SEQ => header.last_seq = Seq(number(part)?),
                tag::ARCHIVED_SEQ => header.archived_seq = Seq(number(part)?),
                tag::FLOOR_SEQ => header.floor_seq = Seq(number(part)?),
                tag::PRODUCERS => header.producers = number(part)?,
                _ => {}
            }
        }
        check::positions(header.floor_seq, header.archived_seq, header.last_seq)?;
        check::producers(header.producers)?;
        Ok(header)
    }
}

/// What every reader of a header insists on.
pub(super) mod check {
    use super::{DecodeError, Scan, Seq, VERSION};

    /// Greatest position, and number of producers, that a row may tell: beyond what any session
    /// reaches, and far enough from the end of the type to count on from.
    const NUMBER_MAX: u64 = i64::MAX.cast_unsigned();

    pub fn version(scan: &mut Scan<'_>) -> Result<(), DecodeError> {
        match scan.u8()? {
            VERSION => Ok(()),
            other => Err(DecodeError::Unknown { what: "header version", value: other.into() }),
        }
    }

    pub fn positions(floor: Seq, archived: Seq, last: Seq) -> Result<(), DecodeError> {
        if last.0 > NUMBER_MAX {
            return Err(DecodeError::Malformed("header: last position"));
        }
        if floor <= archived && archived <= last {
            Ok(())
        } else {
            Err(DecodeError::Malformed("header: positions out of order"))
        }
    }

    pub fn producers(count: u64) -> Result<(), DecodeError> {
        match count {
            0..=NUMBER_MAX => Ok(()),
            _ => Err(DecodeError::Malformed("header: number of producers")),
        }
    }
}

pub(super) fn state(part: &[u8]) -> Result<SessionState, DecodeError> {
    byte(part).and_then(SessionState::from_number).ok_or(DecodeError::Malformed("state"))
}

pub(super) fn number(part: &[u8]) -> Result<u64, DecodeError> {
    let bytes = part.try_into().map_err(|_| DecodeError::Malformed("number in a header"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn byte(part: &[u8]) -> Option<u8> {
    match part {
        [byte] => Some(*byte),
        _ => None,
    }
}

fn text(part: Bytes) -> Result<Text, DecodeError> {
    Text::new(part).ok_or(DecodeError::Malformed("text in a header"))
}

#[cfg(test)]
mod tests;
