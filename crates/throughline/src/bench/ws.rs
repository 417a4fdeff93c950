//! As much of WebSockets as a reader needs that only counts.
//!
//! Pings are passed over: a node's pings keep connections open through proxies, and there is
//! none here.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{bail, ensure};

/// Any 16 bytes do; they only prove that the answer is none from a cache.
const KEY: &str = "dGhyb3VnaGxpbmViZW5jaA==";
/// Longest answer to the handshake.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Longest header of a frame from a server.
const HEADER_BYTES_MAX: usize = 10;

/// Opens `path` as a WebSocket on a connection that blocks; returns what was read beyond the
/// answer.
///
/// # Errors
/// Another answer.
pub fn open(stream: &mut TcpStream, path: &str) -> anyhow::Result<Vec<u8>> {
    let host = stream.peer_addr()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let bytes = stream.read(&mut buffer)?;
        ensure!(bytes > 0 && answer.len() < ANSWER_BYTES_MAX, "no answer to a handshake");
        answer.extend_from_slice(&buffer[..bytes]);
        let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        if !answer.starts_with(b"HTTP/1.1 101") {
            bail!("GET {path}: {}", String::from_utf8_lossy(&answer));
        }
        return Ok(answer.split_off(end + 4));
    }
}

/// One frame of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Whether it carries text: an event.
    pub is_text: bool,
    /// Whether it says that nothing follows.
    pub is_close: bool,
    /// Bytes of header and payload.
    pub bytes: usize,
}

/// The frame at the front of `bytes`, if its header is there.
pub fn frame(bytes: &[u8]) -> Option<Frame> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (header, payload) = match head[1] & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (HEADER_BYTES_MAX, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let opcode = head[0] & 0x0f;
    let bytes = usize::try_from(payload).unwrap_or(usize::MAX).saturating_add(header);
    Some(Frame { is_text: opcode == 1, is_close: opcode == 8, bytes })
}

/// Counts the frames of a stream that comes in pieces, without holding them.
#[derive(Debug, Default)]
pub struct Counter {
    /// Whole frames with text so far.
    pub texts: u64,
    /// Their bytes with headers, and those of the one that is under way.
    pub bytes: u64,
    /// Whether the server has closed.
    pub closed: bool,
    /// Bytes still to come of a frame whose header is known; whether it carries text.
    rest: usize,
    is_text: bool,
    /// The beginning of a header that was cut.
    header: Vec<u8>,
}

impl Counter {
    /// Takes the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.rest == 0 {
                let before = self.header.len();
                let more = piece.len().min(HEADER_BYTES_MAX - before);
                self.header.extend_from_slice(&piece[..more]);
                let Some(frame) = frame(&self.header) else { return };
                // What was kept of the header had no whole frame in it, so the frame ends here
                // or later.
                self.header.clear();
                self.is_text = frame.is_text;
                self.closed |= frame.is_close;
                if frame.is_text {
                    self.bytes += frame.bytes as u64;
                }
                self.rest = frame.bytes - before;
            }
            let taken = self.rest.min(piece.len());
            self.rest -= taken;
            piece = &piece[taken..];
            if self.rest == 0 && self.is_text {
                self.texts += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: usize) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload {
            0..126 => frame.push(payload as u8),
            126..65_536 => {
                frame.push(126);
                frame.extend_from_slice(&(payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + payload, b'x');
        frame
    }

    #[test]
    fn frames_are_counted_however_the_stream_is_cut() {
        let ping = [0x89, 2, 0, 0];
        let stream = [text(0), text(5), ping.to_vec(), text(126), text(70_000), text(3)].concat();
        let texts = stream.len() - ping.len();
        for cut in [1, 2, 3, 7, 100, 4096, stream.len()] {
            let mut counter = Counter::default();
            stream.chunks(cut).for_each(|piece| counter.feed(piece));
            assert_eq!((counter.texts, counter.bytes), (5, texts as u64), "pieces of {cut}");
            assert!(!counter.closed);
        }
    }

    #[test]
    fn a_close_is_noticed() {
        let mut counter = Counter::default();
        counter.feed(&[0x88, 2, 3, 0xe8]);
        assert!(counter.closed);
    }
}
