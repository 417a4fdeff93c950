//! `XADD` in Redis' protocol: each request adds one value to one stream.

use std::io::Write;

use super::Protocol;

/// Additions to streams, one after another.
#[derive(Debug)]
pub struct Additions {
    streams: u32,
    value: Vec<u8>,
    next: u32,
}

impl Additions {
    /// Values of `size` bytes over so many streams.
    pub fn new(streams: u32, size: usize) -> Additions {
        Additions { streams, value: vec![b'x'; size], next: 0 }
    }
}

impl Protocol for Additions {
    fn request(&mut self, _place: usize, out: &mut Vec<u8>) {
        self.next = (self.next + 1) % self.streams;
        let stream = format!("bench-{}", self.next);
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            "*5\r\n$4\r\nXADD\r\n${}\r\n{stream}\r\n$1\r\n*\r\n$1\r\nv\r\n${}\r\n",
            stream.len(),
            self.value.len()
        );
        out.extend_from_slice(&self.value);
        out.extend_from_slice(b"\r\n");
    }

    /// A bulk string: the id of the new entry.
    fn reply(&mut self, _place: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(end) = bytes.windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&bytes[..end]);
        let length: usize =
            line.strip_prefix('$').and_then(|text| text.parse().ok()).ok_or(line.clone())?;
        let whole = end + 2 + length + 2;
        Ok((bytes.len() >= whole).then_some(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_names_stream_and_value() {
        let mut out = Vec::new();
        Additions::new(9, 4).request(0, &mut out);
        let expected = "*5\r\n$4\r\nXADD\r\n$7\r\nbench-1\r\n$1\r\n*\r\n$1\r\nv\r\n$4\r\nxxxx\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn an_id_is_a_reply_and_an_error_is_none() {
        let mut additions = Additions::new(1, 1);
        let reply = b"$3\r\n1-0\r\n";
        assert_eq!(additions.reply(0, &reply[..8]), Ok(None));
        assert_eq!(additions.reply(0, reply), Ok(Some(9)));
        assert!(additions.reply(0, b"-ERR no\r\n").is_err());
    }
}
