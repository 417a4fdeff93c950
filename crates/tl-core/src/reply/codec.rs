//! Replies as bytes, for the request memory: `count varint ‖ count × (kind u8, length, body)`.

use tl_types::bytes_codec::{DecodeError, Reader, Scan, put_bytes, put_varint};
use tl_types::{ResourceNumber, Seq};

use super::{Appended, Reply};
use crate::entry::{put_path_body, read_path};
use crate::session::{SessionHeader, SessionRow};

/// Reply kinds. Numbers once given out are never reused.
mod kind {
    pub const SESSION: u8 = 1;
    pub const APPENDED: u8 = 2;
    pub const DONE: u8 = 3;
    pub const TICKED: u8 = 4;
}

/// Appends the replies of an entry that took effect.
///
/// # Panics
/// On a refusal: an entry that was refused has nothing to remember.
pub(crate) fn put_replies(out: &mut Vec<u8>, replies: &[Reply]) {
    put_varint(out, replies.len() as u64);
    for reply in replies {
        let mut body = Vec::new();
        let kind = match reply {
            Reply::Session(row) => {
                let mut path = Vec::new();
                put_path_body(&mut path, &row.path);
                put_bytes(&mut body, &path);
                body.extend_from_slice(&row.number.0.to_be_bytes());
                body.extend_from_slice(&row.header.encode());
                kind::SESSION
            }
            Reply::Appended(a) => {
                for seq in [a.first_seq, a.last_seq, a.head_seq, a.archived_seq] {
                    body.extend_from_slice(&seq.0.to_be_bytes());
                }
                body.push(u8::from(a.deduped));
                kind::APPENDED
            }
            Reply::Done => kind::DONE,
            Reply::Ticked { more_due } => {
                body.push(u8::from(*more_due));
                kind::TICKED
            }
            Reply::Refused(_) => unreachable!("a refused entry is not remembered"),
        };
        out.push(kind);
        put_bytes(out, &body);
    }
}

/// Reads what [`put_replies`] wrote.
pub(crate) fn read_replies(reader: &mut Reader) -> Result<Vec<Reply>, DecodeError> {
    let count = reader.varint()?;
    let mut replies = Vec::new();
    for _ in 0..count {
        let kind = reader.u8()?;
        let mut body = Reader::new(reader.bytes()?);
        replies.push(match kind {
            kind::SESSION => Reply::Session(Box::new(SessionRow {
                path: read_path(Scan::new(&body.bytes()?))?,
                number: ResourceNumber(body.u64()?),
                header: SessionHeader::decode(body.rest())?,
            })),
            kind::APPENDED => Reply::Appended(Appended {
                first_seq: Seq(body.u64()?),
                last_seq: Seq(body.u64()?),
                head_seq: Seq(body.u64()?),
                archived_seq: Seq(body.u64()?),
                deduped: flag(body.u8()?)?,
            }),
            kind::DONE => Reply::Done,
            kind::TICKED => Reply::Ticked { more_due: flag(body.u8()?)? },
            other => return Err(DecodeError::Unknown { what: "reply kind", value: other.into() }),
        });
    }
    Ok(replies)
}

fn flag(byte: u8) -> Result<bool, DecodeError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("flag in a reply")),
    }
}
