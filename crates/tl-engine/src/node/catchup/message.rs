//! What two nodes say to one another about the rows of a group.
//!
//! ```text
//!   message = version (1 byte) kind group (u16) transfer (u64) fields crc (u32)
//!   row     = length of the key, key, length of the value, value
//! ```
//!
//! Big-endian; the lengths within rows are varints; the CRC-32 is over everything before it. A
//! later version adds kinds under a new version byte; numbers are never used again. Version 1 has
//! what a transfer needs, version 2 what spares it rows that the taker has already: whoever asks
//! by that and gets no answer asks by version 1.

use bytes::Bytes;
use tl_store::Row;
use tl_types::bytes_codec::{DecodeError, Reader, put_bytes};
use tl_types::{GroupId, Index, RowKey, Table, Term};

/// Largest chunk that a fingerprint may speak of, bytes: as much is read to compare with it.
const FINGERPRINT_OF_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a message before and behind its fields.
const HEAD_BYTES: usize = 12;
const CRC_BYTES: usize = 4;

mod kind {
    pub const OFFER: u8 = 1;
    pub const ASK: u8 = 2;
    pub const CHUNK: u8 = 3;
    pub const LAST_CHUNK: u8 = 4;
    pub const READY: u8 = 5;
    pub const GONE: u8 = 6;
    pub const DONE: u8 = 7;
    pub const ASK_FINGERPRINT: u8 = 8;
    pub const FINGERPRINT: u8 = 9;
    pub const LAST_FINGERPRINT: u8 = 10;
}

/// The version that brought a kind.
fn version_of(kind: u8) -> u8 {
    if kind < kind::ASK_FINGERPRINT { 1 } else { 2 }
}

/// A message about one transfer of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) group: GroupId,
    /// Given out by the giver; another one for every transfer.
    pub(super) transfer: u64,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The giver has rows up to this entry, and `chunk` is the next one that it would give.
    Offer { index: Index, term: Term, chunk: u64 },
    /// The taker wants this chunk, and has all before it.
    Ask { chunk: u64 },
    /// The taker wants to know what is in this chunk, since it may have those rows.
    AskFingerprint { chunk: u64 },
    /// What is in a chunk; of the last one also what all are together.
    Fingerprint { chunk: u64, print: Fingerprint, last: Option<Sum> },
    /// Rows, in order; with the last of them what all are together.
    Chunk { chunk: u64, rows: Bytes, last: Option<Sum> },
    /// The taker has everything, checked and durable.
    Ready,
    /// The taker goes on from the rows.
    Done,
    /// Whoever says so does not know the transfer, or wants no more of it.
    Gone,
}

/// What all chunks of a transfer are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) rows: u64,
    /// CRC-32 over the rows of all chunks as they were sent.
    pub(super) crc: u32,
}

/// What tells the rows of a chunk from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The key of the last row. The first one is the next behind those of the chunk before.
    pub(super) upto: RowKey,
    /// Bytes of all rows as they would be sent.
    pub(super) bytes: u64,
    /// SHA-256 of these bytes: whoever writes into sessions cannot make two chunks look alike.
    pub(super) hash: [u8; 32],
}

/// Why bytes are no message, in a few fixed words.
pub(super) type Damage = &'static str;

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let rows_bytes = if let What::Chunk { rows, .. } = &self.what { rows.len() } else { 0 };
        let mut out = Vec::with_capacity(HEAD_BYTES + rows_bytes + 32 + CRC_BYTES);
        let kind = match &self.what {
            What::Offer { .. } => kind::OFFER,
            What::Ask { .. } => kind::ASK,
            What::Chunk { last: None, .. } => kind::CHUNK,
            What::Chunk { last: Some(_), .. } => kind::LAST_CHUNK,
            What::Ready => kind::READY,
            What::Gone => kind::GONE,
            What::Done => kind::DONE,
            What::AskFingerprint { .. } => kind::ASK_FINGERPRINT,
            What::Fingerprint { last: None, .. } => kind::FINGERPRINT,
            What::Fingerprint { last: Some(_), .. } => kind::LAST_FINGERPRINT,
        };
        out.extend_from_slice(&[version_of(kind), kind]);
        out.extend_from_slice(&self.group.0.to_be_bytes());
        out.extend_from_slice(&self.transfer.to_be_bytes());
        match &self.what {
            What::Offer { index, term, chunk } => {
                out.extend_from_slice(&index.0.to_be_bytes());
                out.extend_from_slice(&term.0.to_be_bytes());
                out.extend_from_slice(&chunk.to_be_bytes());
            }
            What::Ask { chunk } | What::AskFingerprint { chunk } => {
                out.extend_from_slice(&chunk.to_be_bytes());
            }
            What::Chunk { chunk, rows, last } => {
                put_place(&mut out, *chunk, *last);
                out.extend_from_slice(rows);
            }
            What::Fingerprint { chunk, print, last } => {
                put_place(&mut out, *chunk, *last);
                out.extend_from_slice(&print.bytes.to_be_bytes());
                out.extend_from_slice(&print.hash);
                out.extend_from_slice(print.upto.as_bytes());
            }
            What::Ready | What::Gone | What::Done => {}
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out.into()
    }

    /// Reads a message. Any bytes will do.
    pub(super) fn decode(bytes: &Bytes) -> Result<Message, Damage> {
        if bytes.len() < HEAD_BYTES + CRC_BYTES {
            return Err("message of a transfer ends early");
        }
        let (body, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
        if crc32fast::hash(body).to_be_bytes() != crc {
            return Err("message of a transfer is damaged");
        }
        Message::read(Reader::new(bytes.slice(..body.len())))
            .unwrap_or(Err("message of a transfer ends early"))
    }

    fn read(mut reader: Reader) -> Result<Result<Message, Damage>, DecodeError> {
        let (version, kind) = (reader.u8()?, reader.u8()?);
        if version != version_of(kind) {
            return Ok(Err("unknown version of a transfer's message"));
        }
        let (group, transfer) = (GroupId(reader.u16()?), reader.u64()?);
        let what = match kind {
            kind::OFFER => What::Offer {
                index: Index(reader.u64()?),
                term: Term(reader.u64()?),
                chunk: reader.u64()?,
            },
            kind::ASK => What::Ask { chunk: reader.u64()? },
            kind::CHUNK | kind::LAST_CHUNK => {
                let (chunk, last) = read_place(&mut reader, kind == kind::LAST_CHUNK)?;
                let what = What::Chunk { chunk, rows: reader.rest(), last };
                return Ok(Ok(Message { group, transfer, what }));
            }
            kind::ASK_FINGERPRINT => What::AskFingerprint { chunk: reader.u64()? },
            kind::FINGERPRINT | kind::LAST_FINGERPRINT => {
                let (chunk, last) = read_place(&mut reader, kind == kind::LAST_FINGERPRINT)?;
                let (bytes, hash) = (reader.u64()?, reader.array()?);
                if bytes > FINGERPRINT_OF_BYTES_MAX {
                    return Ok(Err("fingerprint of a chunk that is too large"));
                }
                let Some(upto) = RowKey::from_bytes(&reader.rest()) else {
                    return Ok(Err("fingerprint of a chunk has no key of a row"));
                };
                let what =
                    What::Fingerprint { chunk, print: Fingerprint { upto, bytes, hash }, last };
                return Ok(Ok(Message { group, transfer, what }));
            }
            kind::READY => What::Ready,
            kind::GONE => What::Gone,
            kind::DONE => What::Done,
            _ => return Ok(Err("unknown kind of a transfer's message")),
        };
        if !reader.is_empty() {
            return Ok(Err("message of a transfer goes on behind its end"));
        }
        Ok(Ok(Message { group, transfer, what }))
    }
}

/// Adds the number of a chunk, and what all are together if it is the last.
fn put_place(out: &mut Vec<u8>, chunk: u64, last: Option<Sum>) {
    out.extend_from_slice(&chunk.to_be_bytes());
    if let Some(sum) = last {
        out.extend_from_slice(&sum.rows.to_be_bytes());
        out.extend_from_slice(&sum.crc.to_be_bytes());
    }
}

fn read_place(reader: &mut Reader, is_last: bool) -> Result<(u64, Option<Sum>), DecodeError> {
    let chunk = reader.u64()?;
    let last = match is_last {
        true => Some(Sum { rows: reader.u64()?, crc: reader.u32()? }),
        false => None,
    };
    Ok((chunk, last))
}

/// Adds a row to a chunk.
pub(super) fn put_row(out: &mut Vec<u8>, (key, value): &Row) {
    put_bytes(out, key.as_bytes());
    put_bytes(out, value);
}

/// The rows of a chunk, if they are rows, in order, and all behind `after`.
pub(super) fn rows_of(chunk: Bytes, after: Option<&RowKey>) -> Result<Vec<Row>, Damage> {
    let mut reader = Reader::new(chunk);
    let mut rows: Vec<Row> = Vec::new();
    while !reader.is_empty() {
        let key = reader.bytes().map_err(|_| "row of a transfer ends early")?;
        let value = reader.bytes().map_err(|_| "row of a transfer ends early")?;
        let key = RowKey::from_bytes(&key).ok_or("row of a transfer has no key of a row")?;
        if key.table() == Table::Applied {
            return Err("row of a transfer is the store's own");
        }
        if rows.last().map(|(key, _)| key).or(after).is_some_and(|before| key <= *before) {
            return Err("rows of a transfer out of order");
        }
        // A copy: a row that stays in a cache must not keep its whole chunk.
        rows.push((key, Bytes::copy_from_slice(&value)));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_types::{ResourceNumber, Seq};

    fn message(what: What) -> Message {
        Message { group: GroupId(0x0102), transfer: 7, what }
    }

    fn print() -> Fingerprint {
        let upto = RowKey::event(ResourceNumber(3), Seq(2));
        Fingerprint { upto, bytes: FINGERPRINT_OF_BYTES_MAX, hash: [9; 32] }
    }

    fn all() -> Vec<Message> {
        let rows = Bytes::from_static(b"rows");
        vec![
            message(What::Offer { index: Index(300), term: Term(4), chunk: 9 }),
            message(What::Ask { chunk: 2 }),
            message(What::Chunk { chunk: 2, rows: rows.clone(), last: None }),
            message(What::Chunk { chunk: 3, rows, last: Some(Sum { rows: 5, crc: 6 }) }),
            message(What::Ready),
            message(What::Gone),
            message(What::Done),
            message(What::AskFingerprint { chunk: 2 }),
            message(What::Fingerprint { chunk: 2, print: print(), last: None }),
            message(What::Fingerprint {
                chunk: 3,
                print: print(),
                last: Some(Sum { rows: 5, crc: 6 }),
            }),
        ]
    }

    #[test]
    fn messages_come_back_and_every_flipped_bit_is_found() {
        for message in all() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for at in 0..bytes.len() {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << (at % 8);
                assert!(Message::decode(&flipped.into()).is_err(), "byte {at}");
                assert!(Message::decode(&bytes.slice(..at)).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn the_encoding_does_not_change() {
        let golden = [1, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2];
        let bytes = message(What::Ask { chunk: 2 }).encode();
        assert_eq!(bytes[..golden.len()], golden);
        assert_eq!(bytes[golden.len()..], crc32fast::hash(&golden).to_be_bytes());
        let last = &all()[3].encode();
        assert_eq!(last[1..4], [4, 1, 2]);
        assert_eq!(last[12..36], *b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x06rows");
        assert_eq!(all()[7].encode()[..4], [2, 8, 1, 2]);
        let print = &all()[8].encode();
        assert_eq!(print[..4], [2, 9, 1, 2]);
        assert_eq!(print[12..28], *b"\0\0\0\0\0\0\0\x02\0\0\0\0\x04\0\0\0");
        assert_eq!(print[28..60], [9; 32]);
        let key = RowKey::event(ResourceNumber(3), Seq(2));
        assert_eq!(&print[60..print.len() - 4], key.as_bytes());
        assert_eq!(all()[9].encode()[1], 10);
    }

    #[test]
    fn what_is_well_formed_and_makes_no_sense_is_refused() {
        let sealed = |mut bytes: Vec<u8>| {
            let crc = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&crc.to_be_bytes());
            Message::decode(&bytes.into())
        };
        let head = |version: u8, kind: u8| {
            let mut bytes = vec![version, kind];
            bytes.extend_from_slice(&[0; 10]);
            bytes
        };
        assert!(sealed(head(1, 5)).is_ok());
        assert!(sealed(head(2, 5)).is_err(), "version");
        assert!(sealed(head(1, 8)).is_err() && sealed(head(1, 0)).is_err(), "kind");
        assert!(sealed(head(2, 11)).is_err(), "kind");
        assert!(sealed(head(1, 2)).is_err(), "too short for its kind");
        assert!(sealed([head(1, 5), vec![0]].concat()).is_err(), "too long for its kind");
        let print = |bytes: u64, key: &[u8]| {
            let fields = [[0; 8], bytes.to_be_bytes()].concat();
            sealed([head(2, 9), fields, vec![9; 32], key.to_vec()].concat())
        };
        let key = RowKey::session(ResourceNumber(3));
        assert!(print(FINGERPRINT_OF_BYTES_MAX, key.as_bytes()).is_ok());
        assert!(print(FINGERPRINT_OF_BYTES_MAX + 1, key.as_bytes()).is_err(), "one past");
        assert!(print(1, b"no key").is_err());
    }

    #[test]
    fn rows_come_back_and_only_in_order() {
        let number = ResourceNumber(3);
        let rows: Vec<Row> = vec![
            (RowKey::session(number), Bytes::from_static(b"header")),
            (RowKey::event(number, Seq(1)), Bytes::new()),
            (RowKey::event(number, Seq(2)), Bytes::from(vec![7; 300])),
        ];
        let encoded = |rows: &[Row]| {
            let mut out = Vec::new();
            rows.iter().for_each(|row| put_row(&mut out, row));
            Bytes::from(out)
        };
        let chunk = encoded(&rows);
        assert_eq!(rows_of(chunk.clone(), None), Ok(rows.clone()));
        assert_eq!(rows_of(Bytes::new(), None), Ok(Vec::new()));
        let before = RowKey::table_start(Table::Group, ResourceNumber(0));
        assert_eq!(rows_of(chunk.clone(), Some(&before)), Ok(rows.clone()));
        assert!(rows_of(chunk.clone(), Some(&rows[0].0)).is_err(), "again");
        assert!(rows_of(encoded(&[rows[1].clone(), rows[0].clone()]), None).is_err());
        assert!(rows_of(encoded(&[rows[1].clone(), rows[1].clone()]), None).is_err());
        let own = RowKey::table_start(Table::Applied, ResourceNumber(0));
        assert!(rows_of(encoded(&[(own, Bytes::new())]), None).is_err());
        for cut in 1..chunk.len() {
            let whole = rows_of(chunk.slice(..cut), None);
            assert!(whole.is_err() || whole.is_ok_and(|rows| rows.len() < 3), "cut at {cut}");
        }
    }
}
