//! Server-sent events out of a stream of bytes, cut anywhere.
//!
//! # Source
//! The event stream interpretation of the HTML standard: lines end in LF, CR LF or CR; a blank
//! line ends an event; data lines are joined by LF; a line that starts with a colon is a comment.

use std::collections::VecDeque;

use bytes::Bytes;

use super::FRAME_BYTES_MAX;

/// One event or comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseUnit {
    /// A comment line, used as a heartbeat.
    Comment,
    /// An event with its kind (`message` when it names none) and data.
    Event {
        /// Value of the `event` field.
        kind: String,
        /// The data lines, joined by line feeds.
        data: Bytes,
    },
}

/// An event longer than this client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {FRAME_BYTES_MAX} bytes")]
pub struct TooLong;

/// The parser's state between two chunks.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    kind: String,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was CR: an LF right behind it belongs to the same line end.
    after_cr: bool,
    started: bool,
}

impl SseParser {
    /// Takes the next bytes and puts what they complete behind `out`.
    ///
    /// # Errors
    /// [`TooLong`] when an event passes the limit; the stream must be dropped then.
    pub fn push(&mut self, bytes: &[u8], out: &mut VecDeque<SseUnit>) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                Some(end) => {
                    self.extend(&rest[..end])?;
                    self.after_cr = rest[end] == b'\r';
                    rest = &rest[end + 1..];
                    self.end_line(out);
                }
                None => {
                    self.extend(rest)?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + bytes.len() > FRAME_BYTES_MAX {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, out: &mut VecDeque<SseUnit>) {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xEF\xBB\xBF") {
            line.drain(..3);
        }
        if line.is_empty() {
            if self.has_data {
                let kind = std::mem::take(&mut self.kind);
                let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                out.push_back(SseUnit::Event { kind, data: std::mem::take(&mut self.data).into() });
            }
            self.kind.clear();
            self.data.clear();
            self.has_data = false;
            return;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(0) => return out.push_back(SseUnit::Comment),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.kind = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            // The id repeats the event's seq; retry times are ours to choose.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Vec<SseUnit> {
        let (mut parser, mut out) = (SseParser::default(), VecDeque::new());
        for chunk in chunks {
            parser.push(chunk, &mut out).expect("short");
        }
        out.into()
    }

    fn event(kind: &str, data: &str) -> SseUnit {
        SseUnit::Event { kind: kind.into(), data: Bytes::copy_from_slice(data.as_bytes()) }
    }

    #[test]
    fn events_comments_and_joined_lines() {
        let text = b"\xEF\xBB\xBFid: 1\nevent: event\ndata: {\"a\":1}\n\n: 1\n\ndata:x\r\ndata: y\r\n\r\nevent: end\ndata:\n\n";
        let want = vec![
            event("event", "{\"a\":1}"),
            SseUnit::Comment,
            event("message", "x\ny"),
            event("end", ""),
        ];
        assert_eq!(parse(&[text]), want);
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert_eq!(parse(&[b"event: event\n\ndata: z\n\n"]), [event("message", "z")]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (mut parser, mut out) = (SseParser::default(), VecDeque::new());
        let chunk = vec![b'x'; FRAME_BYTES_MAX];
        assert_eq!(parser.push(&chunk, &mut out), Ok(()));
        assert_eq!(parser.push(b"y", &mut out), Err(TooLong));
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(text in "[ab:\r\n ]{0,60}(data: x\n\n)?", cut in 0usize..60) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            prop_assert_eq!(parse(&[&bytes[..cut], &bytes[cut..]]), parse(&[bytes]));
        }
    }
}
