//! Frames of one size, each answered by 8 bytes: what the ceiling's server takes.

use super::Protocol;

/// Bytes of a reply.
pub const REPLY_BYTES: usize = 8;

/// Raw frames.
#[derive(Debug)]
pub struct Raw {
    /// Bytes of each.
    pub size: usize,
}

impl Protocol for Raw {
    fn request(&mut self, _place: usize, out: &mut Vec<u8>) {
        out.resize(out.len() + self.size, b'x');
    }

    fn reply(&mut self, _place: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        Ok((bytes.len() >= REPLY_BYTES).then_some(REPLY_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_eight_bytes() {
        let mut raw = Raw { size: 10 };
        assert_eq!(raw.reply(0, &[0; 7]), Ok(None));
        assert_eq!(raw.reply(0, &[0; 9]), Ok(Some(8)));
    }
}
