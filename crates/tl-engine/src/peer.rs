//! What nodes ask of one another beside Raft: a write that belongs to another node's group, what
//! its clock says, how it is, that it be drained, or that it take rows anew.
//!
//! ```text
//!   request = version (1) kind (1) id (8) body     propose: group (2) wait_ms (4) entry
//!                                                  clock, report: nothing
//!                                                  drain:   on (1)
//!                                                  transfer: group (2) to (8)
//!                                                  members: number (8)
//!                                                  repair:  group (2)
//!                                                  read:    wait_ms (4), see `read`
//!   answer  = version (1) kind (1) id (8) body     taken:   index (8) replies
//!                                                  refused: code message fact*
//!                                                  not taken: leader (8; 0 for nobody known)
//!                                                  unknown: nothing
//!                                                  clock:   wall_ms (8) may_lead (1)
//!                                                  report:  see `ops::report`
//!                                                  members: a list, or nothing
//!                                                  found:   see `read`
//! ```
//!
//! Numbers are big-endian; code, message, names and texts are a length and the bytes. An entry
//! carries the request id and the principal of whoever sent it. A later version adds kinds;
//! numbers are never used again. Decoding takes any bytes.

use bytes::Bytes;
use tl_types::bytes_codec::{DecodeError, Reader};

mod answer;
mod question;
pub mod read;
mod refusal;

pub use self::answer::Answer;
pub use self::question::Question;
pub use self::read::{Found, Read};

const VERSION: u8 = 1;

fn begin(kind: u8, id: u64, body_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + body_bytes);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&id.to_be_bytes());
    out
}

fn opened(bytes: Bytes) -> Result<(u8, u64, Reader), DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok((reader.u8()?, reader.u64()?, reader)),
        other => Err(DecodeError::Unknown { what: "version", value: other.into() }),
    }
}

fn ended(reader: &Reader) -> Result<(), DecodeError> {
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes behind a message")) }
}

#[cfg(test)]
mod tests;
