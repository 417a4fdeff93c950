//! WebSocket frames (RFC 6455) as far as a tail needs them: what it sends, and what it must
//! notice in bytes that it otherwise ignores.
//!
//! ```text
//!  FIN RSV opcode | MASK length | length 2 or 8 | mask 4 | payload
//! ```
//!
//! A client's data is skipped as it arrives and never held, so memory is bounded by one control
//! frame however long a frame claims to be. Pure: bytes in, decisions out.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use tl_engine::api::EventLine;
use tl_types::limits::WS_MESSAGE_BYTES_MAX;

use crate::settings::{CLIENT_BYTES_MAX, CLIENT_FRAMES_MAX};

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// Longest header of a frame of ours: without a mask.
pub const HEADER_BYTES_MAX: usize = 10;

/// What a client's frame asks of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Answer with the same payload.
    Pong(Bytes),
    /// The client closes, with this code if it gave one.
    Close(Option<u16>),
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A message longer than the limit: close 1009.
    TooBig,
    /// More frames or bytes than a client may send between two pings: close 1008.
    Flood,
    /// Not WebSocket: close 1002.
    Protocol(&'static str),
}

/// Reads a client's frames, keeping only what must be answered.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Payload bytes still to be skipped.
    skip: usize,
    /// Bytes of the message so far, while one is open across frames.
    message: Option<usize>,
    /// Frames and payload since the last ping.
    frames: usize,
    payload: usize,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: u8,
    fin: bool,
    mask: [u8; 4],
    bytes: usize,
    payload: usize,
}

impl Incoming {
    /// A ping goes out: the client may send as much again as between any two.
    pub fn pause_over(&mut self) {
        (self.frames, self.payload) = (0, 0);
    }

    fn count(&mut self, header: Header) -> Result<(), Violation> {
        self.frames += 1;
        self.payload += header.payload;
        if self.frames > CLIENT_FRAMES_MAX || self.payload > CLIENT_BYTES_MAX {
            return Err(Violation::Flood);
        }
        Ok(())
    }

    /// Takes whole frames from the front of `input`; `None` when more bytes are needed. How the
    /// bytes were cut into pieces makes no difference.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Asked>, Violation> {
        loop {
            let skipped = self.skip.min(input.len());
            input.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            let Some(header) = Header::parse(input)? else { return Ok(None) };
            if header.opcode < CLOSE {
                self.data(header)?;
                self.count(header)?;
                input.advance(header.bytes);
                self.skip = header.payload;
                continue;
            }
            if input.len() < header.bytes + header.payload {
                return Ok(None);
            }
            self.count(header)?;
            input.advance(header.bytes);
            let mut payload = input.split_to(header.payload);
            for (at, byte) in payload.iter_mut().enumerate() {
                *byte ^= header.mask[at % 4];
            }
            match header.opcode {
                PING => return Ok(Some(Asked::Pong(payload.freeze()))),
                CLOSE => return close_code(&payload).map(|code| Some(Asked::Close(code))),
                _ => {}
            }
        }
    }

    /// Counts a data frame against its message.
    fn data(&mut self, header: Header) -> Result<(), Violation> {
        let before = match (self.message, header.opcode) {
            (None, TEXT | BINARY) => 0,
            (Some(bytes), CONTINUATION) => bytes,
            (None, _) => return Err(Violation::Protocol("continuation of no message")),
            (Some(_), _) => return Err(Violation::Protocol("message inside a message")),
        };
        let bytes = before.saturating_add(header.payload);
        if bytes > WS_MESSAGE_BYTES_MAX {
            return Err(Violation::TooBig);
        }
        self.message = if header.fin { None } else { Some(bytes) };
        Ok(())
    }
}

impl Header {
    fn parse(input: &[u8]) -> Result<Option<Header>, Violation> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        let opcode = first & 0x0F;
        let fin = first & FIN != 0;
        if first & RESERVED != 0 {
            return Err(Violation::Protocol("reserved bits are set"));
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(Violation::Protocol("unknown opcode"));
        }
        if second & MASKED == 0 {
            return Err(Violation::Protocol("a client's frames must be masked"));
        }
        let (length_bytes, short) = match second & !MASKED {
            126 => (2, None),
            127 => (8, None),
            length => (0, Some(u64::from(length))),
        };
        if opcode >= CLOSE && (!fin || short.is_none()) {
            return Err(Violation::Protocol("a control frame is cut or too long"));
        }
        if rest.len() < length_bytes {
            return Ok(None);
        }
        let (length, rest) = rest.split_at(length_bytes);
        let length =
            short.unwrap_or_else(|| length.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)));
        // Judged before the mask arrives: a hopeless length need not be waited for.
        let Ok(payload) = usize::try_from(length) else { return Err(Violation::TooBig) };
        if payload > WS_MESSAGE_BYTES_MAX {
            return Err(Violation::TooBig);
        }
        let Some(&mask) = rest.first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Header { opcode, fin, mask, bytes: 2 + length_bytes + 4, payload }))
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Protocol("half a close code")),
        [high, low, ..] => Ok(Some(u16::from_be_bytes([*high, *low]))),
    }
}

/// Puts one text frame per event into `out`; the events' bytes are shared, not copied.
pub fn singles(out: &mut VecDeque<Bytes>, lines: &[EventLine]) {
    let mut headers = BytesMut::with_capacity(lines.len() * HEADER_BYTES_MAX);
    for line in lines {
        header(&mut headers, TEXT, line.json.len());
        out.push_back(headers.split().freeze());
        out.push_back(line.json.clone());
    }
}

/// Puts one text frame with a JSON array of the events into `out`, sharing their bytes.
pub fn array(out: &mut VecDeque<Bytes>, lines: &[EventLine]) {
    let json: usize = lines.iter().map(|line| line.json.len()).sum();
    let commas = lines.len().saturating_sub(1);
    let mut start = BytesMut::with_capacity(HEADER_BYTES_MAX + 1);
    header(&mut start, TEXT, json + commas + 2);
    start.extend_from_slice(b"[");
    out.push_back(start.freeze());
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push_back(Bytes::from_static(b","));
        }
        out.push_back(line.json.clone());
    }
    out.push_back(Bytes::from_static(b"]"));
}

/// A ping without a payload.
pub const PING_FRAME: &[u8] = &[FIN | PING, 0];

/// A close without a code.
pub const CLOSE_FRAME: &[u8] = &[FIN | CLOSE, 0];

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + payload.len());
    header(&mut out, PONG, payload.len());
    out.extend_from_slice(payload);
    out.freeze()
}

/// A close frame; the reason is cut at the limit of control frames.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = BytesMut::with_capacity(4 + end);
    header(&mut out, CLOSE, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
    out.freeze()
}

fn header(out: &mut BytesMut, opcode: u8, payload: usize) {
    out.extend_from_slice(&[FIN | opcode]);
    match payload {
        0..=125 => out.extend_from_slice(&[payload as u8]),
        126..=0xFFFF => {
            out.extend_from_slice(&[126]);
            out.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[127]);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
