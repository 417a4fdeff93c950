//! Command bytes: `kind u16, length, version u8 ‖ tagged fields`.
//!
//! Unknown tags are skipped, so a later release may add optional fields; an unknown kind or
//! body version is refused. Lengths of commands and events are varints padded to four bytes:
//! they are filled in once the bytes behind them are written, and read like any varint.
//!
//! ```text
//! event = producer id length, producer id ‖ producer seq u64 ‖ algorithm u8 ‖ hash u128
//!         ‖ stamp u64 ‖ envelope
//! ```
//!
//! The stamp of an event is the entry's, written again by [`stamp_events`]: stamp and envelope
//! side by side are an event row, which is then a slice of the entry and not a copy. The rules
//! never trust it; a row takes it only when it is the stamp that the entry is applied with.

use bytes::Bytes;
use smallvec::SmallVec;
use tl_types::bytes_codec::{DecodeError, Scan, put_bytes, put_field};
use tl_types::{Incarnation, Kind, Namespace, ResourcePath, Seq, SessionId, Tenant, UnixMs};

use super::command::{
    AckArchived, Append, Close, Command, ContentHash, CreateSession, NewEvent, SetListing,
    SetMembers, Tombstone, Trim, UpdateHeader,
};
use crate::metadata::Metadata;
use crate::session::Listing;
use crate::text::Text;

const BODY_VERSION: u8 = 1;
/// The stamp in front of an envelope.
const STAMP_BYTES: usize = 8;
/// Between an event's producer id and its stamp: producer seq, algorithm, hash.
const EVENT_NUMBERS_BYTES: usize = 8 + 1 + 16;

/// Command kinds. Numbers once given out are never reused.
mod kind {
    pub const CREATE_SESSION: u16 = 1;
    pub const APPEND: u16 = 2;
    pub const UPDATE_HEADER: u16 = 3;
    pub const SET_LISTING: u16 = 4;
    pub const CLOSE: u16 = 5;
    pub const TOMBSTONE: u16 = 6;
    pub const ACK_ARCHIVED: u16 = 7;
    pub const TRIM: u16 = 8;
    pub const TICK: u16 = 9;
    pub const SET_MEMBERS: u16 = 10;
}

/// Field tags, shared by all commands. Numbers once given out are never reused.
mod tag {
    pub const PATH: u8 = 1;
    pub const EVENT: u8 = 2;
    pub const EXPECTED_SEQ: u8 = 3;
    pub const INCARNATION: u8 = 4;
    pub const TITLE: u8 = 5;
    pub const METADATA: u8 = 6;
    pub const CREATOR: u8 = 7;
    pub const EXPECTED_VERSION: u8 = 8;
    pub const NO_TITLE: u8 = 9;
    pub const LISTING: u8 = 10;
    pub const UPTO: u8 = 11;
    pub const MEMBERS: u8 = 12;
}

pub(super) fn put_command(out: &mut Vec<u8>, command: &Command) {
    let kind = match command {
        Command::CreateSession(_) => kind::CREATE_SESSION,
        Command::Append(_) => kind::APPEND,
        Command::UpdateHeader(_) => kind::UPDATE_HEADER,
        Command::SetListing(_) => kind::SET_LISTING,
        Command::Close(_) => kind::CLOSE,
        Command::Tombstone(_) => kind::TOMBSTONE,
        Command::AckArchived(_) => kind::ACK_ARCHIVED,
        Command::Trim(_) => kind::TRIM,
        Command::Tick => kind::TICK,
        Command::SetMembers(_) => kind::SET_MEMBERS,
    };
    out.extend_from_slice(&kind.to_be_bytes());
    put_measured(out, |out| {
        out.push(BODY_VERSION);
        if let Some(path) = command.path() {
            put_path(out, path);
        }
        put_fields(out, command);
    });
}

fn put_fields(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::CreateSession(create) => {
            put_field(out, tag::INCARNATION, &create.incarnation.0);
            if let Some(title) = &create.title {
                put_field(out, tag::TITLE, title.bytes());
            }
            put_field(out, tag::METADATA, create.metadata.encoded());
            put_field(out, tag::CREATOR, create.creator.bytes());
        }
        Command::Append(append) => {
            if let Some(seq) = append.expected_seq {
                put_u64(out, tag::EXPECTED_SEQ, seq.0);
            }
            for event in &append.events {
                out.push(tag::EVENT);
                put_measured(out, |out| put_event(out, event));
            }
        }
        Command::UpdateHeader(update) => {
            if let Some(version) = update.expected_version {
                put_u64(out, tag::EXPECTED_VERSION, version);
            }
            match &update.title {
                None => {}
                Some(None) => put_field(out, tag::NO_TITLE, &[]),
                Some(Some(title)) => put_field(out, tag::TITLE, title.bytes()),
            }
            if let Some(metadata) = &update.metadata {
                put_field(out, tag::METADATA, metadata.encoded());
            }
        }
        Command::SetListing(set) => put_field(out, tag::LISTING, &[set.listing as u8]),
        Command::AckArchived(ack) => put_u64(out, tag::UPTO, ack.upto.0),
        Command::Trim(trim) => put_u64(out, tag::UPTO, trim.upto.0),
        Command::SetMembers(set) => {
            put_u64(out, tag::EXPECTED_VERSION, set.expected);
            put_field(out, tag::MEMBERS, &set.list);
        }
        Command::Close(_) | Command::Tombstone(_) | Command::Tick => {}
    }
}

pub(super) fn read_command(scan: &mut Scan<'_>) -> Result<Command, DecodeError> {
    let kind = scan.u16()?;
    let part = scan.bytes()?;
    let mut body = scan.within(part);
    if !(kind::CREATE_SESSION..=kind::SET_MEMBERS).contains(&kind) {
        return Err(DecodeError::Unknown { what: "command kind", value: kind.into() });
    }
    let version = body.u8()?;
    if version != BODY_VERSION {
        return Err(DecodeError::Unknown { what: "command version", value: version.into() });
    }
    match kind {
        kind::APPEND => read_append(body),
        kind => Fields::read(body)?.into_command(kind),
    }
}

/// Reads what nearly all commands are, without room for fields that it never has.
fn read_append(mut body: Scan<'_>) -> Result<Command, DecodeError> {
    let (mut path, mut expected_seq, mut events) = (None, None, SmallVec::new());
    while let Some((tag, part)) = body.field()? {
        match tag {
            tag::PATH => path = Some(read_path(body.within(part))?),
            tag::EVENT => events.push(read_event(body.within(part))?),
            tag::EXPECTED_SEQ => expected_seq = Some(Seq(body.within(part).u64()?)),
            _ => {}
        }
    }
    let path = path.ok_or(DecodeError::Malformed("command without a path"))?;
    Ok(Command::Append(Append { path, expected_seq, events }))
}

/// All fields that any other command has; a command takes its own and ignores the rest.
#[derive(Default)]
struct Fields {
    path: Option<ResourcePath>,
    incarnation: Option<Incarnation>,
    title: Option<Text>,
    no_title: bool,
    metadata: Option<Metadata>,
    creator: Option<Text>,
    expected_version: Option<u64>,
    listing: Option<Listing>,
    upto: Option<u64>,
    members: Option<Bytes>,
}

impl Fields {
    fn read(mut body: Scan<'_>) -> Result<Fields, DecodeError> {
        let mut fields = Fields::default();
        while let Some((tag, part)) = body.field()? {
            match tag {
                tag::PATH => fields.path = Some(read_path(body.within(part))?),
                tag::INCARNATION => {
                    fields.incarnation = Some(Incarnation(body.within(part).array()?));
                }
                tag::TITLE => fields.title = Some(read_text(&body, part)?),
                tag::NO_TITLE => fields.no_title = true,
                tag::METADATA => {
                    fields.metadata = Some(Metadata::from_encoded(body.shared(part))?);
                }
                tag::CREATOR => fields.creator = Some(read_text(&body, part)?),
                tag::EXPECTED_VERSION => fields.expected_version = Some(body.within(part).u64()?),
                tag::LISTING => {
                    let number = body.within(part).u8()?;
                    fields.listing = Some(
                        Listing::from_number(number).ok_or(DecodeError::Malformed("listing"))?,
                    );
                }
                tag::UPTO => fields.upto = Some(body.within(part).u64()?),
                tag::MEMBERS => fields.members = Some(body.shared(part)),
                _ => {}
            }
        }
        Ok(fields)
    }

    fn into_command(self, kind: u16) -> Result<Command, DecodeError> {
        if kind == kind::TICK {
            return Ok(Command::Tick);
        }
        if kind == kind::SET_MEMBERS {
            let expected = self.expected_version.ok_or(DecodeError::Malformed("members"))?;
            let list = self.members.ok_or(DecodeError::Malformed("members"))?;
            return Ok(Command::SetMembers(SetMembers { expected, list }));
        }
        let path = self.path.ok_or(DecodeError::Malformed("command without a path"))?;
        let upto = || self.upto.map(Seq).ok_or(DecodeError::Malformed("command without a seq"));
        Ok(match kind {
            kind::CREATE_SESSION => Command::CreateSession(CreateSession {
                path,
                incarnation: self.incarnation.ok_or(DecodeError::Malformed("create"))?,
                title: self.title,
                metadata: self.metadata.ok_or(DecodeError::Malformed("create"))?,
                creator: self.creator.ok_or(DecodeError::Malformed("create"))?,
            }),
            kind::UPDATE_HEADER => Command::UpdateHeader(UpdateHeader {
                path,
                expected_version: self.expected_version,
                title: if self.no_title { Some(None) } else { self.title.map(Some) },
                metadata: self.metadata,
            }),
            kind::SET_LISTING => Command::SetListing(SetListing {
                path,
                listing: self.listing.ok_or(DecodeError::Malformed("listing"))?,
            }),
            kind::CLOSE => Command::Close(Close { path }),
            kind::TOMBSTONE => Command::Tombstone(Tombstone { path }),
            kind::ACK_ARCHIVED => Command::AckArchived(AckArchived { path, upto: upto()? }),
            kind::TRIM => Command::Trim(Trim { path, upto: upto()? }),
            other => {
                return Err(DecodeError::Unknown { what: "command kind", value: other.into() });
            }
        })
    }
}

fn put_u64(out: &mut Vec<u8>, tag: u8, value: u64) {
    put_field(out, tag, &value.to_be_bytes());
}

/// Writes what `fill` writes with its length in front, as a varint padded to four bytes.
fn put_measured(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let len = out.len() - at - 4;
    assert!(len < 1 << 28, "an entry is bounded far below what four varint bytes can say");
    let len = len as u32;
    let byte = |shift: u32| ((len >> shift) & 0x7f) as u8;
    out[at..at + 4].copy_from_slice(&[byte(0) | 0x80, byte(7) | 0x80, byte(14) | 0x80, byte(21)]);
}

fn put_event(out: &mut Vec<u8>, event: &NewEvent) {
    put_bytes(out, event.producer_id.bytes());
    out.extend_from_slice(&event.producer_seq.to_be_bytes());
    out.push(event.hash.algorithm);
    out.extend_from_slice(&event.hash.value.to_be_bytes());
    out.extend_from_slice(&[0; STAMP_BYTES]);
    out.extend_from_slice(&event.envelope);
}

fn read_event(mut scan: Scan<'_>) -> Result<NewEvent, DecodeError> {
    let producer_id = scan.bytes()?;
    Ok(NewEvent {
        producer_id: read_text(&scan, producer_id)?,
        producer_seq: scan.u64()?,
        hash: ContentHash { algorithm: scan.u8()?, value: u128::from_be_bytes(scan.array()?) },
        envelope: {
            scan.take(STAMP_BYTES)?;
            scan.shared(scan.rest())
        },
    })
}

/// Writes the stamp in front of every envelope of an encoded entry's commands. What is not an
/// encoded command ends it: `apply` will say what is wrong.
pub(super) fn stamp_events(commands: &mut [u8], stamp: UnixMs) {
    let _ = try_stamp_events(commands, stamp);
}

fn try_stamp_events(commands: &mut [u8], stamp: UnixMs) -> Option<()> {
    let mut at = 0;
    for _ in 0..length(commands, &mut at)? {
        let kind = u16::from_be_bytes(*commands.get(at..)?.first_chunk()?);
        at += size_of::<u16>();
        let body = length(commands, &mut at)?;
        let end = at.checked_add(body).filter(|end| *end <= commands.len())?;
        // Behind the body's version.
        at += 1;
        while kind == kind::APPEND && at < end {
            let tag = commands[at];
            at += 1;
            let field = length(commands, &mut at)?;
            let behind = at.checked_add(field)?;
            if tag == tag::EVENT {
                let producer = length(commands, &mut at)?;
                let place = at.checked_add(producer)?.checked_add(EVENT_NUMBERS_BYTES)?;
                let slot = commands.get_mut(place..place.checked_add(STAMP_BYTES)?)?;
                slot.copy_from_slice(&stamp.0.to_be_bytes());
            }
            at = behind;
        }
        at = end;
    }
    Some(())
}

/// Reads a length and moves behind it.
fn length(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..28).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_path(out: &mut Vec<u8>, path: &ResourcePath) {
    out.push(tag::PATH);
    put_measured(out, |out| put_path_body(out, path));
}

/// A path's bytes: kind, then tenant, namespace and name with their lengths.
pub(crate) fn put_path_body(out: &mut Vec<u8>, path: &ResourcePath) {
    out.push(path.kind as u8);
    put_bytes(out, path.tenant.as_str().as_bytes());
    put_bytes(out, path.namespace.as_str().as_bytes());
    put_bytes(out, path.name.as_str().as_bytes());
}

/// Reads what [`put_path_body`] wrote.
pub(crate) fn read_path(mut scan: Scan<'_>) -> Result<ResourcePath, DecodeError> {
    if scan.u8()? != Kind::Session as u8 {
        return Err(DecodeError::Malformed("kind of resource"));
    }
    fn part_of<T>(
        scan: &mut Scan<'_>,
        new: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let text = std::str::from_utf8(scan.bytes()?);
        new(text.map_err(|_| DecodeError::Malformed("path"))?).ok_or(DecodeError::Malformed("path"))
    }
    let tenant = part_of(&mut scan, Tenant::new)?;
    let namespace = part_of(&mut scan, Namespace::new)?;
    Ok(ResourcePath::session(tenant, namespace, part_of(&mut scan, SessionId::new)?))
}

fn read_text<'a>(scan: &Scan<'a>, part: &'a [u8]) -> Result<Text, DecodeError> {
    Text::new(scan.shared(part)).ok_or(DecodeError::Malformed("text"))
}
