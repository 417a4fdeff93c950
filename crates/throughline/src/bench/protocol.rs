//! What the load speaks: raw frames, HTTP, and the languages of the servers that a node is
//! compared with.

use std::fmt::Debug;
use std::net::TcpStream;

pub mod append;
pub mod mixed;
pub mod postgres;
pub mod raw;
pub mod redis;
pub mod writers;

/// Requests and how their replies are recognised. Places count connections from 0.
pub trait Protocol: Debug {
    /// Speaks first on a new connection, which still blocks.
    ///
    /// # Errors
    /// What the server answered instead of letting us in.
    fn greet(&mut self, _stream: &mut TcpStream) -> anyhow::Result<()> {
        Ok(())
    }

    /// Puts the next request of a connection behind `out`.
    fn request(&mut self, place: usize, out: &mut Vec<u8>);

    /// Length of the reply at the front of `bytes` once it is whole.
    ///
    /// # Errors
    /// A reply that is no success, in words.
    fn reply(&mut self, place: usize, bytes: &[u8]) -> Result<Option<usize>, String>;
}

/// Length of the HTTP reply at the front of `bytes` once it is whole; its status must be
/// `status`.
///
/// # Errors
/// Another status, or a reply whose length is not told, in words.
pub fn http_reply(status: &str, bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut length = None;
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = bytes[at..at + end].strip_suffix(b"\r").unwrap_or(&bytes[at..at + end]);
        at += end + 1;
        if line.is_empty() {
            break;
        }
        length = length.or_else(|| content_length(line));
    }
    let whole = at + length.ok_or("a reply without content-length")?;
    if bytes.len() < whole {
        return Ok(None);
    }
    // "HTTP/1.1 " has nine bytes.
    if bytes.get(9..9 + status.len()) != Some(status.as_bytes()) {
        return Err(String::from_utf8_lossy(&bytes[..whole]).into_owned());
    }
    Ok(Some(whole))
}

fn content_length(line: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found_whole_or_not_at_all() {
        let reply = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}rest";
        for cut in [0, 10, 22, 40, 44] {
            assert_eq!(http_reply("201", &reply[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(http_reply("201", reply), Ok(Some(reply.len() - 4)));
        assert!(http_reply("201", b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(http_reply("201", b"HTTP/1.1 201 Created\r\nx: y\r\n\r\n").is_err());
    }
}
