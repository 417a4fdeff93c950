//! `POST /v1/sessions/:id/append`: single events as JSON, and batches with an event per line.

use super::writers::Writers;
use super::{Protocol, http_reply};

/// Appends over HTTP, keep-alive.
#[derive(Debug)]
pub struct Appends {
    writers: Writers,
    /// Bytes of one event; in a batch with the end of its line.
    size: usize,
    /// Events per request; 0 sends single ones as JSON.
    batch: u64,
    /// What follows the session's id in the request.
    rest_of_head: String,
}

impl Appends {
    /// One event of `size` bytes per request.
    pub fn single(host: &str, writers: Writers, size: usize) -> Appends {
        let rest_of_head = rest_of_head(host, "application/json", size);
        Appends { writers, size, batch: 0, rest_of_head }
    }

    /// `events` lines of `size` bytes per request.
    pub fn batch(host: &str, writers: Writers, size: usize, events: u64) -> Appends {
        let rest_of_head = rest_of_head(host, "application/x-ndjson", size * events as usize);
        Appends { writers, size, batch: events, rest_of_head }
    }
}

fn rest_of_head(host: &str, kind: &str, length: usize) -> String {
    format!(
        "/append HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    )
}

impl Protocol for Appends {
    fn request(&mut self, place: usize, out: &mut Vec<u8>) {
        let position = self.writers.next(place, self.batch.max(1));
        self.writers.head(position.session, &self.rest_of_head, out);
        if self.batch == 0 {
            self.writers.event(place, position.seq, self.size, out);
            return;
        }
        for seq in position.seq..position.seq + self.batch {
            self.writers.event(place, seq, self.size - 1, out);
            out.push(b'\n');
        }
    }

    fn reply(&mut self, _place: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        http_reply("201", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(mut appends: Appends) -> (String, String) {
        let mut out = Vec::new();
        appends.request(0, &mut out);
        let text = String::from_utf8(out).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn requests_carry_as_much_as_their_heads_say() {
        let writers = || Writers::new("s", 7, 1, "r".into(), 1);
        let (head, body) = sent(Appends::single("h", writers(), 300));
        assert!(head.starts_with("POST /v1/sessions/s7/append HTTP/1.1\r\nhost: h\r\n"), "{head}");
        assert!(head.ends_with("content-length: 300") && body.len() == 300, "{head}");
        let (head, body) = sent(Appends::batch("h", writers(), 100, 64));
        assert!(head.ends_with("content-length: 6400") && body.len() == 6400, "{head}");
        assert_eq!(body.lines().count(), 64);
        assert!(body.lines().last().expect("a line").contains("\"producer_seq\":64,"));
    }
}
